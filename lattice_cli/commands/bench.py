"""``lattice bench``: how fast is this cluster, seen by a number of callers?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lattice_cli.declare import command
from lattice_cli.errors import EXIT_INTERRUPTED
from lattice_cli.options import Number, common_options, resolve
from lattice_core.errors import InvalidRequest

if TYPE_CHECKING:
    from lattice_cli.bench.plan import Mix
    from lattice_core.client import Consistency

DEFAULT_KEYS = 10_000
PREFIX = "bench/"


@command()
@click.option(
    "--callers",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="At once, each waiting for its answer.",
)
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N", help="The callers' own."
)
@click.option(
    "--seconds",
    type=Number(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long to measure.",
)
@click.option(
    "--warm-up",
    type=Number(min=0),
    default=1.0,
    show_default=True,
    metavar="S",
    help="How long before that.",
)
@click.option(
    "--value-size",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Of what is put. [default: 256; with --history: as short as is unique]",
)
@click.option(
    "--mix",
    type=click.Choice(["put", "get", "mixed"]),
    help="What callers do; mixed is half of each, with --history also cas and delete. "
    "[default: put; with --history: mixed]",
)
@click.option(
    "--keys",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Chosen from at random. [default: {DEFAULT_KEYS:,}; with --history: one a caller]",
)
@click.option(
    "--read-consistency",
    type=click.Choice(["linearizable", "lease", "stale"]),
    default="linearizable",
    show_default=True,
    help="Of gets.",
)
@click.option(
    "--rate",
    type=Number(min=0, min_open=True),
    metavar="R",
    help="Begin R operations a second; latency then counts from when each was due. [default: as fast as answers come]",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Record every operation, for lattice verify.",
)
@click.option("--keep", is_flag=True, help="Leave the keys there; their names begin with bench/.")
@common_options
@click.pass_context
def bench(
    ctx: click.Context,
    callers: int,
    processes: int,
    seconds: float,
    warm_up: float,
    value_size: int | None,
    mix: Mix | None,
    keys: int | None,
    read_consistency: Consistency,
    rate: float | None,
    history: Path | None,
    keep: bool,
) -> int:
    """Measure puts and gets: how many a second, how long each takes, how long the longest silence was.

    Uses keys of its own, and deletes them afterwards. Ctrl-C ends it early, with the result so far. Run it from
    where the real clients are: on the cluster's own machines it takes from what it measures.

    Examples: lattice bench --callers 256    lattice bench --mix get --rate 5000 --seconds 60

    lattice bench --history h.jsonl --seconds 20; lattice verify h.jsonl
    """
    options = resolve(ctx)
    import asyncio
    import secrets

    from lattice_cli.bench.plan import Plan
    from lattice_cli.bench.run import run, use_fast_loop
    from lattice_cli.render import bench as view
    from lattice_cli.render import documents

    recorded = history is not None
    if history is not None and history.is_file():
        raise InvalidRequest(f"bench: {history} exists already, and is left as it is", hint="give another name")
    plan = Plan(
        endpoints=options.endpoints,
        token_file=options.connection.token_file,
        timeout_seconds=options.timeout,
        callers=callers,
        processes=processes,
        seconds=seconds,
        warm_up_seconds=warm_up,
        value_bytes=value_size if value_size is not None else 0 if recorded else 256,
        mix=mix or ("mixed" if recorded else "put"),
        keys=keys or (callers if recorded else DEFAULT_KEYS),
        read_consistency=read_consistency,
        rate=rate,
        prefix=f"{PREFIX}{secrets.token_hex(4)}/",
        recorded=recorded,
        tls=options.tls,
    )
    live = view.LiveView(plan, no_color=options.no_color)
    with asyncio.Runner(loop_factory=use_fast_loop()) as runner, live:
        result = runner.run(run(plan, history=history, keep=keep, progress=live.update))
    if options.output == "json":
        documents.print_document(view.document(result))
    elif options.output == "table":
        view.report(result, no_color=options.no_color)
    else:
        view.report_line(result)
    if history is not None:
        click.echo(f"check it: lattice verify {shlex.quote(str(history))}", err=True)
    return EXIT_INTERRUPTED if result.interrupted else 0
