"""Processes that belong to the comparison: every one is ended, however it ends.

Members run in sessions of their own (Ctrl-C is the driver's to handle) and, on Linux, die with the driver should it
be killed. Clients are awaited with a limit, and killed past it or when the driver is interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

STOP_SECONDS = 5.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Something without which there is nothing to compare; one line for a person."""


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


def environment() -> dict[str, str]:
    """Ours, without settings that are meant for other nodes, and with this source tree.

    Python may keep the bytecode that it compiles, as it does where Lattice is installed.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LATTICE_", "ETCD"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "GRPC_VERBOSITY": "NONE"}


@dataclass
class Member:
    """One server process: how to start it, and where it keeps its data."""

    name: str
    command: list[str]
    data_dir: Path
    log_path: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> None:
        if self.running and self.process is not None:
            self.process.terminate()

    def last_words(self) -> str:
        lines = self.log_path.read_text(errors="replace").strip().splitlines() if self.log_path.exists() else []
        return lines[-1][:300] if lines else "it said nothing"


def stop_all(members: list[Member]) -> None:
    """In good order if that is quick."""
    for member in members:
        member.terminate()
    for member in members:
        if member.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                member.process.wait(STOP_SECONDS)
        member.kill()


def scratch(parent: Path, name: str) -> Path:
    """A fresh directory, on the disk that is to be measured."""
    return Path(tempfile.mkdtemp(prefix=f"compare-{name}-", dir=parent))


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


# -- what a process costs -----------------------------------------------------------------------------


def memory(pid: int) -> dict[str, float]:
    """Resident memory in MB: all of it, what is no file's, and the most it ever was."""
    found = {"rss_mb": 0.0, "anonymous_mb": 0.0, "peak_mb": 0.0}
    names = {"VmRSS": "rss_mb", "RssAnon": "anonymous_mb", "VmHWM": "peak_mb"}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in names:
            found[names[name]] = round(int(rest.split()[0]) / 1024, 1)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far, its threads' included."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


# -- clients ------------------------------------------------------------------------------------------


async def run_json(command: list[str], limit_seconds: float, *, ok: tuple[int, ...] = (0,)) -> Any:
    """Run a client to its end and parse what it printed. Raises Failed with its last line if it did not work."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limit_seconds):
            out, err = await process.communicate()
    except TimeoutError:
        raise Failed(f"{' '.join(command[:4])} ... did not end within {limit_seconds:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode not in ok:
        lines = err.decode(errors="replace").strip().splitlines()
        raise Failed(f"{' '.join(command[:4])} ...: {lines[-1] if lines else f'exit code {process.returncode}'}")
    return json.loads(out)
