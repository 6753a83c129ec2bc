"""The files of ``lattice certs``: where they are, who may read them, and what to do with them next.

A key and its certificate are written aside and moved into place, the key first: a node that watches them never sees
half a file, and takes them only when both have settled. Nothing is written over what is there, unless asked.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lattice_core import certificates
from lattice_core.config import validate_name
from lattice_core.errors import ConfigurationError, InvalidRequest
from lattice_core.tls import member_dns_name

LOCAL_NAMES = ("localhost",)
LOCAL_ADDRESSES = ("127.0.0.1", "::1")

KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
"""It is no secret: whoever connects is shown it."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, and what follows."""

    what: str
    certificate: Path
    key: Path
    description: certificates.Certificate
    advice: tuple[str, ...]
    """Sentences, for people."""
    commands: tuple[str, ...]
    """What to run next."""


def make_authority(directory: Path, days: int) -> Made:
    """Raises InvalidRequest if there is one, ConfigurationError if it cannot be written."""
    cert, key = directory / "ca.pem", directory / "ca.key"
    _require_absent(cert, key, "every certificate that it has made would be worthless", "another --dir")
    authority = certificates.make_authority(f"Lattice CA {os.urandom(4).hex()}", days)
    pem = certificates.certificate_pem(authority.certificate)
    _write(directory, {key: certificates.key_pem(authority.key), cert: pem})
    return Made(
        "authority",
        cert,
        key,
        certificates.read(pem)[0],
        (
            f"{cert} goes to every member and every client.",
            f"{key} stays here: whoever has it can be any member and any client. Nodes do not need it.",
        ),
        (f"lattice certs node n1 --host HOST{_dir_option(directory)}",),
    )


def make_node(directory: Path, name: str, hosts: Sequence[str], days: int, *, replace: bool = False) -> Made:
    """Raises ConfigurationError for a name or host that cannot be one, or without an authority; InvalidRequest if
    there is one already."""
    validate_name(name)
    if name == "ca":
        raise ConfigurationError("a member called ca would have the authority's files", hint="another name")
    names, addresses = _sorted_out(hosts)
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    pem = _issue(
        directory, cert, key, name, days, replace, dns_names=[member_dns_name(name), *names], addresses=addresses
    )
    ca = directory / "ca.pem"
    advice = [f"{cert}, {key} and {ca} go to the machine of {name}; the key is for its own user alone."]
    if not hosts:
        advice.append(
            "Clients reach it on this machine only: for others give --host with each name and address they dial."
        )
    return Made(
        "node",
        cert,
        key,
        certificates.read(pem)[0],
        tuple(advice),
        (
            f"lattice start --name {name} --tls-cert {cert} --tls-key {key} --tls-client-ca {ca} "
            f"--peer-tls-cert {cert} --peer-tls-key {key} --peer-tls-ca {ca} ...",
            f"lattice certs client NAME{_dir_option(directory)}",
        ),
    )


def make_client(directory: Path, name: str, days: int, *, replace: bool = False) -> Made:
    """Raises as :func:`make_node`."""
    validate_name(name)
    cert, key = directory / f"client-{name}.pem", directory / f"client-{name}.key"
    pem = _issue(directory, cert, key, name, days, replace, server=False)
    ca = directory / "ca.pem"
    return Made(
        "client",
        cert,
        key,
        certificates.read(pem)[0],
        (f"{cert}, {key} and {ca} go to {name}; the key is for {name} alone.",),
        (f"lattice get KEY --endpoints H:P --tls-ca {ca} --tls-cert {cert} --tls-key {key}",),
    )


def _issue(
    directory: Path,
    cert: Path,
    key: Path,
    name: str,
    days: int,
    replace: bool,
    *,
    dns_names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    server: bool = True,
) -> bytes:
    authority = _authority(directory)
    if not replace:
        _require_absent(cert, key, "somebody may be using it", "--replace, or another --dir")
    common_name = name[: certificates.MAX_COMMON_NAME_CHARS]
    pem, key_pem = certificates.issue(
        authority, common_name, days, dns_names=dns_names, addresses=addresses, server=server
    )
    ends = certificates.read(certificates.certificate_pem(authority.certificate))[0].not_after
    if certificates.read(pem)[0].not_after > ends:
        raise InvalidRequest(
            f"certs: it would be valid for longer than the authority, which ends on {ends:%Y-%m-%d}",
            hint="fewer --days, or a new authority: lattice certs init --dir NEW",
        )
    _write(directory, {key: key_pem, cert: pem})
    return pem


def _authority(directory: Path) -> certificates.Authority:
    cert, key = directory / "ca.pem", directory / "ca.key"
    try:
        return certificates.load_authority(cert.read_bytes(), key.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"certs: there is no {error.filename}", hint=f"lattice certs init{_dir_option(directory)}"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"certs: cannot read {error.filename}: {(error.strerror or '').lower()}") from None
    except ConfigurationError as error:
        raise ConfigurationError(
            f"certs: {cert} and {key} are no authority's: {error.message}", hint="restore them from their backup"
        ) from None


def _sorted_out(hosts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(names, IP addresses)."""
    if not hosts:
        return list(LOCAL_NAMES), list(LOCAL_ADDRESSES)
    names: list[str] = []
    addresses: list[str] = []
    for host in dict.fromkeys(hosts):
        try:
            addresses.append(str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))))
            continue
        except ValueError:
            pass
        if not host.isascii() or not all(part and len(part) < 64 for part in host.split(".")) or _has_others(host):
            raise ConfigurationError(
                f"certs: --host {host!r} is neither a host name nor an IP address", hint="no port, and no scheme"
            )
        names.append(host.lower())
    return names, addresses


def _has_others(host: str) -> bool:
    return any(not (character.isalnum() or character in "-._") for character in host)


def _require_absent(cert: Path, key: Path, why: str, hint: str) -> None:
    for path in (cert, key):
        if os.path.lexists(path):
            raise InvalidRequest(f"certs: {path} exists already, and is left as it is: {why}", hint=hint)


def _write(directory: Path, files: dict[Path, bytes]) -> None:
    aside: list[tuple[Path, Path]] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, data in files.items():
            part = path.with_name(f".{path.name}.{os.getpid()}")
            mode = KEY_MODE if path.suffix == ".key" else CERTIFICATE_MODE
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                aside.append((part, path))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        while aside:
            part, path = aside[0]
            os.replace(part, path)
            del aside[0]
    except OSError as error:
        for part, _ in aside:
            part.unlink(missing_ok=True)
        raise ConfigurationError(
            f"certs: cannot write {error.filename or directory}: {(error.strerror or str(error)).lower()}",
            hint="--dir DIR",
        ) from None


def _dir_option(directory: Path) -> str:
    return "" if str(directory) == "certs" else f" --dir {directory}"
