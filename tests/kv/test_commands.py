"""Encoding: what a leader lets in, and what every member must make of what is in the log."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice_core.errors import InvalidRequest, TooLarge, UnknownCommand
from lattice_core.kv import commands
from lattice_core.kv.commands import ClientBatch, decode_batch, decode_payload, encode_batch, encode_payload
from lattice_core.kv.operands import MAX_INTEGER

KEYS = st.binary(min_size=1, max_size=20)
VALUES = st.binary(max_size=50)
REVISIONS = st.integers(0, MAX_INTEGER)
OPS = st.one_of(
    st.builds(commands.put, KEYS, VALUES),
    st.builds(commands.put_if_revision, KEYS, VALUES, REVISIONS),
    st.builds(commands.delete, KEYS),
    st.builds(commands.delete_range, VALUES, VALUES),
    st.builds(commands.cas, KEYS, st.none() | VALUES, VALUES),
    st.builds(commands.open_session),
    st.builds(commands.close_session, REVISIONS),
)

MALFORMED = [
    b"",
    b"\xc1",
    b"not msgpack at all",
    msgpack.packb(7),
    msgpack.packb({"a": 1}),
    msgpack.packb({(1, 2): 3}),
    msgpack.packb([7]),
    msgpack.packb([[]]),
    msgpack.packb([["put", b"k", b"v"]]),
    msgpack.packb([[True, b"k", b"v"]]),
    msgpack.packb([[1.0, b"k", b"v"]]),
    msgpack.packb([[0, b"k", b"v"]]),
    msgpack.packb([[-1, b"k", b"v"]]),
    msgpack.packb([[128, b"k", b"v"]]),
    msgpack.packb([[1, b"k"]]),
    msgpack.packb([[1, b"", b"v"]]),
    msgpack.packb([[1, "text", b"v"]]),
    msgpack.packb([[1, b"k", "text"]]),
    msgpack.packb([[1, b"k", None]]),
    msgpack.packb([[1, b"k", msgpack.ExtType(5, b"v")]]),
    msgpack.packb([[1, b"k", msgpack.Timestamp(5)]]),
    msgpack.packb([[2, b"k", b"v", -1]]),
    msgpack.packb([[2, b"k", b"v", 2**63]]),
    msgpack.packb([[2, b"k", b"v", 1.0]]),
    msgpack.packb([[2, b"k", b"v", True]]),
    msgpack.packb([[3, b""]]),
    msgpack.packb([[5, b"k", 3, b"v"]]),
    msgpack.packb([[5, b"k", None, None]]),
    msgpack.packb([[8, None]]),
    b"\xdd\xff\xff\xff\xff",  # an array of four billion elements, none of them there
    b"\x91" * 2000,  # deeper than any parser goes
    b"\x91\x93\x01\xc4\x01k\xa1\xff",  # a value that is text, and not even UTF-8
    encode_batch([commands.put(b"k", b"v")]) + b"\x00",
    encode_batch([commands.put(b"k", b"v")])[:-1],
]

NEWER = [
    msgpack.packb([[commands.TXN, [], [], [], []]]),
    msgpack.packb([[11]]),
    msgpack.packb([[127, b"k"]]),
    msgpack.packb([[1, b"k", b"v", 7]]),  # one operand more than this version knows
    msgpack.packb([[1, b"k", b"v"], [11]]),
    msgpack.packb([[1, b"", b"v"], [11]]),  # malformed by our lights, but we cannot judge it
]


def framed(*batches: bytes) -> bytes:
    return encode_payload(1000, [ClientBatch(0, 0, 0, data) for data in batches])


@given(st.lists(OPS, min_size=1, max_size=20))
def test_a_batch_reads_back_as_it_was_written(ops: list[commands.Op]) -> None:
    assert list(decode_batch(encode_batch(ops))) == ops
    for op in ops:
        commands.validate_op(op)


@given(
    st.integers(0, 2**64 - 1),
    st.lists(
        st.tuples(*[st.integers(0, 2**64 - 1)] * 3, st.lists(OPS, min_size=1, max_size=3)),
        max_size=5,
    ),
)
def test_a_payload_carries_batches_byte_for_byte(
    time_ms: int, batches: list[tuple[int, int, int, list[commands.Op]]]
) -> None:
    written = [
        ClientBatch(session, sequence, below, encode_batch(ops), tuple(ops))
        for session, sequence, below, ops in batches
    ]
    assert decode_payload(encode_payload(time_ms, written)) == commands.Payload(time_ms, written)


@pytest.mark.parametrize("data", MALFORMED)
def test_the_leader_refuses_a_malformed_batch(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_batch(data)


@pytest.mark.parametrize("data", NEWER)
def test_the_leader_refuses_what_it_does_not_know_without_halting(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_batch(data)


@pytest.mark.parametrize("data", MALFORMED)
def test_a_malformed_batch_in_the_log_is_told_apart_from_its_neighbours(data: bytes) -> None:
    good = encode_batch([commands.put(b"k", b"v")])
    ops = [batch.ops for batch in decode_payload(framed(good, data, good)).batches]
    assert ops == [((1, b"k", b"v"),), None, ((1, b"k", b"v"),)]


@pytest.mark.parametrize("data", NEWER)
def test_safety_45_an_unknown_command_in_the_log_halts(data: bytes) -> None:
    with pytest.raises(UnknownCommand, match="does not know"):
        decode_payload(framed(data))


@pytest.mark.parametrize("payload", [b"", b"\x00" + framed()[1:], b"\x02" + framed()[1:]])
def test_safety_45_an_unknown_payload_version_halts(payload: bytes) -> None:
    with pytest.raises(UnknownCommand, match="version"):
        decode_payload(payload)


def test_a_payload_cut_anywhere_halts_or_holds_fewer_batches() -> None:
    batch = encode_batch([commands.put(b"k", b"v")])
    whole = framed(batch, batch)
    one, none = len(framed(batch)), len(framed())
    for size in range(len(whole)):
        if size in (one, none):
            continue  # the log's own checksum is what notices that
        with pytest.raises(UnknownCommand):
            decode_payload(whole[:size])


def test_sizes_are_limited_by_the_leader_and_not_in_the_log() -> None:
    key, value = bytes(commands.MAX_KEY_BYTES + 1), bytes(commands.MAX_VALUE_BYTES + 1)
    for op in [
        commands.put(key, b"v"),
        commands.put(b"k", value),
        commands.put_if_revision(b"k", value, 0),
        commands.delete(key),
        commands.delete_range(b"", key),
        commands.cas(b"k", value, b""),
        commands.cas(b"k", None, value),
    ]:
        with pytest.raises(TooLarge) as caught:
            commands.validate_op(op)
        assert caught.value.actual == caught.value.limit + 1
        with pytest.raises(TooLarge):
            decode_batch(encode_batch([op]))
        assert decode_payload(framed(encode_batch([op]))).batches[0].ops == (op,)


def test_the_largest_key_and_value_are_let_in() -> None:
    op = commands.put(bytes(commands.MAX_KEY_BYTES), bytes(commands.MAX_VALUE_BYTES))
    assert decode_batch(encode_batch([op])) == (op,)


def test_a_batch_is_limited_in_operations_and_bytes() -> None:
    op = commands.delete(b"k")
    assert len(decode_batch(encode_batch([op] * commands.MAX_BATCH_OPS))) == commands.MAX_BATCH_OPS
    with pytest.raises(TooLarge, match="operations"):
        decode_batch(encode_batch([op] * (commands.MAX_BATCH_OPS + 1)))
    with pytest.raises(TooLarge, match="bytes"):
        decode_batch(bytes(commands.MAX_BATCH_BYTES + 1))
    with pytest.raises(InvalidRequest, match="empty"):
        decode_batch(encode_batch([]))


def test_an_empty_key_is_named_as_the_reason() -> None:
    with pytest.raises(InvalidRequest, match="key is empty"):
        commands.validate_op(commands.put(b"", b"v"))


@given(st.binary(max_size=5), st.binary(min_size=1, max_size=7))
def test_a_prefix_range_holds_exactly_the_keys_with_the_prefix(prefix: bytes, key: bytes) -> None:
    start, end = commands.prefix_range(prefix)
    assert (start <= key and (not end or key < end)) == key.startswith(prefix)


def test_the_prefix_of_only_ff_reaches_to_the_end() -> None:
    assert commands.prefix_range(b"\xff\xff") == (b"\xff\xff", b"")
    assert commands.prefix_range(b"a\xff") == (b"a\xff", b"b")
    assert commands.prefix_range(b"") == (b"", b"")
