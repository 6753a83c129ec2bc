"""Callers at work on one client: each does one operation at a time, and what came back is tallied.

Closed loop: a caller begins the next operation when it has the answer to the last. That measures what a number of
callers get, but when the cluster stands still so do they, and the operations that nobody began in that time are
missing from the latencies ("coordinated omission"). With a rate, operations are due at fixed times, whatever became of
the earlier ones, and each latency counts from when it was due: a stall shows in all that were due meanwhile. Timers
are accurate to about a millisecond, which is part of those latencies.

A caller costs a coroutine, an operation two clock readings and a few additions: what measures shares the cores with
what is measured.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lattice_core.errors import LatticeError, NotApplied

if TYPE_CHECKING:
    from lattice_cli.bench.plan import Plan
    from lattice_cli.bench.tally import Tally
    from lattice_core.client import AsyncClient
    from lattice_core.verify import HistoryRecorder

ERROR_PAUSE_SECONDS = 0.005
"""After an error a caller waits: what fails at once must not become a loop that does nothing but fail."""

FINISH_SECONDS = 1.0
"""How long operations under way at the end may still take. They no longer count; cut off, their outcome is unknown."""

RECORDED_FINISH_SECONDS = 3.0
"""The same where a history is recorded: the fewer are unknown, the more it tells."""

VALUES = 64
"""Different values, of random bytes so that nothing on the way can compress them."""

NAMES = 100_000
"""Of so few keys the names are made beforehand: some MiB at most."""

RECORDED_OPS = ("put", "get", "cas", "delete")
RECORDED_WEIGHTS = (4, 4, 3, 1)


class Load:
    """Some of a plan's callers, on one client."""

    def __init__(
        self,
        client: AsyncClient,
        plan: Plan,
        callers: Iterable[int],
        tally: Tally,
        recorder: HistoryRecorder | None = None,
    ) -> None:
        """``callers``: their numbers, by which several processes share a rate. With a ``recorder``, all that they do
        is recorded, the warm-up included."""
        self._client = client
        self._plan = plan
        self._callers = list(callers)
        self._under_way = dict.fromkeys(self._callers, 0)
        """When each caller's present operation began; 0: it has none."""
        self._tally = tally
        self._recorder = recorder
        self._stopping = asyncio.Event()
        self._values = [os.urandom(plan.value_bytes) for _ in range(VALUES)]
        self._names = [plan.key(number) for number in range(plan.keys)] if plan.keys <= NAMES else None
        """Of the keys, made beforehand."""
        self._seen: dict[bytes, bytes | None] = {}
        """What a key was last seen to be, for compare-and-set."""

    def stop(self) -> None:
        """Begin nothing new: the measurement ends here."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until the tally's end, or until stopped; then finish what is under way, for a bounded time."""
        work = self._caller if self._recorder is None else self._recorded_caller
        tasks = {asyncio.ensure_future(work(number)): number for number in self._callers}
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await self._until(self._tally.start_ns, stopped, tasks)
            cpu_at_start = time.process_time()
            await self._until(self._tally.end_ns, stopped, tasks)
            self._stopping.set()
            self._tally.finish(time.monotonic_ns(), min(filter(None, self._under_way.values()), default=0))
            self._tally.cpu_seconds = time.process_time() - cpu_at_start
            for task, number in tasks.items():
                if not self._under_way[number]:
                    task.cancel()  # it waits for its next turn
            finish = FINISH_SECONDS if self._recorder is None else RECORDED_FINISH_SECONDS
            await asyncio.wait(tasks, timeout=finish)
        finally:
            stopped.cancel()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _until(self, at_ns: int, stopped: asyncio.Future[Any], tasks: Iterable[asyncio.Future[None]]) -> None:
        """Wait until then, or until stopped. No caller ends before, but by an exception: a bug, which ends it all."""
        if not stopped.done():
            seconds = max(0.0, (at_ns - time.monotonic_ns()) / 1e9)
            await asyncio.wait({stopped, *tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    # -- callers ------------------------------------------------------------------------------------

    async def _caller(self, number: int) -> None:
        plan, tally, client, clock = self._plan, self._tally, self._client, time.monotonic_ns
        stopping = self._stopping.is_set
        put, get = client.put, client.get
        puts, gets = tally.puts, tally.gets
        chance = random.Random(os.urandom(8)).random
        values = self._values
        share_of_gets = {"put": 0.0, "get": 1.0, "mixed": 0.5}[plan.mix]
        keys, names, consistency = plan.keys, self._names, plan.read_consistency
        under_way = self._under_way
        turn = 0
        while not stopping():
            began = clock() if plan.rate is None else await self._until_due(number, turn)
            if stopping():
                return
            under_way[number] = began
            turn += 1
            chosen = int(chance() * keys)
            key = names[chosen] if names is not None else plan.key(chosen)
            try:
                if share_of_gets and chance() < share_of_gets:
                    await get(key, consistency=consistency)
                    tally.done(gets, began, clock())
                else:
                    await put(key, values[turn % VALUES])
                    tally.done(puts, began, clock())
                under_way[number] = 0
            except LatticeError as error:
                under_way[number] = 0
                tally.failed(error, clock())
                await asyncio.sleep(ERROR_PAUSE_SECONDS)

    async def _until_due(self, number: int, turn: int) -> int:
        """Wait until this caller's operation of this turn is due, if it is not yet; when that was or is."""
        plan = self._plan
        assert plan.rate is not None
        begin = self._tally.start_ns - int(plan.warm_up_seconds * 1e9)
        due = begin + int((turn * plan.callers + number) / plan.rate * 1e9)
        wait_ns = due - time.monotonic_ns()
        if wait_ns > 0:
            await asyncio.sleep(wait_ns / 1e9)
        return due

    async def _recorded_caller(self, number: int) -> None:
        """Every kind of operation, values unique, so that each read tells which write it saw."""
        tally, recorder, clock = self._tally, self._recorder, time.monotonic_ns
        assert recorder is not None
        chooser = random.Random(os.urandom(8))
        turn = 0
        while not self._stopping.is_set():
            began = clock() if self._plan.rate is None else await self._until_due(number, turn)
            if self._stopping.is_set():
                return
            self._under_way[number] = began
            turn += 1
            key = self._plan.key(chooser.randrange(self._plan.keys))
            op = self._recorded_op(chooser)
            value = b"%d.%d" % (number, turn)
            value = value.ljust(self._plan.value_bytes, b".")
            expected = self._seen.get(key)
            identifier = recorder.invoke(
                number,
                op,
                key,
                value=value if op in ("put", "cas") else None,
                expected=expected if op == "cas" else None,
            )
            try:
                answer = await self._do(op, key, value, expected)
            except LatticeError as error:
                # A read that failed has done nothing; a write only if its error says so.
                recorder.complete(identifier, "fail" if op == "get" or isinstance(error, NotApplied) else "unknown")
                self._under_way[number] = 0
                tally.failed(error, clock())
                await asyncio.sleep(ERROR_PAUSE_SECONDS)
            else:
                recorder.complete(identifier, **answer)
                self._under_way[number] = 0
                tally.done(tally.gets if op == "get" else tally.puts, began, clock())

    def _recorded_op(self, chooser: random.Random) -> Any:
        if self._plan.mix != "mixed":
            return self._plan.mix
        return chooser.choices(RECORDED_OPS, RECORDED_WEIGHTS)[0]

    async def _do(self, op: str, key: bytes, value: bytes, expected: bytes | None) -> dict[str, Any]:
        """One recorded operation; what the recorder is told of its answer."""
        client, seen = self._client, self._seen
        if op == "put":
            await client.put(key, value)
            seen[key] = value
            return {}
        if op == "get":
            found = await client.get(key, consistency=self._plan.read_consistency)
            seen[key] = None if found is None else found.value
            return {"result": seen[key]}
        if op == "cas":
            swapped = await client.cas(key, expected, value)
            if swapped:
                seen[key] = value
            return {"swapped": bool(swapped)}
        return {"deleted": bool(await client.delete(key))}


# -- before and after -------------------------------------------------------------------------------

FILL_CALLERS = 1024
"""Puts at once while the key space is filled: a few full batches."""


async def fill(client: AsyncClient, plan: Plan) -> None:
    """Put every key of the plan once, so that reads find something. Raises what a put raises."""
    value = os.urandom(plan.value_bytes)
    numbers = iter(range(plan.keys))

    async def filler() -> None:
        for number in numbers:
            await client.put(plan.key(number), value, timeout=max(plan.timeout_seconds, 30.0))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(FILL_CALLERS, plan.keys)):
            group.create_task(filler())


CLEAR_KEYS = 5000
"""Keys deleted by one operation: some ten milliseconds of the cluster's time."""


async def clear(client: AsyncClient, plan: Plan) -> None:
    """Delete every key of the plan. Raises what a delete raises."""
    for first in range(0, plan.keys, CLEAR_KEYS):
        last = plan.key(first + CLEAR_KEYS)
        await client.delete_range(start=plan.key(first), end=last, timeout=max(plan.timeout_seconds, 30.0))
