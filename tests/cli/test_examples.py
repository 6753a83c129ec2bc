"""Help: every command shows how it is used."""

from __future__ import annotations

import pytest
from command_lines import commands

from lattice_cli.render.paragraphs import blocks


@pytest.mark.parametrize("path", sorted(set(commands()) - {"start"}))  # its own examples are the tutorial
def test_help_has_an_example_that_can_be_copied(path: str) -> None:
    command = commands()[path]
    text = f"{command.help or ''}\n{command.epilog or ''}"
    assert f"lattice {path}" in text


def test_examples_are_told_apart_and_a_long_one_is_broken_as_a_shell_understands_it() -> None:
    text = """First
    of all.

    Examples: lattice get a    lattice put a --if-absent --timeout 5; lattice get a

    lattice get b
    """
    assert list(blocks(text, 30)) == [
        ("text", "First of all."),
        ("text", "Examples:"),
        ("code", "lattice get a\nlattice put a --if-absent \\\n    --timeout 5; lattice get a"),
        ("code", "lattice get b"),
    ]
    ((_, example),) = blocks("lattice snapshot inspect backup.snap", 24)
    assert example == "lattice snapshot \\\n    inspect backup.snap"
