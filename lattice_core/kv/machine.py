"""The replicated state machine: the same log gives the same state and answers on every member.

What goes in: the entries of the log in order, nothing else. No clock (time is logged), no randomness, no
configuration that matters, no hash() of bytes. What one member answers, every member would have.

An entry is applied in slices. :meth:`StateMachine.begin` decodes all of it, so that an entry with anything
unknown in it halts the node before any of it is executed (SAFETY 45), and returns an iterator which
executes one client batch each time it is asked for the next result. The caller may do other things in
between; reads then see the operations executed so far, each one whole. ``applied_index`` moves when the
last batch is done, and only then can the state be captured (SAFETY 25).

A batch that deletes a range of very many keys pauses in the middle: the iterator yields None, "not done yet".

    for result in machine.begin(entry.index, entry.term, entry.payload):
        ...                                       # answer the caller; now and then yield to the loop
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import msgpack

from lattice_core.errors import Fatal
from lattice_core.kv.access_state import Access
from lattice_core.kv.access_state import execute as execute_access_change
from lattice_core.kv.capture import Capture, Restore
from lattice_core.kv.commands import (
    ACCESS,
    CAS,
    CLOSE_SESSION,
    DELETE,
    DELETE_RANGE,
    OPEN_SESSION,
    OPEN_SESSION_FOR,
    PUT,
    PUT_IF_REVISION,
    TXN,
    ClientBatch,
    Ops,
    Payload,
    decode_payload,
)
from lattice_core.kv.digests import chain, state_digest
from lattice_core.kv.range_deletion import RangeDeletion
from lattice_core.kv.records import MOD_REVISION, VALUE
from lattice_core.kv.results import BatchResult, BatchStatus
from lattice_core.kv.sessions import SessionLimits, SessionTable
from lattice_core.kv.store import HistoryLimits, Store
from lattice_core.kv.txn_apply import Room
from lattice_core.kv.txn_apply import execute as execute_transaction


class StateMachine:
    """Not thread-safe. ``store`` may be read at any time, and is written by nobody else."""

    def __init__(
        self,
        *,
        history: HistoryLimits | None = None,
        session_limits: SessionLimits | None = None,
        digest_log: bool = False,
    ) -> None:
        self.store = Store(history)
        self.sessions = SessionTable(session_limits)
        self.access = Access()
        """Replaced by each change: see access_state.py."""
        self.applied_index = 0
        self.applied_term = 0
        self.time_ms = 0
        """The log's time: it never goes back, whatever leaders' clocks do (SAFETY 50)."""
        self.digest_log = digest_log
        self.applied_digest = 0
        """With ``digest_log``: a chained CRC over every applied entry's index, term, payload and results. Two
        members that have applied the same log from the same start have the same one."""
        self._applying: int | None = None  # the index in progress; stays set for ever if applying it fails
        self._room: Room | None = None
        """What the present batch's transactions may still do; made for its first."""
        self._pack = msgpack.Packer(autoreset=True).pack

    @property
    def revision(self) -> int:
        return self.store.revision

    @property
    def state_hash(self) -> int:
        """Everything replicated: records, revision, sessions and their results, access, time. O(1)."""
        store, sessions = self.store, self.sessions
        return state_digest(store.state_hash, store.revision, sessions.state_hash, self.time_ms, self.access.state_hash)

    def full_state_hash(self) -> int:
        """``state_hash`` computed from scratch; walks everything."""
        store, sessions = self.store, self.sessions
        return state_digest(
            store.full_state_hash(),
            store.revision,
            sessions.full_state_hash(),
            self.time_ms,
            self.access.full_state_hash(),
        )

    def check(self) -> None:
        """Assert every invariant. For tests and the simulator: walks everything."""
        self.store.check()
        self.sessions.check()
        self.access.check()

    # -- applying ---------------------------------------------------------------------------------

    def apply(self, index: int, term: int, payload: bytes, decoded: Payload | None = None) -> list[BatchResult]:
        """Execute an entry at once: one result for each client batch, in order."""
        return [result for result in self.begin(index, term, payload, decoded) if result is not None]

    def begin(
        self, index: int, term: int, payload: bytes, decoded: Payload | None = None
    ) -> Iterator[BatchResult | None]:
        """Execute an entry one client batch at a time: see the module. The iterator must be exhausted; None is no
        result, only an occasion to pause.

        ``decoded`` is what :func:`decode_payload` would make of ``payload``: a leader that has validated the
        batches has it already, and passes it to save the work.
        """
        if decoded is None:
            decoded = decode_payload(payload)
        self._start(index)
        self.time_ms = max(self.time_ms, decoded.time_ms)
        self.sessions.expire(self.time_ms)
        return self._run(index, term, payload, decoded)

    def skip(self, index: int, term: int) -> None:
        """Pass over an entry that is not the state machine's: a no-op or a configuration."""
        self._start(index)
        self._finish(index, term)

    def _start(self, index: int) -> None:
        if self._applying is not None:
            raise Fatal(f"entry {index} cannot be applied: entry {self._applying} was begun and not finished")
        if index != self.applied_index + 1:
            raise Fatal(f"entry {index} cannot be applied: the last one applied is {self.applied_index}")
        self._applying = index

    def _finish(self, index: int, term: int) -> None:
        self.applied_index = index
        self.applied_term = term
        self._applying = None

    def _run(self, index: int, term: int, payload: bytes, decoded: Payload) -> Iterator[BatchResult | None]:
        digest = 0
        if self.digest_log:
            digest = chain(self.applied_digest, b"%d %d " % (index, term))
            digest = chain(digest, payload)
        for batch in decoded.batches:
            session_id, sequence, _, _, ops = batch
            result = self._admit(batch)
            if result is None:
                assert ops is not None
                results: list[tuple[Any, ...]] = []
                self._room = None
                while (deletion := self._execute(ops, results)) is not None:
                    yield None
                    while deletion.step():
                        yield None
                    results.append((0, deletion.deleted, self.store.revision))
                packed: bytes = self._pack(results)
                if session_id:
                    self.sessions.store(session_id, sequence, packed)
                result = BatchResult(BatchStatus.OK, packed)
            if self.digest_log:
                digest = chain(chain(digest, bytes([result.status])), result.packed)
            yield result
        self.applied_digest = digest
        self._finish(index, term)

    def _admit(self, batch: ClientBatch) -> BatchResult | None:
        """The answer to a batch that is not to be executed, or None."""
        session_id, sequence, acknowledged_below, _, ops = batch
        if ops is None:
            return _MALFORMED
        if session_id:
            return self.sessions.admit(session_id, sequence, acknowledged_below, self.time_ms)
        return None

    def _execute(self, ops: Ops, results: list[tuple[Any, ...]]) -> RangeDeletion | None:
        """The ops that have no result yet, in order, each seeing what those before it did (shapes: results.py).

        None when all are done. A deletion of many keys is returned as begun: finish it, add its result, and
        call again.
        """
        store = self.store
        put = store.put
        if not results and set(map(_OPCODE, ops)) == _ONLY_PUTS:  # nearly every batch there is
            first = store.put_all(ops)
            results.extend([(0, revision) for revision in range(first, first + len(ops))])
            return None
        for op in islice(ops, len(results), None):
            opcode = op[0]
            if opcode == PUT:
                results.append((0, put(op[1], op[2])))
            elif opcode == PUT_IF_REVISION:
                _, key, value, mod_revision = op
                record = store.record(key)
                found = record[MOD_REVISION] if record is not None else 0
                results.append((0, put(key, value)) if found == mod_revision else (1, found))
            elif opcode == DELETE:
                results.append((0, store.delete(op[1]), store.revision))
            elif opcode == DELETE_RANGE:
                deletion = store.begin_delete_range(op[1], op[2])
                if deletion.step():
                    return deletion
                results.append((0, deletion.deleted, store.revision))
            elif opcode == CAS:
                _, key, expected, new = op
                record = store.record(key)
                swapped = (record[VALUE] if record is not None else None) == expected
                if swapped:
                    put(key, new)
                results.append((0, swapped, store.revision))
            elif opcode == TXN:
                if self._room is None:
                    self._room = Room()
                results.append(execute_transaction(store, op[1], op[2], op[3], self._room))
            elif opcode == OPEN_SESSION:
                results.append((0, self.sessions.open(self.time_ms)))
            elif opcode == CLOSE_SESSION:
                results.append((0, self.sessions.close(op[1])))
            elif opcode == OPEN_SESSION_FOR:
                results.append((0, self.sessions.open(self.time_ms, op[1])))
            elif opcode == ACCESS:
                self.access, result = execute_access_change(self.access, op[1], self.time_ms)
                results.append(result)
            else:  # commands.decode_payload lets nothing else through
                raise Fatal(f"operation code {opcode} has no meaning here")
        return None

    # -- snapshots --------------------------------------------------------------------------------

    def capture(self) -> Capture:
        """Everything at one applied index (SAFETY 25), to be written while applying goes on."""
        if self._applying is not None:
            raise Fatal(f"the state cannot be captured in the middle of entry {self._applying}")
        return Capture(
            self.store,
            self.sessions,
            self.access,
            applied_index=self.applied_index,
            applied_term=self.applied_term,
            time_ms=self.time_ms,
            applied_digest=self.applied_digest,
            state_hash=self.state_hash,
        )

    @classmethod
    def restored(cls, restore: Restore, *, digest_log: bool = False) -> StateMachine:
        """The machine out of a completed :class:`Restore`; Fatal unless it is exactly what was captured."""
        restore.verify()
        header = restore.header
        machine = cls(digest_log=digest_log)
        machine.store = restore.store
        machine.sessions = restore.sessions
        machine.access = restore.access
        machine.applied_index = header["applied_index"]
        machine.applied_term = header["applied_term"]
        machine.applied_digest = header["applied_digest"]
        machine.time_ms = header["time_ms"]
        return machine

    @classmethod
    def from_chunks(
        cls, chunks: Iterable[Any], *, history: HistoryLimits | None = None, digest_log: bool = False
    ) -> StateMachine:
        """The machine that :meth:`Capture.to_chunks` wrote down, in one go."""
        restore = Restore(history=history)
        for chunk in chunks:
            restore.feed(chunk)
        return cls.restored(restore, digest_log=digest_log)


_MALFORMED: Final = BatchResult(BatchStatus.MALFORMED)
_OPCODE: Final = itemgetter(0)
_ONLY_PUTS: Final = {PUT}
