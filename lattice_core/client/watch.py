"""The cluster's status again and again, at little cost to it: one connection, kept as long as it serves.

Whichever member answers asks the others, so one is enough; but what it sees depends on where it stands. One that
knows no leader may merely be cut off, so the next question goes to another member. Members that come and go are
learned on the way.
"""

# ruff: noqa: ASYNC109 - the time goes to the server too
from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import grpc

from lattice_core.client.channels import (
    NOBODY_ANSWERS_HINT,
    AddressBook,
    ConnectFailed,
    cluster_stub,
    connect_first,
    parse_endpoints,
    plain_reason,
)
from lattice_core.client.cluster import cluster_from_pb
from lattice_core.client.cluster_types import ClusterStatus
from lattice_core.errors import Unavailable
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import cluster_pb2
from lattice_core.tls import ClientTLS

MEMBER_SECONDS = 0.5
"""What the member that is asked may spend on each other member; one that is paused holds up each answer so long."""

ATTEMPT_SECONDS = 1.5
"""For one member's answer, before another is asked: the one asked may be paused itself."""


class StatusWatch:
    """``async with StatusWatch(endpoints) as watch: await watch.ask()``. One event loop's; ask one at a time."""

    def __init__(
        self, endpoints: str | Iterable[str], *, tls: ClientTLS | None = None, token: str | None = None
    ) -> None:
        self._book = AddressBook(parse_endpoints(endpoints), tls)
        self._book.token = token
        self._address = ""
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hang_up()

    async def ask(self, timeout: float = 5.0) -> ClusterStatus:
        """Every member as one of them sees it now. Raises Unavailable if no member answers in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        reasons: list[str] = []
        hint = NOBODY_ANSWERS_HINT
        left = self._book.candidates()
        while (self._channel is not None or left) and loop.time() < deadline:
            try:
                if self._channel is None:
                    async with asyncio.timeout_at(deadline):
                        self._address, self._channel = await connect_first(self._book, left)
                status = await self._status(self._channel, min(deadline - loop.time(), ATTEMPT_SECONDS))
            except ConnectFailed as error:
                reasons.append(str(error))
                hint = error.hint
                break
            except TimeoutError:
                break
            except grpc.aio.AioRpcError as error:
                reasons.append(f"{self._address}: {plain_reason(from_rpc_error(error).message)}")
                self._book.failed(self._address)
                left = [each for each in left if each != self._address]
                await self._hang_up()
                continue
            if status.leader_id is None:
                self._book.failed(self._address)  # to the back of the list: others may know more
                await self._hang_up()
            return status
        raise Unavailable(
            f"cannot reach {'; '.join(reasons) or 'any member in time'}",
            hint=hint,
        )

    async def _status(self, channel: grpc.aio.Channel, seconds: float) -> ClusterStatus:
        request = cluster_pb2.ClusterStatusRequest(timeout_seconds=min(MEMBER_SECONDS, seconds / 2))
        response = await cluster_stub(channel, self._book.token).ClusterStatus(request, timeout=seconds)
        self._book.learn(member.client_addr for member in response.members)
        return cluster_from_pb(response)

    async def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)
