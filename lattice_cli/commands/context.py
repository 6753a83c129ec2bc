"""``lattice context``: clusters by name, and which of them is meant when nothing is said."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from lattice_cli import contexts
from lattice_cli.declare import group
from lattice_cli.options import VARIABLES, asked_for, common_options, completed_by, connection, resolve
from lattice_core.errors import InvalidRequest

file_option = click.Path(path_type=Path, dir_okay=False, exists=True)


@group()
@common_options
def context() -> None:
    """Clusters by name: where they are and what opens them, so that commands need not be told.

    Examples: lattice context add prod --endpoints 10.0.0.1:7400,10.0.0.2:7400    lattice context use prod
    """


@context.command("add")
@click.argument("name")
@click.option("--use", is_flag=True, help="Use it from now on. The first one is used anyway.")
@click.option("--replace", is_flag=True, help="In place of one that has this name.")
@common_options
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    use: bool,
    replace: bool,
) -> None:
    """Remember a cluster as NAME: its --endpoints and, where it asks for them, certificates and token.

    Only where the files are is remembered, not what is in them.

    Examples: lattice context add local --endpoints 127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403

    lattice context add prod --endpoints 10.0.0.1:7400 --tls-ca ca.pem --token-file token --use
    """
    from lattice_core.client.channels import parse_endpoints

    contexts.checked_name(name)
    endpoints = asked_for(ctx, "endpoints")
    if endpoints is None:
        raise click.UsageError("say where the cluster is: --endpoints H:P[,H:P]", ctx=ctx)
    given = (asked_for(ctx, option) for option in ("tls_ca", "tls_cert", "tls_key"))
    tls = [None if file is None else file_option.convert(file, None, ctx) for file in given]
    if (tls[1] is None) != (tls[2] is None):
        raise click.UsageError("--tls-cert and --tls-key go together", ctx=ctx)
    token = asked_for(ctx, "token_file")
    token_file = None if token is None else file_option.convert(token, None, ctx)
    known = contexts.load()
    if name in known.by_name and not replace:
        raise InvalidRequest(f"there is a context {name!r} already", hint=f"lattice context add {name} ... --replace")
    known.by_name[name] = contexts.Context(
        ",".join(parse_endpoints(endpoints)),
        *(None if file is None else os.path.abspath(file) for file in (*tls, token_file)),
    )
    if use or known.current is None:
        known.current = name
    contexts.save(known)
    in_use = "in use" if known.current == name else f"not in use: lattice context use {name}"
    click.echo(f"context {name} added, {in_use}", err=True)
    if known.current == name:
        _warn_of_variables(name, known.by_name[name])


@context.command("use")
@click.argument("name", shell_complete=completed_by("contexts"))
@common_options
def use(name: str) -> None:
    """Use the context NAME from now on, in every command that is not told otherwise.

    Once only: lattice --context NAME ..., or LATTICE_CONTEXT=NAME. The order: flags, LATTICE_* variables, the context.

    Example: lattice context use prod
    """
    known = contexts.load()
    known.named(name)
    known.current = name
    contexts.save(known)
    click.echo(f"using context {name}: {known.by_name[name].endpoints}", err=True)
    _warn_of_variables(name, known.by_name[name])


def _warn_of_variables(name: str, chosen: contexts.Context) -> None:
    """Say which variables of this shell overrule the context that was just chosen: it would seem to have no effect."""
    overruling = {}
    other = os.environ.get("LATTICE_CONTEXT")
    if other and other != name:
        overruling["LATTICE_CONTEXT"] = other
    for setting, variable in VARIABLES.items():
        value = os.environ.get(variable)
        if not value:
            continue
        if setting == "endpoints":
            same = chosen.has_endpoints(value)
        else:
            same = os.path.abspath(value) == getattr(chosen, setting)
        if not same:
            overruling[variable] = value
    for variable, value in overruling.items():
        click.echo(f"warning: {variable}={value} is set and wins over context {name}. try: unset {variable}", err=True)


@context.command("list")
@common_options
@click.pass_context
def list_contexts(ctx: click.Context) -> None:
    """Every context; * is the one in use.

    Examples: lattice context list    lattice context list -o json
    """
    options = resolve(ctx)
    known = contexts.load()
    if options.output == "json":
        from lattice_cli.render import documents

        documents.print_document(
            {
                "current": known.current,
                "contexts": [
                    {"name": name, **dataclasses.asdict(each)} for name, each in sorted(known.by_name.items())
                ],
            }
        )
    elif options.output == "raw":
        from lattice_cli.render import lines

        for name, each in sorted(known.by_name.items()):
            lines.record(name, name == known.current, each.endpoints, *(getattr(each, key) for key in _FILES))
    elif known.by_name:
        from lattice_cli.render import tables
        from lattice_cli.render.console import data_console

        tables.show(data_console(no_color=options.no_color), tables.context_table(known.by_name, known.current))
    if not known.by_name:
        click.echo("no contexts. next: lattice context add NAME --endpoints H:P[,H:P]", err=True)


_FILES = contexts.SETTINGS[1:]


@context.command("show")
@click.argument("name", required=False, shell_complete=completed_by("contexts"))
@common_options
@click.pass_context
def show(ctx: click.Context, name: str | None) -> None:
    """What commands would connect to, and where each value comes from; or what the context NAME holds.

    Examples: lattice context show    lattice context show prod    lattice --context prod context show
    """
    options = resolve(ctx)
    if name is None:
        found = connection(ctx)
        values, sources = found.values(), found.sources
    else:
        values = dataclasses.asdict(contexts.load().named(name))
        sources = dict.fromkeys(values, f"context {name}")
    rows = [(key, value, sources[key]) for key, value in values.items() if name is None or value is not None]
    if options.output == "json":
        from lattice_cli.render import documents

        documents.print_document({key: {"value": value, "source": source} for key, value, source in rows})
        return
    from lattice_cli.render import lines, tables
    from lattice_cli.render.console import data_console

    if options.output == "raw":
        for row in rows:
            lines.record(*row)
    else:
        table = tables.setting_table([(key, value or "-", source) for key, value, source in rows])
        tables.show(data_console(no_color=options.no_color), table)


@context.command("remove")
@click.argument("name", shell_complete=completed_by("contexts"))
@common_options
def remove(name: str) -> None:
    """Forget the context NAME. The cluster, and the files it names, stay as they are.

    Example: lattice context remove old
    """
    known = contexts.load()
    known.named(name)
    del known.by_name[name]
    if known.current == name:
        known.current = None
    contexts.save(known)
    next_ = "" if known.current else "; none is in use now: lattice context use NAME"
    click.echo(f"context {name} removed{next_ if known.by_name else ''}", err=True)
