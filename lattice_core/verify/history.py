"""Histories: what clients asked, what they were told, and when.

A history is JSON lines, one operation each, in any order (CLI.md, "Histories")::

    {"process":3,"op":"cas","key":"k","value":"new","expected":"old","swapped":true,
     "call":1200,"return":3400,"outcome":"ok"}

The rules a history has to keep, because a verdict over anything else would mean nothing:

* Times are nanoseconds of one monotonic clock; an operation never returns before it is called.
* ``ok`` operations have a ``return``. ``fail`` means known not to have happened: the checker drops it.
  ``unknown`` means sent and unanswered: it may take effect at any time after its call, or never, however
  long the history goes on, and a ``return`` it may carry says only when the caller stopped waiting.
* A process is sequential: its operations do not overlap. A process that left an operation unknown
  without a ``return`` is still inside it and must not be used again; as in Jepsen, the caller goes on
  under a new process number. ``HistoryRecorder`` does this by itself.
* ``get`` has a ``result`` (null: not found); ``cas`` has ``expected`` (null: the key must not exist, which
  is how put --if-absent is recorded), ``value`` and ``swapped``; ``delete`` may have ``deleted``, whether
  there was something to delete.

Keys and values are bytes here, and in the file text where they are UTF-8, else ``{"base64": "..."}``.
Fields that we do not know are ignored.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, cast, get_args

from lattice_core.errors import InvalidRequest

OpName = Literal["put", "get", "delete", "cas"]
Outcome = Literal["ok", "fail", "unknown"]

OP_NAMES: tuple[str, ...] = get_args(OpName)
OUTCOMES: tuple[str, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client process, with what came back.

    ``result`` is meaningful for an ok get only, and None there is "not found". ``expected`` None on a cas
    is "must not exist". ``deleted`` None is "the client was not told".
    """

    process: int
    op: OpName
    key: bytes
    value: bytes | None = None
    expected: bytes | None = None
    result: bytes | None = None
    swapped: bool | None = None
    call_ns: int = 0
    return_ns: int | None = None
    outcome: Outcome = "ok"
    deleted: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The operation as a line of the file: only the fields that apply."""
        document: dict[str, Any] = {"process": self.process, "op": self.op, "key": encode_bytes(self.key)}
        if self.op in ("put", "cas"):
            document["value"] = encode_optional(self.value)
        if self.op == "cas":
            document["expected"] = encode_optional(self.expected)
        if self.outcome == "ok":
            if self.op == "get":
                document["result"] = encode_optional(self.result)
            elif self.op == "cas":
                document["swapped"] = self.swapped
            elif self.op == "delete" and self.deleted is not None:
                document["deleted"] = self.deleted
        document["call"] = self.call_ns
        document["return"] = self.return_ns
        document["outcome"] = self.outcome
        return document


# --- bytes in JSON --------------------------------------------------------------------------------


def encode_bytes(raw: bytes) -> str | dict[str, str]:
    """Text where it is UTF-8, else ``{"base64": ...}``."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode("ascii")}


def encode_optional(raw: bytes | None) -> str | dict[str, str] | None:
    return None if raw is None else encode_bytes(raw)


