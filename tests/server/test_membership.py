"""Servers that are promoted, replace others, leave and die: nodes on loopback in one process."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from membership_harness import ask, joiner, member_ids, until_voters, voters
from server_harness import cluster, configs, eventually, get, put, run

from lattice_core import config as settings
from lattice_core.errors import (
    NotAllowed,
    ServerRemoved,
)
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Configuration, Entry, HardState, Member
from lattice_core.rpc.pb import cluster_pb2, kv_pb2, raft_pb2
from lattice_core.server import bootstrap
from lattice_core.server.run import RunningNode
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.identity import DataDirectory

FS = RealFileSystem()


def joint_changes(running: RunningNode) -> list[Entry]:
    core = running.node.core
    entries = core.log.between(core.first_index, core.last_index)
    return [entry for entry in entries if isinstance(entry.payload, Configuration) and entry.payload.is_joint]


def test_a_server_joins_as_a_learner_catches_up_and_is_promoted_by_the_leader(tmp_path: Path) -> None:
    """SAFETY 36."""

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
            # The same command again is an ordinary restart.
            await running.stop("n4")
            await running.start("n4")
            await until_voters(running, "n1", "n2", "n3", "n4")
            assert running.nodes["n4"].node.core.id == new.core.id

    run(scenario())


def test_a_cluster_of_one_grows_to_three_and_survives_the_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            await put(running.configs["n1"].client_addr, b"a", b"1")
            for name in ("n2", "n3"):
                joiner(running, tmp_path, name)
                await running.start(name)
            await until_voters(running, "n1", "n2", "n3")
            await running.kill("n1")
            leader = await running.leader()
            await put(leader.config.client_addr, b"b", b"2")
            assert await get(leader.config.client_addr, b"a") == b"1"

    run(scenario())


def test_a_server_joins_by_a_snapshot_where_the_log_is_compacted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1, snapshot_keep_entries=0)) as running:
            first = running.nodes["n1"]
            for n in range(40):
                await put(first.config.client_addr, b"key%d" % n, b"value")
            await first.node.snapshots.take()
            assert first.node.core.first_index > 1
            joiner(running, tmp_path, "n2")
            await running.start("n2")
            await until_voters(running, "n1", "n2")
            assert running.nodes["n2"].node.core.first_index > 1
            assert running.nodes["n2"].node.machine.state_hash == first.node.machine.state_hash

    run(scenario())


def test_a_joiner_takes_no_snapshot_before_it_knows_a_configuration_to_put_into_it(tmp_path: Path) -> None:
    """Its log begins with entries from before any configuration: a snapshot there would be of a cluster of nobody."""

    async def scenario() -> None:
        config = replace(configs(tmp_path, 1)[0], join="127.0.0.1:1", snapshot_entries=1)
        running = RunningNode(config)
        directory = DataDirectory.open(FS, config.data_dir)
        book = bootstrap.incarnation_to_join(FS, directory)
        admission = bootstrap.Admission(7, 2, 10, Configuration.of_voters([Member(1, "n9", "127.0.0.1:1")]))
        opened = bootstrap.create_joined(directory, config, FS, book, admission)
        entries = tuple(Entry(index, 1, None) for index in range(1, 6))
        opened.wal.write([Persist(1, HardState(1), None, None, entries, 5, ())])
        opened.wal.sync()
        opened.close()
        starting = asyncio.ensure_future(running.start())
        try:
            await eventually(lambda: hasattr(running, "node") and running.node.machine.applied_index == 5)
            await asyncio.sleep(0.2)
            assert running.node.core.configuration == Configuration((), frozenset())
            assert running.node.snapshots.newest is None
            assert not starting.done(), "it is not ready: it has not what was there when it joined"
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    run(scenario())


def test_a_learner_stays_one_counts_in_no_quorum_and_is_promoted_when_asked(tmp_path: Path) -> None:
    """SAFETY 36."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"a", b"1")
            joiner(running, tmp_path, "n4", learner=True)
            await running.start("n4")
            await asyncio.sleep(0.8)  # eight heartbeats: an intended promotion would have come
            assert voters(leader) == ["n1", "n2", "n3"]
            replica = running.configs["n4"].client_addr
            assert await get(replica, b"a", kv_pb2.CONSISTENCY_STALE) == b"1"
            assert await get(replica, b"a") == b"1", "linearizable, by the leader's index"
            answer = await ask(running, "PromoteServer", cluster_pb2.PromoteServerRequest(name="n4"))
            assert sorted(answer.after.voters) == ["n1", "n2", "n3", "n4"]
            assert voters(await running.leader()) == ["n1", "n2", "n3", "n4"]

    run(scenario())


