"""Channels and listeners with TLS or without, and who the other side has proven to be.

Between members both sides show a certificate, and both check whose it is:

* whoever dials n2 lets gRPC complete the handshake only with a certificate for ``n2.member.lattice``
  (:func:`~lattice_core.tls.member_dns_name`), so that nothing is said to anybody else, at whatever address;
* whoever is dialled knows after the handshake which member's certificate it was, and compares that with what the
  hello claims, before anything else is done with the hello.

Addresses are not in it: members may move, and be dialled through tunnels.

Clients check what they dialled, host name or IP address, as everywhere on the web.

Limits: gRPC checks a certificate when a connection is made, and never again; a connection outlives the certificate
that it was made with. Withdrawn certificates (CRLs) are not known: short lives, or a new authority.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from lattice_core.rpc.options import Options, peer_channel_options

if TYPE_CHECKING:
    from lattice_core.tls import Material

NOT_A_MEMBER = "the peer port is for members, and this connection has shown no member's certificate"


def open_channel(addr: str, material: Material | None, options: Options) -> grpc.aio.Channel:
    """A channel with TLS, or without where there is no material for it."""
    if material is None:
        return grpc.aio.insecure_channel(addr, options=options)
    credentials = grpc.ssl_channel_credentials(material.ca, material.key, material.cert)
    return grpc.aio.secure_channel(addr, credentials, options=options)


class PeerSecurity:
    """How one member reaches the others, and knows them."""

    def __init__(self, current: Callable[[], Material] | None = None) -> None:
        """``current``: what to use for a new connection; None: plain text, and everybody is believed."""
        self._current = current

    @property
    def material(self) -> Material | None:
        return self._current() if self._current is not None else None

    def open_channel(self, name: str, addr: str) -> grpc.aio.Channel:
        """A channel to the member ``name``, and to nobody else who may listen there."""
        options = peer_channel_options()
        material = self.material
        if material is not None:
            from lattice_core.tls import member_dns_name

            options.append(("grpc.ssl_target_name_override", member_dns_name(name)))
        return open_channel(addr, material, options)

    def proven_members(self, context: Any) -> frozenset[str] | None:
        """As which members the other end of a handler's connection has proven itself; None: proofs are not asked."""
        if self._current is None:
            return None
        from lattice_core.tls import member_of_dns_name

        names = context.auth_context().get("peer_dns", ())
        found = (member_of_dns_name(name.decode("latin-1")) for name in names)
        return frozenset(name for name in found if name is not None)

    async def require_member(self, context: Any) -> None:
        """End a call from somebody who is no member."""
        proven = self.proven_members(context)
        if proven is not None and not proven:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, NOT_A_MEMBER)


PLAIN = PeerSecurity()


def server_credentials(current: Callable[[], Material]) -> grpc.ServerCredentials:
    """For a listener: each new connection meets what is current then. Its clients must show a certificate that leads
    to an authority of the material's; without one, nobody is asked for a certificate.
    """
    given = current()
    last = given

    def fetch() -> Any:
        # Called by a thread of gRPC's, before each handshake.
        nonlocal last
        now = current()
        if now is last:
            return None
        last = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), fetch, require_client_authentication=given.ca is not None
    )


def _configuration(material: Material) -> Any:
    assert material.key is not None
    assert material.cert is not None
    return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], material.ca)
