"""The demonstration with real processes: it holds, and leaves nothing behind however it ends."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def demo(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lattice_cli", "demo", "--once", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def node_pids(text: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"\(pid (\d+)\)", text)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.cluster
def test_the_demo_holds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = demo(tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert "0 lost, 0 applied twice" in out
    assert "kill -9" in out
    pids = node_pids(out)
    assert len(pids) == 3
    assert not any(is_alive(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_demo_that_is_ended_takes_its_nodes_with_it(tmp_path: Path, number: signal.Signals, code: int) -> None:
    if number is signal.SIGKILL and sys.platform != "linux":
        pytest.skip("nodes outlive a killed parent there")
    process = demo(tmp_path)
    assert process.stdout is not None
    head = ""
    while "ready after" not in head:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        head += line
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")
    pids = node_pids(head)
    assert len(pids) == 3
    if number is signal.SIGKILL:
        # Nobody cleans up the directory then, but the kernel kills the nodes. They are not our children.
        for pid in pids:
            _until_gone(pid)
    else:
        assert not any(is_alive(pid) for pid in pids)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_a_demo_whose_reader_goes_away_ends_as_a_closed_pipe_does_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """1 would say that an acknowledged write was lost."""
    process = demo(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(30), process.stderr.read()) == (141, "")
    process.stderr.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_demo_that_cannot_say_anything_says_why(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lattice_cli", "demo", "--once"], cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert done.stderr == "error: cannot write: no space left on device. try: df -h, and make room\n"
    assert done.returncode == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
@pytest.mark.timeout(60, method="signal")
@pytest.mark.parametrize(
    ("until", "code"), [("ready after", 130), ("Ctrl-C", 0)], ids=["before the story has ended", "after it"]
)
def test_ctrl_c_in_a_demo_on_a_terminal_ends_it_with_a_word_and_with_what_became_of_it(
    tmp_path: Path, until: str, code: int
) -> None:
    main, terminal = pty.openpty()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "200", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [sys.executable, "-m", "lattice_cli", "demo"], cwd=ROOT, env=environment, stdin=terminal, stdout=terminal,
        stderr=terminal, start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    os.close(terminal)
    shown = b""
    try:
        while until.encode() not in shown:
            shown += os.read(main, 1 << 16)
        os.killpg(process.pid, signal.SIGINT)
        at = len(shown)
        with contextlib.suppress(OSError):  # how a terminal ends that nobody has any more
            while more := os.read(main, 1 << 16):
                shown += more
        assert process.wait(30) == code
    finally:
        os.close(main)
        if process.poll() is None:
            process.kill()
            process.wait()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown[at:].decode())
    assert "stopping" in text
    assert text.splitlines()[-1].startswith("stopped; ")
    assert "removed" in text.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    if code == 0:  # the commands to try work in any terminal, also in one that has no lattice on its PATH
        path = re.search(r'^ +(export PATH="(\S+):\$PATH")\r?$', shown.decode(), re.MULTILINE)
        assert path is not None
        assert (Path(path[2]) / "lattice").exists()


def _until_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 10)[0], f"node {pid} survived its parent"
    finally:
        os.close(descriptor)


@pytest.mark.cluster
def test_a_demo_that_is_kept_says_how_to_use_and_how_to_stop_it(tmp_path: Path) -> None:
    process = demo(tmp_path, "--keep")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    export = re.search(r"^ +(export LATTICE_ENDPOINTS=\S+)$", out, re.MULTILINE)
    stop = re.search(r"^ +kill ([\d ]+); sleep 3; (rm -r \S+)$", out, re.MULTILINE)
    assert export is not None
    assert stop is not None
    pids = [int(pid) for pid in stop[1].split()]
    try:
        assert all(is_alive(pid) for pid in pids)
        status = f"{export[1]}; {sys.executable} -m lattice_cli cluster status"
        done = subprocess.run(["sh", "-c", status], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        assert len(done.stdout.splitlines()) == 3
        assert "unreachable" not in done.stdout
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            _until_gone(pid)
    subprocess.run(stop[2].split(), check=True)
    assert list(tmp_path.iterdir()) == []
