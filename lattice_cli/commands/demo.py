"""``lattice demo``: a local cluster of real processes that elects, writes, loses its leader and carries on."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click
import rich_click

from lattice_cli.errors import EXIT_INTERRUPTED
from lattice_cli.options import Globals, common_options, resolve

if TYPE_CHECKING:
    from lattice_cli.demo.processes import LocalCluster
    from lattice_cli.render.stage import TextStage


@rich_click.command()
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="How many.")
@click.option("--once", is_flag=True, help="Stop after the failover, as without a terminal.")
@common_options
@click.pass_context
def demo(ctx: click.Context, nodes: int, once: bool) -> int:
    """Watch a cluster of real processes elect a leader, take writes, lose the leader to kill -9 and carry on.

    Everything it shows is checked: if an acknowledged write were lost, or one applied twice, it would say so and
    exit with 1. It uses free ports on this machine and a temporary directory, and leaves nothing behind.
    """
    options = resolve(ctx)
    import asyncio

    return asyncio.run(_run(options, nodes, once or not sys.stdout.isatty()))


async def _run(options: Globals, nodes: int, once: bool) -> int:
    """The exit code. SIGTERM and Ctrl-C end it in good order, whatever it is doing."""
    import asyncio

    from lattice_cli.demo.processes import LocalCluster
    from lattice_cli.render.stage import TextStage

    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    cluster = LocalCluster(nodes)
    stage = TextStage(no_color=options.no_color)
    try:
        await _tell(cluster, stage, once)
        return 0
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED if once else 0
    finally:
        for number in signals:
            loop.add_signal_handler(number, lambda: None)  # cleaning up takes a moment, and is bounded
        try:
            await cluster.close()
        finally:
            cluster.kill_all()
            for number in signals:
                loop.remove_signal_handler(number)


async def _tell(cluster: LocalCluster, stage: TextStage, once: bool) -> None:
    from lattice_cli.demo.story import Story

    story = Story(cluster, stage)
    try:
        await story.tell()
        if once:
            stage.end("Everything held.")
            return
        stage.end("Everything held. The cluster stays up; try it from another terminal:")
        stage.command(f"export LATTICE_ENDPOINTS={cluster.endpoints}")
        stage.command("lattice put greeting hello && lattice get greeting")
        leader = next(iter(cluster.nodes.values()))
        stage.command(f"kill -9 {leader.pid}   # {leader.name}; then: lattice cluster status")
        await stage.watch(story.client.cluster_status)
    finally:
        await story.close()
