"""What the simulator found in our own code, each with a plan that shows it and the story.

A plan here is written out by hand, small, so that it stays what it is when the drawing of plans changes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from lattice_core.raft.leader import Leader
from lattice_core.raft.messages import AppendConflict, Message
from lattice_core.sim.plan import Clock, Fault, Network, Plan, Settings, Workload
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
    duration_ms=30_000,
    settings=Settings(max_append_bytes=1, max_inflight_appends=64, snapshot_entries=0),
    network=Network(delay_min_us=1000, delay_mean_us=1500, drop=0.01, duplicate=0.05, late_copies=0.0),
    workload=Workload(clients=6, think_ms=30),
    clocks=(Clock(), Clock(), Clock()),
    faults=(Fault(8_000, "isolate", 3, for_ms=4000), Fault(20_000, "isolate", 2, for_ms=4000)),
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
