"""The help of a command, drawn with rich-click: its command is made anew as one of rich-click's, which draws it."""

from __future__ import annotations

from typing import Any

import click
import rich_click
from rich_click.rich_panel import RichCommandPanel, RichOptionPanel, RichPanel

from lattice_cli.declare import Command, Group, Panel


def help_text(command: Command, ctx: click.Context) -> str:
    """All of it, with colours if standard output shows them."""
    drawn = _drawn(command, ctx)
    context = rich_click.RichContext(
        drawn,
        info_name=ctx.info_name,
        parent=ctx.parent,
        help_option_names=ctx.help_option_names,
        terminal_width=ctx.terminal_width,
        max_content_width=ctx.max_content_width,
    )
    return drawn.get_help(context)


def _drawn(command: Command, ctx: click.Context) -> rich_click.RichCommand:
    for param in command.params:
        # rich-click shows an option that stands in a panel of its own in "Options" as well, unless it has this.
        if not hasattr(param, "panel"):
            param.panel = None  # type: ignore[attr-defined]
    shared: dict[str, Any] = {
        "name": command.name,
        "callback": command.callback,
        "params": list(command.params),
        "help": command.help,
        "epilog": command.epilog,
        "options_metavar": command.options_metavar,
        "add_help_option": command.add_help_option,
        "deprecated": command.deprecated,
        "panels": [_panel(each) for each in command.panels],
    }
    if not isinstance(command, Group):
        return rich_click.RichCommand(**shared)
    listed = {name: command.summary(ctx, name) for name in command.list_commands(ctx)}
    return rich_click.RichGroup(
        commands={name: each for name, each in listed.items() if each is not None},
        subcommand_metavar=command.subcommand_metavar,
        invoke_without_command=command.invoke_without_command,
        **shared,
    )


def _panel(panel: Panel) -> RichPanel[Any, Any]:
    if panel.commands:
        return RichCommandPanel(panel.title, commands=list(panel.commands))
    return RichOptionPanel(panel.title, options=list(panel.options))
