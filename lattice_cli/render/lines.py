"""``-o raw``, and what other programs get: one record a line, fields separated by tabs, no headings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice_cli.render.console import write_line
from lattice_cli.render.text import hex_id

if TYPE_CHECKING:
    from lattice_core.client import ClusterStatus


def record(*values: object) -> None:
    """One line. Absent values are ``-``, truth is true or false."""
    write_line("\t".join(_field(value) for value in values))


def write(*fields: str) -> None:
    """One line of fields as they are, where an empty one means something."""
    write_line("\t".join(fields))


def _field(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def cluster_lines(status: ClusterStatus) -> None:
    """name, id, role (or unreachable), client, peer, term, commit, applied, last, snapshot, version."""
    for member in status.members:
        node = member.status
        role = "unreachable" if node is None else node.role
        numbers: tuple[object, ...] = (None,) * 6
        if node is not None:
            numbers = (
                node.term,
                node.commit_index,
                node.applied_index,
                node.last_index,
                node.snapshot_index,
                node.version,
            )
        record(member.name, hex_id(member.id), role, member.client_addr, member.peer_addr, *numbers)


def member_lines(status: ClusterStatus) -> None:
    """name, id, voter or learner, client, peer."""
    for member in status.members:
        kind = "voter" if member.voter else "learner"
        record(member.name, hex_id(member.id), kind, member.client_addr, member.peer_addr)
