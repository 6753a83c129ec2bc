"""What one user may do, made from the access state once and asked for each operation.

Keys are compared by prefix in one call of ``bytes.startswith``, which takes all prefixes at once. A range must lie
wholly within what is allowed: prefixes are joined into ranges that do not touch each other, and one of those has to
hold all of it. Everything in a transaction counts: comparisons and reads too, in either branch, for each tells
something of the keys it names. What is refused is refused by the keys that were asked for alone, never by what is
there, so a refusal tells nothing of the store.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from lattice_core.errors import PermissionDenied
from lattice_core.kv import Op, Ops, txn
from lattice_core.kv.access import ADMIN, LEVELS, READ, WRITE
from lattice_core.kv.access_state import Access
from lattice_core.kv.commands import CAS, DELETE_RANGE, OPEN_SESSION, TXN, prefix_range
from lattice_core.server.read_batches import Get, Read

MAX_SHOWN_BYTES: Final = 64


class Keys:
    """A set of keys, given by prefixes."""

    __slots__ = ("_ends", "_starts", "prefixes")

    def __init__(self, prefixes: Iterable[bytes]) -> None:
        self.prefixes = tuple(sorted(set(prefixes)))
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []  # b"": to the end of the keyspace
        for start, end in map(prefix_range, self.prefixes):
            # In order of their starts: what begins within the last range, or where it ends, belongs to it.
            if self._ends and (not self._ends[-1] or start <= self._ends[-1]):
                if self._ends[-1] and (not end or end > self._ends[-1]):
                    self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)

    def hold(self, key: bytes) -> bool:
        return key.startswith(self.prefixes)

    def hold_range(self, start: bytes, end: bytes) -> bool:
        """Whether all of ``start <= key < end`` is in it; an empty ``end`` reaches to the end of the keyspace."""
        at = bisect_right(self._starts, start) - 1
        if at < 0:
            return False
        limit = self._ends[at]
        return not limit or (start < limit and end != b"" and end <= limit)


class Permission:
    """One user's rights under one access state. ``expires_ms``, in the log's time: the token's; 0: never."""

    __slots__ = ("expires_ms", "is_admin", "reads", "user", "writes")

    def __init__(
        self, user: bytes, *, is_admin: bool, grants: Iterable[tuple[bytes, int]] = (), expires_ms: int = 0
    ) -> None:
        self.user = user
        self.is_admin = is_admin
        self.expires_ms = expires_ms
        held = [(b"", WRITE)] if is_admin else list(grants)
        self.writes = Keys(prefix for prefix, level in held if level == WRITE)
        self.reads = Keys(prefix for prefix, level in held if level in (READ, WRITE))

    @classmethod
    def of(cls, access: Access, user: bytes, expires_ms: int) -> Permission:
        is_admin = ADMIN in access.users[user].roles
        return cls(user, is_admin=is_admin, grants=access.grants_of(user), expires_ms=expires_ms)

    @property
    def name(self) -> str:
        return self.user.decode(errors="replace")

    def require_admin(self, what: str) -> None:
        """Raises PermissionDenied for everybody else."""
        if not self.is_admin:
            raise PermissionDenied(
                f"{what} is for administrators, and {self.name} is none",
                hint=f"an administrator can grant that: lattice user grant {self.name} admin",
            )

    def check_ops(self, ops: Ops) -> None:
        """Raises PermissionDenied unless all of a batch is allowed."""
        if self.is_admin:
            return
        writes = self.writes.prefixes
        for op in ops:
            opcode = op[0]
            if opcode < DELETE_RANGE or opcode == CAS:  # nearly every op there is
                if not op[1].startswith(writes):
                    raise self._denied(WRITE, op[1])
            elif opcode == DELETE_RANGE:
                self._check_range(WRITE, op[1], op[2])
            elif opcode == TXN:
                self._check_transaction(op)
            elif opcode < OPEN_SESSION:
                raise AssertionError(f"nobody has said what an operation with code {opcode} needs")

    def check_reads(self, reads: Sequence[Read]) -> None:
        """Raises PermissionDenied unless all of a batch is allowed."""
        if self.is_admin:
            return
        for read in reads:
            if isinstance(read, Get):
                self._check_key(READ, read.key)
            else:
                self._check_range(READ, read.start, read.end)

    def _check_transaction(self, op: Op) -> None:
        _, compares, then, otherwise = op
        for _, _, key, end, _ in compares:
            if end is None:
                self._check_key(READ, key)
            else:
                self._check_range(READ, key, end)
        for inner in (*then, *otherwise):
            code = inner[0]
            if code == txn.GET:
                self._check_key(READ, inner[1])
            elif code == txn.RANGE:
                self._check_range(READ, inner[1], inner[2])
            elif code == txn.DELETE_RANGE:
                self._check_range(WRITE, inner[1], inner[2])
            else:
                self._check_key(WRITE, inner[1])

    def _check_key(self, level: int, key: bytes) -> None:
        if not (self.writes if level == WRITE else self.reads).hold(key):
            raise self._denied(level, key)

    def _check_range(self, level: int, start: bytes, end: bytes) -> None:
        if not (self.writes if level == WRITE else self.reads).hold_range(start, end):
            raise self._denied(level, start, end)

    def _denied(self, level: int, start: bytes, end: bytes | None = None) -> PermissionDenied:
        word = LEVELS[level]
        if end is None:
            what = f"the key {_shown(start)}"
        elif end:
            what = f"all keys from {_shown(start)} to {_shown(end)}"
        else:
            what = f"all keys from {_shown(start)} on" if start else "all keys"
        return PermissionDenied(
            f"{self.name} may not {word} {what}",
            hint=f"an administrator can grant that: lattice role grant ROLE {word} PREFIX, "
            f"lattice user grant {self.name} ROLE",
        )


def _shown(key: bytes) -> str:
    text = repr(key[:MAX_SHOWN_BYTES].decode(errors="backslashreplace"))
    return text if len(key) <= MAX_SHOWN_BYTES else f"{text}..."
