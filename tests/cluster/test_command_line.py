"""The commands of a user against real processes: every member's address serves, and exit codes mean what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from processes import LocalCluster, lattice

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, method="signal")]


def ask(addr: str, *command: str, code: int = 0) -> Any:
    """One command at one address, as JSON; None if it printed nothing."""
    done = lattice("--endpoints", addr, "--timeout", "20", "-o", "json", *command)
    assert done.code == code, (command, done)
    if code:
        done.the_error()
    else:
        assert not done.err, done.err
    return json.loads(done.out) if done.out else None


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
def test_any_members_address_serves_reads_writes_and_the_whole_clusters_status(shared: LocalCluster, name: str) -> None:
    addr = shared[name].client_addr
    key = f"through-{name}"
    revision = ask(addr, "put", key, "one")["revision"]
    swapped = ask(addr, "cas", key, "one", "two")
    assert swapped == {"swapped": True, "revision": revision + 1}
    (found,) = ask(addr, "get", key)["kvs"]
    assert found == {
        "key": key,
        "value": "two",
        "create_revision": revision,
        "mod_revision": revision + 1,
        "version": 2,
        "lease": None,
    }
    assert ask(addr, "delete", key) == {"deleted": 1, "revision": revision + 2}
    status = ask(addr, "cluster", "status")
    assert status["leader"] in shared.nodes
    assert [member["name"] for member in status["members"]] == ["n1", "n2", "n3"]
    for member in status["members"]:
        node = shared[member["name"]]
        assert (member["client_addr"], member["peer_addr"]) == (node.client_addr, node.peer_addr)
        assert member["voter"]
        assert member["reachable"]
        assert member["role"] == ("leader" if member["name"] == status["leader"] else "follower")
        assert {"id", "term", "commit_index", "applied_index", "last_index", "snapshot_index", "version"} <= set(member)
    assert ask(addr, "status")["name"] == name


def test_a_negative_answer_is_exit_code_1_and_changes_nothing(shared: LocalCluster) -> None:
    addr = shared.endpoints
    first = ask(addr, "put", "negative", "one", "--if-absent")
    assert first == {"key": "negative", "revision": first["revision"]}
    assert ask(addr, "put", "negative", "two", "--if-absent", code=1)["stored"] is False
    assert ask(addr, "cas", "negative", "two", "three", code=1) == {"swapped": False, "revision": first["revision"]}
    assert ask(addr, "get", "nothing", code=1) == {"revision": first["revision"], "kvs": []}
    assert ask(addr, "delete", "nothing", code=1) == {"deleted": 0, "revision": first["revision"]}
    for consistency in ("linearizable", "lease"):
        assert ask(addr, "get", "negative", "--consistency", consistency)["kvs"][0]["version"] == 1
    assert (
        ask(addr, "put", "negative", "two", "--if-revision", str(first["revision"]))["revision"]
        == first["revision"] + 1
    )
    old = ask(addr, "get", "negative", "--revision", str(first["revision"]))
    assert old["kvs"][0]["value"] == "one"


def test_values_are_bytes_and_go_through_the_shell_unchanged(shared: LocalCluster) -> None:
    value = bytes(range(256)) + b"\n"
    assert lattice("--endpoints", shared.endpoints, "put", "raw", "-", stdin=value).code == 0
    assert lattice("--endpoints", shared.endpoints, "get", "raw").out == value
    document = ask(shared.endpoints, "get", "raw")
    assert set(document["kvs"][0]["value"]) == {"base64"}


def test_leadership_moves_to_the_member_that_was_named_and_the_old_leader_follows(shared: LocalCluster) -> None:
    leader = shared.leader()
    target = shared.others(leader)[0]
    transfer = ask(shared[target].client_addr, "transfer-leader", target)
    assert (transfer["from"], transfer["to"]) == (leader, target)
    assert transfer["milliseconds"] > 0
    assert ask(shared.endpoints, "transfer-leader", "nobody", code=4) is None
