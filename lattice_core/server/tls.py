"""A node's certificates: read at the start, watched while it runs, told of before they expire.

Two listeners, two pairs of files. Each is checked as a whole before the node starts (the key is the certificate's,
it has not expired, it may be used for this, it is this member's, the peers' authority issued it), so that what would
fail in every handshake fails here, once and by name.

Files that change are read again: once they have been the same for two looks, so that a certificate is not taken
without the key that is written a moment later. New connections meet the new ones. If they are no good, that is
logged, and what was read before stays in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import grpc

from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError
from lattice_core.rpc.credentials import PeerSecurity, open_channel, server_credentials
from lattice_core.rpc.options import peer_channel_options
from lattice_core.rpc.tls_diagnosis import diagnose, may_be_tls, validity
from lattice_core.tls import Labels, Material, Source, load

if TYPE_CHECKING:
    from lattice_core.certificates import Certificate

LOOK_SECONDS: Final = 1.0
WARN_BEFORE: Final = timedelta(days=30)
"""The time that is usual for a renewal; whoever lets certificates live for less hears of it in their last third."""
WARN_AGAIN_SECONDS: Final = 24 * 3600.0

CLIENT_LABELS: Final = Labels("--tls-client-ca", "--tls-cert", "--tls-key")
PEER_LABELS: Final = Labels("--peer-tls-ca", "--peer-tls-cert", "--peer-tls-key")

log = logging.getLogger("lattice.tls")


class Listener:
    """The certificate of one port."""

    def __init__(self, port: str, paths: tuple[str, str, str], labels: Labels, member: str | None) -> None:
        """``port``: as a metric's label names it. ``member``: whose certificate it has to be, if that matters.

        Raises ConfigurationError for files that cannot be used.
        """
        self.port = port
        self._member = member
        self._labels = labels
        self._source = Source(*paths, labels)
        self.certificate = self._check(self._source.material)
        self._material = self._source.material
        self._candidate: tuple[object, ...] | None = None
        self._told_at = -WARN_AGAIN_SECONDS

    def current(self) -> Material:
        """For a new connection. Any thread may ask."""
        return self._material

    def look(self) -> None:
        """Take changed files, once they have been the same for two looks."""
        if not self._source.changed():
            self._candidate = None
            return
        signature = self._source.signature()
        if signature != self._candidate:
            self._candidate = signature
            return
        self._candidate = None
        try:
            material = self._source.read()
            certificate = self._check(material)
        except ConfigurationError as error:
            log.error("new files for the %s port are no good: %s; the old ones stay in force", self.port, error.message)
            return
        self._material, self.certificate = material, certificate
        self._told_at = -WARN_AGAIN_SECONDS
        log.info(
            "the %s port has a new certificate, %s, which %s", self.port, material.cert_path, validity(certificate)
        )

    def warn(self) -> None:
        """Say once a day that the certificate ends soon, or has ended."""
        certificate, now = self.certificate, datetime.now(UTC)
        left = certificate.not_after - now
        if left > min(WARN_BEFORE, (certificate.not_after - certificate.not_before) / 3):
            return
        if time.monotonic() - self._told_at < WARN_AGAIN_SECONDS:
            return
        self._told_at = time.monotonic()
        level = logging.ERROR if left <= timedelta(0) else logging.WARNING
        text = "the %s port's certificate %s %s: replace it, no restart is needed (lattice certs node)"
        log.log(level, text, self.port, self._material.cert_path, validity(certificate))

    def _check(self, material: Material) -> Certificate:
        from lattice_core.certificates import issued_by, read  # a tenth of a second, for nodes with TLS alone

        labels = self._labels
        assert material.cert is not None
        where = f"{labels.cert} {material.cert_path}"
        found = read(material.cert)[0]
        if not found.not_before <= datetime.now(UTC) <= found.not_after:
            raise ConfigurationError(f"{where} {validity(found)}", hint=f"lattice certs node {self._member or 'NAME'}")
        if not found.for_servers or (self._member is not None and not found.for_clients):
            missing = "clients only" if found.for_clients else "servers only" if found.for_servers else "something else"
            raise ConfigurationError(
                f"{where} is a certificate for {missing}, by its extended key usage", hint="lattice certs node NAME"
            )
        if self._member is None:
            return found
        if self._member not in found.members:
            raise ConfigurationError(
                f"{where} is for {found.names()}, and this node is {self._member}",
                hint=f"lattice certs node {self._member}",
            )
        if material.ca is not None and not issued_by(material.cert, material.ca):
            raise ConfigurationError(
                f"{where} was issued by {found.issuer}, which is not among the authorities in {labels.ca} "
                f"{material.ca_path}",
                hint="every member's certificate comes from an authority that all of them are given",
            )
        return found


class NodeTLS:
    """What a node's configuration says of TLS, in force. Raises ConfigurationError from the start if it cannot be."""

    def __init__(self, config: NodeConfig) -> None:
        self._client: Listener | None = None
        self._peer: Listener | None = None
        if config.tls_cert:
            paths = (config.tls_client_ca, config.tls_cert, config.tls_key)
            self._client = Listener("client", paths, CLIENT_LABELS, None)
        if config.peer_tls_cert:
            paths = (config.peer_tls_ca, config.peer_tls_cert, config.peer_tls_key)
            self._peer = Listener("peer", paths, PEER_LABELS, config.name)
        # To ask the members of a cluster, at their client ports, to be let in.
        self._asking = load(config.tls_ca, config.tls_cert, config.tls_key) if config.tls_ca else None
        self.peers = PeerSecurity(self._peer.current if self._peer is not None else None)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return tuple(each for each in (self._client, self._peer) if each is not None)

    def client_port(self) -> grpc.ServerCredentials | None:
        """For the listener that clients connect to; None: plain text."""
        return server_credentials(self._client.current) if self._client is not None else None

    def peer_port(self) -> grpc.ServerCredentials | None:
        return server_credentials(self._peer.current) if self._peer is not None else None

    def open_client_channel(self, addr: str) -> grpc.aio.Channel:
        """To another member's client port."""
        return open_channel(addr, self._asking, peer_channel_options())

    async def explain(self, error: grpc.aio.AioRpcError, addr: str) -> str | None:
        """What is wrong with TLS, if that is why a member's client port could not be asked."""
        if not may_be_tls(error.details() or ""):
            return None
        finding = await diagnose(addr, self._asking)
        return f"{finding.reason} ({finding.hint})" if finding is not None else None

    async def watch(self) -> None:
        """Look after the files until cancelled."""
        while True:
            for listener in self.listeners:
                listener.warn()
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(listener.look)
            await asyncio.sleep(LOOK_SECONDS)
