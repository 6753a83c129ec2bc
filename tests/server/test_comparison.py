"""Members compare their states all the time, and the odd one out stops: by itself, and nobody else."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from membership_harness import joiner, until_voters
from server_harness import Cluster, cluster, configs, eventually, run
from test_install import fill, same_state

from lattice_core.errors import StateDiverged, StorageDamaged
from lattice_core.server import comparison
from lattice_core.server.run import RunningNode
from lattice_core.server.state_hashes import MARK_EVERY, MARKS, RECENT, StateHashes


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "COMPARE_SECONDS", 0.1)
    monkeypatch.setattr(comparison, "INQUIRY_SECONDS", 1.0)


def rot(running: RunningNode) -> None:
    """As a bug would, or a broken memory module: the state changes, and no entry of the log says so."""
    running.node.machine.store.put(b"key000001", b"rot")


async def writing(running: Cluster, *, besides: RunningNode | None = None) -> None:
    """Entries go on, so that there is something to compare; for ever."""
    n = 0
    while True:
        leaders = [each for each in running.nodes.values() if each.node.core.is_leader and each is not besides]
        try:
            if leaders:
                await fill(leaders[0].config.client_addr, range(n, n + 1))
                n = (n + 1) % 50
        except Exception:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.01)


async def stopped_as_diverged(odd: RunningNode) -> StateDiverged:
    error = await asyncio.wait_for(asyncio.shield(odd.node.failed), 15)
    assert isinstance(error, StateDiverged), error
    return error


@pytest.mark.parametrize("whom", ["follower", "leader"])
def test_the_odd_one_out_stops_with_a_way_back_and_the_others_go_on(
    tmp_path: Path, whom: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            await fill(leader.config.client_addr, range(10))
            odd = leader if whom == "leader" else running.followers()[0]
            others = [each for each in running.nodes.values() if each is not odd]
            rot(odd)
            load = asyncio.create_task(writing(running))
            error = await stopped_as_diverged(odd)
            name = odd.config.name
            assert f"the state of {name} is not the other members'" in error.message
            assert all(each.config.name in error.message for each in running.nodes.values())
            assert f"lattice start --name {name} " in (error.hint or "")
            assert "--reseed" in (error.hint or "")
            await running.kill(name)
            await running.leader()
            assert not any(each.node.failed.done() for each in others)
            told = [record for record in caplog.records if "is the odd one" in record.message]
            assert told, "somebody who goes on says who it was"
            assert all(record.levelno == logging.ERROR for record in told)
            # It does not come back by itself, and comes back by what the error says.
            with pytest.raises(StorageDamaged, match="not the other members'"):
                await RunningNode(odd.config).start()
            addr = (await running.leader()).config.client_addr
            running.configs[name] = replace(odd.config, reseed=addr)
            await running.start(name)
            await until_voters(running, "n1", "n2", "n3")
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            await same_state(running)

    run(scenario())


def test_a_learner_that_differs_stops_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 2)) as running:
            await running.leader()
            joiner(running, tmp_path, "n3", learner=True)
            await running.start("n3")
            await fill((await running.leader()).config.client_addr, range(10))
            load = asyncio.create_task(writing(running))
            rot(running.nodes["n3"])
            await stopped_as_diverged(running.nodes["n3"])
            await running.kill("n3")
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            assert not any(each.node.failed.done() for each in running.nodes.values())

    run(scenario())


@pytest.mark.parametrize("count", [2, 3])
def test_without_a_majority_for_one_state_nobody_stops_and_all_say_so(
    tmp_path: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Two members of two, or two of three while the third is away: nobody can tell who is right."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, count)) as running:
            leader = await running.leader()
            await fill(leader.config.client_addr, range(10))
            if count == 3:
                await running.kill(running.followers()[0].config.name)
            (follower,) = running.followers()
            rot(follower)
            load = asyncio.create_task(writing(running))

            def who_said_so() -> set[str]:
                return {
                    record.message.split(" the states are ")[0]
                    for record in caplog.records
                    if "no majority has one of them" in record.message
                }

            await eventually(lambda: len(who_said_so()) >= 2, 12)
            assert all(each.node.metrics.states_differed for each in (leader, follower))
            assert not any(each.node.failed.done() for each in running.nodes.values())
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)

    run(scenario())


def test_members_that_agree_are_compared_and_never_accused_whatever_they_miss(tmp_path: Path) -> None:
    """Killed, started again, brought up to date by a snapshot, and handing leadership about."""

    async def scenario() -> None:
        node_configs = configs(tmp_path, 3, snapshot_entries=30, snapshot_keep_entries=5)
        async with cluster(node_configs) as running:
            await running.leader()
            load = asyncio.create_task(writing(running))
            for _ in range(2):
                name = running.followers()[0].config.name
                await running.kill(name)
                await asyncio.sleep(0.8)
                await running.start(name)
                leader = await running.leader()
                await leader.node.transfer_leader(None)
            await eventually(lambda: all(each.node.metrics.states_compared > 2 for each in running.followers()), 15)
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            assert not any(each.node.metrics.states_differed for each in running.nodes.values())

    run(scenario())


def test_hashes_are_remembered_one_by_one_for_a_while_and_then_at_intervals() -> None:
    hashes = StateHashes()
    assert hashes.latest is None
    last = RECENT + 10 * MARK_EVERY + 7
    for index in range(1, last + 1):
        hashes.note(index, index * 3)
    assert hashes.latest == (last, last * 3)
    assert hashes.at(last - RECENT + 1) == (last - RECENT + 1) * 3
    assert hashes.at(last - RECENT - 1) is None
    assert hashes.at(MARK_EVERY) == MARK_EVERY * 3
    assert hashes.at(last + 1) is None
    assert hashes.last_mark == ((last // MARK_EVERY) * MARK_EVERY, (last // MARK_EVERY) * MARK_EVERY * 3)
    hashes.note(MARK_EVERY * (MARKS + 1), 5)
    assert hashes.at(MARK_EVERY) is None
    hashes.begin_at(500, 77)
    assert (hashes.latest, hashes.at(500), hashes.at(499)) == ((500, 77), 77, None)
