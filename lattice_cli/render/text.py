"""Small things that all renderings share: ids, keys and values as people and scripts see them."""

from __future__ import annotations

import base64


def hex_id(number: int) -> str:
    """Ids are 64-bit numbers inside and 16 hex digits outside: JSON numbers would lose their last bits."""
    return f"{number:016x}"


def printable(data: bytes) -> str:
    """Bytes for a table or a line: text where it is UTF-8 without control characters."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(data).decode()}"
    return text if text.isprintable() else repr(text)[1:-1]


def json_bytes(data: bytes) -> str | dict[str, str]:
    """Bytes for JSON: text where it is UTF-8, else {"base64": ...}."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
