"""Contexts: clusters that somebody uses, by name, so that ``lattice get`` finds the one that is meant.

They are kept in ``$XDG_CONFIG_HOME/lattice/contexts.toml`` (0600; ``~/.config`` where that is not set)::

    current = "prod"

    [contexts.prod]
    endpoints = "10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400"
    tls_ca = "/home/me/prod-ca.pem"
    token_file = "/home/me/prod-token"

The file names credentials and holds none. A context is one whole: what opens one cluster must not be sent to another.
So a context that was not asked for by name counts only if the endpoints in force are its own; see
:func:`lattice_cli.options.resolve`.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from lattice_cli.errors import did_you_mean
from lattice_core.errors import ConfigurationError, InvalidRequest

MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Context:
    """One cluster, as a client needs to know it. Paths are absolute."""

    endpoints: str
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None

    def has_endpoints(self, endpoints: str) -> bool:
        """Whether all of these addresses are this context's."""
        return _addresses(endpoints) <= _addresses(self.endpoints)


SETTINGS = tuple(each.name for each in dataclasses.fields(Context))


@dataclass(slots=True)
class Contexts:
    """What the file holds."""

    by_name: dict[str, Context] = field(default_factory=dict)
    current: str | None = None
    """The one in use. Invariant: it is in ``by_name``."""

    def named(self, name: str) -> Context:
        """Raises InvalidRequest for an unknown name, with the one that was meant."""
        context = self.by_name.get(name)
        if context is None:
            meant = did_you_mean(name, self.by_name)
            hint = f"{meant}, or: lattice context list" if meant else "lattice context list"
            raise InvalidRequest(f"there is no context {name!r}", hint=hint)
        return context


def path() -> str:
    """Where contexts are kept."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification: a relative one is to be ignored.
    base = home if os.path.isabs(home) else os.path.expanduser("~/.config")
    return os.path.join(base, "lattice", "contexts.toml")


def load() -> Contexts:
    """All contexts; none, if there is no file. Raises ConfigurationError for a file that is not theirs."""
    file = path()
    hint = f"mend or remove {file}"
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}", hint=hint) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{file} has more than {MAX_FILE_BYTES} bytes: no contexts", hint=hint)
    import tomllib

    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: numbers too long, arrays in arrays
        raise ConfigurationError(f"{file}: {error}", hint=hint) from None
    return _from_document(document, file, hint)


def _from_document(document: dict[str, Any], file: str, hint: str) -> Contexts:
    tables = document.get("contexts", {})
    current = document.get("current")
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{file}: contexts is no table", hint=hint)
    by_name = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise ConfigurationError(f"{file}: contexts.{name} is no table of texts", hint=hint)
        if unknown := next((key for key in table if key not in SETTINGS), None):
            raise ConfigurationError(f"{file}: contexts.{name}.{unknown} is no setting", hint=hint)
        if not table.get("endpoints"):
            raise ConfigurationError(f"{file}: contexts.{name} has no endpoints", hint=hint)
        by_name[name] = Context(**table)
    if current is not None and current not in by_name:
        raise ConfigurationError(f"{file}: current is {current!r}, and there is no such context", hint=hint)
    return Contexts(by_name, current)


def save(contexts: Contexts) -> None:
    """Write them all: aside, durably, then in place of the old file. Raises ConfigurationError."""
    import tempfile

    import tomli_w

    file = path()
    document: dict[str, Any] = {} if contexts.current is None else {"current": contexts.current}
    document["contexts"] = {
        name: {key: value for key, value in dataclasses.asdict(context).items() if value is not None}
        for name, context in sorted(contexts.by_name.items())
    }
    try:
        os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
        target = os.path.realpath(file)  # a link to where somebody keeps such files stays one
        number, aside = tempfile.mkstemp(prefix=".contexts-", dir=os.path.dirname(target))  # 0600
        try:
            with open(number, "wb") as opened:
                opened.write(tomli_w.dumps(document).encode())
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(aside, target)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror}", hint="XDG_CONFIG_HOME=DIR") from None


def checked_name(name: str) -> str:
    """A name that people can type and see. Raises InvalidRequest."""
    if not name or not name.isprintable() or any(character.isspace() for character in name) or name.startswith("-"):
        raise InvalidRequest(
            f"{name!r} cannot name a context: some letters, without blanks", hint="lattice context add prod ..."
        )
    return name


def _addresses(endpoints: str) -> set[str]:
    return {part.strip() for part in endpoints.split(",") if part.strip()}
