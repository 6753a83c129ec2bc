"""Bounds on what all clients together may have under way, each refused with the limit, what there was, and what to do.

* :class:`CallBound`: calls, streams and unary ones (``max_client_calls``). gRPC's own bound would only say "exceeded".
* :class:`AnswerBudget`: bytes of answers that were made and that their clients have not taken (``max_answer_bytes``):
  whoever asks for much and reads nothing must not fill the memory of a member (SAFETY 49).
* :func:`connection_limits`: connections, within what the process may have in descriptors. What is beyond them is
  closed by gRPC as it comes, before anybody could say why.
"""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from lattice_core.config import NodeConfig
from lattice_core.errors import Busy
from lattice_core.rpc.errors import ERROR_METADATA_KEY, status_of, to_detail
from lattice_core.rpc.options import ConnectionLimits

try:
    import resource as _resource
except ImportError:  # Windows
    resource: Any = None
else:
    resource = _resource

log = logging.getLogger("lattice.run")

OWN_DESCRIPTORS = 256
"""Kept for what is no connection of strangers: log, snapshots, links to other members, the interpreter."""

MAX_DESCRIPTORS = 1 << 16
"""What the process asks for, where the system allows more: every descriptor is a few KiB of kernel memory."""


class CallBound:
    """How many calls are under way, and how many may be."""

    __slots__ = ("limit", "open")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0

    @property
    def exceeded(self) -> bool:
        return self.open > self.limit

    async def refuse(self, context: Any) -> NoReturn:
        busy = Busy(
            f"with this one {self.open} calls are under way here, and the bound is {self.limit} (max_client_calls)",
            hint="try again, ask another member, or close streams that are not used",
        )
        detail = to_detail(busy)
        await context.abort(status_of(detail), detail.message, ((ERROR_METADATA_KEY, detail.SerializeToString()),))
        raise AssertionError("unreachable: abort raises")


class AnswerBudget:
    """Bytes of answers that wait for their clients."""

    __slots__ = ("limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0

    def refusal(self, size: int) -> Busy | None:
        """Why an answer of this size is not kept; None: it may be."""
        if self.waiting + size <= self.limit:
            return None
        return Busy(
            f"{self.waiting} bytes of answers wait to be taken by clients, and with {size} more it would be above "
            f"{self.limit} (max_answer_bytes)",
            hint="read the answers of earlier requests, or ask for less at a time",
        )


def raise_descriptor_limit() -> None:
    """Let the process have as many descriptors as the system allows it: the usual soft limit of 1,024 is for select."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.info("the limit of %d descriptors stays: %s", soft, error)


def connection_limits(config: NodeConfig) -> tuple[ConnectionLimits, ConnectionLimits]:
    """For the client port and for the peer port. Members come first where there are few descriptors."""
    clients, peers = config.max_client_connections, config.max_peer_connections
    available = _descriptors()
    if available is not None:
        room = max(32, available - OWN_DESCRIPTORS)
        peers = min(peers, room // 2)
        if clients > room - peers:
            log.info(
                "at most %d client connections, not %d (max_client_connections): the process may have %d descriptors",
                room - peers,
                clients,
                available,
                extra={"connections": room - peers, "descriptors": available},
            )
            clients = room - peers

    def limits(connections: int) -> ConnectionLimits:
        return ConnectionLimits(
            connections=connections,
            handshake_timeout_ms=config.handshake_timeout_ms,
            idle_seconds=config.idle_connection_seconds,
            keepalive_ms=config.keepalive_ms,
        )

    return limits(clients), limits(peers)


def _descriptors() -> int | None:
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
