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


def wrapped(text: str, width: int) -> list[str]:
    """Lines that break between words only: what somebody may want to copy stays whole."""
    import textwrap

    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def seconds_text(seconds: float) -> str:
    """A duration in the unit that people would use: 85 us, 1.4 ms, 230 ms, 1.2 s."""
    for size, unit in ((1e-6, "us"), (1e-3, "ms")):
        if seconds < 1000 * size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 and unit != "us" else f"{value:.0f} {unit}"
    return f"{seconds:.1f} s"


def bytes_text(count: int) -> str:
    """A size in the unit that people would use: 512 B, 4 KiB, 1.5 GiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"
