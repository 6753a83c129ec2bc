"""What the command line costs: its help, a get, and to a node somebody who watches with ``lattice top``.

    python benchmarks/command_cost.py [--runs 15] [--rounds 3] [--seconds 10] [--rate 2000] [--json FILE]

Whole processes, in turns (A B A B), against scripts that only import what they cannot do without:

* ``lattice --help`` against a script that imports rich_click and prints the help of a command;
* ``lattice get`` against one that imports click and grpc, and ends.

And three real nodes on this machine, with one ``lattice top`` and without, in turns of some seconds each; first while
nobody else wants anything of them, then while ``lattice bench`` writes at a fixed rate, so that they have the same work
to do in every turn. What counts is how much of a core each node takes.

CPU time is what to look at: it says the same, more or less, however busy the machine is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare import whole
from benchmarks.compare.processes import Failed, cpu_seconds, environment
from lattice_cli.demo.processes import LocalCluster

RICH_HELP = """
import rich_click as click

@click.command()
def hello():
    '''Say hello.'''

hello(["--help"])
"""

PROCESS_GOAL = 1.4
TOP_GOAL = 0.02
"""Of a core, for each node."""

SETTLE_SECONDS = 1.0
"""After something was started or ended: interpreters start, sessions are opened and closed."""


def processes(endpoints: str, runs: int) -> list[dict[str, Any]]:
    """The help and a get, each beside what it cannot do without."""
    pairs = {
        "lattice --help": (whole.lattice("--help"), "rich_click's help", [sys.executable, "-c", RICH_HELP]),
        "lattice get": (
            whole.lattice("--endpoints", endpoints, "get", "key"),
            "imports of click and grpc",
            whole.IMPORTS,
        ),
    }
    found = []
    for name, (command, other, beside) in pairs.items():
        costs = whole.in_turns({name: command, other: beside}, runs)
        found.append(
            {
                "what": name,
                "beside": other,
                "cpu_ms": [1000 * median_cpu(costs[each]) for each in (name, other)],
                "wall_ms": [
                    1000 * statistics.median(cost.wall_seconds for cost in costs[each]) for each in (name, other)
                ],
                # Of turns that stood next to each other: what else the machine did fell on both.
                "ratio_cpu": statistics.median(
                    one.cpu_seconds / two.cpu_seconds for one, two in zip(costs[name], costs[other], strict=True)
                ),
                "ratio_best": min(cost.cpu_seconds for cost in costs[name])
                / min(cost.cpu_seconds for cost in costs[other]),
            }
        )
    return found


def median_cpu(costs: Sequence[whole.Cost]) -> float:
    return statistics.median(cost.cpu_seconds for cost in costs)


@contextlib.asynccontextmanager
async def beside(*arguments: str) -> AsyncIterator[None]:
    """A command of ours in the background, for as long as the block lasts. Raises Failed if it ends before."""
    process = await asyncio.create_subprocess_exec(
        *whole.lattice(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        await asyncio.sleep(SETTLE_SECONDS)
        yield
        if process.returncode is not None:
            assert process.stderr is not None
            words = (await process.stderr.read()).decode(errors="replace").strip()
            raise Failed(f"lattice {' '.join(arguments)} ended too soon: {words or process.returncode}")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def watched(cluster: LocalCluster, rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """For turns with ``lattice top`` and without: how much of a core each node took."""
    shares: dict[str, list[list[float]]] = {"without": [], "with": []}
    for _ in range(rounds):
        for name in shares:
            async with contextlib.AsyncExitStack() as stack:
                if name == "with":
                    await stack.enter_async_context(beside("--endpoints", cluster.endpoints, "-o", "json", "top"))
                await asyncio.sleep(SETTLE_SECONDS)
                shares[name].append(await node_shares(cluster, seconds))
    return shares


async def node_shares(cluster: LocalCluster, seconds: float) -> list[float]:
    clock = asyncio.get_running_loop().time
    pids = [node.pid for node in cluster.nodes.values() if node.pid is not None]
    began, before = clock(), [cpu_seconds(pid) for pid in pids]
    await asyncio.sleep(seconds)
    took, after = clock() - began, [cpu_seconds(pid) for pid in pids]
    return [(end - start) / took for start, end in zip(before, after, strict=True)]


def top_cost(what: str, shares: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Of all nodes' medians of the turns the difference: what top adds. The dearest node counts."""
    by_node = {name: [statistics.median(turns) for turns in zip(*shares[name], strict=True)] for name in shares}
    added = [on - off for on, off in zip(by_node["with"], by_node["without"], strict=True)]
    return {
        "what": f"lattice top, {what}",
        "without": [round(share, 4) for share in by_node["without"]],
        "with": [round(share, 4) for share in by_node["with"]],
        "added": round(max(added), 4),
        "added_mean": round(statistics.mean(added), 4),
        "turns": {name: [[round(share, 4) for share in turn] for turn in turns] for name, turns in shares.items()},
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    cluster = LocalCluster(3, parent_dir=options.dir)
    try:
        await cluster.start()
        whole.run(whole.lattice("--endpoints", cluster.endpoints, "put", "key", "value"))
        found = await asyncio.to_thread(processes, cluster.endpoints, options.runs)
        idle = await watched(cluster, options.rounds, options.seconds)
        bench_seconds = 2 * options.rounds * (options.seconds + 4 * SETTLE_SECONDS) + 60
        bench = ("bench", "--rate", str(options.rate), "--seconds", str(bench_seconds), "--keep", "--warm-up", "0")
        async with beside("--endpoints", cluster.endpoints, *bench):
            loaded = await watched(cluster, options.rounds, options.seconds)
    finally:
        await cluster.close()
    return {
        "processes": found,
        "top": [top_cost("nothing else to do", idle), top_cost(f"{options.rate:,} puts a second", loaded)],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """For a person."""
    said = []
    for each in result["processes"]:
        (ours, theirs), (our_wall, their_wall) = each["cpu_ms"], each["wall_ms"]
        said.append(
            f"{each['what']}: {ours:.0f} ms of CPU against {theirs:.0f} for {each['beside']}: "
            f"{each['ratio_cpu']:.2f} x (best runs {each['ratio_best']:.2f} x; goal {PROCESS_GOAL} x); "
            f"{our_wall:.0f} against {their_wall:.0f} ms by the clock"
        )
    for each in result["top"]:
        nodes = ", ".join(
            f"{100 * off:.1f} -> {100 * on:.1f} %" for off, on in zip(each["without"], each["with"], strict=True)
        )
        said.append(
            f"{each['what']}: adds {100 * each['added']:.2f} % of a core to the dearest node, "
            f"{100 * each['added_mean']:.2f} % on average (goal {100 * TOP_GOAL:.0f} %); nodes {nodes}"
        )
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=15, help="of each process")
    parser.add_argument("--rounds", type=int, default=3, help="of turns without top and with it")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each such turn")
    parser.add_argument("--rate", type=int, default=2000, help="puts a second, of the cluster that has work to do")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    try:
        result = asyncio.run(measure(options))
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(result)))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
