"""Which keys and ranges a set of prefixes allows: compared with looking at every key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice_core.errors import PermissionDenied
from lattice_core.kv.access import READ, WRITE
from lattice_core.server.permissions import Keys, Permission

SHORT = st.binary(max_size=2).map(lambda data: bytes(b"ab\xff"[each % 3] for each in data))
ALPHABET = [b"ab\xff"[i : i + 1] for i in range(3)]
EVERY_KEY = [x + y + z for x in ALPHABET for y in [b"", *ALPHABET] for z in [b"", *ALPHABET] if y or not z]


@given(st.lists(SHORT, max_size=4), SHORT, SHORT)
def test_a_range_is_allowed_only_if_every_key_in_it_is(prefixes: list[bytes], start: bytes, end: bytes) -> None:
    keys = Keys(prefixes)
    inside = [key for key in EVERY_KEY if start <= key and (not end or key < end)]
    if keys.hold_range(start, end):
        assert all(keys.hold(key) for key in inside)
    elif not end or start < end:
        # Some key in it is not: perhaps one of other bytes than these, at either end or between two prefixes.
        outside = [key + extra for key in [b"", *EVERY_KEY] for extra in (b"", b"\0", b"c", b"\xff\xff\xff\xff")]
        assert any(start <= key and (not end or key < end) and not keys.hold(key) for key in outside if key)


def test_prefixes_that_touch_are_one_range() -> None:
    keys = Keys([b"a", b"b", b"bx"])
    assert keys.hold_range(b"a", b"c")
    assert not keys.hold_range(b"a", b"c\0")
    assert not keys.hold_range(b"a", b"")
    assert Keys([b"\xff"]).hold_range(b"\xff\xff", b"")
    assert Keys([b""]).hold_range(b"", b"")
    assert not Keys([]).hold_range(b"", b"")


def test_write_includes_read_and_read_does_not_include_write() -> None:
    permission = Permission(b"ann", is_admin=False, grants=[(b"a", READ), (b"b", WRITE)])
    permission.check_ops(((1, b"b1", b"v"),))
    with pytest.raises(PermissionDenied, match="ann may not write the key 'a1'"):
        permission.check_ops(((1, b"b1", b"v"), (1, b"a1", b"v")))
    permission.check_ops(((6, ((1, 1, b"a1", None, b""), (4, 1, b"b", b"c", 0)), ((64, b"a"), (3, b"b")), ()),))
    with pytest.raises(PermissionDenied, match="ann may not read all keys from 'a' on"):
        permission.check_ops(((6, ((4, 1, b"a", b"", 0),), (), ()),))
    with pytest.raises(PermissionDenied, match="ann may not write all keys from 'a' to 'b'"):
        permission.check_ops(((6, (), (), ((4, b"a", b"b"),)),))
