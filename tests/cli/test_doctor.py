"""Doctor: what it makes of what it sees, and that each finding that needs somebody says what to do."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import node, report

from lattice_cli import cert_files
from lattice_cli.doctor import gather
from lattice_cli.doctor.checks import diagnose
from lattice_cli.doctor.observed import ACTION, DiskMeasured, Finding, Observation
from lattice_cli.render import doctor as view
from lattice_core.client import (
    CertificateDetails,
    ClusterStatus,
    Examined,
    NodeCounters,
    NodeDetails,
    NodeStatus,
    PeerProgress,
)
from lattice_core.histogram import LATENCY_BOUNDS_SECONDS, Histogram, HistogramReading

CLUSTER = 0xF8721FD7386F22D0


def latencies(seconds: float, count: int = 1000) -> HistogramReading:
    histogram = Histogram(LATENCY_BOUNDS_SECONDS)
    for _ in range(count):
        histogram.note(seconds)
    return histogram.read()


def counters(**changes: Any) -> NodeCounters:
    quiet = latencies(0.001, 0)
    values: dict[str, Any] = {
        **dict.fromkeys(
            ("elections_started", "leader_changes", "write_operations", "write_batches_failed", "linearizable_reads",
             "lease_reads", "stale_reads", "read_batches_failed", "held_up", "pending_write_bytes"), 0,
        ),
        "fsync": latencies(0.001), "write_batches": quiet, "read_batches": quiet, "fsync_stalled_seconds": 0.0,
        "disk_full": False, "disk_free_bytes": 50 << 30, "memory_bytes": 1 << 26, "cpu_seconds": 1.0, "not_ready": "",
    }  # fmt: skip
    return NodeCounters(**{**values, **changes})


def details(**changes: Any) -> NodeDetails:
    values: dict[str, Any] = {
        "wall_clock_seconds": 1e9, "heartbeat_ms": 100, "election_timeout_min_ms": 500,
        "election_timeout_max_ms": 1000, "open_descriptors": 60, "descriptor_limit": 65536, "disk_bytes": 100 << 30,
        "data_dir": "/d", "snapshot_age_seconds": 90.0, "snapshot_bytes": 1 << 20, "snapshots_failed": 0,
    }  # fmt: skip
    return NodeDetails(**{**values, **changes})


def member(name: str, **changes: Any) -> NodeStatus:
    """A healthy member of three; n1 leads."""
    role = "leader" if name == "n1" else "follower"
    progress = tuple(
        PeerProgress(number, "replicate", 5001, 0.05, latencies(0.001), 0) for number in (2, 3) if name == "n1"
    )
    values: dict[str, Any] = {"counters": counters(), "details": details(), "progress": progress}
    return node(name, role, **{"uptime_seconds": 7200.0, **values, **changes})


def healthy() -> Observation:
    return seen(member("n1"), member("n2"), member("n3"))


def seen(*nodes: NodeStatus) -> Observation:
    examined = {each.node_id: Examined(each.client_addr, each, None, (0.002,), 0.0, 0.001) for each in nodes}
    reports = tuple(
        report(each, each.name, voter=each.voter, learner=not each.voter, client_addr=each.client_addr)
        for each in nodes
    )
    leader = next((each.node_id for each in nodes if each.role == "leader"), None)
    return Observation(tuple(examined.values()), ClusterStatus(CLUSTER, leader, 3, reports), None, examined)


def with_n3(**changes: Any) -> Observation:
    return seen(member("n1"), member("n2"), member("n3", **changes))


def away(observation: Observation, *names: str) -> Observation:
    """The same with these members gone."""
    cluster = observation.cluster
    assert cluster is not None
    reports = tuple(report(None, each.name, unreachable_seconds=9.0) if each.name in names else each
                    for each in cluster.members)  # fmt: skip
    members = {
        each.id: Examined(each.client_addr, None, "connection refused") if each.name in names else
        observation.members[each.id] for each in reports
    }  # fmt: skip
    return dataclasses.replace(
        observation, cluster=dataclasses.replace(cluster, members=reports), members=members,
        endpoints=tuple(members.values()),
    )  # fmt: skip


def test_a_healthy_cluster_has_no_finding_that_needs_anybody() -> None:
    findings = diagnose(healthy())
    assert {each.severity for each in findings} == {"ok"}
    assert {each.check for each in findings} == {
        "endpoints", "members", "quorum", "leader", "voters", "lag", "state", "versions", "clocks", "disk space",
        "fsync", "descriptors", "snapshots", "round trips", "timeouts",
    }  # fmt: skip


def _offset(seconds: float) -> Observation:
    observation = healthy()
    members = {**observation.members, 3: dataclasses.replace(observation.members[3], clock_offset_seconds=seconds)}
    return dataclasses.replace(observation, members=members)


def _two_clusters() -> Observation:
    observation = healthy()
    stranger = Examined("h:9", member("n9", cluster_id=7), None, (0.002,), 0.0, 0.001)
    return dataclasses.replace(observation, endpoints=(*observation.endpoints, stranger))


def _somebody_else_at_its_address() -> Observation:
    observation = healthy()
    return dataclasses.replace(observation, members={**observation.members, 3: observation.members[2]})


def _not_from_here() -> Observation:
    observation = healthy()
    return dataclasses.replace(observation, members={**observation.members, 3: Examined("h:3", None, "no answer")})


def certificate(left_days: float, life_days: float = 365, port: str = "client") -> CertificateDetails:
    """By the clock of :func:`details`, a member's."""
    ends = 1e9 + left_days * 86_400
    return CertificateDetails(port, "/etc/n3.pem", ends - life_days * 86_400, ends)


