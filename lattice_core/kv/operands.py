"""Strict checks of what msgpack made of a command: exact types, so that no library's leniency shows.

Shared by commands.py and txn.py. Whoever adds a command takes these or adds to them; none of them may ever be
widened (see commands.py, "what is malformed must stay malformed").
"""

from __future__ import annotations

from typing import Final

MAX_INTEGER: Final = 2**63 - 1
"""Revisions and session ids fit a signed 64-bit integer, so that any client's language can hold them."""

MAX_CODE: Final = 127
"""A later version's code for an operation, a comparison or a relation is one of 1..127; anything else never was
one."""


class Newer(Exception):
    """Something that a later version may have written: not garbage, but not known here."""


def is_key(operand: object) -> bool:
    return type(operand) is bytes and len(operand) > 0


def is_bytes(operand: object) -> bool:
    return type(operand) is bytes


def is_bytes_or_none(operand: object) -> bool:
    return operand is None or type(operand) is bytes


def is_natural(operand: object) -> bool:
    return type(operand) is int and 0 <= operand <= MAX_INTEGER


def is_code(operand: object) -> bool:
    return type(operand) is int and 1 <= operand <= MAX_CODE
