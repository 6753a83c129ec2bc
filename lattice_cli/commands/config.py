"""``lattice config``: what ``lattice start`` would run with, and whether that is valid."""

from __future__ import annotations

from pathlib import Path

import click

from lattice_cli.declare import group
from lattice_cli.options import common_options, resolve


@group()
@common_options
def config() -> None:
    """Look at a node's configuration without starting it."""


@config.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@common_options
def check(file: Path | None) -> None:
    """Check FILE (TOML) together with the LATTICE_* variables, as lattice start --config FILE would.

    Certificates and keys that it names are read and checked too.

    Examples: lattice config check    lattice config check lattice.toml
    """
    from lattice_cli import settings

    config = settings.load({}, config_file=file).config
    config.validate()
    if config.tls_cert or config.peer_tls_cert or config.tls_ca:
        from lattice_core.server.tls import NodeTLS

        NodeTLS(config)
    click.echo("valid", err=True)


@config.command("show")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@common_options
@click.pass_context
def show(ctx: click.Context, file: Path | None) -> None:
    """Show every setting, its value and where it comes from: a flag, a variable, FILE or the default.

    Examples: lattice config show    lattice config show lattice.toml -o json
    """
    from lattice_cli import settings

    options = resolve(ctx)
    loaded = settings.load({}, config_file=file)
    values = settings.as_dict(loaded.config)
    if options.output == "json":
        from lattice_cli.render import documents

        documents.print_document(
            {name: {"value": value, "source": loaded.sources[name]} for name, value in values.items()}
        )
        return
    from lattice_cli.render import lines, tables
    from lattice_cli.render.console import data_console

    if options.output == "raw":
        for name, value in values.items():
            lines.record(name, settings.to_text(value), loaded.sources[name])
    else:
        rows = [(name, settings.to_text(value), loaded.sources[name]) for name, value in values.items()]
        tables.show(data_console(no_color=options.no_color), tables.setting_table(rows))
