"""Client sessions: a write that is sent twice is executed once (Raft thesis, section 6.3).

Theory
  * A session is opened by a logged command. Its id is a counter in the replicated state, never reused.
  * Every batch names its session, its sequence and ``acknowledged_below``: the client has the results of
    all its sequences below that and will not ask for them again.
  * A sequence is executed if and only if it is not below the watermark (the highest
    ``acknowledged_below`` seen) and has no stored result. So sequences may arrive in any order, as
    pipelined retries do, and none is executed twice.
  * A session that is not in the table executes nothing: it may have been here once, and then this may be
    a retry. The client has to open a new one, and knows best whether to repeat what it asked.
  * A session that was opened for a user remembers whose it is, for the server to keep others away from its stored
    results (server/access.py); here it makes no difference.

Limits, each of which ends in an error or in an expired session, never in a second execution
  * Results waiting for acknowledgement: per session, a window in batches and in bytes; in all, bytes.
  * Where there are too many sessions, the least recently used goes; where too many bytes, the least
    recently used that holds any. Unused sessions expire by the time in the log.

All of this is replicated state: every member has to decide alike, so :class:`SessionLimits` travel in
snapshots and are no one's configuration. Time is the log's: ``max(previous, entry's)``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from lattice_core.kv.digests import MASK_64, chain, mix
from lattice_core.kv.results import NO_RESULTS, BatchResult, BatchStatus

RESULT_OVERHEAD_BYTES: Final = 96
"""What a stored result is charged beyond its bytes: the bytes object and its slot in a dict."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The same on every member of a cluster, for ever; tests make them small."""

    max_sessions: int = 100_000
    """More clients than write to a cluster within an hour; an idle one takes less than 1 KiB."""
    window_batches: int = 256
    """Batches one client may have in flight: at one a millisecond, a quarter of a second of them."""
    max_session_bytes: int = 8 * 1024 * 1024
    """A full window of the largest batches (4,096 results of some 7 bytes)."""
    max_total_bytes: int = 128 * 1024 * 1024
    """Sixteen of those. Refusing instead would let clients that died block the others until they expire."""
    ttl_ms: int = 60 * 60 * 1000
    """An hour without a write: longer than any sensible retry."""


class Session:
    """One client's memory. Invariants: every stored sequence is at or above the watermark;
    ``stored_bytes`` charges exactly the stored results; ``digest`` is that of the fields beside it."""

    __slots__ = ("acknowledged_below", "digest", "epoch", "id", "last_used_ms", "owner", "results", "stored_bytes")

    def __init__(
        self, session_id: int, last_used_ms: int, acknowledged_below: int, epoch: int, owner: bytes | None = None
    ) -> None:
        self.id = session_id
        self.last_used_ms = last_used_ms
        self.acknowledged_below = acknowledged_below
        self.results: dict[int, bytes] = {}
        self.stored_bytes = 0
        self.owner = owner
        self.digest = _session_digest(session_id, acknowledged_below, last_used_ms, owner)
        self.epoch = epoch

    def copy(self, epoch: int) -> Session:
        twin = Session(self.id, self.last_used_ms, self.acknowledged_below, epoch, self.owner)
        twin.results = self.results.copy()
        twin.stored_bytes = self.stored_bytes
        return twin


