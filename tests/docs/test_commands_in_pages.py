"""Commands that pages only name, and no test runs, are at least commands, with options that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lattice_cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every ``lattice ...`` in code, in blocks and within lines, as words."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`((?:[A-Z_]+=\S+ )?lattice [^`]*)`", " ".join(prose.split()))
    for line in lines:
        for part in re.split(r"&&|\|\||[|;&]|\d?>|\s#|\bdo\b", line):
            found = re.match(r"^\s*(?:\$ |[*\d /,-]+ )?(?:[A-Z_]+=\S+ )?lattice (\S.*)", part)
            if found:
                try:
                    words = shlex.split(found[1])
                except ValueError:
                    continue  # a quote that was cut off with what followed it
                yield [word for word in words if word != "..." and not word.startswith("[")]


def complaint(words: list[str]) -> str | None:
    """What click has against it; that something is missing, or a placeholder, does not count."""
    command: click.Command = cli
    context = click.Context(cli, info_name="lattice")
    while isinstance(command, click.Group) and words:
        name = words[0]
        if name.startswith("-"):
            break
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            return None  # a placeholder
        found = command.get_command(context, name)
        if found is None:
            return f"no command {name!r}"
        command, words = found, words[1:]
        context = click.Context(command, info_name=name, parent=context)
    try:
        command.make_context(command.name, list(words), parent=context.parent)
    except click.NoSuchOption as error:
        return error.format_message()
    except (click.UsageError, click.exceptions.Exit):
        return None
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    wrong = [(" ".join(words), said) for words in command_lines(page) if (said := complaint(words)) is not None]
    # The README and the guides show what becomes of some mistakes.
    assert [each for each in wrong if not each[0].startswith("gte ")] == []


def test_a_misspelt_option_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Use `lattice put k v --if-absen`.\n\n```\n$ lattice snapshto take && lattice get k --frefix\n```\n"
    )
    assert [complaint(words) is not None for words in command_lines(page)] == [True, True, True]
