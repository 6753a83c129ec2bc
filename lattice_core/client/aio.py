"""AsyncClient: the public methods, for asyncio. Checks arguments, queues, awaits, and shapes the answer."""

# ruff: noqa: ASYNC109 - a deadline here decides between "not applied" and "unknown": asyncio.timeout cannot
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias, overload

from lattice_core.client import cluster, membership
from lattice_core.client.channels import AddressBook, parse_endpoints
from lattice_core.client.engine import Engine
from lattice_core.client.reads import COUNT_ONLY, GET, KEYS_ONLY, RANGE, REVERSE
from lattice_core.client.types import (
    CasResult,
    ClusterStatus,
    Consistency,
    DeleteResult,
    KeyValue,
    MembershipChanged,
    NodeStatus,
    PutResult,
    RangeResult,
    SnapshotSaved,
    SnapshotTaken,
    Transfer,
)
from lattice_core.client.writes import NAMES, OP_OVERHEAD_BYTES, WINDOW
from lattice_core.errors import InvalidRequest, TooLarge
from lattice_core.kv.commands import (
    CAS,
    DELETE,
    DELETE_RANGE,
    MAX_BATCH_BYTES,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    PUT,
    PUT_IF_REVISION,
    Op,
    prefix_range,
    validate_op,
)
from lattice_core.rpc.pb import kv_pb2

Data: TypeAlias = str | bytes | bytearray | memoryview
"""What keys and values may be given as; str is encoded as UTF-8."""

DEFAULT_ENDPOINT: Final = "127.0.0.1:7400"
DEFAULT_TIMEOUT_SECONDS: Final = 5.0
"""Several elections: a leader may be lost, and the next one too, before a caller hears of it."""

_CONSISTENCY: Final = {
    "linearizable": kv_pb2.CONSISTENCY_LINEARIZABLE,
    "lease": kv_pb2.CONSISTENCY_LEASE,
    "stale": kv_pb2.CONSISTENCY_STALE,
}


