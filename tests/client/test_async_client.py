"""AsyncClient against members that drop streams, lose answers, refuse, and lead in turn."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from fake import Do, FakeCluster

from lattice_core.client import AsyncClient, KeyValue, engine
from lattice_core.client.channels import plain_reason
from lattice_core.errors import (
    Busy,
    ConfigurationError,
    InvalidRequest,
    NoLeader,
    NotAllowed,
    OutcomeUnknown,
    RevisionCompacted,
    TooLarge,
    Unavailable,
)
from lattice_core.rpc.pb import kv_pb2


def dead_address() -> str:
    """Nobody listens there: connections are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_every_operation_answers_as_documented() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        assert await client.put("a", "1") == 1
        assert await client.put(b"b", b"2") == 2
        assert await client.get("a") == KeyValue(b"a", b"1", 1, 1, 1)
        assert await client.get(b"none") is None
        swapped = await client.cas("a", "1", "3")
        assert swapped
        assert swapped.revision == 3
        assert not await client.cas("a", "1", "4")
        assert await client.cas("new", None, "x")
        refused = await client.put("a", "z", if_revision=1)
        assert not refused
        assert refused.revision == 3
        assert await client.put("a", "z", if_revision=3)
        assert not await client.put("a", "y", if_absent=True)
        found = await client.range(prefix="", limit=2)
        assert [kv.key for kv in found.kvs] == [b"a", b"b"]
        assert (found.more, found.count, found.revision) == (True, 3, 5)
        deleted = await client.delete("new")
        assert (deleted.deleted, deleted.revision) == (1, 6)
        assert not await client.delete("new")
        assert (await client.delete_range(start="a", end="c")).deleted == 2


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (b"", b"v", InvalidRequest),
        (b"k" * 4097, b"v", TooLarge),
        (b"k", b"v" * (1024 * 1024 + 1), TooLarge),
        ("\udc80", b"v", InvalidRequest),
    ],
)
async def test_bad_keys_and_values_are_refused_before_anything_is_sent(
    key: bytes, value: bytes, error: type[Exception]
) -> None:
    async with AsyncClient(dead_address()) as client:
        with pytest.raises(error):
            await client.put(key, value)


async def test_bad_arguments_are_refused_before_anything_is_sent() -> None:
    async with AsyncClient(dead_address()) as client:
        with pytest.raises(TypeError):
            await client.put(1, b"v")  # type: ignore[call-overload]
        with pytest.raises(InvalidRequest):
            await client.delete_range()
        with pytest.raises(InvalidRequest):
            await client.range(prefix="a", start="b")
        with pytest.raises(InvalidRequest):
            await client.range(start="b", end="a")
        with pytest.raises(InvalidRequest):
            await client.get("a", revision=0)
        with pytest.raises(InvalidRequest):
            await client.get("a", consistency="eventual")  # type: ignore[arg-type]
        with pytest.raises(TooLarge):
            await client.cas("k" * 4000, b"v" * 1024 * 1024, b"w" * 1024 * 1024)
    for endpoints in ("", "nonsense", "host:0", ["a:1", "b"]):
        with pytest.raises(ConfigurationError):
            AsyncClient(endpoints)


async def test_concurrent_operations_share_batches() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await asyncio.gather(*(client.put(f"k{number}", "v") for number in range(500)))
        assert len(cluster.kvs) == 500
        assert len(cluster.seen) <= 4
        await asyncio.gather(*(client.get(f"k{number}") for number in range(500)))
        assert len(cluster.members["n1"].read_batches) <= 4


async def test_it_follows_the_hint_to_the_leader() -> None:
    async with FakeCluster(leader="n3") as cluster:
        await cluster.start("n1", "n2", "n3")
        async with AsyncClient(cluster.members["n1"].address) as client:
            assert await client.put("a", "1") == 1
            cluster.leader = "n2"
            assert await client.put("a", "2") == 2
        assert cluster.opened == 1, "the session outlives the connection"


