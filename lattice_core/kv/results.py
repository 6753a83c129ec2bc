"""What applying a batch answers, and how a client reads it.

Each op's result is a short list whose first element says whether the op's own condition held:

==================  =====================================================================
PUT                 ``[0, revision]``
PUT_IF_REVISION     ``[0, revision]``, or ``[1, mod_revision]`` of the key as it is (0: absent)
DELETE, _RANGE      ``[0, deleted, revision]``
CAS                 ``[0, swapped, revision]``
OPEN_SESSION, _FOR  ``[0, session_id]``
CLOSE_SESSION       ``[0, closed]``
TXN                 ``[0, failed, revision, results]``, or refused, and nothing changed:
                    ``[2, limit's number, limit, actual]`` over a limit of its own (txn.py),
                    ``[3]`` no room beside the transactions before it in the batch: ask again
ACCESS              ``[0]``, or refused: ``[1, reason's number]`` (access.py)
==================  =====================================================================

``revision`` is the store's after the op, whether the op changed anything or not. A batch's results are
kept packed (msgpack): that is how they are stored for retries, counted, and sent to the client.

In a transaction's result ``failed`` is nil if all comparisons held, and then ``results`` are those of its first
list; else it is the position of the first that did not, and they are those of the second. One short list each:
put ``[0]``, delete ``[0, deleted]``, get ``[0, kv or nil]``, range ``[0, [kv, ...], more, count]``, with
``kv = [key, value, create_revision, mod_revision, version, lease id or nil]``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from lattice_core.errors import Busy, InvalidRequest, OutcomeUnknown, SessionExpired, TooLarge
from lattice_core.kv import txn

NO_RESULTS = b"\x90"
"""msgpack of an empty list: what every status but OK comes with."""


class BatchStatus(enum.IntEnum):
    """What became of a batch as a whole. Numbers are on the wire and in snapshots: never reuse one."""

    OK = 0
    """Executed, now or, if this is a retry, the first time."""
    EXPIRED = 1
    """No such session any more: not executed now. An earlier attempt may have been."""
    STALE = 2
    """The client has acknowledged this sequence: executed long ago, the result is gone; not executed now."""
    MALFORMED = 3
    """Not a list of ops: not executed, and a retry cannot help."""
    WINDOW = 4
    """Too many results of this session wait to be acknowledged: not executed, raise acknowledged_below."""


class BatchResult(NamedTuple):
    """The answer to one client batch, in the order of the entry's batches."""

    status: BatchStatus
    packed: bytes = NO_RESULTS

    @property
    def results(self) -> list[list[Any]]:
        """One short list per op (see the module's table); empty unless the status is OK."""
        return decode_results(self.packed)


def decode_results(packed: bytes) -> list[list[Any]]:
    results: list[list[Any]] = msgpack.unpackb(packed)
    return results


def raise_for_status(status: int) -> None:
    """Turn a batch's status into the error that names the caller's next action; OK passes."""
    if status == BatchStatus.OK:
        return
    if status == BatchStatus.EXPIRED:
        raise SessionExpired("the session has expired or was never opened")
    if status == BatchStatus.STALE:
        raise OutcomeUnknown("this batch was acknowledged before: it was applied, but its result is gone")
    if status == BatchStatus.MALFORMED:
        raise InvalidRequest("the batch is not a list of well-formed operations")
    if status == BatchStatus.WINDOW:
        raise Busy("the session has too many unacknowledged batches", hint="wait for answers before sending more")
    raise OutcomeUnknown(f"the server answered with status {status}, which this version does not know")


@dataclass(frozen=True, slots=True)
class TxnResult:
    """``failed`` is the position of the first comparison that did not hold; None: all did. ``results`` stay as the
    module describes them."""

    failed: int | None
    revision: int
    results: Sequence[Sequence[Any]]


def is_crowded(result: Sequence[Any]) -> bool:
    """Whether a transaction was not executed for want of room in its batch: to be asked again, in another one."""
    return bool(result[0] == 3)


def read_txn_result(result: Sequence[Any]) -> TxnResult:
    """The answer to a transaction. Raises TooLarge where it was refused for what it came to, Busy where for what
    came before it in its batch; nothing was changed then."""
    if is_crowded(result):
        raise Busy("the transactions before this one in its batch left no room for it", hint="send it again")
    if result[0] != 0:
        _, which, limit, actual = result
        what = f"visits more than {limit} keys" if which == txn.KEYS_LIMIT else f"answers more than {limit} bytes"
        raise TooLarge(
            f"the transaction {what}: nothing of it was applied",
            limit=limit,
            actual=actual,
            hint="give its ranges a limit, or read and delete outside of it and compare revisions inside",
        )
    return TxnResult(result[1], result[2], result[3])
