"""Where a request's time went, as the member that answered says: by marks, not by guesses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from server_harness import Cluster, cluster, configs, kv_stub, run

from lattice_core.client import AsyncClient, Explained
from lattice_core.errors import InvalidRequest, Unavailable
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server import explain

# Long beside anything that a busy machine does to the quick ones, short beside an election timeout.
SLOW_SECONDS = 0.4


def client_of(running: Cluster, *names: str) -> AsyncClient:
    return AsyncClient([running.configs[name].client_addr for name in names or running.configs])


def steps(explained: Explained) -> dict[str, tuple[float, float | None]]:
    """By name, and of followers by their own."""
    return {each.member if each.name == "follower" else each.name: (each.began, each.ended) for each in explained.steps}


class SlowLog:
    """A log whose disk takes its time."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def sync(self) -> None:
        time.sleep(SLOW_SECONDS)
        self._log.sync()


def slow_down(running: Any) -> None:
    """Its disk, from now on."""
    running.node.storage._wal = SlowLog(running.node.storage._wal)


def test_a_put_is_explained_step_by_step_and_the_steps_add_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            follower = running.followers()[0]
            async with client_of(running, follower.config.name, leader.config.name) as client:
                result, explained = await client.put_explained("k", b"v")
                assert (result.stored, result.revision) == (True, 1)
            assert [each.address for each in explained.attempts] == [follower.config.client_addr]
            assert (explained.member, explained.role) == (leader.config.name, "leader")
            assert explained.index == leader.node.core.commit_index
            assert explained.batches == 1
            found = steps(explained)
            assert found.keys() == {"queue", "fsync", "quorum", "apply", "answer"} | {
                each.config.name for each in running.followers()
            }
            ends = {name: ended for name, (_, ended) in found.items() if ended is not None}
            assert found["queue"][0] == 0
            assert found["fsync"][0] == found["quorum"][0] == ends["queue"]
            assert found["apply"][0] == ends["quorum"]
            assert found["answer"] == (ends["apply"], pytest.approx(explained.server_seconds, abs=1e-4))
            # Two of three: the second of the three copies that became durable.
            copies = sorted(ends[name] for name in ("fsync", "n1", "n2", "n3") if name in ends)
            assert copies[1] == ends["quorum"]
            assert all(each.node.explanations.watched == [] for each in running.nodes.values())

    run(scenario())


def test_a_slow_disk_shows_where_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            for each in running.nodes.values():
                if each is not leader:
                    slow_down(each)
            async with client_of(running) as client:
                await client.put_explained("k", b"v")
                _, explained = await client.put_explained("k", b"v")
            found = steps(explained)
            followers = [found[each.config.name][1] for each in running.followers()]
            assert min(each for each in followers if each is not None) >= SLOW_SECONDS
            assert (found["quorum"][1] or 0) >= SLOW_SECONDS, "the leader's copy alone does not decide"
            assert (found["fsync"][1] or 0) < SLOW_SECONDS
            assert (found["apply"][1] or 0) - found["apply"][0] < SLOW_SECONDS

    run(scenario())


def test_a_slow_disk_of_the_leaders_is_overtaken_by_the_followers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            slow_down(await running.leader())
            async with client_of(running) as client:
                await client.put_explained("k", b"v")  # from now on nobody trusts that disk on the loop
                _, explained = await client.put_explained("k", b"v")
            found = steps(explained)
            assert found["fsync"][1] is None, "the answer did not wait for it"
            assert (found["quorum"][1] or 0) - found["quorum"][0] < SLOW_SECONDS

    run(scenario())


def test_reads_are_explained_by_what_they_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            await running.leader()
            async with client_of(running) as client:
                await client.put("k", b"v")
                kv, revision, explained = await client.get_explained("k")
                assert kv is not None
                assert (kv.value, revision) == (b"v", 1)
                assert [each.name for each in explained.steps] == ["queue", "confirm", "answer"]
                kv, _, explained = await client.get_explained("none", consistency="stale")
                assert kv is None
                assert [each.name for each in explained.steps] == ["queue", "answer"], "no round"
            assert all(each.node.explanations.watched == [] for each in running.nodes.values())

    run(scenario())


def test_nothing_is_noted_for_those_who_do_not_ask_nor_for_too_many_who_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            async with kv_stub(leader.config.client_addr) as kv:
                answer = await kv.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
                assert not answer.HasField("explanation")
                monkeypatch.setattr(explain, "MAX_WATCHED", 0)
                answer = await kv.Put(kv_pb2.PutRequest(key=b"k", value=b"v", explain=True))
                assert (answer.revision, answer.HasField("explanation")) == (2, False)

    run(scenario())


def test_conditions_and_errors_are_as_without_an_explanation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            await running.leader()
            async with client_of(running) as client:
                assert (await client.put_explained("k", b"v", if_revision=0))[0].stored
                result, _ = await client.put_explained("k", b"v", if_revision=0)
                assert (result.stored, result.revision) == (False, 1)
                with pytest.raises(InvalidRequest):
                    await client.put_explained("", b"v")
            running.nodes["n1"]._kv.draining = True
            async with client_of(running) as client:
                with pytest.raises(Unavailable, match="put: n1 is shutting down"):
                    await client.put_explained("k", b"v", timeout=0.3)
        async with AsyncClient("127.0.0.1:1") as client:
            with pytest.raises(Unavailable, match=r"get: cannot reach 127\.0\.0\.1:1: connection refused"):
                await client.get_explained("k", timeout=0.3)

    run(scenario())
