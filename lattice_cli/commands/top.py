"""``lattice top``: the cluster as it is just now, and as it was a moment ago."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lattice_cli.declare import command
from lattice_cli.options import Globals, Number, common_options, resolve

if TYPE_CHECKING:
    from lattice_cli.top.figures import Figures, Observer
    from lattice_core.client import StatusWatch

MAX_ASK_SECONDS = 5.0


@command(epilog="Examples:  lattice top      lattice top --once      lattice top -o json | jq .leader")
@click.option(
    "--interval",
    type=Number(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between one look and the next; rates are over this long.",
)
@click.option("--once", is_flag=True, help="One frame of plain text, as without a terminal; with -o json one document.")
@common_options
@click.pass_context
def top(ctx: click.Context, interval: float, once: bool) -> int:
    """Watch the cluster: who leads, how far each log is, what goes through, how disks and network do. q ends it.

    Members are marked: * leads, + learns, ~ lags, ! is away or in trouble. Percentiles are of what happened since the
    last look, or since the member was started where nothing has. TRIP is from the leader to the member and back.
    Without a terminal it prints one frame; with -o json, one document a line for each interval until it is ended.
    """
    options = resolve(ctx)
    import asyncio

    if options.output == "json":
        return asyncio.run(_stream(options, interval, once))
    if once or not sys.stdout.isatty():
        return asyncio.run(_once(options, interval))
    return asyncio.run(_live(options, interval))


def _ask_seconds(options: Globals) -> float:
    return min(options.timeout, MAX_ASK_SECONDS)


async def _look(watch: StatusWatch, observer: Observer, options: Globals) -> Figures:
    import time

    return observer.observe(await watch.ask(_ask_seconds(options)), time.time())


async def _once(options: Globals, interval: float) -> int:
    import asyncio
    import time

    from lattice_cli.render.console import data_console
    from lattice_cli.render.top import frame, glyphs_for
    from lattice_cli.top.figures import Observer
    from lattice_core.client import StatusWatch

    observer = Observer()
    async with StatusWatch(options.endpoints, tls=options.tls, token=options.connection.token) as watch:
        await _look(watch, observer, options)
        await asyncio.sleep(interval)
        figures = await _look(watch, observer, options)
    console = data_console(no_color=options.no_color)
    console.print(frame(figures, observer, console.width, at=time.time(), glyphs=glyphs_for(console.encoding)))
    return 0


async def _stream(options: Globals, interval: float, once: bool) -> int:
    """Documents until somebody ends it, or the reader goes away."""
    import asyncio
    import json
    import time

    from lattice_cli.top.document import problem_document, top_document
    from lattice_cli.top.figures import Observer
    from lattice_core.client import StatusWatch
    from lattice_core.errors import Unavailable

    observer = Observer()
    first = True
    async with StatusWatch(options.endpoints, tls=options.tls, token=options.connection.token) as watch:
        while True:
            began = time.monotonic()
            try:
                document = top_document(await _look(watch, observer, options), time.time())
            except Unavailable as error:
                if first:
                    raise
                observer.lost()
                document = problem_document(error.message, time.time())
            if not (first and once):  # the first has no rates
                sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
                sys.stdout.flush()
                if once:
                    return 0
            first = False
            await asyncio.sleep(max(0.0, interval - (time.monotonic() - began)))


async def _live(options: Globals, interval: float) -> int:
    import asyncio
    import time

    from lattice_cli.render.console import data_console
    from lattice_cli.render.top import frame, glyphs_for
    from lattice_cli.top.figures import Observer
    from lattice_cli.top.screen import Screen
    from lattice_core.client import StatusWatch
    from lattice_core.errors import Unavailable

    observer = Observer()
    console = data_console(no_color=options.no_color)
    glyphs = glyphs_for(console.encoding)
    async with StatusWatch(options.endpoints, tls=options.tls, token=options.connection.token) as watch:
        figures = await _look(watch, observer, options)  # whoever asks in the wrong place hears so at once
        problem: str | None = None
        look: asyncio.Task[Figures] | None = None
        next_look = time.monotonic() + interval
        try:
            async with Screen(console) as screen:
                while not screen.ended.is_set():
                    screen.show(frame(figures, observer, console.width, at=time.time(), glyphs=glyphs, problem=problem))
                    if look is None:
                        await screen.until(seconds=max(0.0, next_look - time.monotonic()))
                        if time.monotonic() >= next_look:
                            next_look = time.monotonic() + interval
                            look = asyncio.create_task(_look(watch, observer, options))
                    else:
                        await screen.until(look)
                    if look is not None and look.done():
                        try:
                            figures, problem = look.result(), None
                        except Unavailable as error:
                            observer.lost()
                            problem = error.message
                        look = None
        finally:
            if look is not None:
                look.cancel()
                await asyncio.gather(look, return_exceptions=True)
    return 0
