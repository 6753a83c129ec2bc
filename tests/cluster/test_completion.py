"""Completion in the real shells, with keys and members of a real cluster. A shell that is not installed is skipped."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ROOT, LocalCluster, environment, eventually

from lattice_core.client import Client

pytestmark = pytest.mark.cluster


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.fixture
def shell_environment(shared: LocalCluster, tmp_path: Path) -> dict[str, str]:
    """``lattice`` on the PATH, the cluster in LATTICE_ENDPOINTS, and a few keys in it."""
    script = tmp_path / "lattice"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m lattice_cli "$@"\n')
    script.chmod(0o755)
    with Client(shared.endpoints) as client:
        client.put_many(dict.fromkeys(("shells/1", "shells/2", "user:77", "with blank"), "v"))
    return environment(
        LATTICE_ENDPOINTS=shared.endpoints, PATH=f"{tmp_path}:{os.environ['PATH']}", HOME=str(tmp_path), TERM="dumb"
    )


def test_bash_completes_keys_members_and_options(shell_environment: dict[str, str]) -> None:
    program = f"""
        source {ROOT}/completions/lattice.bash
        for line in "$@"; do
            COMP_LINE="$line" COMP_POINT=${{#line}}
            _lattice_completion lattice
            printf '%s\\n' "$(IFS='|'; echo "${{COMPREPLY[*]}}")"
        done
    """
    asked = {
        "lattice get shells/": "shells/1|shells/2",
        "lattice get user:": "77",  # bash itself keeps what is before the colon
        "lattice get wi": r"with\ blank",
        "lattice cluster remove-server n": "n1|n2|n3",
        "lattice --endpoints 127.0.0.1:1 get she": "",
    }

    def complete() -> bool:
        done = subprocess.run(
            [needs("bash"), "--norc", "-c", program, "bash", *asked],
            env=shell_environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        assert dict(zip(asked, done.stdout.splitlines(), strict=True)) == asked
        return True

    # On a busy machine a third of a second may not be enough for an answer; then there is none.
    eventually(complete, "bash completes")


def test_fish_completes_keys_and_members(shell_environment: dict[str, str]) -> None:
    fish = needs("fish")

    def complete() -> bool:
        asked = ("lattice get shells/", "lattice cluster remove-server n")
        program = f"source {ROOT}/completions/lattice.fish; " + "; ".join(f'complete -C "{each}"' for each in asked)
        done = subprocess.run(
            [fish, "--no-config", "-c", program],
            env=shell_environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        words = [line.split("\t")[0] for line in done.stdout.splitlines()]
        return words == ["shells/1", "shells/2", "n1", "n2", "n3"]

    eventually(complete, "fish completes")


def test_zsh_completes_a_key_on_its_own_line(shell_environment: dict[str, str]) -> None:
    zsh = needs("zsh")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(zsh, [zsh, "-f", "-i"], shell_environment)
    try:
        _type(terminal, f"PS1=READY; autoload -U compinit; compinit -u -D; source {ROOT}/completions/lattice.zsh\n")
        assert _reads(terminal, "READY", 20.0)

        def complete() -> bool:
            _type(terminal, "\x15lattice get user\t")
            return _reads(terminal, "user:77", 3.0)

        eventually(complete, "zsh completes")
        _type(terminal, "\x15exit\n")
        _reads(terminal, "never said", 2.0)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _type(terminal: int, text: str) -> None:
    os.write(terminal, text.encode())


def _reads(terminal: int, wanted: str, seconds: float) -> bool:
    """Whether the shell writes it in time."""
    seen, deadline = "", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([terminal], [], [], left)[0]:
            return False
        try:
            data = os.read(terminal, 4096)
        except OSError:  # it has ended
            return False
        seen += data.decode(errors="replace")
        # Both what it echoes and what it adds: the word is not there before it is complete.
        if wanted in seen.replace("\x1b", ""):
            return True
    return False
