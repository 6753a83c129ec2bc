"""A damaged member of a cluster with mutual TLS, or with access control, comes back by the command its error names."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from access_harness import Guarded, set_up
from click.testing import CliRunner
from membership_harness import until_voters
from server_harness import Cluster, cluster, configs, eventually, run
from test_install import same_state
from test_reseeding import damage_log, seeds, there
from tls_files import Mint

from lattice_cli.main import cli
from lattice_core.client import AsyncClient, ClientTLS
from lattice_core.config import NodeConfig
from lattice_core.errors import LatticeError, StorageDamaged, Unauthenticated, Unavailable
from lattice_core.server import joining
from lattice_core.server.run import RunningNode


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Mint:
    return Mint(tmp_path_factory.mktemp("certificates"))


async def way_back_of(config: NodeConfig) -> str:
    """What the damaged member's error says."""
    with pytest.raises(StorageDamaged) as caught:
        await RunningNode(config).start()
    return caught.value.hint or ""


def carried_out(hint: str, addr: str, monkeypatch: pytest.MonkeyPatch) -> NodeConfig:
    """The very command, with nothing filled in but the address: the configuration that it starts a node with."""
    command = shlex.split(hint.partition(" (")[0].replace("H:P", addr))
    assert command[:2] == ["lattice", "start"]
    started: list[NodeConfig] = []

    def start(config: NodeConfig) -> int:
        started.append(config)
        return 0

    monkeypatch.setattr("lattice_core.server.run.run", start)
    for name in [name for name in os.environ if name.startswith("LATTICE_")]:
        monkeypatch.delenv(name)
    done = CliRunner().invoke(cli, command[1:])
    assert done.exit_code == 0, done.output
    return started[0]


async def damaged_follower(running: Cluster, wrote: Callable[[], bool]) -> NodeConfig:
    await running.leader()
    config = running.followers()[0].config
    await eventually(wrote)
    await running.kill(config.name)
    damage_log(Path(config.data_dir))
    return config


@pytest.mark.parametrize("clients_show_certificates", [True, False], ids=["mutual", "one-sided"])
def test_17_with_tls_on_both_ports_the_command_that_the_error_names_brings_a_damaged_member_back(
    tmp_path: Path, mint: Mint, monkeypatch: pytest.MonkeyPatch, clients_show_certificates: bool
) -> None:
    more = {} if clients_show_certificates else {"tls_client_ca": ""}

    async def scenario() -> None:
        node_configs = [mint.secured(config, **more) for config in configs(tmp_path, 3)]
        async with cluster(node_configs) as running:
            leader = await running.leader()
            async with AsyncClient(leader.config.client_addr, timeout=10.0, tls=mint.client_tls()) as client:
                for number in range(30):
                    await client.put(b"key%02d" % number, b"v")
            nodes = [each.node for each in running.nodes.values()]
            config = await damaged_follower(running, lambda: all(node.machine.revision == 30 for node in nodes))
            hint = await way_back_of(config)
            wanting = carried_out(hint, seeds(running, config), monkeypatch)
            assert wanting.tls_ca == mint.ca
            running.configs[config.name] = replace(wanting, segment_bytes=config.segment_bytes)
            await running.start(config.name)
            await until_voters(running, "n1", "n2", "n3")
            await same_state(running)
            assert len(there(config.data_dir, "before-recovery-*")) == 1

    run(scenario())


def test_an_authority_that_cannot_be_told_is_asked_for_and_without_it_the_refusal_says_why(
    tmp_path: Path, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are shown a certificate of somebody else's: none of the files that a member has is that authority's."""
    monkeypatch.setattr(joining, "PATIENCE_SECONDS", 0.5)

    async def scenario() -> None:
        shown = mint.pair("public", authority=mint.strange_authority)
        only_shown = {"tls_cert": shown.cert, "tls_key": shown.key, "tls_client_ca": ""}
        node_configs = [mint.secured(config, **only_shown) for config in configs(tmp_path, 3)]
        async with cluster(node_configs) as running:
            leader = await running.leader()
            async with AsyncClient(leader.config.client_addr, timeout=10.0, tls=ClientTLS(mint.strange_ca)) as client:
                for number in range(30):
                    await client.put(b"key%02d" % number, b"v")
            nodes = [each.node for each in running.nodes.values()]
            config = await damaged_follower(running, lambda: all(node.machine.revision == 30 for node in nodes))
            hint = await way_back_of(config)
            assert " --tls-ca FILE " in hint
            assert "FILE: of the authority that certifies members' client ports" in hint
            with pytest.raises(Unavailable, match="it speaks TLS, and this side does not"):
                await RunningNode(replace(config, reseed=seeds(running, config))).start()
            running.configs[config.name] = replace(config, reseed=seeds(running, config), tls_ca=mint.strange_ca)
            await running.start(config.name)
            await until_voters(running, "n1", "n2", "n3")

    run(scenario())


def test_17_with_access_control_on_a_damaged_member_comes_back_with_an_administrators_token_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            addr = (await running.leader()).config.client_addr
            async with grpc.aio.insecure_channel(addr, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                guarded = Guarded(running, channel)
                await set_up(guarded)
            nodes = [each.node for each in running.nodes.values()]
            config = await damaged_follower(running, lambda: all(node.machine.access.enabled for node in nodes))
            hint = await way_back_of(config)
            assert "where access control is on, also --token-file FILE, an administrator's" in hint
            wanting = carried_out(hint, seeds(running, config), monkeypatch)
            before = {path.name for path in there(config.data_dir)}
            with pytest.raises(Unauthenticated) as refused:
                await RunningNode(wanting).start()
            assert refused.value.hint == "the same command with --token-file FILE, an administrator's"
            with pytest.raises(LatticeError, match="admin"):
                await RunningNode(replace(wanting, token_file=token_of(guarded, "writer"))).start()
            assert {path.name for path in there(config.data_dir)} == before, "nothing has changed by then"

            # As it is done where the token belongs to the member's settings: then the command names the file.
            with_token = replace(config, token_file=token_of(guarded, "root"))
            hint = await way_back_of(with_token)
            wanting = carried_out(hint, seeds(running, config), monkeypatch)
            assert wanting.token_file == with_token.token_file
            running.configs[config.name] = replace(wanting, segment_bytes=config.segment_bytes)
            await running.start(config.name)
            await until_voters(running, "n1", "n2", "n3")
            await same_state(running)
            assert running.nodes[config.name].node.machine.access.enabled

    def token_of(guarded: Guarded, who: str) -> str:
        path = tmp_path / f"{who}.token"
        path.write_text(guarded.tokens[who] or "")
        path.chmod(0o600)
        return str(path)

    run(scenario())


def test_the_command_stays_one_line(tmp_path: Path, mint: Mint) -> None:
    from lattice_core.server.reseeding import way_back

    config = mint.secured(NodeConfig(name="n1", data_dir=str(tmp_path / "with a space")))
    said = way_back(config)
    assert "\n" not in said
    assert re.search(r"--data-dir '[^']*with a space'", said)
