"""Taking runs out of the sorted keys and adding them, held against a plain list and the library's own checks."""

from __future__ import annotations

import random

import pytest
from sortedcontainers import SortedList

from lattice_core.kv.key_order import add_all, drop_run


@pytest.mark.parametrize("load", [4, 10])
@pytest.mark.parametrize("seed", range(60))
def test_a_run_is_dropped_and_the_list_stays_a_sorted_list(load: int, seed: int) -> None:
    chance = random.Random(seed)
    keys = SortedList()
    keys._reset(load)  # short lists, so that a few keys make many of them
    plain = sorted(chance.randrange(1000) for _ in range(chance.choice([1, 5, 50, 300])))
    for key in chance.sample(plain, len(plain)):
        keys.add(key)
    while plain:
        low = chance.randrange(len(plain))
        high = chance.randrange(low + 1, len(plain) + 1)
        drop_run(keys, low, high)
        del plain[low:high]
        for added in [chance.randrange(1000) for _ in range(chance.randrange(4))]:
            keys.add(added)
            plain.append(added)
        plain.sort()
        keys._check()
        assert list(keys) == plain
        assert [keys[at] for at in range(len(plain))] == plain
        assert [keys.bisect_left(each) for each in plain] == [plain.index(each) for each in plain]
        if chance.random() < 0.1:
            break


def test_dropping_everything_leaves_an_empty_list_that_can_be_used() -> None:
    keys = SortedList(range(5000))
    drop_run(keys, 0, 5000)
    keys._check()
    keys.add(3)
    assert list(keys) == [3]


@pytest.mark.parametrize("load", [4, 10])
@pytest.mark.parametrize("seed", range(40))
def test_many_keys_are_added_at_once_in_order_or_not(load: int, seed: int) -> None:
    chance = random.Random(seed)
    keys = SortedList()
    keys._reset(load)
    plain: list[bytes] = []
    for _ in range(20):
        above = int(plain[-1]) + 1 if plain and chance.random() < 0.6 else 0
        new = {b"%06d" % (above + chance.randrange(200)) for _ in range(chance.choice([1, 2, 9, 60]))} - {*plain}
        if not new:
            continue
        add_all(keys, chance.sample(sorted(new), len(new)))
        plain = sorted([*plain, *new])
        keys._check()
        assert list(keys) == plain
        assert [keys[at] for at in range(len(plain))] == plain
        assert [keys.bisect_left(each) for each in plain] == list(range(len(plain)))
        if chance.random() < 0.2:
            low = chance.randrange(len(plain))
            drop_run(keys, low, len(plain))
            del plain[low:]
