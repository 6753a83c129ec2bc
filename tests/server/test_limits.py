"""Every bound of docs/limits.md that a server keeps: what is beyond it is refused with limit, number and next step."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_harness import cluster, configs, eventually, kv_stub, put, read_request, run, write_request

from lattice_core import config as config_module
from lattice_core.client import AsyncClient
from lattice_core.config import NodeConfig
from lattice_core.errors import Busy, ConfigurationError, TooLarge
from lattice_core.kv import RequestLimits, commands, delete, delete_range, encode_batch, open_session, transaction, txn
from lattice_core.kv import put as put_op
from lattice_core.kv.limits import frees
from lattice_core.rpc.errors import ERROR_METADATA_KEY
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server.bounds import connection_limits
from lattice_core.server.run import RunningNode


def test_what_a_server_may_take_is_what_the_state_machine_and_clients_count_on() -> None:
    assert config_module.MAX_KEY_BYTES == commands.MAX_KEY_BYTES
    assert config_module.MAX_VALUE_BYTES == commands.MAX_VALUE_BYTES
    assert config_module.MAX_BATCH_BYTES == commands.MAX_BATCH_BYTES
    assert config_module.MAX_BATCH_OPS == commands.MAX_BATCH_OPS
    assert config_module.MAX_TXN_OPS == txn.MAX_OPS == txn.MAX_COMPARES
    assert not RequestLimits().narrower


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_value_bytes": (1 << 20) + 1}, ["max_value_bytes is 1048577", "at most 1048576"]),
        ({"max_key_bytes": 0}, ["max_key_bytes is 0", "at least 1"]),
        ({"max_client_calls": 1}, ["max_client_calls is 1", "at least 16"]),
        ({"disk_quota_bytes": 1 << 20, "segment_bytes": 1 << 20}, ["disk_quota_bytes is 1048576", "segment_bytes"]),
        ({"disk_reserve_bytes": -1}, ["disk_reserve_bytes is -1", "at least 0"]),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_with_both_numbers(settings: dict[str, int], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        NodeConfig(**settings).validate()  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


PUT = put_op(b"key", b"value")
TXN = transaction(
    [(txn.VALUE, txn.EQUAL, b"key", None, b"value"), (txn.VERSION, txn.GREATER, b"a", b"bcdef", 0)],
    [(txn.PUT, b"key", b"value"), (txn.RANGE, b"a", b"bcdef", 0, 0), (txn.GET, b"key")],
    [(txn.DELETE, b"key")],
)


@pytest.mark.parametrize(
    ("limits", "ops", "words"),
    [
        ({"max_key_bytes": 2}, [PUT], ["key has 3 bytes", "more than 2", "max_key_bytes"]),
        ({"max_key_bytes": 4}, [TXN], ["key has 5 bytes", "more than 4"]),
        ({"max_key_bytes": 4}, [delete_range(b"a", b"bcdef")], ["key has 5 bytes"]),
        ({"max_value_bytes": 4}, [PUT], ["value has 5 bytes", "more than 4", "max_value_bytes"]),
        ({"max_value_bytes": 4}, [commands.cas(b"k", b"value", b"new")], ["value has 5 bytes"]),
        ({"max_value_bytes": 4}, [TXN], ["value has 5 bytes"]),
        ({"max_batch_bytes": 10}, [PUT], ["batch has 15 bytes", "more than 10", "max_batch_bytes"]),
        ({"max_batch_ops": 2}, [PUT] * 3, ["batch has 3 operations", "more than 2", "max_batch_ops"]),
        ({"max_batch_ops": 4}, [TXN], ["batch has 7 operations"]),
        ({"max_txn_ops": 1}, [TXN], ["transaction has 2 comparisons", "more than 1", "max_txn_ops"]),
        ({"max_txn_ops": 2}, [TXN], ["transaction has 3 operations"]),
    ],
)
def test_a_narrower_limit_is_kept_with_its_name_and_both_numbers(
    limits: dict[str, int], ops: list[Any], words: list[str]
) -> None:
    narrower = RequestLimits(**limits)
    assert narrower.narrower
    encoded = encode_batch(ops)
    decoded = commands.decode_batch(encoded)
    with pytest.raises(TooLarge) as caught:
        narrower.check(decoded, len(encoded))
    for word in words:
        assert word in str(caught.value)
    assert caught.value.actual > caught.value.limit
    assert next(iter(limits)) in (caught.value.hint or "")
    RequestLimits(max_key_bytes=5, max_value_bytes=5, max_batch_bytes=200, max_batch_ops=7, max_txn_ops=3).check(
        decoded, len(encoded)
    )


def test_only_what_cannot_make_the_state_larger_frees_room() -> None:
    assert frees((delete(b"k"), delete_range(b"a", b"b"), open_session(), commands.close_session(1)))
    assert frees((transaction([], [(txn.DELETE, b"k"), (txn.GET, b"k")]),))
    assert not frees((delete(b"k"), PUT))
    assert not frees((commands.put_if_revision(b"k", b"v", 1),))
    assert not frees((commands.cas(b"k", None, b"v"),))
    assert not frees((transaction([], [(txn.DELETE, b"k")], [(txn.PUT, b"k", b"v")]),))


def test_a_leader_refuses_what_is_beyond_its_own_limits_and_takes_the_rest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1, max_value_bytes=10)) as running:
            node = running.nodes["n1"]
            async with AsyncClient(node.config.client_addr, timeout=5) as client:
                await client.put(b"key", b"0123456789")
                with pytest.raises(TooLarge, match="value has 11 bytes, more than 10") as caught:
                    await client.put(b"key", b"01234567890")
                assert (caught.value.limit, caught.value.actual) == (10, 11)
                found = await client.get(b"key")
                assert found is not None
                assert found.value == b"0123456789"

    run(scenario())


def test_more_calls_than_the_bound_are_refused_with_both_numbers_and_there_is_room_when_one_ends(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1, max_client_calls=16)) as running:
            addr = running.nodes["n1"].config.client_addr
            async with kv_stub(addr) as kv:
                streams = [kv.Session() for _ in range(16)]
                for number, stream in enumerate(streams):
                    await stream.write(read_request(number + 1, [[1, b"key", None]]))
                    await stream.read()
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await kv.Get(kv_pb2.GetRequest(key=b"key"), timeout=5)
                error = caught.value
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "17 calls are under way" in (error.details() or "")
                assert "16 (max_client_calls)" in (error.details() or "")
                detail = kv_pb2.ErrorDetail.FromString(dict(error.trailing_metadata())[ERROR_METADATA_KEY])  # type: ignore[arg-type]
                assert detail.code == kv_pb2.ERROR_CODE_BUSY
                assert "streams" in detail.hint
                extra = kv.Session()
                with pytest.raises(grpc.aio.AioRpcError, match="17 calls are under way"):
                    await extra.read()
                streams[0].cancel()

                async def served() -> bool:
                    try:
                        await kv.Get(kv_pb2.GetRequest(key=b"key"), timeout=5)
                    except grpc.aio.AioRpcError:
                        return False
                    return True

                deadline = time.monotonic() + 8
                while not await served():
                    assert time.monotonic() < deadline
                for stream in streams:
                    stream.cancel()

    run(scenario())


def test_49_answers_that_nobody_reads_take_bounded_memory_and_what_is_beyond_is_refused(tmp_path: Path) -> None:
    """Eight streams ask for a megabyte 200 times each and read nothing: 1.6 GB, were it all kept."""
    budget = 8 << 20

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1, max_answer_bytes=budget)) as running:
            node: RunningNode = running.nodes["n1"]
            addr = node.config.client_addr
            await put(addr, b"big", b"v" * (1 << 20))
            kept = node._kv.budget

            async def greedy(stream: Any) -> None:
                for number in range(200):
                    await stream.write(read_request(number + 1, [[1, b"big", None]]))

            async with kv_stub(addr) as kv:
                streams = [kv.Session() for _ in range(8)]
                writing = [asyncio.ensure_future(greedy(stream)) for stream in streams]
                await eventually(lambda: kept.waiting > budget - (2 << 20))
                highest = 0
                for _ in range(50):
                    highest = max(highest, kept.waiting)
                    await asyncio.sleep(0.01)
                assert highest <= budget
                async with kv_stub(addr) as other:
                    while kept.refusal(1 << 20) is None:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await other.Get(kv_pb2.GetRequest(key=b"big"), timeout=5)
                    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                    assert f"{budget} (max_answer_bytes)" in (caught.value.details() or "")
                    await put(addr, b"small", b"goes on")
                refused = 0
                for _ in range(200):
                    answer = await streams[0].read()
                    refused += answer.HasField("error") and answer.error.code == kv_pb2.ERROR_CODE_BUSY
                assert refused, "the numbers are told on the stream, too"
                for stream in streams:
                    stream.cancel()
                await asyncio.gather(*writing, return_exceptions=True)
            await eventually(lambda: kept.waiting == 0)

    run(scenario())


def test_a_stream_takes_no_more_than_its_bound_before_it_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        node_configs = [replace(each, max_stream_requests=4) for each in configs(tmp_path, 2)]
        async with cluster(node_configs) as running:
            leader = await running.leader()
            other = running.followers()[0].config.name
            await running.kill(other)  # nothing commits, so nothing is answered
            taken = leader.node.proposals

            async def requests() -> AsyncIterator[kv_pb2.SessionRequest]:
                for number in range(50):
                    yield write_request(number + 1, [list(PUT)])

            async with kv_stub(leader.config.client_addr) as kv:
                stream = kv.Session(requests())
                await eventually(lambda: taken.pending_bytes > 0)
                for _ in range(30):
                    assert taken.pending_bytes <= 4 * (len(encode_batch([PUT])) + 512)
                    await asyncio.sleep(0.01)
                stream.cancel()

    run(scenario())


# -- connections ---------------------------------------------------------------------------------------


def test_where_descriptors_are_few_members_come_before_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    config = NodeConfig(max_client_connections=1000, max_peer_connections=100)
    monkeypatch.setattr("lattice_core.server.bounds._descriptors", lambda: None)
    clients, peers = connection_limits(config)
    assert (clients.connections, peers.connections) == (1000, 100)
    monkeypatch.setattr("lattice_core.server.bounds._descriptors", lambda: 1024)
    clients, peers = connection_limits(config)
    assert (clients.connections, peers.connections) == (668, 100)
    monkeypatch.setattr("lattice_core.server.bounds._descriptors", lambda: 300)
    clients, peers = connection_limits(config)
    assert (clients.connections, peers.connections) == (22, 22)


def _hung_up_after(connection: socket.socket) -> float:
    began = time.monotonic()
    connection.settimeout(10)
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("port", ["client_addr", "peer_addr"])
@pytest.mark.parametrize(
    "beginning",
    [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x40\4"],
    ids=["nothing", "a preface", "a part of a frame"],
)
def test_49_a_connection_that_does_not_come_to_the_point_is_closed_in_time(
    tmp_path: Path, port: str, beginning: bytes
) -> None:
    async def scenario() -> None:
        node_configs = configs(tmp_path, 1, handshake_timeout_ms=300, idle_connection_seconds=0)
        async with cluster(node_configs) as running:
            host, _, number = getattr(running.nodes["n1"].config, port).rpartition(":")

            def slow() -> float:
                with socket.create_connection((host, int(number)), timeout=5) as connection:
                    connection.sendall(beginning)
                    return _hung_up_after(connection)

            assert 0.1 < await asyncio.to_thread(slow) < 5

    run(scenario())


def test_an_idle_connection_is_closed_and_its_client_notices_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        [config] = configs(tmp_path, 1, idle_connection_seconds=1)
        async with cluster([config]), kv_stub(config.client_addr) as kv:
            await kv.Put(kv_pb2.PutRequest(key=b"key", value=b"value"), timeout=5)
            await asyncio.sleep(1.6)
            answer = await kv.Get(kv_pb2.GetRequest(key=b"key"), timeout=5)
            assert answer.found.value == b"value"

    run(scenario())


def test_49_connections_beyond_the_bound_are_closed_and_those_before_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1, max_client_connections=16)) as running:
            addr = running.nodes["n1"].config.client_addr
            host, _, number = addr.rpartition(":")
            async with AsyncClient(addr, timeout=5) as client:
                await client.put(b"key", b"value")
                crowd = [socket.create_connection((host, int(number)), timeout=5) for _ in range(40)]
                try:
                    turned_away = 0

                    def count() -> int:
                        closed = 0
                        for each in crowd:
                            each.settimeout(0.2)
                            try:
                                while data := each.recv(4096):
                                    del data
                                closed += 1
                            except ConnectionError:
                                closed += 1
                            except TimeoutError:
                                pass
                        return closed

                    turned_away = await asyncio.to_thread(count)
                    assert turned_away >= 24
                    await client.put(b"key", b"again")
                finally:
                    for each in crowd:
                        each.close()
            async with AsyncClient(addr, timeout=5) as another:
                found = await another.get(b"key")
                assert found is not None
                assert found.value == b"again"

    run(scenario())


# -- room on the disk ----------------------------------------------------------------------------------


def test_beyond_the_quota_writes_are_refused_deletes_go_through_and_it_ends_by_itself(tmp_path: Path) -> None:
    settings = {"disk_quota_bytes": 3 << 20, "disk_reserve_bytes": 0, "history_revisions": 10, "history_bytes": 1 << 16}

    async def scenario() -> None:
        [config] = configs(tmp_path, 1, **settings)
        config = replace(config, segment_bytes=128 << 10)
        async with cluster([config]) as running:
            node = running.nodes["n1"].node
            async with AsyncClient(config.client_addr, timeout=1) as client:
                written = 0
                try:
                    while written < 2000:
                        await client.put(f"key{written:04d}", b"v" * 20_000)
                        written += 1
                except Busy as error:
                    refusal = error
                assert str(3 << 20) in str(refusal)
                assert "disk_quota_bytes" in str(refusal)
                assert "delete" in (refusal.hint or "")
                status = await node.status()
                assert status.counters.no_room == node.room.reason
                assert status.counters.disk_quota_bytes == 3 << 20
                assert status.counters.disk_used_bytes >= 3 << 20
                assert await client.get(b"key0000") is not None
                with pytest.raises(Busy):
                    await client.cas(b"key0000", None, b"new")
                for number in range(written):
                    await client.delete(f"key{number:04d}")
                await eventually(lambda: node.room.reason is None, within=15)
                assert node.room.used_bytes < 3 << 20
                await client.put(b"after", b"there is room")

    run(scenario())


def test_a_disk_with_little_left_takes_no_writes_until_there_is_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        [config] = configs(tmp_path, 1, disk_reserve_bytes=10 << 20)
        async with cluster([config]) as running:
            node = running.nodes["n1"].node
            left = (10 << 20) - 1
            node.room._free_bytes = lambda: left
            await node.room.look()
            async with AsyncClient(config.client_addr, timeout=2) as client:
                with pytest.raises(Busy, match=r"10485759 bytes left, and 10485760 are kept .*disk_reserve_bytes"):
                    await client.put(b"key", b"value")
                await client.delete(b"key")
                left = (10 << 20) + 1
                await node.room.look()
                assert node.room.reason is not None, "a byte more is not enough"
                left = 11 << 20
                await node.room.look()
                await client.put(b"key", b"value", timeout=5)

    run(scenario())


def test_no_more_is_proposed_between_two_looks_than_the_last_one_left_room_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        [config] = configs(tmp_path, 1, disk_reserve_bytes=10 << 20)
        async with cluster([config]) as running:
            node = running.nodes["n1"].node
            await node.room.close()
            node.room._free_bytes = lambda: (10 << 20) + 100_000
            await node.room.look()
            async with AsyncClient(config.client_addr, timeout=2) as client:
                for number in range(10):
                    await client.put(f"key{number}", b"v" * 10_000)
                with pytest.raises(Busy, match="used up"):
                    await client.put("one more", b"v" * 10_000)

    run(scenario())
