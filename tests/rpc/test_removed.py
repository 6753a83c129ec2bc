"""Who was removed is told so by whoever knows for certain, and nobody else ever is (SAFETY 35)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from rpc_loopback import Peer, eventually, run

from lattice_core.raft.messages import Heartbeat, PreVoteRequest
from lattice_core.raft.types import Configuration, Member


def without(peer: Peer) -> Configuration:
    return Configuration.of_voters([Member(peer.id, peer.name, peer.addr)])


async def met(asker_knows: tuple[int, bool], other_knows: tuple[int, bool], joined_index: int = 0) -> tuple[Peer, Peer]:
    """Peer 1 dials peer 2. Of each: the index of its committed configuration, and whether peer 1 is in that."""
    one, two = Peer(1), Peer(2)
    await two.start()
    await one.start()
    both = Configuration.of_voters([Member(peer.id, peer.name, peer.addr) for peer in (one, two)])
    for peer, (index, has_one) in ((one, asker_knows), (two, other_knows)):
        peer.committed = (index, both if has_one else without(two))
    one.directory.local = replace(one.directory.local, joined_index=joined_index)
    one.configuration = both
    one.transport.set_configuration(both)
    await eventually(lambda: one.removed or one.transport.connected(2))
    return one, two


def test_safety_35_who_is_in_no_later_committed_configuration_is_told_that_it_was_removed() -> None:
    async def scenario() -> None:
        one, two = await met((3, True), (9, False))
        assert "n2 says: n1 was removed from the cluster" in one.removed[0]
        assert "of index 3" in one.removed[0]
        assert "of index 9" in one.removed[0]
        assert not two.removed

    run(scenario())


@pytest.mark.parametrize(
    ("asker_knows", "other_knows", "joined_index"),
    [
        ((9, True), (3, False), 0),  # the other lags, and has not heard of the new member yet
        ((5, False), (5, False), 7),  # the asker is catching up through a time when it was no member
        ((0, False), (7, True), 7),  # it has no log yet
        ((3, True), (9, True), 0),
        ((0, True), (0, True), 0),
    ],
)
def test_safety_35_whoever_lags_is_never_taken_for_a_removed_one_and_never_takes_another_for_one(
    asker_knows: tuple[int, bool], other_knows: tuple[int, bool], joined_index: int
) -> None:
    async def scenario() -> None:
        one, two = await met(asker_knows, other_knows, joined_index)
        assert one.removed == two.removed == []
        one.transport.send([Heartbeat(1, 2, 1, 0, 0)])
        await eventually(lambda: two.received)

    run(scenario())


def test_an_uncommitted_configuration_says_nothing() -> None:
    """It may be taken back: only what is committed is for ever."""

    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await one.start()
        await two.start()
        one.meet(two)
        two.committed = (0, one.configuration)
        two.configuration = without(two)  # in force there, as long as nobody truncates it
        await eventually(lambda: one.transport.connected(2))
        assert not one.removed

    run(scenario())


def test_a_leader_that_dials_one_who_leaves_can_still_tell_it_so() -> None:
    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await one.start()
        await two.start()
        two.meet(one)
        two.committed = (9, without(two))
        two.transport.set_configuration(without(two), leaving=(1,))
        two.transport.send([Heartbeat(2, 1, 1, 0, 0)])
        await eventually(lambda: one.received)
        two.transport.set_configuration(without(two))
        assert not two.transport.peers

    run(scenario())


def test_safety_35_a_stream_from_before_the_removal_is_ended_so_that_the_removed_one_hears_of_it() -> None:
    """A leader that is cut off while it is replaced has its streams still when the cut is over, and says no second
    hello on them: it asked for pre-votes for ever, and nobody told it why there were none."""

    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await two.start()
        await one.start()
        one.meet(two)
        two.meet(one)
        await eventually(lambda: one.transport.connected(2) and two.transport.connected(1))
        two.committed = (9, without(two))
        two.configuration = without(two)
        two.transport.set_configuration(without(two))
        while not one.removed:
            one.transport.send([PreVoteRequest(1, 2, 5, 3, 1)])
            await asyncio.sleep(0.02)
        assert "n2 says: n1 was removed from the cluster" in one.removed[0]

    run(scenario())


def test_a_peer_that_was_not_there_is_dialled_again_when_asked_for() -> None:
    """A removed learner has nothing to say to anybody, and would otherwise never hear of it."""

    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await one.start()
        await two.start()
        one.meet(two)
        await eventually(lambda: one.transport.connected(2))
        port = two.port
        await two.stop()
        await eventually(lambda: one.transport.down_seconds(2) is not None)
        again = Peer(2)
        await again.start(port)
        await asyncio.sleep(0.3)
        assert not one.transport.connected(2)
        one.transport.reach_out()
        await eventually(lambda: one.transport.connected(2))

    run(scenario())
