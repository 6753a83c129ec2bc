"""Addresses as people write them. Apart from config.py, for clients: they need no node's settings."""

from __future__ import annotations

from lattice_core.errors import ConfigurationError


def parse_addr(text: str, *, what: str = "address") -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT`` as (host, port). Raises ConfigurationError with the text it got."""
    scheme, is_url, rest = text.partition("://")
    if is_url:
        bare = rest.split("/")[0]
        tls = ", and for TLS --tls-ca FILE" if scheme.lower() == "https" else ""
        raise ConfigurationError(
            f"{what} {text!r} is not HOST:PORT: leave out {scheme}://{tls}",
            hint=bare if ":" in bare else f"{bare}:7400",
        )
    host, separator, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigurationError(
            f"{what} {text!r} is ambiguous: write an IPv6 address as [ADDR]:PORT", hint="for example [::1]:7400"
        )
    if not separator or not host or any(character.isspace() or character in "/,=@" for character in host):
        raise ConfigurationError(f"{what} {text!r} is not HOST:PORT", hint="for example 127.0.0.1:7400")
    if not port_text.isascii() or not port_text.isdigit() or len(port_text) > 5 or not 1 <= int(port_text) <= 65535:
        raise ConfigurationError(f"{what} {text!r} has no valid port (1 to 65535)", hint="for example 127.0.0.1:7400")
    return host, int(port_text)
