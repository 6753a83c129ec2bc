"""A word for whoever waits at a terminal: that there is no answer yet, and whose it would be.

Operations are tried again until ``--timeout``, by design: an election takes a second, and nobody should have to know.
Where the address is a wrong one that looks like a program that hangs. So after :data:`AFTER_SECONDS` a line on stderr
says what is waited for; it is gone when the answer comes, and scripts never see it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from lattice_core.client import Client

T = TypeVar("T")

AFTER_SECONDS = 1.0

_CLEAR = "\r\x1b[2K"


class TellingClient(Client):
    """A client for a person at a terminal. ``whom`` is set once, before it is used."""

    whom = ""

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with _told(self.whom):
            return super()._wait(coroutine)


def whom(endpoints: str) -> str:
    """The addresses in short: the line must not be longer than a terminal is wide, or it would not all go away."""
    first, *others = (each.strip() for each in endpoints.split(","))
    return f"{first} and {len(others)} more" if others else first


@contextlib.contextmanager
def _told(whom: str) -> Iterator[None]:
    answered = threading.Event()

    def tell() -> None:
        if answered.wait(AFTER_SECONDS):
            return
        _write(f"waiting for {whom} ...")
        answered.wait()
        _write(_CLEAR)

    telling = threading.Thread(target=tell, name="lattice-waiting", daemon=True)
    telling.start()
    try:
        yield
    finally:
        answered.set()
        telling.join()  # what is printed next begins on an empty line


def _write(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that has gone: the answer says so, if anybody is left to read it
        sys.stderr.write(text)
        sys.stderr.flush()
