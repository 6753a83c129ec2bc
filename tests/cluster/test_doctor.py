"""``lattice doctor`` beside real members: well, with one killed, and with all of them gone."""

from __future__ import annotations

import json

import pytest
from processes import LocalCluster, lattice

pytestmark = pytest.mark.cluster


def findings(out: bytes) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for each in json.loads(out)["findings"]:
        found.setdefault(each["check"], []).append(each)
    return found


def test_doctor_sees_a_member_fall_and_says_what_to_do(cluster: LocalCluster) -> None:
    endpoints = ("--endpoints", cluster.endpoints)
    done = lattice("doctor", *endpoints, "-o", "json", "--data-dir", str(cluster["n1"].data_dir))
    document = json.loads(done.out)
    # A busy machine has slow fsyncs; that is worth a warning, and no failure of this test.
    assert [each for each in document["findings"] if each["severity"] == "problem"] == []
    assert (done.code == 0) == document["healthy"]
    assert done.err == ""
    assert {"members", "quorum", "clocks", "disk space", "fsync", "round trips", "timeouts", "data directory"} <= (
        findings(done.out).keys()
    )
    for member in document["members"]:
        assert member["round_trip_ms"] > 0
        assert abs(member["clock_offset_ms"]) <= member["clock_error_ms"] + 1.0, "it is this machine's own clock"
        assert (member["heartbeat_ms"], member["election_timeout_min_ms"]) == (100, 500)
        assert member["open_descriptors"] < member["descriptor_limit"]

    cluster.kill(cluster.leader())
    done = lattice("doctor", *endpoints, "-o", "json")
    assert done.code == 1
    found = findings(done.out)
    assert found["members"][0]["severity"] == "problem"
    assert "lattice cluster replace-server" in str(found["members"][0]["remedy"])
    assert found["quorum"][0]["severity"] == "problem"

    cluster.kill(*(node.name for node in cluster.awake()))
    done = lattice("doctor", *endpoints, "--timeout", "2")
    assert done.code == 3
    assert done.out.count(b"problem\tendpoints\t") == 3
    assert done.the_error().startswith("error: doctor: no member could be reached")