def test_a_laggard_is_not_promoted_and_the_answer_says_how_far_behind_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            config = joiner(running, tmp_path, "n4", learner=True)
            await running.start("n4")
            await running.kill("n4")
            for n in range(150):
                await put(leader.config.client_addr, b"key%d" % n, b"value")
            # Its heartbeats are answered, its appends are not: a laggard.
            progress = leader.node.core.progress[member_ids(leader)["n4"]]
            progress.last_heard_ns = leader.node.core.now_ns + 10**10
            with pytest.raises(NotAllowed, match=r"n4 is 1[5-9]\d entries behind"):
                await ask(running, "PromoteServer", cluster_pb2.PromoteServerRequest(name="n4"))
            assert voters(leader) == ["n1", "n2", "n3"]
            assert config.name in member_ids(leader)

    run(scenario())


def test_who_has_the_log_but_has_not_applied_it_is_not_promoted_yet(tmp_path: Path) -> None:
    """It may be loading a snapshot of gigabytes: a quorum that needs it would wait for that."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            for n in range(120):
                await put(leader.config.client_addr, b"key%d" % n, b"value")
            ask_it = leader.node.transport.status
            answers: list[raft_pb2.MemberStatus | None] = [None]

            async def status(peer: int, timeout_seconds: float) -> raft_pb2.MemberStatus | None:
                found = await ask_it(peer, timeout_seconds)
                if found is not None:
                    found.applied_index = 5
                answers.append(found)
                return found

            leader.node.transport.status = status  # type: ignore[method-assign]
            joiner(running, tmp_path, "n2")
            await running.start("n2")
            await eventually(lambda: len([each for each in answers if each is not None]) >= 2)
            assert voters(leader) == ["n1"]
            with pytest.raises(NotAllowed, match=r"n2 has yet to apply 1\d\d entries"):
                await ask(running, "PromoteServer", cluster_pb2.PromoteServerRequest(name="n2"))
            leader.node.transport.status = ask_it  # type: ignore[method-assign]
            await until_voters(running, "n1", "n2")

    run(scenario())


def test_the_intent_is_in_the_log_so_a_new_leader_goes_on_with_it(tmp_path: Path) -> None:
    """The server is added and not started; the leader dies; the next one promotes it when it comes."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            config = joiner(running, tmp_path, "n4")
            request = cluster_pb2.AddServerRequest(name="n4", peer_addr=config.peer_addr, start_later=True)
            added = await ask(running, "AddServer", request)
            assert added.member.HasField("promotion")
            await running.kill(leader.config.name)
            await running.leader()
            await running.start("n4")
            assert running.nodes["n4"].node.core.id == added.member.id, "it found itself by its name and address"
            await until_voters(running, "n1", "n2", "n3", "n4")

    run(scenario())


@pytest.mark.parametrize("of_leader", [False, True], ids=["a follower", "the leader"])
def test_a_voter_is_replaced_in_one_joint_change_when_the_new_one_has_caught_up(
    tmp_path: Path, of_leader: bool
) -> None:
    """SAFETY 37."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            term = leader.node.core.term
            old = leader.config.name if of_leader else running.followers()[0].config.name
            joiner(running, tmp_path, "n4", learner=True)
            await running.start("n4")
            replaced = running.nodes[old]
            request = cluster_pb2.ReplaceServerRequest(old=old, name="n4", peer_addr=running.configs["n4"].peer_addr)
            await ask(running, "ReplaceServer", request)
            error = await asyncio.wait_for(asyncio.shield(replaced.node.failed), 8)
            assert isinstance(error, ServerRemoved)
            await running.kill(old)
            await until_voters(running, *sorted({"n1", "n2", "n3", "n4"} - {old}))
            (change,) = joint_changes(running.nodes["n4"])
            assert change.term == term + of_leader, "a leader hands over first, and its successor replaces it"
            await put((await running.leader()).config.client_addr, b"a", b"1")

    run(scenario())


def test_a_replacement_whose_old_server_left_meanwhile_becomes_a_plain_promotion(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            (old, _) = running.followers()
            config = joiner(running, tmp_path, "n4")
            request = cluster_pb2.ReplaceServerRequest(
                old=old.config.name, name="n4", peer_addr=config.peer_addr, start_later=True
            )
            await ask(running, "ReplaceServer", request)
            with pytest.raises(NotAllowed, match="n4 is to replace"):
                await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name=old.config.name))
            leader.node.core.propose_membership(
                MembershipChange(remove=frozenset((old.node.core.id,))), leader.node.core.now_ns
            )
            leader.node.loop.kick()
            await eventually(old.node.failed.done)
            await running.kill(old.config.name)
            await running.start("n4")
            await until_voters(running, *sorted({"n1", "n2", "n3", "n4"} - {old.config.name}))

    run(scenario())


def test_a_removed_follower_says_so_ends_and_does_not_start_again(tmp_path: Path) -> None:
    """SAFETY 35."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            removed = running.followers()[0]
            name = removed.config.name
            await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name=name))
            error = await asyncio.wait_for(asyncio.shield(removed.node.failed), 5)
            assert isinstance(error, ServerRemoved)
            assert error.exit_code == 4
            assert f"{name} was removed from its cluster" in error.message
            await running.kill(name)
            for config in (removed.config, replace(removed.config, initial_cluster={}, join=leader.config.client_addr)):
                with pytest.raises(ServerRemoved, match="is of no use any more") as caught:
                    await RunningNode(config).start()
                assert "--join" in (caught.value.hint or "")
            await put(leader.config.client_addr, b"a", b"1")
            assert leader.node.core.is_leader, "nobody was disturbed"
            # With a new directory it is a new member.
            shutil.rmtree(removed.config.data_dir)
            joiner(running, tmp_path, name)
            await running.start(name)
            assert running.nodes[name].node.core.id != removed.node.core.id
            await until_voters(running, "n1", "n2", "n3")

    run(scenario())


