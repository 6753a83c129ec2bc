"""A few descriptors kept back for storage, so that connections cannot take the last one.

Whoever can connect can use up a process's descriptors. A log that then cannot begin its next segment would take the
whole member down, and the same crowd is at the door of the next one (SAFETY 49). So a handful is held from the
beginning, all on /dev/null: where the system has none left, one of these is given up in exchange, and a file that is
closed while the reserve is short becomes part of it in one step (``dup2``), so that nobody else can have the number.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

SIZE: Final = 8
"""Beginning a segment takes two at a time, a snapshot two, a file of identities two."""

_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Reserve:
    """Thread-safe. Its descriptors live as long as the process: one reserve is enough for it."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._spare: list[int] = []
        self._refill()

    @property
    def spare(self) -> int:
        """How many are held now."""
        return len(self._spare)

    def get(self, opening: Callable[[], int]) -> int:
        """What ``opening`` returns, with one of the reserve given up as often as there are none left.

        Raises OSError as ``opening`` does, EMFILE if the reserve is used up too.
        """
        return self._retried(opening)

    def give_back(self, descriptor: int) -> None:
        """Close it, or keep it while the reserve is short."""
        with self._lock:
            if len(self._spare) < self.size and self._spare:
                # Not if the limit was lowered meanwhile, and its number is not below it: that cannot be had again.
                with contextlib.suppress(OSError):
                    os.dup2(self._spare[0], descriptor, inheritable=False)
                    self._spare.append(descriptor)
                    return
        os.close(descriptor)
        self._refill()

    def during(self, work: Callable[[], T]) -> T:
        """For what opens something and closes it again by itself."""
        try:
            return self._retried(work)
        finally:
            self._refill()

    def _retried(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except OSError as error:
                if error.errno not in _NONE_LEFT:
                    raise
                with self._lock:
                    if not self._spare:
                        raise
                    os.close(self._spare.pop())

    def _refill(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            while len(self._spare) < self.size:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


class NoReserve(Reserve):
    """For programs that run out of descriptors only by their own doing."""

    def __init__(self) -> None:
        super().__init__(0)
