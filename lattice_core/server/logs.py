"""One line per event, for people or for machines; standard logging, to stderr.

Text: ``2026-01-31T12:00:00.123Z INFO  n1 raft: leads term 3 (won the election)``. JSON: the same as one object, with
the node's role and term at that moment, and what the event is about in fields of its own: whatever the line was
logged with as ``extra``. Text shows none of these, for its sentences say them; so they cost nothing there.
Timestamps are wall clock, for people; nothing in the program reads them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes that every record has; the others came as ``extra``."""

Context = Callable[[], Mapping[str, Any]]
"""Asked for each line of JSON: what the node is at that moment."""


def _nothing() -> Mapping[str, Any]:
    return {}


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


class _TextFormatter(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        component = record.name.removeprefix("lattice.")
        return _one_line(f"{_timestamp(record)} {record.levelname:<7} {self._node} {component}: {text}")


class _JsonFormatter(logging.Formatter):
    def __init__(self, node: str, context: Context) -> None:
        super().__init__()
        self._node = node
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "node": self._node,
            "component": record.name.removeprefix("lattice."),
            "message": record.getMessage(),
            **self._context(),
        }
        # What the event itself says of role and term wins: it may be older than this line.
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(node: str, level: str, style: str, context: Context = _nothing) -> None:
    """Send the ``lattice`` loggers to stderr. Replaces what an earlier call set up.

    ``context`` may be called on any thread.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(node, context) if style == "json" else _TextFormatter(node))
    root = logging.getLogger("lattice")
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    root.propagate = False
