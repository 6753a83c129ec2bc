"""A member whose state is not the others' stops by itself, and comes back by the command that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgpack
import pytest
from load import Load
from processes import LocalCluster, eventually, lattice

from lattice_core.kv import StateMachine
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.snapshots import SnapshotReader, SnapshotWriter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, method="signal")]


def tamper(data_dir: Path) -> None:
    """Another value in the newest snapshot, and every checksum right: what no checksum of a file finds."""
    path = max((data_dir / "snapshots").glob("*.snap"))
    fs = RealFileSystem()
    with SnapshotReader(fs, str(path)) as reader:
        header, machine = reader.header, StateMachine.from_chunks(reader.objects())
    machine.store.put(b"tampered with", b"yes")
    path.unlink()
    writer = SnapshotWriter(fs, str(path.parent), header)
    for chunk in machine.capture().to_chunks(1000, 1 << 20):
        writer.write(msgpack.packb(chunk))
    writer.publish()


def test_a_member_whose_state_differs_stops_and_the_command_it_names_brings_it_back(cluster: LocalCluster) -> None:
    with Load(cluster.endpoints, writers=2) as load:
        load.progress(50)
        victim = cluster.others(cluster.leader())[0]
        assert lattice("snapshot", "take", "--endpoints", cluster.endpoints).code == 0
        load.progress(10)
        cluster.kill(victim)
        tamper(cluster[victim].data_dir)
        cluster.spawn(victim)
        assert cluster.until_ended(victim) == 3
        said = cluster[victim].log()
        assert f"the state of {victim} is not the other members'" in said
        load.progress(30)
        # Started again it is refused, in one line, with the way back.
        done = lattice("start", *cluster[victim].arguments)
        line = done.the_error()
        assert done.code == 3
        found = re.search(r"try: (lattice start .* --reseed )H:P", line)
        assert found is not None, line
        healthy = cluster[cluster.others(victim)[0]].client_addr
        cluster[victim].arguments = [*shlex.split(found[1])[2:], healthy]
        cluster.start(victim)
        cluster.healed()
        load.progress(30)
    load.account()
    cluster.same_state()

    def voters() -> bool:
        statuses = [cluster[name].status() for name in cluster.nodes]
        return all(status.voter for status in statuses) and len({s.state_hash for s in statuses}) == 1

    eventually(voters, "it votes again")
    assert "is the odd one" in "".join(cluster[name].log() for name in cluster.others(victim))
