"""A short fixed set of what ``make torture`` does for an hour: real processes, all workloads, faults of every sort."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from torture_runs import chaos

from lattice_cli.chaos import syscalls
from lattice_cli.chaos.nodes import ChaosCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240, method="signal")]

PROCESSES = "kill,pause,isolate,one-way,rejoin"
DISKS = "fsync-error,kill-in-fsync,slow-disk,disk-full"
FILES = "bit-flip,truncate,power,power-all"


def test_killed_stopped_and_isolated_members_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    report = chaos("--seed", "1", "--seconds", "10", "--faults", PROCESSES, directory=tmp_path)
    expect_good(report)
    assert set(report["faults"]) & {"kill", "pause", "isolate"}


def test_failing_full_and_slow_disks_lose_nothing(tmp_path: Path) -> None:
    """SAFETY 18, 19: by system calls that are made to fail."""
    reason = asyncio.run(syscalls.why_not())
    if reason is not None:
        pytest.skip(reason)
    report = chaos("--seed", "2", "--seconds", "8", "--faults", DISKS, directory=tmp_path)
    expect_good(report)


def test_damaged_files_are_refused_or_served_right_and_lost_unsynced_writes_lose_nothing(tmp_path: Path) -> None:
    """SAFETY 17, 24, 31. With mutual TLS everywhere, so that members that come back do it under TLS, too."""
    report = chaos("--tls", "--seed", "11", "--seconds", "8", "--faults", FILES, directory=tmp_path)
    expect_good(report)
    assert set(report["faults"]) & {"bit-flip", "truncate"}
    assert set(report["faults"]) & {"power", "power-all"}


def test_with_tls_every_start_has_the_certificates_also_that_of_a_member_that_begins_anew(tmp_path: Path) -> None:
    cluster = ChaosCluster(3, parent_dir=tmp_path, tls=True)
    arguments = cluster.nodes["n2"].arguments
    options = ("--tls-cert", "--tls-key", "--tls-client-ca", "--tls-ca")
    options += ("--peer-tls-cert", "--peer-tls-key", "--peer-tls-ca")
    files = {option: arguments[arguments.index(option) + 1] for option in options}
    assert all(Path(file).is_file() for file in files.values())
    cluster.begin_anew("n2")
    arguments = cluster.nodes["n2"].arguments
    assert "--join" in arguments
    assert {option: arguments[arguments.index(option) + 1] for option in options} == files
    assert not {*options} & {*ChaosCluster(3, parent_dir=tmp_path).nodes["n2"].arguments}


def expect_good(report: dict[str, Any]) -> None:
    assert report["verdict"] == "good", json.dumps(report, indent=1)
    assert report["operations_checked"] > 100
    assert report["workloads"] == ["register", "set", "list", "bank", "counter"]
