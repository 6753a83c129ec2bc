"""Members of a cluster in this process that come and go, and the calls that have them do so."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from server_harness import Cluster, cluster_stub, eventually, free_ports

from lattice_core.config import NodeConfig
from lattice_core.errors import NoLeader, NotLeader
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.server.run import RunningNode


def joiner(running: Cluster, tmp_path: Path, name: str, **settings: Any) -> NodeConfig:
    """The configuration of a new server that joins by any member; the cluster can start it by its name."""
    client, peer = free_ports(2)
    members = [config for config in running.configs.values() if config.name in running.nodes]
    config = replace(
        members[0],
        name=name,
        data_dir=str(tmp_path / name),
        client_addr=f"127.0.0.1:{client}",
        peer_addr=f"127.0.0.1:{peer}",
        initial_cluster={},
        join=",".join(member.client_addr for member in members),
        learner=False,
    )
    config = replace(config, **settings)
    running.configs[name] = config
    return config


async def ask(running: Cluster, method: str, request: Any, addr: str | None = None) -> Any:
    """Call the Cluster service of the member at ``addr``, or of the leader, wherever that goes. Raises ours."""
    for _ in range(50):
        where = addr or (await running.leader()).config.client_addr
        async with cluster_stub(where) as stub:
            try:
                return await getattr(stub, method)(request, timeout=8)
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
                if addr is not None or not isinstance(failure, NotLeader | NoLeader):
                    raise failure from None
        await asyncio.sleep(0.05)
    raise AssertionError("no leader took the call")


def voters(running: RunningNode) -> list[str]:
    """By name, as that member knows them; none while a change is joint."""
    configuration = running.node.core.configuration
    if configuration.is_joint:
        return []
    return sorted(member.name for member in configuration.members if member.id in configuration.voters)


def member_ids(running: RunningNode) -> dict[str, int]:
    return {member.name: member.id for member in running.node.core.configuration.members}


async def until_voters(running: Cluster, *names: str) -> None:
    await eventually(lambda: all(voters(each) == list(names) for each in running.nodes.values()))
