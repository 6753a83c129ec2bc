"""What whole processes cost: a command from its start to its end, beside another, in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.compare.processes import Failed, environment

IMPORTS = [sys.executable, "-c", "import click, grpc"]
"""What ``lattice get`` cannot do without."""


class Cost(NamedTuple):
    """Of one process, its threads' included."""

    wall_seconds: float
    cpu_seconds: float


def lattice(*arguments: str) -> list[str]:
    """A command line of this source tree's."""
    return [sys.executable, "-m", "lattice_cli", *arguments]


def in_turns(commands: Mapping[str, Sequence[str]], runs: int) -> dict[str, list[Cost]]:
    """Each so often, A B A B. Once more before, which is not counted: Python may compile, and the disk read.

    Raises Failed for a command that does.
    """
    for command in commands.values():
        run(command)
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            costs[name].append(run(command))
    return costs


def run(command: Sequence[str]) -> Cost:
    """Run it to its end. Raises Failed with its last words if it does not end well."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output, env=environment()
        )
        try:
            # Not Popen.wait(): only this says what the process has used.
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise Failed(f"{' '.join(command[1:])[:200]}: {output.read().decode(errors='replace').strip()[:300]}")
    return Cost(took, used.ru_utime + used.ru_stime)