async def test_safety_44_a_lost_answer_is_asked_for_again_with_the_same_bytes_and_executed_once() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1", "n2")
        cluster.members["n1"].script.extend([Do.NORMAL, Do.EXECUTE_AND_DROP, Do.EXECUTE_AND_DROP])
        async with AsyncClient(endpoints) as client:
            assert await client.put("a", "1") == 1
            assert await client.put("a", "2") == 2
            assert await client.put("a", "3") == 3
        attempts = [seen for seen in cluster.seen if seen.sequence == 2]
        assert len(attempts) >= 2
        assert len({(seen.session_id, seen.commands) for seen in attempts}) == 1
        assert [sequence for _, sequence, _ in cluster.executed] == [1, 2, 3]


async def test_a_dropped_stream_costs_no_operation() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1")
        async with AsyncClient(endpoints) as client:
            for number in range(5):
                cluster.members["n1"].script.append(Do.DROP)
                assert await client.put("a", str(number)) == number + 1
        assert len(cluster.executed) == 5


async def test_a_killed_leader_is_left_for_the_next_one_in_well_under_a_second() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1", "n2", "n3")
        async with AsyncClient(endpoints) as client:
            await client.put("a", "1")
            cluster.leader = "n2"
            await cluster.members["n1"].stop()
            began = time.monotonic()
            assert await client.put("a", "2") == 2
            assert time.monotonic() - began < 0.8


async def test_it_waits_out_an_election_even_if_hints_name_the_dead() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1", "n2", "n3")
        async with AsyncClient(endpoints) as client:
            await client.put("a", "1")
            await cluster.members["n1"].stop()  # and the others still say that n1 leads
            write = asyncio.create_task(client.put("a", "2"))
            await cluster.until(lambda: len(cluster.seen) >= 8 and cluster.members["n2"].streams > 0)
            cluster.leader = "n3"
            assert await write == 2


async def test_a_dead_first_endpoint_does_not_hold_up_the_others() -> None:
    # A listening socket that nobody accepts from: TCP connects, HTTP/2 never answers, as with SIGSTOP.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        async with FakeCluster() as cluster:
            alive = await cluster.start("n1")
            endpoints = f"127.0.0.1:{silent.getsockname()[1]},{dead_address()},{alive}"
            async with AsyncClient(endpoints) as client:
                began = time.monotonic()
                assert await client.put("a", "1") == 1
                assert time.monotonic() - began < 0.45


async def test_a_leader_that_stops_answering_is_left() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1", "n2")
        async with AsyncClient(endpoints) as client:
            await client.put("a", "1")
            cluster.members["n1"].script.append(Do.EXECUTE_SILENTLY)
            write = asyncio.create_task(client.put("a", "2"))
            await cluster.until(lambda: len(cluster.executed) == 2)
            cluster.leader = "n2"
            assert await write == 2
        assert len(cluster.executed) == 2


async def test_members_that_the_user_did_not_name_are_learned() -> None:
    async with FakeCluster() as cluster:
        await cluster.start("n1", "n2")
        async with AsyncClient(cluster.members["n1"].address) as client:
            await client.cluster_status()
            await client.put("a", "1")
            cluster.leader = "n2"
            await cluster.members["n1"].stop()
            assert await client.put("a", "2") == 2


async def test_a_deadline_with_nobody_to_send_to_means_not_applied() -> None:
    async with AsyncClient(dead_address()) as client:
        with pytest.raises(Unavailable, match="connection refused") as caught:
            await client.put("a", "1", timeout=0.2)
        assert "lattice start" in (caught.value.hint or "")
        with pytest.raises(Unavailable, match="get: cannot reach"):
            await client.get("a", timeout=0.1)


async def test_a_deadline_while_nobody_leads_means_not_applied() -> None:
    async with FakeCluster(leader=None) as cluster, AsyncClient(await cluster.start("n1", "n2")) as client:
        with pytest.raises(NoLeader):
            await client.put("a", "1", timeout=0.2)
        with pytest.raises(NoLeader):
            await client.get("a", timeout=0.2)
        assert not cluster.kvs


async def test_safety_44_a_deadline_after_sending_means_unknown_and_the_watermark_moves_on() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("a", "1")
        cluster.members["n1"].script.append(Do.IGNORE)
        with pytest.raises(OutcomeUnknown):
            await client.put("a", "2", timeout=0.1)
        assert await client.put("a", "3") == 2
        assert [seen.acknowledged_below for seen in cluster.seen] == [1, 2, 3]


