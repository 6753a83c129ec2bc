"""The leader counts its followers' disks: while a majority has room writes go on, without one they are refused."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from server_harness import Cluster, cluster, configs, eventually, run

from lattice_core.client import AsyncClient
from lattice_core.errors import Busy, OutcomeUnknown
from lattice_core.rpc.pb import raft_pb2
from lattice_core.server import comparison, room
from lattice_core.server.run import RunningNode

RESERVE = 10 << 20


class Disks:
    """What each member's disk has left, as it believes."""

    def __init__(self, running: Cluster) -> None:
        for node in running.nodes.values():
            self.has(node, 10 * RESERVE)

    def has(self, node: RunningNode, left: int) -> None:
        node.node.room._free_bytes = lambda: left


def reported(leader: RunningNode, of: RunningNode) -> str | None:
    """What the leader has been told by that one; None: nothing yet."""
    return leader.node.room._reports.get(of.node.core.id, (None, 0))[0]


async def refusal(addr: str) -> Busy:
    """What a put is told; one whose time is over while it is on its way again is told nothing."""
    async with AsyncClient(addr, timeout=1) as impatient:
        for _ in range(10):
            try:
                await impatient.put("key", "no")
            except Busy as refused:
                return refused
            except OutcomeUnknown:
                continue
            break
    raise AssertionError("it was not refused")


def test_19_one_small_disk_stops_nobody_and_two_of_three_stop_writes_until_there_is_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, disk_reserve_bytes=RESERVE)) as running:
            disks = Disks(running)
            leader = await running.leader()
            one, other = running.followers()
            async with AsyncClient(leader.config.client_addr, timeout=10) as client:
                await client.put("key", "value")
                disks.has(one, RESERVE - 1)
                await eventually(lambda: reported(leader, one))
                await eventually(lambda: reported(leader, other) == "")
                await leader.node.room.look()
                assert leader.node.room.reason is None
                await client.put("key", "a majority has room")
                assert one.node.room.reason is not None, "it would refuse writes itself, if it led"

                disks.has(other, RESERVE - 2)
                await eventually(lambda: leader.node.room.reason)
                refused = await refusal(leader.config.client_addr)
                assert "there is no majority" in str(refused)
                for node, left in ((one, RESERVE - 1), (other, RESERVE - 2)):
                    assert f"{node.config.name}: the disk has {left} bytes left" in str(refused)
                assert leader.config.name not in str(refused)
                assert "delete" in (refused.hint or "")
                assert leader.node.room.own is None
                assert not leader.node.snapshots.short_of_room, "its own disk has room"
                assert await client.delete("key")

                disks.has(one, 10 * RESERVE)
                await eventually(lambda: leader.node.room.reason is None)
                await client.put("key", "there is room again")

    run(scenario())


def test_19_a_member_that_is_gone_does_not_count_as_one_with_room_and_stops_nothing_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REPORT_SECONDS", 2.5)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, disk_reserve_bytes=RESERVE)) as running:
            disks = Disks(running)
            leader = await running.leader()
            one, gone = running.followers()
            await eventually(lambda: reported(leader, gone) == "" and reported(leader, one) == "")
            await running.kill(gone.config.name)
            await eventually(lambda: reported(leader, gone) is None)
            async with AsyncClient(leader.config.client_addr, timeout=10) as client:
                await leader.node.room.look()
                await client.put("key", "two are a majority, and have room")
                disks.has(one, RESERVE - 1)
                await eventually(lambda: leader.node.room.reason)
                assert f"{one.config.name}: the disk has" in (leader.node.room.reason or "")
                await client.delete("key")

                await running.start(gone.config.name)
                disks.has(running.nodes[gone.config.name], 10 * RESERVE)
                await eventually(lambda: leader.node.room.reason is None)
                await client.put("key", "value")

    run(scenario())


