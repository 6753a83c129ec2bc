"""A node whose access control is on: an administrator, a reader, a writer, and others; and calls as them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from server_harness import Cluster, cluster, configs

from lattice_core.rpc.pb import access_pb2, access_pb2_grpc, cluster_pb2_grpc, kv_pb2_grpc
from lattice_core.server.run import RunningNode

WRITES = "app/"
READS = "docs/"


@dataclass
class Guarded:
    """``tokens``: of root (admin), writer (write on app/), reader (read on app/, docs/), nobody (no role), and two that
    are no good: wrong, revoked; and none: no token at all."""

    running: Cluster
    channel: grpc.aio.Channel
    tokens: dict[str, str | None] = field(default_factory=lambda: {"none": None})

    @property
    def node(self) -> RunningNode:
        return next(iter(self.running.nodes.values()))

    def metadata(self, who: str) -> tuple[tuple[str, str], ...]:
        token = self.tokens[who]
        return () if token is None else (("authorization", f"Bearer {token}"),)

    async def call(self, who: str, service: str, method: str, request: Any) -> Any:
        stubs: Any = {
            "KV": kv_pb2_grpc.KVStub,
            "Cluster": cluster_pb2_grpc.ClusterStub,
            "Access": access_pb2_grpc.AccessStub,
        }
        stub = getattr(stubs[service](self.channel), method)
        return await stub(request, metadata=self.metadata(who), timeout=10)

    async def change(self, who: str, **change: Any) -> None:
        await self.call(who, "Access", "ChangeAccess", access_pb2.ChangeAccessRequest(**change))

    async def new_token(self, who: str, user: str, ttl_seconds: float | None = None) -> access_pb2.NewToken:
        request = access_pb2.CreateTokenRequest(user=user, ttl_seconds=ttl_seconds)
        return await self.call(who, "Access", "CreateToken", request)  # type: ignore[no-any-return]


async def set_up(guarded: Guarded) -> None:
    """All users and tokens, and access control enabled."""
    level = access_pb2.AccessLevel
    grant = access_pb2.ChangeAccessRequest.Grant
    add = access_pb2.ChangeAccessRequest.AddUser
    for role, prefix, allowed in (
        ("writers", WRITES, level.ACCESS_LEVEL_WRITE),
        ("readers", WRITES, level.ACCESS_LEVEL_READ),
        ("readers", READS, level.ACCESS_LEVEL_READ),
    ):
        await guarded.change("none", grant=grant(role=role, prefix=prefix.encode(), level=allowed))
    for user, roles in (("root", ["admin"]), ("writer", ["writers"]), ("reader", ["readers"]), ("nobody", [])):
        await guarded.change("none", add_user=add(name=user, roles=roles))
        guarded.tokens[user] = (await guarded.new_token("none", user)).token
    good = guarded.tokens["root"]
    assert good is not None
    guarded.tokens["wrong"] = good[:-1] + ("0" if good[-1] != "0" else "1")
    revoked = await guarded.new_token("none", "root")
    guarded.tokens["revoked"] = revoked.token
    await guarded.change("root", enable=access_pb2.ChangeAccessRequest.Enable())
    await guarded.change("root", revoke_token=access_pb2.ChangeAccessRequest.RevokeToken(id=revoked.id))


@asynccontextmanager
async def guarded_node(tmp_path: Path, **settings: Any) -> AsyncIterator[Guarded]:
    async with cluster(configs(tmp_path, 1, **settings)) as running:
        addr = (await running.leader()).config.client_addr
        async with grpc.aio.insecure_channel(addr, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            guarded = Guarded(running, channel)
            await set_up(guarded)
            yield guarded


async def verdict(call: Any) -> str:
    """ "allowed", or the gRPC status that the gate refused it with. Any other answer means that it came through."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        refused = error
    else:
        return "allowed"
    if refused.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return "allowed"
    assert not re.search(r"lattice_[0-9a-f]+_", refused.details() or ""), "an error shows no token"
    return refused.code().name