def display(raw: bytes | None, *, limit: int = 32) -> str:
    """A value for a person's eyes: short, on one line, unmistakable."""
    if raw is None:
        return "nothing"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = "0x" + raw.hex()
    else:
        if not text.isprintable() or text == "" or " " in text or text == "nothing":
            text = json.dumps(text, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class _BadLine(Exception):
    """What is wrong with one line; becomes an InvalidRequest once file and line are known."""


def _decode(document: dict[str, Any], field: str, *, required: bool) -> bytes | None:
    if field not in document:
        if required:
            raise _BadLine(f"field {field!r} is missing")
        return None
    found = document[field]
    if found is None:
        return None
    if isinstance(found, str):
        try:
            return found.encode("utf-8")
        except UnicodeEncodeError:
            raise _BadLine(f"field {field!r} is not valid Unicode text") from None
    if isinstance(found, dict) and isinstance(found.get("base64"), str):
        try:
            return base64.b64decode(found["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise _BadLine(f"field {field!r} is not valid base64") from None
    raise _BadLine(f'field {field!r} must be text or {{"base64": "..."}}, not {_brief(found)}')


def _integer(document: dict[str, Any], field: str, *, required: bool) -> int | None:
    found = document.get(field)
    if found is None:
        if required:
            raise _BadLine(f"field {field!r} is missing" if field not in document else f"field {field!r} is null")
        return None
    if type(found) is not int:
        raise _BadLine(f"field {field!r} must be a whole number, not {_brief(found)}")
    return found


def _boolean(document: dict[str, Any], field: str) -> bool | None:
    found = document.get(field)
    if found is not None and type(found) is not bool:
        raise _BadLine(f"field {field!r} must be true or false, not {_brief(found)}")
    return found


def _brief(found: object) -> str:
    text = json.dumps(found, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:39]}…"


# --- one line -------------------------------------------------------------------------------------


def operation_from_json(document: object) -> Operation:
    """One decoded line as an Operation; InvalidRequest says what is wrong with it."""
    try:
        return _operation_from_json(document)
    except _BadLine as bad:
        raise InvalidRequest(f"not an operation of a history: {bad}") from None


def _operation_from_json(document: object) -> Operation:
    if not isinstance(document, dict):
        raise _BadLine(f"expected a JSON object, not {_brief(document)}")
    op = document.get("op")
    if op not in OP_NAMES:
        raise _BadLine("field 'op' is missing" if op is None else f"unknown op {_brief(op)}: put, get, delete or cas")
    outcome = document.get("outcome")
    if outcome not in OUTCOMES:
        raise _BadLine(
            "field 'outcome' is missing"
            if outcome is None
            else f"unknown outcome {_brief(outcome)}: ok, fail or unknown"
        )
    if op == "get" and outcome == "ok" and "result" not in document:
        raise _BadLine("an ok get needs 'result' (null is not found)")
    key = _decode(document, "key", required=True)
    if key is None:
        raise _BadLine("field 'key' is null")
    operation = Operation(
        process=cast(int, _integer(document, "process", required=True)),
        op=cast(OpName, op),
        key=key,
        value=_decode(document, "value", required=op in ("put", "cas")),
        expected=_decode(document, "expected", required=op == "cas"),
        result=_decode(document, "result", required=False),
        swapped=_boolean(document, "swapped"),
        call_ns=cast(int, _integer(document, "call", required=True)),
        return_ns=_integer(document, "return", required=False),
        outcome=cast(Outcome, outcome),
        deleted=_boolean(document, "deleted"),
    )
    wrong = problem_with(operation)
    if wrong is not None:
        raise _BadLine(wrong)
    return operation


def problem_with(operation: Operation) -> str | None:
    """What makes this operation impossible by itself, or None."""
    returned = operation.return_ns
    if returned is None:
        if operation.outcome == "ok":
            return "an ok operation needs 'return', the time it returned"
    elif returned < operation.call_ns:
        return f"it returned at {returned} ns, before it was called at {operation.call_ns} ns"
    if operation.op in ("put", "cas") and operation.value is None:
        return f"a {operation.op} needs a 'value'"
    if operation.op == "cas" and operation.outcome == "ok" and operation.swapped is None:
        return "an ok cas needs 'swapped'"
    return None


def overlap_of(operations: Sequence[Operation]) -> tuple[int, str] | None:
    """The first operation (as an index) that its process could not have called, and why; or None."""

    def when(index: int) -> tuple[int, bool, int]:
        operation = operations[index]
        return operation.call_ns, operation.return_ns is None, operation.return_ns or 0

    order = sorted(range(len(operations)), key=when)
    last_of: dict[int, Operation] = {}
    for index in order:
        operation = operations[index]
        before = last_of.get(operation.process)
        if before is not None:
            if before.return_ns is None and before.outcome == "unknown":
                return index, (
                    f"process {operation.process} is used again at {operation.call_ns} ns while its {before.op} called "
                    f"at {before.call_ns} ns is unknown and open; go on under a new process number"
                )
            if before.return_ns is not None and before.return_ns > operation.call_ns:
                return index, (
                    f"process {operation.process} has two operations at once: its {before.op} runs from "
                    f"{before.call_ns} to {before.return_ns} ns, and its {operation.op} is called at "
                    f"{operation.call_ns} ns"
                )
        last_of[operation.process] = operation
    return None


# --- files ----------------------------------------------------------------------------------------


def iter_history(path: str | Path) -> Iterator[Operation]:
    """Stream a history file, each line checked by itself (not against the others)."""
    for _, operation in _numbered(path):
        yield operation


def read_history(path: str | Path) -> list[Operation]:
    """Read and check a whole history file. InvalidRequest names the file and the line."""
    lines: list[int] = []
    operations: list[Operation] = []
    for number, operation in _numbered(path):
        lines.append(number)
        operations.append(operation)
    wrong = overlap_of(operations)
    if wrong is not None:
        raise InvalidRequest(f"{path}:{lines[wrong[0]]}: {wrong[1]}")
    return operations


def _numbered(path: str | Path) -> Iterator[tuple[int, Operation]]:
    try:
        stream = open(path, "rb")  # noqa: SIM115 - closed by the with statement below
    except OSError as error:
        raise InvalidRequest(f"{path}: cannot be read: {error.strerror or error}") from None
    with stream:
        for number, line in enumerate(stream, start=1):
            if line.isspace():
                continue
            try:
                yield number, _operation_from_json(json.loads(line.decode("utf-8-sig")))
            except _BadLine as bad:
                raise InvalidRequest(f"{path}:{number}: {bad}") from None
            except UnicodeDecodeError:
                raise InvalidRequest(f"{path}:{number}: not text, so no history", hint=_RECORD_HINT) from None
            except (ValueError, RecursionError) as error:
                reason = str(error).splitlines()[0]
                raise InvalidRequest(f"{path}:{number}: not JSON: {reason}", hint=_RECORD_HINT) from None


_RECORD_HINT = "lattice bench --history FILE, to record one"


def _line_of(operation: Operation) -> str:
    return json.dumps(operation.to_json(), ensure_ascii=False, separators=(",", ":")) + "\n"


def write_history(path: str | Path, operations: Iterable[Operation]) -> int:
    """Write a history file; returns the number of operations."""
    count = 0
    with open(path, "w", encoding="utf-8") as stream:
        for operation in operations:
            stream.write(_line_of(operation))
            count += 1
    return count


# --- recording ------------------------------------------------------------------------------------


class HistoryRecorder:
    """Collects a history from callers at work: bench, chaos, the simulator. Thread-safe.

    ``callers`` is how many sequential callers there are, numbered from 0. Caller c starts as process c;
    each time one of its operations ends unknown that process is retired, and the caller goes on as
    process c + callers, c + 2 * callers, ... (as Jepsen does).

    Stamps are strictly increasing, whatever the clock's resolution: an ``invoke`` that comes after a
    ``complete`` gets a later time even in the same tick, which under virtual time is the common case.
    This is sound as long as ``invoke`` is called before the request leaves and ``complete`` after the
    answer came: the order of the calls is then the real order.

    With ``path``, operations go to that file as they complete, and memory holds only those under way;
    without, they are kept in ``operations``.
    """

    def __init__(
        self, *, callers: int, path: str | Path | None = None, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        if callers < 1:
            raise ValueError(f"callers must be at least 1, not {callers}")
        self.operations: list[Operation] = []
        self._callers = callers
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._last_ns: int | None = None
        self._next_id = 0
        # Under way: id -> (caller, the operation as called). One a caller, never more.
        self._open: dict[int, tuple[int, Operation]] = {}
        self._busy: dict[int, int] = {}
        self._process_of: dict[int, int] = {}
        self._stream: IO[str] | None = None if path is None else open(path, "w", encoding="utf-8")  # noqa: SIM115

    def __enter__(self) -> HistoryRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stamp(self) -> int:
        now = self._clock_ns()
        if self._last_ns is not None and now <= self._last_ns:
            now = self._last_ns + 1
        self._last_ns = now
        return now

    def invoke(
        self, caller: int, op: OpName, key: bytes, *, value: bytes | None = None, expected: bytes | None = None
    ) -> int:
        """Record a call, before it is sent. Returns the id for ``complete``."""
        if not 0 <= caller < self._callers:
            raise ValueError(f"caller {caller} is not one of the {self._callers} callers")
        if op in ("put", "cas") and value is None:
            raise ValueError(f"a {op} needs a value")
        with self._lock:
            if caller in self._busy:
                raise ValueError(f"caller {caller} is still in its last operation")
            identifier = self._next_id
            self._next_id += 1
            process = self._process_of.setdefault(caller, caller)
            self._busy[caller] = identifier
            self._open[identifier] = (
                caller,
                Operation(process, op, key, value, expected, call_ns=self._stamp(), outcome="unknown"),
            )
            return identifier

    def complete(
        self,
        identifier: int,
        outcome: Outcome = "ok",
        *,
        result: bytes | None = None,
        swapped: bool | None = None,
        deleted: bool | None = None,
    ) -> Operation:
        """Record how a call ended, after its answer came (or was given up)."""
        if outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {outcome!r}: ok, fail or unknown")
        with self._lock:
            if identifier not in self._open:
                raise ValueError(f"operation {identifier} is not under way")
            caller, called = self._open[identifier]
            if outcome == "ok" and called.op == "cas" and swapped is None:
                raise ValueError("an ok cas needs swapped")
            del self._open[identifier]
            del self._busy[caller]
            if outcome == "unknown":
                self._process_of[caller] += self._callers
                finished = called
            else:
                finished = Operation(
                    called.process,
                    called.op,
                    called.key,
                    called.value,
                    called.expected,
                    result if outcome == "ok" else None,
                    swapped if outcome == "ok" else None,
                    called.call_ns,
                    self._stamp(),
                    outcome,
                    deleted if outcome == "ok" else None,
                )
            self._keep(finished)
            return finished

    def _keep(self, operation: Operation) -> None:
        if self._stream is None:
            self.operations.append(operation)
        else:
            self._stream.write(_line_of(operation))

    def close(self) -> None:
        """End the history: what is still under way is unknown. Safe to repeat."""
        with self._lock:
            for caller, called in self._open.values():
                self._process_of[caller] += self._callers
                self._keep(called)
            self._open.clear()
            self._busy.clear()
            if self._stream is not None and not self._stream.closed:
                self._stream.close()
