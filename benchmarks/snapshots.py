"""What snapshots cost: latency and memory while they are taken and sent, restart, catching up, disk in use.

    python benchmarks/snapshots.py [--keys 300000] [--value-size 256] [--rounds 5] [--json FILE]

Three real nodes on this machine with default settings, so every node fsyncs; the client shares the machine. Values
are random. What is asked is in issue 4:

* the 99th percentile of put latency while a snapshot is taken, against the same load without: at most 2.0;
* memory (resident) of the member that takes or sends one, against before: at most 25 % of the state's size;
* kill -9 of a member, started again with the same data, to its first linearizable read: at most 1.8 s;
* a new server with an empty disk is caught up, under 1,000 puts a second: at most 15 s;
* disk in use by a data directory: below three times the state's size.

The state's size is that of its snapshot file. A row is the median of the rounds, with the worst beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from lattice_cli.demo.processes import LocalCluster
from lattice_core.client import AsyncClient, ClusterStatus
from lattice_core.errors import LatticeError

MIB = 1 << 20


class Load:
    """Puts of random keys at a steady rate by some callers; latency is counted from when each was due."""

    def __init__(self, client: AsyncClient, keys: int, value_bytes: int, rate: float, callers: int = 16) -> None:
        self._client = client
        self._keys = keys
        self._value = os.urandom(value_bytes)
        self._interval = callers / rate
        self._callers = callers
        self.latencies: list[float] = []
        self.failed = 0

    def p99_ms(self) -> float:
        ordered = sorted(self.latencies)
        return ordered[len(ordered) * 99 // 100] * 1000

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self._caller(number)) for number in range(self._callers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _caller(self, number: int) -> None:
        draw = random.Random(number)
        due = time.perf_counter() + number * self._interval / self._callers
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                await self._client.put(b"key-%09d" % draw.randrange(self._keys), self._value)
            except LatticeError:
                self.failed += 1
            self.latencies.append(time.perf_counter() - due)
            due += self._interval


class Watch:
    """The largest value that a function of a process or a directory takes while it is watched."""

    def __init__(self, measure: Any, every_seconds: float = 0.02) -> None:
        self._measure = measure
        self._every = every_seconds
        self.before = self.most = measure()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.most = max(self.most, self._measure())

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, self._measure())
            await asyncio.sleep(self._every)


def resident(pid: int | None) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    return 0


def disk(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def snapshot_bytes(directory: Path) -> int:
    return max((path.stat().st_size for path in (directory / "snapshots").glob("*.snap")), default=0)


async def fill(client: AsyncClient, keys: int, value_bytes: int) -> None:
    numbers = iter(range(keys))
    value = os.urandom(value_bytes - 8)

    async def writer() -> None:
        for number in numbers:
            await client.put(b"key-%09d" % number, value + number.to_bytes(8, "big"))

    await asyncio.gather(*(writer() for _ in range(2000)))


async def leader_of(client: AsyncClient) -> str:
    def caught_up(status: ClusterStatus) -> bool:
        applied = [member.status.applied_index for member in status.members if member.status is not None]
        return status.leader is not None and len(applied) == len(status.members) and max(applied) - min(applied) < 200

    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(LatticeError):
                status = await client.cluster_status()
                if status.leader is not None and caught_up(status):
                    return status.leader.name
            await asyncio.sleep(0.05)


async def first_read(addr: str) -> None:
    """Until a member answers a linearizable read; asked again and again, as a client would."""
    async with AsyncClient(addr, timeout=20.0) as client:
        await client.get(b"key-%09d" % 7)


async def taking(cluster: LocalCluster, client: AsyncClient, options: argparse.Namespace) -> dict[str, Any]:
    """Same load, without and with the leader's snapshots, in turns."""
    ratios, grown, quiet, busy = [], [], [], []
    for _ in range(options.rounds):
        leader = await leader_of(client)
        node = cluster.nodes[leader]
        load = Load(client, options.keys, options.value_size, options.rate)
        async with load.running():
            await asyncio.sleep(options.seconds)
        memory = Watch(lambda node=node: resident(node.pid))
        during = Load(client, options.keys, options.value_size, options.rate)
        async with AsyncClient(node.client_addr, timeout=60.0) as direct, memory.running(), during.running():
            until = time.perf_counter() + options.seconds
            while time.perf_counter() < until:
                await direct.take_snapshot()
        quiet.append(load.p99_ms())
        busy.append(during.p99_ms())
        ratios.append(during.p99_ms() / load.p99_ms())
        grown.append((memory.most - memory.before) / snapshot_bytes(node.data_dir))
    return {
        "p99_ms_without": [round(value, 1) for value in quiet],
        "p99_ms_while_taking": [round(value, 1) for value in busy],
        "p99_ratio": _summary(ratios),
        "memory_growth_of_state": _summary(grown),
    }


