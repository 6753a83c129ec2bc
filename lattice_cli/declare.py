"""How commands are declared: click's classes, whose help rich-click draws, which is imported when help is asked for.

``lattice get`` in a script is a process that mostly imports; rich-click, whose own classes would draw the help by
themselves, takes a fifth of its time. So a command's panels are kept here as plain data until somebody wants to see
them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from lattice_cli.errors import EXIT_USAGE, did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

_PANELS = "__lattice_panels__"


class Panel(NamedTuple):
    """A box in a command's help: options (``--limit``) or, of a group, commands."""

    title: str
    options: Sequence[str] = ()
    commands: Sequence[str] = ()


class Command(click.Command):
    """One command. ``panels`` are in the order in which they are shown, the rest in a panel of their own."""

    panels: tuple[Panel, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Decorators are applied from below.
        self.panels = tuple(reversed(getattr(self.callback, _PANELS, ())))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        line = tuple(args)  # which click takes apart
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if isinstance(error, click.NoSuchOption):
                from lattice_cli.dashes import meant_as_value

                error.hint = meant_as_value(self, ctx, line, error.option_name)  # type: ignore[attr-defined]
            # Not all of click's errors say which command they are about.
            error.ctx = error.ctx or ctx
            raise

    def get_help(self, ctx: click.Context) -> str:
        from lattice_cli.render.help import help_text

        return help_text(self, ctx)


class Group(Command, click.Group):
    """A group that answers an unknown command with the one that was meant, and no command with its help."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("invoke_without_command", True)
        super().__init__(*args, **kwargs)

    def summary(self, ctx: click.Context, name: str) -> click.Command | None:
        """Something that can be listed: it has the command's name and its help, or the beginning of it."""
        return self.get_command(ctx, name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        listed = ((name, self.summary(ctx, name)) for name in self.list_commands(ctx) if name.startswith(incomplete))
        commands = [
            CompletionItem(name, help=each.get_short_help_str()) for name, each in listed if each and not each.hidden
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is not None:
            return result
        # Whoever types "lattice" wants to look around; "lattice cluster" in a script is a mistake.
        is_root = ctx.parent is None
        # It is drawn for standard output, whose colours a file that takes standard error has no use for.
        click.echo(ctx.get_help(), err=not is_root, color=None if is_root else sys.stderr.isatty())
        return 0 if is_root else EXIT_USAGE

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        unknown = args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-")
        if unknown and not ctx.resilient_parsing:
            meant = did_you_mean(args[0], self.list_commands(ctx))
            error = click.UsageError(f"no such command {args[0]!r}", ctx=ctx)
            if meant:
                error.hint = f"{ctx.command_path} {meant}"  # type: ignore[attr-defined]
            raise error
        return super().resolve_command(ctx, args)


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """``click.command`` for ours."""
    return click.command(name, cls=Command, **attributes)


def group(
    name: str | None = None, *, cls: type[Group] = Group, **attributes: Any
) -> Callable[[Callable[..., Any]], Group]:
    """``click.group`` for ours."""
    return click.command(name, cls=cls, **attributes)


def option_panel(title: str, options: Sequence[str]) -> Callable[[F], F]:
    """Show these options in a panel of their own."""
    return _panel(Panel(title, options=options))


def command_panel(title: str, commands: Sequence[str]) -> Callable[[F], F]:
    """Show these commands of a group in a panel of their own."""
    return _panel(Panel(title, commands=commands))


def _panel(panel: Panel) -> Callable[[F], F]:
    def remember(function: F) -> F:
        setattr(function, _PANELS, [*getattr(function, _PANELS, ()), panel])
        return function

    return remember
