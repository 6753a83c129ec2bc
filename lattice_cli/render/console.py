"""Where output goes: one console for data, on stdout, and plain writes where bytes must stay as they are."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def data_console(*, no_color: bool = False, width: int | None = None) -> Console:
    """The console for data. Nothing is highlighted, wrapped or coloured that did not ask for it."""
    from rich.console import Console  # not for those who only write bytes or lines

    class DataConsole(Console):
        def on_broken_pipe(self) -> None:
            """As for all other output (lattice_cli/errors.py). Rich itself would exit with 1, which is an answer."""
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return DataConsole(
        file=sys.stdout,
        no_color=no_color or None,
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=False,
        width=width,
    )


def write_line(text: str) -> None:
    """One line of data, as it is."""
    sys.stdout.write(text + "\n")


def write_bytes(data: bytes) -> None:
    """Bytes of a value, exactly: nothing added, nothing decoded."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