def test_a_removed_leader_hands_over_first_and_nothing_waits_for_an_election(tmp_path: Path) -> None:
    """SAFETY 34: its successor removes it."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            term = leader.node.core.term
            answer = await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name=leader.config.name))
            assert answer.member.name == leader.config.name
            await eventually(leader.node.failed.done)
            await running.kill(leader.config.name)
            successor = await running.leader()
            core = successor.node.core
            assert core.term == term + 1, "one election, the transfer's"
            (change,) = joint_changes(successor)
            assert change.term == core.term, "and then it was the successor that removed it"
            assert len(voters(successor)) == 2

    run(scenario())


def test_the_leader_of_two_can_be_removed_and_so_can_the_follower(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 2)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"a", b"1")
            await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name=leader.config.name))
            await eventually(leader.node.failed.done)
            await running.kill(leader.config.name)
            (last,) = running.nodes.values()
            await eventually(lambda: last.node.core.is_leader and voters(last) == [last.config.name])
            assert await get(last.config.client_addr, b"a") == b"1"
            with pytest.raises(NotAllowed, match="the last voter"):
                await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name=last.config.name, force=True))

    run(scenario())


def test_who_was_removed_while_it_was_down_hears_of_it_from_the_first_that_it_meets(tmp_path: Path) -> None:
    """SAFETY 35: it knows only the old configuration, and would go on asking for votes that nobody gives."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            name = running.followers()[0].config.name
            await running.kill(name)
            await asyncio.sleep(1.1)  # the leader has to notice, or it counts as live
            await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name=name))
            term = leader.node.core.term
            again = running.nodes[name] = RunningNode(running.configs[name])
            await again.start()
            error = await asyncio.wait_for(asyncio.shield(again.node.failed), 8)
            assert isinstance(error, ServerRemoved)
            assert "says" in error.message
            assert leader.node.core.term == term, "and disturbed nobody"

    run(scenario())


def test_a_learner_that_was_removed_before_it_had_any_log_hears_of_it_too(tmp_path: Path) -> None:
    """It knows no configuration; those who admitted it are whom it asks."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            config = joiner(running, tmp_path, "n2")
            directory = DataDirectory.open(FS, config.data_dir)
            book = bootstrap.incarnation_to_join(FS, directory)
            first = running.nodes["n1"]
            request = cluster_pb2.AddServerRequest(name="n2", peer_addr=config.peer_addr, start_later=True)
            added = await ask(running, "AddServer", request)
            admission = bootstrap.Admission(
                added.cluster_id, added.member.id, added.index, first.node.core.configuration
            )
            bootstrap.create_joined(directory, config, FS, book, admission).close()
            await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name="n2"))
            with pytest.raises(ServerRemoved):
                await RunningNode(config).start()

    run(scenario())


# -- the dead -----------------------------------------------------------------------------------------


def test_a_dead_voter_is_removed_after_the_time_asked_for_while_all_others_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MIN_AUTO_REMOVE_SECONDS", 0.5)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 4, auto_remove_after_seconds=1.5)) as running:
            await running.leader()
            first, second, third = (each.config.name for each in running.followers())
            await running.kill(first)
            await eventually(lambda: all(len(voters(each)) == 3 for each in running.nodes.values()))
            assert all(first not in voters(each) for each in running.nodes.values())
            await running.kill(second)
            await eventually(lambda: all(len(voters(each)) == 2 for each in running.nodes.values()))
            # Of two, the one that is left is no quorum: nothing is ever removed.
            await running.kill(third)
            (last,) = running.nodes.values()
            await asyncio.sleep(2.5)
            assert len(voters(last)) == 2

    run(scenario())


def test_nobody_is_removed_while_another_voter_does_not_answer_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five voters, two gone: three are a quorum, but not a healthy one."""
    monkeypatch.setattr(settings, "MIN_AUTO_REMOVE_SECONDS", 0.5)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 5, auto_remove_after_seconds=1.2)) as running:
            leader = await running.leader()
            gone = [each.config.name for each in running.followers()][:2]
            for name in gone:
                await running.kill(name)
            await asyncio.sleep(2.5)
            assert len(voters(leader)) == 5
            await running.start(gone[0])
            await eventually(lambda: voters(leader) == sorted({"n1", "n2", "n3", "n4", "n5"} - {gone[1]}))

    run(scenario())


