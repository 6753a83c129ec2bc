"""Applying entries: slices, order, halting, captures."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import msgpack
import pytest

from lattice_core.errors import Fatal, UnknownCommand
from lattice_core.kv import (
    BatchResult,
    BatchStatus,
    CasResult,
    ClientBatch,
    CloseSessionResult,
    DeleteResult,
    OpenSessionResult,
    PutResult,
    SessionLimits,
    StateMachine,
    cas,
    close_session,
    decode_payload,
    delete,
    delete_prefix,
    encode_batch,
    encode_payload,
    open_session,
    put,
    put_if_revision,
    read_result,
)
from lattice_core.kv.commands import Op


def batch(*ops: Op) -> ClientBatch:
    return ClientBatch(0, 0, 0, encode_batch(ops))


def filled(keys: int = 10, *, digest_log: bool = False) -> StateMachine:
    machine = StateMachine(digest_log=digest_log)
    machine.apply(1, 1, encode_payload(5, [batch(*[put(b"key-%03d" % n, b"%d" % n) for n in range(keys)])]))
    return machine


def test_every_operation_answers_in_its_documented_shape() -> None:
    machine = StateMachine()
    expected = [
        (put(b"a", b"1"), [0, 1], PutResult(1)),
        (put_if_revision(b"a", b"2", 1), [0, 2], PutResult(2)),
        (put_if_revision(b"a", b"3", 1), [1, 2], PutResult(2, stored=False)),
        (put_if_revision(b"a", b"3", 0), [1, 2], PutResult(2, stored=False)),
        (put_if_revision(b"b", b"1", 7), [1, 0], PutResult(0, stored=False)),
        (put_if_revision(b"b", b"1", 0), [0, 3], PutResult(3)),
        (cas(b"a", b"2", b"3"), [0, True, 4], CasResult(True, 4)),
        (cas(b"a", b"2", b"4"), [0, False, 4], CasResult(False, 4)),
        (cas(b"a", None, b"4"), [0, False, 4], CasResult(False, 4)),
        (cas(b"c", None, b""), [0, True, 5], CasResult(True, 5)),
        (cas(b"d", b"", b"x"), [0, False, 5], CasResult(False, 5)),
        (delete(b"d"), [0, 0, 5], DeleteResult(0, 5)),
        (delete(b"c"), [0, 1, 6], DeleteResult(1, 6)),
        (delete_prefix(b""), [0, 2, 7], DeleteResult(2, 7)),
        (delete_prefix(b""), [0, 0, 7], DeleteResult(0, 7)),
        (open_session(), [0, 1], OpenSessionResult(1)),
        (close_session(1), [0, True], CloseSessionResult(True)),
        (close_session(1), [0, False], CloseSessionResult(False)),
    ]
    ops = [op for op, _, _ in expected]
    (result,) = machine.apply(1, 1, encode_payload(0, [batch(*ops)]))
    assert result.results == [shape for _, shape, _ in expected]
    typed = [read_result(op, answer) for op, answer in zip(ops, result.results, strict=True)]
    assert typed == [answer for _, _, answer in expected]


def test_a_record_counts_its_versions_from_its_creation() -> None:
    machine = StateMachine()
    ops = [put(b"k", b"1"), put(b"other", b""), put(b"k", b"2"), delete(b"k"), put(b"k", b"3")]
    machine.apply(1, 1, encode_payload(0, [batch(*ops)]))
    found = machine.store.get(b"k")
    assert found is not None
    assert (found.create_revision, found.mod_revision, found.version, found.lease_id) == (5, 5, 1, 0)
    then = machine.store.get(b"k", 3)
    assert then is not None
    assert (then.value, then.create_revision, then.mod_revision, then.version) == (b"2", 1, 3, 2)
    assert machine.store.get(b"k", 4) is None


def test_an_entry_is_applied_one_batch_at_a_time() -> None:
    machine = StateMachine()
    slices = machine.begin(1, 3, encode_payload(0, [batch(put(b"a", b"1")), batch(put(b"b", b"2"))]))
    assert (machine.revision, machine.applied_index) == (0, 0)
    next(slices)
    assert (machine.revision, machine.applied_index) == (1, 0)
    next(slices)
    assert list(slices) == []
    assert (machine.revision, machine.applied_index, machine.applied_term) == (2, 1, 3)


def test_safety_25_nothing_is_captured_or_begun_in_the_middle_of_an_entry() -> None:
    machine = StateMachine()
    payload = encode_payload(0, [batch(put(b"a", b"1")), batch(put(b"b", b"2"))])
    slices = machine.begin(1, 1, payload)
    next(slices)
    with pytest.raises(Fatal, match="middle of entry 1"):
        machine.capture()
    with pytest.raises(Fatal, match="begun and not finished"):
        machine.begin(2, 1, payload)
    with pytest.raises(Fatal, match="begun and not finished"):
        machine.skip(2, 1)
    list(slices)
    machine.capture().close()


@pytest.mark.parametrize("index", [0, 1, 3, 99])
def test_an_entry_out_of_order_is_refused(index: int) -> None:
    machine = filled()
    before = machine.state_hash
    with pytest.raises(Fatal, match="cannot be applied"):
        machine.apply(index, 1, encode_payload(0, [batch(put(b"a", b"1"))]))
    with pytest.raises(Fatal, match="cannot be applied"):
        machine.skip(index, 1)
    assert (machine.state_hash, machine.applied_index) == (before, 1)


def test_an_entry_of_no_concern_is_skipped() -> None:
    machine = filled()
    before = machine.state_hash
    machine.skip(2, 4)
    assert (machine.applied_index, machine.applied_term, machine.state_hash) == (2, 4, before)


def test_a_malformed_batch_is_answered_and_changes_nothing() -> None:
    machine = StateMachine()
    (opened,) = machine.apply(1, 1, encode_payload(0, [batch(open_session())]))
    before = machine.state_hash
    bad = msgpack.packb([[1, b"k", b"v"], [1, b"k", "text"]])
    for session in (0, opened.results[0][1], 99):
        results = machine.apply(machine.applied_index + 1, 1, encode_payload(0, [ClientBatch(session, 1, 1, bad)]))
        assert results == [BatchResult(BatchStatus.MALFORMED)]
        assert machine.state_hash == before


def test_a_malformed_batch_does_not_touch_its_neighbours() -> None:
    machine = StateMachine()
    bad = ClientBatch(0, 0, 0, b"\xc1garbage")
    results = machine.apply(1, 1, encode_payload(0, [batch(put(b"a", b"1")), bad, batch(put(b"b", b"2"))]))
    assert [result.status.name for result in results] == ["OK", "MALFORMED", "OK"]
    assert [result.results for result in results] == [[[0, 1]], [], [[0, 2]]]


@pytest.mark.parametrize("newer", [msgpack.packb([[11]]), msgpack.packb([[1, b"k", b"v", 1]])])
def test_safety_45_an_unknown_command_halts_before_any_of_its_entry_is_executed(newer: bytes) -> None:
    machine = filled()
    before = machine.state_hash
    payload = encode_payload(10**9, [batch(put(b"a", b"1")), ClientBatch(0, 0, 0, newer)])
    with pytest.raises(UnknownCommand):
        machine.apply(2, 1, payload)
    assert (machine.state_hash, machine.applied_index, machine.time_ms) == (before, 1, 5)


def test_safety_45_an_unknown_payload_version_halts() -> None:
    machine = filled()
    with pytest.raises(UnknownCommand, match="version 2"):
        machine.apply(2, 1, b"\x02" + encode_payload(0, [])[1:])
    assert machine.applied_index == 1


def test_a_leader_that_passes_what_it_decoded_gets_the_same_state() -> None:
    batches = [
        batch(put(b"a", b"1"), open_session(), delete(b"key-001")),
        ClientBatch(1, 1, 0, encode_batch([put(b"b", b"2")])),
        ClientBatch(0, 0, 0, b"garbage"),
    ]
    payload = encode_payload(77, batches)
    leader, follower = filled(digest_log=True), filled(digest_log=True)
    assert leader.apply(2, 1, payload, decode_payload(payload)) == follower.apply(2, 1, payload)
    assert leader.state_hash == follower.state_hash
    assert leader.applied_digest == follower.applied_digest


def test_the_applied_digest_tells_different_logs_with_equal_states_apart() -> None:
    def run(*entries: tuple[int, bytes]) -> StateMachine:
        machine = filled(digest_log=True)
        for index, (term, value) in enumerate(entries, start=2):
            machine.apply(index, term, encode_payload(5, [batch(put(b"k", value))]))
        return machine

    first, again = run((1, b"x"), (1, b"z")), run((1, b"x"), (1, b"z"))
    other_term, other_value = run((2, b"x"), (2, b"z")), run((1, b"y"), (1, b"z"))
    assert first.state_hash == again.state_hash == other_term.state_hash == other_value.state_hash
    assert first.applied_digest == again.applied_digest
    assert len({first.applied_digest, other_term.applied_digest, other_value.applied_digest}) == 3


def test_the_state_hash_sees_every_field_of_a_record() -> None:
    def state_hash(*ops: Op) -> int:
        machine = StateMachine()
        machine.apply(1, 1, encode_payload(0, [batch(*ops)]))
        return machine.store.state_hash

    swapped = [(put(b"a", b"1"), put(b"b", b"2")), (put(b"b", b"2"), put(b"a", b"1"))]
    boundary = [(put(b"ab", b"c"),), (put(b"a", b"bc"),)]
    exchanged = [(put(b"a", b"2"), put(b"b", b"1"))]
    versions = [(put(b"a", b"1"), delete(b"a"), put(b"a", b"1")), (put(b"a", b"1"), put(b"a", b"0"), put(b"a", b"1"))]
    hashes = [state_hash(*ops) for ops in [*swapped, *boundary, *exchanged, *versions, ()]]
    assert len(set(hashes)) == len(hashes)
    assert hashes[-1] == 0


def test_an_empty_state_and_an_emptied_one_have_the_same_store_hash() -> None:
    machine = filled(100)
    machine.apply(2, 1, encode_payload(0, [batch(delete_prefix(b""))]))
    assert machine.store.state_hash == 0
    assert machine.state_hash != StateMachine().state_hash  # the revision is another


# -- captures -------------------------------------------------------------------------------------


def test_safety_25_a_capture_is_of_one_applied_index_while_writes_go_on() -> None:
    machine = filled(100)
    expected = (machine.state_hash, machine.revision, machine.applied_index, machine.time_ms)
    chunks = []
    for chunk in machine.capture().to_chunks(max_items=7):
        chunks.append(msgpack.unpackb(msgpack.packb(chunk)))
        index = machine.applied_index + 1
        ops = [put(b"key-%03d" % (index * 13 % 100), b"new"), delete(b"key-%03d" % (index * 7 % 100)), put(b"z", b"")]
        machine.apply(index, 2, encode_payload(1000 * index, [batch(*ops)]))
    restored = StateMachine.from_chunks(chunks)
    assert (restored.state_hash, restored.revision, restored.applied_index, restored.time_ms) == expected
    restored.check()
    machine.check()


def test_the_same_state_gives_the_same_bytes() -> None:
    def dump(machine: StateMachine) -> bytes:
        return b"".join(msgpack.packb(chunk) for chunk in machine.capture().to_chunks(3))

    first = filled(20)
    assert dump(first) == dump(filled(20)) == dump(StateMachine.from_chunks(first.capture().to_chunks()))


def test_a_chunk_is_bounded_in_items_and_bytes() -> None:
    machine = StateMachine(session_limits=SessionLimits(max_sessions=50))
    machine.apply(1, 1, encode_payload(0, [batch(*[open_session()] * 20)]))
    machine.apply(2, 1, encode_payload(0, [batch(*[put(b"%02d" % n, bytes(100 * n)) for n in range(30)])]))
    results = [ClientBatch(n, 1, 0, encode_batch([put(b"k", b"v")] * 20)) for n in range(1, 21)]
    machine.apply(3, 1, encode_payload(0, results))
    chunks = list(machine.capture().to_chunks(max_items=4, max_bytes=1500))
    for chunk in chunks:
        if chunk[0] in ("keys", "sessions"):
            assert len(chunk[1]) <= 4
            assert len(chunk[1]) == 1 or len(msgpack.packb(chunk)) < 2500
    assert StateMachine.from_chunks(chunks).state_hash == machine.state_hash


def test_an_abandoned_capture_stops_costing_anything() -> None:
    machine = filled(100)
    chunks = machine.capture().to_chunks(max_items=10)
    next(chunks), next(chunks)
    chunks.close()
    unread = machine.capture()
    unread.close()
    unread.close()
    assert machine.store._views == []


@pytest.mark.parametrize("damage", ["no end", "no header", "key missing", "value changed", "twice", "late header"])
def test_a_damaged_stream_is_not_restored(damage: str) -> None:
    header, keys, end = (msgpack.unpackb(msgpack.packb(chunk)) for chunk in filled().capture().to_chunks())
    changed = [keys[0], [[*keys[1][0][:1], b"other", *keys[1][0][2:]], *keys[1][1:]]]
    chunks = {
        "no end": [header, keys],
        "no header": [keys, end],
        "key missing": [header, [keys[0], keys[1][1:]], end],
        "value changed": [header, changed, end],
        "twice": [header, keys, end, end],
        "late header": [header, header, keys, end],
    }[damage]
    with pytest.raises(Fatal):
        StateMachine.from_chunks(chunks)


def test_a_snapshot_of_a_later_version_is_not_restored() -> None:
    header, *rest = filled().capture().to_chunks()
    header[1]["chunks_version"] = 2
    with pytest.raises(UnknownCommand, match="version 2"):
        StateMachine.from_chunks([header, *rest])


# -- determinism ----------------------------------------------------------------------------------

SCRIPT = """
import msgpack, random
from lattice_core.kv import *
chance = random.Random(7)
machine = StateMachine(digest_log=True, session_limits=SessionLimits(max_sessions=5, ttl_ms=500, window_batches=4))
def an_op():
    key = b"k%d" % chance.randrange(60)
    value = chance.randbytes(chance.randrange(40))
    return chance.choice([
        put(key, value), put(key, value), put_if_revision(key, value, chance.randrange(300)), delete(key),
        delete_range(key, key + b"5"), cas(key, None, value), open_session(), close_session(chance.randrange(200)),
    ])
for index in range(1, 301):
    batches = [
        ClientBatch(chance.choice([0, max(0, machine.sessions.next_id - chance.randrange(1, 7))]),
                    chance.randrange(9), chance.randrange(6),
                    b"junk" if chance.random() < 0.02 else encode_batch([an_op() for _ in range(4)]))
        for _ in range(chance.randrange(5))
    ]
    machine.apply(index, index // 50, encode_payload(index * 10 + chance.randrange(100), batches))
    if index % 100 == 0:
        chunks = [msgpack.packb(chunk) for chunk in machine.capture().to_chunks(7)]
        machine = StateMachine.from_chunks(map(msgpack.unpackb, chunks), digest_log=True)
machine.check()
print(machine.revision, machine.state_hash, machine.applied_digest, len(machine.sessions), len(machine.store))
"""


def test_safety_45_applying_is_the_same_in_every_process() -> None:
    root = pathlib.Path(__file__).parents[2]
    printed = set()
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        printed.add(done.stdout)
    # Pinned, encoding, digests and all: members of different versions have to agree on these numbers too.
    assert printed == {"782 5494155647200850706 2236480983 5 42\n"}
