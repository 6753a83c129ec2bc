"""Why a TLS connection cannot be had: asked once more, by ourselves, when gRPC has failed.

gRPC tells little: "Socket closed" is what it says of a member that wanted a certificate, of one that speaks TLS to
somebody who does not, and of one that stopped. So the handshake is tried again with the standard library, which says
what was wrong, and shows the certificate it was wrong with; nothing is sent over it. An extra connection for a failure,
never for a success.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from lattice_core.addresses import parse_addr
from lattice_core.errors import ConfigurationError
from lattice_core.tls import Material

if TYPE_CHECKING:
    from lattice_core.certificates import Certificate

SECONDS: Final = 1.0

_SHOW_ONE: Final = "--tls-cert FILE --tls-key FILE; to make them: lattice certs client NAME"
_SECURITY: Final = "check --tls-ca, --tls-cert and --tls-key"


class Finding(NamedTuple):
    """What is wrong, as a clause, and what a client could do about it."""

    reason: str
    hint: str


_SIGNS: Final = ("tls", "ssl", "hostname verification", "certificate", "socket closed", "connection reset", "eof")
"""What gRPC's texts have in common when TLS, or the lack of it, may be the reason."""

_OUT_OF_DATE: Final = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED."""

_UNKNOWN_ISSUER: Final = (2, 7, 18, 19, 20, 21)
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT and its like, and _CERT_SIGNATURE_FAILURE: another authority of that name."""


def may_be_tls(details: str) -> bool:
    """Whether a failed connection's text leaves room for TLS as the reason."""
    text = details.lower()
    return any(sign in text for sign in _SIGNS)


async def diagnose(addr: str, material: Material | None, name: str | None = None) -> Finding | None:
    """In what TLS fails between this side and whoever listens at ``addr``; None: not in that, or it cannot be told.

    ``name``: the DNS name that the certificate there must have, where it is not the host that is dialled.
    """
    try:
        host, port = parse_addr(addr)
        async with asyncio.timeout(SECONDS):
            if material is None:
                shown = await _shown(host, port)
                return (
                    Finding("it speaks TLS, and this side does not", "--tls-ca ca.pem") if shown is not None else None
                )
            return await _diagnose(host, port, material, name)
    except (OSError, TimeoutError, ValueError, ConfigurationError):
        return None


async def _diagnose(host: str, port: int, material: Material, name: str | None) -> Finding | None:
    context = _context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(material.ca_path)
    if material.cert_path:
        context.load_cert_chain(material.cert_path, material.key_path)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return await _unverified(host, port, material, error)
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower()
        if "version number" in reason or "record layer" in reason or "packet length" in reason:
            return Finding(
                "it does not speak TLS, and this side does", "the same without --tls-ca, or start it with TLS"
            )
        return Finding(f"the TLS handshake fails: {reason or error}", _SECURITY)
    except ConnectionError:
        return None
    try:
        shown = _certificate(writer)
        if shown is not None and not _is_for(shown, name or host):
            return Finding(
                f"its certificate is for {shown.names()}, not for {_called(name or host)}",
                f"--endpoints with one of these, or a new certificate: lattice certs node NAME --host {host}",
            )
        # Only now would a server refuse the certificate that it was shown, or the lack of one.
        if await reader.read(1) == b"":
            return _refused(material)
        return None
    except (ssl.SSLError, ConnectionError):
        return _refused(material)
    finally:
        await _hang_up(writer)


async def _unverified(host: str, port: int, material: Material, error: ssl.SSLCertVerificationError) -> Finding:
    shown = await _shown(host, port)
    if shown is None:
        return Finding(f"its certificate is not accepted: {error.verify_message}", _SECURITY)
    if not shown.for_servers:
        return Finding(f"its certificate (for {shown.names()}) is not for servers", "lattice certs node NAME")
    if error.verify_code in _OUT_OF_DATE:
        renew = "lattice certs node NAME --replace, and copy it to that member"
        return Finding(f"its certificate (for {shown.names()}) {validity(shown)}", renew)
    if error.verify_code not in _UNKNOWN_ISSUER:
        reason = f"its certificate (for {shown.names()}) is not accepted: {error.verify_message}"
        return Finding(reason, _SECURITY)
    return Finding(
        f"its certificate (for {shown.names()}) was issued by {shown.issuer}, which is not among the authorities in "
        f"{material.ca_path}",
        "--tls-ca with the ca.pem of that cluster",
    )


def validity(certificate: Certificate) -> str:
    """Whether a certificate is out of date, and since or until when."""
    now = datetime.now(UTC)
    if now > certificate.not_after:
        return f"expired on {certificate.not_after:%Y-%m-%d at %H:%M} UTC"
    if now < certificate.not_before:
        return f"is valid only from {certificate.not_before:%Y-%m-%d at %H:%M} UTC: is a clock wrong?"
    return f"is valid until {certificate.not_after:%Y-%m-%d at %H:%M} UTC"


def _refused(material: Material) -> Finding:
    """The other side has hung up after the handshake, without a word: as far as can be told from here, why."""
    if material.cert is None:
        return Finding("it demands a certificate, and this side has none to show", _SHOW_ONE)
    from lattice_core.certificates import read

    own = read(material.cert)[0]
    where = f"this side's certificate {material.cert_path} (for {own.names()})"
    if not own.not_before <= datetime.now(UTC) <= own.not_after:
        return Finding(f"it refuses {where}, which {validity(own)}", "lattice certs client NAME --replace")
    if not own.for_clients:
        return Finding(f"it refuses {where}, which may not be used by a client", _SHOW_ONE)
    return Finding(
        f"it refuses {where}: it may not trust {own.issuer}, who issued it; its log says why",
        "--tls-cert and --tls-key of an authority that it trusts",
    )


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


async def _shown(host: str, port: int) -> Certificate | None:
    """The certificate that is shown there, whatever it is worth; None if TLS is not spoken."""
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=_context(), server_hostname=host)
    except (ssl.SSLError, ConnectionError):
        return None
    try:
        return _certificate(writer)
    finally:
        await _hang_up(writer)


def _certificate(writer: asyncio.StreamWriter) -> Certificate | None:
    from lattice_core.certificates import read_der

    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    der = connection.getpeercert(binary_form=True)
    return read_der(der) if der is not None else None


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ssl.SSLError, OSError):
        await writer.wait_closed()


def _is_for(certificate: Certificate, name: str) -> bool:
    names = {each.lower() for each in (*certificate.dns_names, *certificate.addresses)}
    parent = name.lower().partition(".")[2]
    return name.lower() in names or (bool(parent) and f"*.{parent}" in names)


def _called(name: str) -> str:
    from lattice_core.tls import member_of_dns_name

    member = member_of_dns_name(name)
    return name if member is None else f"member {member}"
