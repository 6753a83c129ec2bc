"""``-o json``: one document, with the fields that CLI.md promises."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lattice_cli.render.text import hex_id, json_bytes

if TYPE_CHECKING:
    from lattice_core.client import ClusterStatus, KeyValue, MemberReport, NodeStatus, Transfer


def print_document(document: dict[str, Any]) -> None:
    """Indented for a person at a terminal, one line for everybody else."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(document, indent=indent, ensure_ascii=False) + "\n")


def put_document(key: bytes, revision: int, stored: bool = True) -> dict[str, Any]:
    """``stored`` is only there when a condition failed; ``revision`` is then the key's own."""
    document: dict[str, Any] = {"key": json_bytes(key), "revision": revision}
    return document if stored else {**document, "stored": False}


def get_document(kvs: Iterable[KeyValue], revision: int) -> dict[str, Any]:
    return {"revision": revision, "kvs": [key_value_document(kv) for kv in kvs]}


def range_document(
    kvs: Iterable[KeyValue], revision: int, more: bool, count: int, *, keys_only: bool = False
) -> dict[str, Any]:
    """``count`` is that of the whole range; ``more`` says that keys of it were left out."""
    shown = [key_value_document(kv, keys_only=keys_only) for kv in kvs]
    return {"revision": revision, "kvs": shown, "more": more, "count": count}


def key_value_document(kv: KeyValue, *, keys_only: bool = False) -> dict[str, Any]:
    """Without the value where only keys were asked for: it is not empty, but not known."""
    return {
        "key": json_bytes(kv.key),
        **({} if keys_only else {"value": json_bytes(kv.value)}),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": None if kv.lease is None else hex_id(kv.lease),
    }


def node_document(status: NodeStatus) -> dict[str, Any]:
    return {
        "cluster_id": hex_id(status.cluster_id),
        "name": status.name,
        "id": hex_id(status.node_id),
        "client_addr": status.client_addr,
        "peer_addr": status.peer_addr,
        "role": status.role,
        "voter": status.voter,
        "leader_id": None if status.leader_id is None else hex_id(status.leader_id),
        "term": status.term,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "last_index": status.last_index,
        "snapshot_index": status.snapshot_index,
        "revision": status.revision,
        "keys": status.keys,
        "sessions": status.sessions,
        "log_bytes": status.log_bytes,
        "state_hash": hex_id(status.state_hash),
        "uptime_seconds": round(status.uptime_seconds, 3),
        "version": status.version,
    }


def cluster_document(status: ClusterStatus) -> dict[str, Any]:
    leader = status.leader
    return {
        "cluster_id": hex_id(status.cluster_id),
        "leader": None if leader is None else leader.name,
        "term": status.term,
        "joint": status.joint,
        "pending": status.pending,
        "members": [_member_document(member) for member in status.members],
    }


def _member_document(member: MemberReport) -> dict[str, Any]:
    status = member.status
    return {
        "name": member.name,
        "id": hex_id(member.id),
        "client_addr": member.client_addr,
        "peer_addr": member.peer_addr,
        "role": None if status is None else status.role,
        "voter": member.voter,
        "reachable": member.reachable,
        "term": None if status is None else status.term,
        "commit_index": None if status is None else status.commit_index,
        "applied_index": None if status is None else status.applied_index,
        "last_index": None if status is None else status.last_index,
        "snapshot_index": None if status is None else status.snapshot_index,
        "version": None if status is None else status.version,
        "unreachable_seconds": member.unreachable_seconds,
        "lag": member.lag,
        **_promotion(member),
    }


def _promotion(member: MemberReport) -> dict[str, Any]:
    return {"learner": member.learner, "promotes": member.promotes, "replaces": member.replaces}


def members_document(status: ClusterStatus) -> dict[str, Any]:
    return {
        "cluster_id": hex_id(status.cluster_id),
        "joint": status.joint,
        "pending": status.pending,
        "members": [
            {
                "name": member.name,
                "id": hex_id(member.id),
                "client_addr": member.client_addr,
                "peer_addr": member.peer_addr,
                "voter": member.voter,
                **_promotion(member),
            }
            for member in status.members
        ],
    }


def transfer_document(transfer: Transfer) -> dict[str, Any]:
    return {
        "from": transfer.old_leader,
        "to": transfer.new_leader,
        "term": transfer.term,
        "milliseconds": round(transfer.milliseconds, 3),
    }
