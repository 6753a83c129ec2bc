"""The outgoing half of talking to one peer: dial, keep the stream, dial again when there is something to say.

One task per peer. It dials once at the start, so that members know each other's names, addresses and
incarnations before they need them, and so that a peer which waits to reach a restarted node learns that
it is back; after that, only when something waits.

Each attempt gets a channel of its own, so that no backoff but ours is in play: the first retry after about
50 ms, then doubling to about a second, each with jitter so that three nodes which start together do not
stay in step. A peer that dials us has just shown that it is up: :meth:`PeerLink.nudge` ends the wait.

When a stream ends for any reason, what waited is dropped and the core is told; it probes again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import grpc

from lattice_core.raft.messages import Message
from lattice_core.raft.types import NodeId
from lattice_core.rpc.aio import CONNECTION_ERRORS, EOF, until_first_ends
from lattice_core.rpc.codec import MalformedMessage, decode_envelope, decode_messages, to_pb
from lattice_core.rpc.credentials import PeerSecurity
from lattice_core.rpc.options import CONNECT_TIMEOUT_MS
from lattice_core.rpc.outbox import Outbox
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import REFUSAL_METADATA_KEY, HelloRefused, PeerDirectory
from lattice_core.rpc.tls_diagnosis import diagnose, may_be_tls
from lattice_core.tls import member_dns_name

STREAM_METHOD = "/lattice.v1.Raft/Stream"
STATUS_METHOD = "/lattice.v1.Raft/Status"
STATE_HASH_METHOD = "/lattice.v1.Raft/StateHash"

FIRST_RETRY_SECONDS = 0.05
MAX_RETRY_SECONDS = 1.0
HELLO_TIMEOUT_SECONDS = CONNECT_TIMEOUT_MS / 1000

EXPLAIN_AGAIN_SECONDS = 10.0
"""Between two looks at why a peer cannot be talked to: each is a connection of its own."""

log = logging.getLogger("lattice.rpc")

Receive = Callable[[NodeId, Sequence[Message]], None]
"""Gets a whole envelope's messages from one peer. May raise MalformedMessage to have the stream closed."""


class EntryTracer(Protocol):
    """Who knows which entries hold traced batches (lattice_core/server/tracing.py)."""

    def outgoing(self, messages: Sequence[Message]) -> Iterable[raft_pb2.TracedEntry]:
        """What to say of the entries in these messages."""

    def incoming(self, marks: Iterable[raft_pb2.TracedEntry]) -> None:
        """Said of the entries in messages that are about to be received."""


class StreamEnded(Exception):
    """The other side closed the stream in good order."""


