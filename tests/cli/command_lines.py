"""Every command there is, with a line that is right: what the tests of bad input start from.

The commands are enumerated from the code, so that a new one has to be put into the table before anything passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from lattice_cli.main import cli


@dataclass(frozen=True, slots=True)
class Line:
    """Arguments that are right. ``FILE`` stands for a path that may be made anew."""

    arguments: tuple[str, ...] = ()
    asks: bool = True
    """It talks to a cluster."""
    needs_leader: bool = False
    """So it cannot be done by a member without a quorum."""


LINES = {
    "demo": Line(("--once",), asks=False),
    "start": Line(("--data-dir", "FILE"), asks=False),
    "put": Line(("k", "v"), needs_leader=True),
    "get": Line(("k",), needs_leader=True),
    "delete": Line(("k",), needs_leader=True),
    "cas": Line(("k", "old", "new"), needs_leader=True),
    "txn": Line(("-f", "FILE"), needs_leader=True),
    "status": Line(),
    "cluster status": Line(),
    "cluster members": Line(),
    "cluster add-server": Line(("n9", "127.0.0.1:1", "--start-later"), needs_leader=True),
    "cluster remove-server": Line(("n2",), needs_leader=True),
    "cluster replace-server": Line(("n2", "n9", "127.0.0.1:1", "--start-later"), needs_leader=True),
    "cluster promote": Line(("n2",), needs_leader=True),
    "transfer-leader": Line((), needs_leader=True),
    "snapshot take": Line(),
    "snapshot save": Line(("FILE",)),
    "snapshot inspect": Line(("FILE",), asks=False),
    "snapshot restore": Line(("FILE", "--data-dir", "FILE"), asks=False),
    "wal inspect": Line(("FILE",), asks=False),
    "recover": Line(("FILE",), asks=False),
    "bench": Line(("--seconds", "0.1", "--warm-up", "0", "--callers", "1"), needs_leader=True),
    "doctor": Line(),
    "top": Line(("--once", "--interval", "0.1")),
    "sim": Line(("--seed", "1", "--hours", "0.001"), asks=False),
    "verify": Line(("FILE",), asks=False),
    "chaos": Line(("--seconds", "1"), asks=False),
    "context add": Line(("name",), asks=False),
    "context use": Line(("name",), asks=False),
    "context list": Line((), asks=False),
    "context show": Line((), asks=False),
    "context remove": Line(("name",), asks=False),
    "certs init": Line(("--dir", "FILE"), asks=False),
    "certs node": Line(("n1", "--dir", "FILE"), asks=False),
    "certs client": Line(("me", "--dir", "FILE"), asks=False),
    "access status": Line(),
    "access enable": Line((), needs_leader=True),
    "access disable": Line((), needs_leader=True),
    "access rescue": Line(("FILE",), asks=False),
    "user add": Line(("ann",), needs_leader=True),
    "user grant": Line(("ann", "readers"), needs_leader=True),
    "user revoke": Line(("ann", "readers"), needs_leader=True),
    "user passwd": Line(("ann", "--password-file", "WORDS"), needs_leader=True),
    "user remove": Line(("ann",), needs_leader=True),
    "user list": Line((), needs_leader=True),
    "role grant": Line(("readers", "read", "jobs/"), needs_leader=True),
    "role revoke": Line(("readers", "jobs/"), needs_leader=True),
    "role remove": Line(("readers",), needs_leader=True),
    "role list": Line((), needs_leader=True),
    "token create": Line(("ann",), needs_leader=True),
    "token revoke": Line(("0123456789abcdef",), needs_leader=True),
    "token list": Line((), needs_leader=True),
    "login": Line(("ann", "--password-file", "WORDS"), needs_leader=True),
    "config check": Line((), asks=False),
    "config show": Line((), asks=False),
    "completion": Line(("bash",), asks=False),
}


def commands() -> dict[str, click.Command]:
    """Every command that does something, by the words that name it."""
    return dict(_commands("", cli))


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from _commands(f"{path} {name}".strip(), inner)
