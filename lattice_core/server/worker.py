"""One thread for the file work that nobody's acknowledgement waits for: snapshots written, read, checked.

Not the storage thread, whose every millisecond is some client's; and not the loop. Jobs run one after the
other, so a file is never touched from two sides. Everybody who submits awaits the result, which bounds the
queue by the number of tasks that have snapshots to do with.

An fsync that fails ends the process, whatever file it was of (SAFETY 18): whoever made the worker is told before
anybody who waits, and nothing is done after it, cleaning up included. What is left half done goes at the next start.

The thread starts with the first job: a node that takes no snapshots pays nothing. It is a daemon: a disk
that never answers must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from lattice_core.storage.errors import SyncFailed

log = logging.getLogger("lattice.snapshots")

T = TypeVar("T")


class Worker:
    """Belongs to the event loop it was made on."""

    def __init__(self, name: str, on_sync_failed: Callable[[SyncFailed], None]) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any] | None] | None]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        self._stopping = False
        self._on_sync_failed = on_sync_failed
        self._sync_failed: SyncFailed | None = None  # the thread's

    async def run(self, job: Callable[[], T]) -> T:
        """What ``job`` returns or raises. If the caller is cancelled, a job that was begun still runs to its end."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._put(job, done)
        return await done

    def later(self, job: Callable[[], object]) -> None:
        """Run ``job`` after what waits; nobody waits for it. For cleaning up, also when being cancelled."""
        self._put(job, None)

    async def stop(self) -> None:
        """Finish what was submitted, end the thread. Safe to repeat; nothing may be submitted after it."""
        if self._stopping or self._thread is None:
            self._stopping = True
            return
        self._stopping = True
        self._jobs.put(None)
        await self._ended.wait()
        self._thread.join()

    def _put(self, job: Callable[[], Any], done: asyncio.Future[Any] | None) -> None:
        if self._stopping:
            if done is not None:
                done.cancel()
            return
        self._jobs.put((job, done))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            result, error = self._carry_out(job)
            if done is not None:
                self._tell(_settle, done, result, error)
            elif error is not None:
                log.warning("cleaning up after a snapshot failed: %s", error)
            del item, job, done, result, error  # what they hold must not live until the next job
        self._tell(self._ended.set)

    def _carry_out(self, job: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        if self._sync_failed is not None:
            return None, self._sync_failed
        try:
            return job(), None
        except SyncFailed as caught:
            self._sync_failed = caught
            self._tell(self._on_sync_failed, caught)
            return None, caught
        except BaseException as caught:
            return None, caught

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told


def _settle(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
