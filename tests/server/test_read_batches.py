"""Reads as they come from the wire: strict, bounded, one answer each."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from lattice_core.errors import InvalidRequest, TooLarge
from lattice_core.kv import Store
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server.read_batches import (
    MAX_ANSWER_BYTES,
    MAX_READS,
    Get,
    Range,
    decode_reads,
    encode_answers,
    execute,
)


def pack(value: Any) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


def test_reads_are_decoded() -> None:
    batch = [[1, b"k", None], [1, b"k", 7], [2, b"a", b"", 0, None, 5]]
    assert decode_reads(pack(batch)) == [Get(b"k", None), Get(b"k", 7), Range(b"a", b"", 0, None, 5)]


@pytest.mark.parametrize(
    "batch",
    [
        b"\xc1",
        pack([]),
        pack({"a": 1}),
        pack([[1, "text", None]]),
        pack([[1, b"", None]]),
        pack([[1, b"k", -1]]),
        pack([[1, b"k", True]]),
        pack([[1, b"k"]]),
        pack([[2, b"a", b"b", -1, None, 0]]),
        pack([[2, b"a", b"b", 1, None, 8]]),
        pack([[3, b"a", None]]),
        pack([7]),
    ],
)
def test_anything_else_is_invalid(batch: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_reads(batch)


def test_too_many_reads_or_too_long_keys_are_refused() -> None:
    with pytest.raises(TooLarge):
        decode_reads(pack([[1, b"k", None]] * (MAX_READS + 1)))
    with pytest.raises(TooLarge):
        decode_reads(pack([[1, b"k" * 4097, None]]))


def test_a_read_that_fails_by_itself_leaves_the_others_their_answers() -> None:
    store = Store()
    store.put(b"k", b"v")
    answers = execute(store, [Get(b"k", None), Get(b"k", 99), Get(b"x", None), Range(b"", b"", 0, None, 0)])
    found, failed, nothing, listed = msgpack.unpackb(encode_answers(answers, pack))
    assert found == [b"k", b"v", 1, 1, 1, None]
    assert failed["error"] == kv_pb2.ERROR_CODE_INVALID
    assert nothing is None
    assert listed == [[found], False, 1]


def test_answers_are_bounded_in_bytes_and_say_what_is_missing() -> None:
    store = Store()
    for n in range(6):
        store.put(b"k%d" % n, bytes(600_000))
    (everything,) = execute(store, [Range(b"", b"", 0, None, 0)])
    listed = msgpack.unpackb(encode_answers([everything], pack))[0]
    assert listed[1], "more"
    assert 0 < len(listed[0]) < 6
    answers = execute(store, [Get(b"k%d" % n, None) for n in range(6)])
    packed = encode_answers(answers, pack)
    assert len(packed) < MAX_ANSWER_BYTES + 700_000 < 4 << 20
    assert isinstance(answers[-1], TooLarge)
    assert msgpack.unpackb(packed)[-1]["error"] == kv_pb2.ERROR_CODE_TOO_LARGE
