"""``lattice``: the root group, with an explicit list of commands that are imported when they are needed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from lattice_cli.declare import Group, command_panel, group
from lattice_cli.errors import report
from lattice_cli.options import common_options
from lattice_core import __version__


class Listed(NamedTuple):
    """A command that the root knows of without importing it."""

    place: str
    """module:name, below lattice_cli.commands."""
    summary: str
    """The first paragraph of its help: what ``lattice --help`` shows of it."""


COMMANDS = {
    "demo": Listed(
        "demo:demo",
        "Watch a cluster of real processes elect a leader, take writes, lose the leader to kill -9 and carry on.",
    ),
    "start": Listed(
        "start:start",
        'Run one node. Says "ready" on stderr when it serves; SIGTERM hands leadership over and exits with 0.',
    ),
    "put": Listed(
        "put:put",
        'Store VALUE under KEY and print the new revision. With VALUE "-", standard input is stored as it is.',
    ),
    "get": Listed(
        "get:get",
        "Print the value of KEY: a table on a terminal, else its bytes exactly, without a newline added.",
    ),
    "delete": Listed(
        "delete:delete",
        "Delete KEY and print how many keys were deleted. Exits with 1 if there was no such key.",
    ),
    "cas": Listed(
        "cas:cas",
        'Replace the value of KEY by NEW if it is EXPECTED; exits with 1 if it is not. NEW "-" is standard input.',
    ),
    "txn": Listed(
        "txn:txn",
        'Do all of the operations under "then:" if every comparison under "when:" holds, else all of those under '
        '"else:": atomically, as one revision, each seeing what those before it did. Any section may be left out.',
    ),
    "status": Listed(
        "status:status",
        "Show what the member that answers knows of itself. For all members: lattice cluster status",
    ),
    "cluster": Listed("cluster:cluster", "All members: how they are, who they are, and who they shall be."),
    "transfer-leader": Listed(
        "transfer_leader:transfer_leader",
        "Make the member NAME the leader (without NAME: the best-placed voter), and wait until it is.",
    ),
    "access": Listed("access:access", "Access control: whether a token is asked for."),
    "user": Listed(
        "user:user",
        "Users: somebody, or something, that has roles, and a token or a password to prove it.",
    ),
    "role": Listed(
        "role:role",
        "Roles: which keys may be read or written. The role admin is built in and allows everything.",
    ),
    "token": Listed(
        "token:token",
        "Tokens: what proves who a program or a person is. Used with --token-file FILE or LATTICE_TOKEN_FILE.",
    ),
    "login": Listed("token:login", "Exchange USER's password for a token that expires."),
    "snapshot": Listed(
        "snapshot:snapshot",
        "Snapshots: compact members' logs now, save a backup, check one, begin a new cluster with it.",
    ),
    "wal": Listed("wal:wal", "The write-ahead log in a data directory."),
    "recover": Listed(
        "recover:recover",
        "A quorum is lost for good: make a new cluster of one member out of what the survivors have.",
    ),
    "bench": Listed(
        "bench:bench",
        "Measure puts and gets: how many a second, how long each takes, how long the longest silence was.",
    ),
    "doctor": Listed(
        "doctor:doctor",
        "Look at every member, its disk, clock, network, certificates and settings: what is wrong, and what to do.",
    ),
    "top": Listed(
        "top:top",
        "Watch the cluster: who leads, how far each log is, what goes through, how disks and network do. q ends it.",
    ),
    "sim": Listed("sim:sim", "Attack the real consensus core, log and state machine in a simulated world."),
    "verify": Listed("verify:verify", "Check whether the history in FILE (JSON lines) is linearizable."),
    "chaos": Listed(
        "chaos:chaos",
        "Attack a local cluster of real processes while clients work on it, and judge what they saw.",
    ),
    "context": Listed(
        "context:context",
        "Clusters by name: where they are and what opens them, so that commands need not be told.",
    ),
    "config": Listed("config:config", "Look at a node's configuration without starting it."),
    "certs": Listed(
        "certs:certs",
        "Make the certificates of a cluster: for its authority, its members and its clients.",
    ),
    "completion": Listed(
        "completion:completion",
        "Print the completion script for SHELL: commands, options, and from the cluster keys and members.",
    ),
}
"""In the order of the help. That a summary is the command's own is tested."""


class LazyGroup(Group):
    """The root: knows its commands by name and summary, and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        listed = COMMANDS.get(cmd_name)
        if listed is None:
            return None
        module, _, name = listed.place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"lattice_cli.commands.{module}"), name)
        return command

    def summary(self, ctx: click.Context, name: str) -> click.Command | None:
        listed = COMMANDS.get(name)
        return None if listed is None else click.Command(name, help=listed.summary)


@group(
    cls=LazyGroup,
    # "color": what prints help must leave in the colours that were put in, or were not, when it was drawn.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "color": True},
    epilog="Begin with:  lattice demo      or, for a node of your own:  lattice start",
)
@click.version_option(__version__, "-V", "--version", message="lattice %(version)s")
@command_panel("Run nodes", commands=["demo", "start", "config", "certs"])
@command_panel("Use the store", commands=["put", "get", "delete", "cas", "txn"])
@command_panel("Operate the cluster", commands=["status", "cluster", "transfer-leader", "snapshot", "wal", "recover"])
@command_panel("Say who may use it", commands=["access", "user", "role", "token", "login"])
@command_panel("Watch it", commands=["doctor", "top"])
@command_panel("Trust nothing", commands=["bench", "sim", "verify", "chaos"])
@command_panel("Your side", commands=["context", "completion"])
@common_options
def cli() -> None:
    """A strongly consistent, replicated key-value store: run it, use it, watch it, operate it.

    Any member's address works: the client follows the leader.
    """


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
