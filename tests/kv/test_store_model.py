"""The store and the machine against a model that keeps every state there ever was in a list."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from lattice_core.errors import RevisionCompacted
from lattice_core.kv import (
    Capture,
    ClientBatch,
    HistoryLimits,
    KeyValue,
    StateMachine,
    StoreView,
    cas,
    delete,
    delete_range,
    encode_batch,
    encode_payload,
    open_session,
    put,
    put_if_revision,
    transaction,
    txn,
)
from lattice_core.kv.store_transaction import StoreTransaction

State = dict[bytes, KeyValue]

KEYS = st.sampled_from([b"a", b"aa", b"ab", b"b", b"b\x00", b"c", b"d", b"\xff", b"\xff\xff"])
ENDS = KEYS | st.just(b"")
VALUES = st.sampled_from([b"", b"1", b"2", b"three" * 30])
MAX_CHANGES = 6

COMPARES = st.tuples(st.sampled_from([txn.VALUE]), st.integers(1, 4), KEYS, st.none() | ENDS, VALUES) | st.tuples(
    st.integers(2, 4), st.integers(1, 4), KEYS, st.none() | ENDS, st.integers(0, 12)
)
TXN_OPS = st.one_of(
    st.tuples(st.just(txn.PUT), KEYS, VALUES),
    st.tuples(st.just(txn.DELETE), KEYS),
    st.tuples(st.just(txn.DELETE_RANGE), ENDS, ENDS),
    st.tuples(st.just(txn.GET), KEYS),
    st.tuples(st.just(txn.RANGE), ENDS, ENDS, st.integers(0, 4), st.integers(0, 7)),
)


class Model:
    """Every revision's whole state."""

    def __init__(self) -> None:
        self.states: list[State] = [{}]

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def now(self) -> State:
        return self.states[-1]

    def put(self, key: bytes, value: bytes) -> int:
        self.states.append(self.with_key(self.now, key, value))
        return self.revision

    def with_key(self, state: State, key: bytes, value: bytes) -> State:
        """The state with one key written, at the revision after the present one."""
        old, revision = state.get(key), self.revision + 1
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        return {**state, key: KeyValue(key, value, created, revision, version, 0)}

    def delete_all(self, keys: list[bytes]) -> int:
        if keys:
            self.states.append({key: kv for key, kv in self.now.items() if key not in keys})
        return len(keys)

    def transact(
        self, compares: list[txn.Compare], then: list[txn.TxnOp], otherwise: list[txn.TxnOp]
    ) -> tuple[int | None, list[list[Any]]]:
        """What txn.py says, in the plainest way: (first comparison that fails, a result for each operation)."""
        failed = next((n for n, compare in enumerate(compares) if not self.holds(compare)), None)
        state, results = self.now, []
        for op in then if failed is None else otherwise:
            code = op[0]
            if code == txn.PUT:
                state = self.with_key(state, op[1], op[2])
                results.append([0])
            elif code in (txn.DELETE, txn.DELETE_RANGE):
                start, end = (op[1], op[1] + b"\0") if code == txn.DELETE else op[1:]
                gone = [kv.key for kv in within(state, start, end)]
                state = {key: kv for key, kv in state.items() if key not in gone} if gone else state
                results.append([0, len(gone)])
            elif code == txn.GET:
                results.append([0, listed(state[op[1]]) if op[1] in state else None])
            else:
                results.append([0, *self.select(state, *op[1:])])
        if state is not self.now:
            self.states.append(state)
        return failed, results

    @staticmethod
    def select(state: State, start: bytes, end: bytes, limit: int, flags: int) -> list[Any]:
        found = within(state, start, end)
        count = len(found)
        if flags & txn.COUNT_ONLY:
            return [[], False, count]
        if flags & txn.REVERSE:
            found.reverse()
        found = found[: limit or None]
        kvs = [listed(kv._replace(value=b"") if flags & txn.KEYS_ONLY else kv) for kv in found]
        return [kvs, len(found) < count, count]

    def holds(self, compare: txn.Compare) -> bool:
        target, relation, key, end, operand = compare
        found = within(self.now, key, key + b"\0" if end is None else end)
        if not found:
            if target == txn.VALUE:
                return False
            found = [KeyValue(b"", b"", 0, 0, 0, 0)]
        name = txn.TARGETS[target]
        tests = {1: lambda a, b: a == b, 2: lambda a, b: a != b, 3: lambda a, b: a < b, 4: lambda a, b: a > b}
        return all(tests[relation](getattr(kv, name), operand) for kv in found)


