"""Client: the same for threads. An :class:`AsyncClient` on the event loop of one background thread.

Written out method by method rather than generated: the signatures are what editors and type checkers show.

Limits
  * Not to be used after ``os.fork()``: neither the thread nor gRPC's survive it. A process pool makes its
    client in the child. The child that tries gets a RuntimeError that says so.
  * Not to be used from a coroutine of its own loop, which nobody has; on another event loop its methods
    block that loop: use AsyncClient there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from lattice_core.client.aio import DEFAULT_ENDPOINT, DEFAULT_TIMEOUT_SECONDS, AsyncClient
from lattice_core.client.arguments import Data, bounds
from lattice_core.client.pages import PAGE_KEYS, Pages
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
from lattice_core.client.writes import WINDOW
from lattice_core.errors import LatticeError, Unavailable

if TYPE_CHECKING:
    from lattice_core.client.access_api import Access
    from lattice_core.client.bulk import Batch, Items
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

T = TypeVar("T")


class Client:
    """A client of one cluster, shared by any number of threads, whose concurrent operations travel together.

    Methods, arguments, results and errors are :class:`AsyncClient`'s; they block the calling thread. Use it
    as a context manager, or call :meth:`close`: it owns a thread.
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
        """Starts the thread and does not connect: the first operation does. See AsyncClient."""
        self._async = AsyncClient(
            endpoints,
            timeout=timeout,
            max_batches_in_flight=max_batches_in_flight,
            tls=tls,
            token=token,
            tracing=tracing,
        )
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_handle_loop_error)
        self._thread = threading.Thread(target=self._run, name="lattice-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session, every task and the thread. Calls under way in other threads fail. Idempotent."""
        with self._lock:
            if self._closed or self._pid != os.getpid():
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # -- writes -------------------------------------------------------------------------------------

    @overload
    def put(self, key: Data, value: Data, *, timeout: float | None = None) -> int: ...
    @overload
    def put(self, key: Data, value: Data, *, if_revision: int, timeout: float | None = None) -> PutResult: ...
    @overload
    def put(self, key: Data, value: Data, *, if_absent: Literal[True], timeout: float | None = None) -> PutResult: ...
    def put(
        self,
        key: Data,
        value: Data,
        *,
        if_revision: int | None = None,
        if_absent: bool = False,
        timeout: float | None = None,
    ) -> int | PutResult:
        """Store ``value`` under ``key`` and return the new revision; conditional with ``if_revision=N`` or
        ``if_absent=True``, then returning a PutResult, true if stored. See :meth:`AsyncClient.put`."""
        # The overloads tell callers what goes together; here everything is passed on.
        call: Any = self._async.put
        result: int | PutResult = self._wait(
            call(key, value, if_revision=if_revision, if_absent=if_absent, timeout=timeout)
        )
        return result

    def delete(self, key: Data, *, timeout: float | None = None) -> DeleteResult:
        """Delete ``key``; the answer is true if it was there. See :meth:`AsyncClient.delete`."""
        return self._wait(self._async.delete(key, timeout=timeout))

    def delete_range(
        self,
        *,
        prefix: Data | None = None,
        start: Data | None = None,
        end: Data | None = None,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Delete every key with ``prefix``, or ``start <= key < end``. See :meth:`AsyncClient.delete_range`."""
        return self._wait(self._async.delete_range(prefix=prefix, start=start, end=end, timeout=timeout))

    def cas(self, key: Data, expected: Data | None, new: Data, *, timeout: float | None = None) -> CasResult:
        """Replace the value if it is ``expected`` (None: absent). See :meth:`AsyncClient.cas`."""
        return self._wait(self._async.cas(key, expected, new, timeout=timeout))

    def txn(
        self,
        *,
        when: Iterable[Comparison] = (),
        then: Iterable[TxnOp] = (),
        otherwise: Iterable[TxnOp] = (),
        timeout: float | None = None,
    ) -> TxnResult:
        """Do all of ``then`` if every comparison in ``when`` holds, else all of ``otherwise``, atomically. See
        :meth:`AsyncClient.txn`."""
        return self._wait(self._async.txn(when=when, then=then, otherwise=otherwise, timeout=timeout))

    def batch(self, *, timeout: float | None = None) -> Batch:
        """Many writes of this thread, sent in large batches, not atomic::

            with client.batch() as batch:
                for number in range(100_000):
                    batch.put(f"key-{number}", b"value")
            revisions = batch.results

        A batch leaves when it is full, at ``flush()`` and at the end of the block. See :meth:`AsyncClient.batch`."""
        from lattice_core.client.bulk import Batch, BatchResults

        results = BatchResults()
        writer = self._async._bulk_writer(results.take, timeout)
        return Batch(self._wait, writer, results)

    def put_many(
        self, items: Items, *, progress: Callable[[int], None] | None = None, timeout: float | None = None
    ) -> PutManyResult:
        """Store every key of a mapping, or of an iterable of keys with values: the fastest way to load very many.
        ``items`` is used up in the calling thread; ``progress`` is called on the client's own. See
        :meth:`AsyncClient.put_many`."""
        from lattice_core.client.bulk import OpBuffer, PutCounter, pairs

        counter = PutCounter(progress)
        writer = self._async._bulk_writer(counter.take, timeout)
        buffer = OpBuffer()
        try:
            for chunk in buffer.add_puts(pairs(items)):
                self._wait(writer.send(chunk))
            last = buffer.take()
            if last is not None:
                self._wait(writer.send(last))
        except LatticeError as error:
            if error is not writer.error:
                raise
        finally:
            self._wait(writer.drain())
        return counter.result(writer.error)

    # -- reads --------------------------------------------------------------------------------------

    def get(
        self,
        key: Data,
        *,
        revision: int | None = None,
        consistency: Consistency = "linearizable",
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> KeyValue | None:
        """The key, or None if there is none. See :meth:`AsyncClient.get`."""
        return self._wait(
            self._async.get(key, revision=revision, consistency=consistency, max_stale=max_stale, timeout=timeout)
        )

    def range(
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
        """Keys with ``prefix``, or ``start <= key < end``, in order. See :meth:`AsyncClient.range`."""
        return self._wait(
            self._async.range(
                prefix=prefix,
                start=start,
                end=end,
                limit=limit,
                revision=revision,
                keys_only=keys_only,
                count_only=count_only,
                reverse=reverse,
                consistency=consistency,
                max_stale=max_stale,
                timeout=timeout,
            )
        )

    def scan(
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
    ) -> Iterator[KeyValue]:
        """Every key of a range, in order, page by page, all of one revision. See :meth:`AsyncClient.scan`."""
        pages = Pages(bounds("scan", prefix, start, end), limit, revision, reverse, page_keys)
        while (wanted := pages.next_page()) is not None:
            page = self.range(
                **wanted,
                keys_only=keys_only,
                reverse=reverse,
                consistency=consistency,
                max_stale=max_stale,
                timeout=timeout,
            )
            pages.took(page)
            yield from page.kvs

    # -- access control -----------------------------------------------------------------------------

    @property
    def access(self) -> Access:
        """Users, roles and tokens."""
        from lattice_core.client.access_api import Access

        return Access(self._async.access, self._wait)

    # -- where the time goes ------------------------------------------------------------------------

    def put_explained(
        self, key: Data, value: Data, *, if_revision: int | None = None, timeout: float | None = None
    ) -> tuple[PutResult, Explained]:
        """A put, and where its time went. See :meth:`AsyncClient.put_explained`."""
        return self._wait(self._async.put_explained(key, value, if_revision=if_revision, timeout=timeout))

    def get_explained(
        self,
        key: Data,
        *,
        revision: int | None = None,
        consistency: Consistency = "linearizable",
        max_stale: float | None = None,
        timeout: float | None = None,
    ) -> tuple[KeyValue | None, int, Explained]:
        """A get, the store's revision, and where the time went. See :meth:`AsyncClient.get_explained`."""
        return self._wait(
            self._async.get_explained(
                key, revision=revision, consistency=consistency, max_stale=max_stale, timeout=timeout
            )
        )

    # -- the cluster --------------------------------------------------------------------------------

    def node_status(self, *, timeout: float | None = None) -> NodeStatus:
        """What the first member that answers knows of itself. Raises Unavailable if none does."""
        return self._wait(self._async.node_status(timeout=timeout))

    def cluster_status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Every member, the unreachable included. Raises Unavailable if no member answers."""
        return self._wait(self._async.cluster_status(timeout=timeout))

    def examine(self, addresses: Iterable[str] = (), *, timeout: float | None = None) -> tuple[Examined, ...]:
        """Each of these addresses asked by itself. See :meth:`AsyncClient.examine`."""
        return self._wait(self._async.examine(addresses, timeout=timeout))

    def transfer_leader(self, target: str | None = None, *, timeout: float | None = None) -> Transfer:
        """Hand leadership over, and wait for it. See :meth:`AsyncClient.transfer_leader`."""
        return self._wait(self._async.transfer_leader(target, timeout=timeout))

    def add_server(
        self,
        name: str,
        peer_addr: str,
        *,
        learner: bool = False,
        start_later: bool = False,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> MembershipChanged:
        """Add the server that waits at ``peer_addr`` to join. See :meth:`AsyncClient.add_server`."""
        return self._wait(
            self._async.add_server(
                name, peer_addr, learner=learner, start_later=start_later, dry_run=dry_run, timeout=timeout
            )
        )

    def remove_server(
        self, name: str, *, force: bool = False, dry_run: bool = False, timeout: float | None = None
    ) -> MembershipChanged:
        """Remove a member. See :meth:`AsyncClient.remove_server`."""
        return self._wait(self._async.remove_server(name, force=force, dry_run=dry_run, timeout=timeout))

    def replace_server(
        self,
        old: str,
        name: str,
        peer_addr: str,
        *,
        start_later: bool = False,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> MembershipChanged:
        """Add a server that takes the place of ``old``. See :meth:`AsyncClient.replace_server`."""
        return self._wait(
            self._async.replace_server(old, name, peer_addr, start_later=start_later, dry_run=dry_run, timeout=timeout)
        )

    def promote(self, name: str, *, dry_run: bool = False, timeout: float | None = None) -> MembershipChanged:
        """Make a learner that has caught up a voter, now. See :meth:`AsyncClient.promote`."""
        return self._wait(self._async.promote(name, dry_run=dry_run, timeout=timeout))

    def take_snapshot(self, member: str | None = None, *, timeout: float | None = None) -> tuple[SnapshotTaken, ...]:
        """Have one member, or every one, take a snapshot now. See :meth:`AsyncClient.take_snapshot`."""
        return self._wait(self._async.take_snapshot(member, timeout=timeout))

    def save_snapshot(
        self,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        timeout: float | None = None,
    ) -> SnapshotSaved:
        """Save a fresh snapshot as a new file. ``progress`` is called on the client's own thread. See
        :meth:`AsyncClient.save_snapshot`."""
        return self._wait(self._async.save_snapshot(path, progress=progress, timeout=timeout))

    # -- helpers ------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _shut_down(self) -> None:
        await self._async.close()
        # Calls of other threads: they have been answered; let them say so before the loop ends.
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(others, timeout=1.0) if others else None

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the loop's thread. An interrupt gives the operation up."""
        if self._pid != os.getpid():
            coroutine.close()
            raise RuntimeError("this Client was made before fork(): make a new one in the child process")
        with self._lock:
            if self._closed:
                coroutine.close()
                raise Unavailable("the client is closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # no effect if it is the operation's own error
            raise


def _handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """grpc.aio shares one wake-up socket among all loops of a process: a loop that comes too late reads
    nothing and reports BlockingIOError, which means nothing (grpc/grpc#25364)."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
