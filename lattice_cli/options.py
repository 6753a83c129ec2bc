"""The options that every command takes, before or after its name, and what they come to.

A flag nearer to the command wins: ``lattice -o json put -o raw`` is raw. Flags win over variables, variables
over defaults. The variables are read last, here, and not by click: it would read them again for the inner
command and let them win over a flag of the outer one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click
import rich_click

from lattice_core.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from lattice_core.client import Client
    from lattice_core.tls import ClientTLS

F = TypeVar("F", bound=Callable[..., Any])

Output = Literal["table", "json", "raw"]

DEFAULT_ENDPOINTS = "127.0.0.1:7400"
DEFAULT_TIMEOUT_SECONDS = 5.0

_META = "lattice."
TLS = ("tls_ca", "tls_cert", "tls_key")
COMMON = {"endpoints", "timeout", "output", "no_color", *TLS}


@dataclass(frozen=True, slots=True)
class Globals:
    """What the global options, the variables and the terminal come to."""

    endpoints: str
    timeout: float
    output: Output
    no_color: bool
    asked_timeout: float | None = None
    """The timeout if somebody asked for one, be it the default's value; what takes long has patience otherwise."""
    tls: ClientTLS | None = None
    """How members are reached; None: plain text."""

    def client(self) -> Client:
        """A client of the cluster meant. To be closed."""
        # gRPC's C core would write lines of its own to stderr when a connection breaks.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from lattice_core.client import Client

        return Client(self.endpoints, timeout=self.timeout, tls=self.tls)


def common_options(function: F) -> F:
    """Add the global options to a command or group."""
    options = (
        click.option(
            "--endpoints",
            metavar="H:P[,H:P]",
            help="Client addresses of one or more members; any will do. "
            f"[env: LATTICE_ENDPOINTS; default: {DEFAULT_ENDPOINTS}]",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="How long an operation may take, lost leaders included. "
            f"[env: LATTICE_TIMEOUT; default: {DEFAULT_TIMEOUT_SECONDS:g}]",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Choice(["table", "json", "raw"]),
            help="How to print. [default: table on a terminal, else raw]",
        ),
        click.option(
            "--tls-ca",
            metavar="FILE",
            help="Speak TLS, with members that these authorities certify. [env: LATTICE_TLS_CA]",
        ),
        click.option("--tls-cert", metavar="FILE", help="Our own certificate. [env: LATTICE_TLS_CERT]"),
        click.option("--tls-key", metavar="FILE", help="Its private key. [env: LATTICE_TLS_KEY]"),
        click.option("--no-color", is_flag=True, default=None, help="No colours. [env: NO_COLOR]"),
    )
    for option in reversed(options):
        function = option(function)
    names = [option for option in function.__click_params__ if option.name in COMMON]  # type: ignore[attr-defined]
    for option in names:
        option.expose_value = False
        option.callback = _remember
    # Their own panel in the help, below the command's own options.
    own: Callable[[F], F] = rich_click.option_panel("Options")
    common: Callable[[F], F] = rich_click.option_panel(
        "Global options",
        options=["--endpoints", "--timeout", "--tls-ca", "--tls-cert", "--tls-key", "--output", "--no-color"],
    )
    return own(common(function))


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        ctx.meta[f"{_META}{param.name}"] = value


def resolve(ctx: click.Context) -> Globals:
    """The options in force for the command being run. Raises ConfigurationError for a bad variable."""
    meta = ctx.meta
    output = meta.get(f"{_META}output") or ("table" if sys.stdout.isatty() else "raw")
    asked = meta.get(f"{_META}timeout") or _timeout_variable()
    return Globals(
        endpoints=meta.get(f"{_META}endpoints") or os.environ.get("LATTICE_ENDPOINTS") or DEFAULT_ENDPOINTS,
        timeout=asked or DEFAULT_TIMEOUT_SECONDS,
        output=cast("Output", output),
        no_color=bool(meta.get(f"{_META}no_color")) or bool(os.environ.get("NO_COLOR")),
        asked_timeout=asked,
        tls=_client_tls(ctx),
    )


def tls_flags(ctx: click.Context) -> dict[str, str | None]:
    """The TLS options as they were given, here or before the command; None where they were not."""
    return {name: ctx.meta.get(f"{_META}{name}") for name in TLS}


def _client_tls(ctx: click.Context) -> ClientTLS | None:
    """What the three options and variables come to; the files have been read, and go together."""
    ca, cert, key = (given or os.environ.get(f"LATTICE_{name.upper()}", "") for name, given in tls_flags(ctx).items())
    if not (ca or cert or key):
        return None
    from lattice_core.tls import client_files, load

    files = client_files(ca, cert, key)
    load(ca, cert, key)
    return files


def _timeout_variable() -> float | None:
    text = os.environ.get("LATTICE_TIMEOUT")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(
            f"LATTICE_TIMEOUT is {text!r}, not a number of seconds above 0", hint="LATTICE_TIMEOUT=5"
        )
    return seconds


def as_bytes(argument: str) -> bytes:
    """A command line argument as the bytes the shell passed, valid UTF-8 or not."""
    return os.fsencode(argument)


def checked_key(what: str, key: bytes) -> None:
    """Raise InvalidRequest or TooLarge for what cannot be a key; ``what`` is the command."""
    from lattice_core.kv.commands import delete, validate_op

    try:
        validate_op(delete(key))
    except InvalidRequest as error:
        error.message = f"{what}: {error.message}"
        raise


def value_argument(argument: str, limit: int) -> bytes:
    """A VALUE: as given, or for ``-`` what is on standard input, read no further than it can matter."""
    if argument != "-":
        return as_bytes(argument)
    return sys.stdin.buffer.read(limit + 1)
