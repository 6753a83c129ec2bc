"""``lattice demo``: it succeeds by itself, and however it ends it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT, environment, eventually, kill_group, spawn

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, method="signal")]

DEMO = [sys.executable, "-m", "lattice_cli", "demo", "--once"]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where a demo's temporary directory will be, and nobody else's."""
    directory = tmp_path / "t"
    directory.mkdir()
    return directory


def processes_of(directory: Path) -> list[str]:
    """Command lines that name ``directory``, as a node's data directory does."""
    if sys.platform == "linux":  # where a small container may have no ps
        lines = [_command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    else:
        listed = subprocess.run(["ps", "-Aww", "-o", "args="], capture_output=True, check=True)
        lines = listed.stdout.decode().splitlines()
    return [line for line in lines if str(directory) in line]


def _command_line(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""  # it has ended


def left_behind(directory: Path) -> list[str]:
    return [*(str(path) for path in directory.iterdir()), *processes_of(directory)]


def test_demo_once_shows_a_failover_without_loss_and_leaves_nothing_behind(temporary: Path) -> None:
    done = subprocess.run(
        DEMO,
        capture_output=True,
        timeout=60,
        env=environment(TMPDIR=str(temporary)),
        cwd=ROOT,
        check=False,
        start_new_session=True,
    )
    text = done.stdout.decode()
    assert done.returncode == 0, text + done.stderr.decode()
    assert not done.stderr
    assert "kill -9" in text
    assert re.search(r"writes acknowledged: 0 lost, 0 applied twice", text)
    assert "the state is the same on all 3 members" in text
    assert not left_behind(temporary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(
    temporary: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "demo.log"
    demo = spawn([*DEMO, "--tls"], output=output, env={"TMPDIR": str(temporary)})
    try:
        eventually(lambda: "leads in term" in output.read_text(), "the nodes have elected a leader", 60)
        assert len(processes_of(temporary)) == 3
        demo.send_signal(number)
        assert demo.wait(30) == 130
    finally:
        kill_group(demo)
    assert "Traceback" not in output.read_text()
    assert not left_behind(temporary)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_nodes_of_a_demo_that_is_killed_end_with_it(temporary: Path, tmp_path: Path) -> None:
    output = tmp_path / "demo.log"
    demo = spawn(DEMO, output=output, env={"TMPDIR": str(temporary)})
    try:
        eventually(lambda: len(processes_of(temporary)) == 3, "three nodes run", 60)
    finally:
        os.kill(demo.pid, signal.SIGKILL)
        kill_group(demo)
    eventually(lambda: not processes_of(temporary), "no node is left")
