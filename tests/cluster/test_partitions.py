"""Members that are stopped and go on: without a majority nothing is decided, and nobody answers from the past."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from processes import LocalCluster, eventually, lattice
from recorded import RecordedCallers

from lattice_core.client import Client
from lattice_core.rpc.pb import kv_pb2, kv_pb2_grpc
from lattice_core.verify import Budget, check_history, write_history

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, method="signal")]


@pytest.mark.parametrize("survivor", ["the leader", "a follower"])
def test_with_two_of_three_stopped_writes_and_reads_fail_in_time_stale_reads_work_and_nothing_happens_twice(
    shared: LocalCluster, survivor: str
) -> None:
    key, other = f"{survivor}: key", f"{survivor}: other"
    leader = shared.leader()
    followers = shared.others(leader)
    stopped = followers if survivor == "the leader" else [leader, followers[0]]
    (awake,) = shared.others(*stopped)
    # The one that still answers first: stale reads must not depend on where the client happens to begin.
    endpoints = ",".join([shared[awake].client_addr, *(shared[name].client_addr for name in stopped)])

    def run(*command: str, timeout: float = 1) -> Any:
        done = lattice("--endpoints", endpoints, "--timeout", str(timeout), *command)
        assert done.seconds < timeout + 20, "within its time, on a machine however busy"
        if done.code:
            done.the_error()
        return done

    assert run("put", key, "1", timeout=30).code == 0
    shared.pause(*stopped)
    outcomes = {
        "put": run("put", other, "1").code,
        "cas": run("cas", key, "1", "2").code,
        "delete": run("delete", key).code,
    }
    assert set(outcomes.values()) <= {3, 5}, outcomes
    assert run("get", key).code == 3
    stale = run("get", key, "--consistency", "stale", timeout=20)
    assert (stale.code, stale.out) == (0, b"1"), stale
    table = run("cluster", "status", "-o", "json", timeout=20)
    assert [member["name"] for member in json.loads(table.out)["members"] if member["reachable"]] == [awake]
    shared.resume(*stopped)
    shared.healed()
    with Client(shared.endpoints, timeout=30) as client:
        put, kept = client.get(other), client.get(key)
    assert put is None or put.version == 1, "never twice"
    if outcomes["put"] == 3:
        assert put is None, "it was said that nothing had been applied"
    if kept is not None:
        swapped = kept.value == b"2"
        assert kept.version == (2 if swapped else 1)
        assert not (swapped and outcomes["cas"] == 3)
    else:
        assert outcomes["delete"] == 5
    shared.same_state()


def test_40_a_leader_that_was_stopped_and_replaced_never_answers_from_the_past(shared: LocalCluster) -> None:
    """SAFETY 40, 41. The questions are waiting in its socket when it goes on: they are the first thing it reads, and
    it still believes that it leads."""
    for attempt in range(3):
        new = b"new %d" % attempt
        old = shared.healed()
        with shared[old].channel() as channel, Client(shared.endpoints, timeout=60) as client:
            stub: Any = kv_pb2_grpc.KVStub(channel)
            client.put(b"key", b"old")
            stub.Get(kv_pb2.GetRequest(key=b"key"), timeout=20)  # the connection is up
            shared.pause(old)
            client.put(b"key", new)
            asked = [
                stub.Get.future(kv_pb2.GetRequest(key=b"key", consistency=consistency), timeout=30)
                for consistency in [kv_pb2.CONSISTENCY_LINEARIZABLE, kv_pb2.CONSISTENCY_LEASE] * 10
            ]
            late = stub.Put.future(kv_pb2.PutRequest(key=b"late %d" % attempt, value=b"1"), timeout=30)
            shared.resume(old)
            answers = [_outcome(future) for future in asked]
            assert all(isinstance(answer, grpc.RpcError) or answer.found.value == new for answer in answers), answers
            written = not isinstance(_outcome(late), grpc.RpcError)
            successor = shared.healed()
            assert shared[old].read(b"key", timeout=20) == new
            if written:
                assert client.get(b"late %d" % attempt) is not None, "acknowledged, by the leader it became again"
            assert successor in shared.nodes
    shared.same_state()


def _outcome(future: Any) -> Any:
    try:
        return future.result(timeout=40)
    except grpc.RpcError as error:
        return error


def test_what_clients_see_through_kills_pauses_and_handovers_is_linearizable(
    cluster: LocalCluster, figure: Callable[[str], None]
) -> None:
    first_term = cluster[cluster.leader()].status().term
    with RecordedCallers(cluster) as callers:

        def progress(writes: int = 60) -> None:
            goal = callers.writes("ok") + writes
            eventually(lambda: callers.writes("ok") >= goal, f"{writes} more writes are acknowledged", 60)

        progress()
        leader = cluster.healed()
        cluster.kill(leader)
        progress()
        cluster.start(leader)

        leader = cluster.healed()
        cluster.pause(leader)
        progress()
        cluster.resume(leader)
        progress()

        follower = cluster.others(cluster.healed())[0]
        cluster.pause(follower)
        progress()
        cluster.resume(follower)

        leader = cluster.healed()
        failed = callers.writes("fail", "unknown")
        cluster.pause(*cluster.others(leader))
        eventually(lambda: callers.writes("fail", "unknown") >= failed + 3, "writes fail without a majority")
        cluster.kill(leader)
        cluster.resume(*cluster.others(leader))
        progress()
        cluster.start(leader)

        leader = cluster.healed()
        with Client(cluster.endpoints, timeout=30) as operator:
            operator.transfer_leader(cluster.others(leader)[0])
        progress()
        assert cluster.terminate(cluster.healed()) == 0
        progress()
        cluster.start(*[name for name, node in cluster.nodes.items() if not node.running])
        leader = cluster.healed()
        progress()
    operations = callers.operations
    verdict = check_history(operations, budget=Budget(seconds=30))
    terms = cluster[leader].status().term - first_term
    figure(
        f"{len(operations)} operations, {callers.count('unknown')} unknown, {callers.count('fail')} failed, "
        f"{terms} changes of term: " + verdict.lines()[0]
    )
    if not verdict.linearizable:
        write_history(cluster.directory / "history.jsonl", operations)
    assert verdict.linearizable, "\n".join([*verdict.lines(), f"history: {cluster.directory / 'history.jsonl'}"])
    assert callers.writes("ok") > 400, "too little happened to prove anything"
    assert callers.count("ok", by=lambda operation: operation.op == "get") > 400
    assert terms >= 4
    cluster.same_state()
