"""What tracing costs: puts whose every batch is traced and exported, against puts of a cluster without ``--trace``.

    python benchmarks/tracing_cost.py [--callers 256] [--pairs 3] [--rounds 6] [--seconds 2] [--sampled 1.0]

As benchmarks/metrics_cost.py: two clusters of three real nodes side by side, one client process that writes to the one
and to the other in turns, ratios within a round. The members of the one run with ``--trace``, its client has
``tracing=True``, and all of them export over OTLP to a collector on this machine, a process of its own that reads what
it is sent and throws it away. ``--sampled 0.01`` traces a hundredth of the batches, as one would with many callers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from opentelemetry import trace

from benchmarks.metrics_cost import cpu_seconds, puts
from lattice_cli.demo.processes import LocalCluster
from lattice_core.client import AsyncClient

COLLECTOR = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Its address, as OTEL_EXPORTER_OTLP_ENDPOINT wants it."""
    with subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


async def one_pair(options: argparse.Namespace, totals: dict[str, list[float]]) -> tuple[float, float]:
    """(ratio of puts a second, ratio of processor time for each put), with traces to without."""
    clusters = {
        "without": LocalCluster(3, parent_dir=options.dir),
        "with": LocalCluster(3, parent_dir=options.dir, options=("--trace",)),
    }
    value = os.urandom(options.value_size)
    rates: dict[str, list[float]] = {"without": [], "with": []}
    cpu: dict[str, list[float]] = {"without": [], "with": []}
    try:
        for cluster in clusters.values():
            await cluster.start()
        async with (
            AsyncClient(clusters["without"].endpoints, timeout=20.0) as without,
            AsyncClient(clusters["with"].endpoints, timeout=20.0, tracing=True) as traced,
        ):
            clients = {"without": without, "with": traced}
            for client in clients.values():
                await puts(client, options.callers, 1.0, value)
            for number in range(options.rounds):
                for name in list(clients) if number % 2 else list(reversed(clients)):
                    before = cpu_seconds(clusters[name])
                    count = await puts(clients[name], options.callers, options.seconds, value)
                    rates[name].append(count / options.seconds)
                    cpu[name].append((cpu_seconds(clusters[name]) - before) / count * 1e6)
    finally:
        for cluster in clusters.values():
            await cluster.close()
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
        "sampled": options.sampled,
        **{name: round(statistics.median(values), 1) for name, values in totals.items()},
        "ratio_puts": round(statistics.median(rate for rate, _ in ratios), 4),
        "ratio_cpu": round(statistics.median(cpu for _, cpu in ratios), 4),
        "pairs": [[round(rate, 4), round(cpu, 4)] for rate, cpu in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--callers", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3, help="of clusters")
    parser.add_argument("--rounds", type=int, default=6, help="for each pair")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--value-size", type=int, default=256, help="bytes")
    parser.add_argument("--sampled", type=float, default=1.0, help="part of the batches, as the client decides")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="on the disk to measure: not a tmpfs")
    options = parser.parse_args()
    with collector() as endpoint:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        os.environ["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
        os.environ["OTEL_TRACES_SAMPLER_ARG"] = str(options.sampled)
        print(json.dumps(asyncio.run(run(options))))
        trace.get_tracer_provider().shutdown()  # type: ignore[attr-defined]  # while there is somebody to export to


if __name__ == "__main__":
    main()
