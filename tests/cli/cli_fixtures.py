"""Members as a client reports them, for tests of rendering."""

from __future__ import annotations

from typing import Any

from lattice_core.client import Attempt, Explained, MemberReport, NodeStatus, Step


def node(name: str = "n1", role: str = "leader", **changes: Any) -> NodeStatus:
    values: dict[str, Any] = {
        "cluster_id": 0xF8721FD7386F22D0,
        "node_id": int(name[1:]),
        "name": name,
        "client_addr": f"127.0.0.1:740{name[1:]}",
        "peer_addr": f"127.0.0.1:750{name[1:]}",
        "role": role,
        "voter": True,
        "term": 3,
        "leader_id": 1,
        "commit_index": 5000,
        "applied_index": 5000,
        "last_index": 5001,
        "snapshot_index": 4000,
        "version": "0.1.0",
        "revision": 77,
        "state_hash": 5,
        "keys": 2,
        "sessions": 1,
        "log_bytes": 1 << 24,
        "uptime_seconds": 12.5,
    }
    return NodeStatus(**{**values, **changes})


def report(status: NodeStatus | None, name: str = "n1", **changes: Any) -> MemberReport:
    number = name[1:]
    values: dict[str, Any] = {
        "id": int(number),
        "name": name,
        "peer_addr": f"127.0.0.1:750{number}",
        "client_addr": f"127.0.0.1:740{number}",
        "voter": True,
        "learner": False,
        "reachable": status is not None,
        "unreachable_seconds": None,
        "status": status,
    }
    return MemberReport(**{**values, **changes})


def explained() -> Explained:
    """A put that first went to a follower; another follower was slower than the majority."""
    steps = (
        Step("queue", "n1", 0.0, 0.0001),
        Step("fsync", "n1", 0.0001, 0.003),
        Step("follower", "n2", 0.0001, 0.002),
        Step("follower", "n3", 0.0001, None),
        Step("quorum", "n1", 0.0001, 0.003),
        Step("apply", "n1", 0.003, 0.0032),
        Step("answer", "n1", 0.0032, 0.0033),
    )
    vain = Attempt("127.0.0.1:7402", 0.004, "n2 does not lead")
    return Explained("n1", "leader", "127.0.0.1:7401", (vain,), 0.002, 0.0043, 0.0033, steps, 42, 3)
