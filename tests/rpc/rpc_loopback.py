"""Transports on loopback with ephemeral ports, and a way to wait for conditions."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar

import grpc

from lattice_core.raft.messages import Message
from lattice_core.raft.types import Configuration, Member, NodeId
from lattice_core.rpc.credentials import PLAIN, PeerSecurity, server_credentials
from lattice_core.rpc.options import peer_server_options
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import LocalIdentity, PeerDirectory
from lattice_core.rpc.transport import PeerTransport, raft_handlers
from lattice_core.tls import Material

CLUSTER = 0xC1


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        try:
            async with asyncio.timeout(15):
                await test
        finally:
            for peer in Peer.running[:]:
                await peer.stop()
        # grpc.aio's servers schedule a last coroutine when they are collected: while there is a loop.
        gc.collect()
        await asyncio.sleep(0.01)

    asyncio.run(bounded())


async def eventually(condition: Callable[[], Any], within: float = 5.0) -> None:
    """Poll until the condition holds; fails with its source line after the timeout."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


class Book:
    """Incarnations in memory."""

    def __init__(self) -> None:
        self.bindings: dict[NodeId, int] = {}

    def known(self) -> Mapping[NodeId, int]:
        return self.bindings

    async def bind(self, bindings: Mapping[NodeId, int]) -> None:
        self.bindings = {**bindings, **self.bindings}


class Peer:
    """One transport with its listener, and what it received."""

    running: ClassVar[list[Peer]] = []

    def __init__(
        self, node_id: NodeId, *, cluster_id: int = CLUSTER, name: str = "", incarnation: int | None = None
    ) -> None:
        self.id = node_id
        self.cluster_id = cluster_id
        self.name = name or f"n{node_id}"
        self.incarnation = 1000 + node_id if incarnation is None else incarnation
        self.received: list[Message] = []
        self.unreachable: list[NodeId] = []
        self.disowned: list[str] = []
        self.removed: list[str] = []
        self.asked: list[raft_pb2.StateHashRequest] = []
        self.committed: tuple[int, Configuration] | None = None
        """None: the configuration in force, at index 0."""
        self.refuse: Exception | None = None
        self.book = Book()
        self.routes: dict[str, str] = {}
        """By name, where to dial others if not at their address; read at the start."""
        self.material: Material | None = None
        """None: plain text; read at the start."""
        self.configuration = Configuration(members=(), voters=frozenset())
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self.server = grpc.aio.server(options=peer_server_options())
        material = self.material
        if material is None:
            security = PLAIN
            self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            security = PeerSecurity(lambda: material)
            self.port = self.server.add_secure_port(f"127.0.0.1:{port}", server_credentials(lambda: material))
        identity = LocalIdentity(
            self.cluster_id, self.id, self.name, f"127.0.0.1:9{self.id:03}", self.addr, "test", self.incarnation
        )
        self.directory = PeerDirectory(
            identity,
            self.book,
            lambda: self.configuration,
            lambda: self.committed or (0, self.configuration),
            self.disowned.append,
            self.removed.append,
            self.routes,
            security,
        )
        self.transport = PeerTransport(self.directory, self._receive, self.unreachable.append)
        self.transport.open()

        async def status() -> raft_pb2.MemberStatus:
            return raft_pb2.MemberStatus(node_id=self.id, name=self.name)

        def state_hash(request: raft_pb2.StateHashRequest) -> raft_pb2.StateHashResponse:
            self.asked.append(request)
            return raft_pb2.StateHashResponse()

        handlers = raft_handlers(self.transport, status, state_hash=state_hash)
        self.server.add_generic_rpc_handlers((handlers,))
        await self.server.start()
        Peer.running.append(self)

    @property
    def addr(self) -> str:
        return f"127.0.0.1:{self.port}"

    def meet(self, *peers: Peer) -> None:
        """Have the configuration of all of them."""
        members = [Member(peer.id, peer.name, peer.addr) for peer in (self, *peers)]
        self.configuration = Configuration.of_voters(members)
        self.transport.set_configuration(self.configuration)

    def _receive(self, peer: NodeId, messages: Sequence[Message]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.received.extend(messages)

    async def stop(self) -> None:
        Peer.running.remove(self)
        await self.transport.close()
        await self.server.stop(None)
