"""The Ready loop's timer and the core's deadlines, on uvloop, whose timers have whole milliseconds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from lattice_core.server.clock import now_ns
from lattice_core.server.ready_loop import ReadyLoop


async def _passes_until_the_deadline(wait_ns: int) -> int:
    loop = asyncio.get_running_loop()
    ticked: asyncio.Future[None] = loop.create_future()
    passes = 0

    def has_ready() -> bool:
        nonlocal passes
        passes += 1
        return False

    core: Any = SimpleNamespace(is_leader=False, has_ready=has_ready, next_deadline_ns=now_ns() + wait_ns)

    def tick(_now: int) -> None:
        core.next_deadline_ns = 2**62
        ticked.set_result(None)

    core.tick = tick
    ready: Any = ReadyLoop(core, lambda event: None, lambda error: pytest.fail(str(error)))
    ready.applier = SimpleNamespace(has_work=False)
    ready.explanations = SimpleNamespace(watched=False)
    ready.proposals = ready.reads = SimpleNamespace(flush=lambda now: None)
    ready.snapshots = SimpleNamespace(consider=lambda: None)
    try:
        ready._run_pass()
        async with asyncio.timeout(5):
            await ticked
        return passes
    finally:
        ready.stop()


@pytest.mark.parametrize("wait_us", [300, 700, 1_400, 2_000, 2_450, 3_900])
def test_a_deadline_that_is_no_whole_number_of_milliseconds_away_is_waited_for_without_spinning(wait_us: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_passes_until_the_deadline(wait_us * 1000)) <= 4
