"""``lattice top`` on a terminal of its own, over a cluster that loses its leader."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest
from processes import EVENTUALLY_SECONDS, LocalCluster, environment

pytestmark = pytest.mark.cluster

_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes standard input the controlling terminal, so that Ctrl-C typed there interrupts, and goes on as a command."""


class Terminal:
    """A pseudo-terminal, and what was written to it without the escape sequences."""

    def __init__(self, columns: int, *arguments: str) -> None:
        self._own, self._theirs = pty.openpty()
        self.resize(columns, 24)
        self.before = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, sys.executable, "-m", "lattice_cli", *arguments],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env=environment(TERM="xterm", LANG="C.UTF-8", COLUMNS="", LINES=""),
            start_new_session=True,
        )
        self.raw = b""
        self._shown = 0

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self._own, key)

    def until(self, pattern: str) -> str:
        """Wait until this has been written since the last time; what was written."""
        deadline = time.monotonic() + EVENTUALLY_SECONDS
        while True:
            new = _plain(self.raw[self._shown :])
            if re.search(pattern, new):
                self._shown = len(self.raw)
                return new
            assert time.monotonic() < deadline, f"{pattern!r} did not come; there was {new[-2000:]!r}"
            self._read()

    def ended(self) -> int:
        deadline = time.monotonic() + EVENTUALLY_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self._read()
        return self.process.returncode

    def _read(self) -> None:
        readable, _, _ = select.select([self._own], [], [], 0.1)
        if readable:
            with contextlib.suppress(OSError):
                self.raw += os.read(self._own, 1 << 16)

    def as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)
        os.close(self._theirs)


def _plain(data: bytes) -> str:
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", "", data.decode(errors="replace"))


@contextlib.contextmanager
def terminal(columns: int, *arguments: str) -> Iterator[Terminal]:
    made = Terminal(columns, *arguments)
    try:
        yield made
    finally:
        made.close()


def test_top_lives_through_the_loss_of_the_leader_and_q_ends_it(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    with terminal(80, "top", "--endpoints", cluster.endpoints, "--interval", "0.2") as view:
        view.until(rf"leader {leader}  3 of 3 members")
        assert not view.as_before(), "keys come without Enter"
        cluster.kill(leader)
        view.until(rf"! {leader} +unreachable")
        view.until(r"\* n\d leads in term \d+, after " + leader)
        cluster.start(leader)
        view.until(r"3 of 3 members")
        view.resize(40, 24)
        view.process.send_signal(signal.SIGWINCH)
        narrow = view.until(r"3 of 3  ")
        assert "NAME" not in narrow.rpartition("term")[2], "members stand below each other now"
        cluster.kill(*cluster.nodes)
        view.until(r"! cannot reach")
        view.press(b"q")
        assert view.ended() == 0
        assert view.as_before(), "the terminal is as it was"
        assert view.raw.count(b"\x1b[?1049h") == view.raw.count(b"\x1b[?1049l") == 1
        assert "Traceback" not in _plain(view.raw)


def test_ctrl_c_ends_top_in_good_order(shared: LocalCluster) -> None:
    with terminal(100, "top", "--endpoints", shared.endpoints) as view:
        view.until(r"3 of 3 members")
        view.press(b"\x03")
        assert view.ended() == 0
        assert view.as_before()
