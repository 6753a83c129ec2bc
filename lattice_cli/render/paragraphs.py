"""The help text of a command as paragraphs: prose that flows, and lines that are to stay as they are.

Such lines are examples, ``Examples: lattice get a    lattice get b`` (at least two blanks, or a new line, between
them), and whatever follows a line of ``\\b``, which is click's way to ask for it. Both for the terminal
(:mod:`lattice_cli.render.help`) and for docs/reference (tools/reference.py).
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Literal

Kind = Literal["text", "code"]

_CONTINUED = " \\"
_INDENT = 4
"""Of what a line that was too long goes on with."""


def blocks(text: str, width: int) -> Iterator[tuple[Kind, str]]:
    """Each paragraph: ("text", one line) or ("code", lines as they are); examples are broken to fit ``width``."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text.split("\f")[0])):
        if paragraph.startswith("\b"):
            body = paragraph.removeprefix("\b").strip("\n")
            head, _, rest = body.partition("\n")
            if re.fullmatch(r"Examples?:", head.strip()):
                yield "text", head.strip()
                body = rest
            yield "code", inspect.cleandoc("\n" + body)
        elif match := re.match(r"(Examples?:)\s+(?=\S)", paragraph):
            yield "text", match[1]
            examples = re.split(r"(?:\s{2,}|\n)(?=lattice |\w+ \| lattice )", paragraph[match.end() :])
            yield "code", "\n".join(_example(" ".join(each.split()), width) for each in examples)
        elif paragraph.startswith("lattice "):  # one more example
            yield "code", _example(paragraph, width)
        elif paragraph.strip():
            yield "text", " ".join(paragraph.split())


def _example(command: str, width: int) -> str:
    """One example, where it is long on several lines that a shell takes for one."""
    by_options = _broken(re.split(r" (?=--)", command), width)  # an option stays with its value
    fits = all(len(line) <= width for line in by_options.split("\n"))
    return by_options if fits else _broken(command.split(" "), width)


def _broken(parts: list[str], width: int) -> str:
    lines = [""]
    for number, part in enumerate(parts, start=1):
        room = width - (len(_CONTINUED) if number < len(parts) else 0)
        if lines[-1].strip() and len(lines[-1]) + 1 + len(part) > room:
            lines.append(" " * (_INDENT - 1))
        lines[-1] += (" " if lines[-1] else "") + part
    return f"{_CONTINUED}\n".join(lines)


def folded(code: str, width: int) -> Iterator[str]:
    """Lines of code none of which is longer; what has to go on below is indented, to be seen to belong there."""
    for line in code.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + _INDENT)
        yield from textwrap.wrap(
            line, width, subsequent_indent=indent, replace_whitespace=False, break_on_hyphens=False
        ) or [""]
