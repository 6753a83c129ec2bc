"""Every error a user of Lattice can meet, named for what the caller can do next.

::

    LatticeError
    ├── NotApplied                     known not to have happened; trying again is safe
    │   ├── Unavailable                no member could take it in time                    (exit 3)
    │   │   ├── NotLeader              ask the leader instead; carries a hint
    │   │   ├── NoLeader               an election is under way; wait and try again
    │   │   ├── TooStale               older than the read allows; ask the leader, or another member
    │   │   └── Busy                   a bounded queue is full; slow down and try again
    │   ├── InvalidRequest             the request itself is wrong; correct it            (exit 2)
    │   │   └── TooLarge               over a limit; carries limit and actual size
    │   ├── NotAllowed                 refused by a rule of the cluster                   (exit 4)
    │   │   ├── Unauthenticated        no valid token: log in, or have one made
    │   │   └── PermissionDenied       no role allows it: ask an administrator
    │   ├── RevisionCompacted          history before a revision is gone; read a newer one (exit 1)
    │   └── SessionExpired             the session's memory is gone; open a new one       (exit 3)
    ├── OutcomeUnknown                 sent, and not known whether it was applied         (exit 5)
    └── Fatal                          this node cannot go on; a person has to look       (exit 3)
        ├── ConfigurationError         options that are wrong or contradict each other    (exit 2)
        ├── DirectoryInUse             another process holds the data directory
        ├── IdentityMismatch           the data directory belongs to another node or cluster (exit 2)
        ├── ServerRemoved              this server is no member of its cluster any more   (exit 4)
        ├── StateDiverged              this member's state is not the others': it must not be served
        ├── StorageDamaged             names file, offset and the way out
        │   └── NotASnapshot           it does not even begin as one
        ├── StorageFailed              the disk refused: never retried
        └── UnknownCommand             the log holds a command this version does not know

``str(error)`` is one line for a person: what failed and why. ``error.hint`` is the next thing to try,
or None. ``error.exit_code`` is the command line's (CLI.md). ``isinstance(error, NotApplied)`` and
``isinstance(error, OutcomeUnknown)`` are the two questions a program should ask.
"""

from __future__ import annotations

from typing import ClassVar


class LatticeError(Exception):
    """The root: catch this to catch everything Lattice raises on purpose."""

    exit_code: ClassVar[int] = 3
    default_hint: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint


class NotApplied(LatticeError):
    """The operation is known not to have happened."""


class Unavailable(NotApplied):
    """No member could take the request before its deadline, and nothing was applied."""

    default_hint = "lattice cluster status"


class NotLeader(Unavailable):
    """The member asked is not the leader. ``leader_addr`` is the leader's client address, if known."""

    def __init__(self, message: str, *, leader_addr: str | None = None, leader_name: str | None = None) -> None:
        super().__init__(message)
        self.leader_addr = leader_addr
        self.leader_name = leader_name


class NoLeader(Unavailable):
    """There is no leader at the moment, as far as the member asked knows."""


class TooStale(Unavailable):
    """No member that could be asked knows its state to be as new as ``max_stale`` demands."""


class Busy(Unavailable):
    """A bounded queue is full (gRPC RESOURCE_EXHAUSTED): nothing was applied, slow down."""


class InvalidRequest(NotApplied):
    """The request is malformed; sending it again unchanged cannot help."""

    exit_code = 2


class TooLarge(InvalidRequest):
    """Something is over a limit; both numbers are in bytes unless the message says otherwise."""

    def __init__(self, message: str, *, limit: int, actual: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit
        self.actual = actual


class NotAllowed(NotApplied):
    """A rule of the cluster forbids it."""

    exit_code = 4


class Unauthenticated(NotAllowed):
    """Access control is enabled, and the request came without a token, or with one that is not valid."""

    default_hint = "lattice login USER, and then --token-file FILE"


class PermissionDenied(NotAllowed):
    """Access control is enabled, and none of the user's roles allows it."""

    default_hint = "ask an administrator; lattice access status says who you are"


class RevisionCompacted(NotApplied):
    """History up to ``compacted_revision`` is no longer kept."""

    exit_code = 1

    def __init__(self, message: str, *, compacted_revision: int) -> None:
        super().__init__(message, hint=f"read at revision {compacted_revision + 1} or later, or without --revision")
        self.compacted_revision = compacted_revision


class SessionExpired(NotApplied):
    """The cluster no longer remembers this client's session; nothing was executed under it just now."""


class OutcomeUnknown(LatticeError):
    """The request was sent and no answer came in time: it may or may not have been applied."""

    exit_code = 5
    default_hint = "read the key to see whether it was applied"


class Fatal(LatticeError):
    """The node cannot continue safely."""


class ConfigurationError(Fatal):
    """Options, file or environment are wrong; the message names both sides of a contradiction."""

    exit_code = 2


class DirectoryInUse(Fatal):
    """Another process holds the lock of the data directory."""


class IdentityMismatch(Fatal):
    """What the data directory knows contradicts what was asked."""

    exit_code = 2


class ServerRemoved(Fatal):
    """This server was removed from its cluster; its data directory is of no use any more."""

    exit_code = 4


class StateDiverged(Fatal):
    """A majority of the members has another state than this one after the same entry of the log."""


class StorageDamaged(Fatal):
    """A file is damaged in a place where cutting it could lose acknowledged writes."""

    def __init__(self, message: str, *, path: str, offset: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.offset = offset


class NotASnapshot(StorageDamaged):
    """The file does not begin as a snapshot does. Of a file that somebody named: another one was meant."""


class StorageFailed(Fatal):
    """The operating system refused a write or an fsync. Never retried: what the cache says after a
    failed fsync cannot be trusted."""


class UnknownCommand(Fatal):
    """The log holds a command from a newer version: applying on without it would diverge."""
