"""One process of a benchmark that has several: ``python -m lattice_cli.bench.worker``. run.py says what it speaks."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from lattice_cli.bench.load import Load
from lattice_cli.bench.plan import Plan
from lattice_cli.bench.run import PROGRESS_SECONDS, tune_interpreter, use_fast_loop
from lattice_cli.bench.tally import Tally


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def _lines() -> asyncio.StreamReader:
    """Standard input, line by line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _work() -> None:
    from lattice_core.client import AsyncClient
    from lattice_core.errors import LatticeError

    lines = await _lines()
    orders = json.loads(await lines.readline())
    plan = Plan.from_json(orders["plan"])
    async with AsyncClient(plan.endpoints, timeout=plan.timeout_seconds, tls=plan.tls, token=plan.token()) as client:
        try:
            await client.get(plan.key(0), consistency=plan.read_consistency)
        except LatticeError as error:
            _tell({"error": error.message})
            return
        tune_interpreter()
        _tell({"ready": True})
        start_ns = json.loads(await lines.readline())["start_ns"]
        tally = Tally(start_ns, start_ns + int(plan.seconds * 1e9))
        load = Load(client, plan, plan.callers_of(orders["process"]), tally)

        async def until_told() -> None:
            await lines.readline()  # "stop", or the end of a parent that is no more
            load.stop()

        async def report() -> None:
            while True:
                await asyncio.sleep(PROGRESS_SECONDS)
                if time.monotonic_ns() >= start_ns:
                    _tell({"tally": tally.to_json(), "final": False})

        others = [asyncio.ensure_future(until_told()), asyncio.ensure_future(report())]
        try:
            await load.run()
        finally:
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        _tell({"tally": tally.to_json(), "final": True})


def main() -> None:
    with asyncio.Runner(loop_factory=use_fast_loop()) as runner:
        runner.run(_work())


if __name__ == "__main__":
    main()
