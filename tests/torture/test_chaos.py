"""A short fixed set of what ``make torture`` does for an hour: real processes, all workloads, faults of every sort."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from torture_runs import ROOT, chaos, command, environment

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


@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupted_run_judges_nothing_and_leaves_nothing_but_what_was_to_be_kept(
    tmp_path: Path, keep: bool
) -> None:
    """Ctrl-C reaches the whole process group of the terminal, while a fault has a node on its way up."""
    # Whoever runs the tests in the background of a shell has SIGINT ignored, and a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    words = ["--seed", "3", "--seconds", "30", "--faults", "bit-flip,truncate", *["--keep"] * keep]
    run = subprocess.Popen(
        command(*words, directory=tmp_path), cwd=ROOT, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    assert run.stderr is not None
    try:
        while not re.search("  (bit-flip|truncate): n", line := run.stderr.readline()):
            assert line, "it ended by itself"
        os.killpg(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=60)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
    assert "VIOLATION" not in err
    assert (run.returncode, out) == (130, ""), err
    last = err.splitlines()[-1]
    left = [str(path) for path in tmp_path.iterdir()]
    if keep:
        assert last == f"interrupted: nothing was judged; what it left is in {left[0]}"
    else:
        assert last == "interrupted: nothing was judged"
        assert left == []


def test_what_a_node_said_of_its_end_is_an_error_of_its_present_life_or_nothing(tmp_path: Path) -> None:
    cluster = ChaosCluster(3, parent_dir=tmp_path)
    log = cluster.nodes["n1"].log_path
    info = "2026-01-01T00:00:00.000Z INFO    n1 run: metrics: http://127.0.0.1:1/metrics\n"
    error = "2026-01-01T00:00:00.000Z ERROR   n1 storage: fdatasync failed (EIO)\n"
    advice = "2026-01-01T00:00:00.000Z ERROR   n1 run: what to do: look at the disk\n"
    for said, quoted in (
        ("", "it gave no reason"),
        (info, "it gave no reason"),
        ("ready name=n1 client=127.0.0.1:1 peer=127.0.0.1:2\n" + info, "it gave no reason"),
        (f"{info}{error}{info}", error.strip()),
        (f"{error}{advice}", error.strip()),
        (f"{error}error: d/wal/1 is damaged. try: --reseed\n{info}", "error: d/wal/1 is damaged. try: --reseed"),
        ("No module named lattice_cli\n", "No module named lattice_cli"),
    ):
        log.write_text(said)
        assert cluster.last_words("n1") == quoted
    log.write_text("error: of a former life\n")
    cluster._life_began["n1"] = log.stat().st_size
    assert cluster.last_words("n1") == "it gave no reason"


def expect_good(report: dict[str, Any]) -> None:
    assert report["verdict"] == "good", json.dumps(report, indent=1)
    assert report["operations_checked"] > 100
    assert report["workloads"] == ["register", "set", "list", "bank", "counter"]