def listed(kv: KeyValue) -> list[Any]:
    return [*kv[:-1], kv.lease_id or None]


def within(state: State, start: bytes, end: bytes) -> list[KeyValue]:
    return [state[key] for key in sorted(state) if key >= start and (not end or key < end)]


class StoreModel(RuleBasedStateMachine):
    views: Bundle[tuple[StoreView, State, list[Any]]] = Bundle("views")
    captures: Bundle[tuple[Capture, int, State, int]] = Bundle("captures")

    def __init__(self) -> None:
        super().__init__()
        self.machine = StateMachine(history=HistoryLimits(max_changes=MAX_CHANGES, max_bytes=4000))
        self.model = Model()
        self.session = self.execute(open_session())[1]
        self.answered: list[tuple[tuple[Any, ...], list[Any]]] = []
        """Under the session, by sequence from 1: what was asked and first answered. None is acknowledged."""

    def execute(self, op: tuple[Any, ...], session: int = 0, sequence: int = 0) -> list[Any]:
        payload = encode_payload(0, [ClientBatch(session, sequence, 0, encode_batch([op]))])
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, payload)
        (answer,) = result.results
        return answer

    # -- writes

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        assert self.execute(put(key, value)) == [0, self.model.put(key, value)]

    @rule(pairs=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=12), last=st.none() | KEYS)
    def put_several(self, pairs: list[tuple[bytes, bytes]], last: bytes | None) -> None:
        """In one batch, which takes the short way if it has nothing but puts: with a delete at its end, the other."""
        ops = [put(key, value) for key, value in pairs]
        expected = [[0, self.model.put(key, value)] for key, value in pairs]
        if last is not None:
            ops.append(delete(last))
            deleted = self.model.delete_all([last] if last in self.model.now else [])
            expected.append([0, deleted, self.model.revision])
        payload = encode_payload(0, [ClientBatch(0, 0, 0, encode_batch(ops))])
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, payload)
        assert result.results == expected

    @rule(key=KEYS, value=VALUES, pick=st.integers(0, 3))
    def put_if_revision(self, key: bytes, value: bytes, pick: int) -> None:
        found = self.model.now[key].mod_revision if key in self.model.now else 0
        wanted = [found, found, 0, found + 1][pick]
        answer = self.execute(put_if_revision(key, value, wanted))
        if wanted == found:
            assert answer == [0, self.model.put(key, value)]
        else:
            assert answer == [1, found]

    @rule(key=KEYS, expected=st.none() | VALUES, value=VALUES)
    def cas(self, key: bytes, expected: bytes | None, value: bytes) -> None:
        swapped = (self.model.now[key].value if key in self.model.now else None) == expected
        if swapped:
            self.model.put(key, value)
        assert self.execute(cas(key, expected, value)) == [0, swapped, self.model.revision]

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        deleted = self.model.delete_all([key] if key in self.model.now else [])
        assert self.execute(delete(key)) == [0, deleted, self.model.revision]

    @rule(start=ENDS, end=ENDS)
    def delete_range(self, start: bytes, end: bytes) -> None:
        deleted = self.model.delete_all([kv.key for kv in within(self.model.now, start, end)])
        assert self.execute(delete_range(start, end)) == [0, deleted, self.model.revision]

    @rule(
        compares=st.lists(COMPARES, max_size=2),
        then=st.lists(TXN_OPS, max_size=5),
        otherwise=st.lists(TXN_OPS, max_size=3),
    )
    def a_transaction(self, compares: list[txn.Compare], then: list[txn.TxnOp], otherwise: list[txn.TxnOp]) -> None:
        failed, results = self.model.transact(compares, then, otherwise)
        expected = [0, failed, self.model.revision, results]
        assert self.execute(transaction(compares, then, otherwise)) == expected

    @rule(
        compares=st.lists(COMPARES, max_size=2),
        then=st.lists(TXN_OPS, max_size=5),
        otherwise=st.lists(TXN_OPS, max_size=3),
    )
    def a_transaction_under_a_session(
        self, compares: list[txn.Compare], then: list[txn.TxnOp], otherwise: list[txn.TxnOp]
    ) -> None:
        failed, results = self.model.transact(compares, then, otherwise)
        op = transaction(compares, then, otherwise)
        answer = self.execute(op, self.session, len(self.answered) + 1)
        assert answer == [0, failed, self.model.revision, results]
        self.answered.append((op, answer))

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def a_transaction_that_is_sent_again(self, data: st.DataObject) -> None:
        """By now the state is another, and the machine may be one restored from a snapshot."""
        sequence = data.draw(st.integers(1, len(self.answered)))
        op, answer = self.answered[sequence - 1]
        assert self.execute(op, self.session, sequence) == answer

    @rule(writes=st.lists(TXN_OPS.filter(lambda op: op[0] < txn.GET), max_size=8))
    def a_transaction_that_is_rolled_back(self, writes: list[txn.TxnOp]) -> None:
        store = self.machine.store
        before = (store.state_hash, store.revision, store.oldest_revision, len(store))
        opened = StoreTransaction(store)
        for op in writes:
            getattr(opened, {txn.PUT: "put", txn.DELETE: "delete", txn.DELETE_RANGE: "delete_range"}[op[0]])(*op[1:])
        opened.roll_back()
        assert (store.state_hash, store.revision, store.oldest_revision, len(store)) == before

    @rule(start=ENDS, end=ENDS, at_a_time=st.integers(1, 3))
    def delete_a_range_in_steps(self, start: bytes, end: bytes, at_a_time: int) -> None:
        """In between, everybody sees all of it gone, and the past as it was."""
        store = self.machine.store
        gone = [kv.key for kv in within(self.model.now, start, end)]
        deletion = store.begin_delete_range(start, end)
        assert deletion.deleted == self.model.delete_all(gone)
        more = True
        while more:
            more = deletion.step(at_a_time)
            now = self.model.now
            assert store.range(b"", b"").kvs == within(now, b"", b"")
            assert store.range(b"", b"", reverse=True, revision=store.revision).kvs == within(now, b"", b"")[::-1]
            assert store.range(b"a", b"c").count == len(within(now, b"a", b"c")) == store.count(b"a", b"c")
            assert [key for key, _ in store.items(b"aa", b"")] == [kv.key for kv in within(now, b"aa", b"")]
            assert len(store) == len(now)
            for key in (b"a", b"b", b"\xff"):
                assert store.get(key) == store.get(key, store.revision) == now.get(key)
                assert (key in store) == (key in now)
            oldest = store.oldest_revision
            assert store.range(b"", b"", revision=oldest).kvs == within(self.model.states[oldest], b"", b"")
            assert store.get(b"b", oldest) == self.model.states[oldest].get(b"b")

    # -- reads

    @rule(
        start=ENDS,
        end=ENDS,
        back=st.integers(0, MAX_CHANGES * 2),
        present=st.booleans(),
        limit=st.none() | st.integers(1, 4),
        reverse=st.booleans(),
        keys_only=st.booleans(),
        count_only=st.booleans(),
    )
    def read_a_range(
        self,
        start: bytes,
        end: bytes,
        back: int,
        present: bool,
        limit: int | None,
        reverse: bool,
        keys_only: bool,
        count_only: bool,
    ) -> None:
        store = self.machine.store
        revision = None if present else max(0, self.model.revision - back)
        options: dict[str, Any] = {"reverse": reverse, "keys_only": keys_only, "count_only": count_only}
        if revision is not None and revision < store.oldest_revision:
            with pytest.raises(RevisionCompacted):
                store.range(start, end, limit, revision, **options)
            return
        read = self.model.revision if revision is None else revision
        expected = within(self.model.states[read], start, end)
        count = len(expected)
        if reverse:
            expected.reverse()
        if keys_only:
            expected = [kv._replace(value=b"") for kv in expected]
        expected = [] if count_only else expected[:limit]
        found = store.range(start, end, limit, revision, **options)
        assert found.kvs == expected
        assert found.count == count
        assert found.revision == read
        assert found.more == (not count_only and len(expected) < count)

    @rule(key=KEYS, back=st.integers(0, MAX_CHANGES * 2))
    def read_a_key_at_a_revision(self, key: bytes, back: int) -> None:
        store, revision = self.machine.store, max(0, self.model.revision - back)
        if revision < store.oldest_revision:
            with pytest.raises(RevisionCompacted):
                store.get(key, revision)
        else:
            assert store.get(key, revision) == self.model.states[revision].get(key)

    @rule(back=st.integers(0, MAX_CHANGES))
    def replay_the_changes_since_a_revision(self, back: int) -> None:
        store, revision = self.machine.store, max(0, self.model.revision - back)
        if revision < store.oldest_revision:
            return
        state = {key: kv[1:] for key, kv in self.model.states[revision].items()}
        for _, key, old, new in store.changes_since(revision):
            assert state.pop(key, None) == (old[:-1] if old else None)
            if new:
                state[key] = new[:-1]
        assert state == {key: kv[1:] for key, kv in self.model.now.items()}

    # -- views and captures

    @rule(target=views)
    def open_a_view(self) -> tuple[StoreView, State, list[Any]]:
        return self.machine.store.view(), self.model.now, []

    @rule(opened=views, max_items=st.integers(1, 3), max_bytes=st.none() | st.integers(1, 200))
    def read_a_slice(self, opened: tuple[StoreView, State, list[Any]], max_items: int, max_bytes: int | None) -> None:
        view, pinned, read = opened
        items = view.read_slice(max_items, max_bytes)
        assert len(items) <= max_items
        if max_bytes is not None and len(items) > 1:
            assert sum(len(item[0]) + len(item[1]) for item in items) <= max_bytes
        read.extend(items)
        expected = [tuple(pinned[key]) for key in sorted(pinned)]
        assert read == expected[: len(read)]
        assert items or read == expected

    @rule(opened=consumes(views))
    def finish_a_view(self, opened: tuple[StoreView, State, list[Any]]) -> None:
        view, pinned, read = opened
        while items := view.read_slice(2):
            read.extend(items)
        assert read == [tuple(pinned[key]) for key in sorted(pinned)]
        assert not view._replaced
        assert not view._deleted
        view.close()
        view.close()

    @rule(target=captures)
    def capture(self) -> tuple[Capture, int, State, int]:
        machine = self.machine
        return machine.capture(), self.model.revision, self.model.now, machine.state_hash

    @rule(captured=consumes(captures), max_items=st.integers(1, 4))
    def a_capture_restores_to_what_was_captured(
        self, captured: tuple[Capture, int, State, int], max_items: int
    ) -> None:
        capture, revision, state, state_hash = captured
        chunks = [msgpack.unpackb(msgpack.packb(chunk)) for chunk in capture.to_chunks(max_items)]
        restored = StateMachine.from_chunks(chunks)
        restored.check()
        assert restored.state_hash == restored.full_state_hash() == state_hash
        assert restored.revision == revision
        assert restored.store.range(b"", b"").kvs == within(state, b"", b"")

    @precondition(lambda self: self.model.revision > 3)
    @rule()
    def go_on_as_a_restored_machine(self) -> None:
        """From here on the restored one has to behave as the model does."""
        machine = self.machine
        restored = StateMachine.from_chunks(machine.capture().to_chunks(2), history=machine.store.history_limits)
        assert restored.state_hash == machine.state_hash
        assert (restored.applied_index, restored.applied_term) == (machine.applied_index, machine.applied_term)
        self.machine = restored

    # -- always

    @invariant()
    def invariants_hold(self) -> None:
        self.machine.check()
        assert self.machine.revision == self.model.revision
        store = self.machine.store
        assert store.get(b"a") == self.model.now.get(b"a")
        assert len(store) == len(self.model.now)
        oldest = store.oldest_revision
        assert store.range(b"", b"", revision=oldest).kvs == within(self.model.states[oldest], b"", b"")


StoreModel.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreModel = StoreModel.TestCase
