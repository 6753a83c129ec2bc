"""Puts a second, their latency, and what a killed leader costs: three real nodes on this machine.

    python benchmarks/put_latency.py [--callers 1,64,256,1024] [--seconds 4] [--kills 5] [--json FILE]

Every node is a process of its own with its own data directory, and fsyncs; all callers are coroutines of one
client process (uvloop where it exists), each waiting for its answer before the next put. So this measures the
whole way: library, gRPC, consensus, two fsyncs at least, apply, and back, with everything sharing this machine's
cores. Values are random, so that nothing on the way can compress them.

The gap of a kill is the longest time without an acknowledgement for 8 writing callers, from just before
``kill -9`` of the leader; the node is started again and has caught up before the next one is killed. Every write
is a new key, and in the end all are read back: a benchmark that lost a write, or applied one twice, fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from lattice_cli.demo.processes import LocalCluster
from lattice_cli.demo.story import poll
from lattice_cli.demo.workload import Workload
from lattice_core.client import AsyncClient, ClusterStatus
from lattice_core.errors import LatticeError

KEYS = 10_000
WARM_UP_SECONDS = 0.5
"""Connections, sessions, and the interpreter's caches."""


async def measure(client: AsyncClient, callers: int, seconds: float, value_bytes: int) -> dict[str, Any]:
    """Closed loop: each caller puts, waits, and puts again."""
    values = [os.urandom(value_bytes) for _ in range(64)]
    latencies: list[float] = []
    errors = 0
    clock = time.perf_counter
    counting_from = clock() + WARM_UP_SECONDS
    until = counting_from + seconds

    async def caller(number: int) -> None:
        nonlocal errors
        turn = number
        while (began := clock()) < until:
            turn = (turn * 1103515245 + 12345) & 0x7FFFFFFF
            try:
                await client.put(b"key-%08d" % (turn % KEYS), values[turn & 63])
            except LatticeError:
                errors += 1
                continue
            ended = clock()
            if ended >= counting_from:
                latencies.append(ended - began)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    latencies.sort()
    count = len(latencies)
    return {
        "callers": callers,
        "ops": count,
        "seconds": seconds,
        "ops_per_second": round(count / seconds),
        "p50_ms": round(latencies[count // 2] * 1000, 2),
        "p99_ms": round(latencies[count * 99 // 100] * 1000, 2),
        "max_ms": round(latencies[-1] * 1000, 2),
        "errors": errors,
    }


async def measure_kills(cluster: LocalCluster, client: AsyncClient, kills: int) -> dict[str, Any]:
    """Kill the leader again and again under writes."""

    def settled(status: ClusterStatus) -> bool:
        nodes = [member.status for member in status.members if member.status is not None]
        applied = [node.applied_index for node in nodes]
        return status.leader is not None and len(nodes) == len(status.members) and max(applied) - min(applied) < 200

    workload = Workload(client, callers=8)
    workload.start()
    gaps: list[float] = []
    try:
        for _ in range(kills):
            status = await poll(client.cluster_status, settled, "the cluster did not settle")
            assert status.leader is not None
            leader = status.leader.name
            await workload.until_acknowledged(200, 20)
            workload.watch_gap()
            cluster.kill(leader)
            await workload.until_acknowledged(200, 20)
            gaps.append(workload.longest_gap_seconds)
            await cluster.start(leader)
    finally:
        await workload.stop()
    verdict = await workload.verdict()
    if not verdict.holds:
        raise SystemExit(f"{len(verdict.lost)} acknowledged writes lost, {len(verdict.twice)} applied twice")
    milliseconds = [round(gap * 1000) for gap in gaps]
    return {
        "kills": kills,
        "gap_ms": milliseconds,
        "gap_ms_median": round(statistics.median(milliseconds)),
        "gap_ms_max": max(milliseconds),
        "acknowledged": verdict.acknowledged,
        "lost": len(verdict.lost),
        "applied_twice": len(verdict.twice),
        "not_applied": verdict.not_applied,
        "unknown": verdict.unknown - workload.callers,  # the writers that were stopped in the middle
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    cluster = LocalCluster(3, parent_dir=options.dir)
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "loop": options.loop},
        "value_bytes": options.value_size,
        "puts": [],
    }
    try:
        await cluster.start()
        async with AsyncClient(cluster.endpoints, timeout=10.0) as client:
            await client.put(b"warm", b"up", timeout=20.0)
            print(f"{'callers':>8} {'puts/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'errors':>7}")
            for callers in options.callers:
                row = await measure(client, callers, options.seconds, options.value_size)
                results["puts"].append(row)
                print(
                    f"{row['callers']:>8} {row['ops_per_second']:>9,} {row['p50_ms']:>8} {row['p99_ms']:>8} "
                    f"{row['max_ms']:>8} {row['errors']:>7}",
                    flush=True,
                )
            if options.kills:
                results["kills"] = await measure_kills(cluster, client, options.kills)
                kills = results["kills"]
                print(
                    f"leader killed {kills['kills']} times: writes stood still for {kills['gap_ms']} ms "
                    f"(median {kills['gap_ms_median']}), {kills['acknowledged']:,} acknowledged, {kills['lost']} lost, "
                    f"{kills['applied_twice']} applied twice"
                )
    finally:
        await cluster.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--callers", default="1,64,256,1024", help="how many at once, comma-separated")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each of them")
    parser.add_argument("--value-size", type=int, default=256, help="bytes")
    parser.add_argument("--kills", type=int, default=5, help="of the leader; 0 for none")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args()
    options.callers = [int(text) for text in options.callers.split(",")]
    try:
        import uvloop
    except ImportError:
        options.loop, factory = "asyncio", None
    else:
        options.loop, factory = "uvloop", uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        results = runner.run(run(options))
    print(json.dumps(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
