"""A bulk load into Lattice: ``python -m benchmarks.compare.lattice_load ENDPOINTS KEYS``; JSON on standard output.

With ``CALLERS SECONDS WARM_UP`` after that, puts over those keys instead: ``lattice bench`` takes keys of its own, so
that it can be let loose on any cluster.

:func:`bulk_load` is the one place that says how: ``put_many``, as for etcd it is transactions of many puts.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from lattice_cli.bench.plan import Plan
from lattice_cli.bench.run import run, tune_interpreter, use_fast_loop
from lattice_cli.render import bench as bench_view
from lattice_core.client import AsyncClient

VALUE_BYTES = 256
PREFIX = "bench/"
TIMEOUT_SECONDS = 60.0


async def bulk_load(client: AsyncClient, keys: int) -> None:
    """Put keys 0 to ``keys``, no two values the same."""
    rest = os.urandom(VALUE_BYTES - 8)
    await client.put_many((b"%s%08d" % (PREFIX.encode(), number), b"%08d" % number + rest) for number in range(keys))


async def _main(endpoints: str, keys: int) -> None:
    async with AsyncClient(endpoints, timeout=TIMEOUT_SECONDS) as client:
        await client.get(PREFIX)
        tune_interpreter()
        began = time.perf_counter()
        await bulk_load(client, keys)
        seconds = time.perf_counter() - began
    print(json.dumps({"keys": keys, "seconds": seconds, "keys_per_second": keys / seconds}))


async def _put_over(endpoints: str, keys: int, callers: int, seconds: float, warm_up: float) -> None:
    plan = Plan(
        endpoints=endpoints,
        timeout_seconds=TIMEOUT_SECONDS,
        callers=callers,
        processes=1,
        seconds=seconds,
        warm_up_seconds=warm_up,
        value_bytes=VALUE_BYTES,
        mix="put",
        keys=keys,
        read_consistency="linearizable",
        rate=None,
        prefix=PREFIX,
        recorded=False,
    )
    result = await run(plan, keep=True, progress=lambda _tally: None)
    print(json.dumps(bench_view.document(result)))


if __name__ == "__main__":
    endpoints, keys, *rest = sys.argv[1:]
    with asyncio.Runner(loop_factory=use_fast_loop()) as runner:
        if rest:
            runner.run(_put_over(endpoints, int(keys), int(rest[0]), float(rest[1]), float(rest[2])))
        else:
            runner.run(_main(endpoints, int(keys)))
