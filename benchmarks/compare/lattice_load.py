"""A bulk load into Lattice: ``python -m benchmarks.compare.lattice_load ENDPOINTS KEYS``; JSON on standard output.

:func:`bulk_load` is the one place that says how: ``put_many``, as for etcd it is transactions of many puts.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from lattice_cli.bench.run import tune_interpreter, use_fast_loop
from lattice_core.client import AsyncClient

VALUE_BYTES = 256
TIMEOUT_SECONDS = 60.0


async def bulk_load(client: AsyncClient, keys: int) -> None:
    """Put keys 0 to ``keys``, no two values the same."""
    rest = os.urandom(VALUE_BYTES - 8)
    await client.put_many((b"bench/%08d" % number, b"%08d" % number + rest) for number in range(keys))


async def _main(endpoints: str, keys: int) -> None:
    async with AsyncClient(endpoints, timeout=TIMEOUT_SECONDS) as client:
        await client.get(b"bench/")
        tune_interpreter()
        began = time.perf_counter()
        await bulk_load(client, keys)
        seconds = time.perf_counter() - began
    print(json.dumps({"keys": keys, "seconds": seconds, "keys_per_second": keys / seconds}))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=use_fast_loop()) as runner:
        runner.run(_main(sys.argv[1], int(sys.argv[2])))
