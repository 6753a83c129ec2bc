"""``lattice``: the root group, with an explicit list of commands that are imported when they are needed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
import rich_click

from lattice_cli.errors import EXIT_USAGE, did_you_mean, report
from lattice_cli.options import common_options
from lattice_core import __version__

COMMANDS = {
    "demo": "lattice_cli.commands.demo:demo",
    "start": "lattice_cli.commands.start:start",
    "put": "lattice_cli.commands.put:put",
    "get": "lattice_cli.commands.get:get",
    "delete": "lattice_cli.commands.delete:delete",
    "cas": "lattice_cli.commands.cas:cas",
    "txn": "lattice_cli.commands.txn:txn",
    "status": "lattice_cli.commands.status:status",
    "cluster": "lattice_cli.commands.cluster:cluster",
    "transfer-leader": "lattice_cli.commands.transfer_leader:transfer_leader",
    "access": "lattice_cli.commands.access:access",
    "user": "lattice_cli.commands.user:user",
    "role": "lattice_cli.commands.role:role",
    "token": "lattice_cli.commands.token:token",
    "login": "lattice_cli.commands.token:login",
    "snapshot": "lattice_cli.commands.snapshot:snapshot",
    "wal": "lattice_cli.commands.wal:wal",
    "recover": "lattice_cli.commands.recover:recover",
    "bench": "lattice_cli.commands.bench:bench",
    "doctor": "lattice_cli.commands.doctor:doctor",
    "top": "lattice_cli.commands.top:top",
    "sim": "lattice_cli.commands.sim:sim",
    "verify": "lattice_cli.commands.verify:verify",
    "chaos": "lattice_cli.commands.chaos:chaos",
    "context": "lattice_cli.commands.context:context",
    "config": "lattice_cli.commands.config:config",
    "certs": "lattice_cli.commands.certs:certs",
    "completion": "lattice_cli.commands.completion:completion",
}


class Group(rich_click.RichGroup):
    """A group that answers an unknown command with the one that was meant, and no command with its help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("invoke_without_command", True)
        super().__init__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is not None:
            return result
        # Whoever types "lattice" wants to look around; "lattice cluster" in a script is a mistake.
        is_root = ctx.parent is None
        click.echo(ctx.get_help(), err=not is_root)
        return 0 if is_root else EXIT_USAGE

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        return None if command is None else shown_once(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        unknown = args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-")
        if unknown and not ctx.resilient_parsing:
            meant = did_you_mean(args[0], self.list_commands(ctx))
            error = click.UsageError(f"no such command {args[0]!r}", ctx=ctx)
            if meant:
                error.hint = f"{ctx.command_path} {meant}"  # type: ignore[attr-defined]
            raise error
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """The root: knows its commands by name, and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        path = COMMANDS.get(cmd_name)
        if path is None:
            return None
        module, _, name = path.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return shown_once(command)


def shown_once(command: click.Command) -> click.Command:
    """Have an option that stands in a panel of its own left out of "Options": rich-click looks for the attribute that
    its own options have, and click's do not."""
    for option in command.params:
        if not hasattr(option, "panel"):
            option.panel = None  # type: ignore[attr-defined]
    return command


@rich_click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with:  lattice demo      or, for a node of your own:  lattice start",
)
@click.version_option(__version__, "-V", "--version", message="lattice %(version)s")
@rich_click.command_panel("Run nodes", commands=["demo", "start", "config", "certs"])
@rich_click.command_panel("Use the store", commands=["put", "get", "delete", "cas", "txn"])
@rich_click.command_panel(
    "Operate the cluster", commands=["status", "cluster", "transfer-leader", "snapshot", "wal", "recover"]
)
@rich_click.command_panel("Say who may use it", commands=["access", "user", "role", "token", "login"])
@rich_click.command_panel("Watch it", commands=["doctor", "top"])
@rich_click.command_panel("Trust nothing", commands=["bench", "sim", "verify", "chaos"])
@rich_click.command_panel("Your side", commands=["context", "completion"])
@common_options
def cli() -> None:
    """A strongly consistent, replicated key-value store: run it, use it, watch it, operate it.

    Any member's address works: the client follows the leader.
    """


shown_once(cli)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; its exit code. Everything that goes wrong has been reported."""
    try:
        if "_LATTICE_COMPLETE" in os.environ:
            from lattice_cli.completing import answer

            return answer(cli)
        # Not cli.main(): it has its own ways with interrupts and closed pipes.
        with cli.make_context("lattice", list(sys.argv[1:] if arguments is None else arguments)) as ctx:
            code = cli.invoke(ctx)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("LATTICE_TRACEBACK"):
            raise
        return report(error)
