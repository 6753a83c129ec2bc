"""The help of a command, drawn with rich-click: its command is made anew as one of rich-click's, which draws it.

Two things are ours. The text: rich-click lets examples and grammars flow like prose. And options and commands where a
table would have no room for their names, which must never be cut off: there each description stands below its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import rich_click
from rich.console import Group as Renderables
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich_click.rich_help_rendering import get_command_rich_table_row, get_parameter_rich_table_row
from rich_click.rich_panel import RichCommandPanel, RichOptionPanel, RichPanel

from lattice_cli.declare import Command, Group, Panel
from lattice_cli.render.paragraphs import blocks, folded


def help_text(command: Command, ctx: click.Context) -> str:
    """All of it, with colours if standard output shows them."""
    names = [*_names(command, ctx)]
    text = _help_text(command, ctx, tables=True)
    return text if all(name in text for name in names) else _help_text(command, ctx, tables=False)


def _names(command: Command, ctx: click.Context) -> Iterator[str]:
    """What somebody would have to type, and so has to be there from its first letter to its last."""
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and not param.hidden:
            yield from (*param.opts, *param.secondary_opts)
    if isinstance(command, Group):
        yield from command.list_commands(ctx)


def _help_text(command: Command, ctx: click.Context, *, tables: bool) -> str:
    drawn = _drawn(command, ctx, tables=tables)
    context = rich_click.RichContext(
        drawn,
        info_name=ctx.info_name,
        parent=ctx.parent,
        help_option_names=ctx.help_option_names,
        terminal_width=ctx.terminal_width,
        max_content_width=ctx.max_content_width,
    )
    return drawn.get_help(context)


def _drawn(command: Command, ctx: click.Context, *, tables: bool) -> rich_click.RichCommand:
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
        "panels": [_panel(each, tables=tables) for each in command.panels],
    }
    if not isinstance(command, Group):
        return _DrawnCommand(**shared)
    listed = {name: command.summary(ctx, name) for name in command.list_commands(ctx)}
    return _DrawnGroup(
        commands={name: each for name, each in listed.items() if each is not None},
        subcommand_metavar=command.subcommand_metavar,
        invoke_without_command=command.invoke_without_command,
        **shared,
    )


def _panel(panel: Panel, *, tables: bool) -> RichPanel[Any, Any]:
    if panel.commands:
        kind = RichCommandPanel if tables else _NarrowCommandPanel
        return kind(panel.title, commands=list(panel.commands))
    return (RichOptionPanel if tables else _NarrowOptionPanel)(panel.title, options=list(panel.options))


# -- text ----------------------------------------------------------------------------------------------


class _TextOfOurs:
    """Examples and grammars keep their lines; a blank line stands between paragraphs."""

    help: str | None

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        width = formatter.console.width - 2
        parts: list[Any] = []
        before = ""
        for kind, text in blocks(self.help or "", width - _CODE_INDENT):
            # Examples follow their heading, and one another.
            if parts and not (kind == "code" and (before == "code" or before in _HEADINGS)):
                parts.append(Text())
            if kind == "code":
                lines = Text("\n".join(folded(text, width - _CODE_INDENT)), style=formatter.config.style_helptext)
                parts.append(Padding(lines, (0, 0, 0, _CODE_INDENT)))
            else:
                first = not parts
                style = formatter.config.style_helptext_first_line if first else formatter.config.style_helptext
                parts.append(formatter.rich_text(text, style))
            before = text if text in _HEADINGS else kind
        if parts:
            formatter.write(Padding(Renderables(*parts), (0, 1, 1, 1)))


_HEADINGS = ("Example:", "Examples:")
_CODE_INDENT = 2


class _DrawnCommand(_TextOfOurs, rich_click.RichCommand):
    pass


class _DrawnGroup(_TextOfOurs, rich_click.RichGroup):  # type: ignore[misc]  # of rich-click's own two bases
    pass


# -- where a table has no room ---------------------------------------------------------------------------


def _below(rows: list[tuple[Any, Any]]) -> Table:
    """Each name on a line of its own, what it means below it."""
    table = Table.grid(expand=True)
    for name, meaning in rows:
        table.add_row(name)
        if meaning is not None:
            table.add_row(Padding(meaning, (0, 0, 0, _BELOW_INDENT)))
    return table


_BELOW_INDENT = 4


class _NarrowOptionPanel(RichOptionPanel):
    def get_table(self, command: Any, ctx: Any, formatter: Any) -> Table:
        self.column_types = ["opt_all", "metavar", "help"]
        rows: list[tuple[Any, Any]] = []
        params: Any = self.get_objects(command, ctx)
        for param in params:
            row: Any = get_parameter_rich_table_row(param, ctx, formatter, self)
            name, metavar, meaning = row
            rows.append((name if metavar is None else Text(" ").join([name, metavar]), meaning))
        return _below(rows)


class _NarrowCommandPanel(RichCommandPanel):
    def get_table(self, command: Any, ctx: Any, formatter: Any) -> Table:
        rows = [get_command_rich_table_row(each, ctx, formatter, self) for each in self.get_objects(command, ctx)]
        return _below([(row[0], row[-1]) for row in rows])
