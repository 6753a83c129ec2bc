"""kill -9 under load: nothing acknowledged is lost, nothing is applied twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from load import Load
from processes import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, method="signal")]


def test_a_leader_killed_five_times_over_loses_no_acknowledged_write_and_applies_none_twice(
    cluster: LocalCluster, figure: Callable[[str], None]
) -> None:
    gaps: list[float] = []
    with Load(cluster.endpoints) as load:
        load.progress(100)
        for _ in range(5):
            leader = cluster.healed()
            with load.gap() as gap:
                cluster.kill(leader)
            gaps.append(gap.seconds)
            cluster.start(leader)
        cluster.healed()
    figure("writers stood still for " + ", ".join(f"{gap * 1000:.0f}" for gap in gaps) + " ms")
    assert max(gaps) < 10, "a failover, on a machine however busy"
    assert not load.unknown, "patience suffices for every write to be decided"
    assert not load.not_applied
    load.account()
    assert cluster[cluster.leader()].status().term >= 6, "each kill made a leader in a new term"
    cluster.same_state()


def test_24_every_acknowledged_write_survives_kill_9_of_all_members_at_once_under_load(
    shared: LocalCluster, figure: Callable[[str], None]
) -> None:
    """SAFETY 24. The writers go on all the while, under the sessions that they opened before."""
    with Load(shared.endpoints) as load:
        load.progress(200)
        acknowledged = len(load.acknowledged)
        with load.gap() as gap:
            shared.kill(*shared.nodes)
            shared.start()
    figure(f"{acknowledged} puts acknowledged before; all members gone and back in {gap.seconds:.1f} s")
    load.account()
    shared.same_state()
