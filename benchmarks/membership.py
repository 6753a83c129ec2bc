"""What changes of members and leadership cost a writing client: real nodes on this machine.

    python benchmarks/membership.py [--transfers 20] [--rate 500] [--keys 300000] [--only transfer,restart,join]

Three figures, each with every write accounted for (a new key for each; in the end all are read back once):

* **transfer**: leadership is handed over again and again under 8 writers that each wait for their answer; the cost of
  one is the longest time without an acknowledgement around it;
* **restart**: SIGTERM to each of three members in turn, started again by the same command, under writes that are sent
  at a fixed rate whatever becomes of the earlier ones: failed writes, the longest time without an acknowledgement, and
  the longest that a single write took;
* **join**: a fourth server joins a cluster of so many keys and is promoted: percentiles of put latency at the fixed
  rate, before, and from the start of its process until it votes.

Nodes, their fsyncs and the client share this machine's cores, the new server's process included.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from lattice_cli.demo.processes import LocalCluster, LocalNode, free_ports
from lattice_cli.demo.story import poll
from lattice_cli.demo.workload import Workload
from lattice_core.client import AsyncClient, ClusterStatus
from lattice_core.errors import LatticeError, NotApplied

VALUE = os.urandom(100)
SETTLE_SECONDS = 1.0


class PacedWrites:
    """Writes begun at a fixed rate, each with a new key, however long the earlier ones take."""

    def __init__(self, client: AsyncClient, rate: float, prefix: bytes) -> None:
        self._client = client
        self._rate = rate
        self._prefix = prefix
        self._writing: set[asyncio.Task[None]] = set()
        self._pacing: asyncio.Task[None] | None = None
        self.acknowledged: list[tuple[float, float]] = []
        """(when, after how many seconds)"""
        self.keys: set[bytes] = set()
        self.failed = {"not applied": 0, "unknown": 0}

    async def __aenter__(self) -> PacedWrites:
        self._pacing = asyncio.ensure_future(self._pace())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._pacing is not None
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        await asyncio.gather(*self._writing)

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while True:
            due = int((loop.time() - began) * self._rate)
            for number in range(sent, due):
                task = loop.create_task(self._write(self._prefix + b"%08d" % number))
                self._writing.add(task)
                task.add_done_callback(self._writing.discard)
            sent = due
            await asyncio.sleep(1 / self._rate)

    async def _write(self, key: bytes) -> None:
        began = time.perf_counter()
        try:
            await self._client.put(key, VALUE)
        except NotApplied:
            self.failed["not applied"] += 1
        except LatticeError:
            self.failed["unknown"] += 1
        else:
            now = time.perf_counter()
            self.acknowledged.append((now, now - began))
            self.keys.add(key)

    def since(self, at: float) -> dict[str, Any]:
        """Of those acknowledged after ``at``."""
        times = sorted(when for when, _ in self.acknowledged if when >= at)
        took = sorted(seconds for when, seconds in self.acknowledged if when >= at)
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return {
            "writes": len(took),
            "p50_ms": round(took[len(took) // 2] * 1000, 2),
            "p99_ms": round(took[len(took) * 99 // 100] * 1000, 2),
            "max_ms": round(took[-1] * 1000, 1),
            "longest_gap_ms": round(max(gaps) * 1000, 1),
        }

    async def account(self) -> None:
        """Every acknowledged key is there, once."""
        missing, twice, start = set(self.keys), 0, self._prefix
        while True:
            page = await self._client.range(start=start, end=self._prefix + b"\xff", limit=2000, timeout=20)
            missing -= {kv.key for kv in page.kvs}
            twice += sum(kv.version != 1 for kv in page.kvs)
            if not page.more:
                break
            start = page.kvs[-1].key + b"\0"
        if missing or twice:
            raise SystemExit(f"{len(missing)} acknowledged writes are missing, {twice} were applied twice")


def settled(status: ClusterStatus) -> bool:
    nodes = [member.status for member in status.members if member.status is not None]
    applied = [node.applied_index for node in nodes]
    return status.leader is not None and len(nodes) == len(status.members) and max(applied) - min(applied) < 200


async def measure_transfers(client: AsyncClient, count: int) -> dict[str, Any]:
    workload = Workload(client, callers=8)
    workload.start()
    costs: list[float] = []
    try:
        for _ in range(count):
            await poll(client.cluster_status, settled, "the cluster did not settle")
            await workload.until_acknowledged(100, 20)
            workload.watch_gap()
            await client.transfer_leader()
            await workload.until_acknowledged(100, 20)
            costs.append(workload.longest_gap_seconds * 1000)
            await asyncio.sleep(0.2)
    finally:
        await workload.stop()
    verdict = await workload.verdict()
    if not verdict.holds:
        raise SystemExit(f"{len(verdict.lost)} acknowledged writes lost, {len(verdict.twice)} applied twice")
    return {
        "transfers": count,
        "median_ms": round(statistics.median(costs), 1),
        "max_ms": round(max(costs), 1),
        "each_ms": [round(cost) for cost in costs],
        "acknowledged": verdict.acknowledged,
        "failed": verdict.not_applied + verdict.unknown - workload.callers,
    }


async def measure_rolling_restart(cluster: LocalCluster, client: AsyncClient, rate: float) -> dict[str, Any]:
    async with PacedWrites(client, rate, b"restart/") as writes:
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.perf_counter()
        for name, node in cluster.nodes.items():
            assert node.process is not None
            node.process.send_signal(signal.SIGTERM)
            while node.process.poll() is None:  # noqa: ASYNC110 - Popen has no event
                await asyncio.sleep(0.02)
            if node.process.returncode:
                raise SystemExit(f"{name} ended with {node.process.returncode}")
            await cluster.start(name)
            await poll(client.cluster_status, settled, f"{name} did not catch up")
            await asyncio.sleep(SETTLE_SECONDS)
        seconds = time.perf_counter() - began
    await writes.account()
    return {"rate": rate, "seconds": round(seconds, 1), "failed": writes.failed, **writes.since(began)}


async def fill(client: AsyncClient, keys: int) -> None:
    async def some(worker: int, workers: int) -> None:
        for number in range(worker, keys, workers):
            await client.put(b"filled/%08d" % number, VALUE, timeout=60)

    await asyncio.gather(*(some(worker, 1024) for worker in range(1024)))


async def measure_join(cluster: LocalCluster, client: AsyncClient, rate: float, keys: int) -> dict[str, Any]:
    await fill(client, keys)
    await client.take_snapshot()
    await asyncio.sleep(2 * SETTLE_SECONDS)
    peer, addr = free_ports(2)
    node = LocalNode(
        "n4", f"127.0.0.1:{addr}", f"127.0.0.1:{peer}", cluster.directory / "n4", cluster.directory / "n4.log"
    )
    node.arguments = [
        *("--name", "n4", "--data-dir", str(node.data_dir), "--client-addr", node.client_addr),
        *("--peer-addr", node.peer_addr, "--join", cluster.endpoints),
    ]
    async with PacedWrites(client, rate, b"join/") as writes:
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.perf_counter()
        await asyncio.sleep(8.0)
        before = writes.since(began)
        began = time.perf_counter()
        cluster.nodes["n4"] = node
        await cluster.start("n4")

        def votes(status: ClusterStatus) -> bool:
            return any(member.name == "n4" and member.voter for member in status.members) and not status.joint

        await poll(client.cluster_status, votes, "n4 was not promoted")
        seconds = time.perf_counter() - began
        during = writes.since(began)
        began = time.perf_counter()
        await asyncio.sleep(4.0)
        after = writes.since(began)
    await writes.account()
    return {
        "keys": keys,
        "rate": rate,
        "seconds_until_it_votes": round(seconds, 1),
        "failed": writes.failed,
        "before": before,
        "during": during,
        "after": after,
        "p99_ratio": round(during["p99_ms"] / before["p99_ms"], 2),
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "loop": options.loop}
    }
    cluster = LocalCluster(3, parent_dir=options.dir)
    try:
        await cluster.start()
        async with AsyncClient(cluster.endpoints, timeout=10.0) as client:
            await client.put(b"warm", b"up", timeout=20.0)
            if "transfer" in options.only:
                results["transfer"] = found = await measure_transfers(client, options.transfers)
                print(
                    f"transfer: median {found['median_ms']} ms, longest {found['max_ms']} ms, {found['failed']} failed"
                )
            if "restart" in options.only:
                results["restart"] = found = await measure_rolling_restart(cluster, client, options.rate)
                print(f"rolling restart: longest gap {found['longest_gap_ms']} ms, failed {found['failed']}")
            if "join" in options.only:
                results["join"] = found = await measure_join(cluster, client, options.rate, options.keys)
                print(
                    f"join: p99 {found['before']['p99_ms']} ms before, {found['during']['p99_ms']} ms while it joined "
                    f"({found['seconds_until_it_votes']} s), failed {found['failed']}"
                )
    finally:
        await cluster.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--transfers", type=int, default=20)
    parser.add_argument("--rate", type=float, default=500.0, help="writes a second, for restart and join")
    parser.add_argument("--keys", type=int, default=300_000, help="in the cluster that is joined")
    parser.add_argument("--only", default="transfer,restart,join", help="which, comma-separated")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args()
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
