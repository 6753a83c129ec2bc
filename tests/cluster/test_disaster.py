"""Everything lost but a backup; everything lost but one member. With real processes, as docs/operations.md tells it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes import LocalCluster, LocalNode, environment, eventually, lattice

from lattice_core.client import Client
from lattice_core.errors import RevisionCompacted

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, method="signal")]

KEYS = 60


def command(*arguments: str) -> Any:
    """Run it, successfully; the document it prints."""
    done = lattice(*arguments, "-o", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def restore(cluster: LocalCluster, file: Path) -> list[dict[str, Any]]:
    """A member of a new cluster in each one's place, with the options that start it."""
    return [command("snapshot", "restore", str(file), *node.arguments) for node in cluster.nodes.values()]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_backup_on_three_new_members_brings_every_key_back_and_writes_go_on_above(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "backup.snap"
    with Client(cluster.endpoints, timeout=20) as client:
        for number in range(KEYS):
            client.put(f"key{number}", f"value{number}")
        saved = client.get("key7")
        command("--endpoints", cluster.endpoints, "snapshot", "save", str(file))
        highest = max(client.put(f"since{number}", "lost with the cluster") for number in range(20))
    old_id = cluster["n1"].status().cluster_id
    cluster.kill(*cluster.nodes)
    for node in cluster.nodes.values():
        shutil.rmtree(node.data_dir)

    documents = restore(cluster, file)
    assert len({document["cluster_id"] for document in documents}) == 1
    assert len({document["state_hash"] for document in documents}) == 1
    cluster.start()  # by the same command as ever
    cluster.leader()
    assert cluster["n1"].status().cluster_id != old_id
    with Client(cluster.endpoints, timeout=20) as client:
        found = client.range(prefix="key").kvs
        assert {kv.key: kv.value for kv in found} == {b"key%d" % n: b"value%d" % n for n in range(KEYS)}
        assert client.get("key7") == saved, "revisions and version included"
        assert client.get("since0") is None
        with pytest.raises(RevisionCompacted):  # whoever was at a revision of the old cluster is not fooled
            client.get("key7", revision=highest)
        assert client.put("next", "value") > highest
    cluster.same_state()


def test_killed_while_it_restores_it_succeeds_when_run_again(cluster: LocalCluster, tmp_path: Path) -> None:
    """Every step at which that may be is in tests/server/test_restore.py; this is the real thing, now and then."""
    file = tmp_path / "backup.snap"
    with Client(cluster.endpoints, timeout=20) as client:
        for number in range(20):
            client.put(f"key{number}", "x" * 100_000)
    command("--endpoints", cluster.endpoints, "snapshot", "save", str(file))
    target = tmp_path / "restored"
    arguments = ["snapshot", "restore", str(file), "--data-dir", str(target)]
    kills = 0
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-m", "lattice_cli", *arguments], env=environment(), stderr=subprocess.DEVNULL
        )
        while not target.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(attempt * 0.004)
        process.send_signal(signal.SIGKILL)
        process.wait()
        cut_short = (target / "unfinished").exists()
        kills += cut_short
        if cut_short:
            assert "is unfinished" in lattice("start", "--data-dir", str(target)).the_error()
        done = lattice(*arguments)
        assert done.code == 0 or "is the data directory of n1" in done.err
        assert sorted(os.listdir(target)) == ["identity", "lock", "peers", "snapshots", "wal"]
        assert len(os.listdir(target / "snapshots")) == len(os.listdir(target / "wal")) == 1
        shutil.rmtree(target)
        if kills == 2:
            break
    assert kills, "none was cut short: the test has shown nothing"


def test_two_of_three_directories_deleted_recover_brings_the_data_back_and_the_dead_stay_out(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    with Client(cluster.endpoints, timeout=20) as client:
        highest = max(client.put(f"key{number}", f"value{number}") for number in range(KEYS))
    leader = cluster["n3"].status()
    eventually(lambda: cluster["n3"].status().applied_index >= leader.last_index, "n3 has it all")
    old_id = f"{leader.cluster_id:016x}"
    survivor = cluster["n3"]
    running = lattice("recover", str(survivor.data_dir))
    assert (running.code, "is in use by process" in running.the_error()) == (3, True)
    cluster.kill(*cluster.nodes)
    aside = tmp_path / "n2-in-a-drawer"
    cluster["n2"].data_dir.rename(aside)
    shutil.rmtree(cluster["n1"].data_dir)

    before = contents(survivor.data_dir)
    plan = command("recover", str(survivor.data_dir))
    assert contents(survivor.data_dir) == before, "a look changes nothing"
    assert (plan["done"], plan["quorum"], plan["acknowledged_writes_may_be_lost"]) == (False, False, True)
    done = command("recover", str(survivor.data_dir), "--yes")
    assert done["result"]["cluster_id"] != old_id

    # The command that has started it so far names members that are no more: told so, at once.
    told = lattice("start", *survivor.arguments)
    assert (told.code, "began with n3=" in told.the_error()) == (2, True)
    survivor.arguments = without_initial_cluster(survivor)
    cluster.start("n3")
    with Client(survivor.client_addr, timeout=20) as client:
        found = client.range(prefix="key").kvs
        assert {kv.key: kv.value for kv in found} == {b"key%d" % n: b"value%d" % n for n in range(KEYS)}
        assert client.put("next", "value") > highest

    # Others join it as new members, and get everything.
    cluster["n1"].arguments = [*without_initial_cluster(cluster["n1"]), "--join", survivor.client_addr]
    cluster.start("n1")
    eventually(lambda: cluster["n1"].read(b"key7") == b"value7", "the new member has the data")

    # A dead one comes back, knows the address, and is nobody here.
    aside.rename(cluster["n2"].data_dir)
    cluster.spawn("n2")
    refusal = f"belongs to cluster {old_id}, this member to {done['result']['cluster_id']}"
    eventually(
        lambda: all(f"{name} refused this member" in cluster["n2"].log() for name in ("n1", "n3")),
        "the dead one is told by both",
    )
    assert refusal in cluster["n2"].log()
    assert refusal in survivor.log()
    members = {member.name for member in survivor.status().configuration.members}
    assert members == {"n1", "n3"}
    assert survivor.read(b"next") == b"value"


def without_initial_cluster(node: LocalNode) -> list[str]:
    at = node.arguments.index("--initial-cluster")
    return node.arguments[:at] + node.arguments[at + 2 :]
