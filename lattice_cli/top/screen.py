"""The live screen: the terminal's other page, keys without Enter, and everything as it was at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@contextlib.contextmanager
def keys(on_key: Callable[[bytes], None]) -> Iterator[None]:
    """Within, each key pressed is handed over as it is pressed. Without a terminal to read from, nothing."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: on_key(os.read(descriptor, 64)))
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Screen:
    """``async with Screen(console) as screen: screen.show(...)``; ``ended`` is set by q, Ctrl-C and SIGTERM."""

    def __init__(self, console: Console) -> None:
        self.ended = asyncio.Event()
        self.resized = asyncio.Event()
        self._console = console
        self._stack = contextlib.ExitStack()
        self._live: Live | None = None

    async def __aenter__(self) -> Screen:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.ended.set)
            self._stack.callback(loop.remove_signal_handler, number)
        if hasattr(signal, "SIGWINCH"):
            loop.add_signal_handler(signal.SIGWINCH, self.resized.set)
            self._stack.callback(loop.remove_signal_handler, signal.SIGWINCH)
        try:
            self._live = Live(
                Text("..."), console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop"
            )
            self._stack.enter_context(self._live)
            self._stack.enter_context(keys(self._key))
        except BaseException:
            self._stack.close()
            raise
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._stack.close()

    def show(self, renderable: RenderableType) -> None:
        assert self._live is not None
        self._live.update(renderable, refresh=True)

    def _key(self, data: bytes) -> None:
        if not data or data[:1] in (b"q", b"Q", b"\x03", b"\x04"):
            self.ended.set()

    async def until(self, *others: asyncio.Future[Any], seconds: float | None = None) -> None:
        """Return when it has ended, the terminal has another size, one of ``others`` is done, or the time is over."""
        own = [asyncio.ensure_future(self.ended.wait()), asyncio.ensure_future(self.resized.wait())]
        try:
            await asyncio.wait([*own, *others], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in own:
                wait.cancel()
            await asyncio.gather(*own, return_exceptions=True)
        self.resized.clear()
