"""From "this key is not linearizable" to the few operations that show it.

Making a history smaller must not make it wrong: what is shown has to be impossible in itself, and
impossible *because* the recorded history is. So every step here is one after which a linearizable
history would still be linearizable:

* Cutting at a time T: what was called later goes; of what had not returned yet, reads go, and writes become
  open. Of a valid order, what remains of the part before T is one of the prefix.
* Dropping reads: they change nothing for the others.
* Dropping writes *that no kept operation can have looked at*: one that needs to find the value written, or
  merely needs it to be another one (failed compare-and-set, successful delete), either returned before the
  write was called, or is kept apart from it by a kept write called after the one and returned before
  the other. In a valid order the last write before each kept operation is then a kept one or of no
  interest to it. This holds for a whole set dropped at once.
  One write of each value that is found stays all the same: it would not be missed, but readers ask for it.
* Forgetting what a write found: a swapped compare-and-set counts as a put, a delete as one of which nobody
  knows whether it found something. That only asks for less.

Dropping just any write is not such a step: without its put, every get of a value is impossible.
"Returned" is meant as certain: an operation that is open, or that returns after T, has not.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from lattice_core.verify.history import Operation
from lattice_core.verify.wgl import Meter, search

_T = TypeVar("_T")


def cut_at(operations: Iterable[Operation], until: int) -> list[Operation]:
    """The history up to ``until``: later calls gone, and of what returned later the reads gone, the writes open."""
    prefix = []
    for op in operations:
        if op.call_ns > until:
            continue
        if op.outcome != "ok" or op.return_ns is None or op.return_ns <= until:
            if op.outcome == "ok" or op.op != "get":
                prefix.append(op)
        elif value_written(op)[0]:
            prefix.append(replace(op, outcome="unknown", return_ns=None, swapped=None, deleted=None))
    return prefix


def fails(operations: Iterable[Operation], until: int, meter: Meter) -> bool:
    """Proved impossible. Running out of budget is no proof."""
    return search(cut_at(operations, until), meter)[0] is False


def shortest_failing_prefix(operations: Sequence[Operation], meter: Meter) -> int | None:
    times = sorted({op.return_ns for op in operations if op.outcome == "ok" and op.return_ns is not None})
    # Longer prefixes of an impossible history are impossible too, so this may bisect. ``high`` is proved.
    low, high = 0, len(times) - 1
    if high < 0 or not fails(operations, times[high], meter):
        return None
    while low < high:
        middle = (low + high) // 2
        if fails(operations, times[middle], meter):
            high = middle
        else:
            low = middle + 1
    return times[high]


def culprit_of(operations: Sequence[Operation], until: int, meter: Meter) -> tuple[Operation | None, list[Operation]]:
    """The operation by whose return at ``until`` no order is left, and the history to go on with.

    When several return in that nanosecond they are taken one after the other. Those after the culprit then
    return a nanosecond later in the history handed back, which only asks for less, so that ``until`` is the
    culprit's alone. The culprit always found something: a blind write could come last.
    """
    tied = [op for op in operations if op.return_ns == until and op.outcome == "ok"]
    for index, culprit in enumerate(tied):
        later = {id(op) for op in tied[index + 1 :]}
        nudged = [replace(op, return_ns=until + 1) if id(op) in later else op for op in operations]
        if not later or fails(nudged, until, meter):
            return culprit, nudged
    return None, list(operations)


def value_wanted(op: Operation) -> tuple[bool, bytes | None]:
    """(True, the value that this operation needs to find), or (False, None)."""
    if op.op == "get" and op.outcome == "ok":
        return True, op.result
    if op.op == "cas" and (op.swapped or op.outcome == "unknown"):
        return True, op.expected
    if op.op == "delete" and op.outcome == "ok" and op.deleted is False:
        return True, None
    return False, None


def value_refused(op: Operation) -> tuple[bool, bytes | None]:
    """(True, the value that this operation needs not to find), or (False, None)."""
    if op.outcome == "ok":
        if op.op == "cas" and op.swapped is False:
            return True, op.expected
        if op.op == "delete" and op.deleted:
            return True, None
    return False, None


def value_written(op: Operation) -> tuple[bool, bytes | None]:
    """(True, the value after this operation, if it happens), or (False, None) for a read."""
    if op.outcome == "fail" or op.op == "get":
        return False, None
    if op.op == "put":
        return True, op.value
    if op.op == "cas":
        return op.swapped is not False, op.value
    return op.deleted is not False, None


def _simpler(op: Operation) -> Operation | None:
    """A write without what it found, if it found something."""
    if op.outcome == "ok" and op.op == "cas" and op.swapped:
        return replace(op, op="put", expected=None, swapped=None)
    if op.outcome == "ok" and op.op == "delete" and op.deleted:
        return replace(op, deleted=None)
    return None


def _in_call_order(operations: Iterable[Operation]) -> list[Operation]:
    return sorted(operations, key=lambda op: (op.call_ns, op.return_ns is None, op.return_ns or 0))


def usual_suspects(operations: Sequence[Operation], culprit: Operation) -> tuple[list[Operation], set[int]]:
    """The two plain cases, for which no search is needed: a value never written, or gone for good.

    What shows it is the culprit, the last write of the value that it found (or the failed or later one), the
    operation that proves the value gone, and if that is a read, a write of what it found.
    """
    wants, value = value_wanted(culprit)
    if not wants:
        return [], set()
    others = [op for op in operations if op is not culprit]
    until = culprit.return_ns or 0
    writers = [op for op in others if value_written(op) == (True, value)]
    in_time = [op for op in writers if op.call_ns <= until]
    shown: list[Operation] = []
    if value is not None and not in_time:
        never = [op for op in others if op.outcome == "fail" and op.value == value]
        shown = _in_call_order(writers)[:1] or _in_call_order(never)[:1]
    else:
        proof = replaced_by(value, others, culprit)
        if proof is None:
            return [], set()
        shown = [proof, *_in_call_order(in_time)[-1:]]
        if not value_written(proof)[0]:
            found = [
                op for op in others if value_written(op) == value_wanted(proof) and op.call_ns <= (proof.return_ns or 0)
            ]
            shown += _in_call_order(found)[-1:]
    kept = [culprit]
    simplified = set()
    for op in shown:
        simpler = _simpler(op)
        kept.append(simpler or op)
        if simpler is not None:
            simplified.add(id(simpler))
    return _in_call_order(kept), simplified


def _may_go(dropped: Sequence[Operation], kept: Sequence[Operation]) -> bool:
    """Would a linearizable history stay so without these? (See the top of the module.)"""
    writes = sorted((op for op in dropped if value_written(op)[0]), key=lambda op: op.call_ns)
    if not writes:
        return True
    every = _LatestReturn()
    by_value: dict[bytes | None, _LatestReturn] = {}
    for op in writes:
        returned = math.inf if op.outcome == "unknown" or op.return_ns is None else op.return_ns
        every.add(op.call_ns, returned)
        by_value.setdefault(value_written(op)[1], _LatestReturn()).add(op.call_ns, returned)

    # The latest call among kept writes that returned before a time: by return, with a running maximum.
    walls = sorted(
        (op.return_ns, op.call_ns)
        for op in kept
        if op.outcome == "ok" and op.return_ns is not None and value_written(op)[0]
    )
    wall_returns = [returned for returned, _ in walls]
    wall_calls = list(itertools.accumulate((called for _, called in walls), max))
    for op in kept:
        wants, value = value_wanted(op)
        watched = every if value_refused(op)[0] else by_value.get(value) if wants else None
        if watched is None:
            continue
        looks_until = math.inf if op.outcome == "unknown" or op.return_ns is None else op.return_ns
        before = bisect.bisect_left(wall_returns, op.call_ns)
        wall = wall_calls[before - 1] if before else -math.inf
        latest = watched.among_calls_until(looks_until)
        if latest >= wall and latest != -math.inf:
            return False
    return True


def _keeps_sources(dropped: Sequence[Operation], kept: Sequence[Operation]) -> bool:
    """Has every value found in ``kept`` still a write, if it had one?"""
    lost = {value for writes, value in map(value_written, dropped) if writes}
    lost -= {value for writes, value in map(value_written, kept) if writes}
    return not any(wants and value in lost and value is not None for wants, value in map(value_wanted, kept))


class _LatestReturn:
    """The latest return among writes called by a given time. Added in call order."""

    def __init__(self) -> None:
        self._calls: list[int] = []
        self._latest: list[float] = []

    def add(self, called: int, returned: float) -> None:
        self._calls.append(called)
        self._latest.append(max(returned, self._latest[-1]) if self._latest else returned)

    def among_calls_until(self, time_ns: float) -> float:
        count = bisect.bisect_right(self._calls, time_ns)
        return self._latest[count - 1] if count else -math.inf


def shrink(
    operations: Sequence[Operation], culprit: Operation, until: int, meter: Meter
) -> tuple[list[Operation], set[int]]:
    """Fewer and simpler operations, the culprit among them, still impossible. In call order."""
    # What is cut is not needed; what is open at the cut stays as recorded, and counts as open.
    kept = _in_call_order(op for op in operations if cut_at((op,), until))
    simplified: set[int] = set()
    pins: list[Operation] = []  # keeps the ids in ``simplified`` alive

    def drop(units: list[list[Operation]]) -> None:
        nonlocal kept

        def without(chosen: list[list[Operation]]) -> bool:
            nonlocal kept
            gone = {id(op) for unit in chosen for op in unit}
            rest = [op for op in kept if id(op) not in gone]
            cut = cut_at(rest, until)
            dropped = cut_at((op for op in kept if id(op) in gone), until)
            if _keeps_sources(dropped, cut) and _may_go(dropped, cut) and search(cut, meter)[0] is False:
                kept = rest
                return True
            return False

        _remove_chunks(units, without, meter)

    def simplify() -> bool:
        nonlocal kept
        simpler = {id(op): easy for op in kept if op is not culprit and (easy := _simpler(op)) is not None}
        changed = False

        def forget(chosen: list[int]) -> bool:
            nonlocal kept, changed
            identifiers = set(chosen)
            candidate = [simpler[id(op)] if id(op) in identifiers else op for op in kept]
            if not fails(candidate, until, meter):
                return False
            pins.extend(kept)
            kept = candidate
            simplified.update(id(simpler[identifier]) for identifier in chosen)
            changed = True
            return True

        _remove_chunks(list(simpler), forget, meter)
        return changed

    for _ in range(2):
        drop(_by_value(kept, culprit))
        while True:
            before = len(kept)
            drop([[op] for op in kept if op is not culprit])
            if len(kept) == before or meter.exhausted:
                break
        if meter.exhausted or not simplify():
            break
    return kept, simplified


def _by_value(kept: Sequence[Operation], culprit: Operation) -> list[list[Operation]]:
    """A value's writes and reads go together, or a write could hardly ever go."""
    groups: dict[bytes | None, list[Operation]] = {}
    rest: list[list[Operation]] = []
    for op in kept:
        if op is culprit:
            continue
        writes, value = value_written(op)
        if not writes:
            wants, value = value_wanted(op)
            if not wants:
                rest.append([op])
                continue
        groups.setdefault(value, []).append(op)
    return rest + list(groups.values())


