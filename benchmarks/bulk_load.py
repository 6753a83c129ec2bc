"""Bulk load: very many new keys, as fast as one client process can put them.

    python benchmarks/bulk_load.py [--keys 300000] [--value-size 256] [--nodes 3] [--how put_many,batch,sync,puts]

Real nodes, each a process with its own data directory, fsync on; the client is one process on the same machine. Values
are random, so that nothing on the way can compress them; keys come in random order. ``put_many`` and ``batch`` are
the async client's, ``sync`` is the blocking client's put_many, ``puts`` is 1,024 coroutines that call ``put``: what a
program does that does not know of bulk loading. In the end the keys are counted, by a read of each kind, or it fails.

:func:`bulk_load` is for other benchmarks: a running cluster's endpoints in, one row of figures out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from lattice_cli.demo.processes import LocalCluster
from lattice_core.client import AsyncClient, Client

HOW = ("put_many", "batch", "sync", "puts")
TIMEOUT_SECONDS = 30.0
CALLERS = 1024


def items(keys: int, value_bytes: int, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys in random order with values cut out of a random block, so that making them costs little."""
    block = random.Random(7).randbytes(1 << 16) + bytes(value_bytes)
    numbers = list(range(keys))
    random.Random(11).shuffle(numbers)
    for number in numbers:
        at = number * 31 & 0xFFFF
        yield prefix + b"%08d" % number, block[at : at + value_bytes]


async def _by_puts(client: AsyncClient, source: Iterator[tuple[bytes, bytes]]) -> None:
    async def caller() -> None:
        for key, value in source:
            await client.put(key, value)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def _by_batch(client: AsyncClient, source: Iterator[tuple[bytes, bytes]], keys: int) -> None:
    async with client.batch() as batch:
        for key, value in source:
            await batch.put(key, value)
    assert len(batch.results) == keys


def _by_thread(endpoints: str, source: Iterator[tuple[bytes, bytes]]) -> None:
    with Client(endpoints, timeout=TIMEOUT_SECONDS) as client:
        client.put_many(source)


async def bulk_load(
    endpoints: str, *, keys: int = 300_000, value_bytes: int = 256, how: str = "put_many"
) -> dict[str, Any]:
    """Load ``keys`` new keys into a running cluster; a row of figures. The keys are counted, and stay there."""
    prefix = b"bulk-%s-%s/" % (how.encode(), os.urandom(4).hex().encode())
    source = items(keys, value_bytes, prefix)
    async with AsyncClient(endpoints, timeout=TIMEOUT_SECONDS) as client:
        await client.put(prefix + b"warm", b"up")
        began, cpu = time.perf_counter(), time.process_time()
        if how == "put_many":
            await client.put_many(source)
        elif how == "batch":
            await _by_batch(client, source, keys)
        elif how == "sync":
            await asyncio.to_thread(_by_thread, endpoints, source)
        else:
            await _by_puts(client, source)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        found = (await client.range(prefix=prefix, count_only=True)).count
    if found != keys + 1:
        raise SystemExit(f"{how}: {found - 1} keys are there, {keys} were loaded")
    return {
        "how": how,
        "keys": keys,
        "value_bytes": value_bytes,
        "seconds": round(seconds, 2),
        "keys_per_second": round(keys / seconds),
        "client_cpu_us_per_key": round(cpu / keys * 1e6, 2),
    }


async def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    cluster = LocalCluster(options.nodes, parent_dir=options.dir)
    rows = []
    try:
        await cluster.start()
        print(f"{'how':>10} {'keys':>9} {'seconds':>8} {'keys/s':>9} {'client us/key':>14}")
        for how in options.how:
            row = await bulk_load(cluster.endpoints, keys=options.keys, value_bytes=options.value_size, how=how)
            rows.append(row)
            print(
                f"{how:>10} {row['keys']:>9,} {row['seconds']:>8} {row['keys_per_second']:>9,} "
                f"{row['client_cpu_us_per_key']:>14}",
                flush=True,
            )
    finally:
        await cluster.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--keys", type=int, default=300_000)
    parser.add_argument("--value-size", type=int, default=256, help="bytes")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--how", default=",".join(HOW), help="comma-separated, of: " + ", ".join(HOW))
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args()
    options.how = options.how.split(",")
    for how in options.how:
        if how not in HOW:
            parser.error(f"--how {how} is not one of {', '.join(HOW)}")
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        rows = runner.run(run(options))
    print(json.dumps(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