async def restarting(cluster: LocalCluster, client: AsyncClient, options: argparse.Namespace) -> dict[str, Any]:
    """kill -9, start, first linearizable read: a follower, the leader, and all three at once."""
    rows: dict[str, list[float]] = {"follower": [], "all": []}
    for _ in range(options.rounds):
        leader = await leader_of(client)
        follower = next(name for name in cluster.nodes if name != leader)
        for kind, names in (("follower", [follower]), ("all", list(cluster.nodes))):
            for name in names:
                cluster.kill(name)
            began = time.perf_counter()
            start = asyncio.ensure_future(cluster.start(*names))
            await first_read(cluster.nodes[follower].client_addr)
            rows[kind].append(time.perf_counter() - began)
            await start
            await leader_of(client)
    return {f"restart_{kind}_seconds": _summary(values) for kind, values in rows.items()}


async def catching_up(cluster: LocalCluster, client: AsyncClient, options: argparse.Namespace) -> dict[str, Any]:
    """A new server with an empty disk joins under load: until it votes, which it may when it is level."""
    seconds, grown, ratios = [], [], []
    for number in range(options.rounds):
        leader = await leader_of(client)
        load = Load(client, options.keys, options.value_size, 1000.0)
        async with load.running():
            await asyncio.sleep(2.0)
            without = load.p99_ms()
            memory = Watch(lambda leader=leader: resident(cluster.nodes[leader].pid))
            load.latencies.clear()
            name = f"new{number}"
            cluster.joiner(name)
            began = time.perf_counter()
            async with memory.running():
                start = asyncio.ensure_future(cluster.start(name))
                while not await votes(client, name):  # noqa: ASYNC110 - nothing here could set an event
                    await asyncio.sleep(0.05)
            seconds.append(time.perf_counter() - began)
            await start
        ratios.append(load.p99_ms() / without)
        grown.append((memory.most - memory.before) / snapshot_bytes(cluster.nodes[leader].data_dir))
        await client.remove_server(name)
        cluster.kill(name)
        del cluster.nodes[name]
    return {
        "catch_up_seconds": _summary(seconds),
        "p99_ratio_while_catching_up": _summary(ratios),
        "leaders_memory_growth_of_state": _summary(grown),
    }


async def votes(client: AsyncClient, name: str) -> bool:
    with contextlib.suppress(LatticeError):
        return any(member.name == name and member.voter for member in (await client.cluster_status()).members)
    return False


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "worst": round(max(values), 2)}


async def run(options: argparse.Namespace) -> dict[str, Any]:
    cluster = LocalCluster(3, parent_dir=options.dir)
    results: dict[str, Any] = {"keys": options.keys, "value_bytes": options.value_size, "rounds": options.rounds}

    def show(row: dict[str, Any]) -> None:
        results.update(row)
        for name, value in row.items():
            print(f"{name:34} {value}", flush=True)

    try:
        await cluster.start()
        async with AsyncClient(cluster.endpoints, timeout=30.0) as client:
            await leader_of(client)
            used = Watch(lambda: max(disk(node.data_dir) for node in cluster.nodes.values()), 0.1)
            async with used.running():
                began = time.perf_counter()
                await fill(client, options.keys, options.value_size)
                leader = await leader_of(client)
                show({"fill_seconds": round(time.perf_counter() - began, 1)})
                async with AsyncClient(cluster.nodes[leader].client_addr, timeout=60.0) as direct:
                    await direct.take_snapshot()
                state = snapshot_bytes(cluster.nodes[leader].data_dir)
                show({"state_mib": round(state / MIB, 1)})
                for part in options.parts.split(","):
                    show(await PARTS[part](cluster, client, options))
                # Long enough for several automatic snapshots, the usual way.
                load = Load(client, options.keys, options.value_size, 8000.0, callers=256)
                async with load.running():
                    await asyncio.sleep(options.disk_seconds)
            show({"disk_of_state_most": round(used.most / state, 2), "failed_puts": load.failed})
    finally:
        await cluster.close()
    return results


PARTS = {"taking": taking, "restarting": restarting, "catching-up": catching_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--keys", type=int, default=300_000)
    parser.add_argument("--value-size", type=int, default=256, help="bytes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load, without and with snapshots")
    parser.add_argument("--rate", type=float, default=2000.0, help="puts a second meanwhile")
    parser.add_argument("--disk-seconds", type=float, default=20.0, help="of load to watch the disk under")
    parser.add_argument("--parts", default=",".join(PARTS), help="which to measure")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        results = runner.run(run(options))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
