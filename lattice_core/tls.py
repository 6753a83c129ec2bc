"""TLS as far as it is files and names: what is read, what is checked, and what a member is called in a certificate.

Three files, all PEM: the certificates of the authorities that are trusted (``ca``), a certificate of one's own with
whatever leads up to the authority (``cert``), and its private key (``key``). They are read and checked together, so
that a missing file, a file of the wrong kind or a key of another certificate is an error with a name before anything
connects, and not a handshake that fails later with neither.

A member's name is bound to its certificate by a DNS name that is made of it (:func:`member_dns_name`). Both sides of
a connection between members check it (:mod:`lattice_core.rpc.credentials`).

Nothing here needs gRPC or more than the standard library; :mod:`lattice_core.certificates` looks into certificates.
"""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from lattice_core.errors import ConfigurationError

MEMBER_DOMAIN: Final = "member.lattice"
"""No such top-level domain exists: no public authority certifies a name in it."""

MAX_FILE_BYTES: Final = 1 << 20
"""A bundle of all the world's public authorities has a fifth of it."""

TLS_1_3_ONLY: Final = "ECDHE-PSK-CHACHA20-POLY1305"
"""gRPC's Python API cannot set a lowest version, only the ciphers of TLS 1.2; those of 1.3 are not its to choose. This
one of 1.2 needs a key shared beforehand, which there never is: 1.2 has no cipher left, and 1.3 is agreed or nothing."""

CIPHERS_VARIABLE: Final = "GRPC_SSL_CIPHER_SUITES"

log = logging.getLogger("lattice.tls")


def demand_tls_1_3() -> None:
    """Let this process' gRPC speak TLS 1.3 and nothing older. Only works before grpc is imported.

    For programs of ours: a library must not decide it for the process that it is a guest of. Somebody who has set
    the variable has decided otherwise.
    """
    os.environ.setdefault(CIPHERS_VARIABLE, TLS_1_3_ONLY)


def member_dns_name(name: str) -> str:
    """What a certificate has to be for, so that it is the member ``name``'s.

    DNS names are compared without regard to case, members' names are not: a capital letter becomes ``_`` and the
    small one, ``_`` becomes ``__``. No two names of members become one.
    """
    escaped = "".join(
        f"_{character.lower()}" if character.isupper() else "__" if character == "_" else character
        for character in name
    )
    return f"{escaped}.{MEMBER_DOMAIN}"


def member_of_dns_name(dns_name: str) -> str | None:
    """The member whose certificate has that name; None if it is no member's."""
    escaped = dns_name.removesuffix(f".{MEMBER_DOMAIN}")
    if escaped == dns_name:
        return None
    characters = iter(escaped)
    name = "".join(
        next(characters, "_").upper() if character == "_" else character  # "_" in capitals is "_"
        for character in characters
    )
    return name if name and member_dns_name(name) == dns_name else None


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """TLS for a client, from files in PEM. They are read again when they have changed, for new connections.

    ``ca``: the certificates of the authorities that members' certificates are checked with. ``cert`` and ``key``: the
    client's own, where members demand one (``--tls-client-ca``).
    """

    ca: str | os.PathLike[str]
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None


class Labels(NamedTuple):
    """What the three files are called in errors: as whoever gave them calls them."""

    ca: str = "--tls-ca"
    cert: str = "--tls-cert"
    key: str = "--tls-key"


