"""From whatever went wrong to one line on stderr and an exit code.

``error: what failed: why. try: the next command``. Nothing else ever reaches the terminal: a traceback is a bug
in this file. Exit codes are CLI.md's; 130 and 141 are what a shell expects of an interrupted process and of one
whose reader has gone.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable

import click

from lattice_core.errors import ConfigurationError, InvalidRequest, LatticeError, OutcomeUnknown

EXIT_NO = 1
"""Key not found, comparison failed."""
EXIT_USAGE = 2
EXIT_INTERNAL = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Negative(Exception):
    """The answer is no: not found, not equal. Not an error of anything, but an exit code of 1."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like ``word``, if any is."""
    import difflib  # only those who mistype need it

    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def line(message: str, hint: str | None) -> str:
    """One line, whatever is in the message."""
    text = " ".join(message.split()).rstrip(".")
    return f"error: {text}. try: {hint}" if hint else f"error: {text}"


def report(error: BaseException) -> int:
    """Say what went wrong, on stderr, and return the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # Python flushes stdout once more on its way out; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    message, hint, code = _explain(error)
    try:
        print(line(message, hint), file=sys.stderr, flush=True)  # noqa: T201
    except BrokenPipeError:
        pass
    return code


def _explain(error: BaseException) -> tuple[str, str | None, int]:
    if isinstance(error, LatticeError):
        return error.message, _next_command(error), error.exit_code
    if isinstance(error, Negative):
        return error.message, error.hint, EXIT_NO
    if isinstance(error, click.UsageError):
        return _explain_usage(error)
    if isinstance(error, click.ClickException):
        return error.format_message(), None, error.exit_code
    if isinstance(error, MemoryError):
        return "out of memory", None, EXIT_INTERNAL
    if isinstance(error, OSError):
        return _explain_system(error)
    detail = f"{type(error).__name__}: {error}"
    return f"internal error: {detail}", "again with LATTICE_TRACEBACK=1, and report it", EXIT_INTERNAL


def _explain_system(error: OSError) -> tuple[str, str | None, int]:
    """A file, mostly standard output, that the system does not let us use."""
    reason, where = error.strerror or str(error), f"{error.filename}: " if error.filename else ""
    if error.errno in _NO_ROOM:
        return f"cannot write: {where}{reason.lower()}", "df -h, and make room", EXIT_INTERNAL
    refused = error.errno in (errno.EACCES, errno.EPERM) and error.filename
    return f"{where}{reason}", f"ls -ld {error.filename}" if refused else None, EXIT_INTERNAL


def _next_command(error: LatticeError) -> str | None:
    if isinstance(error, OutcomeUnknown) and error.hint == OutcomeUnknown.default_hint:
        return "lattice get KEY, to see whether it was applied"
    if error.hint is None:
        if isinstance(error, ConfigurationError):
            return "lattice start --help"
        return "lattice --help" if isinstance(error, InvalidRequest) else "lattice cluster status"
    return error.hint


_NOT_A = re.compile(r"(?<= is )not a valid (integer|float)(?: range)?\b")
_KINDS = {"integer": "not a whole number", "float": "not a number"}
"""click names its own types."""


def _explain_usage(error: click.UsageError) -> tuple[str, str | None, int]:
    path = error.ctx.command_path if error.ctx is not None else "lattice"
    if isinstance(error, click.NoSuchOption):
        known = [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []
        meant = did_you_mean(error.option_name, known)
        as_value: str | None = getattr(error, "hint", None)
        if as_value is not None and meant is None:
            return f"{path}: no such option {error.option_name}; values with a dash go after --", as_value, EXIT_USAGE
        hint = f"{path} {meant}" if meant else f"{path} --help"
        return f"{path}: no such option {error.option_name}", hint, EXIT_USAGE
    hint = getattr(error, "hint", None) or f"{path} --help"
    message = _NOT_A.sub(lambda match: _KINDS[match[1]], error.format_message())
    return f"{path}: {message[:1].lower()}{message[1:]}", hint, EXIT_USAGE
