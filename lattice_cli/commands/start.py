"""``lattice start``: one node, until it is told to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from lattice_cli.declare import command, option_panel
from lattice_cli.options import Number, asked_for, common_options


@command()
@click.option("--name", metavar="NAME", help="This member's name, unique in its cluster. [default: n1]")
@click.option("--data-dir", metavar="DIR", help="Where everything durable is. [default: ./lattice-data]")
@click.option("--client-addr", metavar="H:P", help="Where clients connect. [default: 127.0.0.1:7400]")
@click.option("--peer-addr", metavar="H:P", help="Where other members connect. [default: 127.0.0.1:7500]")
@click.option(
    "--initial-cluster",
    metavar="NAME=H:P,...",
    help="All first members by peer address, the same on each. Without it: a cluster of one.",
)
@click.option("--join", metavar="H:P[,H:P]", help="Join a running cluster: client addresses of members, any will do.")
@click.option("--learner", is_flag=True, default=None, help="With --join: stay a learner, a read replica.")
@click.option(
    "--reseed",
    metavar="H:P[,H:P]",
    help="If the data directory is damaged or lost: come back as a new member, with the state of the cluster that "
    "these client addresses lead to. If it is whole, nothing changes.",
)
@click.option(
    "--auto-remove-after",
    "auto_remove_after_seconds",
    type=Number(min=0),
    metavar="SECONDS",
    help="As the leader, remove a member that has not answered for so long while all others do. [default: 0, never]",
)
@click.option(
    "--peer-routes",
    metavar="NAME=H:P,...",
    help="Dial these members there (a tunnel, a proxy), not at the peer address the cluster knows.",
)
@click.option("--tls-client-ca", metavar="FILE", help="Clients must have certificates of these authorities.")
@click.option("--peer-tls-cert", metavar="FILE", help="This member's certificate, for members: mutual TLS among them.")
@click.option("--peer-tls-key", metavar="FILE", help="Its private key.")
@click.option("--peer-tls-ca", metavar="FILE", help="The authorities that certify members.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML.")
@click.option("--metrics-addr", metavar="H:P", help="Serve /metrics, /healthz and /readyz there. [default: nowhere]")
@click.option("--trace", is_flag=True, default=None, help="OpenTelemetry traces, exported as OTEL_* variables say.")
@click.option("--heartbeat-ms", type=int, metavar="MS", help="[default: 100]")
@click.option("--election-timeout-min-ms", type=int, metavar="MS", help="[default: 500]")
@click.option("--election-timeout-max-ms", type=int, metavar="MS", help="[default: 1000]")
@click.option(
    "--read-mode",
    type=click.Choice(["read-index", "lease"]),
    help="How linearizable reads are confirmed; lease: without a round, if clocks keep time. [default: read-index]",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
@common_options
@click.pass_context
@option_panel("TLS", options=["--tls-client-ca", "--peer-tls-cert", "--peer-tls-key", "--peer-tls-ca"])
@option_panel("Timing, logs and metrics", options=[
    "--heartbeat-ms", "--election-timeout-min-ms", "--election-timeout-max-ms", "--log-level", "--log-format",
    "--metrics-addr", "--trace",
])  # fmt: skip
def start(ctx: click.Context, /, config_file: Path | None, **flags: Any) -> int:
    """Run one node. Says "ready" on stderr when it serves; SIGTERM hands leadership over and exits with 0.

    Restarting is the same command again: what the data directory knows wins. Every setting can also be a
    LATTICE_* variable (LATTICE_DATA_DIR) or stand in the file (data_dir); see: lattice config show

    With --tls-cert and --tls-key clients are served with TLS, and shown that certificate; --tls-ca is for --join.
    """
    from lattice_cli import settings

    loaded = settings.load(
        {**flags, **{name: asked_for(ctx, name) for name in ("tls_ca", "tls_cert", "tls_key", "token_file")}},
        config_file=config_file,
    )
    loaded.config.validate()
    if loaded.config.tls_cert or loaded.config.peer_tls_cert:
        from lattice_core.rpc.environment import prepare_grpc
        from lattice_core.tls import demand_tls_1_3

        prepare_grpc()
        demand_tls_1_3()
        # gRPC alone knows why handshakes fail (lattice_core/server/handshakes.py), so here it must not be silent, as we
        # and whoever started us have told it to be. It reads its variables now.
        if os.environ.get("GRPC_VERBOSITY") == "NONE":
            del os.environ["GRPC_VERBOSITY"]
        import grpc  # noqa: F401
    from lattice_core.server.run import run

    return run(loaded.config)
