"""How our gRPC channels and servers are set up, and the reason for every number.

Keepalive: a TCP connection whose other end vanished (pulled cable, dropped NAT entry) stays "established"
for minutes. A ping every two seconds, answered within two, ends it within about four.

Backoff: gRPC's own reconnect backoff begins at one second and grows to two minutes, far beyond an election
timeout. Links make a new channel for each attempt and pace themselves; the numbers here only keep gRPC's
machinery out of the way. A local subchannel pool keeps one channel's backoff from another's.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

Options: TypeAlias = list[tuple[str, Any]]

KEEPALIVE_MS = 2000
CONNECT_TIMEOUT_MS = 2000
"""Half a dozen round trips around the world; a silent drop of packets is given up after it."""

DEFAULT_HANDSHAKE_TIMEOUT_MS = 5000
"""Until a connection has said how it wants to speak: gRPC's own two minutes would let strangers collect sockets."""

MAX_METADATA_BYTES = 16 << 10
"""Headers of one call: ours have a few dozen bytes."""

PEER_MESSAGE_LIMIT_BYTES = 16 << 20
"""An envelope stops gathering at 2 MiB, and its last message is one AppendEntries: 1 MiB of entries or one
entry, which itself is bounded at about 4 MiB."""

CLIENT_RECEIVE_LIMIT_BYTES = 4 << 20
"""gRPC's usual limit: a batch may have 2 MiB."""

CLIENT_SEND_LIMIT_BYTES = 16 << 20
"""Answers are bounded where they are made, well below the 4 MiB that clients take by default."""


class ConnectionLimits(NamedTuple):
    """What one listener puts up with."""

    connections: int | None = None
    """Open at a time; one more is closed as soon as it is accepted. None: as many as there are descriptors."""

    handshake_timeout_ms: int = DEFAULT_HANDSHAKE_TIMEOUT_MS
    idle_seconds: int = 0
    """Without any call; 0: for ever."""

    keepalive_ms: int = KEEPALIVE_MS


DEFAULT_CONNECTION_LIMITS: Final = ConnectionLimits()


def _keepalive(keepalive_ms: int = KEEPALIVE_MS) -> Options:
    return [
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def peer_channel_options() -> Options:
    return [
        *_keepalive(),
        ("grpc.max_receive_message_length", PEER_MESSAGE_LIMIT_BYTES),
        ("grpc.max_send_message_length", PEER_MESSAGE_LIMIT_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),
        # Peers are addressed directly: an HTTP proxy in the environment is not meant for them.
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    ]


def _server_options(limits: ConnectionLimits) -> Options:
    options: Options = [
        *_keepalive(limits.keepalive_ms),
        ("grpc.server_handshake_timeout_ms", limits.handshake_timeout_ms),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
        ("grpc.http2.max_ping_strikes", 0),
        # Two servers must not share a port: the second has to fail, loudly.
        ("grpc.so_reuseport", 0),
    ]
    if limits.connections is not None:
        options.append(("grpc.max_allowed_incoming_connections", limits.connections))
    if limits.idle_seconds:
        options.append(("grpc.max_connection_idle_ms", limits.idle_seconds * 1000))
    return options


def peer_server_options(limits: ConnectionLimits = DEFAULT_CONNECTION_LIMITS) -> Options:
    return [
        *_server_options(limits),
        ("grpc.max_receive_message_length", PEER_MESSAGE_LIMIT_BYTES),
        ("grpc.max_send_message_length", PEER_MESSAGE_LIMIT_BYTES),
    ]


def client_server_options(limits: ConnectionLimits = DEFAULT_CONNECTION_LIMITS) -> Options:
    return [
        *_server_options(limits),
        ("grpc.max_receive_message_length", CLIENT_RECEIVE_LIMIT_BYTES),
        ("grpc.max_send_message_length", CLIENT_SEND_LIMIT_BYTES),
        # Streams per connection; each costs a coroutine and two small queues.
        ("grpc.max_concurrent_streams", 4096),
    ]