class PeerLink:
    """Call :meth:`start` once and :meth:`close` at the end; :meth:`send` at any time in between."""

    def __init__(
        self,
        peer: NodeId,
        addr: str,
        directory: PeerDirectory,
        receive: Receive,
        on_unreachable: Callable[[NodeId], None],
        tracer: EntryTracer | None = None,
    ) -> None:
        self.peer = peer
        self.addr = addr
        self.connected = False
        self.down_since: float | None = None
        """Loop time since when no stream could be had; None while connected or never tried."""
        self._directory = directory
        self._receive = receive
        self._on_unreachable = on_unreachable
        self._tracer = tracer
        self._outbox = Outbox(lambda: on_unreachable(peer))
        self._nudge = asyncio.Event()
        self._explain_at = 0.0
        self._channel: grpc.aio.Channel | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"link to {self.addr}")

    @property
    def queued_bytes(self) -> int:
        """Entries that wait to be written to the stream."""
        return self._outbox.bulk_bytes

    def send(self, message: Message) -> None:
        self._outbox.put(message)

    def nudge(self) -> None:
        """The peer is up: try again at once if a wait is on."""
        self._nudge.set()

    def dial(self) -> None:
        """Have a stream although nothing waits to be said: the hellos themselves may bring news."""
        if not self.connected:
            self._outbox.wake()

    async def close(self) -> None:
        """End the stream and the task. Safe to repeat."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def status(self, timeout_seconds: float) -> raft_pb2.MemberStatus:
        """Ask the peer for its status. Raises one of CONNECTION_ERRORS within the timeout."""
        if self._channel is not None and self.connected:
            return await call_status(self._channel, timeout_seconds)
        directory = self._directory
        return await fetch_status(directory.security, directory.name_of(self.peer), self.addr, timeout_seconds)

    async def state_hash(
        self, request: raft_pb2.StateHashRequest, timeout_seconds: float
    ) -> raft_pb2.StateHashResponse | None:
        """Ask the peer for the hash of its state; None, and the link is dialled, where there is no stream just now.
        Raises one of CONNECTION_ERRORS within the timeout."""
        if self._channel is None or not self.connected:
            self.dial()
            return None
        method: Any = self._channel.unary_unary(
            STATE_HASH_METHOD,
            request_serializer=raft_pb2.StateHashRequest.SerializeToString,
            response_deserializer=raft_pb2.StateHashResponse.FromString,
        )
        response: raft_pb2.StateHashResponse = await method(request, timeout=timeout_seconds)
        return response

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        wait = FIRST_RETRY_SECONDS
        introduced = False
        while True:
            if introduced:
                await self._outbox.wait()
            introduced = True
            try:
                await self._connection()
            except HelloRefused as refused:
                self._directory.log_refusal(f"dialled {self.addr}: {refused.message}")
                wait = MAX_RETRY_SECONDS
            except MalformedMessage as error:
                name = self._directory.name_of(self.peer)
                log.warning("closed the stream to %s (%s): %s", name, self.addr, error, extra={"peer": name})
            except StreamEnded:
                pass
            except CONNECTION_ERRORS as error:
                await self._failed(error)
            except Exception:
                # A fault of ours, or of the disk that binds incarnations: it must not silence the link for good.
                log.exception("the stream to %s (%s) ended", self._directory.name_of(self.peer), self.addr)
            if self.connected:
                wait = FIRST_RETRY_SECONDS
                name = self._directory.name_of(self.peer)
                log.info("lost the stream to %s (%s)", name, self.addr, extra={"peer": name, "addr": self.addr})
            self.connected = False
            if self.down_since is None:
                self.down_since = loop.time()
            self._outbox.clear()
            self._on_unreachable(self.peer)
            await self._pause(wait * random.uniform(0.5, 1.5))
            wait = min(wait * 2, MAX_RETRY_SECONDS)

    async def _pause(self, seconds: float) -> None:
        self._nudge.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            pass

    async def _failed(self, error: BaseException) -> None:
        if note_refusal(error, self._directory, self.peer):
            return
        log.debug("no stream to %s: %s", self.addr, describe(error))
        now = asyncio.get_running_loop().time()
        if self.connected or now < self._explain_at:
            return
        self._explain_at = now + EXPLAIN_AGAIN_SECONDS
        name = self._directory.name_of(self.peer)
        reason = await explain(error, self._directory.security, name, self.addr)
        if reason is not None:
            self._directory.log_refusal(f"cannot talk to {name} at {self.addr}: {reason}")

    async def _connection(self) -> None:
        """One channel, one stream, from hello to its end. Always raises."""
        directory = self._directory
        async with directory.security.open_channel(directory.name_of(self.peer), self.addr) as channel:
            # Bytes in and out: parsing is ours, so that what cannot be parsed is our error to handle.
            open_stream: Any = channel.stream_stream
            call = open_stream(STREAM_METHOD)()
            try:
                async with asyncio.timeout(HELLO_TIMEOUT_SECONDS):
                    await say_hello(call, self._directory, self.peer)
                self._channel = channel
                self.connected = True
                self.down_since = None
                log.debug("stream to %s (%s) is up", self._directory.name_of(self.peer), self.addr)
                await until_first_ends(
                    write_envelopes(self._outbox, call.write, self._tracer),
                    read_envelopes(self.peer, call.read, self._receive),
                )
                raise StreamEnded
            finally:
                self._channel = None
                call.cancel()


async def say_hello(call: Any, directory: PeerDirectory, peer: NodeId) -> None:
    """Our hello, theirs, and the check of it. Raises HelloRefused, MalformedMessage, CONNECTION_ERRORS."""
    try:
        await call.write(raft_pb2.Envelope(hello=directory.hello(peer)).SerializeToString())
    except asyncio.InvalidStateError:
        pass  # ended already; the read below says why
    answer = await call.read()
    if answer is EOF:
        raise grpc.aio.AioRpcError(
            await call.code(), grpc.aio.Metadata(), await call.trailing_metadata(), await call.details(), None
        )
    envelope = decode_envelope(answer)
    if not envelope.HasField("hello"):
        raise MalformedMessage("the first envelope is not a hello")
    await directory.admit(envelope.hello, expected=peer)


def describe(error: BaseException) -> str:
    """A connection error in a few words."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {(error.details() or '').splitlines()[0] if error.details() else ''}"
    return f"{type(error).__name__}: {error}"


