"""Where ``lattice demo`` is told: numbered acts on stdout, and at the end a table that keeps itself up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from lattice_cli.render.console import data_console
from lattice_cli.render.tables import cluster_table
from lattice_cli.render.text import wrapped
from lattice_core.errors import LatticeError

if TYPE_CHECKING:
    from lattice_core.client import ClusterStatus

REFRESH_SECONDS = 0.5


class TextStage:
    """One line when an act begins, one with what came of it."""

    def __init__(self, *, no_color: bool = False) -> None:
        self._console = data_console(no_color=no_color)
        self._acts = 0

    def act(self, text: str) -> None:
        self._acts += 1
        self._print(f"{self._acts}. ", text, "bold", after_blank=True)

    def result(self, text: str) -> None:
        self._print("   ", text)

    def cluster(self, status: ClusterStatus) -> None:
        self._console.print()
        self._console.print(cluster_table(status, self._console.width))

    def end(self, text: str) -> None:
        self._print("", text, "bold green", after_blank=True)

    def say(self, text: str) -> None:
        """Beside the story: what becomes of it."""
        self._print("", text)

    def command(self, text: str) -> None:
        """Something to copy: never wrapped."""
        self._console.print(Text(f"   {text}"), soft_wrap=True)

    def commands(self, suggested: Mapping[str, str]) -> None:
        """Several, and what each is for, as a comment that may be copied too."""
        widest = max(map(len, suggested))
        for text, purpose in suggested.items():
            self.command(f"{text:<{widest}}  # {purpose}")

    async def watch(self, ask: Callable[[], Awaitable[ClusterStatus]]) -> None:
        """Keep the table of members on the screen until cancelled."""
        self._console.print()
        with Live(Text("..."), console=self._console, auto_refresh=False) as live:
            while True:
                try:
                    live.update(cluster_table(await ask(), self._console.width), refresh=True)
                except LatticeError as error:
                    live.update(Text(f"! {error}", style="bold red"), refresh=True)
                await asyncio.sleep(REFRESH_SECONDS)

    def _print(self, head: str, text: str, style: str = "", *, after_blank: bool = False) -> None:
        """On a terminal it breaks between words, under where it began; other programs get one line."""
        if after_blank:
            self._console.print()
        lines = wrapped(text, self._console.width - len(head)) if self._console.is_terminal else [text]
        for number, line in enumerate(lines):
            self._console.print(Text((" " * len(head) if number else head) + line, style=style), soft_wrap=True)
        self._console.file.flush()
