"""The commands of a page, run for real: ``python tools/walkthrough.py PAGE [--update]``.

A page's ``console`` blocks are one session: lines that begin with "$ " are typed (a trailing backslash goes on in the
next line), what follows is what a terminal showed. They are run in a bash of their own, in an empty directory, on a
terminal of 100 columns, one after the other, and what they print is compared. ``python`` blocks that have no console
block between them are one program, which is run at its place in the session; what it prints is compared with the
comments behind its ``print`` calls. A test does all this for README.md and the guides; ``--update`` writes what was
printed now into the page instead (but for programs).

What may differ: numbers (but for revisions), 16-digit ids, times of day, names of temporary directories, and what
stands under "..." in the page. Ports are others than the page's, so that several runs do not meet; they are
translated in both directions. A command that only looks (:data:`LOOKS`) is asked again until what it shows is what the
page says, because members catch up in their own time; and where the page shows another leader than there happens to be,
leadership is moved there first, unless the page has just moved it itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

COLUMNS = 100
COMMAND_SECONDS = 60.0
SETTLE_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 0.3

LOOKS = re.compile(r"(lattice (cluster (status|members)|status|get|top --once)|tail)\b")
"""Commands that change nothing: they may be asked twice."""

PORTS = {":740": "clients", ":750": "peers", ":940": "metrics"}
"""The beginnings of ports that pages use, each for up to ten."""

_END = "\x1e"

_NOTICE = re.compile(r"bash: (line \d+: )?\s*\d+ (Killed|Terminated)\b")
"""What bash says of a job when it comes round to it."""

_ON_ITS_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(1, termios.TIOCSCTTY, 0)\n"  # whoever is left is hung up on when the terminal is closed
    "os.execvp('bash', ['bash', '--norc', '--noprofile'])\n"
)


class Step(NamedTuple):
    """One command of a page and what it shows."""

    command: str
    shown: list[str]
    first: int
    """Where what it shows begins, as an index into the page's lines, and how many lines that are."""
    place: str


def steps_of(page: Path) -> list[Step]:
    steps: list[Step] = []
    lines = page.read_text().splitlines()
    number, inside = 0, ""
    program: list[str] = []
    while number < len(lines):
        line = lines[number].strip()
        if line.startswith("```"):
            inside = "" if inside else line[3:] or "text"
            if inside == "console" and program:
                steps.append(_program(program, page, number))
                program = []
        elif inside == "python":
            program.append(lines[number])
        elif inside == "console" and line.startswith("$ "):
            indent = len(lines[number]) - len(lines[number].lstrip())
            place = f"{page.name}, line {number + 1}"
            command = line[2:]
            while command.endswith("\\"):
                number += 1
                command += "\n" + lines[number]
            first = number + 1
            shown: list[str] = []
            while not lines[number + 1].strip().startswith(("```", "$ ")):
                number += 1
                shown.append(lines[number][indent:])
            steps.append(Step(command, shown, first, place))
        number += 1
    return [*steps, _program(program, page, number)] if program else steps


def _program(lines: list[str], page: Path, number: int) -> Step:
    shown = [match[1] for line in lines if (match := re.match(r"print\(.*\)  # (.+)$", line))]
    text = "\n".join(lines)
    return Step(f"python <<'END'\n{text}\nEND", shown, 0, f"{page.name}, the program above line {number + 1}")


class Ports:
    """Free ports for those that a page uses; a range of ten each, by their first three digits."""

    def __init__(self) -> None:
        self._there = {begin: f":{_free_range()}" for begin in PORTS}

    def there(self, text: str) -> str:
        """What a page says, as it is run."""
        for begin, other in self._there.items():
            text = re.sub(rf"{begin}(?=[\d$])", other, text)
        return text

    def back(self, text: str) -> str:
        for begin, other in self._there.items():
            text = re.sub(rf"{other}(?=\d\b)", begin, text)
        return text


def _free_range() -> int:
    """Three digits so that nobody uses any of the ten ports that begin with them. Below those that systems give out."""
    while True:
        digits = random.randrange(200, 900)
        with contextlib.ExitStack() as probes:
            try:
                for last in range(10):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", digits * 10 + last))
            except OSError:
                continue
            return digits


