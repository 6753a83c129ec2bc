"""What TLS costs: puts with mutual TLS on every port, clients' and peers', against puts in plain text.

    python benchmarks/tls_cost.py [--callers 256] [--pairs 5] [--rounds 4] [--seconds 4]

Two clusters of three real nodes stand side by side on this machine, and ``lattice bench`` writes to the one and to the
other in turns, a few seconds each; the order changes from round to round (A B B A). What else happens on the machine
hits both, so it is the ratio within a round that counts. Two clusters are never quite alike (which node leads, what
lies where on the disk), so several pairs are made, and each pair gives one ratio.

The processor time that the six nodes took for each put is told as well: it is far steadier than throughput.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lattice_cli.demo.processes import LocalCluster

ROOT = Path(__file__).resolve().parents[1]

PATIENCE_SECONDS = 60.0
"""For one turn, beyond its own time: starting the load, and deleting its keys."""


def cpu_seconds(cluster: LocalCluster) -> float:
    """What the nodes of a cluster have used so far (Linux)."""
    ticks = 0
    for node in cluster.nodes.values():
        fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def bench(cluster: LocalCluster, options: argparse.Namespace) -> dict[str, Any]:
    """One turn of ``lattice bench``: its JSON."""
    command = ["--endpoints", cluster.endpoints, "--timeout", "20", "-o", "json", "bench", "--keep"]
    command += ["--callers", str(options.callers), "--seconds", str(options.seconds), "--warm-up", "0.5"]
    command += ["--value-size", str(options.value_size)]
    if cluster.tls is not None:
        tls = cluster.tls
        command += ["--tls-ca", str(tls.ca), "--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lattice_cli", *command, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment
    )
    async with asyncio.timeout(options.seconds + PATIENCE_SECONDS):
        out, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"lattice bench ended with {process.returncode}")
    document: dict[str, Any] = json.loads(out)
    return document


async def one_pair(options: argparse.Namespace, totals: dict[str, list[float]]) -> tuple[float, float]:
    """(ratio of puts a second, ratio of processor time for each put), TLS to plain text."""
    clusters = {
        "plain": LocalCluster(3, parent_dir=options.dir),
        "tls": LocalCluster(3, parent_dir=options.dir, tls=True),
    }
    rates: dict[str, list[float]] = {"plain": [], "tls": []}
    cpu: dict[str, list[float]] = {"plain": [], "tls": []}
    try:
        for cluster in clusters.values():
            await cluster.start()
            await bench(cluster, options)  # the first is no measurement: everything is still cold
        for number in range(options.rounds):
            for name in list(clusters) if number % 2 else list(reversed(clusters)):
                before = cpu_seconds(clusters[name])
                result = await bench(clusters[name], options)
                assert not result["errors"], result
                rates[name].append(result["ops_per_second"])
                cpu[name].append((cpu_seconds(clusters[name]) - before) / result["ops"] * 1e6)
                totals[f"p50_ms_{name}"].append(result["p50_ms"])
    finally:
        for cluster in clusters.values():
            await cluster.close()
    for name in clusters:
        totals[f"puts_per_second_{name}"] += rates[name]
        totals[f"node_cpu_us_per_put_{name}"] += cpu[name]
    return (
        statistics.median(on / off for on, off in zip(rates["tls"], rates["plain"], strict=True)),
        statistics.median(on / off for on, off in zip(cpu["tls"], cpu["plain"], strict=True)),
    )


async def run(options: argparse.Namespace) -> dict[str, Any]:
    totals: dict[str, list[float]] = defaultdict(list)
    ratios = [await one_pair(options, totals) for _ in range(options.pairs)]
    return {
        "callers": options.callers,
        **{name: round(statistics.median(values), 2) for name, values in totals.items()},
        "ratio_puts": round(statistics.median(rate for rate, _ in ratios), 4),
        "ratio_cpu": round(statistics.median(cpu for _, cpu in ratios), 4),
        "pairs": [[round(rate, 4), round(cpu, 4)] for rate, cpu in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--callers", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5, help="of clusters")
    parser.add_argument("--rounds", type=int, default=4, help="for each pair")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--value-size", type=int, default=256, help="bytes")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