class SessionTable:
    """Least recently used first, which is also the order of expiry, for time in the log never goes back."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        self.limits = limits or SessionLimits()
        self.next_id = 1
        self.stored_bytes = 0
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        # Invariant: the ids of the sessions that hold results, in the same order.
        self._holders: OrderedDict[int, None] = OrderedDict()
        self._digest_sum = 0
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._sessions

    @property
    def state_hash(self) -> int:
        """Covers every session, watermark, time of use and stored result, and the next id."""
        return (self._digest_sum + mix(self.next_id, len(self._sessions), self.stored_bytes)) & MASK_64

    def owner_of(self, session_id: int) -> bytes | None:
        """The user it was opened for; None if for nobody in particular, or if there is no such session."""
        session = self._sessions.get(session_id)
        return session.owner if session is not None else None

    def open(self, time_ms: int, owner: bytes | None = None) -> int:
        """A new session's id; the least recently used one makes room if there are too many."""
        session_id = self.next_id
        self.next_id += 1
        session = Session(session_id, time_ms, 0, self._epoch, owner)
        self._sessions[session_id] = session
        self._digest_sum += session.digest
        if len(self._sessions) > self.limits.max_sessions:
            self._evict_oldest()
        return session_id

    def close(self, session_id: int) -> bool:
        """Forget it at once; whether it was there."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return False
        self._forget(session)
        return True

    def expire(self, time_ms: int) -> None:
        """Drop what has not been used for the time to live. Called once per entry, before its batches."""
        deadline = time_ms - self.limits.ttl_ms
        while self._sessions:
            if next(iter(self._sessions.values())).last_used_ms >= deadline:
                return
            self._evict_oldest()

    def admit(self, session_id: int, sequence: int, acknowledged_below: int, time_ms: int) -> BatchResult | None:
        """The answer without executing anything, or None: execute it, then :meth:`store` its results."""
        session = self._sessions.get(session_id)
        if session is None:
            return _EXPIRED
        session = self._use(session, acknowledged_below, time_ms)
        if sequence < session.acknowledged_below:
            return _STALE
        packed = session.results.get(sequence)
        if packed is not None:
            return BatchResult(BatchStatus.OK, packed)
        limits = self.limits
        if len(session.results) >= limits.window_batches or session.stored_bytes >= limits.max_session_bytes:
            return _WINDOW
        return None

    def store(self, session_id: int, sequence: int, packed: bytes) -> None:
        """Remember an executed batch's results for its retries."""
        session = self._sessions.get(session_id)
        if session is None:
            return  # the batch has closed its own session, or filled the table with new ones
        session.results[sequence] = packed
        self._holders[session_id] = None  # at the end: admit() has just used the session
        charge = RESULT_OVERHEAD_BYTES + len(packed)
        session.stored_bytes += charge
        self.stored_bytes += charge
        self._digest_sum += _result_digest(session_id, sequence, packed)
        while self.stored_bytes > self.limits.max_total_bytes:
            self.close(next(iter(self._holders)))

    def _use(self, session: Session, acknowledged_below: int, time_ms: int) -> Session:
        if session.epoch != self._epoch:  # a capture holds it: leave it as it was
            session = session.copy(self._epoch)
            self._sessions[session.id] = session
        self._sessions.move_to_end(session.id)
        if session.results:
            self._holders.move_to_end(session.id)
        if acknowledged_below > session.acknowledged_below:
            session.acknowledged_below = acknowledged_below
            self._drop_acknowledged(session)
        elif time_ms == session.last_used_ms:
            return session
        session.last_used_ms = time_ms
        digest = _session_digest(session.id, session.acknowledged_below, time_ms, session.owner)
        self._digest_sum += digest - session.digest
        session.digest = digest
        return session

    def _drop_acknowledged(self, session: Session) -> None:
        watermark = session.acknowledged_below
        for sequence in [stored for stored in session.results if stored < watermark]:
            packed = session.results.pop(sequence)
            charge = RESULT_OVERHEAD_BYTES + len(packed)
            session.stored_bytes -= charge
            self.stored_bytes -= charge
            self._digest_sum -= _result_digest(session.id, sequence, packed)
        if not session.results:
            self._holders.pop(session.id, None)

    def _evict_oldest(self) -> None:
        _, session = self._sessions.popitem(last=False)
        self._forget(session)

    def _forget(self, session: Session) -> None:
        """Undo a session's part in the totals; it has left the table already."""
        self._holders.pop(session.id, None)
        self.stored_bytes -= session.stored_bytes
        self._digest_sum -= session.digest
        for sequence, packed in session.results.items():
            self._digest_sum -= _result_digest(session.id, sequence, packed)

    def forget_all(self, next_id: int) -> None:
        """Drop every session, and number those to come from ``next_id``, which must not go back."""
        if next_id < self.next_id:
            raise ValueError(f"session {next_id} is below {self.next_id}")
        self._sessions.clear()
        self._holders.clear()
        self.stored_bytes = self._digest_sum = 0
        self.next_id = next_id

    # -- snapshots --------------------------------------------------------------------------------

    def capture(self) -> list[Session]:
        """All sessions as they are now, least recently used first. From now on a session is copied before
        it is first changed, so this costs one list, and what it holds never changes."""
        self._epoch += 1
        return list(self._sessions.values())

    def load(self, items: Iterable[Any]) -> None:
        """Add sessions as :func:`dump_session` wrote them, in their order."""
        for session_id, last_used_ms, acknowledged_below, results, *owner in items:
            session = Session(session_id, last_used_ms, acknowledged_below, self._epoch, *owner)
            self._sessions[session_id] = session
            self._digest_sum += session.digest
            for sequence, packed in results:
                session.results[sequence] = packed
                session.stored_bytes += RESULT_OVERHEAD_BYTES + len(packed)
                self._digest_sum += _result_digest(session_id, sequence, packed)
                self._holders[session_id] = None
            self.stored_bytes += session.stored_bytes

    def full_state_hash(self) -> int:
        """``state_hash`` computed from the sessions alone."""
        twin = SessionTable(self.limits)
        twin.load(dump_session(session) for session in self._sessions.values())
        twin.next_id = self.next_id
        return twin.state_hash

    def check(self) -> None:
        """Assert the invariants. For tests and the simulator: walks everything."""
        assert self.state_hash == self.full_state_hash()
        assert self.stored_bytes == sum(session.stored_bytes for session in self._sessions.values())
        assert self.stored_bytes <= self.limits.max_total_bytes
        assert len(self._sessions) <= self.limits.max_sessions
        assert list(self._holders) == [session.id for session in self._sessions.values() if session.results]
        times = [session.last_used_ms for session in self._sessions.values()]
        assert times == sorted(times)
        for session in self._sessions.values():
            assert all(sequence >= session.acknowledged_below for sequence in session.results)
            assert len(session.results) <= self.limits.window_batches
            assert session.id < self.next_id


def dump_session(session: Session) -> list[Any]:
    """One session for a snapshot: id, last use, watermark, stored results in order of execution, its owner if it has
    one."""
    results = [[sequence, packed] for sequence, packed in session.results.items()]
    dumped = [session.id, session.last_used_ms, session.acknowledged_below, results]
    return dumped if session.owner is None else [*dumped, session.owner]


def _session_digest(session_id: int, acknowledged_below: int, last_used_ms: int, owner: bytes | None) -> int:
    digest = mix(session_id, acknowledged_below, last_used_ms)
    return digest if owner is None else mix(digest, chain(0, owner), len(owner))


def _result_digest(session_id: int, sequence: int, packed: bytes) -> int:
    return mix(session_id, sequence, chain(0, packed))


_EXPIRED: Final = BatchResult(BatchStatus.EXPIRED, NO_RESULTS)
_STALE: Final = BatchResult(BatchStatus.STALE, NO_RESULTS)
_WINDOW: Final = BatchResult(BatchStatus.WINDOW, NO_RESULTS)
