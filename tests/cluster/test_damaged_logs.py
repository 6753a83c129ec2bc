"""What a crash leaves at the end of a log is cut and told; what no crash leaves is refused. In real directories."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from load import Load
from processes import LocalCluster, lattice

from lattice_core.raft.types import Entry
from lattice_core.storage.filesystem import SECTOR_BYTES
from lattice_core.storage.records import entry_record
from lattice_core.storage.segments import SegmentHeader, SegmentScan, decode_header, encode_frame, scan_segment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, method="signal")]


def segments(wal_dir: Path) -> list[Path]:
    return sorted(wal_dir.glob("*.wal"))


def scan(path: Path) -> tuple[SegmentHeader, SegmentScan]:
    data = path.read_bytes()
    header = decode_header(data)
    return header, scan_segment(data, header)


def tear(path: Path, *, keep: slice) -> int:
    """As if power had failed within the next write: only those of its sectors arrived. Where it began."""
    header, found = scan(path)
    entries = [
        located.record
        for segment in segments(path.parent)
        for frame in scan(segment)[1].frames
        for located in frame.records
        if isinstance(located.record, Entry)
    ]
    entry = Entry(entries[-1].index + 1, entries[-1].term, b"never acknowledged" * 200)
    frame, _ = encode_frame(
        [entry_record(entry)],
        salt=header.salt,
        number=found.next_frame,
        offset=found.end,
        durable=found.end,
        chain=found.chain,
    )
    sectors = [frame[at : at + SECTOR_BYTES] for at in range(0, len(frame), SECTOR_BYTES)]
    kept = sectors[keep]
    assert 0 < len(kept) < len(sectors)
    first = range(len(sectors))[keep][0]
    with path.open("r+b") as file:
        file.seek(found.end + first * SECTOR_BYTES)
        file.write(b"".join(kept))
    return found.end


@pytest.mark.parametrize("keep", [slice(0, 3), slice(1, None)], ids=["its beginning arrived", "its end arrived"])
def test_16_a_torn_tail_is_cut_and_told_in_one_line_and_the_member_rejoins(shared: LocalCluster, keep: slice) -> None:
    """SAFETY 16."""
    leader = shared.leader()
    victim = shared.others(leader)[0]
    with Load(shared.endpoints, writers=1) as load:
        load.progress(40)
        shared.kill(victim)
        path = segments(shared[victim].wal_dir)[-1]
        offset = tear(path, keep=keep)
        load.progress(20)
        shared.start(victim)
        told = [line for line in shared[victim].log().splitlines() if "cut a torn tail" in line]
        assert len(told) == 1, told
        assert re.search(
            rf"WARNING .*cut a torn tail of \d+ bytes at offset {offset} of {re.escape(str(path))}", told[0]
        )
        shared.healed()
    load.account()
    shared.same_state()
    # It was cut for good, and what has been written over it since is whole.
    shared.kill(victim)
    shared.start(victim)
    assert "cut a torn tail" not in shared[victim].log()
    shared.healed()


def test_17_damage_before_the_end_is_refused_with_file_offset_and_way_out_and_the_cluster_goes_on(
    cluster: LocalCluster,
) -> None:
    """SAFETY 17: one flipped bit in an entry that was acknowledged long ago."""
    with Load(cluster.endpoints, writers=1) as load:
        load.progress(40)
        victim = cluster.others(cluster.leader())[0]
        cluster.kill(victim)
        path = segments(cluster[victim].wal_dir)[0]
        _, found = scan(path)
        early = found.frames[3]
        entry = early.records[-1]
        with path.open("r+b") as file:
            file.seek(entry.offset + entry.size_bytes - 1)
            (byte,) = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 0x10]))
        before = path.read_bytes()
        done = lattice("start", *cluster[victim].arguments)
        line = done.the_error()
        assert done.code == 3
        assert f"{path} is damaged at offset {entry.offset}" in line
        assert ". try: " in line
        assert path.read_bytes() == before, "nothing is mended by guessing"
        load.progress(40)
    load.account()