async def test_a_full_server_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        cluster.members["n1"].script.extend([Do.BUSY, Do.BUSY])
        assert await client.put("a", "1") == 1
        assert {seen.sequence for seen in cluster.seen} == {1}
        cluster.members["n1"].default = Do.BUSY
        monkeypatch.setattr(engine, "BACKOFF_FIRST_SECONDS", 60.0)  # the deadline finds it waiting
        client._engine._backoff.reset()
        with pytest.raises(Busy):
            await client.put("a", "2", timeout=0.1)


def test_pauses_end_on_uvloop_too_whose_clock_is_coarse() -> None:
    """uvloop's timers may be early by a millisecond: nothing may compare a clock with when they were due."""
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        async with FakeCluster(leader=None) as cluster, AsyncClient(await cluster.start("n1")) as client:
            for turn in range(20):
                cluster.leader = None
                write = asyncio.ensure_future(client.put("a", str(turn)))
                await cluster.until(lambda turn=turn: cluster.refused > turn)  # type: ignore[misc]
                cluster.leader = "n1"
                assert await write == turn + 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


async def test_a_member_that_knows_no_leader_is_asked_again_on_the_same_connection() -> None:
    async with FakeCluster(leader=None) as cluster, AsyncClient(await cluster.start("n1", "n2")) as client:
        write = asyncio.create_task(client.put("a", "1"))
        await cluster.until(lambda: cluster.refused >= engine.ASK_AGAIN - 1)
        assert sum(member.streams for member in cluster.members.values()) == 1
        await cluster.until(lambda: cluster.refused >= 2 * engine.ASK_AGAIN)
        assert all(member.streams >= 1 for member in cluster.members.values()), "it may be cut off: ask others too"
        cluster.leader = "n1"
        assert await write == 1


async def test_an_outcome_in_doubt_is_settled_by_asking_again() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1", "n2")) as client:
        cluster.members["n1"].script.append(Do.IN_DOUBT)
        assert await client.put("a", "1") == 1
        assert len(cluster.executed) == 1


async def test_safety_43_a_write_never_sent_under_an_expired_session_is_sent_under_a_new_one() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("a", "1")
        cluster.sessions.clear()
        assert await client.put("a", "2") == 2
        assert cluster.opened == 2
        assert [(seen.session_id, seen.sequence) for seen in cluster.seen] == [(1, 1), (1, 2), (2, 1)]


async def test_safety_43_a_write_in_doubt_under_an_expired_session_is_unknown() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("a", "1")
        cluster.members["n1"].script.extend([Do.EXECUTE_AND_DROP, Do.EXPIRED])
        with pytest.raises(OutcomeUnknown, match="session expired"):
            await client.put("a", "2")
        assert await client.put("a", "3") == 3
        assert len(cluster.executed) == 3


async def test_a_callers_wrong_operation_is_that_callers_alone() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("x", "1")
        cluster.members["n1"].script.extend([Do.INVALID, Do.NORMAL, Do.INVALID])
        outcomes = await asyncio.gather(*(client.put(key, "v") for key in ("a", "b")), return_exceptions=True)
        assert outcomes[0] == 2
        assert isinstance(outcomes[1], InvalidRequest)


