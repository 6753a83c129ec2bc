"""The client's one task: keep a stream to the leader while anybody wants something, and move batches over it.

Theory
  * Callers append to :class:`~lattice_core.client.writes.WriteQueue` or ``ReadQueue`` and set an event. The
    writer of the present connection wakes in the next turn of the loop and takes all that waits: what
    arrived in the same turn travels together, and nothing is ever held back to grow.
  * One connection at a time. It ends when the stream fails, when the member names another one as the leader,
    or when something has gone unanswered for too long. What was on it is parked in the queues, and the
    next member is asked: the hint, else the next address.
  * A member that knows no leader, or none but one that is known to be gone, is asked again a few times on the
    same connection: in an election it will soon know, and a message is cheaper than a connection.
  * A good hint and the first failure are followed at once; after that there is jittered backoff, until
    something is answered again. During an election all clients knock, but not in step.
  * Callers wait on their futures only, and one timer serves all deadlines, so an operation costs a future
    and an append, not a task or a timer.

Limits: see the queues. Tasks: one supervisor, and the four coroutines of the present connection; all of them
are gone when :meth:`Engine.close` returns.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import grpc

from lattice_core.client.channels import (
    AddressBook,
    ConnectFailed,
    TLSFailed,
    cluster_stub,
    connect_first,
    kv_stub,
    plain_reason,
)
from lattice_core.client.reads import Answer, Level, Read, ReadQueue
from lattice_core.client.writes import Result, WriteQueue
from lattice_core.errors import Busy, LatticeError, NoLeader, TooStale, Unavailable
from lattice_core.kv.commands import Op
from lattice_core.rpc.aio import CONNECTION_ERRORS, EOF, until_first_ends
from lattice_core.rpc.errors import from_detail, from_rpc_error
from lattice_core.rpc.pb import kv_pb2

BACKOFF_FIRST_SECONDS: Final = 0.015
BACKOFF_LAST_SECONDS: Final = 0.2
"""A new leader is found at most this long after it was elected, plus a connection."""
BACKOFF_GROWTH: Final = 1.25
"""A quarter more each time: the wait is about a fifth of the time that has passed, however long that is."""

ASK_AGAIN: Final = 5
"""How often a member that knows no leader is asked before another is. It may be cut off from the others."""

HINT_AGAIN_SECONDS: Final = 0.1
"""The same hint is followed at once only so often: two members may name each other for a while."""

STALL_SECONDS: Final = 1.0
"""Something sent and nothing heard for so long: ask elsewhere. A leader that lost its majority has stepped
down by then. Doubled each time in a row, so that a merely slow cluster is not flooded with copies."""
STALL_LAST_SECONDS: Final = 8.0
STALL_CHECK_SECONDS: Final = 0.1

DRAIN_SECONDS: Final = 0.05
"""How long a connection that is being left may still deliver answers. They are on their way already; and a
refusal that is heard keeps a batch out of doubt."""

LEARN_AFTER_SECONDS: Final = 0.2
LEARN_EVERY_SECONDS: Final = 2.0
"""When members' addresses are asked for, of one member that asks nobody else. Commands that run once are over before
the first time; a client that stays learns of a new member before the old ones can all have been replaced."""

CLOSE_SECONDS: Final = 0.25
"""How long closing may wait for the session to be closed. It would expire by itself."""

_ELSEWHERE: Final = frozenset(
    (
        kv_pb2.ERROR_CODE_NOT_LEADER,
        kv_pb2.ERROR_CODE_NO_LEADER,
        kv_pb2.ERROR_CODE_TOO_STALE,
        kv_pb2.ERROR_CODE_SHUTTING_DOWN,
    )
)
_WRONG: Final = frozenset(
    (
        kv_pb2.ERROR_CODE_INVALID,
        kv_pb2.ERROR_CODE_TOO_LARGE,
        kv_pb2.ERROR_CODE_NOT_ALLOWED,
        kv_pb2.ERROR_CODE_PERMISSION_DENIED,
        kv_pb2.ERROR_CODE_COMPACTED,
        kv_pb2.ERROR_CODE_STALE_SEQUENCE,
    )
)


class Backoff:
    """Delays that grow, each jittered by half either way."""

    def __init__(self) -> None:
        self._seconds = BACKOFF_FIRST_SECONDS

    def reset(self) -> None:
        self._seconds = BACKOFF_FIRST_SECONDS

    def next_seconds(self) -> float:
        import random  # by those whose first try failed

        seconds = self._seconds
        self._seconds = min(seconds * BACKOFF_GROWTH, BACKOFF_LAST_SECONDS)
        return seconds * random.uniform(0.5, 1.5)


class Engine:
    """Everything between the public methods and the wire. One event loop's, not thread-safe."""

    def __init__(self, book: AddressBook, *, window: int) -> None:
        self.writes = WriteQueue(window=window)
        self.reads = ReadQueue(window=window)
        self._book = book
        self._backoff = Backoff()
        self._free_tries = 1
        """Members that may still be asked without a pause; given back by every answer."""
        self._followed: dict[str, float] = {}
        """When each hint was last followed without a pause; forgotten with every answer."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._next_expiry = float("inf")
        self._closed = False
        self._trouble = Unavailable(f"no answer from {', '.join(book.given)} in time")
        self._broken: str | None = None
        """Whose stream broke last, if the one after it has not been opened yet."""
        self._served = False
        """Whether there has been a connection."""
        # Of the present connection:
        self._connected = False
        self._address = ""
        self._request_id = 0
        self._leaving = asyncio.Event()
        self._drained = asyncio.Event()
        self._hint: str | None = None
        self._opening: int | None = None
        self._opening_at = 0.0
        self._asked = 0
        self._resume_writes: asyncio.TimerHandle | None = None
        self._resume_reads: asyncio.TimerHandle | None = None
        """Running while the present member is not to be asked again just yet."""
        self._last_heard = 0.0
        self._stall_seconds = STALL_SECONDS
        self._close_request: int | None = None
        self._session_closed = asyncio.Event()

    # -- callers' side ------------------------------------------------------------------------------

    def write(self, op: Op, size: int, timeout: float) -> asyncio.Future[Result]:
        """Queue a validated operation of ``size`` bytes. Raises Busy, or Unavailable once closed."""
        loop = self._loop or self._start()
        deadline = loop.time() + timeout
        future: asyncio.Future[Result] = loop.create_future()
        self.writes.add(op, future, deadline, size)
        if deadline < self._next_expiry:
            self._arm(deadline)
        self._wake.set()
        return future

    def write_batch(self, commands: bytes, count: int, timeout: float) -> asyncio.Future[Result]:
        """Queue a whole batch of ``count`` validated operations, encoded; its result is the list of theirs."""
        loop = self._loop or self._start()
        deadline = loop.time() + timeout
        future: asyncio.Future[Result] = loop.create_future()
        self.writes.add_batch(commands, count, future, deadline)
        if deadline < self._next_expiry:
            self._arm(deadline)
        self._wake.set()
        return future

    def read(self, level: Level, read: Read, timeout: float) -> asyncio.Future[Answer]:
        """Queue a validated read. Raises Busy, or Unavailable once closed."""
        loop = self._loop or self._start()
        deadline = loop.time() + timeout
        future: asyncio.Future[Answer] = loop.create_future()
        self.reads.add(level, read, future, deadline)
        if deadline < self._next_expiry:
            self._arm(deadline)
        self._wake.set()
        return future

    async def close(self) -> None:
        """Close the session as far as that is quick, end every task, answer whoever still waits."""
        if self._closed:
            return
        self._closed = True
        loop, self._loop = self._loop, None  # from here on write() and read() meet _start(), which refuses
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            if self._connected and self.writes.session_id is not None and self.writes.idle:
                self._wake.set()
                try:
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await self._session_closed.wait()
                except TimeoutError:
                    pass
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if loop is not None:
            closed = Unavailable("the client was closed")
            self.writes.fail_all(closed)
            self.reads.fail_all(closed)

    def _start(self) -> asyncio.AbstractEventLoop:
        """On first use rather than on construction: that may happen before there is a loop."""
        if self._closed:
            raise Unavailable("the client is closed")
        self._loop = asyncio.get_running_loop()
        self._supervisor = self._loop.create_task(self._supervise(), name="lattice-client")
        return self._loop

    # -- deadlines ----------------------------------------------------------------------------------

    def _arm(self, deadline: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._next_expiry = deadline
        # Deadlines within 2 ms of each other share one scan.
        self._timer = self._loop.call_at(max(deadline, self._loop.time() + 0.002), self._expire)

    def _expire(self) -> None:
        if self._loop is None:
            return
        now = self._loop.time()
        self._timer = None
        self._next_expiry = float("inf")
        later = [self.writes.expire(now, self._trouble), self.reads.expire(now, self._trouble)]
        deadline = min((at for at in later if at is not None), default=None)
        if deadline is not None:
            self._arm(deadline)

    # -- connections --------------------------------------------------------------------------------

    @property
    def _idle(self) -> bool:
        return self.writes.idle and self.reads.idle

    async def _supervise(self) -> None:
        hint: str | None = None
        while True:
            while self._idle:
                self._wake.clear()
                await self._wake.wait()
            try:
                address, channel = await connect_first(self._book, self._book.candidates(hint, avoid=self._broken))
            except ConnectFailed as error:
                self._trouble = Unavailable(f"cannot reach {error}", hint=error.hint)
                hint = None
                if isinstance(error, TLSFailed) and not self._served:
                    # The wrong files, most likely: told at once. Who was served before is given the time to be again.
                    self.writes.fail_all(self._trouble)
                    self.reads.fail_all(self._trouble)
                await asyncio.sleep(self._backoff.next_seconds())
                continue
            self._broken = None
            try:
                await self._use(address, channel)
            finally:
                self.writes.connection_lost()
                self.reads.connection_lost()
                self._opening = self._close_request = None
                await channel.close(None)
            hint = self._hint
            if not self._may_go_at_once(hint):
                await asyncio.sleep(self._backoff.next_seconds())

    def _may_go_at_once(self, hint: str | None) -> bool:
        now = asyncio.get_running_loop().time()
        if hint and not self._book.is_suspect(hint):
            if now - self._followed.get(hint, 0.0) < HINT_AGAIN_SECONDS:
                return False
            self._followed[hint] = now
            return True
        if self._free_tries > 0:
            self._free_tries -= 1
            return True
        return False

    async def _use(self, address: str, channel: grpc.aio.Channel) -> None:
        """Serve both queues over one stream until it ends or is left. Never raises but for cancellation."""
        self._leaving.clear()
        self._drained.clear()
        self._hint = None
        self._asked = 0
        self._connected, self._address = True, address
        self._served = True
        call: Any = kv_stub(channel, self._book.token).Session()
        try:
            await until_first_ends(
                self._write_loop(call), self._read_loop(call), self._watch(address), self._learn(channel)
            )
            if not self._leaving.is_set():
                self._stream_failed(address, f"{address}: the connection was closed")
        except CONNECTION_ERRORS as error:
            self._stream_failed(address, f"{address}: {_describe(error)}")
        finally:
            self._connected = False
            for pause in (self._resume_reads, self._resume_writes):
                if pause is not None:
                    pause.cancel()
            self._resume_reads = self._resume_writes = None
            call.cancel()

    def _stream_failed(self, address: str, why: str) -> None:
        self._broken = address
        self._trouble = Unavailable(f"no answer from {why}")

    async def _write_loop(self, call: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            request = None if self._leaving.is_set() else self._next_request(loop.time())
            if request is None:
                await self._wake.wait()
            else:
                await call.write(request)

    def _next_request(self, now: float) -> kv_pb2.SessionRequest | None:
        request_id = self._request_id + 1
        request: kv_pb2.SessionRequest | None = None
        may_write = self._resume_writes is None
        may_read = self._resume_reads is None
        if may_write and self.writes.needs_session and self._opening is None:
            self._opening, self._opening_at = request_id, now
            request = kv_pb2.SessionRequest(request_id=request_id, open=kv_pb2.OpenSessionRequest())
        elif may_write and (batch := self.writes.next_batch(request_id, now)) is not None:
            request = kv_pb2.SessionRequest(
                request_id=request_id,
                write=kv_pb2.WriteBatch(
                    session_id=batch.session_id,
                    sequence=batch.sequence,
                    acknowledged_below=self.writes.watermark_for(batch),
                    commands=batch.commands,
                ),
            )
        elif may_read and (reads := self.reads.next_batch(request_id, now)) is not None:
            request = kv_pb2.SessionRequest(request_id=request_id, read=reads.message())
        elif self._closed and self._close_request is None and self.writes.session_id is not None:
            self._close_request = request_id
            close = kv_pb2.CloseSessionRequest(session_id=self.writes.session_id)
            request = kv_pb2.SessionRequest(request_id=request_id, close=close)
        if request is not None:
            self._request_id = request_id
        return request

    async def _read_loop(self, call: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            response = await call.read()
            if response is EOF:
                # grpc.aio ends a failed stream with EOF too where the status came without a message.
                code = await call.code()
                if code is not grpc.StatusCode.OK:
                    raise ConnectionError(plain_reason(await call.details() or code.name))
                return
            self._last_heard = loop.time()
            self._on_response(response)
            if self._leaving.is_set():
                if self._nothing_sent():
                    self._drained.set()
            else:
                self._wake.set()  # an answer makes room in the window

    def _nothing_sent(self) -> bool:
        return self._oldest_sent_at() is None

    def _oldest_sent_at(self) -> float | None:
        opening_at = self._opening_at if self._opening is not None else None
        times = (self.writes.oldest_sent_at(), self.reads.oldest_sent_at(), opening_at)
        return min((at for at in times if at is not None), default=None)

    async def _watch(self, address: str) -> None:
        """Return when the connection has to be left: told so, or nothing is heard any more."""
        loop = asyncio.get_running_loop()
        while not self._leaving.is_set():
            try:
                async with asyncio.timeout(STALL_CHECK_SECONDS):
                    await self._leaving.wait()
            except TimeoutError:
                oldest = self._oldest_sent_at()
                if oldest is None or loop.time() - max(oldest, self._last_heard) < self._stall_seconds:
                    continue
                self._book.failed(address)
                self._trouble = Unavailable(f"{address} has not answered for {self._stall_seconds:.0f} s")
                self._stall_seconds = min(self._stall_seconds * 2, STALL_LAST_SECONDS)
                self._leaving.set()
                return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._drained.wait()
        except TimeoutError:
            pass

    async def _learn(self, channel: grpc.aio.Channel) -> None:
        """Ask for members' addresses now and then: those that the user gave may all be gone one day."""
        from lattice_core.rpc.pb import cluster_pb2

        delay = LEARN_AFTER_SECONDS
        while True:
            await asyncio.sleep(delay)
            delay = LEARN_EVERY_SECONDS
            try:
                status = await cluster_stub(channel, self._book.token).ClusterStatus(
                    cluster_pb2.ClusterStatusRequest(addresses_only=True), timeout=2.0
                )
            except grpc.aio.AioRpcError:
                continue  # the stream, not this, decides whether the connection is any good
            self._book.learn(member.client_addr for member in status.members)

    # -- answers ------------------------------------------------------------------------------------

    def _on_response(self, response: kv_pb2.SessionResponse) -> None:
        kind = response.WhichOneof("body")
        if kind == "error":
            self._on_error(response.request_id, response.error)
            return
        if kind == "write":
            self.writes.answered(response.request_id, response.write.results)
        elif kind == "read":
            read = response.read
            self.reads.answered(response.request_id, read.results, read.revision, read.stale_seconds)
        elif kind == "open" and response.request_id == self._opening:
            self._opening = None
            self.writes.session_opened(response.open.session_id)
        elif kind == "close" and response.request_id == self._close_request:
            self._session_closed.set()
        if kind != "read" or self.writes.idle:
            # Any member answers stale reads; to somebody who wants to write that is no sign of a leader.
            self._backoff.reset()
            self._free_tries = 1
            self._followed.clear()
        self._stall_seconds = STALL_SECONDS

    def _on_error(self, request_id: int, detail: kv_pb2.ErrorDetail) -> None:
        """One request has failed. The queues know which of them it was; an id unknown to both is that of
        opening or closing the session."""
        code = detail.code
        error = from_detail(detail)
        if code in _ELSEWHERE:
            self._not_here(request_id, error.message, detail)
        elif code == kv_pb2.ERROR_CODE_BUSY:
            self._refused(request_id)
            self._trouble = Busy(error.message, hint=error.hint)
        elif code == kv_pb2.ERROR_CODE_SESSION_EXPIRED:
            self.writes.session_expired(request_id)
        elif code == kv_pb2.ERROR_CODE_UNAUTHENTICATED:
            self._unauthenticated(request_id, error)
        elif request_id == self._opening:
            self._refused(request_id)
            self._trouble = Unavailable(f"no session could be opened: {error.message}")
        elif code in _WRONG:
            self.writes.rejected(request_id, error)
            self.reads.rejected(request_id, error)
        else:  # OUTCOME_UNKNOWN, or a code from a newer server, which promises nothing either
            self.writes.in_doubt(request_id)
            self.reads.refused(request_id)
            self._trouble = NoLeader(error.message)
            self._leave(detail.leader.client_addr)

    def _unauthenticated(self, request_id: int, error: LatticeError) -> None:
        """Whatever is sent with this token will be refused: told at once, and to everybody whom it concerns."""
        if request_id == self._opening:
            self._opening = None
            self.writes.fail_all(error)
        self.writes.unauthenticated(request_id, error)
        self.reads.unauthenticated(request_id, error)

    def _not_here(self, request_id: int, message: str, detail: kv_pb2.ErrorDetail) -> None:
        """This member does not serve it: go where it says, or ask it again in a moment, or ask another."""
        hint = detail.leader.client_addr
        if detail.code == kv_pb2.ERROR_CODE_NO_LEADER:
            self._trouble = NoLeader(message or "there is no leader")
        elif detail.code == kv_pb2.ERROR_CODE_TOO_STALE:
            self._trouble = TooStale(message)
        else:
            self._trouble = Unavailable(message or f"{self._address} does not lead")
        first = self._refused(request_id)
        if detail.code == kv_pb2.ERROR_CODE_SHUTTING_DOWN:
            self._book.failed(self._address)
            self._leave(hint)
        elif hint and hint != self._address and not self._book.is_suspect(hint):
            self._leave(hint)
        elif detail.code == kv_pb2.ERROR_CODE_TOO_STALE:
            self._leave("")  # it took its time to find out; another may know better
        elif first:
            self._asked += 1
            if self._asked >= ASK_AGAIN:
                self._leave("")

    def _refused(self, request_id: int) -> bool:
        """Not applied: to be asked again, but not before a pause. Whether it is the first refusal since the
        last pause: all that is in flight is refused for the same reason, and waits once."""
        loop = asyncio.get_running_loop()
        if self.reads.refused(request_id):
            if self._resume_reads is not None:
                return False
            self._resume_reads = loop.call_later(self._backoff.next_seconds(), self._end_pause, "_resume_reads")
        else:
            if request_id == self._opening:
                self._opening = None
            self.writes.refused(request_id)
            if self._resume_writes is not None:
                return False
            self._resume_writes = loop.call_later(self._backoff.next_seconds(), self._end_pause, "_resume_writes")
        return True

    def _end_pause(self, which: Literal["_resume_reads", "_resume_writes"]) -> None:
        setattr(self, which, None)
        self._wake.set()

    def _leave(self, hint: str) -> None:
        """Send nothing more here; go where the hint says, or to the next address."""
        self._book.learn((hint,))
        self._hint = hint or self._hint
        self._leaving.set()
        if self._nothing_sent():
            self._drained.set()


def _describe(error: BaseException) -> str:
    if isinstance(error, grpc.RpcError):
        return plain_reason(from_rpc_error(error).message)
    return str(error) or type(error).__name__
