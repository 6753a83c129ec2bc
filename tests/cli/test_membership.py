"""add-server and its like: what is asked of the client, what is printed, and how progress is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_fixtures import node, report

from lattice_cli.render.membership import CatchUpLine
from lattice_core.client import ClusterStatus, MembershipChanged, QuorumReport
from lattice_core.errors import Unavailable

BEFORE = QuorumReport(("n1", "n2", "n3"), (), 2, 1, 3)
AFTER = QuorumReport(("n1", "n2", "n3", "n4"), (), 3, 1, 3)
FIELDS = {"name", "id", "peer_addr", "member", "voter", "promotes", "replaces", "index", "dry_run", "before", "after"}


def changed(**values: Any) -> MembershipChanged:
    defaults: dict[str, Any] = {
        "name": "n4", "id": 4, "peer_addr": "h:4", "index": 7, "member": True, "voter": False, "promotes": True,
        "replaces": None, "before": BEFORE, "after": AFTER, "dry_run": False,
    }  # fmt: skip
    return MembershipChanged(**{**defaults, **values})


def status(*, voter: bool, joint: bool = False, there: bool = True) -> ClusterStatus:
    members = [report(node("n1"), "n1")]
    if there:
        members.append(report(node("n4", "follower" if voter else "learner"), "n4", voter=voter, learner=not voter))
    return ClusterStatus(1, 1, 3, tuple(members), joint=joint)


@pytest.fixture
def asked(client: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The statuses that the client will tell, first to last; an exception among them is raised."""
    from lattice_cli.commands import membership

    monkeypatch.setattr(membership, "POLL_SECONDS", 0.0)
    told: list[Any] = []

    def cluster_status() -> ClusterStatus:
        found = told.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    client.cluster_status = cluster_status
    return told


