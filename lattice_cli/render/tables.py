"""Tables for people. Everything that colour says is also said by a mark or a word, and what does not fit a
narrow terminal side by side is written below each other rather than cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lattice_cli.render.text import hex_id, plural, printable

if TYPE_CHECKING:
    from lattice_cli.contexts import Context
    from lattice_core.client import ClusterStatus, KeyValue, MemberReport, NodeStatus

LAGGING_ENTRIES = 100
"""A member is called a laggard from here on. Below it, the difference is the time the question took."""

WIDE_COLUMNS = 112
MEDIUM_COLUMNS = 72
"""What the table of members needs with addresses of usual length, with and without its less important columns.
Below the latter, members are written below each other."""


def new_table(*headings: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, side in headings:
        table.add_column(heading, justify="right" if side == ">" else "left", overflow="fold")
    return table


def key_values(kvs: Iterable[KeyValue], *, keys_only: bool = False) -> RenderableType:
    """What ``get`` found."""
    value = () if keys_only else (("VALUE", "<"),)
    table = new_table(("KEY", "<"), *value, ("REVISION", ">"), ("VERSION", ">"))
    for kv in kvs:
        shown = () if keys_only else (printable(kv.value),)
        table.add_row(printable(kv.key), *shown, str(kv.mod_revision), str(kv.version))
    return table


def node_fields(status: NodeStatus) -> list[tuple[str, str]]:
    """One member's status as (name, value), for tables and lines alike."""
    return [
        ("name", status.name),
        ("id", hex_id(status.node_id)),
        ("cluster_id", hex_id(status.cluster_id)),
        ("role", status.role),
        ("voter", "yes" if status.voter else "no"),
        ("leader_id", "none" if status.leader_id is None else hex_id(status.leader_id)),
        ("client_addr", status.client_addr),
        ("peer_addr", status.peer_addr),
        ("term", str(status.term)),
        ("commit_index", str(status.commit_index)),
        ("applied_index", str(status.applied_index)),
        ("last_index", str(status.last_index)),
        ("snapshot_index", str(status.snapshot_index)),
        ("revision", str(status.revision)),
        ("keys", str(status.keys)),
        ("sessions", str(status.sessions)),
        ("log_bytes", str(status.log_bytes)),
        ("state_hash", hex_id(status.state_hash)),
        ("uptime_seconds", f"{status.uptime_seconds:.1f}"),
        ("version", status.version),
    ]


def fields(pairs: Sequence[tuple[str, str]]) -> RenderableType:
    """Names and values, one pair a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name.replace("_", " "), value)
    return table


def _note(member: MemberReport, commit_index: int) -> tuple[str, str, str]:
    """A member's mark, the word for its state, and the style of both."""
    status = member.status
    if status is None:
        away = member.unreachable_seconds
        since = "" if away is None else f" for {away:.0f} s"
        return "!", f"unreachable{since}", "bold red"
    if status.role == "leader":
        return "*", "leader", "bold green"
    behind = commit_index - status.applied_index
    lag = f", {behind:,} behind" if behind >= LAGGING_ENTRIES else ""
    if member.learner or status.role == "learner":
        return "+", f"{kind_of(member)}{lag}", "yellow" if lag else "cyan"
    if lag:
        return "~", f"{status.role}{lag}", "yellow"
    return " ", status.role, ""


def kind_of(member: MemberReport) -> str:
    """Voter or learner, and what is to become of the latter."""
    if member.voter:
        return "voter"
    if member.replaces is not None:
        return f"learner, to replace {member.replaces}"
    return "learner, to vote" if member.promotes else "learner"


