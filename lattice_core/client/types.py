"""What the client's methods of the store return: small, immutable, and the same for both clients.

What is said of members is in cluster_types.py, apart, for whoever only reads and writes keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Consistency: TypeAlias = Literal["linearizable", "lease", "stale"]
"""How fresh a read must be.

``linearizable``  after every write that was acknowledged before the read began (one quorum round, shared).
``lease``         the same as long as members' clocks keep their drift bound; no round while the lease holds.
``stale``         whatever the member asked has applied; ``stale_seconds`` says how long ago it heard of a leader.
                  With ``max_stale`` it answers only if it knows that its state is no older than that.
"""


class KeyValue(NamedTuple):
    """One key as it stood at the revision read."""

    key: bytes
    value: bytes
    create_revision: int
    """The revision of the put that created the key; a delete and a new put begin anew."""
    mod_revision: int
    """The revision of its last change: what ``put(if_revision=)`` compares."""
    version: int
    """How often it was written since it was created; from 1."""
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class RangeResult:
    """A slice of the keyspace, all of it at one revision."""

    kvs: tuple[KeyValue, ...]
    more: bool
    """Keys were left out, because of ``limit`` or because the answer reached the server's bound in bytes.
    Ask again from the last key + b"\\0", at ``revision``."""
    count: int
    """Keys in the whole range, those left out included."""
    revision: int
    """The store's revision when it was read."""
    stale_seconds: float = 0.0
    """Stale reads only: how long ago, at most, the member that answered had last heard of a leader; with ``max_stale``
    how long ago, at most, this was the newest state there was."""


class PutResult(NamedTuple):
    """What became of a conditional put. True in a boolean context if it was stored."""

    stored: bool
    revision: int
    """If stored, the new revision; else the key's ``mod_revision`` as it is (0: there is no such key)."""

    def __bool__(self) -> bool:
        return self.stored


class DeleteResult(NamedTuple):
    """True in a boolean context if anything was deleted."""

    deleted: int
    """How many keys there were to delete."""
    revision: int
    """The store's revision afterwards."""

    def __bool__(self) -> bool:
        return self.deleted > 0


class CasResult(NamedTuple):
    """True in a boolean context if the value was the expected one and has been replaced."""

    swapped: bool
    revision: int
    """The store's revision afterwards."""

    def __bool__(self) -> bool:
        return self.swapped


TxnOpResult: TypeAlias = int | KeyValue | RangeResult | DeleteResult | None
"""Of a put the revision, of a get a KeyValue or None, of a get_range a RangeResult, of a delete a DeleteResult."""


class TxnResult(NamedTuple):
    """What a transaction has done. True in a boolean context if every comparison held."""

    succeeded: bool
    """Every comparison held, and ``then`` was done; else ``otherwise`` was."""
    revision: int
    """The store's revision afterwards: that of all the transaction's writes, if it made any."""
    results: tuple[TxnOpResult, ...]
    """One for each operation that was done, in order."""
    failed: int | None = None
    """The position in ``when`` of the first comparison that did not hold."""

    def __bool__(self) -> bool:
        return self.succeeded


class PutManyResult(NamedTuple):
    """A bulk load that is done."""

    stored: int
    """How many puts were acknowledged: all there were."""
    revision: int
    """The highest of their revisions; 0 if there were none."""
