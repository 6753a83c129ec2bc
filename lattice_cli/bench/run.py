"""A benchmark from beginning to end: prepare, start the processes, measure, add up, clean up.

One process does the work itself. More of them are children, ``python -m lattice_cli.bench.worker``, that speak JSON
lines with their parent: a plan goes in, "ready" comes out; when all are ready the time at which to measure goes in
(all processes of a machine share the monotonic clock), then tallies come out, several a second, and the last one. A
child whose standard input ends has lost its parent and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lattice_cli.bench.load import FINISH_SECONDS, Load, clear, fill
from lattice_cli.bench.plan import Plan
from lattice_cli.bench.tally import Tally
from lattice_core.client import AsyncClient
from lattice_core.errors import LatticeError, Unavailable
from lattice_core.verify import HistoryRecorder

PROGRESS_SECONDS = 0.25

START_SECONDS = 30.0
"""Until every child is ready: the interpreter and gRPC take a second of CPU each."""

END_SECONDS = FINISH_SECONDS + 10.0
"""Until a child has told its last tally."""

MAX_LINE_BYTES = 4 << 20
"""Of a child: a tally has a few thousand numbers at most."""

GC_THRESHOLDS = (50_000, 20, 50)
"""As the server's (lattice_core/server/run.py), for the same reasons."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a benchmark."""

    plan: Plan
    tally: Tally
    interrupted: bool


Progress = Callable[[Tally], None]
"""Told what has been counted so far, a few times a second. The tally is to be read at once, not to be kept."""


def use_fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop factory for asyncio.Runner: uvloop's where it exists."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def run(plan: Plan, *, history: Path | None = None, keep: bool = False, progress: Progress) -> Result:
    """Do what the plan says. SIGINT and SIGTERM end the measurement early, not without a result.

    Raises what a first operation raises if the cluster cannot be used at all, OSError if the history cannot be
    written. Errors later on are counted.
    """
    plan.validate()
    recorder = HistoryRecorder(callers=plan.callers, path=history) if plan.recorded else None
    with contextlib.ExitStack() as stack:
        if recorder is not None:
            stack.enter_context(recorder)
        async with AsyncClient(
            plan.endpoints, timeout=plan.timeout_seconds, tls=plan.tls, token=plan.token()
        ) as client:
            # The first operation: it finds the leader, and its error is the whole benchmark's.
            try:
                await client.get(plan.key(0), consistency=plan.read_consistency)
            except LatticeError as error:
                error.message = f"bench: {error.message.removeprefix('get: ')}"
                raise
            try:
                if plan.mix != "put" and not plan.recorded:
                    await fill(client, plan)
                with _interrupts() as interrupted:
                    if plan.processes == 1:
                        tally = await _here(client, plan, recorder, interrupted, progress)
                    else:
                        tally = await _in_children(plan, interrupted, progress)
            finally:
                if not keep:
                    # The result stands whatever becomes of this; what is left says its prefix, "bench/".
                    with contextlib.suppress(LatticeError):
                        await clear(client, plan)
            return Result(plan, tally, interrupted.is_set())


@contextlib.contextmanager
def _interrupts() -> Any:
    """An event that SIGINT and SIGTERM set, while the block runs."""
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, interrupted.set)
    try:
        yield interrupted
    finally:
        for number in numbers:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)


def tune_interpreter() -> None:
    """Keep the collector from what is there already, and from running with every batch."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _here(
    client: AsyncClient,
    plan: Plan,
    recorder: HistoryRecorder | None,
    interrupted: asyncio.Event,
    progress: Progress,
) -> Tally:
    """The whole load in this process."""
    tune_interpreter()
    start_ns = time.monotonic_ns() + int(plan.warm_up_seconds * 1e9)
    tally = Tally(start_ns, start_ns + int(plan.seconds * 1e9))
    load = Load(client, plan, plan.callers_of(0), tally, recorder)

    async def watch() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), PROGRESS_SECONDS)
            if interrupted.is_set():
                load.stop()
                return
            progress(tally)

    watching = asyncio.ensure_future(watch())
    try:
        await load.run()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return tally


# -- with children ------------------------------------------------------------------------------------


async def _in_children(plan: Plan, interrupted: asyncio.Event, progress: Progress) -> Tally:
    """Each process's share in a child; their tallies added up."""
    async with _children(plan) as children:
        async with asyncio.timeout(START_SECONDS):
            for child in children:
                await _expect(child, "ready")
        start_ns = time.monotonic_ns() + int(plan.warm_up_seconds * 1e9)
        for child in children:
            child.tell({"start_ns": start_ns})
        latest: list[Tally | None] = [None] * len(children)

        async def listen(number: int) -> Tally:
            while True:
                message = await _expect(children[number], "tally")
                latest[number] = tally = Tally.from_json(message["tally"])
                if message["final"]:
                    return tally
                if number == 0 and (sofar := _sum(latest)) is not None:
                    progress(sofar)

        async def stop_early() -> None:
            await interrupted.wait()
            for child in children:
                child.tell({"stop": True})

        stopping = asyncio.ensure_future(stop_early())
        try:
            async with asyncio.timeout(plan.warm_up_seconds + plan.seconds + END_SECONDS):
                await asyncio.gather(*(listen(number) for number in range(len(children))))
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
    total = _sum(latest)
    assert total is not None
    return total


def _sum(tallies: list[Tally | None]) -> Tally | None:
    """All added up; None as long as one is missing."""
    total: Tally | None = None
    for tally in tallies:
        if tally is None:
            return None
        if total is None:
            total = Tally.from_json(tally.to_json())
        else:
            total.add(tally)
    return total


class _Child:
    """A process and its two pipes.

    Not asyncio's own: uvloop forks, and gRPC, which is at work in this process, runs its fork handlers then; now and
    then such a child never came to speak. ``subprocess`` starts it without a fork that anybody could hook into.
    """

    def __init__(self, process: subprocess.Popen[bytes], lines: asyncio.StreamReader) -> None:
        self.process = process
        self.lines = lines

    @classmethod
    async def start(cls) -> _Child:
        process = subprocess.Popen(  # noqa: ASYNC220 - a fork that returns at once
            [sys.executable, "-m", "lattice_cli.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _python_path()},
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        lines = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), process.stdout)
        return cls(process, lines)

    def tell(self, message: dict[str, Any]) -> None:
        """A line, far smaller than a pipe holds. To one that has ended it is lost, which its silence will show."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    async def end(self) -> int:
        """Its exit code, once it has ended; it is ended if need be."""
        if self.process.poll() is None:
            self.process.kill()
        code = await asyncio.to_thread(self.process.wait)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        return code


@contextlib.asynccontextmanager
async def _children(plan: Plan) -> AsyncIterator[list[_Child]]:
    """The processes, started; none of them is left when the block ends, however it does."""
    children: list[_Child] = []
    try:
        for number in range(plan.processes):
            child = await _Child.start()
            children.append(child)
            child.tell({"plan": plan.to_json(), "process": number})
        yield children
    finally:
        for child in children:
            await child.end()


def _python_path() -> str:
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))


async def _expect(child: _Child, kind: str) -> dict[str, Any]:
    """The child's next message, which is of this kind."""
    line = await child.lines.readline()
    if not line:
        code = await child.end()
        raise Unavailable(f"bench: a process of the benchmark ended early (exit code {code})")
    message: dict[str, Any] = json.loads(line)
    if kind not in message:
        raise Unavailable(f"bench: {message.get('error', 'a process of the benchmark made no sense')}")
    return message
