"""SIGTERM: leadership is handed over, what is under way is finished, and nobody's write fails."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from load import Load
from processes import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, method="signal")]


def test_sigterm_of_the_leader_under_load_hands_over_and_fails_no_write(
    shared: LocalCluster, figure: Callable[[str], None]
) -> None:
    with Load(shared.endpoints) as load:
        load.progress(100)
        leader = shared.leader()
        with load.gap() as gap:
            assert shared.terminate(leader) == 0
        said = shared[leader].log()
        assert "handing leadership to" in said
        assert said.rstrip().endswith("stopped")
        assert shared.leader() != leader
        shared.start(leader)
        shared.healed()
    figure(f"writers stood still for {gap.seconds * 1000:.0f} ms")
    assert gap.seconds < 10, "on a machine however busy"
    assert not load.unknown
    assert not load.not_applied
    load.account()
    shared.same_state()


def test_a_rolling_restart_of_all_members_under_load_fails_no_write(
    shared: LocalCluster, figure: Callable[[str], None]
) -> None:
    gaps: list[float] = []
    with Load(shared.endpoints) as load:
        for name in shared.nodes:
            load.progress(50)
            with load.gap() as gap:
                assert shared.terminate(name) == 0
            gaps.append(gap.seconds)
            shared.start(name)
            shared.healed()
    figure("writers stood still for " + ", ".join(f"{gap * 1000:.0f}" for gap in gaps) + " ms")
    assert not load.unknown
    assert not load.not_applied
    load.account()
    shared.same_state()


def test_a_lone_survivor_stops_with_exit_code_0_although_nobody_can_take_over(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    cluster.kill(*cluster.others(leader))
    assert cluster.terminate(leader) == 0
    assert "Traceback" not in cluster[leader].log()


def test_a_paused_member_does_not_keep_the_leader_from_stopping_and_interrupting_is_as_good_as_terminating(
    shared: LocalCluster,
) -> None:
    leader = shared.leader()
    paused, other = shared.others(leader)
    shared.pause(paused)
    process = shared[leader].process
    assert process is not None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    shared.resume(paused)
    assert shared.leader() in (paused, other)
    shared.start(leader)
