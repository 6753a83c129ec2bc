"""Ctrl-C at any time, and readers that go away: for every command, as a process of its own, without a word.

Each command is interrupted once, at a moment that is drawn from its name: together they cover the imports, the
connecting, the waiting. What waits for an answer waits for a server that never gives one.
"""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import LocalCluster, environment, lattice

from lattice_core.client import Client

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from command_lines import LINES

pytestmark = pytest.mark.cluster

AT_ONCE = 6
LONGEST_SECONDS = 20.0
"""For a process to be gone after Ctrl-C. Alone it takes a tenth of a second, a demo two; the machine may be busy."""


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections, and says nothing on them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def command_of(path: str, directory: Path) -> list[str]:
    directory.mkdir()
    words = [str(directory / f"file{number}") if each in ("FILE", "WORDS") else each
             for number, each in enumerate(LINES[path].arguments)]  # fmt: skip
    return [sys.executable, "-m", "lattice_cli", *path.split(), *words]


def _was_ours(err: str) -> bool:
    """Whether anything of ours had begun. Before that it is Python's own beginning, the import of our first line
    (lattice_cli/entry.py, from ``__main__``) included."""
    frames = re.findall(r'File "([^"]+)"', err)
    return any("/lattice_" in frame and not frame.endswith("/__main__.py") for frame in frames) or "lattice" in (
        err if not frames else ""
    )


def test_ctrl_c_ends_every_command_at_any_time_without_a_word(silent: str, tmp_path: Path) -> None:
    env = environment(LATTICE_ENDPOINTS=silent, LATTICE_TIMEOUT="30", XDG_CONFIG_HOME=str(tmp_path / "config"))
    waiting = sorted(LINES)
    under_way: list[tuple[str, subprocess.Popen[str], float]] = []
    # Whoever runs the tests in the background of a shell has SIGINT ignored, and a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < AT_ONCE:
                path = waiting.pop()
                started = subprocess.Popen(
                    command_of(path, tmp_path / path.replace(" ", "-")),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
                )  # fmt: skip
                under_way.append((path, started, time.monotonic() + random.Random(path).uniform(0.05, 1.2)))
            under_way.sort(key=lambda each: each[2])
            path, process, at = under_way.pop(0)
            time.sleep(max(0.0, at - time.monotonic()))
            process.send_signal(signal.SIGINT)  # to a process that has ended it is nothing
            ended_itself = process.poll() is not None
            out, err = process.communicate(timeout=LONGEST_SECONDS)
            if _was_ours(err):
                assert "Traceback" not in err, (path, err)
                assert "Exception ignored" not in err, (path, err)
            if process.returncode == -signal.SIGINT:
                pass  # in its beginning; or it had said what it had to say, and was tidying up
            elif process.returncode == 130:
                assert [line for line in err.splitlines() if line.startswith("error:")] == [], (path, err)
            else:
                # It was quicker; or it was a node or a benchmark, which end in good order.
                assert ended_itself or process.returncode in (0, 1, 2, 3), (path, process.returncode, out, err)
    finally:
        signal.signal(signal.SIGINT, before)
        for _, process, _ in under_way:
            process.kill()
            process.communicate()


def test_a_reader_that_goes_away_ends_every_output_quietly(shared: LocalCluster, tmp_path: Path) -> None:
    with Client(shared.endpoints) as client:
        client.put_many((f"pipes/{number:05}", "x" * 200) for number in range(2000))
    saved = tmp_path / "saved.snap"
    assert lattice("--endpoints", shared.endpoints, "snapshot", "save", str(saved)).code == 0
    member = next(iter(shared.nodes.values()))
    lines = [
        "get pipes/ --prefix",
        "get pipes/ --prefix -o table",
        "doctor",
        "top -o json --interval 0.1",
        "config show",
        f"snapshot inspect {saved}",
        f"wal inspect {member.data_dir} --records",
    ]
    script = "set -o pipefail\n" + "\n".join(
        f'"{sys.executable}" -m lattice_cli {line} | head -c 1 > /dev/null; echo "$?"' for line in lines
    )
    done = subprocess.run(
        ["bash", "-c", script], env=environment(LATTICE_ENDPOINTS=shared.endpoints),
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    with Client(shared.endpoints) as client:
        client.delete_range(prefix="pipes/")
    assert done.stderr == ""
    codes = dict(zip(lines, map(int, done.stdout.split()), strict=True))
    # Short output may be gone before the reader is; doctor has an opinion of its own.
    assert {line: code for line, code in codes.items() if code not in (0, 1, 141)} == {}
    assert codes["get pipes/ --prefix"] == codes["top -o json --interval 0.1"] == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("line", ["config show", "config show -o json", "config show -o table", "chaos --faults list"])
def test_output_that_cannot_be_written_is_one_line_with_what_to_do(line: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lattice_cli", *line.split()], env=environment(),
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        3, "error: cannot write: no space left on device. try: df -h, and make room\n"
    )  # fmt: skip
