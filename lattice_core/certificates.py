"""Looking into certificates, and making them: an authority, and what it certifies.

Keys are on the curve P-256: small, quick, and understood everywhere. A certificate names the authority's key and its
own, so that chains can be found; an authority may certify servers and clients, and no further authority.

Whoever has the authority's key can be every member and every client. It is needed to make certificates and for nothing
else, and is best kept where no node runs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lattice_core.errors import ConfigurationError
from lattice_core.tls import member_of_dns_name

BACKDATED: Final = timedelta(hours=1)
"""So that a machine whose clock is a little slow takes a new certificate at once."""

MAX_COMMON_NAME_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a person or a check wants to know of one."""

    serial: int
    common_name: str
    issuer: str
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_authority: bool
    for_servers: bool
    for_clients: bool

    @property
    def members(self) -> tuple[str, ...]:
        """The members it is for: one, where all is well."""
        return tuple(name for name in map(member_of_dns_name, self.dns_names) if name is not None)

    def names(self) -> str:
        """Whom it is for, in one line."""
        members = [f"member {name}" for name in self.members]
        hosts = [*(each for each in self.dns_names if member_of_dns_name(each) is None), *self.addresses]
        return ", ".join([*members, *hosts]) or self.common_name or "nobody"


@dataclass(frozen=True, slots=True)
class Authority:
    """Somebody who certifies: certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def read(pem: bytes) -> list[Certificate]:
    """The certificates of a file, in order. Raises ConfigurationError if there is none that can be read."""
    return [_described(each) for each in _parse(pem)]


def read_der(der: bytes) -> Certificate:
    """One as it comes in a handshake. Raises ValueError."""
    return _described(x509.load_der_x509_certificate(der))


def issued_by(pem: bytes, authorities: bytes) -> bool:
    """Whether the first certificate leads, by way of the others beside it, to one of the authorities."""
    chain, roots = _parse(pem), _parse(authorities)
    at, between = chain[0], chain[1:]
    for _ in range(len(chain)):
        if any(_signed(at, root) for root in roots):
            return True
        above = next((each for each in between if _signed(at, each)), None)
        if above is None:
            return False
        at = above
    return False


def _parse(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError("no certificate that can be read") from None


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # each kind of key has errors of its own, and all mean no
        return False
    return True


def _described(certificate: x509.Certificate) -> Certificate:
    dns_names: list[str] = []
    addresses: list[str] = []
    usages: Iterable[x509.ObjectIdentifier] | None = None
    is_authority = False
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            dns_names = value.get_values_for_type(x509.DNSName)
            addresses = [str(each) for each in value.get_values_for_type(x509.IPAddress)]
        elif isinstance(value, x509.ExtendedKeyUsage):
            usages = list(value)
        elif isinstance(value, x509.BasicConstraints):
            is_authority = value.ca
    return Certificate(
        serial=certificate.serial_number,
        common_name=_common_name(certificate.subject),
        issuer=_common_name(certificate.issuer),
        dns_names=tuple(dns_names),
        addresses=tuple(addresses),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_authority=is_authority,
        # Without the extension it may be used for everything.
        for_servers=usages is None or ExtendedKeyUsageOID.SERVER_AUTH in usages,
        for_clients=usages is None or ExtendedKeyUsageOID.CLIENT_AUTH in usages,
    )


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


# -- making -----------------------------------------------------------------------------------------


def make_authority(common_name: str, days: int) -> Authority:
    """A new authority that certifies itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    certificate = (
        _builder(name, name, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def load_authority(certificate: bytes, key: bytes) -> Authority:
    """The two files of an authority. Raises ConfigurationError if they are not that."""
    found = _parse(certificate)[0]
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"no private key that can be read: {error}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ConfigurationError("the key is not of an elliptic curve")
    if private.public_key() != found.public_key():
        raise ConfigurationError("the key is not the certificate's")
    if not _described(found).is_authority:
        raise ConfigurationError("the certificate is no authority's")
    return Authority(found, private)


def issue(
    authority: Authority,
    common_name: str,
    days: int,
    *,
    dns_names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    server: bool = True,
    client: bool = True,
    begins: datetime | None = None,
) -> tuple[bytes, bytes]:
    """A new key and a certificate for it, both in PEM: (certificate, key). It does not outlive the authority's."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(common_name), authority.certificate.subject, key, days, begins)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return certificate_pem(certificate), key_pem(key)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, begins: datetime | None = None
) -> x509.CertificateBuilder:
    begins = begins or datetime.now(UTC) - BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + BACKDATED + timedelta(days=days))
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
