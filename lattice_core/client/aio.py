"""AsyncClient: the public methods, for asyncio. Checks arguments, queues, awaits, and shapes the answer.

Bulk loads, transactions and what operators ask are imported where they are asked for: a process that reads one key and
ends has no use for them.
"""

# ruff: noqa: ASYNC109 - a deadline here decides between "not applied" and "unknown": asyncio.timeout cannot
from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from lattice_core.client.arguments import (
    Data,
    bounds,
    cas_op,
    checked_limit,
    checked_revision,
    delete_op,
    delete_range_op,
    key_to_read,
    level_of,
    prefixed,
    put_op,
    size_of,
    validate,
)
from lattice_core.client.channels import AddressBook, parse_endpoints
from lattice_core.client.engine import Engine
from lattice_core.client.pages import PAGE_KEYS, Pages
from lattice_core.client.reads import COUNT_ONLY, GET, KEYS_ONLY, RANGE, REVERSE
from lattice_core.client.types import (
    CasResult,
    Consistency,
    DeleteResult,
    KeyValue,
    PutManyResult,
    PutResult,
    RangeResult,
    TxnResult,
)
from lattice_core.client.writes import OP_OVERHEAD_BYTES, WINDOW
from lattice_core.errors import InvalidRequest, TooLarge
from lattice_core.kv.commands import DELETE_RANGE, PUT, Op
from lattice_core.tuples import make

if TYPE_CHECKING:
    from lattice_core.client.access_api import AsyncAccess
    from lattice_core.client.bulk import AsyncBatch, BulkWriter, Done, Items
    from lattice_core.client.cluster_types import (
        ClusterStatus,
        Examined,
        MembershipChanged,
        NodeStatus,
        SnapshotSaved,
        SnapshotTaken,
        Transfer,
    )
    from lattice_core.client.explain import Explained
    from lattice_core.client.txn import Comparison, TxnOp
    from lattice_core.tls import ClientTLS

