"""The store's edges, each on its own; test_store_model.py goes through the combinations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from lattice_core.errors import InvalidRequest, RevisionCompacted
from lattice_core.kv import HistoryLimits, Store
from lattice_core.kv.store import SEGMENTS


def filled(keys: int, history: HistoryLimits | None = None) -> Store:
    store = Store(history)
    for n in range(keys):
        store.put(b"%03d" % n, b"v%d" % n)
    return store


def keys_of(store: Store, *, revision: int | None = None, reverse: bool = False) -> list[bytes]:
    return [kv.key for kv in store.range(b"", b"", revision=revision, reverse=reverse).kvs]


def test_deleting_nothing_is_no_revision_and_deleting_many_is_one() -> None:
    store = filled(10)
    assert (store.delete(b"absent"), store.delete_range(b"x", b"y"), store.revision) == (0, 0, 10)
    assert (store.delete_range(b"5", b"1"), store.revision) == (0, 10)  # the wrong way round
    assert (store.delete_range(b"", b""), store.revision, len(store)) == (10, 11, 0)
    assert len(keys_of(store, revision=10)) == 10


def test_a_past_range_puts_deleted_keys_back_in_their_places_in_both_directions() -> None:
    store = filled(9)
    for key in (b"001", b"004", b"005", b"008"):
        store.delete(key)
    store.put(b"0005", b"new since")
    expected = [b"%03d" % n for n in range(9)]
    assert keys_of(store, revision=9) == expected
    assert keys_of(store, revision=9, reverse=True) == expected[::-1]
    page = store.range(b"", b"", limit=3, revision=9, reverse=True)
    assert [kv.key for kv in page.kvs] == expected[:-4:-1]
    assert (page.more, page.count) == (True, 9)


def test_pages_read_at_the_first_pages_revision_are_one_state() -> None:
    store = filled(50)
    before = keys_of(store)
    page = store.range(b"", b"", limit=7)
    read = [kv.key for kv in page.kvs]
    while page.more:
        store.delete(b"%03d" % random.Random(len(read)).randrange(50))
        store.put(read[-1] + b"-and-more", b"")
        page = store.range(read[-1] + b"\x00", b"", limit=7, revision=page.revision)
        read += [kv.key for kv in page.kvs]
    assert read == before


def test_a_range_is_bounded_in_bytes_but_always_gets_on() -> None:
    store = Store()
    for n in range(5):
        store.put(b"%d" % n, bytes(99))
    assert len(store.range(b"", b"", max_bytes=250).kvs) == 2
    found = store.range(b"", b"", max_bytes=1)
    assert (len(found.kvs), found.more, found.count) == (1, True, 5)
    assert len(store.range(b"", b"", max_bytes=250, keys_only=True).kvs) == 5


def test_a_read_in_the_future_or_before_the_beginning_is_refused() -> None:
    store = filled(3)
    for revision in (4, -1):
        with pytest.raises(InvalidRequest):
            store.get(b"000", revision)
        with pytest.raises(InvalidRequest):
            store.range(b"", b"", revision=revision)
        with pytest.raises(InvalidRequest):
            store.changes_since(revision)
    with pytest.raises(InvalidRequest):
        store.range(b"", b"", limit=0)
    assert store.get(b"000", 0) is None
    assert keys_of(store, revision=0) == []


def test_history_keeps_at_least_what_was_asked_for_and_not_much_more() -> None:
    store = Store(HistoryLimits(max_changes=100))
    for n in range(1, 2000):
        store.put(b"k", b"%d" % n)
        kept = store.revision - store.oldest_revision
        assert min(n, 100) <= kept <= 100 + 2 * (100 // SEGMENTS + 1)
        found = store.get(b"k", max(1, store.oldest_revision))
        assert found is not None
        assert found.value == b"%d" % max(1, store.oldest_revision)
    store.check()


def test_what_is_no_longer_kept_names_the_oldest_that_is() -> None:
    store = filled(1000, HistoryLimits(max_changes=10))
    oldest = store.oldest_revision
    with pytest.raises(RevisionCompacted) as caught:
        store.get(b"000", oldest - 1)
    assert caught.value.compacted_revision == oldest - 1
    assert len(keys_of(store, revision=oldest)) == oldest
    with pytest.raises(RevisionCompacted):
        store.changes_since(oldest - 1)
    assert len(store.changes_since(oldest)) == 1000 - oldest
    assert [change[0] for change in store.changes_since(oldest, limit=2)] == [oldest + 1, oldest + 2]


def test_history_is_bounded_in_bytes() -> None:
    store = Store(HistoryLimits(max_bytes=1_000_000))
    for n in range(300):
        store.put(b"%d" % (n % 7), bytes(20_000))
        store.check()
    assert 30 <= store.revision - store.oldest_revision <= 50
    store.put(b"huge", bytes(2_000_000))
    store.put(b"huge", b"")  # its old value alone is over the limit
    assert store.oldest_revision == store.revision
    assert len(keys_of(store)) == 8


def test_a_range_deletion_larger_than_the_history_is_still_one_revision() -> None:
    store = filled(500, HistoryLimits(max_changes=100))
    assert store.delete_range(b"", b"") == 500
    assert store.oldest_revision == store.revision == 501
    assert keys_of(store, revision=501) == []
    with pytest.raises(RevisionCompacted):
        store.get(b"000", 500)


def test_a_view_remembers_only_what_it_has_yet_to_read() -> None:
    store = filled(100)
    view = store.view()
    assert len(view.read_slice(50)) == 50
    for n in range(50):
        store.put(b"%03d" % n, b"behind")
    store.delete_range(b"000", b"020")
    assert not view._replaced
    store.put(b"070", b"ahead")
    store.delete(b"071")
    store.put(b"072", b"ahead")
    store.delete(b"072")
    assert (len(view._replaced), len(view._deleted)) == (3, 2)
    read = view.read_slice(100)
    assert [item[:2] for item in read] == [(b"%03d" % n, b"v%d" % n) for n in range(50, 100)]
    assert not view._replaced
    assert not view._deleted


def test_a_slice_of_a_view_looks_at_no_more_keys_than_it_may_return_however_many_were_deleted() -> None:
    """It took half a second a slice, and minutes in all, where 300,000 keys were deleted under a snapshot."""
    store = filled(900)
    view = store.view()
    store.delete_range(b"100", b"")
    store.put(b"1000", b"created since")
    looked_at = 0
    irange = view._deleted.irange

    def counted(*args: Any) -> Iterator[bytes]:
        nonlocal looked_at
        for key in irange(*args):
            looked_at += 1
            yield key

    view._deleted.irange = counted
    read: list[bytes] = []
    slices = 0
    while items := view.read_slice(50):
        read += [item[0] for item in items]
        slices += 1
    assert read == [b"%03d" % n for n in range(900)]
    assert 800 <= looked_at <= 50 * (slices + 1)


def test_a_view_that_has_been_read_stays_read_and_costs_nothing() -> None:
    store = filled(3)
    view = store.view()
    assert len(view.read_slice(10)) == 3
    assert view.read_slice(10) == []
    store.put(b"zzz", b"later")
    assert view.read_slice(10) == []
    assert store._views == []
    view.close()
    with pytest.raises(ValueError, match="closed"):
        view.read_slice(1)


def test_two_views_stand_at_their_own_revisions() -> None:
    store = filled(4)
    first = store.view()
    store.delete(b"001")
    store.put(b"9", b"")
    second = store.view()
    store.delete_range(b"", b"")
    assert [item[0] for item in first.read_slice(9)] == [b"000", b"001", b"002", b"003"]
    assert [item[0] for item in second.read_slice(9)] == [b"000", b"002", b"003", b"9"]
    assert (first.revision, second.revision, store.revision) == (4, 6, 7)


def test_a_store_that_nobody_uses_any_more_is_taken_apart_bit_by_bit() -> None:
    store = filled(1000, HistoryLimits(max_changes=500, max_bytes=1 << 20))
    steps = 0
    while store.dissolve(100):
        steps += 1
        assert len(store) == max(0, 1000 - 100 * steps)
    assert 19 <= steps <= 40
    assert (len(store), keys_of(store), list(store._changes_after(-1))) == (0, [], [])
