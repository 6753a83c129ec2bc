"""Mutations of bytes, from a seeded random source: the same seed gives the same bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence

DICTIONARY = (
    *(b"\xc0", b"\xc1", b"\xc2", b"\xc3", b"\x90", b"\x80", b"\xff", b"\x7f", b"\xe0"),
    *(
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\x00\x00\x00\x01",
    ),
    *(b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6), b"\xc7\x08\xff" + bytes(8)),
    *(b"\xd6\xff\x00\x00\x00\x00", b"\xa1\xff", b"\xc4\x00", b"\x81\x90\x01", b"\x91" * 600, b"\x81\x01" * 600),
    *(b"\x00" * 8, b"\xff" * 8, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x12\x80\x80\x80\x80\x08"),
    *(b"null", b"true", b"-1", b"1e400", b"NaN", b"Infinity", b"9" * 5000, b"[" * 3000, b'{"":' * 1500, b"\\ud800"),
    *(b"[[", b"]]", b"= ", b'"""', b"\n", b"\x00", b"\xf0\x9f\x98\x80", b"0x", b"1979-05-27", b"inf", b"nan"),
)

MAX_BYTES = 1 << 16


def mutated(draw: random.Random, examples: Sequence[bytes]) -> bytes:
    """One of the examples with a few changes, or noise."""
    if not examples or draw.random() < 0.05:
        return draw.randbytes(draw.randrange(64))
    data = bytearray(draw.choice(examples))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(8):
            case 0 if data:
                data[at % len(data)] ^= 1 << draw.randrange(8)
            case 1 if data:
                data[at % len(data)] = draw.randrange(256)
            case 2:
                data[at:at] = draw.choice(DICTIONARY)
            case 3:
                word = draw.choice(DICTIONARY)
                data[at : at + len(word)] = word
            case 4:
                del data[at : at + draw.randrange(1, 9)]
            case 5:
                end = at + draw.randrange(1, 40)
                data[at:at] = data[at:end] * draw.choice((1, 1, 2, 30))
            case 6:
                other = draw.choice(examples)
                place = draw.randrange(len(other) + 1)
                data[at:] = other[place:]
            case 7:
                del data[at:]
    return bytes(data[:MAX_BYTES])
