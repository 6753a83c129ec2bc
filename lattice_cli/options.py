"""The options that every command takes, before or after its name, and what they come to.

A flag nearer to the command wins: ``lattice -o json put -o raw`` is raw. Flags win over variables, variables
over the context, the context over defaults. The variables are read last, here, and not by click: it would read them
again for the inner command and let them win over a flag of the outer one.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from lattice_cli.declare import option_panel
from lattice_cli.errors import Negative
from lattice_core.errors import ConfigurationError, InvalidRequest, TooLarge

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from lattice_cli.completing import Completer
    from lattice_cli.contexts import Context
    from lattice_core.client import Client
    from lattice_core.tls import ClientTLS

F = TypeVar("F", bound=Callable[..., Any])

Output = Literal["table", "json", "raw"]

DEFAULT_ENDPOINTS = "127.0.0.1:7400"
DEFAULT_TIMEOUT_SECONDS = 5.0

_META = "lattice."
COMMON = {"context", "endpoints", "timeout", "output", "no_color", "tls_ca", "tls_cert", "tls_key", "token_file"}

CONNECTION = ("endpoints", "tls_ca", "tls_cert", "tls_key", "token_file")
"""What makes a connection, as options and contexts spell it."""

VARIABLES = {
    "endpoints": "LATTICE_ENDPOINTS",
    # A node's settings too, with the same meaning: what this process shows, and whom it trusts, at client ports.
    "tls_ca": "LATTICE_TLS_CA",
    "tls_cert": "LATTICE_TLS_CERT",
    "tls_key": "LATTICE_TLS_KEY",
    "token_file": "LATTICE_TOKEN_FILE",
}
"""What of a connection can be said by a variable."""


@dataclass(frozen=True)
class Connection:
    """Where the cluster is and what opens it."""

    endpoints: str
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None
    sources: dict[str, str] = field(default_factory=dict)
    """For each of these where it comes from: a flag, a variable, a context, or the default."""

    @property
    def token(self) -> str | None:
        """What is in the token file. Raises ConfigurationError."""
        if self.token_file is None:
            return None
        from lattice_core.tokens import read_token_file

        return read_token_file(self.token_file)

    @cached_property
    def tls(self) -> ClientTLS | None:
        """How members are reached; None: plain text. Raises ConfigurationError if its files cannot be used."""
        ca, cert, key = self.tls_ca or "", self.tls_cert or "", self.tls_key or ""
        if not (ca or cert or key):
            return None
        from lattice_core.tls import client_files, load

        files = client_files(ca, cert, key)
        load(ca, cert, key)  # here, where an error can call them what they are called here
        return files

    def values(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in self.sources}


@dataclass(frozen=True)
class Globals:
    """What the global options, the variables and the terminal come to."""

    timeout: float
    output: Output
    no_color: bool
    asked_timeout: float | None
    """The timeout if somebody asked for one, be it the default's value; what takes long has patience otherwise."""
    find: Callable[[], Connection]

    @cached_property
    def connection(self) -> Connection:
        """Found when it is needed: a command that talks to nobody must not stumble over a broken file of contexts."""
        return self.find()

    @property
    def endpoints(self) -> str:
        return self.connection.endpoints

    @property
    def tls(self) -> ClientTLS | None:
        return self.connection.tls

    def client(self, *, anonymous: bool = False) -> Client:
        """A client of the cluster meant. To be closed. ``anonymous``: without its token, which may be of no use yet."""
        from lattice_core.client import Client

        token = None if anonymous else self.connection.token
        return Client(self.endpoints, timeout=self.timeout, tls=self.tls, token=token, tracing=traces())

    def telling_client(self) -> Client:
        """The same for a command that prints nothing until it has its answer: a terminal is told what is waited for."""
        if not sys.stderr.isatty():
            return self.client()
        from lattice_cli.waiting import TellingClient, whom

        client = TellingClient(
            self.endpoints, timeout=self.timeout, tls=self.tls, token=self.connection.token, tracing=traces()
        )
        client.whom = whom(self.endpoints)
        return client


class Number(click.FloatRange):
    """A number within bounds. Not "nan", which is within any, and not "inf", which nobody waits for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number that can be meant", param, ctx)
        return number


def completed_by(what: str) -> Completer:
    """For ``shell_complete``: the function of that name in lattice_cli/completing.py, imported when a shell asks."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from lattice_cli import completing

        completer: Completer = getattr(completing, what)
        return completer(ctx, param, incomplete)

    return complete


