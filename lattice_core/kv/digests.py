"""Digests that every member computes alike, in any process, on any platform and Python.

A set's digest is the sum of its elements' digests: cheap to keep up to date, independent of order. CRCs
alone would not do, for they are linear and so is a sum: two records that swapped their revisions would
cancel out. Multiplying contents by metadata breaks that. This guards against bugs and bit flips, not
against an adversary.

An element's digest has 60 bits, because Python keeps such an integer in 32 bytes and a larger one in 48.
"""

from __future__ import annotations

from typing import Final

from google_crc32c import extend as crc32c_extend

DIGEST_VERSION: Final = 1
"""Raised with every change here, or in what the state consists of, that gives the same contents another hash: members
of different versions are not compared with each other."""

MASK_64: Final = 2**64 - 1
_MASK_60: Final = 2**60 - 1

# Odd numbers without a pattern (the fractional digits of the golden ratio and relatives, from xxHash).
_A: Final = 0x9E3779B185EBCA87 >> 5 | 1
_B: Final = 0xC2B2AE3D27D4EB4F >> 5 | 1
_C: Final = 0x165667B19E3779F9 >> 5 | 1
_D: Final = 0x27D4EB2F165667C5 >> 5 | 1


def record_digest(
    key: bytes, value: bytes, create_revision: int, mod_revision: int, version: int, lease_id: int
) -> int:
    """One key's record, everything in it."""
    metadata = mod_revision * _A + create_revision * _B + version
    if lease_id:
        metadata += lease_id * _C
    # The key's length is the seed: without it, moving the boundary between key and value goes unnoticed.
    digest: int = crc32c_extend(len(key), key + value) * metadata & _MASK_60
    return digest


def mix(first: int, second: int, third: int) -> int:
    """Three integers, order and all."""
    return (first + _D) * (second * _A + third * _B + _C) & _MASK_60


def chain(previous: int, data: bytes) -> int:
    """A CRC-32C that continues from ``previous``."""
    digest: int = crc32c_extend(previous, data)
    return digest


def state_digest(store_hash: int, revision: int, sessions_hash: int, time_ms: int, access_hash: int) -> int:
    """The whole state machine's hash out of its parts'."""
    return (store_hash + mix(revision, sessions_hash, time_ms) + access_hash) & MASK_64