FLAGS: Final = Labels()
FIELDS: Final = Labels("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class Material:
    """The contents of the files at one moment, checked against each other, and where they are from."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None = field(repr=False)
    ca_path: str = ""
    cert_path: str = ""
    key_path: str = ""


def client_files(ca: str, cert: str, key: str, labels: Labels = FLAGS) -> ClientTLS | None:
    """What a client's three options come to; "" is not given, and None means plain text. Raises ConfigurationError."""
    if not ca and not cert and not key:
        return None
    if not ca:
        raise ConfigurationError(
            f"{labels.cert if cert else labels.key} without {labels.ca}: whom to trust is not said",
            hint=f"{labels.ca} ca.pem",
        )
    require_pair(cert, key, labels)
    return ClientTLS(ca, cert or None, key or None)


def require_pair(cert: str, key: str, labels: Labels = FLAGS) -> None:
    """Raises ConfigurationError if one was given without the other."""
    if bool(cert) != bool(key):
        given, missing = (labels.cert, labels.key) if cert else (labels.key, labels.cert)
        raise ConfigurationError(f"{given} {cert or key} needs {missing} too", hint=f"{missing} FILE")


def load(ca: str, cert: str, key: str, labels: Labels = FLAGS) -> Material:
    """Read the files that are given ("" is not) and check them. Raises ConfigurationError that names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca_data = cert_data = key_data = None
    if ca:
        ca_data = _read(ca, labels.ca)
        _require_kind(ca_data, b"CERTIFICATE-----", ca, labels.ca, "certificate")
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as error:
            raise ConfigurationError(f"{labels.ca} {ca} is damaged: {_ssl_reason(error)}", hint=_COPY_AGAIN) from None
    if cert or key:
        require_pair(cert, key, labels)
        cert_data, key_data = _read(cert, labels.cert), _read(key, labels.key)
        _require_kind(cert_data, b"CERTIFICATE-----", cert, labels.cert, "certificate")
        _require_kind(key_data, b"PRIVATE KEY-----", key, labels.key, "private key")
        _require_match(context, cert, key, labels)
    return Material(ca_data, cert_data, key_data, ca, cert, key)


_COPY_AGAIN = "copy it again from where it was made (lattice certs)"


def _read(path: str, label: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{label}: cannot read {path}: {reason}", hint="lattice certs --help") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{label}: {path} has more than {MAX_FILE_BYTES} bytes: not in PEM")
    return data


def _require_kind(data: bytes, mark: bytes, path: str, label: str, what: str) -> None:
    if mark in data:
        return
    kind = "a private key" if b"PRIVATE KEY-----" in data else "a certificate" if b"CERTIFICATE-----" in data else ""
    if kind:
        raise ConfigurationError(f"{label} {path} holds {kind}, where a {what} should be", hint=f"{label} FILE")
    raise ConfigurationError(f"{label} {path} holds no {what} in PEM", hint=_COPY_AGAIN)


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


def _require_match(context: ssl.SSLContext, cert: str, key: str, labels: Labels) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _Encrypted:
        raise ConfigurationError(
            f"{labels.key} {key} is encrypted, and nobody is there to ask for the password",
            hint=f"openssl pkey -in {key} -out plain.key, readable by its owner alone",
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"{labels.key} {key} is not the key of {labels.cert} {cert}",
                hint="give two that were made together",
            ) from None
        raise ConfigurationError(
            f"{labels.cert} {cert} with {labels.key} {key}: {_ssl_reason(error)}", hint=_COPY_AGAIN
        ) from None


def _ssl_reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if reason else "it cannot be decoded"


class Source:
    """Material that follows its files: read anew when they have changed, and kept when what is there now is no good."""

    def __init__(self, ca: str, cert: str, key: str, labels: Labels = FLAGS) -> None:
        """Raises ConfigurationError if the files cannot be used."""
        self.paths = (ca, cert, key)
        self.labels = labels
        self._seen = self.signature()
        self.material = load(ca, cert, key, labels)

    @classmethod
    def of_client(cls, tls: ClientTLS, labels: Labels = FIELDS) -> Source:
        ca, cert, key = (os.fspath(path or "") for path in (tls.ca, tls.cert, tls.key))
        if client_files(ca, cert, key, labels) is None:
            raise ConfigurationError("TLS without ca: whom to trust is not said", hint='ClientTLS(ca="ca.pem")')
        return cls(ca, cert, key, labels)

    def signature(self) -> tuple[object, ...]:
        """Differs when a file has been replaced or written to."""
        return tuple(_signature(path) for path in self.paths)

    def changed(self) -> bool:
        """Whether the files are others than those last read, be it in vain."""
        return self.signature() != self._seen

    def read(self) -> Material:
        """The files as they are now, not yet in force; :meth:`changed` compares with these from now on. Raises
        ConfigurationError."""
        self._seen = self.signature()
        return load(*self.paths, self.labels)

    def current(self) -> Material:
        """What to use for a new connection. What is wrong with new files is logged once."""
        if self.changed():
            try:
                self.material = self.read()
            except ConfigurationError as error:
                log.warning("%s; what was read before stays in force", error.message)
        return self.material


def _signature(path: str) -> object:
    if not path:
        return None
    try:
        found = Path(path).stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns
