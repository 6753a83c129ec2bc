"""What ``lattice snapshot restore`` and ``lattice recover`` show: what was found, and what comes of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from lattice_cli.render import lines, storage, tables
from lattice_cli.render.console import data_console
from lattice_cli.render.text import hex_id, plural

if TYPE_CHECKING:
    from lattice_core.raft.types import Configuration, Member
    from lattice_core.server.recover import Finished, Plan, Survivor
    from lattice_core.server.restore import Restored
    from lattice_core.storage.identity import Identity


def next_line(identity: Identity, data_dir: str) -> str:
    """What starts it, to be copied: unwrapped, on stderr."""
    words = ["lattice", "start", "--name", identity.node_name, "--data-dir", data_dir]
    words += ["--client-addr", identity.client_addr or "H:P", "--peer-addr", identity.peer_addr]
    if identity.initial_cluster and "," in identity.initial_cluster:
        words += ["--initial-cluster", identity.initial_cluster]
    return f"next: {shlex.join(words)}"


def restored_document(restored: Restored) -> dict[str, Any]:
    member, configuration = restored.member, restored.meta.configuration
    return {
        "data_dir": restored.data_dir,
        "name": member.name,
        "id": hex_id(member.identity.node_id),
        "cluster_id": hex_id(member.cluster_id),
        "members": _members(configuration),
        "client_addr": member.client_addr,
        "peer_addr": member.peer_addr,
        "keys": restored.keys,
        "revision": restored.revision,
        "index": restored.meta.last_included_index,
        "term": restored.meta.last_included_term,
        "state_hash": hex_id(restored.state_hash),
        "saved_cluster_id": hex_id(restored.old_cluster_id),
        "saved_revision": restored.old_revision,
    }


def _members(configuration: Configuration) -> list[dict[str, Any]]:
    return [
        {
            "name": member.name,
            "id": hex_id(member.id),
            "peer_addr": member.peer_addr,
            "voter": configuration.is_voter(member.id),
        }
        for member in sorted(configuration.members, key=lambda member: member.name)
    ]


# -- recover ------------------------------------------------------------------------------------------


def plan_document(plan: Plan, *, done: bool) -> dict[str, Any]:
    configuration = plan.log.configuration
    members = _members(configuration)
    for each, member in zip(members, sorted(configuration.members, key=lambda member: member.name), strict=True):
        each["found"] = _fate(plan, member)
    new = plan.member
    return {
        "done": done,
        "cluster_id": hex_id(plan.chosen.identity.cluster_id) if plan.chosen.identity else None,
        "survivors": [_survivor(each) for each in plan.survivors],
        "members": members,
        "quorum": plan.is_quorum,
        "chosen": plan.chosen.data_dir,
        "keys": plan.keys,
        "index": plan.log.last_index,
        "term": plan.log.last_term,
        "revision": plan.old_revision,
        "acknowledged_writes_may_be_lost": not plan.is_complete,
        "uncommitted_entries_kept": plan.uncommitted,
        "result": {
            "data_dir": plan.data_dir,
            "old_data_moves_to": plan.archive,
            # Drawn when it is done: the next attempt's is another one.
            "cluster_id": hex_id(new.cluster_id) if done else None,
            "name": new.name,
            "client_addr": new.client_addr,
            "peer_addr": new.peer_addr,
            "revision": plan.revision,
        },
    }


def _survivor(survivor: Survivor) -> dict[str, Any]:
    identity, log = survivor.identity, survivor.log
    document: dict[str, Any] = {
        "data_dir": survivor.data_dir,
        "name": identity.node_name if identity else None,
        "id": hex_id(identity.node_id) if identity else None,
        "peer_addr": identity.peer_addr if identity else None,
        "usable": log is not None,
        "removed": survivor.removed,
        "term": log.term if log else None,
        "last_index": log.last_index if log else None,
        "last_term": log.last_term if log else None,
        "commit_index": log.commit_index if log else None,
        "snapshot_index": log.snapshot_index if log else None,
        "entries": log.entries if log else None,
        "torn_tail": None,
        "damaged_snapshots": list(log.damaged_snapshots) if log else [],
        "damage": None,
    }
    if log is not None and log.torn is not None:
        torn = log.torn
        document["torn_tail"] = {"path": torn.path, "offset": torn.offset, "bytes": torn.bytes_cut}
    if survivor.unusable is not None:
        error = survivor.unusable
        document["damage"] = {
            "path": getattr(error, "path", None),
            "offset": getattr(error, "offset", None),
            "reason": error.message,
        }
    return document


def _fate(plan: Plan, member: Member) -> str:
    """What became of a member of the old cluster, as far as is known here."""
    if member.id in plan.usable:
        return "survivor"
    if any(each.identity is not None and each.identity.node_id == member.id for each in plan.survivors):
        return "damaged"
    return "missing"


def plan_lines(plan: Plan) -> None:
    """survivor, name, dir, term, last index, last term, commit, snapshot, entries, chosen or why it is left out;
    member, name, id, peer address, voter or learner, what became of it; then names and values."""
    for each in plan.survivors:
        name = each.identity.node_name if each.identity else None
        log = each.log
        numbers: tuple[object, ...] = (None,) * 6
        if log is not None:
            numbers = (log.term, log.last_index, log.last_term, log.commit_index, log.snapshot_index, log.entries)
        note = "chosen" if each is plan.chosen else None if each.unusable is None else each.unusable.message
        lines.record("survivor", name, each.data_dir, *numbers, note)
    configuration = plan.log.configuration
    for member in sorted(configuration.members, key=lambda member: member.name):
        kind = "voter" if configuration.is_voter(member.id) else "learner"
        lines.record("member", member.name, hex_id(member.id), member.peer_addr, kind, _fate(plan, member))
    for name, value in _outcome(plan):
        lines.record(name, value)


def plan_text(plan: Plan, *, no_color: bool) -> None:
    """For a person, on a bad night: what there is, what may be lost, what would be done."""
    console = data_console(no_color=no_color)
    table = tables.new_table(
        ("", "<"), ("NAME", "<"), ("DATA DIR", "<"), ("TERM", ">"), ("LAST INDEX", ">"), ("LAST TERM", ">"),
        ("COMMITTED", ">"), ("SNAPSHOT", ">"), ("ENTRIES", ">"),
    )  # fmt: skip
    notes: list[str] = []
    for each in plan.survivors:
        name = each.identity.node_name if each.identity else "?"
        log = each.log
        if log is None:
            assert each.unusable is not None
            table.add_row("!", name, each.data_dir, *"------", style="bold red")
            notes.append(f"! {name} is left out: {each.unusable.message}")
            notes.append("  Whether it had more than the others cannot be told.")
            continue
        is_chosen = each is plan.chosen
        numbers = (log.term, log.last_index, log.last_term, log.commit_index, log.snapshot_index, log.entries)
        table.add_row("*" if is_chosen else "", name, each.data_dir, *map(str, numbers), style=_bold(is_chosen))
        if log.torn is not None:
            notes.append(f"~ {name}: a torn tail of {plural(log.torn.bytes_cut, 'byte')} that no one was told of")
        if each.removed:
            notes.append(f"~ {name} had been removed from its cluster: it was not told what the others did since")
        notes += [f"~ {name}: passed over a damaged snapshot, {path}" for path in log.damaged_snapshots]
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)
    console.print()
    console.print(tables.fields(_outcome(plan)))


def _bold(on: bool) -> str:
    return "bold" if on else ""


def _outcome(plan: Plan) -> list[tuple[str, str]]:
    """Names and values: what is known of the old cluster, and what becomes of it."""
    assert plan.chosen.identity is not None
    configuration, new = plan.log.configuration, plan.member
    fates = [
        f"{member.name} {'(learner) ' if not configuration.is_voter(member.id) else ''}{_fate(plan, member)}"
        for member in sorted(configuration.members, key=lambda member: member.name)
    ]
    gone = [
        member.name
        for member in sorted(configuration.members, key=lambda member: member.name)
        if configuration.is_voter(member.id) and member.id not in plan.usable
    ]
    if plan.is_quorum:
        lost = "nothing, but the survivors are a quorum: they can go on by themselves, and should"
    elif plan.is_complete:
        lost = "nothing that was acknowledged: those who are gone were no quorum by themselves"
    else:
        lost = f"acknowledged writes that only {_and(gone)} had; whether there are any cannot be known"
    kept = "nothing"
    if plan.uncommitted:
        kept = (
            f"{plural(plan.uncommitted, 'entry').replace('entrys', 'entries')} after {plan.commit_index}, not known to "
            "be committed: kept, for they may have been acknowledged; they may also hold writes that never were"
        )
    where = f"{plan.data_dir}, every directory above stays as it is"
    if plan.archive is not None:
        where = f"{plan.data_dir}; what is there now moves to {plan.archive}, nothing is removed"
    return [
        ("old_cluster", hex_id(plan.chosen.identity.cluster_id)),
        ("its_members", ", ".join(fates)),
        ("has_the_most", f"{plan.chosen.identity.node_name}, {plan.chosen.data_dir}"),
        ("state", f"{plural(plan.keys, 'key')} at revision {plan.old_revision}, index {plan.log.last_index}"),
        ("may_be_lost", lost),
        ("may_be_too_much", kept),
        ("new_cluster", f"{new.name} alone, for clients at {new.client_addr}, for peers at {new.peer_addr}"),
        ("revisions", f"go on above {plan.revision}"),
        ("sessions", "are forgotten: a client that tries again is told so, nothing is executed twice"),
        ("written_to", where),
    ]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def done_text(plan: Plan, *, table: bool, no_color: bool) -> None:
    pairs = {"cluster_id": hex_id(plan.member.cluster_id), "data_dir": plan.data_dir}
    if plan.archive is not None:
        pairs["old_data"] = plan.archive
    storage.pairs(pairs, table=table, no_color=no_color)


def finished_document(finished: Finished) -> dict[str, Any]:
    identity = finished.identity
    return {
        "done": True,
        "finished": True,
        "result": {
            "data_dir": finished.data_dir,
            "old_data_moves_to": finished.archive,
            "cluster_id": hex_id(identity.cluster_id),
            "name": identity.node_name,
            "client_addr": identity.client_addr,
            "peer_addr": identity.peer_addr,
        },
    }


def finished_text(finished: Finished, *, table: bool, no_color: bool) -> None:
    pairs = {
        "finished": "a recovery that was cut short while it changed over",
        "cluster_id": hex_id(finished.identity.cluster_id),
        "data_dir": finished.data_dir,
        "old_data": finished.archive,
    }
    storage.pairs(pairs, table=table, no_color=no_color)
