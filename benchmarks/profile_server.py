"""Where the time goes: a saturated cluster, and a lone caller, under a profiler. Three real nodes on this machine.

    python benchmarks/profile_server.py [--callers 256,1] [--seconds 6] [--out DIR] [--waiting] [--native]

Writes into DIR (default: profile/), and sums up in DIR/summary.txt, which is printed as well:

* for each number of callers a flame graph (SVG) of leader, follower and client, by py-spy, which samples from outside
  and costs little, of the thread that holds the interpreter;
* what each thread cost: time on a core, time waiting for one, wake-ups;
* for one caller a timeline, from trace points within all processes: where each microsecond of a put goes.

py-spy has to be installed (pip install py-spy) and allowed to look into other processes (root, or
/proc/sys/kernel/yama/ptrace_scope at 0). Flame graphs and timeline come from different runs: trace points cost
about a tenth. On a busy machine only the proportions mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from benchmarks.profiling import flame, threads, timeline, tracepoints
from lattice_cli.bench.run import use_fast_loop
from lattice_cli.demo.processes import LocalCluster, LocalNode
from lattice_core.client import AsyncClient

ROOT = Path(__file__).resolve().parents[1]
SAMPLES_A_SECOND = 400
WARM_UP_SECONDS = 1.5
TRACED_PUTS = 1000
UNTRACED_PUTS = 200
"""Of a lone caller, before the traced ones: connections, sessions, the interpreter's caches."""


class TracedCluster(LocalCluster):
    """The same nodes with trace points, which they write when they end."""

    def command(self, node: LocalNode) -> list[str]:
        marks = str(self.marks_of(node.name))
        return [sys.executable, "-m", "benchmarks.profiling.tracepoints", marks, "start", *node.arguments]

    def marks_of(self, name: str) -> Path:
        return self.directory / f"{name}.marks.json"

    async def stop(self) -> None:
        """SIGTERM, and wait: the marks are written on the way out."""
        for node in self.nodes.values():
            if node.process is not None:
                node.process.send_signal(signal.SIGTERM)
        for node in self.nodes.values():
            if node.process is not None:
                await asyncio.to_thread(node.process.wait, 20)


@contextlib.asynccontextmanager
async def cluster_of(kind: type[LocalCluster], parent: Path) -> AsyncIterator[tuple[Any, AsyncClient, str]]:
    """A fresh cluster, a client of it, and the leader's name."""
    cluster = kind(3, parent_dir=parent)
    try:
        await cluster.start()
        async with AsyncClient(cluster.endpoints, timeout=10.0) as client:
            await client.put(b"warm", b"up", timeout=20.0)
            status = await client.cluster_status()
            if status.leader is None:
                raise SystemExit("there is no leader")
            yield cluster, client, status.leader.name
    finally:
        await cluster.close()


# -- flame graphs and threads -------------------------------------------------------------------------


async def profile(options: argparse.Namespace, callers: int) -> list[str]:
    """One run under py-spy: the lines of the summary."""
    lines = [f"== {callers} caller{'s' * (callers > 1)}, 256-byte puts, {options.seconds:g} s", ""]
    async with cluster_of(LocalCluster, options.dir) as (cluster, _, leader):
        follower = next(name for name in cluster.nodes if name != leader)
        load = _start_load(cluster.endpoints, callers, options.seconds + WARM_UP_SECONDS)
        try:
            await asyncio.sleep(WARM_UP_SECONDS)
            pids = {"leader": cluster.nodes[leader].pid, "follower": cluster.nodes[follower].pid, "client": load.pid}
            before = {who: threads.costs(pid) for who, pid in pids.items()}
            spies = {who: _spy(options, who, pid, callers) for who, pid in pids.items()}
            # A second before the end, so that the client is still there to be looked at.
            await asyncio.sleep(options.seconds - 1)
            spent = {who: threads.roles(pid, before[who]) for who, pid in pids.items()}
            out, _ = await asyncio.to_thread(load.communicate)
        finally:
            load.kill()
            load.wait()
        for who, spy in spies.items():
            if await asyncio.to_thread(spy.wait, 30):
                raise SystemExit(f"py-spy could not look at the {who}: is it allowed to? (root, or ptrace_scope 0)")
    found = json.loads(out)
    lines.append(f"{found['ops_per_second']:,.0f} puts a second, median {found['p50_ms']} ms, under the profiler")
    lines += _thread_table(spent, found["ops_per_second"], options.seconds - 1)
    for who in pids:
        lines += _flames(options, who, callers, found["ops_per_second"])
    return [*lines, ""]


