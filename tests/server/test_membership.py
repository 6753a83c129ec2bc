"""Servers that join, are promoted, replace others and leave: nodes on loopback in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from server_harness import Cluster, cluster, configs, eventually, free_ports, get, put, run

from lattice_core.config import NodeConfig


def joiner(running: Cluster, tmp_path: Path, name: str, **settings: Any) -> NodeConfig:
    """The configuration of a new server that joins by any member; known to the cluster's helper."""
    client, peer = free_ports(2)
    any_member = next(iter(running.configs.values()))
    config = replace(
        any_member,
        name=name,
        data_dir=str(tmp_path / name),
        client_addr=f"127.0.0.1:{client}",
        peer_addr=f"127.0.0.1:{peer}",
        initial_cluster={},
        join=",".join(each.client_addr for each in running.configs.values()),
        **settings,
    )
    running.configs[name] = config
    return config


def voters(running: Cluster) -> dict[str, list[str]]:
    """The voters by name, as every running member knows them."""
    found = {}
    for name, each in running.nodes.items():
        configuration = each.node.core.configuration
        suffix = "+joint" if configuration.is_joint else ""
        found[name] = sorted(
            member.name + suffix for member in configuration.members if member.id in configuration.voters
        )
    return found


async def until_voters(running: Cluster, *names: str) -> None:
    await eventually(lambda: all(each == list(names) for each in voters(running).values()))


def test_a_server_joins_as_a_learner_catches_up_and_is_promoted_by_the_leader(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            for n in range(30):
                await put(leader.config.client_addr, b"key%d" % n, b"value")
            joiner(running, tmp_path, "n4")
            await running.start("n4")
            new = running.nodes["n4"].node
            assert new.machine.revision == 30, "who says that it is ready has all that was there when it joined"
            await until_voters(running, "n1", "n2", "n3", "n4")
            assert await get(running.configs["n4"].client_addr, b"key7") == b"value"
            assert new.machine.state_hash == leader.node.machine.state_hash

    run(scenario())
