"""The sorted list of keys: taking out and appending a whole run of them at a cost that hardly depends on its length.

``del keys[low:high]`` of sortedcontainers takes out one key after the other (1.7 µs each), or builds the whole list
anew. Its list is one of short lists, and whole short lists can be dropped at once: 3 µs for a thousand keys. That
needs to know how SortedList is made, which its documentation describes and version 2 has kept since 2018; the tests
hold the result against the library's own checks.
"""

from __future__ import annotations

from typing import Any


def drop_run(keys: Any, low: int, high: int) -> None:
    """``del keys[low:high]`` for a SortedList and ``0 <= low < high <= len(keys)``."""
    lists, maxes = keys._lists, keys._maxes
    first, begin = keys._pos(low)
    last, end = keys._pos(high - 1)
    rest = lists[first][:begin] + lists[last][end + 1 :]
    lists[first : last + 1] = [rest] if rest else []
    maxes[first : last + 1] = [rest[-1]] if rest else []
    keys._len -= high - low
    del keys._index[:]  # built again when it is next needed
    if not rest:
        return
    if len(rest) < keys._load >> 1 and len(lists) > 1:
        # What is left is too short to stand alone: join it with a neighbour.
        second = max(first, 1)
        first = second - 1
        lists[first].extend(lists.pop(second))
        maxes[first] = maxes.pop(second)
    while len(lists[first]) > keys._load << 1:
        keys._expand(first)  # splits off all but the first load
        first += 1


def add_all(keys: Any, new: list[bytes]) -> None:
    """Add keys that are not there yet. If all come after those that are, as in a load in order, at a tenth of what as
    many calls of ``add`` would take. ``new`` is sorted."""
    new.sort()
    lists = keys._lists
    if not lists or new[0] < keys._maxes[-1]:
        for key in new:
            keys.add(key)
        return
    lists[-1].extend(new)
    keys._maxes[-1] = new[-1]
    keys._len += len(new)
    del keys._index[:]  # built again when it is next needed
    while len(lists[-1]) > keys._load << 1:
        keys._expand(len(lists) - 1)  # splits off all but the first load
