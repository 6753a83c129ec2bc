"""Invariants of workloads that are not single registers, as pure functions over what clients recorded.

Each takes plain values and returns the violations as lines for a person; an empty list is a pass. They are
necessary conditions, cheap and exact, not full models: registers go to ``check_history``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

_H = TypeVar("_H", bound=Hashable)

# A person reads so many; one bug tends to show a thousand times.
_MAX_LISTED = 5


def check_unique_set(*, acknowledged: Iterable[_H], unknown: Iterable[_H], final: Iterable[_H]) -> list[str]:
    """Every acknowledged insertion is there once at the end, and nothing that nobody inserted."""
    sure, perhaps = set(acknowledged), set(unknown)
    found = Counter(final)
    violations = [*_listed("acknowledged element lost", sure - found.keys())]
    violations += _listed("element that nobody added", found.keys() - sure - perhaps)
    violations += _listed("element present more than once", {item for item, times in found.items() if times > 1})
    return violations


def check_append_list(
    *,
    acknowledged: Iterable[_H],
    unknown: Iterable[_H],
    reads: Iterable[Sequence[_H]],
    final: Sequence[_H],
    precedes: Iterable[tuple[_H, _H]] = (),
) -> list[str]:
    """Appends of distinct elements to one list.

    Each read is a prefix of the final list; acknowledged elements are in it once, unknown ones at most once;
    for each pair in ``precedes`` (the first was acknowledged before the second was called) the order holds.
    """
    violations = check_unique_set(acknowledged=acknowledged, unknown=unknown, final=final)
    final_list = list(final)
    for read in reads:
        if list(read) != final_list[: len(read)]:
            at = next(
                (index for index, (a, b) in enumerate(zip(read, final_list, strict=False)) if a != b), len(final_list)
            )
            violations.append(f"a read is not a prefix of the final list: they differ at position {at}")
            break
    position = {item: index for index, item in reversed(list(enumerate(final_list)))}
    for before, after in precedes:
        if before in position and after in position and position[before] > position[after]:
            violations.append(f"{before!r} was acknowledged before {after!r} was appended, but stands behind it")
            break
    return violations


def check_bank_total(*, total: int, snapshots: Iterable[Mapping[str, int]], allow_negative: bool = False) -> list[str]:
    """Transfers move money: every snapshot of the accounts, read atomically, adds up to the same total."""
    violations: list[str] = []
    for number, accounts in enumerate(snapshots):
        if sum(accounts.values()) != total:
            violations.append(f"snapshot {number} adds up to {sum(accounts.values())}, not {total}")
        if not allow_negative:
            negative = sorted(name for name, balance in accounts.items() if balance < 0)
            if negative:
                violations.append(f"snapshot {number} has a negative balance: {', '.join(negative[:_MAX_LISTED])}")
        if len(violations) >= _MAX_LISTED:
            break
    return violations


def check_session_counter(
    *, acknowledged: int, unknown: int, final: int, reads_in_order: Iterable[int] = ()
) -> list[str]:
    """Increments under sessions are applied exactly once, and one client's successive reads never go back.

    The final count is at least what was acknowledged, and at most that and what is unknown.
    """
    violations: list[str] = []
    if final < acknowledged:
        violations.append(f"lost: {acknowledged} increments were acknowledged, the counter is at {final}")
    if final > acknowledged + unknown:
        violations.append(
            f"applied twice: {acknowledged} increments acknowledged and {unknown} unknown, the counter is at {final}"
        )
    last: int | None = None
    for count in reads_in_order:
        if last is not None and count < last:
            violations.append(f"went back: a read of {count} after a read of {last}")
            break
        last = count
    return violations


def _listed(what: str, items: Iterable[Hashable]) -> list[str]:
    names = sorted(map(repr, items))
    if not names:
        return []
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return [f"{what}: {', '.join(names[:_MAX_LISTED])}{more}"]
