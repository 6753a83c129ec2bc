"""``lattice cluster add-server`` and its like: who belongs to the cluster, changed while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lattice_cli.declare import command
from lattice_cli.options import Globals, Number, common_options, completed_by, confirm, resolve
from lattice_core.addresses import parse_addr
from lattice_core.errors import NotAllowed, Unavailable

if TYPE_CHECKING:
    from lattice_core.client import Client, MembershipChanged

F = TypeVar("F", bound=Callable[..., Any])

WAIT_SECONDS = 600.0
"""For a learner to catch up, by default: some ten gigabytes, at the pace that snapshots are sent."""

POLL_SECONDS = 0.25

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Change nothing: say what becomes of voters and quorum, and whether it is refused."
)
start_later_option = click.option(
    "--start-later", is_flag=True, help="Nobody answers at PEER_ADDR yet: add it all the same, and start it later."
)


def wait_options(function: F) -> F:
    no_wait = click.option("--no-wait", is_flag=True, help="Do not wait until it votes: that comes by itself.")
    wait = click.option(
        "--wait",
        "wait_seconds",
        type=Number(min=0, min_open=True),
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help="How long to wait until it votes.",
        show_default=True,
    )
    return no_wait(wait(function))


@command("add-server")
@click.argument("name")
@click.argument("peer_addr")
@click.option("--learner", is_flag=True, help="It stays a learner, a read replica that never votes.")
@start_later_option
@wait_options
@dry_run_option
@common_options
@click.pass_context
def add_server(
    ctx: click.Context,
    name: str,
    peer_addr: str,
    learner: bool,
    start_later: bool,
    no_wait: bool,
    wait_seconds: float,
    dry_run: bool,
) -> None:
    """Add the server NAME that waits at PEER_ADDR, and wait until it has caught up and votes.

    Usually not needed: lattice start --name NAME ... --join H:P adds the server that it starts.

    Examples: lattice cluster add-server n4 10.0.0.4:7500 --start-later    lattice cluster add-server n4 10.0.0.4:7500 --dry-run
    """  # noqa: E501
    options = resolve(ctx)
    parse_addr(peer_addr, what="peer address")
    with options.client() as client:
        changed = client.add_server(name, peer_addr, learner=learner, start_later=start_later, dry_run=dry_run)
        if not (dry_run or learner or no_wait or start_later):
            changed = _wait(client, changed, wait_seconds)
    _show(changed, options)
    if start_later and not dry_run:
        click.echo(f"next: lattice start --name {name} --peer-addr {peer_addr} ... --join H:P", err=True)


@command("remove-server")
@click.argument("name", shell_complete=completed_by("members"))
@click.option("--yes", is_flag=True, help="Do not ask. A terminal is asked first.")
@click.option("--force", is_flag=True, help="Even if fewer live voters than a quorum are left.")
@dry_run_option
@common_options
@click.pass_context
def remove_server(ctx: click.Context, name: str, yes: bool, force: bool, dry_run: bool) -> None:
    """Remove the server NAME: a follower, the leader, a learner, or one that is gone for good.

    The server stops, and does not start again on its data directory.

    Examples: lattice cluster remove-server n2    lattice cluster remove-server n2 --dry-run
    """
    options = resolve(ctx)
    if not dry_run:
        confirm(f"{name} leaves the cluster for good, and does not start again on its data directory.", yes=yes)
    with options.client() as client:
        changed = client.remove_server(name, force=force, dry_run=dry_run)
    _show(changed, options)


@command("replace-server")
@click.argument("old", shell_complete=completed_by("members"))
@click.argument("new")
@click.argument("peer_addr")
@start_later_option
@wait_options
@dry_run_option
@common_options
@click.pass_context
def replace_server(
    ctx: click.Context,
    old: str,
    new: str,
    peer_addr: str,
    start_later: bool,
    no_wait: bool,
    wait_seconds: float,
    dry_run: bool,
) -> None:
    """Have the server NEW at PEER_ADDR take the place of the voter OLD, dead or alive, in one change.

    NEW may be a learner already: start it with --join H:P --learner. OLD leaves when NEW has caught up, not before.

    Examples: lattice cluster replace-server n2 n4 10.0.0.4:7500    lattice cluster replace-server n2 n4 10.0.0.4:7500 --start-later
    """  # noqa: E501
    options = resolve(ctx)
    parse_addr(peer_addr, what="peer address")
    with options.client() as client:
        changed = client.replace_server(old, new, peer_addr, start_later=start_later, dry_run=dry_run)
        if not (dry_run or no_wait or start_later):
            changed = _wait(client, changed, wait_seconds)
    _show(changed, options)
    if start_later and not dry_run:
        click.echo(f"next: lattice start --name {new} --peer-addr {peer_addr} ... --join H:P", err=True)


@command("promote")
@click.argument("name", shell_complete=completed_by("learners"))
@dry_run_option
@common_options
@click.pass_context
def promote(ctx: click.Context, name: str, dry_run: bool) -> None:
    """Make the learner NAME, which has caught up, a voter.

    Examples: lattice cluster promote n4    lattice cluster promote n4 --dry-run
    """
    options = resolve(ctx)
    with options.client() as client:
        changed = client.promote(name, dry_run=dry_run)
    _show(changed, options)


def _show(changed: MembershipChanged, options: Globals) -> None:
    """What it came to, or would come to; then, for a dry run that would be refused, the refusal."""
    from lattice_cli.render import documents, membership

    if options.output == "json":
        documents.print_document(membership.document(changed))
    elif changed.dry_run:
        membership.outlook(changed, table=options.output == "table", no_color=options.no_color)
    else:
        membership.line(changed, table=options.output == "table")
    if changed.refused is not None:
        raise NotAllowed(f"it would be refused: {changed.refused}", hint=changed.hint)


def _wait(client: Client, changed: MembershipChanged, seconds: float) -> MembershipChanged:
    """Wait until the new member votes, and tell how far it is; how it stands then."""
    import dataclasses

    from lattice_cli.render.membership import CatchUpLine

    progress = CatchUpLine(changed.name)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            try:
                status = client.cluster_status()
            except Unavailable:
                time.sleep(POLL_SECONDS)
                continue
            member = next((each for each in status.members if each.id == changed.id), None)
            if member is None:
                raise NotAllowed(f"{changed.name} was removed before it had caught up", hint="lattice cluster members")
            if member.voter and not status.joint:
                return dataclasses.replace(changed, voter=True, promotes=False)
            progress.show(member)
            time.sleep(POLL_SECONDS)
    finally:
        progress.clear()
    click.echo(
        f"{changed.name} has not caught up after {seconds:g} s; it goes on in the background: lattice cluster status",
        err=True,
    )
    return changed
