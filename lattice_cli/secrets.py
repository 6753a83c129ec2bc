"""Where commands take secrets from, and where they put them: files, standard input, prompts; never arguments."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lattice_core.errors import InvalidRequest

F = TypeVar("F", bound=Callable[..., Any])

MAX_BYTES = 4096

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """``90``, ``90s``, ``15m``, ``12h``, ``30d``, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
        if not seconds > 0:
            self.fail(f"{value!r} is no time above 0, like 90s, 15m, 12h or 30d", param, ctx)
        return seconds


def password_option(function: F) -> F:
    return click.option(
        "--password-file",
        metavar="FILE",
        help="Take the password from its first line; - is standard input. [default: ask on the terminal]",
    )(function)


def out_option(function: F) -> F:
    return click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the token there, readable by you alone. [default: print it]",
    )(function)


def password_from(what: str, file: str | None, prompt: str, *, confirm: bool = False) -> bytes:
    """Raises InvalidRequest if there is none to be had; ``what`` is the command."""
    if file is None:
        if not sys.stdin.isatty():
            raise InvalidRequest(
                f"{what}: there is no terminal to ask for the password on",
                hint="--password-file FILE, or --password-file - for standard input",
            )
        text: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        return text.encode()
    if file == "-":
        data = sys.stdin.buffer.read(MAX_BYTES)
    else:
        with Path(file).open("rb") as opened:
            data = opened.read(MAX_BYTES)
    line = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise InvalidRequest(f"{what}: the first line of {'standard input' if file == '-' else file} is empty")
    return line


def require_new(what: str, path: Path | None) -> None:
    """Raise InvalidRequest if the file is there: what is in it might be the only way in."""
    if path is not None and path.exists():
        raise InvalidRequest(f"{what}: {path} exists already, and is left as it is", hint="--out with another name")


def write_secret(path: Path, text: str) -> None:
    """The file with this line in it, readable by its owner alone from the first moment; whole, or as it was."""
    part = path.with_name(f".{path.name}.part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
    part.rename(path)
