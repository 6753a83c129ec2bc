"""Where a node's settings come from: flags over LATTICE_* variables over a TOML file over defaults.

The settings themselves, their defaults and what is valid are :class:`~lattice_core.config.NodeConfig`'s. Its
field names are the keys of the file (``data_dir``, or ``data-dir`` as the flag spells it) and, in capitals, the
variables (``LATTICE_DATA_DIR``). What cannot be a setting is an error that names its place and what was
probably meant; in the environment it is a warning, because others may put variables there that only begin
like ours (Kubernetes does, for a service called lattice).
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lattice_cli.errors import did_you_mean
from lattice_core.config import NodeConfig, parse_initial_cluster
from lattice_core.errors import ConfigurationError

PREFIX = "LATTICE_"

OTHER_VARIABLES = frozenset(
    {"LATTICE_ENDPOINTS", "LATTICE_CONTEXT", "LATTICE_TIMEOUT", "LATTICE_CONFIG", "LATTICE_TRACEBACK"}
)
"""Variables that are ours and no node's settings."""

MAX_FILE_BYTES = 1 << 20

FIELDS = {field.name: field for field in dataclasses.fields(NodeConfig)}


class Loaded(NamedTuple):
    """A configuration, and for each setting where its value comes from. Not validated yet."""

    config: NodeConfig
    sources: dict[str, str]


def load(
    flags: Mapping[str, Any], *, config_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Gather all settings; a flag that is None was not given. Raises ConfigurationError."""
    environ = os.environ if environ is None else environ
    if config_file is None and environ.get("LATTICE_CONFIG"):
        config_file = Path(environ["LATTICE_CONFIG"])
    values: dict[str, Any] = {}
    sources = dict.fromkeys(FIELDS, "default")
    if config_file is not None:
        for name, value in _from_file(config_file).items():
            values[name], sources[name] = value, str(config_file)
    for name, value in _from_environment(environ).items():
        values[name], sources[name] = value, f"{PREFIX}{name.upper()}"
    for name, value in flags.items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            values[name], sources[name] = _convert(name, value, flag), flag
    return Loaded(NodeConfig(**values), sources)


def as_dict(config: NodeConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in FIELDS}


def to_text(value: Any) -> str:
    """A setting's value as a flag or variable would spell it."""
    if isinstance(value, dict):
        return ",".join(f"{name}={addr}" for name, addr in value.items())
    return str(value)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES or not environ[variable]:
            continue
        name = variable[len(PREFIX) :].lower()
        if name in FIELDS:
            values[name] = _convert(name, environ[variable], variable)
        elif meant := did_you_mean(name, FIELDS):
            text = f"warning: {variable} is no setting and is ignored. did you mean {PREFIX}{meant.upper()}?"
            print(text, file=sys.stderr)  # noqa: T201
    return values


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}, line {line}: not UTF-8, as TOML has to be") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} has more than {MAX_FILE_BYTES} bytes: not a configuration")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: numbers too long, arrays in arrays
        raise ConfigurationError(_toml_error(path, text, str(error))) from None
    values: dict[str, Any] = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        where = f"{path}, line {_line_of(text, key)}: {key}"
        if name not in FIELDS:
            meant = did_you_mean(name, FIELDS)
            raise ConfigurationError(
                f"{where} is no setting", hint=f"{meant} = ..." if meant else "lattice config show"
            )
        if name in values:
            raise ConfigurationError(f"{where} is there twice, with a dash and with an underscore")
        values[name] = _convert(name, value, where)
    return values


_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def _toml_error(path: Path, text: str, message: str) -> str:
    """File, line, key and reason of a syntax error."""
    match = _PLACE.search(message)
    number = int(match[1]) if match and match[1] else text.count("\n") + 1
    lines = text.splitlines()
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    key, equals, _ = line.partition("=")
    named = f": {key.strip()}" if equals and key.strip() else ""
    reason = _PLACE.sub("", message)
    return f"{path}, line {number}{named}: {reason[:1].lower()}{reason[1:]}"


def _line_of(text: str, key: str) -> int:
    """Where a top-level key stands; tables count as well."""
    pattern = re.compile(rf"""^\s*(?:\[\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return 1


def _convert(name: str, value: Any, where: str) -> Any:
    """``value``, text or TOML's, as the setting's type. Raises ConfigurationError that says ``where``."""
    default = _default(name)
    if isinstance(default, dict):
        return _members(value, where)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ConfigurationError(f"{where}: {value!r} is not text")
        return value
    kind = type(default)
    if kind is bool:
        return _truth(value, where)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigurationError(f"{where}: {value!r} is not {_article(kind)}")
    if kind is int and isinstance(value, float):
        raise ConfigurationError(f"{where}: {value!r} is not {_article(kind)}")
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(f"{where}: {value!r} is not {_article(kind)}") from None


_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _truth(value: Any, where: str) -> bool:
    found = value if isinstance(value, bool) else _TRUTH.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise ConfigurationError(f"{where}: {value!r} is not true or false")
    return found


def _default(name: str) -> Any:
    field = FIELDS[name]
    return {} if field.default is dataclasses.MISSING else field.default


def _article(kind: type) -> str:
    return "a whole number" if kind is int else "a number"


def _members(value: Any, where: str) -> dict[str, str]:
    """``n1=H:P,...`` or, in TOML, also a table."""
    if isinstance(value, dict) and all(isinstance(addr, str) for addr in value.values()):
        value = ",".join(f"{name}={addr}" for name, addr in value.items())
    if not isinstance(value, str):
        raise ConfigurationError(f"{where}: neither NAME=HOST:PORT,... nor a table of names and addresses")
    try:
        return parse_initial_cluster(value)
    except ConfigurationError as error:
        message = error.message.removeprefix("--initial-cluster: ").removeprefix("--initial-cluster ")
        raise ConfigurationError(f"{where}: {message}", hint=error.hint) from None