def _with_certificates(*certificates: CertificateDetails) -> Observation:
    return with_n3(details=details(certificates=certificates))


def _even() -> Observation:
    return seen(*(member(f"n{number}") for number in range(1, 5)))


def _slow_leader_rounds(seconds: float) -> Observation:
    progress = (PeerProgress(2, "replicate", 5001, 0.05, latencies(seconds), 0),)
    return seen(member("n1", progress=progress), member("n2"), member("n3"))


@pytest.mark.parametrize(
    ("make", "severity", "check", "says"),
    [
        (lambda: away(healthy(), "n3"), "problem", "members", "voter, unreachable for 9 s"),
        (lambda: away(healthy(), "n3"), "problem", "quorum", "just enough: the next failure stops all writes"),
        (lambda: away(healthy(), "n2", "n3"), "problem", "quorum", "1 of 3 voters answer, 2 have to: nothing can"),
        (_two_clusters, "problem", "cluster id", "the endpoints belong to 2 clusters"),
        (_somebody_else_at_its_address, "problem", "members", "at its client address 127.0.0.1:7403 answers n2"),
        (_not_from_here, "warning", "members", "other members reach it, clients here do not"),
        (lambda: seen(member("n2"), member("n3", term=4), member("n5")), "problem", "leader", "nobody leads"),
        (_even, "warning", "voters", "4 voters tolerate 1 failure, as 3 would"),
        (lambda: _with_certificates(certificate(29.5)), "warning", "certificates", "ends on 2001-10-08, in 29 days"),
        (lambda: _with_certificates(certificate(2.9)), "problem", "certificates", "ends on 2001-09-11, in 2 days"),
        (lambda: _with_certificates(certificate(-1)), "problem", "certificates", "has expired, on 2001-09-08"),
        (lambda: _with_certificates(certificate(2.2, 7)), "warning", "certificates", "in 2 days"),
        (lambda: _with_certificates(certificate(0.6, 7)), "problem", "certificates", "within a day"),
        (lambda: with_n3(version="0.0.9"), "warning", "versions", "0.0.9: n3; 0.1.0: n1, n2"),
        (lambda: with_n3(applied_index=1200), "warning", "lag", "3,800 behind"),
        (lambda: with_n3(state_hash=6), "problem", "state", "hold different states"),
        (lambda: _offset(90.0), "warning", "clocks", "n3 is 90.0 s ahead of n1"),
        (lambda: with_n3(counters=counters(not_ready="no leader is known")), "problem", "readiness", "no leader"),
        (lambda: with_n3(counters=counters(disk_full=True)), "problem", "disk space", "its disk is full"),
        (lambda: with_n3(counters=counters(disk_free_bytes=90 << 20)), "problem", "disk space", "may not fit"),
        (lambda: with_n3(counters=counters(disk_free_bytes=900 << 20)), "warning", "disk space", "900 MiB of 100 GiB"),
        (lambda: with_n3(counters=counters(fsync_stalled_seconds=9.0)), "problem", "fsync", "under way for 9 s"),
        (lambda: with_n3(counters=counters(fsync=latencies(0.15))), "warning", "fsync", "99 % within 199 ms"),
        (lambda: with_n3(counters=counters(fsync=latencies(0.15))), "warning", "timeouts", "fewer than ten fit"),
        (lambda: with_n3(counters=counters(held_up=100)), "warning", "process", "100 times in 2.0 h"),
        (lambda: with_n3(counters=counters(elections_started=100)), "warning", "elections", "100 elections in 2.0 h"),
        (lambda: with_n3(details=details(open_descriptors=50_000)), "warning", "descriptors", "50,000 of 65,536"),
        (lambda: with_n3(details=details(descriptor_limit=1024)), "note", "descriptors", "about 924 clients"),
        (lambda: with_n3(details=details(snapshots_failed=2)), "warning", "snapshots", "2 could not be written"),
        (lambda: with_n3(log_bytes=1 << 30), "warning", "snapshots", "grown to 1 GiB without one"),
        (lambda: with_n3(details=details(election_timeout_min_ms=600)), "warning", "timeouts", "have different ones"),
        (lambda: _slow_leader_rounds(0.15), "warning", "round trips", "half within"),
        (lambda: _slow_leader_rounds(0.15), "warning", "timeouts", "a heartbeat every 100 ms, and a round trip may"),
        (lambda: seen(member("n1")), "note", "voters", "one voter: if it is away, so is the data"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_has_a_remedy(
    make: Callable[[], Observation], severity: str, check: str, says: str
) -> None:
    findings = diagnose(make())
    found = [each for each in findings if each.check == check and says in each.text]
    assert [each.severity for each in found] == [severity], [each.text for each in findings if each.severity != "ok"]
    assert found[0].remedy


def test_an_election_at_the_start_and_one_by_a_hand_over_are_no_reason_to_warn() -> None:
    quiet = with_n3(uptime_seconds=400.0, counters=counters(elections_started=2, held_up=1))
    assert {each.severity for each in diagnose(quiet)} == {"ok"}
    unrest = with_n3(uptime_seconds=400.0, counters=counters(elections_started=4))
    assert "elections" in {each.check for each in diagnose(unrest) if each.severity == "warning"}


def test_how_many_failures_are_tolerated_is_judged_by_who_answers() -> None:
    def voters(observation: Observation) -> list[str]:
        return [each.text for each in diagnose(observation) if each.check == "voters"]

    five = seen(*(member(f"n{number}") for number in range(1, 6)))
    assert voters(five) == ["5 voters tolerate 2 failures"]
    assert voters(away(five, "n5")) == ["the 4 of 5 voters that answer tolerate 1 more failure"]
    assert voters(away(healthy(), "n3")) == []
    assert voters(away(healthy(), "n2", "n3")) == [], "the quorum is gone: that is what there is to say"


def test_timeouts_that_no_heartbeat_fits_into_are_found_even_before_anything_was_measured() -> None:
    tight = details(heartbeat_ms=250)
    findings = diagnose(seen(*(member(name, details=tight, progress=()) for name in ("n1", "n2", "n3"))))
    assert any("two that are lost are one too many" in each.text for each in findings)


@pytest.mark.parametrize(("left", "life"), [(31, 365), (3, 7), (0.5, 1)])
def test_a_certificate_that_lives_long_enough_is_fine_and_the_first_to_end_is_named(left: float, life: float) -> None:
    findings = diagnose(_with_certificates(certificate(400, 500), certificate(left, life, "peer")))
    assert {each.severity for each in findings} == {"ok"}
    (found,) = [each for each in findings if each.check == "certificates"]
    assert f"{left} days" in found.text or "within a day" in found.text


def test_a_certificate_that_serves_both_ports_is_told_of_once() -> None:
    findings = diagnose(_with_certificates(certificate(2), certificate(2, port="peer")))
    (found,) = [each for each in findings if each.check == "certificates"]
    assert "/etc/n3.pem, of its client and peer ports," in found.text
    assert (found.members, found.severity) == (("n3",), "problem")
    assert found.remedy is not None
    assert found.remedy.startswith("lattice certs node n3 --replace")


def test_one_s_own_certificate_is_looked_at_also_when_nobody_answers(tmp_path: Path) -> None:
    cert_files.make_authority(tmp_path, 30)
    made = cert_files.make_client(tmp_path, "alice", 10)
    own = gather.own_certificate(str(made.certificate))
    assert (own.path, own.not_after_seconds) == (str(made.certificate), made.description.not_after.timestamp())
    expired = Observation((), own_certificate=own, now_seconds=own.not_after_seconds + 1)
    (found,) = diagnose(expired)
    assert (found.severity, found.members) == ("problem", ())
    assert "which is shown from here, has expired" in found.text
    assert [each.severity for each in diagnose(dataclasses.replace(expired, now_seconds=time.time()))] == ["ok"]


def test_what_several_members_share_is_said_once() -> None:
    few = details(descriptor_limit=1024)
    findings = diagnose(seen(*(member(name, details=few) for name in ("n1", "n2", "n3"))))
    assert [each.members for each in findings if each.check == "descriptors"] == [("n1", "n2", "n3")]


def test_everything_that_needs_somebody_says_what_to_do() -> None:
    broken = counters(disk_full=True, held_up=99, elections_started=99, fsync_stalled_seconds=9.0, not_ready="why")
    observation = away(seen(member("n1", counters=broken), member("n2"), member("n3"), member("n4")), "n2", "n3", "n4")
    findings = diagnose(observation)
    assert sum(each.severity in ACTION for each in findings) >= 6
    assert all(each.remedy for each in findings if each.severity in ACTION)


def test_a_directory_is_tried_out_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MAX_WRITES", 5)
    measured = gather.measure_disk(str(tmp_path))
    assert (len(measured.fsyncs), measured.error, measured.identity) == (5, None, None)
    assert measured.total_bytes >= measured.free_bytes > 0
    assert list(tmp_path.iterdir()) == []
    missing = gather.measure_disk(str(tmp_path / "none"))
    assert missing.error == "No such file or directory"
    assert [each.severity for each in diagnose(Observation((), disk=missing))] == ["problem"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"filesystem": "tmpfs"}, "tmpfs: it is memory"),
        ({"filesystem": "nfs4"}, "nfs4: a disk of somebody else's"),
        ({"owner_only": False}, "others than its owner may look into it"),
        ({"fsyncs": (0.2,) * 50}, "99 % within 200 ms, of 50 writes"),
        ({"free_bytes": 1 << 20}, "may not fit"),
    ],
)
def test_a_directory_that_is_not_fit_for_data_is_said_to_be(changes: dict[str, Any], says: str) -> None:
    fine = DiskMeasured("/d", (0.001,) * 50, 4096, 50 << 30, 99 << 30, "ext4", True, None, ("n1", CLUSTER))
    assert {each.severity for each in diagnose(Observation((), disk=fine))} == {"ok"}
    findings = diagnose(Observation((), disk=dataclasses.replace(fine, **changes)))
    assert any(says in each.text and each.remedy and each.severity in ACTION for each in findings)


