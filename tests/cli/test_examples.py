"""Help: every command shows how it is used."""

from __future__ import annotations

import pytest
from command_lines import commands


@pytest.mark.parametrize("path", sorted(set(commands()) - {"start"}))  # its own examples are the tutorial
def test_help_has_an_example_that_can_be_copied(path: str) -> None:
    command = commands()[path]
    text = f"{command.help or ''}\n{command.epilog or ''}"
    assert f"lattice {path}" in text
