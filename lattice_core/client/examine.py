"""Asking each member by itself, from here: who can be reached, how long it takes, how far the clocks are apart.

Theory. A member says what its wall clock shows when it writes the answer; it did so at some moment between our sending
the question and our having the answer. With both taken from our clock, the middle is wrong by at most half of the
round trip (Cristian 1989), so of several answers the quickest says most.
"""

# ruff: noqa: ASYNC109 - one limit for all that is asked of an address
from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import grpc

from lattice_core.client.channels import AddressBook, ConnectFailed, cluster_stub, connect, plain_reason
from lattice_core.client.cluster import node_from_pb
from lattice_core.client.cluster_types import Examined, NodeStatus
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import cluster_pb2

ROUNDS = 7
"""The first makes the connection warm; of the rest the quickest counts."""


async def examine(book: AddressBook, addresses: Iterable[str], timeout: float) -> tuple[Examined, ...]:
    """Each address, all at the same time; in the order given."""
    return tuple(await asyncio.gather(*(_examine(book, each, timeout) for each in dict.fromkeys(addresses))))


async def _examine(book: AddressBook, address: str, timeout: float) -> Examined:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        async with asyncio.timeout_at(deadline):
            channel = await connect(address, book.material)
    except ConnectFailed as error:
        return Examined(address, None, str(error).removeprefix(f"{address}: "))
    except TimeoutError:
        return Examined(address, None, "no answer in time")
    status: NodeStatus | None = None
    samples: list[tuple[float, float]] = []  # round trip, offset
    stub = cluster_stub(channel, book.token)
    request = cluster_pb2.NodeStatusRequest(details=True)
    try:
        for _ in range(ROUNDS):
            sent_wall, sent = time.time(), time.perf_counter()
            answer = await stub.NodeStatus(request, timeout=max(0.001, deadline - loop.time()))
            seconds = time.perf_counter() - sent
            if answer.HasField("details"):
                samples.append((seconds, answer.details.wall_clock_seconds - (sent_wall + seconds / 2)))
            status = node_from_pb(answer)
    except grpc.aio.AioRpcError as error:
        if status is None:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return Examined(address, None, "no answer in time" if late else plain_reason(from_rpc_error(error).message))
    finally:
        await channel.close(None)
    measured = samples[1:] or samples
    if not measured:
        return Examined(address, status, None)
    quickest, offset = min(measured)
    return Examined(address, status, None, tuple(each for each, _ in measured), offset, quickest / 2)
