"""Group commit, and what happens when the disk refuses (SAFETY 18, 19)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from server_harness import eventually

from lattice_core.errors import StorageFailed
from lattice_core.raft.messages import AppendSuccess
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Entry
from lattice_core.server import storage_thread as module
from lattice_core.server.storage_thread import StorageThread
from lattice_core.storage.errors import DiskFull


def unit(sequence: int, *, empty: bool = False) -> Persist:
    entries = () if empty else (Entry(sequence, 1, b"x"),)
    return Persist(sequence, None, None, None, entries, None, ())


class FakeLog:
    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.on_loop: list[bool] = []
        self.syncs = 0
        self.sync_seconds = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.write_errors: list[Exception] = []
        self.sync_error: Exception | None = None

    def write(self, batches: Sequence[Persist]) -> int:
        if self.write_errors:
            raise self.write_errors.pop(0)
        self.groups.append([each.sequence for each in batches])
        return 0

    def sync(self) -> None:
        self.gate.wait()
        if self.sync_seconds:
            time.sleep(self.sync_seconds)
        self.on_loop.append(threading.current_thread() is threading.main_thread())
        self.syncs += 1
        if self.sync_error is not None:
            raise self.sync_error


class Harness:
    def __init__(self) -> None:
        self.log = FakeLog()
        self.durable: list[int] = []
        self.failures: list[BaseException] = []
        self.full: list[DiskFull | None] = []
        self.thread = StorageThread(
            self.log,
            lambda units: self.durable.extend(each.sequence for each in units),
            self.failures.append,
            self.full.append,
        )
        self.thread.start()
        self.submitted = 0

    async def one_by_one(self, count: int) -> list[bool]:
        """As a lone writer does; whether each was written on the loop."""
        before = len(self.log.on_loop)
        for _ in range(count):
            self.submitted += 1
            self.thread.submit(unit(self.submitted))
            await eventually(lambda: self.durable[-1:] == [self.submitted])
            await asyncio.sleep(0.001)  # until the thread has come back
        return self.log.on_loop[before:]

    async def trusted(self) -> None:
        """Quick fsyncs until the loop may write."""
        async with asyncio.timeout(5):
            while not (await self.one_by_one(1))[0]:
                pass


@pytest.fixture(autouse=True)
def any_machine_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as quick here must not depend on what else runs on this machine."""
    monkeypatch.setattr(module, "QUICK_SECONDS", 0.1)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test

    asyncio.run(bounded())


def test_what_gathers_during_an_fsync_goes_out_as_one_write_and_one_fsync() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.log.gate.clear()
        harness.thread.submit(unit(1))
        await eventually(lambda: harness.log.groups)
        for sequence in range(2, 7):
            harness.thread.submit(unit(sequence))
        assert harness.durable == []
        harness.log.gate.set()
        await eventually(lambda: len(harness.durable) == 6)
        assert harness.log.groups == [[1], [2, 3, 4, 5, 6]]
        assert harness.log.syncs == 2
        await harness.thread.stop()

    run(scenario())


def test_a_unit_with_nothing_to_write_needs_no_fsync_and_keeps_its_place() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.thread.submit(unit(1, empty=True))
        await eventually(lambda: harness.durable == [1])
        assert harness.log.syncs == 0
        await harness.thread.stop()

    run(scenario())


def test_a_failed_fsync_is_reported_once_never_retried_and_acknowledges_nothing() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.log.sync_error = StorageFailed("EIO")
        harness.thread.submit(unit(1))
        await eventually(lambda: harness.failures)
        harness.thread.submit(unit(2))
        await harness.thread.stop()
        assert harness.durable == []
        assert harness.log.syncs == 1

    run(scenario())


def test_a_full_disk_holds_everything_back_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISK_FULL_RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        harness = Harness()
        full = DiskFull("no room")
        harness.log.write_errors = [full, full, full]
        harness.thread.submit(unit(1))
        await eventually(lambda: harness.durable == [1])
        assert harness.full == [full, None]
        assert harness.failures == []
        await harness.thread.stop()

    run(scenario())