def test_of_two_voters_neither_removes_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader stays one for a while without a quorum: a change that it proposed then could not end."""
    monkeypatch.setattr(settings, "MIN_AUTO_REMOVE_SECONDS", 0.5)

    async def scenario() -> None:
        slow = {"election_timeout_max_ms": 2500, "auto_remove_after_seconds": 0.7}
        async with cluster(configs(tmp_path, 2, **slow)) as running:
            leader = await running.leader()
            await running.kill(running.followers()[0].config.name)
            await asyncio.sleep(1.5)
            assert leader.node.core.is_leader
            assert voters(leader) == ["n1", "n2"]

    run(scenario())


@pytest.mark.parametrize(("joined_index", "is_removed"), [(0, True), (2, True), (3, False), (9, False)])
def test_an_older_configuration_without_it_does_not_make_a_joiner_a_removed_one(
    tmp_path: Path, joined_index: int, is_removed: bool
) -> None:
    """SAFETY 35: on its way through the log it meets the times when it was no member."""

    async def scenario() -> None:
        config = configs(tmp_path, 1)[0]
        directory = DataDirectory.open(FS, config.data_dir)
        book = bootstrap.incarnation_to_join(FS, directory)
        others = Configuration.of_voters([Member(1, "n9", "127.0.0.1:1")])
        admission = bootstrap.Admission(7, 2, joined_index, others)
        opened = bootstrap.create_joined(directory, config, FS, book, admission)
        entries = (Entry(1, 1, None), Entry(2, 1, None), Entry(3, 1, others))
        opened.wal.write([Persist(1, HardState(1), None, None, entries, 3, ())])
        opened.wal.sync()
        opened.close()
        running = RunningNode(config)
        starting = asyncio.ensure_future(running.start())
        try:
            await eventually(lambda: hasattr(running, "node") and running.node.core.commit_index == 3)
            if is_removed:
                assert isinstance(await asyncio.wait_for(asyncio.shield(running.node.failed), 8), ServerRemoved)
            else:
                await asyncio.sleep(0.8)  # eight looks; three are enough
                assert not running.node.failed.done()
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await running.kill()

    run(scenario())


def test_by_default_nobody_is_removed_and_one_to_be_started_later_never_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MIN_AUTO_REMOVE_SECONDS", 0.2)
    assert settings.NodeConfig().auto_remove_after_seconds == 0

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1, auto_remove_after_seconds=0.3)) as running:
            leader = await running.leader()
            request = cluster_pb2.AddServerRequest(name="n4", peer_addr="127.0.0.1:1", start_later=True)
            await ask(running, "AddServer", request)
            await asyncio.sleep(1.0)
            assert "n4" in member_ids(leader)

    run(scenario())


def test_status_says_since_when_a_member_is_gone_and_how_far_one_lags(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            gone, asked = running.followers()
            await running.kill(gone.config.name)
            await asyncio.sleep(0.5)
            status = await ask(
                running, "ClusterStatus", cluster_pb2.ClusterStatusRequest(), addr=asked.config.client_addr
            )
            report = next(each for each in status.members if each.member.name == gone.config.name)
            assert 0.3 < report.unreachable_seconds < 10
            leading = next(each.status for each in status.members if each.member.name == leader.config.name)
            assert {each.node_id for each in leading.progress} == {gone.node.core.id, asked.node.core.id}
            addresses = await ask(running, "ClusterStatus", cluster_pb2.ClusterStatusRequest(addresses_only=True))
            assert {each.client_addr for each in addresses.members} == {
                each.client_addr for each in running.configs.values()
            }

    run(scenario())