def cluster_table(status: ClusterStatus, width: int) -> RenderableType:
    """Every member: * leads, + learns, ~ lags, ! cannot be reached."""
    reachable = [member for member in status.members if member.status is not None]
    commit_index = max((member.status.commit_index for member in reachable if member.status), default=0)
    leader = status.leader
    total = len(status.members)
    summary = Text(
        f"cluster {hex_id(status.cluster_id)}  term {status.term}  "
        f"leader {leader.name if leader else 'none'}  {len(reachable)} of {plural(total, 'member')} reachable"
    )
    if status.pending is not None:
        summary.append(f"\n{'joint: ' if status.joint else 'pending: '}{status.pending}", style="bold")
    if width < MEDIUM_COLUMNS:
        return Group(*_stacked(status.members, commit_index), summary)
    wide = width >= WIDE_COLUMNS
    columns = [("", "<"), ("NAME", "<"), ("ROLE", "<"), ("CLIENT", "<"), ("TERM", ">"), ("COMMIT", ">")]
    columns.append(("APPLIED", ">"))
    if wide:
        columns += [("SNAPSHOT", ">"), ("PEER", "<"), ("VERSION", "<")]
    table = new_table(*columns)
    for member in status.members:
        mark, note, style = _note(member, commit_index)
        node = member.status
        numbers = ["-"] * 4
        if node is not None:
            numbers = [str(each) for each in (node.term, node.commit_index, node.applied_index, node.snapshot_index)]
        row = [mark, member.name, note, member.client_addr or "unknown", *numbers]
        row += [member.peer_addr, "-" if node is None else node.version]
        table.add_row(*row[: len(columns)], style=style)
    return Group(table, Text(""), summary)


def _stacked(members: Iterable[MemberReport], commit_index: int) -> Iterable[Text]:
    """The same for narrow terminals: three lines a member."""
    for member in members:
        mark, note, style = _note(member, commit_index)
        node = member.status
        yield Text(f"{mark} {member.name}  {note}", style=style)
        yield Text(f"  client {member.client_addr or 'unknown'}")
        if node is not None:
            yield Text(f"  term {node.term}  commit {node.commit_index}  applied {node.applied_index}")


def members_table(status: ClusterStatus, width: int) -> RenderableType:
    """Who belongs to the cluster, without asking how they are."""
    if width < WIDE_COLUMNS - 20:
        lines: list[Text] = []
        for member in status.members:
            lines.append(Text(f"{member.name}  {kind_of(member)}", style="bold"))
            lines += [Text(f"  id {hex_id(member.id)}"), Text(f"  peer {member.peer_addr}")]
            lines.append(Text(f"  client {member.client_addr or 'unknown'}"))
        return Group(*lines)
    table = new_table(("NAME", "<"), ("ID", "<"), ("KIND", "<"), ("PEER", "<"), ("CLIENT", "<"))
    for member in status.members:
        table.add_row(
            member.name,
            hex_id(member.id),
            kind_of(member),
            member.peer_addr,
            member.client_addr or "unknown",
        )
    if status.pending is not None:
        return Group(table, Text(f"\n{'joint: ' if status.joint else 'pending: '}{status.pending}", style="bold"))
    return table


def show(console: Console, renderable: RenderableType) -> None:
    """Print without breaking words of text lines in the middle."""
    console.print(renderable)


def setting_table(rows: Iterable[tuple[str, str, str]]) -> RenderableType:
    """Settings with their values and where these come from."""
    table = new_table(("SETTING", "<"), ("VALUE", "<"), ("FROM", "<"))
    for row in rows:
        table.add_row(*row, style="" if row[2] != "default" else "dim")
    return table


def context_table(contexts: Mapping[str, Context], current: str | None) -> RenderableType:
    """Clusters by name: * is in use."""
    table = new_table(("", "<"), ("NAME", "<"), ("ENDPOINTS", "<"), ("TLS", "<"), ("TOKEN", "<"))
    for name, context in sorted(contexts.items()):
        tls = "certificate" if context.tls_cert else "yes" if context.tls_ca else "-"
        marked = name == current
        endpoints = context.endpoints.replace(",", ", ")
        token = "yes" if context.token_file else "-"
        table.add_row("*" if marked else " ", name, endpoints, tls, token, style="bold" if marked else "")
    return table