def test_nobody_there_is_exit_code_3_with_what_can_be_said_offline(lattice: Any, tmp_path: Path) -> None:
    code, out, err = lattice("doctor", "--endpoints", "127.0.0.1:1", "--timeout", "1", "--data-dir", str(tmp_path))
    assert code == 3
    assert "problem\tendpoints\t-\t127.0.0.1:1: connection refused\t" in out
    assert "fsync" in out
    assert err.startswith("error: doctor: no member could be reached at 127.0.0.1:1 (--endpoints). try: lattice start")
    assert err.count("\n") == 1


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_report_fits_the_terminal_and_needs_no_colour(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    view.show(diagnose(away(healthy(), "n3")), no_color=True)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    assert "! problem" in out
    assert "-> start it with the same command" in " ".join(out.split())
    assert "2 problems (!), 0 warnings (~): see to these." in " ".join(out.split())


def test_the_document_has_findings_and_measurements(capsys: pytest.CaptureFixture[str]) -> None:
    observation = healthy()
    document = json.loads(json.dumps(view.document(observation, diagnose(observation))))
    assert (document["healthy"], document["cluster_id"]) == (True, f"{CLUSTER:016x}")
    assert document["findings"][0].keys() == {"severity", "check", "members", "text", "remedy"}
    assert document["members"][2]["name"] == "n3"
    assert document["members"][2]["round_trip_ms"] == 2.0
    secured = _with_certificates(certificate(2))
    (told,) = view.document(secured, diagnose(secured))["members"][2]["certificates"]
    assert told == {"port": "client", "path": "/etc/n3.pem", "seconds_left": 172_800}
    bad = view.document(away(observation, "n3"), diagnose(away(observation, "n3")))
    assert bad["healthy"] is False
    assert bad["members"][2] == {"name": "n3", "reachable": False}


def test_a_finding_is_one_line_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    view.write_lines([Finding("note", "voters", "one", "more", ("n1", "n2")), Finding("ok", "lag", "none")])
    assert capsys.readouterr().out == "note\tvoters\tn1,n2\tone\tmore\nok\tlag\t-\tnone\t-\n"
