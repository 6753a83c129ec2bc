"""``lattice doctor``: what is wrong with the cluster, or soon will be, and what to do about it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from lattice_cli.declare import command
from lattice_cli.errors import EXIT_NO
from lattice_cli.options import common_options, resolve
from lattice_core.errors import Unavailable


@command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also try out the disk under DIR, a node's on this machine: 300 small writes, each with an fsync.",
)
@common_options
@click.pass_context
def doctor(ctx: click.Context, data_dir: Path | None) -> int:
    """Look at every member, its disk, clock, network, certificates and settings: what is wrong, and what to do.

    Each finding is ok, a note, a warning or a problem, with its remedy. Exits with 0 when nothing has to be done, with
    1 when there are warnings or problems, and with 3 when no member could be reached.

    Examples: lattice doctor    lattice doctor --data-dir /var/lib/lattice    lattice doctor -o json
    """
    options = resolve(ctx)
    from lattice_cli.doctor import gather
    from lattice_cli.doctor.checks import diagnose
    from lattice_cli.doctor.observed import ACTION, with_disk
    from lattice_cli.render import doctor as view
    from lattice_cli.render import documents
    from lattice_core.client.channels import parse_endpoints

    endpoints = parse_endpoints(options.endpoints)
    with options.client() as client:
        seen = gather.gather(client, endpoints, options.timeout)
    if options.connection.tls_cert:
        own = gather.own_certificate(options.connection.tls_cert)
        seen = dataclasses.replace(seen, own_certificate=own, now_seconds=time.time())
    if data_dir is not None:
        seen = with_disk(seen, gather.measure_disk(str(data_dir)))
    findings = diagnose(seen)
    if options.output == "json":
        documents.print_document(view.document(seen, findings))
    elif options.output == "raw":
        view.write_lines(findings)
    else:
        view.show(findings, no_color=options.no_color)
    if not seen.reached:
        where = options.connection.sources.get("endpoints", "default")
        raise Unavailable(
            f"doctor: no member could be reached at {', '.join(endpoints)} ({where})",
            hint="lattice start, or lattice doctor --endpoints H:P, or for a data directory: lattice wal inspect DIR",
        )
    return EXIT_NO if any(each.severity in ACTION for each in findings) else 0
