"""A small disk of its own (tmpfs) for each member: writes are refused before it is full, deletes go through, it heals.

Needs to mount, so root on Linux; skipped elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import LocalCluster, eventually, free_addr, lattice

from lattice_core.client import Client
from lattice_core.errors import Busy, OutcomeUnknown

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, method="signal")]

DISK_BYTES = 24 << 20
RESERVE_BYTES = 8 << 20
VALUE = b"v" * 40_000


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Path]:
    """A directory in which n1, n2 and n3 are small disks."""
    if sys.platform != "linux":
        pytest.skip("tmpfs is Linux's")
    mounted: list[Path] = []
    try:
        for name in ("n1", "n2", "n3"):
            place = tmp_path / "cluster" / name
            place.mkdir(parents=True)
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "lattice-test", str(place)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
            mounted.append(place)
        yield tmp_path / "cluster"
    finally:
        for place in mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


def test_19_a_small_disk_refuses_writes_in_time_takes_deletes_and_heals_by_itself(small_disks: Path) -> None:
    metrics = {name: free_addr() for name in ("n1", "n2", "n3")}
    settings = small_disks / "lattice.toml"
    settings.write_text(
        f"segment_bytes = {1 << 20}\ndisk_reserve_bytes = {RESERVE_BYTES}\n"
        f"history_revisions = 50\nhistory_bytes = {64 << 10}\n"
    )
    cluster = LocalCluster(small_disks, options=("--config", str(settings)))
    for name, node in cluster.nodes.items():
        node.data_dir = small_disks / name / "data"
        node.arguments[node.arguments.index("--data-dir") + 1] = str(node.data_dir)
        node.arguments += ["--metrics-addr", metrics[name]]
    with cluster, Client(cluster.endpoints, timeout=3) as client:
        term = cluster[cluster.healed()].status().term
        written = 0
        refusal: Busy | None = None
        while refusal is None:
            assert written < 2000, "the disk never came to its end"
            try:
                client.put(b"key%04d" % written, VALUE)
            except Busy as error:
                refusal = error
            except OutcomeUnknown:
                pass  # the leader may be refused its own next segment and hand over
            else:
                written += 1
        assert "disk_reserve_bytes" in str(refusal) or "used up" in str(refusal)
        assert "delete" in (refusal.hint or "")
        done = lattice("--endpoints", cluster.endpoints, "--timeout", "2", "put", "one", "more")
        assert done.code == 3
        assert "delete" in done.the_error()
        leader = cluster.leader()
        counters = cluster[leader].status().counters
        assert counters.no_room
        assert counters.disk_free_bytes < RESERVE_BYTES * 2
        assert "writes are refused" in _page(metrics[leader], "readyz")
        assert "lattice_no_room 1.0" in _page(metrics[leader], "metrics")
        assert "the disk is full" not in cluster[leader].log(), "it never comes to that"
        found = client.get(b"key0000")
        assert found is not None
        assert found.value == VALUE

        for number in range(written):
            client.delete(b"key%04d" % number, timeout=20)
        eventually(lambda: not any(node.status().counters.no_room for node in cluster.nodes.values()), "there is room")
        client.put(b"after", VALUE, timeout=20)
        assert "lattice_no_room 0.0" in _page(metrics[cluster.leader()], "metrics")
        cluster.healed()
        cluster.same_state()
        assert cluster[cluster.leader()].status().term == term, "and nobody was elected over it"


def test_19_a_follower_whose_disk_is_full_says_so_the_others_go_on_and_with_room_it_does_too(small_disks: Path) -> None:
    for name in ("n2", "n3"):
        _resize(small_disks / name, 256 << 20)
    settings = small_disks / "lattice.toml"
    settings.write_text(f"segment_bytes = {1 << 20}\ndisk_reserve_bytes = {RESERVE_BYTES}\n")
    cluster = LocalCluster(small_disks, options=("--config", str(settings)))
    for name, node in cluster.nodes.items():
        node.data_dir = small_disks / name / "data"
        node.arguments[node.arguments.index("--data-dir") + 1] = str(node.data_dir)
    with cluster, Client(cluster.endpoints, timeout=20) as client:
        small = cluster["n1"]
        if cluster.healed() == "n1":
            client.transfer_leader("n2")
        leader = cluster.leader()
        assert leader != "n1"
        written = 0
        while not small.status().counters.disk_full:
            assert written < 2000, "the disk never came to its end"
            client.put(b"key%04d" % written, VALUE)
            written += 1
        assert "the disk is full, so nothing can be written" in small.log()
        for number in range(20):
            client.put(b"more%02d" % number, VALUE)
        assert not cluster[leader].status().counters.no_room
        assert small.running
        assert client.get(b"more19") is not None

        _resize(small_disks / "n1", 256 << 20)
        # What is committed it applies before it is on its own disk: having applied all is no sign of that.
        eventually(lambda: not small.status().counters.disk_full, "it writes again")
        eventually(lambda: "there is room on the disk again" in small.log(), "it says so")
        cluster.healed()
        cluster.same_state()
        assert cluster.leader() == leader, "nobody was elected over it"


def _resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def _page(addr: str, page: str) -> str:
    with urllib.request.urlopen(f"http://{addr}/{page}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
