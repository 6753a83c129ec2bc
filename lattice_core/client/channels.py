"""Getting hold of a member: addresses to try, in which order, and connecting without waiting for the dead.

* :class:`AddressBook` knows every address worth trying. A hint goes first, then the addresses the user
  gave, round-robin, then those learned from the cluster. One that failed a moment ago goes to the back:
  after a kill, the followers keep naming the dead leader until the election is over.
* :func:`connect_first` dials down that list. The next address is started when one has failed or has not
  answered within a short time, and the first that is ready wins ("happy eyeballs", RFC 8305): an address
  that swallows packets costs 100 ms, not a TCP time-out.

A new channel is made for every attempt, and never shared, so that no attempt inherits the reconnect backoff
(up to minutes) of an earlier one.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from lattice_core.addresses import parse_addr
from lattice_core.errors import ConfigurationError
from lattice_core.rpc.credentials import open_channel
from lattice_core.rpc.pb import kv_pb2_grpc

if TYPE_CHECKING:
    from lattice_core.tls import ClientTLS, Material, Source

CONNECT_SECONDS = 0.5
"""For one address: three round trips (TCP, HTTP/2 settings) to the far end of a continent."""

STAGGER_SECONDS = 0.1
"""Before the next address is tried beside the one under way. RFC 8305 allows 100 ms to 2 s."""

PENALTY_SECONDS = 1.0
"""How long a failed address goes to the back of the list: about one election."""

MAX_LEARNED = 64
"""Addresses kept that the user did not give: more than any sensible cluster has members."""

MAX_MESSAGE_BYTES = 64 << 20
"""Answers are bounded by the server, well below this; requests by commands.MAX_BATCH_BYTES."""

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # A peer that vanished without a FIN: noticed in about four seconds even while nothing is asked.
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Attempts are ours to pace (see above); gRPC's must only never be in the way.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
]


def parse_endpoints(endpoints: str | Iterable[str]) -> tuple[str, ...]:
    """``H:P[,H:P]`` or an iterable of ``H:P`` as distinct addresses, in order. Raises ConfigurationError."""
    parts = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    addresses = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not addresses:
        raise ConfigurationError("no endpoints given", hint="for example 127.0.0.1:7400")
    for address in addresses:
        parse_addr(address, what="endpoint")
    return addresses


class AddressBook:
    """Which addresses to try next. Not thread-safe: one event loop's."""

    def __init__(self, given: Sequence[str], tls: ClientTLS | None = None) -> None:
        """``tls``: with what all of them are reached; None: plain text. Raises ConfigurationError for its files."""
        self.given = tuple(given)
        self._tls: Source | None = None
        if tls is not None:
            from lattice_core.tls import Source

            self._tls = Source.of_client(tls)
        self._learned: dict[str, None] = {}
        self._failed_at: dict[str, float] = {}
        self._next = 0
        self.token: str | None = None
        """What proves who the client is, to every member alike."""

    def learn(self, addresses: Iterable[str]) -> None:
        """Remember members' client addresses; what cannot be dialled from here merely fails later. Those heard of
        last are kept: in time, all that the user gave may have left the cluster."""
        for address in addresses:
            if address and address not in self.given:
                self._learned.pop(address, None)
                self._learned[address] = None
                if len(self._learned) > MAX_LEARNED:
                    del self._learned[next(iter(self._learned))]

    @property
    def material(self) -> Material | None:
        """For a new connection; None: it is to be plain text."""
        return self._tls.current() if self._tls is not None else None

    def failed(self, address: str) -> None:
        """It did not answer, or no longer does."""
        self._failed_at[address] = time.monotonic()

    def works(self, address: str) -> None:
        self._failed_at.pop(address, None)

    def is_suspect(self, address: str) -> bool:
        """Whether it failed within the last second."""
        failed_at = self._failed_at.get(address)
        return failed_at is not None and time.monotonic() - failed_at < PENALTY_SECONDS

    def candidates(self, hint: str | None = None, *, avoid: str | None = None) -> list[str]:
        """All known addresses, best first. Each call begins one further round the list. ``avoid`` goes
        last this once: its stream broke, which may mean that it is gone, or nothing much."""
        known = [*self.given, *self._learned]
        self._next = (self._next + 1) % len(known)
        start = (self._next - 1) % len(known)
        ordered = ([hint] if hint else []) + known[start:] + known[:start]
        # sorted() is stable: within "fine" and within "suspect" the order stays.
        return sorted(dict.fromkeys(ordered), key=lambda each: each == avoid or self.is_suspect(each))


NOBODY_ANSWERS_HINT = "check --endpoints, or start a node: lattice start"


