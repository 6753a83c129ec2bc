"""``lattice chaos`` as a process of its own, as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str, directory: Path) -> list[str]:
    """What runs it."""
    return [sys.executable, "-m", "lattice_cli", "chaos", "-o", "json", "--directory", str(directory), *arguments]


def environment() -> dict[str, str]:
    """Ours, without settings that are meant for other nodes."""
    return {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}


def chaos(*arguments: str, directory: Path, within: float = 200.0) -> dict[str, Any]:
    """The report of one run; its exit code has to agree with it."""
    done = subprocess.run(
        command(*arguments, directory=directory),
        capture_output=True,
        text=True,
        timeout=within,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["verdict"] == "good" else 1), done.stderr
    return report