def test_19_who_leads_no_more_refuses_nothing_for_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, disk_reserve_bytes=RESERVE)) as running:
            disks = Disks(running)
            leader = await running.leader()
            one, other = running.followers()
            disks.has(one, RESERVE - 1)
            disks.has(other, RESERVE - 1)
            await eventually(lambda: leader.node.room.reason)
            await leader.node.transfer_leader(one.config.name)
            await eventually(lambda: leader.node.room.reason is None)
            assert one.node.room.own is not None

    run(scenario())


@pytest.mark.parametrize("what", ["an older version", "a later one", "nothing comes through"])
def test_19_a_member_that_raft_hears_counts_as_one_with_room_although_it_is_not_known_to_have_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """During a rolling upgrade one short disk stops nobody."""
    monkeypatch.setattr(comparison, "COMPARE_SECONDS", 0.1)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, disk_reserve_bytes=RESERVE)) as running:
            disks = Disks(running)
            leader = await running.leader()
            one, quiet = running.followers()
            ask = quiet.node.transport.state_hash

            async def ask_in_its_way(
                peer: int, request: raft_pb2.StateHashRequest, timeout_seconds: float
            ) -> raft_pb2.StateHashResponse | None:
                if what == "nothing comes through":
                    return None
                if what == "a later one":
                    request.digest_version += 1
                else:
                    request.ClearField("asker_id")
                    request.ClearField("no_room")
                return await ask(peer, request, timeout_seconds)

            quiet.node.transport.state_hash = ask_in_its_way  # type: ignore[method-assign]
            disks.has(one, RESERVE - 1)
            await eventually(lambda: reported(leader, one))
            its = leader.node.room
            its._reports.pop(quiet.node.core.id, None)
            its._led_since = asyncio.get_running_loop().time() - 2 * room.REPORT_SECONDS
            await its.look()
            assert its.reason is None
            if what == "a later one":
                disks.has(quiet, RESERVE - 2)
                await eventually(lambda: reported(leader, quiet))
                await its.look()
                assert its.reason is not None

    run(scenario())


@pytest.mark.parametrize("disk", ["cannot be measured", "is not measured for long"])
def test_19_what_the_others_say_counts_whatever_becomes_of_the_look_at_ones_own_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    monkeypatch.setattr(comparison, "COMPARE_SECONDS", 0.1)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, disk_reserve_bytes=RESERVE)) as running:
            disks = Disks(running)
            leader = await running.leader()
            done = threading.Event()

            def measure() -> int:
                done.wait(15)
                raise OSError("the disk does not say")

            try:
                if disk == "cannot be measured":
                    done.set()
                leader.node.room._free_bytes = measure
                for follower in running.followers():
                    disks.has(follower, RESERVE - 1)
                await eventually(lambda: leader.node.room.reason)
                for follower in running.followers():
                    disks.has(follower, 10 * RESERVE)
                await eventually(lambda: leader.node.room.reason is None)
                assert leader.node.room.own is None
            finally:
                done.set()

    run(scenario())


def test_19_what_was_used_up_between_two_looks_stays_so_until_the_disk_has_been_looked_at(tmp_path: Path) -> None:
    async def scenario() -> None:
        [config] = configs(tmp_path, 1, disk_reserve_bytes=RESERVE)
        async with cluster([config]) as running:
            node = running.nodes["n1"].node
            await node.room.close()
            node.proposals.no_room = "it is used up"
            seen = []

            def measure() -> int:
                seen.append(node.proposals.no_room)
                return 10 * RESERVE

            node.room._free_bytes = measure
            await node.room.look()
            assert seen == ["it is used up"]
            assert node.room.reason is None

    run(scenario())


def test_what_is_told_is_of_another_member_and_short_whoever_sends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            one, _ = running.followers()
            own, other = leader.node.core.id, one.node.core.id
            for member in (own, other, 4711):
                leader.node.room.told(member, "x" * (1 << 20))
            assert leader.node.room._reports.keys().isdisjoint({own, 4711})
            assert reported(leader, one) == "x" * room.MAX_REASON_CHARS

    run(scenario())