def test_stopping_writes_what_was_submitted_first() -> None:
    async def scenario() -> None:
        harness = Harness()
        for sequence in range(1, 600):
            harness.thread.submit(unit(sequence))
        await harness.thread.stop()
        await asyncio.sleep(0)
        assert harness.durable == list(range(1, 600))

    run(scenario())


def test_a_lone_writer_on_a_quick_disk_is_written_on_the_loop_and_after_a_slow_fsync_is_not() -> None:
    async def scenario() -> None:
        harness = Harness()
        assert await harness.one_by_one(module.QUICK_RUN) == [False] * module.QUICK_RUN
        assert await harness.one_by_one(3) == [True] * 3
        harness.log.sync_seconds = 0.15
        assert await harness.one_by_one(2) == [True, False]
        harness.log.sync_seconds = 0.0
        assert await harness.one_by_one(module.QUICK_RUN + 1) == [False] * module.QUICK_RUN + [True]
        assert harness.durable == list(range(1, harness.submitted + 1))
        await harness.thread.stop()

    run(scenario())


def test_units_keep_their_order_where_some_may_be_written_on_the_loop_and_others_not() -> None:
    async def scenario() -> None:
        harness = Harness()
        await harness.trusted()
        first = harness.submitted
        big = Entry(first + 2, 1, b"x" * (module.INLINE_BYTES + 1))
        harness.thread.submit(unit(first + 1))  # waits for the next turn of the loop
        harness.thread.submit(Persist(first + 2, None, None, None, (big,), None, ()))  # is too large for it
        harness.thread.submit(unit(first + 3))  # must not overtake
        await eventually(lambda: harness.durable[-1] == first + 3)
        harness.submitted += 3
        harness.thread.submit(unit(first + 4))
        harness.thread.submit(unit(first + 5))
        await harness.thread.stop()
        await asyncio.sleep(0)
        assert harness.durable == list(range(1, first + 6))
        assert [number for group in harness.log.groups for number in group] == harness.durable

    run(scenario())


def test_a_full_disk_met_on_the_loop_is_waited_for_on_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """SAFETY 19."""
    monkeypatch.setattr(module, "DISK_FULL_RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        harness = Harness()
        await harness.trusted()
        full = DiskFull("no room")
        harness.log.write_errors = [full, full]
        assert await harness.one_by_one(1) == [False]
        assert harness.full == [full, None]
        assert harness.failures == []
        await harness.thread.stop()

    run(scenario())


def test_a_failed_fsync_on_the_loop_ends_everything_too() -> None:
    """SAFETY 18."""

    async def scenario() -> None:
        harness = Harness()
        await harness.trusted()
        syncs, durable = harness.log.syncs, [*harness.durable]
        harness.log.sync_error = StorageFailed("EIO")
        harness.thread.submit(unit(harness.submitted + 1))
        await eventually(lambda: harness.failures)
        harness.thread.submit(unit(harness.submitted + 2))
        await harness.thread.stop()
        assert harness.log.syncs == syncs + 1, "never tried again"
        assert harness.durable == durable

    run(scenario())


def test_a_followers_unit_of_the_usual_size_is_written_on_the_loop_and_a_leaders_is_not() -> None:
    async def scenario() -> None:
        harness = Harness()
        await harness.trusted()
        entry = Entry(1, 1, b"x" * (module.INLINE_BYTES + 1))
        answer = AppendSuccess(1, 2, 1, match_index=1, round=1)
        for messages, on_loop in (((answer,), True), ((), False)):
            harness.submitted += 1
            harness.thread.submit(Persist(harness.submitted, None, None, None, (entry,), None, messages))
            await eventually(lambda: harness.durable[-1:] == [harness.submitted])
            assert harness.log.on_loop[-1] is on_loop
        await harness.thread.stop()

    run(scenario())
