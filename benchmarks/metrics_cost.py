"""What serving metrics costs: puts with ``--metrics-addr``, scraped, against puts without.

    python benchmarks/metrics_cost.py [--callers 256] [--pairs 3] [--rounds 2] [--seconds 15] [--scrape-seconds 15]
        [--baseline DIR]

Two clusters of three real nodes stand side by side on this machine, and one client process writes to the one and to
the other in turns of the length between two scrapes; the order changes from round to round. What else happens on the
machine hits both, so it is the ratio within a round that counts. Two clusters are never quite alike (which node
leads, what lies where on the disk), so several pairs are made, and each pair gives one ratio.

The processor time that the six nodes took for each put is told as well: it is far steadier than throughput.

``--baseline DIR``: the cluster without metrics runs the source tree in DIR, so that what counting itself costs can
be told from a tree that does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from lattice_cli.demo.processes import LocalCluster, free_ports
from lattice_core.client import AsyncClient

KEYS = 10_000
SCRAPE_SECONDS = 15.0
"""What Prometheus' own example has."""


async def puts(client: AsyncClient, callers: int, seconds: float, value: bytes) -> int:
    """How many were acknowledged in so many seconds; closed loop."""
    until = time.perf_counter() + seconds
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        turn = number
        while time.perf_counter() < until:
            turn = (turn * 1103515245 + 12345) & 0x7FFFFFFF
            await client.put(b"key-%08d" % (turn % KEYS), value)
            done += 1

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return done


async def scrape(ports: list[int], bodies: list[int], every_seconds: float) -> None:
    """Every node's /metrics, again and again, until cancelled."""
    while True:
        for port in ports:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            bodies.append(len(await reader.read()))
            writer.close()
        await asyncio.sleep(every_seconds)


def cpu_seconds(cluster: LocalCluster) -> float:
    """What the nodes of a cluster have used so far (Linux)."""
    ticks = 0
    for node in cluster.nodes.values():
        fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def one_pair(options: argparse.Namespace, totals: dict[str, list[float]]) -> tuple[float, float]:
    """(ratio of puts a second, ratio of processor time for each put), with metrics to without."""
    clusters = {"without": LocalCluster(3, parent_dir=options.dir), "with": LocalCluster(3, parent_dir=options.dir)}
    if options.baseline is not None:
        for node in clusters["without"].nodes.values():
            node.source = options.baseline.resolve()
    ports = free_ports(3)
    for node, port in zip(clusters["with"].nodes.values(), ports, strict=True):
        node.arguments += ["--metrics-addr", f"127.0.0.1:{port}"]
    value = os.urandom(options.value_size)
    rates: dict[str, list[float]] = {"without": [], "with": []}
    cpu: dict[str, list[float]] = {"without": [], "with": []}
    bodies: list[int] = []
    try:
        for cluster in clusters.values():
            await cluster.start()
        async with (
            AsyncClient(clusters["without"].endpoints, timeout=20.0) as without,
            AsyncClient(clusters["with"].endpoints, timeout=20.0) as with_metrics,
        ):
            clients = {"without": without, "with": with_metrics}
            for client in clients.values():
                await puts(client, options.callers, 1.0, value)
            scraping = asyncio.ensure_future(scrape(ports, bodies, options.scrape_seconds))
            for number in range(options.rounds):
                for name in list(clients) if number % 2 else list(reversed(clients)):
                    before = cpu_seconds(clusters[name])
                    count = await puts(clients[name], options.callers, options.seconds, value)
                    rates[name].append(count / options.seconds)
                    cpu[name].append((cpu_seconds(clusters[name]) - before) / count * 1e6)
            scraping.cancel()
            await asyncio.gather(scraping, return_exceptions=True)
    finally:
        for cluster in clusters.values():
            await cluster.close()
    assert bodies, "nothing was scraped"
    for name in clusters:
        totals[f"puts_per_second_{name}"] += rates[name]
        totals[f"cpu_us_per_put_{name}"] += cpu[name]
    return (
        statistics.median(on / off for on, off in zip(rates["with"], rates["without"], strict=True)),
        statistics.median(on / off for on, off in zip(cpu["with"], cpu["without"], strict=True)),
    )


async def run(options: argparse.Namespace) -> dict[str, Any]:
    totals: dict[str, list[float]] = defaultdict(list)
    ratios = [await one_pair(options, totals) for _ in range(options.pairs)]
    return {
        "callers": options.callers,
        **{name: round(statistics.median(values), 1) for name, values in totals.items()},
        "ratio_puts": round(statistics.median(rate for rate, _ in ratios), 4),
        "ratio_cpu": round(statistics.median(cpu for _, cpu in ratios), 4),
        "pairs": [[round(rate, 4), round(cpu, 4)] for rate, cpu in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--callers", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3, help="of clusters")
    parser.add_argument("--rounds", type=int, default=2, help="for each pair")
    parser.add_argument("--seconds", type=float, default=SCRAPE_SECONDS, help="of each turn")
    parser.add_argument("--scrape-seconds", type=float, default=SCRAPE_SECONDS, help="from one scrape to the next")
    parser.add_argument("--value-size", type=int, default=256, help="bytes")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    parser.add_argument("--baseline", type=Path, help="source tree of the cluster without metrics")
    options = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(run(options))))


if __name__ == "__main__":
    main()