def _start_load(endpoints: str, callers: int, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "lattice_cli", "--endpoints", endpoints, "-o", "json", "bench"),
            *("--callers", str(callers), "--seconds", f"{seconds:g}", "--warm-up", "0"),
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def _spy(options: argparse.Namespace, who: str, pid: int, callers: int) -> subprocess.Popen[bytes]:
    """py-spy on one process, in the background; it ends by itself."""
    how = ["--native"] if options.native else ["--nonblocking"]
    if not options.waiting:
        how.append("--gil")
    return subprocess.Popen(
        [
            *(options.py_spy, "record", "--pid", str(pid), "--duration", f"{options.seconds - 1.5:.0f}"),
            *("--rate", str(SAMPLES_A_SECOND), "--format", "raw", "--threads", *how),
            *("--output", str(_folded(options, who, callers))),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _folded(options: argparse.Namespace, who: str, callers: int) -> Path:
    folded: Path = options.out / f"{who}-{callers}.folded"
    return folded


def _thread_table(spent: dict[str, dict[str, threads.Cost]], per_second: float, seconds: float) -> list[str]:
    lines = ["", f"{'':<36}{'CPU':>7}{'waits for a core':>18}{'us a put':>10}{'wake-ups a put':>16}"]
    for who, roles in spent.items():
        for role, cost in sorted(roles.items()):
            puts = max(per_second * seconds, 1)
            lines.append(
                f"{who + ': ' + role:<36}{cost.cpu_seconds / seconds:>7.1%}{cost.queued_seconds / seconds:>18.1%}"
                f"{cost.cpu_seconds / puts * 1e6:>10.1f}{cost.voluntary_switches / puts:>16.2f}"
            )
    return lines


def _flames(options: argparse.Namespace, who: str, callers: int, per_second: float) -> list[str]:
    """Draw it, and say what takes most."""
    path = _folded(options, who, callers)
    stacks = flame.read_folded(path.read_text().splitlines())
    samples = sum(count for _, count in stacks)
    whose = (
        "threads, waiting for the interpreter or the disk or not" if options.waiting else "who holds the interpreter"
    )
    subtitle = f"{callers} callers, {per_second:,.0f} puts a second; {samples:,} samples of {whose}"
    picture = path.with_suffix(".svg")
    picture.write_text(flame.flame_graph(stacks, f"lattice: {who}", subtitle))
    layers = "  ".join(f"{layer} {share:.0%}" for layer, share in flame.by_layer(stacks).items() if share >= 0.01)
    lines = ["", f"{who}: {picture}", f"  by layer: {layers}", "  most time in:"]
    lines += [f"    {share:6.1%}  {frame}" for frame, share in flame.by_function(stacks, inclusive=False, top=12)]
    return lines


# -- the timeline -------------------------------------------------------------------------------------


async def trace(options: argparse.Namespace, callers: int) -> list[str]:
    """One put of the first of so many callers, step by step. All travel together, so it tells of all of them."""
    tracer = tracepoints.Tracer()
    value = os.urandom(256)

    async def call(client: AsyncClient, caller: int) -> None:
        for number in range(UNTRACED_PUTS + TRACED_PUTS):
            if caller == 0:
                if number == UNTRACED_PUTS:
                    tracer.marks.clear()
                tracer.mark("put")
            await client.put(b"key-%05d-%05d" % (caller, number), value)
            if caller == 0:
                tracer.mark("put.end")

    with tracer.installed_in_client():
        async with cluster_of(TracedCluster, options.dir) as (cluster, client, leader):
            await asyncio.gather(*(call(client, caller) for caller in range(callers)))
            await client.close()
            await cluster.stop()
            tracks = {name: timeline.Track(tracepoints.read(cluster.marks_of(name))) for name in cluster.nodes}
    followers = [track for name, track in tracks.items() if name != leader]
    text = timeline.timeline(timeline.Track(tracer.marks), tracks[leader], followers)
    of = "one caller" if callers == 1 else f"{callers} callers"
    return [f"== {of}, a put step by step (medians, microseconds)", "", *text.splitlines(), ""]


async def run(options: argparse.Namespace) -> str:
    lines: list[str] = []
    for callers in options.callers:
        if not options.steps_only:
            lines += await profile(options, callers)
        lines += await trace(options, callers)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--callers", default="256,1", help="how many at once, comma-separated")
    parser.add_argument("--steps-only", action="store_true", help="no flame graphs, only a put step by step")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each of them")
    parser.add_argument("--out", type=Path, default=Path("profile"), help="where the files go")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the data goes: not a tmpfs")
    parser.add_argument("--waiting", action="store_true", help="threads that do not hold the interpreter as well")
    parser.add_argument("--native", action="store_true", help="C frames as well: slower, and not by every py-spy")
    options = parser.parse_args()
    options.callers = [int(text) for text in options.callers.split(",")]
    options.py_spy = shutil.which(
        "py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if options.py_spy is None:
        raise SystemExit("error: py-spy is not here. try: pip install py-spy")
    if options.seconds < 4:
        raise SystemExit(f"error: --seconds is {options.seconds:g}, a profile needs at least 4")
    options.out.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=use_fast_loop()) as runner:
        summary = runner.run(run(options))
    (options.out / "summary.txt").write_text(summary)
    print(summary, end="")


if __name__ == "__main__":
    main()
