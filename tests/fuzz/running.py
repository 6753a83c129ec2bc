"""Running a target on some bytes, with what it may take: time and memory."""

from __future__ import annotations

import signal
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
HANG_SECONDS = 10
SLOW_SECONDS = 2.0
MEMORY_BYTES = 64 << 20
"""For at most 64 KiB of input."""


class Hangs(BaseException):
    """A target did not come back."""


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hangs(f"not done within {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(name: str, data: bytes) -> str | None:
    """What is wrong, if anything. Measures memory only when asked again: that makes everything many times slower."""
    began = time.process_time()
    try:
        with _alarm():
            TARGETS[name].run(data)
    except (Exception, Hangs, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    seconds = time.process_time() - began
    return f"took {seconds:.1f} s" if seconds > SLOW_SECONDS else None


def memory_of(name: str, data: bytes) -> int:
    """The most that it held at a time, in bytes."""
    tracemalloc.start()
    try:
        TARGETS[name].run(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def corpus(name: str) -> list[Path]:
    directory = CORPUS / name
    return sorted(directory.iterdir()) if directory.exists() else []
