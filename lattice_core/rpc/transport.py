"""The peer transport: which way a message goes, and the streams that come in.

Between two members there are up to two streams, one dialled by each side. A member's *requests* go out on
the stream it dialled; its *answers* go back on the one that the questions come by, so that in a settled
cluster a follower never has to dial its leader. Where that stream has gone, an answer takes the other way:
receivers take any message on either half.

A stream concerns one peer only; whatever happens to it (malformed bytes, a refused hello, a dead
connection) ends that stream and touches nothing else (SAFETY 48).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, KeysView, Sequence
from typing import Any

import grpc

from lattice_core.raft.messages import RESPONSES, Message
from lattice_core.raft.types import Configuration, NodeId
from lattice_core.rpc.aborts import BriefAborts
from lattice_core.rpc.aio import CONNECTION_ERRORS, EOF, until_first_ends
from lattice_core.rpc.codec import MalformedMessage, decode_envelope
from lattice_core.rpc.credentials import PeerSecurity
from lattice_core.rpc.link import (
    HELLO_TIMEOUT_SECONDS,
    EntryTracer,
    PeerLink,
    Receive,
    describe,
    read_envelopes,
    write_envelopes,
)
from lattice_core.rpc.outbox import Outbox
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import (
    REFUSAL_METADATA_KEY,
    HelloRefused,
    PeerDirectory,
    PeerInfo,
    Refusal,
)
from lattice_core.rpc.snapshot_stream import Sink, serve_snapshot

log = logging.getLogger("lattice.rpc")

_RESPONSES = frozenset(RESPONSES)


class _Inbound:
    """A stream that a peer has dialled: what we have to answer on it, and whether it is to end (another has taken its
    place, or its peer is no member any more)."""

    def __init__(self) -> None:
        self.outbox = Outbox(lambda: None)  # answers carry no entries; only the urgent lane is used
        self.over = asyncio.Event()


class PeerTransport:
    """Owns every link and every incoming stream of one node. Lives on one event loop.

    ``receive`` gets messages as they arrive, ``on_unreachable`` a peer's id whenever messages to it were
    dropped. Both are called on the loop and must not block.
    """

    def __init__(
        self,
        directory: PeerDirectory,
        receive: Receive,
        on_unreachable: Callable[[NodeId], None],
        tracer: EntryTracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._directory = directory
        self._receive = receive
        self._on_unreachable = on_unreachable
        self._local_id = directory.local.node_id
        self._links: dict[NodeId, PeerLink] = {}
        self._inbound: dict[NodeId, _Inbound] = {}
        self._inbound_ended: dict[NodeId, float] = {}
        """Loop time at which the last stream from a peer ended."""
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._opened = asyncio.Event()

    @property
    def security(self) -> PeerSecurity:
        return self._directory.security

    def open(self) -> None:
        """Let messages in. Until then incoming streams get no further than hello."""
        self._opened.set()

    # -- sending ----------------------------------------------------------------------------------

    def set_configuration(self, configuration: Configuration, leaving: Collection[NodeId] = ()) -> None:
        """Have a link for each other member, at its address; drop those of members that are gone.

        ``leaving``: those who are not in the configuration any more and have yet to be told so keep their link.
        """
        if self._closed:
            return
        dial_addr_of = self._directory.dial_addr_of
        wanted = {member.id: dial_addr_of(member) for member in configuration.members if member.id != self._local_id}
        for peer in leaving:
            if peer in self._links:
                wanted.setdefault(peer, self._links[peer].addr)
        for peer in [peer for peer, link in self._links.items() if wanted.get(peer) != link.addr]:
            self._close_later(self._links.pop(peer))
            self._inbound_ended.pop(peer, None)
            if peer not in wanted and peer in self._inbound:
                # It says hello but once on a stream, and only the answer to a hello tells it that it was removed.
                self._inbound[peer].over.set()
        for peer, addr in wanted.items():
            if peer not in self._links:
                link = PeerLink(peer, addr, self._directory, self._receive, self._on_unreachable, self._tracer)
                self._links[peer] = link
                link.start()

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages. Never blocks, never raises for a peer's sake; what cannot be kept is dropped."""
        for message in messages:
            if type(message) in _RESPONSES:
                inbound = self._inbound.get(message.to)
                if inbound is not None:
                    inbound.outbox.put(message)
                    continue
            link = self._links.get(message.to)
            if link is not None:
                link.send(message)

    def reach_out(self) -> None:
        """Dial every peer that there is no stream to."""
        for peer, link in self._links.items():
            if peer not in self._inbound:
                link.dial()

    @property
    def peers(self) -> KeysView[NodeId]:
        """Whom there is a link for."""
        return self._links.keys()

    def connected(self, peer: NodeId) -> bool:
        """Whether a stream with this peer is up, in either direction."""
        link = self._links.get(peer)
        return peer in self._inbound or (link is not None and link.connected)

    def queued_bytes(self, peer: NodeId) -> int:
        """Entries that wait to be sent to this peer."""
        link = self._links.get(peer)
        return 0 if link is None else link.queued_bytes

    def down_seconds(self, peer: NodeId) -> float | None:
        """Since when no stream to this peer could be had; None: there is one, or none was tried."""
        link = self._links.get(peer)
        if link is None or link.down_since is None or peer in self._inbound:
            return None
        # The link may have given up long ago, and been missed by nobody while the peer's own stream was there.
        since = max(link.down_since, self._inbound_ended.get(peer, 0.0))
        return asyncio.get_running_loop().time() - since

    async def status(self, peer: NodeId, timeout_seconds: float) -> raft_pb2.MemberStatus | None:
        """The peer's own account of itself, or None if it does not answer in time."""
        link = self._links.get(peer)
        if link is None:
            return None
        try:
            async with asyncio.timeout(timeout_seconds):
                return await link.status(timeout_seconds)
        except CONNECTION_ERRORS:
            return None

    async def state_hash(
        self, peer: NodeId, request: raft_pb2.StateHashRequest, timeout_seconds: float
    ) -> raft_pb2.StateHashResponse | None:
        """The peer's answer, or None if it does not come in time."""
        link = self._links.get(peer)
        if link is None:
            return None
        try:
            async with asyncio.timeout(timeout_seconds):
                return await link.state_hash(request, timeout_seconds)
        except CONNECTION_ERRORS:
            return None

    def speaks_for(self, node_id: NodeId, context: object) -> bool:
        """Whether the other end of a handler's connection has proven to be that member; without TLS it is believed."""
        proven = self.security.proven_members(context)
        return proven is None or self._directory.name_of(node_id) in proven

    async def close(self) -> None:
        """End all streams and wait for their tasks. Safe to repeat."""
        self._closed = True
        links, self._links = list(self._links.values()), {}
        for inbound in self._inbound.values():
            inbound.over.set()
        await asyncio.gather(*(link.close() for link in links), *self._closing)

    def _close_later(self, link: PeerLink) -> None:
        task = asyncio.create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- streams that come in ---------------------------------------------------------------------

    async def serve_stream(self, _requests: object, context: Any) -> None:
        """The handler of ``Raft.Stream``, on bytes."""
        try:
            peer = await self._greet(context)
        except HelloRefused as refused:
            host = context.peer().rpartition(":")[0]  # each attempt has another port, and would be another line
            self._directory.log_refusal(f"refused a stream from {host}: {refused.message}")
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                refused.message,
                ((REFUSAL_METADATA_KEY, refused.kind.value),),
            )
            raise AssertionError("unreachable: abort raises") from None
        # From the check of its hello to here nothing is waited for: a removal meanwhile would not find the stream.
        inbound = _Inbound()
        previous = self._inbound.get(peer.node_id)
        if previous is not None:
            previous.over.set()
        self._inbound[peer.node_id] = inbound
        link = self._links.get(peer.node_id)
        if link is not None:
            link.nudge()
        try:
            await context.write(raft_pb2.Envelope(hello=self._directory.hello(peer.node_id)).SerializeToString())
            await until_first_ends(
                _finished(inbound.over),
                write_envelopes(inbound.outbox, context.write),
                self._read(peer.node_id, context),
            )
        except MalformedMessage as error:
            text = "closed the stream from %s (%s): %s"
            log.warning(text, peer.name, context.peer(), error, extra={"peer": peer.name})
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except CONNECTION_ERRORS as error:
            log.debug("the stream from %s ended: %s", peer.name, describe(error))
        finally:
            if self._inbound.get(peer.node_id) is inbound:
                del self._inbound[peer.node_id]
                if peer.node_id in self._links:
                    self._inbound_ended[peer.node_id] = asyncio.get_running_loop().time()

    def snapshot_handler(self, sink: Sink) -> Callable[[object, Any], Awaitable[None]]:
        """The handler of ``Raft.Snapshot``: files go into ``sink``, once messages are let in."""

        async def serve(_requests: object, context: Any) -> None:
            await self._opened.wait()
            await serve_snapshot(self._directory, sink, context)

        return serve

    async def _read(self, peer: NodeId, context: Any) -> None:
        await self._opened.wait()
        await read_envelopes(peer, context.read, self._receive, self._tracer)

    async def _greet(self, context: Any) -> PeerInfo:
        """The peer's hello, checked. Raises HelloRefused."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_SECONDS):
                data = await context.read()
        except TimeoutError:
            raise HelloRefused(Refusal.MALFORMED, "no hello in time") from None
        if data is EOF:
            raise HelloRefused(Refusal.MALFORMED, "the stream ended without a hello")
        try:
            envelope = decode_envelope(data)
        except MalformedMessage as error:
            raise HelloRefused(Refusal.MALFORMED, str(error)) from None
        if not envelope.HasField("hello"):
            raise HelloRefused(Refusal.MALFORMED, "the first envelope is not a hello")
        if self._closed:
            raise HelloRefused(Refusal.MALFORMED, "this member is shutting down")
        proven = self._directory.security.proven_members(context)
        return await self._directory.admit(envelope.hello, expected=None, proven=proven)


async def _finished(event: asyncio.Event) -> None:
    await event.wait()


def raft_handlers(
    transport: PeerTransport,
    status: Callable[[], Awaitable[raft_pb2.MemberStatus]],
    sink: Sink | None = None,
    state_hash: Callable[[raft_pb2.StateHashRequest], raft_pb2.StateHashResponse] | None = None,
) -> grpc.GenericRpcHandler[Any, Any]:
    """The Raft service: the streams on bytes (we parse, so that errors are ours), the rest as generated.

    Without a ``sink`` no snapshots are taken in; without ``state_hash`` nobody is told of it.
    """

    async def serve_status(_request: raft_pb2.StatusRequest, context: object) -> raft_pb2.MemberStatus:
        await transport.security.require_member(context)
        return await status()

    handlers = {
        "Stream": grpc.stream_stream_rpc_method_handler(transport.serve_stream),
        "Status": grpc.unary_unary_rpc_method_handler(
            serve_status,
            request_deserializer=raft_pb2.StatusRequest.FromString,
            response_serializer=raft_pb2.MemberStatus.SerializeToString,
        ),
    }
    if state_hash is not None:
        answer = state_hash

        async def serve_state_hash(request: raft_pb2.StateHashRequest, context: object) -> raft_pb2.StateHashResponse:
            await transport.security.require_member(context)
            if not transport.speaks_for(request.asker_id, context):
                request.ClearField("asker_id")
            return answer(request)

        handlers["StateHash"] = grpc.unary_unary_rpc_method_handler(
            serve_state_hash,
            request_deserializer=raft_pb2.StateHashRequest.FromString,
            response_serializer=raft_pb2.StateHashResponse.SerializeToString,
        )
    if sink is not None:
        handlers["Snapshot"] = grpc.stream_stream_rpc_method_handler(transport.snapshot_handler(sink))
    return BriefAborts(grpc.method_handlers_generic_handler("lattice.v1.Raft", handlers))
