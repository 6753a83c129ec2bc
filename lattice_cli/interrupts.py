"""Ctrl-C and SIGTERM for commands that own processes: known from the first moment, and cleaning up is left alone.

Ctrl-C in a terminal goes to the whole process group: to a node, too, that is being started just then and has no group
of its own yet. Its end must not be taken for anything else. So the signal is noted by a handler of Python's, which runs
before the next line of ours, and not by a callback of the loop, which takes its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """From when it is made, on a running loop, the first of these signals cancels the current task."""

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        """``at_once`` is called as soon as a signal comes, wherever the task is."""
        self.came = False
        self._at_once = at_once
        self._settled = False
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._before: dict[signal.Signals, Any] = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: object) -> None:
        if self.came or self._settled:
            return
        self.came = True
        self._at_once()
        self._task.cancel()
        self._loop.call_soon_threadsafe(lambda: None)  # it may be asleep

    async def settle(self) -> None:
        """Nothing interrupts from here on: cleaning up takes a moment, and is bounded."""
        self._settled = True
        if self.came:  # and an error may have been quicker than the cancelling, which comes here then
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    def close(self) -> None:
        """As it was before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
