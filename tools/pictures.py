"""The pictures of the README, docs/images: ``python tools/pictures.py [NAME ...]``. Needs tmux, for the live ones.

A real cluster on this machine, real commands on a real terminal; what they printed, with its colours, becomes SVG
through rich. Run it when tables have changed, and look at what comes out.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.terminal_theme import MONOKAI  # noqa: E402
from rich.text import Text  # noqa: E402
from walkthrough import Ports, Shell  # noqa: E402

OUT = ROOT / "docs" / "images"

FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORMAT = FORMAT.replace("<svg ", '<svg xml:space="preserve" ', 1)
"""Without fonts from elsewhere: whoever looks has a monospaced one. With spaces at the beginning of a line."""

COLUMNS = 92
DEMO_COLUMNS = 96
ERROR_COLUMNS = 124

TOP_COLUMNS, TOP_LINES = 110, 17
TOP_SECONDS = 26


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or ["demo", "status", "error", "top"]
    if "demo" in wanted:
        with session(DEMO_COLUMNS) as (shell, _):
            demo(shell)
    if {"status", "error", "top"} & set(wanted):
        with session(COLUMNS) as (shell, ports):
            start(shell, ports)
            if "top" in wanted:
                top(shell, ports)
            if "status" in wanted:
                status(shell, ports)
            if "error" in wanted:
                errors(shell, ports)
    return 0


@contextmanager
def session(columns: int) -> Iterator[tuple[Shell, Ports]]:
    with tempfile.TemporaryDirectory(prefix="lattice-pictures-") as name:
        ports = Ports()
        shell = Shell(Path(name), ports, columns=columns, colour=True)
        try:
            yield shell, ports
        finally:
            shell.close()


def save(name: str, title: str, ansi: str, columns: int) -> None:
    """One picture of what a terminal of so many columns showed."""
    console = Console(
        record=True,
        width=columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    for line in ansi.rstrip("\n").split("\n"):
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title=title, theme=MONOKAI, code_format=FORMAT, unique_id=f"lattice-{name}")
    (OUT / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
    print(f"docs/images/{name}.svg")


def typed(shell: Shell, ports: Ports, *commands: str) -> str:
    """What a terminal shows of these commands, prompts included."""
    shown = ""
    for command in commands:
        printed, _ = shell.run_raw(ports.there(command))
        shown += f"\x1b[1;32m$\x1b[0m {command}\n{ports.back(printed)}"
    return shown


def start(shell: Shell, ports: Ports) -> None:
    first = ",".join(f"n{number}=127.0.0.1:750{number}" for number in (1, 2, 3))
    for number in (1, 2, 3):
        shell.run(
            ports.there(
                f"lattice start --name n{number} --data-dir d{number} --client-addr 127.0.0.1:740{number} "
                f"--peer-addr 127.0.0.1:750{number} --initial-cluster {first} 2> n{number}.log &"
            )
        )
    shell.run(ports.there("export LATTICE_ENDPOINTS=127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"))
    shell.run("lattice put colour blue; lattice put lock me --if-absent; lattice transfer-leader n1")


def demo(shell: Shell) -> None:
    printed, code = shell.run_raw("lattice demo --once")
    if code != 0:
        raise SystemExit(printed)
    save("demo", "lattice demo", f"\x1b[1;32m$\x1b[0m lattice demo --once\n{printed}", DEMO_COLUMNS)


def status(shell: Shell, ports: Ports) -> None:
    """Healthy, and without its leader."""
    shell.run("lattice transfer-leader n1")
    time.sleep(1)
    shown = typed(shell, ports, "lattice cluster status")
    shell.run("kill -9 %1")
    shell.run("lattice put colour red")
    time.sleep(2)
    shown += "\n" + typed(shell, ports, "lattice cluster status")
    save("status", "lattice cluster status, before and after its leader was killed", shown, COLUMNS)


def errors(shell: Shell, ports: Ports) -> None:
    shown = typed(
        shell,
        ports,
        "lattice gte colour",
        "lattice put lock you --if-absent",
        "lattice put colour green --timout 3",
        "lattice transfer-leader n7",
        "lattice get colour --endpoints 127.0.0.1:7409 --timeout 1",
    )
    save("error", "a mistake is one line, with what to try next", shown, ERROR_COLUMNS)


def top(shell: Shell, ports: Ports) -> None:
    """Under load, in a tmux of its own."""
    tmux = ["tmux", "-L", f"lattice-pictures-{os.getpid()}", "-f", "/dev/null"]
    shell.run("lattice bench --callers 48 --rate 4000 --mix mixed --seconds 120 > bench.log 2>&1 &")
    endpoints = ports.there("127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403")
    command = shlex.join([sys.executable, "-m", "lattice_cli", "top", "--endpoints", endpoints])
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    env.pop("NO_COLOR", None)
    size = ["-x", str(TOP_COLUMNS), "-y", str(TOP_LINES)]
    subprocess.run([*tmux, "new-session", "-d", *size, command], env=env, check=True)
    try:
        time.sleep(TOP_SECONDS / 2)
        shell.run("lattice transfer-leader n2")
        time.sleep(TOP_SECONDS / 2)
        shown = subprocess.run(
            [*tmux, "capture-pane", "-e", "-p"], env=env, check=True, capture_output=True, text=True
        ).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], env=env, check=False)
        shell.run("kill -INT %4; wait %4")
    save("top", "lattice top", ports.back(shown), TOP_COLUMNS)


if __name__ == "__main__":
    raise SystemExit(main())
