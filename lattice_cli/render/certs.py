"""Certificates that were made: where they are on stdout, what to do with them on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lattice_cli.render import documents, lines

if TYPE_CHECKING:
    from lattice_cli.cert_files import Made
    from lattice_cli.options import Output


def show(made: Made, *, output: Output) -> None:
    """One record for programs; for people also the next steps."""
    if output == "json":
        documents.print_document(
            {
                "kind": made.what,
                "certificate": str(made.certificate),
                "key": str(made.key),
                "names": [*made.description.dns_names, *made.description.addresses],
                "not_before": made.description.not_before.isoformat(),
                "not_after": made.description.not_after.isoformat(),
            }
        )
        return
    lines.record(made.certificate, made.key, f"{made.description.not_after:%Y-%m-%d}")
    click.echo(f"for {made.description.names()}; valid until {made.description.not_after:%Y-%m-%d}", err=True)
    for sentence in made.advice:
        click.echo(sentence, err=True)
    click.echo("next:", err=True)
    for command in made.commands:
        click.echo(f"  {command}", err=True)
