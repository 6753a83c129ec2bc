"""``lattice start``: one node, until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import rich_click

from lattice_cli.options import common_options
from lattice_core.errors import NotAllowed


@rich_click.command()
@click.option("--name", metavar="NAME", help="This member's name, unique in its cluster. [default: n1]")
@click.option("--data-dir", metavar="DIR", help="Where everything durable is. [default: ./lattice-data]")
@click.option("--client-addr", metavar="H:P", help="Where clients connect. [default: 127.0.0.1:7400]")
@click.option("--peer-addr", metavar="H:P", help="Where other members connect. [default: 127.0.0.1:7500]")
@click.option(
    "--initial-cluster",
    metavar="NAME=H:P,...",
    help="All first members by peer address, the same on each. Without it: a cluster of one.",
)
@click.option("--join", metavar="H:P", help="Join the cluster of the member with this client address.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML.")
@click.option("--heartbeat-ms", type=int, metavar="MS", help="[default: 100]")
@click.option("--election-timeout-min-ms", type=int, metavar="MS", help="[default: 500]")
@click.option("--election-timeout-max-ms", type=int, metavar="MS", help="[default: 1000]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
@common_options
@rich_click.option_panel("Timing and logs", options=[
    "--heartbeat-ms", "--election-timeout-min-ms", "--election-timeout-max-ms", "--log-level", "--log-format",
])  # fmt: skip
def start(join: str | None, config_file: Path | None, **flags: Any) -> int:
    """Run one node. Says "ready" on stderr when it serves; SIGTERM hands leadership over and exits with 0.

    Restarting is the same command again: what the data directory knows wins. Every setting can also be a
    LATTICE_* variable (LATTICE_DATA_DIR) or stand in the file (data_dir); see: lattice config show
    """
    from lattice_cli import settings

    if join is not None:
        raise NotAllowed(
            f"start: --join {join}: joining a running cluster is not there yet",
            hint="lattice start --initial-cluster n1=H:P,n2=H:P,n3=H:P on every member",
        )
    loaded = settings.load(flags, config_file=config_file)
    loaded.config.validate()
    from lattice_core.server.run import run

    return run(loaded.config)