class ConnectFailed(Exception):
    """No address could be reached; the text says why, address by address. ``hint`` is what to try next."""

    def __init__(self, message: str, *, hint: str = NOBODY_ANSWERS_HINT) -> None:
        super().__init__(message)
        self.hint = hint


class TLSFailed(ConnectFailed):
    """There is somebody, and TLS with them fails."""


def kv_stub(channel: grpc.aio.Channel, token: str | None = None) -> Any:
    """The KV service on ``channel``. The generated stubs are not typed."""
    make: Any = kv_pb2_grpc.KVStub
    return authorized(make(channel), token)


def cluster_stub(channel: grpc.aio.Channel, token: str | None = None) -> Any:
    """The Cluster service on ``channel``."""
    from lattice_core.rpc.pb import cluster_pb2_grpc

    make: Any = cluster_pb2_grpc.ClusterStub
    return authorized(make(channel), token)


def authorized(stub: Any, token: str | None) -> Any:
    """The stub, whose calls bring the token. Not an interceptor: grpc.aio would put a queue before every message."""
    return stub if token is None else _Authorized(stub, token)


class _Authorized:
    def __init__(self, stub: Any, token: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __getattr__(self, method: str) -> Any:
        return functools.partial(getattr(self._stub, method), metadata=self._metadata)


async def connect(address: str, material: Material | None) -> grpc.aio.Channel:
    """A channel that is ready, or ConnectFailed with the reason within :data:`CONNECT_SECONDS`. The only place that
    makes one, with our settings."""
    channel = open_channel(address, material, CHANNEL_OPTIONS)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    raise await _failure(address, channel, material)
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
        return channel
    except TimeoutError:
        await channel.close(None)
        raise ConnectFailed(f"{address}: no answer") from None
    except BaseException:
        await channel.close(None)
        raise


async def connect_first(book: AddressBook, addresses: Sequence[str]) -> tuple[str, grpc.aio.Channel]:
    """The first address that is ready, dialled in order with a head start for each.

    Raises ConnectFailed when all have failed. No channel but the one returned is left open.
    """
    waiting = list(reversed(addresses))
    dialling: dict[asyncio.Task[grpc.aio.Channel], str] = {}
    failures: list[ConnectFailed] = []
    try:
        while waiting or dialling:
            if waiting:
                address = waiting.pop()
                dialling[asyncio.ensure_future(connect(address, book.material))] = address
            done, _ = await asyncio.wait(
                dialling,
                timeout=STAGGER_SECONDS if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                address = dialling[task]
                error = task.exception()
                if error is None:
                    del dialling[task]
                    book.works(address)
                    return address, task.result()
                del dialling[task]
                book.failed(address)
                failures.append(error if isinstance(error, ConnectFailed) else ConnectFailed(str(error)))
        text = "; ".join(map(str, failures))
        if failures and all(isinstance(each, TLSFailed) for each in failures):
            raise TLSFailed(text, hint=failures[-1].hint)
        raise ConnectFailed(text)
    finally:
        await _discard(dialling)


async def _discard(dialling: Iterable[asyncio.Task[grpc.aio.Channel]]) -> None:
    """Cancel attempts; one that succeeded meanwhile has its channel closed."""
    tasks = list(dialling)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, grpc.aio.Channel):
            await result.close(None)


async def _failure(address: str, channel: grpc.aio.Channel, material: Material | None) -> ConnectFailed:
    """Why a channel failed: its state does not say, but a call on it fails at once and does."""
    from lattice_core.rpc.pb import cluster_pb2
    from lattice_core.rpc.tls_diagnosis import diagnose, may_be_tls

    try:
        await cluster_stub(channel).NodeStatus(cluster_pb2.NodeStatusRequest(), timeout=0.1)
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        if may_be_tls(details) and (finding := await diagnose(address, material)) is not None:
            return TLSFailed(f"{address}: {finding.reason}", hint=finding.hint)
        return ConnectFailed(f"{address}: {plain_reason(details)}")
    return ConnectFailed(f"{address}: not ready")


_REMOTE_HOST = re.compile(r"Failed to connect to remote host: (?:connect: )?(?P<text>[^:()]+?)(?: \(\d+\))?$")


def plain_reason(details: str) -> str:
    """The reason in gRPC's long-winded texts, in a few words."""
    match = _REMOTE_HOST.search(details)
    if match:
        return match["text"].lower()
    if "Method not found" in details:
        return "it does not serve clients (a peer address?)"
    if "Socket closed" in details or "recvmsg" in details or "Connection reset" in details:
        return "the connection was closed"
    if any(word in details for word in ("DNS", "resolution", "resolver", "errors resolving", "lookup error")):
        return "the host name is not known"
    return details.split("\n", 1)[0][:200] or "cannot connect"
