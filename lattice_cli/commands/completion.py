"""``lattice completion``: the script that a shell loads to complete commands, options, keys and members.

The scripts ask ``lattice`` itself, so they know every command of the version that is installed. They are also
kept in ``completions/`` for packagers; a test says when those are out of date.
"""

from __future__ import annotations

import click

from lattice_cli.declare import command
from lattice_cli.options import common_options

SHELLS = ("bash", "zsh", "fish")


@command()
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
def completion(shell: str) -> None:
    """Print the completion script for SHELL: commands, options, and from the cluster keys and members.

    \b
    To install it:
      bash   echo 'eval "$(lattice completion bash)"' >> ~/.bashrc
      zsh    echo 'eval "$(lattice completion zsh)"' >> ~/.zshrc  after compinit
      fish   lattice completion fish > ~/.config/fish/completions/lattice.fish

    In one shell only: eval "$(lattice completion bash)", or lattice completion fish | source

    Keys and members are asked of the cluster that the line is about; if it does not answer within a third of a
    second, there are none.
    """
    from lattice_cli.completing import script
    from lattice_cli.render.console import write_line

    write_line(script(shell).strip())
