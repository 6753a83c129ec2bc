"""A join that is cut short is begun again as the same one; another directory is another server (SAFETY 22)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from membership_harness import ask, joiner, member_ids
from server_harness import Cluster, cluster, configs, free_ports, run

from lattice_core.errors import (
    ConfigurationError,
    NotAllowed,
    Unavailable,
)
from lattice_core.rpc.pb import cluster_pb2
from lattice_core.server import bootstrap, joining
from lattice_core.server.incarnations import Incarnations
from lattice_core.server.run import RunningNode
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.identity import DataDirectory
from lattice_core.storage.wal import Wal

# -- joining again, after whatever went wrong ----------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (joining, "ask_to_join"),
        (bootstrap, "create_joined"),
        (Incarnations, "meet"),
        (Wal, "create"),
        (DataDirectory, "write_identity"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_join_that_was_cut_short_anywhere_is_begun_again_as_the_same_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, what: str
) -> None:
    from lattice_core.server import run as run_module

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            config = joiner(running, tmp_path, "n4", learner=True)
            for _ in range(2):
                with monkeypatch.context() as patch:
                    # What is imported by name has to be replaced where it is used.
                    patch.setattr(run_module if hasattr(run_module, what) else where, what, die)
                    with pytest.raises(Killed):
                        await RunningNode(config).start()
            before = member_ids(leader).get("n4")
            await running.start("n4")
            assert running.nodes["n4"].node.core.id == member_ids(leader)["n4"]
            assert before in (None, member_ids(leader)["n4"]), "the same id again"
            assert len(member_ids(leader)) == 4

    run(scenario())


def test_another_directory_under_a_members_name_and_address_is_refused(tmp_path: Path) -> None:
    """SAFETY 22: a lost directory does not come back as the same member."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            config = joiner(running, tmp_path, "n4", learner=True)
            await running.start("n4")
            await running.kill("n4")
            shutil.rmtree(config.data_dir)
            with pytest.raises(NotAllowed, match="n4 is already a member with another data directory") as caught:
                await RunningNode(config).start()
            assert "lattice cluster remove-server n4" in (caught.value.hint or "")
            await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name="n4"))
            await running.start("n4")
            assert member_ids(leader)["n4"] == running.nodes["n4"].node.core.id

    run(scenario())


def test_a_voter_that_lost_its_directory_cannot_join_under_its_own_id(tmp_path: Path) -> None:
    """SAFETY 22: it may have voted."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            await running.leader()
            config = running.followers()[0].config
            await running.kill(config.name)
            shutil.rmtree(config.data_dir)
            others = ",".join(each.client_addr for each in running.configs.values() if each != config)
            with pytest.raises(NotAllowed, match="already a member with another data directory"):
                await RunningNode(replace(config, initial_cluster={}, join=others)).start()

    run(scenario())


def test_a_first_member_that_never_came_cannot_join_in_its_own_place(tmp_path: Path) -> None:
    """It is a voter: nobody here has met it, but somebody who is away may have had its vote (SAFETY 22)."""

    async def scenario() -> None:
        running = Cluster(configs(tmp_path, 3))
        try:
            await running.start("n1", "n2")
            leader = await running.leader()
            assert leader.node.peers.known_incarnation(member_ids(leader)["n3"]) is None
            config = replace(running.configs["n3"], initial_cluster={}, join=leader.config.client_addr)
            with pytest.raises(NotAllowed, match="n3 is already a member with another data directory"):
                await RunningNode(config).start()
        finally:
            for name in list(running.nodes):
                await running.kill(name)

    run(scenario())


def test_a_directory_that_waits_to_join_does_not_become_a_cluster_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        fs = RealFileSystem()
        directory = DataDirectory.open(fs, config.data_dir)
        first = bootstrap.incarnation_to_join(fs, directory).own
        directory.close()
        with pytest.raises(ConfigurationError, match="made to join a cluster"):
            await RunningNode(config).start()
        directory = DataDirectory.open(fs, config.data_dir)
        assert bootstrap.incarnation_to_join(fs, directory).own == first
        directory.close()

    run(scenario())


def test_joining_nobody_ends_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PATIENCE_SECONDS", 0.3)

    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        (nobody,) = free_ports(1)
        with pytest.raises(Unavailable, match=r"n1 could not join within 0\.3 s: .*nobody answers there"):
            await RunningNode(replace(config, join=f"127.0.0.1:{nobody}")).start()

    run(scenario())