async def test_a_cancelled_caller_takes_back_what_was_not_sent() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("a", "1")
        cluster.members["n1"].script.append(Do.HOLD)
        first = asyncio.create_task(client.put("held", "1"))
        await cluster.until(lambda: len(cluster.seen) == 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        cluster.members["n1"].released.set()
        assert await client.put("b", "1") > 1


async def test_the_window_bounds_batches_in_flight() -> None:
    async with FakeCluster() as cluster:
        endpoints = await cluster.start("n1")
        async with AsyncClient(endpoints, max_batches_in_flight=1) as client:
            await client.put("a", "1")
            cluster.members["n1"].script.append(Do.HOLD)
            held = asyncio.create_task(client.put("a", "2"))
            await cluster.until(lambda: len(cluster.seen) == 2)
            more = [asyncio.create_task(client.put("b", str(number))) for number in range(10)]
            await asyncio.sleep(0)
            cluster.members["n1"].released.set()
            await asyncio.gather(held, *more)
        assert [len(seen.keys) for seen in cluster.seen] == [1, 1, 10]


async def test_reads_are_grouped_by_consistency_and_say_how_stale_they_are() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("a", "1")
        stale, lease, fresh = await asyncio.gather(
            client.range(prefix="a", consistency="stale"),
            client.get("a", consistency="lease"),
            client.get("a"),
        )
        assert stale.stale_seconds == 1.5
        assert lease == fresh
        assert sorted(cluster.members["n1"].read_batches) == [
            (kv_pb2.CONSISTENCY_LINEARIZABLE, 1),
            (kv_pb2.CONSISTENCY_LEASE, 1),
            (kv_pb2.CONSISTENCY_STALE, 1),
        ]


async def test_a_stale_read_is_answered_without_a_leader_while_a_write_waits() -> None:
    async with FakeCluster(leader=None) as cluster, AsyncClient(await cluster.start("n1", "n2")) as client:
        write = asyncio.create_task(client.put("a", "1"))
        assert await client.get("a", consistency="stale") is None
        cluster.leader = "n2"
        assert await write == 1


async def test_reads_survive_dropped_streams() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("a", "1")
        cluster.members["n1"].read_script.extend([Do.DROP, Do.BUSY, Do.DROP])
        found = await client.get("a")
        assert found is not None
        assert found.value == b"1"


async def test_one_reads_error_is_its_own() -> None:
    async with FakeCluster() as cluster, AsyncClient(await cluster.start("n1")) as client:
        await client.put("a", "1")
        compacted, found = await asyncio.gather(client.get("a", revision=1), client.get("a"), return_exceptions=True)
        assert isinstance(compacted, RevisionCompacted)
        assert compacted.compacted_revision == 2
        assert isinstance(found, KeyValue)


async def test_statuses_and_transfer() -> None:
    async with FakeCluster(leader="n2") as cluster:
        await cluster.start("n1", "n2")
        async with AsyncClient(f"{dead_address()},{cluster.members['n1'].address}") as client:
            assert (await client.node_status()).name == "n1"
            status = await client.cluster_status()
            assert [member.name for member in status.members] == ["n1", "n2"]
            assert status.leader_id is None
            with pytest.raises(NotAllowed, match="transfer-leader: no such member"):
                await client.transfer_leader("n9")
            transfer = await client.transfer_leader("n1")
            assert (transfer.old_leader, transfer.new_leader, transfer.term) == ("n2", "n1", 8)


async def test_status_of_nobody_is_an_error_at_once() -> None:
    async with AsyncClient(dead_address()) as client:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"cluster status: cannot reach .*connection refused"):
            await client.cluster_status(timeout=5.0)
        assert time.monotonic() - began < 2.0


async def test_closing_ends_the_session_and_answers_whoever_waits() -> None:
    async with FakeCluster() as cluster:
        client = AsyncClient(await cluster.start("n1"))
        await client.put("a", "1")
        await client.close()
        assert (cluster.closed, cluster.sessions) == (1, {})
        await client.close()
        with pytest.raises(Unavailable, match="closed"):
            await client.put("a", "2")

        client = AsyncClient(cluster.members["n1"].address)
        cluster.members["n1"].script.append(Do.IGNORE)
        write = asyncio.create_task(client.put("a", "2"))
        await cluster.until(lambda: len(cluster.seen) == 2)
        await client.close()
        with pytest.raises(OutcomeUnknown):
            await write


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        (
            "errors resolving nosuchhost:1: [field:hostname lookup error:address lookup failed for nosuchhost:1: "
            "Domain name not found]",
            "the host name is not known",
        ),
        ("DNS resolution failed for nosuchhost:1: C-ares status is not ARES_SUCCESS", "the host name is not known"),
        ("ipv4:1.2.3.4:1: Failed to connect to remote host: connect: Connection refused (111)", "connection refused"),
    ],
)
def test_what_grpc_says_of_a_connection_is_told_in_a_few_words(details: str, reason: str) -> None:
    assert plain_reason(details) == reason