DEFAULT_ENDPOINT: Final = "127.0.0.1:7400"
DEFAULT_TIMEOUT_SECONDS: Final = 5.0
"""Several elections: a leader may be lost, and the next one too, before a caller hears of it."""


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
        tls: ClientTLS | None = None,
        token: str | None = None,
        tracing: bool = False,
    ) -> None:
        """Does not connect: the first operation does.

        ``endpoints``: client addresses ``H:P`` of one or more members, comma-separated or as a list; any
        member's will do, the others are learned. Raises ConfigurationError if one is not an address.
        ``max_batches_in_flight``: batches sent and not yet answered, at most; 256 is the cluster's limit.
        ``tls``: for a cluster whose client ports speak TLS. Raises ConfigurationError if its files cannot be used.
        ``token``: what proves who the client is, for a cluster whose access control is enabled.
        ``tracing``: an OpenTelemetry span for each batch, exported as the application has set it up, else as OTEL_*
        variables say; needs the extra ``lattice-kv[otel]``.
        """
        if not 1 <= max_batches_in_flight <= 256:
            raise InvalidRequest(f"max_batches_in_flight is {max_batches_in_flight}, must be 1 to 256")
        self.timeout = timeout
        self._book = AddressBook(parse_endpoints(endpoints), tls)
        self._book.token = token
        kind = Engine
        if tracing:
            from lattice_core.tracing import require

            require()
            from lattice_core.client.tracing import TracedEngine

            kind = TracedEngine
        self._engine = kind(self._book, window=max_batches_in_flight)

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
        op = put_op(key, value, if_revision, if_absent)
        size = len(op[1]) + len(op[2]) + OP_OVERHEAD_BYTES
        result = await self._engine.write(op, size, self.timeout if timeout is None else timeout)
        if op[0] == PUT:
            revision: int = result[1]
            return revision
        return PutResult(stored=result[0] == 0, revision=result[1])

    async def delete(self, key: Data, *, timeout: float | None = None) -> DeleteResult:
        """Delete ``key``; the answer is true if it was there. Errors as for :meth:`put`."""
        result = await self._write(delete_op(key), timeout)
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
        end of the keyspace), as one operation, however many there are. One of ``prefix`` and ``start`` has to be
        given."""
        result = await self._write(delete_range_op(prefix, start, end), timeout)
        return DeleteResult(deleted=result[1], revision=result[2])

    async def cas(self, key: Data, expected: Data | None, new: Data, *, timeout: float | None = None) -> CasResult:
        """Replace the value if it is ``expected`` (None: if there is no such key); the answer is true if it
        was. Errors as for :meth:`put`."""
        result = await self._write(cas_op(key, expected, new), timeout)
        return CasResult(swapped=bool(result[1]), revision=result[2])

    async def txn(
        self,
        *,
        when: Iterable[Comparison] = (),
        then: Iterable[TxnOp] = (),
        otherwise: Iterable[TxnOp] = (),
        timeout: float | None = None,
    ) -> TxnResult:
        """Do all of ``then`` if every comparison in ``when`` holds, else all of ``otherwise``: atomically, as one
        revision, each operation seeing what those before it did. The answer is true if the comparisons held::

            await client.txn(
                when=[key("a").value == b"1", key("b").absent()],
                then=[put("a", b"2"), get("c")],
                otherwise=[get("a")],
            )

        :func:`key` and :func:`keys` make comparisons; :func:`put`, :func:`get`, :func:`get_range`, :func:`delete` and
        :func:`delete_range` make operations (all in :mod:`lattice_core.client`). No key may be written twice.

        Raises InvalidRequest or TooLarge before anything is sent: up to 1,024 comparisons and as many operations in
        each list. Raises TooLarge, nothing applied, if its ranges visit more than 10,000 keys or its answers
        would be more than 2 MiB. Otherwise errors as for :meth:`put`.
        """
        from lattice_core.client.txn import txn_op, txn_result
        from lattice_core.kv.results import read_txn_result

        op = txn_op(when, then, otherwise)
        result = await self._write(op, timeout)
        try:
            return txn_result(op, read_txn_result(result))
        except TooLarge as error:
            raise prefixed("txn", error) from None

    def batch(self, *, timeout: float | None = None) -> AsyncBatch:
        """Many writes, sent in large batches, a few at a time. **Not atomic**; for that there is :meth:`txn`::

            async with client.batch() as batch:
                for number in range(100_000):
                    await batch.put(f"key-{number}", b"value")
            revisions = batch.results

        ``put``, ``delete``, ``delete_range`` and ``cas`` return as soon as the operation is taken; where too much is
        under way they wait. Leaving the block waits for all, and raises the first error; ``results`` says what
        became of each. Batches may be executed in any order, so do not write one key twice.
        ``timeout`` is for each batch, from when it is sent.
        """
        from lattice_core.client.bulk import AsyncBatch

        return AsyncBatch(self._engine, self.timeout if timeout is None else timeout)

    async def put_many(
        self,
        items: Items | AsyncIterable[tuple[Data, Data]],
        *,
        progress: Callable[[int], None] | None = None,
        timeout: float | None = None,
    ) -> PutManyResult:
        """Store every key with its value: the fastest way to load very many. **Not atomic**; takes a mapping, or keys
        with values from an iterable or an async iterable of any length, and holds little of it at a time.

        ``progress`` is told how many puts have been acknowledged so far. ``timeout`` is for each batch, from when it
        is sent. The first error ends it and is raised, saying how many puts had been acknowledged; loading
        again is harmless. Of a key that comes twice either value may be the one that stays.
        """
        from lattice_core.client.bulk import put_many

        return await put_many(self._engine, items, self.timeout if timeout is None else timeout, progress)

    def _bulk_writer(self, done: Done, timeout: float | None) -> BulkWriter:
        """For the blocking client, whose batches are put together in another thread."""
        from lattice_core.client.bulk import BulkWriter

        return BulkWriter(self._engine, self.timeout if timeout is None else timeout, done)

    async def _write(self, op: Op, timeout: float | None) -> list[Any]:
        """An operation that has been validated."""
        return await self._engine.write(op, size_of(op), self.timeout if timeout is None else timeout)

    # -- reads --------------------------------------------------------------------------------------

    async def get(
        self,
        key: Data,
        *,
        revision: int | None = None,
        consistency: Consistency = "linearizable",
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> KeyValue | None:
        """The key as it is, or as it was at ``revision``; None if there is, or was, no such key.

        ``max_stale``, with ``consistency="stale"``: everything that was acknowledged so many seconds before the
        question is in the answer, or a member that knows better is asked.

        Raises RevisionCompacted if history no longer reaches back to ``revision``, Unavailable if no member
        could answer with the ``consistency`` asked for in time (TooStale, if ``max_stale`` is why).
        """
        answer = await self._engine.read(
            level_of(consistency, max_stale),
            (GET, key_to_read(key), None if revision is None else checked_revision(revision)),
            self.timeout if timeout is None else timeout,
        )
        result = answer.result
        return None if result is None else make(KeyValue, result)  # of six fields, as kv.proto has it

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
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> RangeResult:
        """Keys in order: those that begin with ``prefix``, or ``start <= key < end`` (all, without any).

        At most ``limit`` keys, and no more than fit in one answer: ``more`` says whether there are others
        (:meth:`scan` fetches them). ``keys_only`` leaves values empty, ``count_only`` answers with the count
        alone, ``reverse`` begins at the end. ``max_stale`` and errors as for :meth:`get`.
        """
        first, last = bounds("range", prefix, start, end)
        validate("range", (DELETE_RANGE, first, last))  # the same rules for bounds
        flags = KEYS_ONLY * keys_only | COUNT_ONLY * count_only | REVERSE * reverse
        result, at, stale_seconds = await self._engine.read(
            level_of(consistency, max_stale),
            (RANGE, first, last, checked_limit("range", limit), checked_revision(revision), flags),
            self.timeout if timeout is None else timeout,
        )
        kvs, more, count = result
        return RangeResult(tuple(KeyValue(*kv) for kv in kvs), bool(more), count, at, stale_seconds)

    async def scan(
        self,
        *,
        prefix: Data | None = None,
        start: Data | None = None,
        end: Data | None = None,
        limit: int | None = None,
        revision: int | None = None,
        keys_only: bool = False,
        reverse: bool = False,
        page_keys: int = PAGE_KEYS,
        consistency: Consistency = "linearizable",
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[KeyValue]:
        """Every key of a range, in order, fetched ``page_keys`` at a time, **all of one revision**: the first page's,
        or ``revision``::

            async for found in client.scan(prefix="jobs/"):
                print(found.key, found.value)

        ``timeout`` is for each page. Raises RevisionCompacted if so much is written meanwhile that history no
        longer reaches back to the first page (10,000 changes by default: history_revisions in a node's
        configuration); take larger pages then. Otherwise arguments and errors are those of :meth:`range`.
        """
        pages = Pages(bounds("scan", prefix, start, end), limit, revision, reverse, page_keys)
        while (wanted := pages.next_page()) is not None:
            page = await self.range(
                **wanted,
                keys_only=keys_only,
                reverse=reverse,
                consistency=consistency,
                max_stale=max_stale,
                timeout=timeout,
            )
            pages.took(page)
            for kv in page.kvs:
                yield kv

    # -- access control -----------------------------------------------------------------------------

    @property
    def access(self) -> AsyncAccess:
        """Users, roles and tokens."""
        from lattice_core.client.access_api import AsyncAccess

        return AsyncAccess(self._book, self.timeout)

    # -- where the time goes ------------------------------------------------------------------------

    async def put_explained(
        self, key: Data, value: Data, *, if_revision: int | None = None, timeout: float | None = None
    ) -> tuple[PutResult, Explained]:
        """A put (``if_revision=0``: if there is no such key), and where its time went, by the leader's own account.
        It goes by itself and without a session, so it is not sent again once a leader may have taken it: where
        :meth:`put` would find out, this raises OutcomeUnknown."""
        from lattice_core.client import explain

        op = put_op(key, value, if_revision, False)
        seconds = self.timeout if timeout is None else timeout
        return await explain.put(self._book, op[1], op[2], if_revision, seconds)

    async def get_explained(
        self,
        key: Data,
        *,
        revision: int | None = None,
        consistency: Consistency = "linearizable",
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> tuple[KeyValue | None, int, Explained]:
        """A get, the store's revision, and where the time went. Otherwise as :meth:`get`."""
        from lattice_core.client import explain

        name = key_to_read(key)
        level, seconds = level_of(consistency, max_stale), self.timeout if timeout is None else timeout
        return await explain.get(self._book, name, checked_revision(revision), level, seconds)

    # -- the cluster --------------------------------------------------------------------------------

    async def node_status(self, *, timeout: float | None = None) -> NodeStatus:
        """What the first member that answers knows of itself. Raises Unavailable if none does."""
        from lattice_core.client import cluster

        return await cluster.node_status(self._book, self.timeout if timeout is None else timeout)

    async def cluster_status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Every member, the unreachable included, as the first that answers sees them. Raises Unavailable."""
        from lattice_core.client import cluster

        return await cluster.cluster_status(self._book, self.timeout if timeout is None else timeout)

    async def examine(self, addresses: Iterable[str] = (), *, timeout: float | None = None) -> tuple[Examined, ...]:
        """Each of these client addresses (none: those the client was made with), asked by itself a few times in a
        row: its status with details, round trips from here, how far its clock is off. Raises nothing: what cannot be
        reached says why."""
        from lattice_core.client import examine

        seconds = self.timeout if timeout is None else timeout
        return await examine.examine(self._book, tuple(addresses) or self._book.given, seconds)

    async def transfer_leader(self, target: str | None = None, *, timeout: float | None = None) -> Transfer:
        """Hand leadership to the member named ``target`` (None: the best-placed voter), and wait for it.

        Raises NotAllowed if the target cannot lead, Unavailable if there is no leader to ask,
        OutcomeUnknown if the answer did not come in time.
        """
        seconds = self.timeout if timeout is None else timeout
        from lattice_core.client import cluster

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
        from lattice_core.client import membership

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
        from lattice_core.client import membership

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
        from lattice_core.client import membership

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
        from lattice_core.client import membership

        return await membership.promote(self._book, name, dry_run=dry_run, timeout=seconds)

    async def take_snapshot(
        self, member: str | None = None, *, timeout: float | None = None
    ) -> tuple[SnapshotTaken, ...]:
        """Have the member of that name (None: every one) take a snapshot now, and compact its log.

        One answer for each member, the unreachable included; ``error`` is None where it was taken.
        ``timeout`` is five minutes by default. Raises InvalidRequest for an unknown name, Unavailable if no
        member answers.
        """
        from lattice_core.client import cluster

        seconds = cluster.SNAPSHOT_SECONDS if timeout is None else timeout
        from lattice_core.client import cluster

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
        from lattice_core.client import cluster

        seconds = cluster.SNAPSHOT_SECONDS if timeout is None else timeout
        from lattice_core.client import cluster

        return await cluster.save_snapshot(self._book, os.fspath(path), seconds, progress)
