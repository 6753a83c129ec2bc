"""What the simulator found in our own code, each with a plan that shows it and the story.

A plan here is written out by hand, small, so that it stays what it is when the drawing of plans changes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from random import Random

import pytest

from lattice_core.raft.config import RaftConfig
from lattice_core.raft.leader import Leader
from lattice_core.raft.messages import AppendConflict, Message
from lattice_core.raft.node import RaftNode
from lattice_core.raft.types import NodeId, RecoveredState
from lattice_core.sim.nemesis import FINAL
from lattice_core.sim.plan import Change, Clock, Fault, Membership, Network, Plan, Settings, Workload
from lattice_core.sim.runner import run
from lattice_core.sim.world import World


def _appends_for_each_entry(plan: Plan) -> float:
    """How often the busiest leader sent an entry, on average, to all its followers together."""
    world = World(plan)
    sent: Counter[str] = Counter()
    transmit = world.transmit

    def counting(message: Message) -> None:
        sent[type(message).__name__] += 1
        transmit(message)

    world.transmit = counting  # type: ignore[method-assign]
    world.run()
    return sent["AppendEntries"] / world.invariants.committed_index


REORDERING = Plan(
    seed=1,
    nodes=3,
    duration_ms=10_000,
    settings=Settings(max_append_bytes=1, max_inflight_appends=64, snapshot_entries=0),
    network=Network(delay_min_us=1000, delay_mean_us=1500, drop=0.01, duplicate=0.05, late_copies=0.0),
    workload=Workload(clients=6, think_ms=30),
    clocks=(Clock(), Clock(), Clock()),
    faults=(Fault(3_000, "isolate", 3, for_ms=3000),),
)
"""One entry a message on links that reorder, and a follower that has much to catch up."""


def test_appends_do_not_multiply_on_links_that_reorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that is behind rejects whatever overtakes what it lacks. Every one of those rejections sent the leader
    back to probing, and every answer to a probe sent a whole window again, whose rejections did the same: on a longer
    plan than this, 60,000 appends for 900 entries. Now a rejection names the flight that it is about, and only the
    first of a flight counts.
    """
    mended = _appends_for_each_entry(REORDERING)
    on_conflict = Leader.on_append_conflict

    def counts_every_rejection(self: Leader, message: AppendConflict) -> None:
        progress = self.progress.get(message.sender)
        flight = progress.flight if progress is not None else 0
        on_conflict(self, dataclasses.replace(message, flight=flight))

    monkeypatch.setattr(Leader, "on_append_conflict", counts_every_rejection)
    assert mended < 0.6 * _appends_for_each_entry(REORDERING)


LEFT_ALONE = Plan(
    seed=1,
    nodes=2,
    duration_ms=6000,
    settings=Settings(snapshot_entries=0),
    workload=Workload(
        clients=4, keys=1, think_ms=30, pinned_readers=4, follower_reads=0.0, lease_reads=0.3, attempt_ms=150
    ),
    clocks=(Clock(), Clock()),
    faults=(Fault(3000, "crash-before-answer", other=1, for_ms=10, amount=FINAL),),
    changes=(Change(3000, "remove-leader"),),
    membership=Membership(min_voters=1),
)
"""Of two, the leader removes itself. The other has the configuration that is left, {itself}, on its disk, loses power
before it says so, and is back after 10 ms, cut off from the leader."""


def test_who_is_left_alone_by_an_undecided_change_does_not_write_under_the_lease_of_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server whose newest configuration is itself alone campaigned at once when it was restarted, since there is
    nobody to wait for; although nothing had told it that this configuration is committed. It wrote, and the leader that
    was leaving, which had not heard of anything, read the past under its lease.
    """
    report = run(LEFT_ALONE)
    assert report.violations == []
    assert report.faults == {"crash-before-answer": 1}
    assert report.changes == {"remove-leader: done": 1}
    begin = RaftNode.__init__

    def campaigns_at_once(
        self: RaftNode, node_id: NodeId, config: RaftConfig, recovered: RecoveredState, random: Random, now_ns: int
    ) -> None:
        begin(self, node_id, config, recovered, random, now_ns)
        if self.log.configuration.voters == {node_id} and not self.log.configuration.is_joint:
            self.state.deadline_ns = now_ns

    monkeypatch.setattr(RaftNode, "__init__", campaigns_at_once)
    assert [found["check"] for found in run(LEFT_ALONE).violations] == ["linearizability"]


LONG_LOG = Plan(
    seed=2,
    nodes=3,
    duration_ms=15_000,
    settings=Settings(snapshot_entries=30, keep_entries=10_000, max_append_bytes=400, max_inflight_appends=1),
    workload=Workload(clients=6, think_ms=60),
    clocks=(Clock(), Clock(), Clock()),
    faults=(Fault(8000, "crash-joiner", for_ms=300, amount=60.0),),
    changes=(Change(8000, "add"),),
)
"""A server joins when there are some hundred entries and no configuration among them, gets them all, and loses power
when it has half of them."""


def test_a_server_that_joined_takes_no_snapshot_of_a_membership_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first configuration is in nobody's log. A new server that got the log from its beginning, and restarted,
    took a snapshot before the entry that made it a member, and it said that nobody belongs to the cluster.
    """
    report = run(LONG_LOG)
    assert report.violations == []
    assert report.changes == {"add: done": 1}
    monkeypatch.setattr(RaftNode, "may_snapshot", lambda self, index: index <= self.durability.durable_index)
    (found,) = run(LONG_LOG).violations
    assert found["check"] == "membership"
    assert "says voters nobody" in found["message"]
