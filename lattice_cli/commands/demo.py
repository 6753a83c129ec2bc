"""``lattice demo``: a local cluster of real processes that elects, writes, loses its leader and carries on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lattice_cli.declare import command
from lattice_cli.errors import EXIT_INTERRUPTED
from lattice_cli.options import Globals, common_options, resolve

if TYPE_CHECKING:
    from lattice_cli.demo.processes import LocalCluster
    from lattice_cli.demo.story import Story
    from lattice_cli.render.stage import TextStage


@command()
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="How many.")
@click.option("--once", is_flag=True, help="Stop after the failover, as without a terminal.")
@click.option("--tls", is_flag=True, help="With certificates of its own: mutual TLS among members and with clients.")
@click.option("--keep", is_flag=True, help="Leave the cluster running at the end; says how to stop it.")
@common_options
@click.pass_context
def demo(ctx: click.Context, nodes: int, once: bool, keep: bool, tls: bool) -> int:
    """Watch a cluster of real processes elect a leader, take writes, lose the leader to kill -9 and carry on.

    Everything it shows is checked: if an acknowledged write were lost, or one applied twice, it would say so and
    exit with 1. It uses free ports on this machine and a temporary directory, and leaves nothing behind, whenever
    it is ended; with --keep, nothing unless it came to its end. Ctrl-C before that is exit code 130.

    Examples: lattice demo    lattice demo --nodes 5    lattice demo --once --keep
    """
    options = resolve(ctx)
    import asyncio

    return asyncio.run(_run(options, nodes, once or not sys.stdout.isatty(), keep, tls))


async def _run(options: Globals, nodes: int, once: bool, keep: bool, tls: bool) -> int:
    """The exit code. SIGTERM and Ctrl-C end it in good order, whatever it is doing.

    They are how the live view ends, once everything has been shown; before that the demonstration is cut short.
    """
    import asyncio

    from lattice_cli.demo.processes import LocalCluster
    from lattice_cli.demo.story import Story
    from lattice_cli.interrupts import Interrupts
    from lattice_cli.render.stage import TextStage
    from lattice_core.errors import LatticeError

    interrupts = Interrupts()
    cluster = LocalCluster(nodes, may_outlive=keep, tls=tls)
    stage = TextStage(no_color=options.no_color)
    story = Story(cluster, stage)
    shown = kept = False
    try:
        await story.tell()
        kept = keep
        await _go_on(cluster, stage, story, once=once, keep=keep)
        shown = True
    except (asyncio.CancelledError, LatticeError):
        if not interrupts.came:
            raise
        shown = story.told and not once
        # At once: nodes take seconds.
        stage.end(f"The cluster stays up, in {cluster.directory}." if kept else "stopping ...")
    finally:
        await interrupts.settle()
        try:
            await story.close()
            if not kept:
                await cluster.close()
        finally:
            if not kept:
                cluster.kill_all()
            interrupts.close()
    if interrupts.came and not kept:
        stage.say(f"stopped; {cluster.directory} removed")
    return 0 if shown else EXIT_INTERRUPTED


async def _go_on(cluster: LocalCluster, stage: TextStage, story: Story, *, once: bool, keep: bool) -> None:
    """What can be done with a cluster that stays: by other terminals, while this one shows it, or by itself."""
    if once and not keep:
        stage.end("Everything held.")
        return
    leader = (await story.client.cluster_status()).leader
    stage.end("Everything held. The cluster stays up. To try, from any terminal:")
    where = _to_find_lattice()
    if where is not None:
        stage.command(where)
    stage.command(f"export LATTICE_ENDPOINTS={cluster.endpoints}")
    if cluster.tls is not None:
        tls = cluster.tls
        stage.command(f"export LATTICE_TLS_CA={tls.ca} LATTICE_TLS_CERT={tls.cert} LATTICE_TLS_KEY={tls.key}")
    stage.command("lattice put greeting hello && lattice get greeting --explain")
    suggestions = {
        "lattice cluster status": "who leads, who lags, who is gone",
        "lattice bench --seconds 5": "how fast it is, here",
        "lattice doctor": "what is wrong with it",
    }
    if leader is not None:
        suggestions[f"kill -9 {cluster.nodes[leader.name].pid}"] = f"{leader.name} leads; then: lattice top"
    stage.commands(suggestions)
    if keep:
        stage.end("To stop it and remove what it wrote:")
        pids = " ".join(str(node.pid) for node in cluster.nodes.values())
        stage.command(f"kill {pids}; sleep 3; rm -r {cluster.directory}")
    if not once:
        stage.end(
            f"Ctrl-C ends this view{'; the cluster stays.' if keep else ', stops the nodes and removes everything.'}"
        )
        await stage.watch(story.client.cluster_status)


def _to_find_lattice() -> str | None:
    """What a shell has to be told before it knows ``lattice`` as this very program; None: nothing."""
    beside = Path(sys.executable).parent / "lattice"
    found = shutil.which("lattice")
    if not beside.exists():
        return None if found else f'alias lattice="{sys.executable} -m lattice_cli"'
    if found and Path(found).samefile(beside):
        return None
    return f'export PATH="{beside.parent}:$PATH"'
