"""A snapshot file on its way from one member to another: a stream of its own, on a connection of its own.

Of its own, so that what fills its buffers is never in the way of a heartbeat. The sender offers a file, is told
where to go on (a stream that was cut goes on where it was, SAFETY 26), writes pieces, and is told at the end
whether the file was whole and taken in. Memory is bounded on both sides: a piece is read when the one before
has left, and the receiver reads a piece when the one before is written.

Paced: a pause after each piece bounds the rate, so that appends and heartbeats to others always find the loop
free (SAFETY 15). Whoever stops taking is given up after STALL_SECONDS.

Both ends say hello first, with the checks of :mod:`lattice_core.rpc.peers` (SAFETY 47).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from lattice_core.raft.types import NodeId
from lattice_core.rpc.aio import CONNECTION_ERRORS, EOF
from lattice_core.rpc.codec import MalformedMessage
from lattice_core.rpc.link import HELLO_TIMEOUT_SECONDS, describe, note_refusal
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import REFUSAL_METADATA_KEY, HelloRefused, PeerDirectory

SNAPSHOT_METHOD = "/lattice.v1.Raft/Snapshot"

PIECE_BYTES = 256 << 10
"""About a millisecond of either side's loop, gRPC's copies included."""

PIECE_PAUSE_SECONDS = 0.004
"""After each piece: at most 64 MiB a second, and four fifths of the loop for everything else."""

STALL_SECONDS = 10.0
"""A piece that is not taken for so long: the disk there, or the peer, is in no state to be caught up."""

VERDICT_SECONDS = 60.0
"""For the receiver to check the whole file: at a few hundred MiB a second, more than a state in memory has."""

log = logging.getLogger("lattice.rpc")


@dataclass(frozen=True, slots=True)
class Offer:
    """A snapshot file, and the term and round of the leader that offers it."""

    term: int
    round: int
    name: str
    size_bytes: int


class Refused(Exception):
    """The receiver does not want the file, or could not take it; the reason is for the log."""


class Sink(Protocol):
    """Where a file that comes in goes. A later ``begin`` ends what an earlier stream began."""

    async def begin(self, peer: NodeId, offer: Offer) -> int | None:
        """From which byte to go on; None: the file brings nothing new here. Raises Refused."""

    async def write(self, peer: NodeId, offer: Offer, offset: int, data: bytes) -> None:
        """The next piece. Raises Refused."""

    async def finish(self, peer: NodeId, offer: Offer) -> None:
        """All of it has come: check it and hand it over. Raises Refused."""


async def send_snapshot(
    peer: NodeId,
    addr: str,
    directory: PeerDirectory,
    offer: Offer,
    read: Callable[[int, int], Awaitable[bytes]],
    wanted: Callable[[], bool],
) -> None:
    """Returns when the peer has taken the file in.

    ``read(offset, size)`` gives the file's bytes; ``wanted`` is asked before each piece. Raises Refused with the
    reason, one of CONNECTION_ERRORS, and whatever ``read`` raises.
    """
    async with directory.security.open_channel(directory.name_of(peer), addr) as channel:
        open_stream: Any = channel.stream_stream
        call = open_stream(SNAPSHOT_METHOD)()
        try:
            await _send(call, directory.hello(peer), offer, read, wanted)
        except CONNECTION_ERRORS as error:
            note_refusal(error, directory, peer)
            raise
        finally:
            call.cancel()


async def _send(
    call: Any,
    hello: raft_pb2.Hello,
    offer: Offer,
    read: Callable[[int, int], Awaitable[bytes]],
    wanted: Callable[[], bool],
) -> None:
    wire = raft_pb2.SnapshotOffer(term=offer.term, round=offer.round, name=offer.name, size_bytes=offer.size_bytes)
    async with asyncio.timeout(HELLO_TIMEOUT_SECONDS + STALL_SECONDS):
        await _write(call, raft_pb2.SnapshotPart(hello=hello, offer=wire))
        answer = await _read_answer(call)
    offset = answer.received_bytes
    if not answer.HasField("delivered"):
        if not 0 <= offset <= offer.size_bytes:
            raise Refused(f"it wants to go on at byte {offset} of {offer.size_bytes}")
        while offset < offer.size_bytes:
            if not wanted():
                raise Refused("it is not wanted any more")
            data = await read(offset, min(PIECE_BYTES, offer.size_bytes - offset))
            if not data:
                raise Refused(f"the file ends at byte {offset} of {offer.size_bytes}")
            async with asyncio.timeout(STALL_SECONDS):
                await _write(call, raft_pb2.SnapshotPart(offset=offset, data=data))
            offset += len(data)
            await asyncio.sleep(PIECE_PAUSE_SECONDS)
        async with asyncio.timeout(VERDICT_SECONDS):
            answer = await _read_answer(call)
    if not answer.delivered:
        raise Refused(answer.reason or "no reason was given")


async def _write(call: Any, part: raft_pb2.SnapshotPart) -> None:
    try:
        await call.write(part.SerializeToString())
    except asyncio.InvalidStateError:
        pass  # ended already; reading the answer says why


async def _read_answer(call: Any) -> raft_pb2.SnapshotAnswer:
    data = await call.read()
    if data is EOF:
        raise grpc.aio.AioRpcError(
            await call.code(), grpc.aio.Metadata(), await call.trailing_metadata(), await call.details(), None
        )
    try:
        return raft_pb2.SnapshotAnswer.FromString(data)
    except DecodeError as error:
        raise Refused(f"an answer that is none: {error}") from None


# -- the receiving end ----------------------------------------------------------------------------


async def serve_snapshot(directory: PeerDirectory, sink: Sink, context: Any) -> None:
    """The handler of ``Raft.Snapshot``, on bytes."""
    try:
        first = await _first_part(context)
        proven = directory.security.proven_members(context)
        peer = (await directory.admit(first.hello, expected=None, proven=proven)).node_id
    except HelloRefused as refused:
        directory.log_refusal(f"refused a snapshot from {context.peer()}: {refused.message}")
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION, refused.message, ((REFUSAL_METADATA_KEY, refused.kind.value),)
        )
        raise AssertionError("unreachable: abort raises") from None
    except MalformedMessage as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError("unreachable: abort raises") from None
    except CONNECTION_ERRORS:
        return
    offer = Offer(first.offer.term, first.offer.round, first.offer.name, first.offer.size_bytes)
    try:
        await _receive(peer, offer, sink, context)
        answer = raft_pb2.SnapshotAnswer(received_bytes=offer.size_bytes, delivered=True)
    except (Refused, MalformedMessage) as error:
        answer = raft_pb2.SnapshotAnswer(delivered=False, reason=str(error))
    except CONNECTION_ERRORS as error:
        log.debug("a snapshot from %s was cut: %s", directory.name_of(peer), describe(error))
        return
    try:
        await context.write(answer.SerializeToString())
    except CONNECTION_ERRORS:
        pass  # it will ask again


async def _receive(peer: NodeId, offer: Offer, sink: Sink, context: Any) -> None:
    """Returns when the sink has the whole file. Raises Refused, MalformedMessage, CONNECTION_ERRORS."""
    offset = await sink.begin(peer, offer)
    if offset is None:
        return
    await context.write(raft_pb2.SnapshotAnswer(received_bytes=offset).SerializeToString())
    while offset < offer.size_bytes:
        async with asyncio.timeout(STALL_SECONDS):
            data = await context.read()
        if data is EOF:
            raise MalformedMessage(f"the stream ended after {offset} of {offer.size_bytes} bytes")
        part = _decode(data)
        if part.offset != offset or not part.data:
            raise MalformedMessage(f"a piece at {part.offset} where {offset} was due")
        await sink.write(peer, offer, offset, part.data)
        offset += len(part.data)
    await sink.finish(peer, offer)


async def _first_part(context: Any) -> raft_pb2.SnapshotPart:
    async with asyncio.timeout(HELLO_TIMEOUT_SECONDS):
        data = await context.read()
    if data is EOF:
        raise MalformedMessage("the stream ended without an offer")
    part = _decode(data)
    if not part.HasField("hello") or not part.HasField("offer"):
        raise MalformedMessage("the first part is no hello and offer")
    return part


def _decode(data: bytes) -> raft_pb2.SnapshotPart:
    try:
        return raft_pb2.SnapshotPart.FromString(data)
    except DecodeError as error:
        raise MalformedMessage(f"not a part of a snapshot: {error}") from None
