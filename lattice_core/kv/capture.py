"""The state as a stream of chunks, and back (the file around them is the storage package's).

Chunks are small msgpack-able lists, in this order:

    ["header",   {...}]                one, see :meth:`Capture.header`
    ["access",   [...]]                one, see :meth:`Access.dump`; none if access was never set up
    ["sessions", [session, ...]]       least recently used first
    ["keys",     [record, ...]]        in key order: key, value, create and mod revision, version, lease id
    ["end"]                            one: a stream without it was cut

The same state gives the same chunks, byte for byte, on every member. History is not in them: a restored
store can be read at its own revision and later ones.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import astuple
from typing import Any, Final

from lattice_core.errors import Fatal, UnknownCommand
from lattice_core.kv.access_state import Access
from lattice_core.kv.digests import state_digest
from lattice_core.kv.sessions import Session, SessionLimits, SessionTable, dump_session
from lattice_core.kv.store import HistoryLimits, Store

CHUNKS_VERSION: Final = 1

DEFAULT_CHUNK_ITEMS: Final = 1000
"""Half a millisecond of work, so a slice between two heartbeats is never noticed."""

DEFAULT_CHUNK_BYTES: Final = 1024 * 1024
"""Bounds a chunk where values are large; a single larger session or record still makes one chunk."""


class Capture:
    """Everything replicated at one applied index, unmoved by what is applied after (SAFETY 25).

    Costs one list of the sessions; the rest is copied on write. Close it, or exhaust :meth:`to_chunks`,
    or writes go on paying for it.
    """

    def __init__(
        self,
        store: Store,
        sessions: SessionTable,
        access: Access,
        *,
        applied_index: int,
        applied_term: int,
        time_ms: int,
        applied_digest: int,
        state_hash: int,
    ) -> None:
        self.applied_index = applied_index
        self.applied_term = applied_term
        self.time_ms = time_ms
        self.applied_digest = applied_digest
        self.state_hash = state_hash
        self.session_limits = sessions.limits
        self.next_session_id = sessions.next_id
        self.access = access
        self._view = store.view()
        self._sessions = sessions.capture()
        self.revision = self._view.revision
        self.key_count = self._view.count
        self.session_count = len(self._sessions)

    def header(self) -> dict[str, Any]:
        return {
            "chunks_version": CHUNKS_VERSION,
            "applied_index": self.applied_index,
            "applied_term": self.applied_term,
            "applied_digest": self.applied_digest,
            "time_ms": self.time_ms,
            "revision": self.revision,
            "state_hash": self.state_hash,
            "keys": self.key_count,
            "sessions": self.session_count,
            "next_session_id": self.next_session_id,
            "session_limits": list(astuple(self.session_limits)),
        }

    def to_chunks(
        self, max_items: int = DEFAULT_CHUNK_ITEMS, max_bytes: int = DEFAULT_CHUNK_BYTES
    ) -> Generator[list[Any], None, None]:
        """The stream, once; a chunk is made when it is asked for. Closes the capture at its end."""
        try:
            yield ["header", self.header()]
            if not self.access.is_empty:
                yield ["access", self.access.dump()]
            for sessions in _slices(self._sessions, max_items, max_bytes):
                yield ["sessions", [dump_session(session) for session in sessions]]
            while items := self._view.read_slice(max_items, max_bytes):
                yield ["keys", items]
            yield ["end"]
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the pinned state. Safe to repeat."""
        self._view.close()
        self._sessions = []


def _slices(sessions: list[Session], max_items: int, max_bytes: int) -> Iterator[list[Session]]:
    taken: list[Session] = []
    size = 0
    for session in sessions:
        if taken and (len(taken) == max_items or size + session.stored_bytes > max_bytes):
            yield taken
            taken, size = [], 0
        taken.append(session)
        size += session.stored_bytes
    if taken:
        yield taken


_NUMBERS: Final = (
    *("applied_index", "applied_term", "applied_digest", "time_ms", "revision", "state_hash", "keys", "sessions"),
    "next_session_id",
)


class Restore:
    """Takes the chunks one by one, so that a large state can be loaded without holding up the loop.

    Then ``StateMachine.restored(restore)``, which verifies that all arrived and that the hash is the one
    that was captured.
    """

    def __init__(self, *, history: HistoryLimits | None = None) -> None:
        self.header: dict[str, Any] = {}
        self.store = Store(history)
        self.sessions = SessionTable()
        self.access = Access()
        self._ended = False

    def feed(self, chunk: Any) -> None:
        try:
            self._feed(chunk)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise Fatal(f"a chunk of the snapshot cannot be read: {error!r}") from error

    def _feed(self, chunk: Any) -> None:
        kind = chunk[0]
        if self._ended or (kind == "header") == bool(self.header):
            raise Fatal(f"a chunk {kind!r} is out of place in the snapshot")
        if kind == "header":
            header = dict(chunk[1])
            if header["chunks_version"] != CHUNKS_VERSION:
                raise UnknownCommand(
                    f"the snapshot's contents have version {header['chunks_version']};"
                    f" this program knows version {CHUNKS_VERSION}",
                    hint="start a version of Lattice at least as new as the other members'",
                )
            if unusable := [name for name in _NUMBERS if type(header.get(name)) is not int]:
                raise Fatal(f"the snapshot's header has no number for {', '.join(unusable)}")
            self.header = header
            self.sessions = SessionTable(SessionLimits(*header["session_limits"]))
            self.sessions.next_id = header["next_session_id"]
        elif kind == "access":
            self.access = Access.load(chunk[1])
        elif kind == "sessions":
            self.sessions.load(chunk[1])
        elif kind == "keys":
            self.store.load(chunk[1])
        elif kind == "end":
            self.store.finish_loading(self.header["revision"])
            self._ended = True
        else:
            raise UnknownCommand(f"a chunk {kind!r} in the snapshot is not known to this program")

    def verify(self) -> None:
        """Raise Fatal unless exactly what was captured has arrived."""
        header = self.header
        if not self._ended:
            raise Fatal("the snapshot ends before its state is complete")
        found = (len(self.store), len(self.sessions))
        if found != (header["keys"], header["sessions"]):
            raise Fatal(
                f"the snapshot promises {header['keys']} keys and {header['sessions']} sessions,"
                f" and holds {found[0]} and {found[1]}"
            )
        store = self.store
        digest = state_digest(
            store.state_hash,
            store.revision,
            self.sessions.state_hash,
            header["time_ms"],
            self.access.full_state_hash(),
        )
        if digest != header["state_hash"]:
            raise Fatal(f"the snapshot's state has hash {digest:016x}, not {header['state_hash']:016x} as captured")
