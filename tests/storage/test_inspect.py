"""Inspection shows what there is, changes nothing, and goes on after damage."""

from __future__ import annotations

from crashfs import CrashFS
from logs import DIR, append, create, entry, last_segment, term

from lattice_core.raft.types import Entry, HardState
from lattice_core.storage.inspect import DamageFound, RecordFound, SegmentEnd, SegmentFound, inspect_log


def test_inspection_shows_every_segment_and_record_and_changes_nothing():
    fs = CrashFS()
    wal = create(fs, append(1, 40, size=100), append(41, 80, size=100), term(2, 1))
    fs.calls.clear()
    findings = list(inspect_log(fs, DIR))
    assert fs.calls == []
    found = [finding.record for finding in findings if isinstance(finding, RecordFound)]
    assert [record for record in found if isinstance(record, Entry)] == [
        entry(index, size=100) for index in range(1, 81)
    ]
    assert found[-1] == HardState(2, 1)
    assert sum(isinstance(finding, SegmentFound) for finding in findings) == wal.segment_count
    assert sum(isinstance(finding, SegmentEnd) for finding in findings) == wal.segment_count
    assert not [finding for finding in findings if isinstance(finding, DamageFound)]


def test_inspection_names_damage_and_goes_on_with_the_next_segment():
    fs = CrashFS()
    create(fs, append(1, 40, size=100), append(41, 80, size=100), append(81, 120, size=100))
    first, second, *_ = (f"{DIR}/{name}" for name in fs.list_dir(DIR))
    fs.names[first].content[1050] ^= 1
    damage = [finding for finding in inspect_log(fs, DIR) if isinstance(finding, DamageFound)]
    assert (damage[0].path, damage[0].torn) == (first, False)
    assert damage[0].offset <= 1050
    assert damage[1].path == second
    assert any(
        isinstance(finding, RecordFound) and finding.path == last_segment(fs) for finding in inspect_log(fs, DIR)
    )


def test_a_torn_tail_is_told_from_damage():
    fs = CrashFS()
    wal = create(fs, append(1, 3))
    wal.write([append(4, 9, size=500)])
    path = last_segment(fs)
    _, start, _ = fs.names[path].pending[0]
    fs.names[path].content[start + 1024 : start + 1536] = bytes(512)
    (damage,) = [finding for finding in inspect_log(fs, DIR) if isinstance(finding, DamageFound)]
    assert damage.torn
    fs.names[path].content[:8] = b"notmagic"
    damage, *_ = [finding for finding in inspect_log(fs, DIR) if isinstance(finding, DamageFound)]
    assert (damage.offset, damage.torn) == (0, False)


def test_a_segment_that_a_running_node_removes_meanwhile_is_passed_over():
    fs = CrashFS()
    create(fs, append(1, 40, size=100), append(41, 80, size=100), append(81, 120, size=100))
    first, second, *_ = (f"{DIR}/{name}" for name in fs.list_dir(DIR))
    findings = inspect_log(fs, DIR)
    found = [next(findings)]
    fs.remove(first)
    fs.remove(second)
    found += list(findings)
    assert {first} < {finding.path for finding in found}
    assert second not in {finding.path for finding in found}
    assert not [finding for finding in found if isinstance(finding, DamageFound)]
    assert any(isinstance(finding, RecordFound) and finding.path == last_segment(fs) for finding in found)