class Shell:
    """A bash in a directory of its own, on a terminal. Everything it started ends with it."""

    def __init__(self, directory: Path, ports: Ports, *, columns: int = COLUMNS, colour: bool = False) -> None:
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        modes = termios.tcgetattr(theirs)
        modes[1] &= ~termios.OPOST  # a line ends with a newline, and nothing else
        termios.tcsetattr(theirs, termios.TCSANOW, modes)
        commands = directory / ".bin"
        commands.mkdir()
        command = commands / "lattice"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lattice_cli "$@"\n')
        command.chmod(0o755)
        defaults = commands / "defaults.toml"
        defaults.write_text(ports.there('client_addr = "127.0.0.1:7400"\npeer_addr = "127.0.0.1:7500"\n'))
        env = {name: value for name, value in os.environ.items() if not name.startswith(("LATTICE_", "XDG_", "OTEL_"))}
        env |= {
            "PATH": f"{commands}:{Path(sys.executable).parent}:{env.get('PATH', '')}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(directory),
            "COLUMNS": str(columns),
            "TERM": "xterm-256color",
            "NO_COLOR": "" if colour else "1",
            "LATTICE_TIMEOUT": "30",  # two cores may be busy with other things
            # The defaults, should a page rely on them.
            "LATTICE_ENDPOINTS": ports.there("127.0.0.1:7400"),
            "LATTICE_CONFIG": str(defaults),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ON_ITS_TERMINAL],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            env=env,
        )
        os.close(theirs)

    def run(self, command: str) -> tuple[str, int]:
        """What the command printed, without colours, and its exit code. Raises TimeoutError."""
        printed, code = self.run_raw(command)
        printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
        # What a progress line wrote over itself is not there in the end.
        return "\n".join(line.rsplit("\r", 1)[-1] for line in printed.split("\n")), code

    def run_raw(self, command: str) -> tuple[str, int]:
        """The same with every escape sequence."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\nprintf '{_END}%s{_END}' $?\n".encode())
        self._process.stdin.flush()
        text = ""
        deadline = time.monotonic() + COMMAND_SECONDS
        while text.count(_END) < 2:
            readable, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise TimeoutError(f"no end of {command!r}; so far: {text}")
            text += os.read(self._terminal, 65536).decode(errors="replace")
        printed, code, _ = text.split(_END)
        return printed, int(code)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        os.close(self._terminal)


class Mismatch(AssertionError):
    """A page says something else than what was printed."""


def walk(page: Path, directory: Path, *, update: bool = False) -> None:
    """Run the page's session. Raises Mismatch with the first command that shows something else."""
    ports = Ports()
    shell = Shell(directory, ports)
    lines = page.read_text().splitlines()
    moved = False
    replaced: list[tuple[Step, list[str]]] = []
    try:
        for step in steps_of(page):
            looks = LOOKS.match(step.command) is not None
            leader = _leader_in(step.shown)
            if looks and leader is not None and not moved:
                shell.run(f"lattice transfer-leader {leader}")  # refused where it leads already
            moved = step.command.startswith("lattice transfer-leader")
            deadline = time.monotonic() + SETTLE_SECONDS
            while True:
                printed, code = shell.run(ports.there(step.command))
                found = [line.rstrip() for line in ports.back(printed).rstrip("\n").split("\n")]
                found = [line for line in found if not _NOTICE.match(line)] if printed.strip() else []
                if agrees(step.shown, found):
                    if update and step.first and not _abridged(step.shown):
                        replaced.append((step, found))  # all of the page of one run: ids, terms and indices fit
                    break
                if update and step.first and (not looks or time.monotonic() > deadline - SETTLE_SECONDS + 3):
                    replaced.append((step, found))
                    break
                if not looks or time.monotonic() > deadline:
                    raise Mismatch(_difference(step, found, code, directory))
                time.sleep(LOOK_AGAIN_SECONDS)
    finally:
        shell.close()
    for step, found in reversed(replaced):
        indent = re.match(r"\s*", lines[step.first - 1])
        assert indent is not None
        lines[step.first : step.first + len(step.shown)] = [(indent[0] + line).rstrip() for line in found]
    if replaced:
        page.write_text("\n".join(lines) + "\n")


def _abridged(shown: list[str]) -> bool:
    return any("..." in line for line in shown)


def _leader_in(shown: list[str]) -> str | None:
    return next((match[1] for line in shown if (match := re.match(r"\*\s+(\w+)\s+leader\b", line.strip()))), None)


def agrees(shown: list[str], found: list[str]) -> bool:
    """Whether ``found`` is what a page shows, but for what may differ. A line "..." stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "..." else f"{_pattern(line)}\n" for line in shown)
    text = "".join(f"{' '.join(line.split())}\n" for line in found)
    return re.fullmatch(pattern, text) is not None


_VARIES = re.compile(
    r"(?P<any>\.\.\.)|(?P<stamp>\b\d{4}-\d\d-\d\dT[\d:.]+Z)|(?P<entries>\bentr(?:y|ies)\b)|(?P<id>\b[0-9a-f]{16}\b)|(?P<time>\b\d\d:\d\d:\d\d\b)|(?P<path>/\S*/lattice-\w+)"
    r"|(?P<number>(?<![\w.:-])\d[\d,]*(?:\.\d+)?(?!\w|[.:-]\w))"
)
_MEANS = {
    "any": ".*",
    "stamp": r"[\\d:.TZ-]+",
    "entries": "entr(?:y|ies)",
    "id": "[0-9a-f]{16}",
    "time": r"\\d\\d:\\d\\d:\\d\\d",
    "path": r"\\S+",
    "number": r"\\d[\\d,]*(?:\\.\\d+)?",
}


def _pattern(line: str) -> str:
    line = " ".join(line.split())
    if line.startswith("revision ") or re.fullmatch(r"\d+", line):
        return re.escape(line)
    parts, end = [], 0
    for match in _VARIES.finditer(line):
        parts += [re.escape(line[end : match.start()]), _MEANS[match.lastgroup or ""].replace("\\\\", "\\")]
        end = match.end()
    return "".join([*parts, re.escape(line[end:])])


def _difference(step: Step, found: list[str], code: int, directory: Path) -> str:
    shown = "\n".join(f"  | {line}" for line in step.shown)
    printed = "\n".join(f"  | {line}" for line in found)
    logs = "\n".join(
        f"{log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        for log in sorted(directory.glob("*.log"))
    )
    return (
        f"{step.place}: $ {step.command}\nthe page says:\n{shown}\nprinted (exit code {code}):\n{printed}\n"
        f"mend it, or: python tools/walkthrough.py {step.place.split(',')[0]} --update\n{logs}"
    )


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lattice-walk-") as name:
        yield Path(name)


def main() -> int:
    update = "--update" in sys.argv[1:]
    for name in [each for each in sys.argv[1:] if not each.startswith("-")]:
        began = time.monotonic()
        with scratch() as directory:
            try:
                walk(Path(name), directory, update=update)
            except (Mismatch, TimeoutError) as error:
                print(error)
                return 1
        print(f"{name}: {'written anew' if update else 'holds'} ({time.monotonic() - began:.1f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
