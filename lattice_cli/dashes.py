"""What was meant by a word that begins with a dash and is no option, as in ``lattice put x -1``.

Looked at only when click has refused it. The line is read once more with such words taken for plain ones; if that gives
the command the arguments that it asks for, they were values, and the line to try has them behind a ``--``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import click

_NEGATIVE = re.compile(r"-\.?\d")

MOST_SHOWN = 200
"""Characters of a line that somebody would want to see again; of a longer one its form is shown."""


class _Word(str):
    """A word of the line that is told from others that read the same."""


def meant_as_value(command: click.Command, ctx: click.Context, line: Sequence[str], refused: str) -> str | None:
    """The line to try, if ``refused``, which is no option, stands where a value is expected; else None."""
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    if not arguments or "--" in line:
        return None
    # Without its dash it is no option to click either.
    words = [_Word(f"\0{each}") if _is_dashed(each, refused) else _Word(each) for each in line]
    try:
        found, extra, _ = command.make_parser(ctx).parse_args(list(words))
    except click.UsageError:
        return None
    values = [found.get(param.name or "") for param in arguments]
    if extra or not all(isinstance(value, _Word) for value in values if value is not None):
        return None
    behind = {id(value) for value in values}
    before = [each for each in words if id(each) not in behind]
    if any(each.startswith("\0") for each in before):
        return None
    given = [each.removeprefix("\0") for each in words if id(each) in behind]
    text = f"{ctx.command_path} {shlex.join([*before, '--', *given])}"
    if len(text) <= MOST_SHOWN and text.isprintable():
        return text
    names = " ".join(param.make_metavar(ctx) for param in arguments)
    return f"{ctx.command_path} -- {names}"


def _is_dashed(word: str, refused: str) -> bool:
    return (
        bool(_NEGATIVE.match(word))
        or word.split("=", 1)[0] == refused
        or (not refused.startswith("--") and word.startswith(refused))
    )