def only_call(client: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    (call,) = [call for call in client.calls if call[0] != "client"]
    return call


def test_add_server_waits_until_the_new_member_votes(client: Any, lattice: Any, asked: list[Any]) -> None:
    client.changed = changed()
    asked += [status(voter=False), Unavailable("an election"), status(voter=True, joint=True), status(voter=True)]
    code, out, err = lattice("cluster", "add-server", "n4", "h:4", "-o", "json")
    document = json.loads(out)
    assert (code, err, asked) == (0, "", [])
    assert document.keys() == FIELDS
    assert (document["voter"], document["promotes"], document["after"]["quorum"]) == (True, False, 3)
    assert only_call(client) == (
        "add_server", ("n4", "h:4"), {"learner": False, "start_later": False, "dry_run": False},
    )  # fmt: skip


@pytest.mark.parametrize("option", ["--no-wait", "--learner", "--start-later", "--dry-run"])
def test_add_server_does_not_wait_for_what_will_not_come(
    client: Any, lattice: Any, asked: list[Any], option: str
) -> None:
    client.changed = changed(promotes=option != "--learner", dry_run=option == "--dry-run")
    code, out, err = lattice("cluster", "add-server", "n4", "h:4", option)
    assert (code, bool(out)) == (0, True)
    assert ("next: lattice start --name n4" in err) is (option == "--start-later")


def test_add_server_that_waits_in_vain_says_that_it_goes_on(client: Any, lattice: Any, asked: list[Any]) -> None:
    client.changed = changed()
    asked += [status(voter=False)] * 100_000
    code, out, err = lattice("cluster", "add-server", "n4", "h:4", "--wait", "0.05")
    assert (code, out) == (0, "n4\t0000000000000004\tlearner\th:4\t7\n")
    assert err == "n4 has not caught up after 0.05 s; it goes on in the background: lattice cluster status\n"


def test_add_server_notices_that_the_new_member_was_removed_meanwhile(
    client: Any, lattice: Any, asked: list[Any]
) -> None:
    client.changed = changed()
    asked += [status(voter=False), status(voter=False, there=False)]
    code, out, err = lattice("cluster", "add-server", "n4", "h:4")
    assert (code, out) == (4, "")
    assert "n4 was removed before it had caught up" in err


def test_replace_server_waits_too(client: Any, lattice: Any, asked: list[Any]) -> None:
    client.changed = changed(replaces="n2")
    asked += [status(voter=True)]
    code, out, _ = lattice("cluster", "replace-server", "n2", "n4", "h:4", "-o", "table")
    assert (code, out) == (0, "n4 votes: 4 voters (n1, n2, n3, n4), 3 decide, 1 may fail\n")
    assert only_call(client)[:2] == ("replace_server", ("n2", "n4", "h:4"))


def test_remove_server_says_what_is_left(client: Any, lattice: Any) -> None:
    client.changed = changed(name="n4", member=False, promotes=False, after=BEFORE)
    code, out, _ = lattice("cluster", "remove-server", "n4", "--force", "-o", "table")
    assert (code, out) == (0, "n4 was removed: 3 voters (n1, n2, n3), 2 decide, 1 may fail\n")
    assert only_call(client) == ("remove_server", ("n4",), {"force": True, "dry_run": False})


def test_promote(client: Any, lattice: Any) -> None:
    client.changed = changed(voter=True, promotes=False)
    assert lattice("cluster", "promote", "n4")[:2] == (0, "n4\t0000000000000004\tvoter\th:4\t7\n")
    assert only_call(client) == ("promote", ("n4",), {"dry_run": False})


def test_a_dry_run_shows_both_quorums_and_then_the_refusal(client: Any, lattice: Any) -> None:
    client.changed = changed(dry_run=True)
    code, out, err = lattice("cluster", "promote", "n4", "--dry-run")
    assert (code, err) == (0, "")
    assert "quorum\t2 of 3\t3 of 4\n" in out
    client.changed = changed(dry_run=True, refused="n4 is 12 entries behind", hint="wait")
    code, out, err = lattice("cluster", "promote", "n4", "--dry-run", "-o", "json")
    assert (code, json.loads(out)["refused"]) == (4, "n4 is 12 entries behind")
    assert err == "error: it would be refused: n4 is 12 entries behind. try: wait\n"


def test_the_progress_line_says_how_far_how_fast_and_how_long() -> None:
    line = CatchUpLine("n4")

    def text(now: float, **values: Any) -> str:
        return line.text(report(node("n4", "learner"), "n4", **values), now)

    assert text(0.0) == "n4 is catching up"
    assert text(0.0, lag=9000) == "n4 is catching up: 9,000 entries behind"
    assert text(1.0, lag=6000) == "n4 is catching up: 6,000 entries behind, 3,000 entries/s, 2 s left"
    mebibyte = 1 << 20
    assert text(2.0, snapshot_bytes=8 * mebibyte, snapshot_sent_bytes=0).endswith(
        "8.0 of 8.0 MiB of a snapshot to come"
    )
    assert text(3.0, snapshot_bytes=8 * mebibyte, snapshot_sent_bytes=4 * mebibyte).endswith("4.0 MiB/s, 1 s left")
    away = line.text(report(None, "n4", unreachable_seconds=3.2), 4.0)
    assert away == "n4 does not answer (for 3 s)"


def test_status_and_members_show_what_is_pending(client: Any, lattice: Any) -> None:
    learner = report(node("n4", "learner"), "n4", voter=False, learner=True, promotes=True, replaces="n2", lag=70)
    pending = "n4 is to replace n2 when it has caught up"
    found = ClusterStatus(1, 1, 3, (report(node("n1"), "n1"), learner), pending=pending)
    client.cluster_status = lambda: found
    for command in ("status", "members"):
        out = lattice("cluster", command, "-o", "table")[1]
        assert "learner, to replace n2" in out
        assert f"pending: {pending}" in out or command == "members"
        document = json.loads(lattice("cluster", command, "-o", "json")[1])
        assert (document["pending"], document["joint"]) == (pending, False)
        assert document["members"][1]["replaces"] == "n2"