class AsyncClient:
    """A client of one cluster, shared by any number of coroutines of one event loop.

    Concurrent callers' operations travel together on one stream to the leader, so concurrency is what makes
    it fast; there is no need for more than one client in a process.

    Every method takes ``timeout``, seconds, which replaces the client's. Until then lost leaders, refused
    connections and elections are retried, exactly once in effect: a write that is sent again is recognised
    by the cluster. What a failure means is in its type: ``NotApplied`` (mostly ``Unavailable``) says that
    nothing happened, and nothing will; ``OutcomeUnknown`` that a write was sent and its answer did not come
    in time. Both are in :mod:`lattice_core.errors`.

    A caller that is cancelled gives its operation up: it is taken back if it has not been sent.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str] = DEFAULT_ENDPOINT,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_batches_in_flight: int = WINDOW,
    ) -> None:
        """Does not connect: the first operation does.

        ``endpoints``: client addresses ``H:P`` of one or more members, comma-separated or as a list; any
        member's will do, the others are learned. Raises ConfigurationError if one is not an address.
        ``max_batches_in_flight``: batches sent and not yet answered, at most; 256 is the cluster's limit.
        """
        if not 1 <= max_batches_in_flight <= 256:
            raise InvalidRequest(f"max_batches_in_flight is {max_batches_in_flight}, must be 1 to 256")
        self.timeout = timeout
        self._book = AddressBook(parse_endpoints(endpoints))
        self._engine = Engine(self._book, window=max_batches_in_flight)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session and every task. Operations still under way fail: await them first. Idempotent."""
        await self._engine.close()

    # -- writes -------------------------------------------------------------------------------------

    @overload
    async def put(self, key: Data, value: Data, *, timeout: float | None = None) -> int: ...
    @overload
    async def put(self, key: Data, value: Data, *, if_revision: int, timeout: float | None = None) -> PutResult: ...
    @overload
    async def put(
        self, key: Data, value: Data, *, if_absent: Literal[True], timeout: float | None = None
    ) -> PutResult: ...
    async def put(
        self,
        key: Data,
        value: Data,
        *,
        if_revision: int | None = None,
        if_absent: bool = False,
        timeout: float | None = None,
    ) -> int | PutResult:
        """Store ``value`` under ``key`` and return the new revision.

        With ``if_revision=N`` only if the key was last modified at revision N, with ``if_absent=True`` only
        if there is no such key; then the answer is a :class:`PutResult`, true if it was stored.

        Raises InvalidRequest or TooLarge before anything is sent (keys 1 byte to 4 KiB, values up to 1 MiB),
        Unavailable (or Busy, NoLeader) if nothing was applied, OutcomeUnknown if that is not known.
        """
        key, value = to_bytes(key, "key"), to_bytes(value, "value")
        size = len(key) + len(value) + OP_OVERHEAD_BYTES
        if if_revision is None and not if_absent:
            op: Op = (PUT, key, value)
            if not key or len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
                _validate("put", op)
            result = await self._engine.write(op, size, self.timeout if timeout is None else timeout)
            revision: int = result[1]
            return revision
        if if_revision is not None and if_absent:
            raise InvalidRequest("put: if_revision and if_absent exclude each other")
        result = await self._write((PUT_IF_REVISION, key, value, if_revision or 0), size, timeout)
        return PutResult(stored=result[0] == 0, revision=result[1])

    async def delete(self, key: Data, *, timeout: float | None = None) -> DeleteResult:
        """Delete ``key``; the answer is true if it was there. Errors as for :meth:`put`."""
        key = to_bytes(key, "key")
        result = await self._write((DELETE, key), len(key), timeout)
        return DeleteResult(deleted=result[1], revision=result[2])

    async def delete_range(
        self,
        *,
        prefix: Data | None = None,
        start: Data | None = None,
        end: Data | None = None,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Delete every key that begins with ``prefix``, or ``start <= key < end`` (without ``end``: to the
        end of the keyspace), as one operation. One of ``prefix`` and ``start`` has to be given."""
        if prefix is None and start is None:
            raise InvalidRequest("delete_range: give a prefix or a start")
        first, last = _bounds("delete_range", prefix, start, end)
        result = await self._write((DELETE_RANGE, first, last), len(first) + len(last), timeout)
        return DeleteResult(deleted=result[1], revision=result[2])

    async def cas(self, key: Data, expected: Data | None, new: Data, *, timeout: float | None = None) -> CasResult:
        """Replace the value if it is ``expected`` (None: if there is no such key); the answer is true if it
        was. Errors as for :meth:`put`."""
        key, new = to_bytes(key, "key"), to_bytes(new, "new value")
        old = None if expected is None else to_bytes(expected, "expected value")
        result = await self._write((CAS, key, old, new), len(key) + len(old or b"") + len(new), timeout)
        return CasResult(swapped=bool(result[1]), revision=result[2])

    async def _write(self, op: Op, size: int, timeout: float | None) -> list[int]:
        _validate(NAMES[op[0]], op)
        size += OP_OVERHEAD_BYTES
        if size > MAX_BATCH_BYTES:
            raise TooLarge(
                f"{NAMES[op[0]]}: the operation has {size} bytes, more than {MAX_BATCH_BYTES}",
                limit=MAX_BATCH_BYTES,
                actual=size,
            )
        return await self._engine.write(op, size, self.timeout if timeout is None else timeout)

    # -- reads --------------------------------------------------------------------------------------

    async def get(
        self,
        key: Data,
        *,
        revision: int | None = None,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> KeyValue | None:
        """The key as it is, or as it was at ``revision``; None if there is, or was, no such key.

        Raises RevisionCompacted if history no longer reaches back to ``revision``, Unavailable if no member
        could answer with the ``consistency`` asked for in time.
        """
        key = to_bytes(key, "key")
        _validate("get", (DELETE, key))  # the cheapest op with a key: the rules for keys are the same
        answer = await self._engine.read(
            _consistency(consistency),
            (GET, key, _revision(revision)),
            self.timeout if timeout is None else timeout,
        )
        return None if answer.result is None else KeyValue(*answer.result)

    async def range(
        self,
        *,
        prefix: Data | None = None,
        start: Data | None = None,
        end: Data | None = None,
        limit: int | None = None,
        revision: int | None = None,
        keys_only: bool = False,
        count_only: bool = False,
        reverse: bool = False,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> RangeResult:
        """Keys in order: those that begin with ``prefix``, or ``start <= key < end`` (all, without any).

        At most ``limit`` keys, and no more than fit in one answer: ``more`` says whether there are others.
        ``keys_only`` leaves values empty, ``count_only`` answers with the count alone, ``reverse`` begins at
        the end. Errors as for :meth:`get`.
        """
        first, last = _bounds("range", prefix, start, end)
        if limit is not None and limit < 1:
            raise InvalidRequest(f"range: limit is {limit}, must be at least 1")
        _validate("range", (DELETE_RANGE, first, last))  # the same rules for bounds
        flags = KEYS_ONLY * keys_only | COUNT_ONLY * count_only | REVERSE * reverse
        result, at, stale_seconds = await self._engine.read(
            _consistency(consistency),
            (RANGE, first, last, limit or 0, _revision(revision), flags),
            self.timeout if timeout is None else timeout,
        )
        kvs, more, count = result
        return RangeResult(tuple(KeyValue(*kv) for kv in kvs), bool(more), count, at, stale_seconds)

    # -- the cluster --------------------------------------------------------------------------------

    async def node_status(self, *, timeout: float | None = None) -> NodeStatus:
        """What the first member that answers knows of itself. Raises Unavailable if none does."""
        return await cluster.node_status(self._book, self.timeout if timeout is None else timeout)

    async def cluster_status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Every member, the unreachable included, as the first that answers sees them. Raises Unavailable."""
        return await cluster.cluster_status(self._book, self.timeout if timeout is None else timeout)

    async def transfer_leader(self, target: str | None = None, *, timeout: float | None = None) -> Transfer:
        """Hand leadership to the member named ``target`` (None: the best-placed voter), and wait for it.

        Raises NotAllowed if the target cannot lead, Unavailable if there is no leader to ask,
        OutcomeUnknown if the answer did not come in time.
        """
        seconds = self.timeout if timeout is None else timeout
        return await cluster.transfer_leader(self._book, target or "", seconds)

    async def add_server(
        self,
        name: str,
        peer_addr: str,
        *,
        learner: bool = False,
        start_later: bool = False,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> MembershipChanged:
        """Add the server that waits at ``peer_addr`` to join, as a learner; returns when that is committed.

        It is promoted by itself when it has caught up, unless ``learner``: then it stays one. ``start_later``: add
        it although nobody answers there yet. ``dry_run`` only says what would become of it.

        Raises NotAllowed with the reason, InvalidRequest for a bad name or address, Unavailable if nothing was done,
        OutcomeUnknown if it is not known to be committed in time.
        """
        return await membership.add_server(
            self._book,
            name,
            peer_addr,
            learner=learner,
            start_later=start_later,
            dry_run=dry_run,
            timeout=self.timeout if timeout is None else timeout,
        )

    async def remove_server(
        self, name: str, *, force: bool = False, dry_run: bool = False, timeout: float | None = None
    ) -> MembershipChanged:
        """Remove a member, dead or alive, leader or not; returns when that is committed.

        ``force``: even if fewer live voters than a quorum would be left. Errors as for :meth:`add_server`.
        """
        seconds = self.timeout if timeout is None else timeout
        return await membership.remove_server(self._book, name, force=force, dry_run=dry_run, timeout=seconds)

    async def replace_server(
        self,
        old: str,
        name: str,
        peer_addr: str,
        *,
        start_later: bool = False,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> MembershipChanged:
        """Add a server that takes the voter ``old``'s place, in one change, when it has caught up. Returns when it is
        a learner. Errors as for :meth:`add_server`."""
        return await membership.replace_server(
            self._book,
            old,
            name,
            peer_addr,
            start_later=start_later,
            dry_run=dry_run,
            timeout=self.timeout if timeout is None else timeout,
        )

    async def promote(self, name: str, *, dry_run: bool = False, timeout: float | None = None) -> MembershipChanged:
        """Make a learner that has caught up a voter, now. Errors as for :meth:`add_server`."""
        seconds = self.timeout if timeout is None else timeout
        return await membership.promote(self._book, name, dry_run=dry_run, timeout=seconds)

    async def take_snapshot(
        self, member: str | None = None, *, timeout: float | None = None
    ) -> tuple[SnapshotTaken, ...]:
        """Have the member of that name (None: every one) take a snapshot now, and compact its log.

        One answer for each member, the unreachable included; ``error`` is None where it was taken.
        ``timeout`` is five minutes by default. Raises InvalidRequest for an unknown name, Unavailable if no
        member answers.
        """
        seconds = cluster.SNAPSHOT_SECONDS if timeout is None else timeout
        return await cluster.take_snapshot(self._book, member, min(self.timeout, seconds), seconds)

    async def save_snapshot(
        self,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        timeout: float | None = None,
    ) -> SnapshotSaved:
        """Save a fresh snapshot of the first member that answers as the new file ``path``.

        The file is there only when it is whole, checked and durable. ``progress`` is told the bytes that have
        come and how many there will be. ``timeout``, five minutes by default, is for the next piece, not for
        all. Raises InvalidRequest if the file exists or cannot be made, StorageFailed, StorageDamaged if what
        came is not whole, Unavailable.
        """
        seconds = cluster.SNAPSHOT_SECONDS if timeout is None else timeout
        return await cluster.save_snapshot(self._book, os.fspath(path), seconds, progress)


def to_bytes(data: Data, what: str) -> bytes:
    """Bytes of what a caller passed. Raises TypeError for what is neither text nor bytes."""
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"the {what} cannot be encoded as UTF-8: {error.reason}") from None
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"the {what} must be bytes or str, not {type(data).__name__}")


def _validate(what: str, op: Op) -> None:
    """Raise InvalidRequest or TooLarge, saying what was asked for, if the cluster would refuse ``op``."""
    try:
        validate_op(op)
    except InvalidRequest as error:
        error.message = f"{what}: {error.message}"
        error.args = (error.message,)
        raise


def _bounds(what: str, prefix: Data | None, start: Data | None, end: Data | None) -> tuple[bytes, bytes]:
    if prefix is not None:
        if start is not None or end is not None:
            raise InvalidRequest(f"{what}: prefix excludes start and end")
        return prefix_range(to_bytes(prefix, "prefix"))
    first = b"" if start is None else to_bytes(start, "start")
    last = b"" if end is None else to_bytes(end, "end")
    if end is not None and last <= first:
        raise InvalidRequest(f"{what}: the end {last!r} is not after the start {first!r}")
    return first, last


def _consistency(name: Consistency) -> kv_pb2.Consistency:
    try:
        return _CONSISTENCY[name]
    except KeyError:
        raise InvalidRequest(f"consistency {name!r} is not linearizable, lease or stale") from None


def _revision(revision: int | None) -> int | None:
    if revision is not None and revision < 1:
        raise InvalidRequest(f"revision is {revision}, must be at least 1")
    return revision