def note_refusal(error: BaseException, directory: PeerDirectory, peer: NodeId) -> bool:
    """Whether the peer has refused our hello; then the directory is told why."""
    if not isinstance(error, grpc.aio.AioRpcError) or error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
        return False
    trailing: Any = error.trailing_metadata() or ()
    kind = next((str(value) for key, value in trailing if key == REFUSAL_METADATA_KEY), "")
    directory.refused_by(peer, kind, error.details() or "")
    return True


async def greet(peer: NodeId, addr: str, directory: PeerDirectory, timeout_seconds: float) -> bool:
    """Exchange hellos with a member and hang up; whether that went well. A refusal is noted."""
    async with directory.security.open_channel(directory.name_of(peer), addr) as channel:
        open_stream: Any = channel.stream_stream
        call = open_stream(STREAM_METHOD)()
        try:
            async with asyncio.timeout(timeout_seconds):
                await say_hello(call, directory, peer)
            return True
        except HelloRefused as refused:
            directory.log_refusal(f"dialled {addr}: {refused.message}")
        except (MalformedMessage, *CONNECTION_ERRORS) as error:
            note_refusal(error, directory, peer)
        finally:
            call.cancel()
        return False


async def explain(error: BaseException, security: PeerSecurity, name: str, addr: str) -> str | None:
    """What is wrong with TLS between this side and the member ``name``, if that is why a connection failed."""
    if not isinstance(error, grpc.aio.AioRpcError) or not may_be_tls(error.details() or ""):
        return None
    finding = await diagnose(addr, security.material, member_dns_name(name))
    return finding.reason if finding is not None else None


async def write_envelopes(outbox: Outbox, write: Callable[[bytes], Any], tracer: EntryTracer | None = None) -> None:
    """Everything that waits goes out together, for as long as the stream lives. Never returns."""
    while True:
        await outbox.wait()
        messages = outbox.take()
        if messages:
            envelope = raft_pb2.Envelope(messages=[to_pb(message) for message in messages])
            if tracer is not None:
                envelope.traces.extend(tracer.outgoing(messages))
            await write(envelope.SerializeToString())


async def read_envelopes(
    peer: NodeId, read: Callable[[], Any], receive: Receive, tracer: EntryTracer | None = None
) -> None:
    """Hand on each envelope's messages; returns at the end of the stream. Raises MalformedMessage."""
    while True:
        data = await read()
        if data is EOF:
            return
        envelope = decode_envelope(data)
        messages = decode_messages(envelope.messages)
        for message in messages:
            if message.sender != peer:
                raise MalformedMessage(f"a message of {message.sender:016x} on the stream of {peer:016x}")
        if tracer is not None:
            tracer.incoming(envelope.traces)
        receive(peer, messages)


async def call_status(channel: grpc.aio.Channel, timeout_seconds: float) -> raft_pb2.MemberStatus:
    method: Any = channel.unary_unary(
        STATUS_METHOD,
        request_serializer=raft_pb2.StatusRequest.SerializeToString,
        response_deserializer=raft_pb2.MemberStatus.FromString,
    )
    status: raft_pb2.MemberStatus = await method(raft_pb2.StatusRequest(), timeout=timeout_seconds)
    return status


async def fetch_status(security: PeerSecurity, name: str, addr: str, timeout_seconds: float) -> raft_pb2.MemberStatus:
    """The status of whoever listens at a peer address; with TLS, of the server ``name`` or nobody. Raises one of
    CONNECTION_ERRORS."""
    async with security.open_channel(name, addr) as channel:
        return await call_status(channel, timeout_seconds)
