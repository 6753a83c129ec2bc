"""Nodes in this process on loopback and ephemeral ports, raw gRPC stubs, and a way to wait for conditions."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgpack

from lattice_core.config import NodeConfig
from lattice_core.rpc.pb import cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
from lattice_core.server.run import RunningNode


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test
        # grpc.aio's servers schedule a last coroutine when they are collected: while there is a loop.
        gc.collect()
        await asyncio.sleep(0.01)

    asyncio.run(bounded())


async def eventually(condition: Callable[[], Any], within: float = 8.0) -> Any:
    """Poll until the condition is true; returns what it returned."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not (found := condition()):
        assert loop.time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def configs(tmp_path: Path, count: int, **settings: Any) -> list[NodeConfig]:
    """A static cluster of n1, n2, ...; one node alone has no initial cluster."""
    ports = free_ports(2 * count)
    members = {f"n{i + 1}": f"127.0.0.1:{ports[count + i]}" for i in range(count)}
    return [
        NodeConfig(
            name=name,
            data_dir=str(tmp_path / name),
            client_addr=f"127.0.0.1:{ports[i]}",
            peer_addr=addr,
            initial_cluster=members if count > 1 else {},
            segment_bytes=1 << 20,
            drain_seconds=2.0,
            **settings,
        )
        for i, (name, addr) in enumerate(members.items())
    ]


class Cluster:
    """Nodes by name; those that were stopped or killed are gone from ``nodes``."""

    def __init__(self, node_configs: list[NodeConfig]) -> None:
        self.configs = {config.name: config for config in node_configs}
        self.nodes: dict[str, RunningNode] = {}

    async def start(self, *names: str) -> None:
        starting = [RunningNode(self.configs[name]) for name in names or self.configs]
        await asyncio.gather(*(node.start() for node in starting))
        self.nodes.update({node.config.name: node for node in starting})

    async def stop(self, name: str) -> None:
        await self.nodes.pop(name).stop()

    async def kill(self, name: str) -> None:
        await self.nodes.pop(name).kill()

    async def leader(self) -> RunningNode:
        """The leader that all running nodes agree on, able to serve."""
        return await eventually(self._leader)  # type: ignore[no-any-return]

    def _leader(self) -> RunningNode | None:
        cores = [running.node.core for running in self.nodes.values()]
        leaders = {core.leader_id for core in cores}
        if len(leaders) != 1 or None in leaders:
            return None
        leading = [running for running in self.nodes.values() if running.node.core.is_leader]
        if not leading or leading[0].node.core.applied_index < leading[0].node.core.last_index:
            return None
        return leading[0]

    def followers(self) -> list[RunningNode]:
        return [running for running in self.nodes.values() if not running.node.core.is_leader]


@asynccontextmanager
async def cluster(node_configs: list[NodeConfig]) -> AsyncIterator[Cluster]:
    """All nodes started; whatever still runs is killed at the end."""
    running = Cluster(node_configs)
    try:
        await running.start()
        yield running
    finally:
        for name in list(running.nodes):
            await running.kill(name)


@asynccontextmanager
async def kv_stub(addr: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(addr, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield kv_pb2_grpc.KVStub(channel)


@asynccontextmanager
async def cluster_stub(addr: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(addr, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield cluster_pb2_grpc.ClusterStub(channel)


async def put(addr: str, key: bytes, value: bytes) -> kv_pb2.PutResponse:
    async with kv_stub(addr) as kv:
        return await kv.Put(kv_pb2.PutRequest(key=key, value=value), timeout=5)  # type: ignore[no-any-return]


async def get(addr: str, key: bytes, consistency: int = kv_pb2.CONSISTENCY_LINEARIZABLE) -> bytes | None:
    async with kv_stub(addr) as kv:
        answer = await kv.Get(kv_pb2.GetRequest(key=key, consistency=consistency), timeout=5)  # type: ignore[arg-type]
        return answer.found.value if answer.HasField("found") else None


def write_request(
    request_id: int, ops: list[Any], *, session: int = 0, sequence: int = 0, below: int = 0
) -> kv_pb2.SessionRequest:
    return kv_pb2.SessionRequest(
        request_id=request_id,
        write=kv_pb2.WriteBatch(
            session_id=session, sequence=sequence, acknowledged_below=below, commands=msgpack.packb(ops)
        ),
    )


def read_request(request_id: int, reads: list[Any], consistency: int = 0) -> kv_pb2.SessionRequest:
    return kv_pb2.SessionRequest(
        request_id=request_id,
        read=kv_pb2.ReadBatch(consistency=consistency, reads=msgpack.packb(reads)),  # type: ignore[arg-type]
    )
