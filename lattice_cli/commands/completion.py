"""``lattice completion``: the script that a shell loads to complete commands and options.

The scripts ask ``lattice`` itself, so they know every command of the version that is installed. They are also
kept in ``completions/`` for packagers; a test says when those are out of date.
"""

from __future__ import annotations

import click
import rich_click
from click.shell_completion import get_completion_class

from lattice_cli.options import common_options
from lattice_cli.render.console import write_line

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The completion script for ``shell``."""
    from lattice_cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None, shell
    completer = kind(cli, {}, "lattice", "_LATTICE_COMPLETE")
    # Not completer.source(): for bash that starts a bash, to look at its version.
    return completer.source_template % completer.source_vars()


@rich_click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    bash: eval "$(lattice completion bash)"    zsh: the same with zsh
    fish: lattice completion fish | source
    """
    write_line(script(shell).strip())