def _remove_chunks(units: list[_T], remove: Callable[[list[_T]], bool], meter: Meter) -> None:
    """Delta debugging: try to remove halves, then quarters, down to single ones."""
    size = max(1, len(units) // 2)
    while units and not meter.exhausted:
        at = 0
        while at < len(units) and not meter.exhausted:
            if remove(units[at : at + size]):
                del units[at : at + size]
            else:
                at += size
        if size == 1:
            return
        size = max(1, size // 2)


def order_without(kept: Sequence[Operation], culprit: Operation, until: int, meter: Meter) -> list[int]:
    """A possible order of all but the culprit, as indices into ``kept``."""
    positions: list[int] = []
    cut: list[Operation] = []
    for index, op in enumerate(kept):
        shortened = [] if op is culprit else cut_at((op,), until)
        cut += shortened
        positions += [index] * len(shortened)
    found, order = search(cut, meter)
    return [positions[index] for index in order] if found else []


def value_shown(op: Operation) -> tuple[bool, bytes | None]:
    """(True, a value that the key certainly held at some time between this ok operation's call and return)."""
    if op.outcome != "ok":
        return False, None
    writes, value = value_written(op)
    return (True, value) if writes else value_wanted(op)


def replaced_by(value: bytes | None, others: Sequence[Operation], culprit: Operation) -> Operation | None:
    """An operation which proves that ``value`` was gone for good before the culprit was called.

    Every write of the value had returned before that operation was called, it showed another value, and
    it returned before the culprit was called. Of several, a write and then the earliest.
    """
    last_written: float = -math.inf
    for op in others:
        if value_written(op) == (True, value) and op.call_ns <= (culprit.return_ns or 0):
            if op.return_ns is None or op.outcome == "unknown":
                return None
            last_written = max(last_written, op.return_ns)
    best: Operation | None = None
    for op in others:
        shows, shown = value_shown(op)
        if not shows or shown == value or op.return_ns is None:
            continue
        proves = last_written < op.call_ns and op.return_ns < culprit.call_ns
        if proves and (best is None or preference(op) < preference(best)):
            best = op
    return best


def preference(op: Operation) -> tuple[bool, int]:
    return not value_written(op)[0], op.return_ns or 0
