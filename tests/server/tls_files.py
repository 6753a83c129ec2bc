"""Authorities and certificates of every kind, good and bad, made once for a whole run of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lattice_core import certificates
from lattice_core.certificates import Authority
from lattice_core.client import ClientTLS
from lattice_core.config import NodeConfig
from lattice_core.tls import member_dns_name


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: str
    key: str


class Mint:
    """Makes files in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority, self.ca = self._authority("ca")
        self.strange_authority, self.strange_ca = self._authority("strange")

    def _authority(self, name: str) -> tuple[Authority, str]:
        authority = certificates.make_authority(f"CA {name}", 10)
        path = self.directory / f"{name}.pem"
        path.write_bytes(certificates.certificate_pem(authority.certificate))
        return authority, str(path)

    def pair(
        self,
        file: str,
        *,
        members: Sequence[str] = (),
        hosts: Sequence[str] = ("localhost",),
        addresses: Sequence[str] = ("127.0.0.1",),
        authority: Authority | None = None,
        expired: bool = False,
        days: int = 5,
        **usage: bool,
    ) -> Pair:
        """A new pair, in place of what may be in these files."""
        cert, key = certificates.issue(
            authority or self.authority,
            file,
            days,
            dns_names=[*map(member_dns_name, members), *hosts],
            addresses=list(addresses),
            begins=datetime.now(UTC) - timedelta(days=days + 1) if expired else None,
            **usage,
        )
        paths = Pair(str(self.directory / f"{file}.pem"), str(self.directory / f"{file}.key"))
        # Moved into place, as careful people do; so never half there.
        for path, data in ((paths.key, key), (paths.cert, cert)):
            Path(f"{path}.new").write_bytes(data)
            Path(f"{path}.new").rename(path)
        return paths

    def replace(self, file: str, other: str) -> None:
        """Put another file's contents there."""
        (self.directory / file).write_bytes(Path(other).read_bytes())

    def member(self, name: str, **more: Any) -> Pair:
        return self.pair(name, members=[name], **more)

    def client(self, name: str = "client", **more: Any) -> Pair:
        return self.pair(name, hosts=(), addresses=(), server=False, **more)

    def client_tls(self, pair: Pair | None = None) -> ClientTLS:
        pair = pair or self.client()
        return ClientTLS(self.ca, pair.cert, pair.key)

    def secured(self, config: NodeConfig, **more: Any) -> NodeConfig:
        """The same with mutual TLS on both ports."""
        pair = self.member(config.name)
        settings = {
            "tls_cert": pair.cert,
            "tls_key": pair.key,
            "tls_client_ca": self.ca,
            "peer_tls_cert": pair.cert,
            "peer_tls_key": pair.key,
            "peer_tls_ca": self.ca,
            **more,
        }
        return replace(config, **settings)