def common_options(function: F) -> F:
    """Add the global options to a command or group."""
    options = (
        click.option(
            "--endpoints",
            metavar="H:P[,H:P]",
            help="Client addresses of one or more members; any will do. "
            f"[env: LATTICE_ENDPOINTS; default: the context's, or {DEFAULT_ENDPOINTS}]",
        ),
        click.option(
            "--context",
            metavar="NAME",
            shell_complete=completed_by("contexts"),
            help="The cluster to use. [env: LATTICE_CONTEXT; default: as lattice context use has it]",
        ),
        click.option(
            "--token-file",
            metavar="FILE",
            help="Where the token is that proves who you are, if access control is enabled. [env: LATTICE_TOKEN_FILE]",
        ),
        click.option(
            "--timeout",
            type=Number(min=0, min_open=True),
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
        click.option("--tls-cert", metavar="FILE", help="The certificate to show. [env: LATTICE_TLS_CERT]"),
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
    own: Callable[[F], F] = option_panel("Options", options=["--help"])
    common: Callable[[F], F] = option_panel(
        "Global options",
        options=[
            "--endpoints",
            "--context",
            "--tls-ca",
            "--tls-cert",
            "--tls-key",
            "--token-file",
            "--timeout",
            "--output",
            "--no-color",
        ],
    )
    return own(common(function))


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        ctx.meta[f"{_META}{param.name}"] = value


def asked_for(ctx: click.Context, name: str) -> str | None:
    """The value of a global option that was given as a flag."""
    value: str | None = ctx.meta.get(f"{_META}{name}")
    return value


def resolve(ctx: click.Context) -> Globals:
    """The options in force for the command being run. Raises ConfigurationError for a bad variable."""
    meta = ctx.meta
    output = meta.get(f"{_META}output") or ("table" if sys.stdout.isatty() else "raw")
    asked = meta.get(f"{_META}timeout") or _timeout_variable()
    return Globals(
        timeout=asked or DEFAULT_TIMEOUT_SECONDS,
        output=cast("Output", output),
        no_color=bool(meta.get(f"{_META}no_color")) or bool(os.environ.get("NO_COLOR")),
        asked_timeout=asked,
        find=lambda: connection(ctx),
    )


def connection(ctx: click.Context) -> Connection:
    """Which cluster is meant. Raises ConfigurationError or InvalidRequest if its context cannot be had.

    A context that nobody asked for by name, the one in use, has no say where other endpoints than its own were given:
    its token would go to strangers.
    """
    values: dict[str, str | None] = {}
    sources: dict[str, str] = {}
    for name in CONNECTION:
        values[name], sources[name] = asked_for(ctx, name), "--" + name.replace("_", "-")
        if values[name] is None and (variable := VARIABLES.get(name)):
            values[name], sources[name] = os.environ.get(variable) or None, variable
    context, label = _context(ctx, values["endpoints"])
    for name in CONNECTION:
        if values[name] is None:
            values[name], sources[name] = getattr(context, name, None), label
        if values[name] is None:
            sources[name] = "default"
    endpoints = values.pop("endpoints") or DEFAULT_ENDPOINTS
    return Connection(endpoints, **values, sources=sources)


def _context(ctx: click.Context, endpoints: str | None) -> tuple[Context | None, str]:
    """The context that has a say, and what to call it."""
    from lattice_cli import contexts

    named = asked_for(ctx, "context") or os.environ.get("LATTICE_CONTEXT")
    known = contexts.load()
    if named:
        return known.named(named), f"context {named}"
    current = known.by_name[known.current] if known.current else None
    if current is None or (endpoints is not None and not current.has_endpoints(endpoints)):
        return None, ""
    return current, f"context {known.current}"


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


def traces() -> bool:
    """Whether LATTICE_TRACE asks for spans of what this command does; for ``lattice start`` it is the same setting."""
    return os.environ.get("LATTICE_TRACE", "").strip().lower() in ("1", "true", "yes")


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


COUNTED_BYTES = 64 << 20
"""Of a standard input that is too large: it may have no end."""


def value_argument(argument: str, limit: int) -> bytes:
    """A VALUE: as given, or for ``-`` what is on standard input. Raises TooLarge, having counted on for a while what is
    there, and kept nothing of it."""
    if argument != "-":
        return as_bytes(argument)
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) <= limit:
        return data
    actual = len(data)
    while actual < COUNTED_BYTES and (more := len(sys.stdin.buffer.read(1 << 16))):
        actual += more
    at_least = "" if actual < COUNTED_BYTES else "at least "
    raise TooLarge(
        f"standard input has {at_least}{actual} bytes, and a value at most {limit}",
        limit=limit,
        actual=actual,
        hint="store it in pieces, under several keys",
    )


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed, where there is somebody to ask: not in a script.

    Raises Negative for a no, which the end of input is too; Abort for Ctrl-C.
    """
    if yes or not sys.stdin.isatty():
        return
    try:
        agreed = click.confirm(f"{question} Go on?", err=True)
    except click.Abort as error:
        if not isinstance(error.__context__, EOFError):
            raise
        click.echo(err=True)  # Ctrl-D leaves the line as it is
        agreed = False
    if not agreed:
        raise Negative("not confirmed, nothing was changed")
