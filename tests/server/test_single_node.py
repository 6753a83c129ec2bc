"""One node, spoken to as any language's gRPC would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import msgpack
import pytest
from server_harness import cluster, cluster_stub, configs, get, kv_stub, put, read_request, run, write_request

from lattice_core.errors import ConfigurationError, DirectoryInUse, IdentityMismatch
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import cluster_pb2, kv_pb2
from lattice_core.server.run import RunningNode


def test_put_get_delete_cas_and_range_by_unary_calls(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            async with kv_stub(addr) as kv:
                assert (await kv.Put(kv_pb2.PutRequest(key=b"a", value=b"1"))).revision == 1
                found = (await kv.Get(kv_pb2.GetRequest(key=b"a"))).found
                assert (found.value, found.create_revision, found.mod_revision, found.version) == (b"1", 1, 1, 1)
                assert (await kv.Get(kv_pb2.GetRequest(key=b"b"))).HasField("not_found")

                swapped = await kv.CompareAndSwap(kv_pb2.CompareAndSwapRequest(key=b"a", expected=b"1", value=b"2"))
                assert swapped.swapped
                again = await kv.CompareAndSwap(kv_pb2.CompareAndSwapRequest(key=b"a", expected=b"1", value=b"3"))
                assert not again.swapped
                absent = await kv.CompareAndSwap(kv_pb2.CompareAndSwapRequest(key=b"b", value=b"new"))
                assert absent.swapped

                refused = await kv.Put(kv_pb2.PutRequest(key=b"a", value=b"9", if_mod_revision=1))
                assert not refused.done
                assert refused.revision == 2
                assert (await kv.Put(kv_pb2.PutRequest(key=b"a", value=b"3", if_mod_revision=2))).done

                everything = await kv.Range(kv_pb2.RangeRequest())
                assert [(each.key, each.value) for each in everything.kvs] == [(b"a", b"3"), (b"b", b"new")]
                limited = await kv.Range(kv_pb2.RangeRequest(limit=1, reverse=True, keys_only=True))
                assert [each.key for each in limited.kvs] == [b"b"]
                assert limited.more
                assert limited.count == 2
                past = await kv.Get(kv_pb2.GetRequest(key=b"a", revision=1))
                assert past.found.value == b"1"

                deleted = await kv.Delete(kv_pb2.DeleteRequest(key=b"", range_end=b""))
                assert deleted.deleted == 2
                for consistency in kv_pb2.Consistency.values():
                    assert await get(addr, b"a", consistency) is None

    run(scenario())


def test_the_session_stream_is_pipelined_and_executes_a_retry_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            async with kv_stub(addr) as kv:
                call = kv.Session()
                await call.write(kv_pb2.SessionRequest(request_id=1, open=kv_pb2.OpenSessionRequest()))
                opened = await call.read()
                assert opened.request_id == 1
                session = opened.open.session_id
                assert session
                assert opened.open.leader.client_addr == addr

                for n in range(1, 6):
                    ops = [[1, b"k%d" % i, b"v%d" % n] for i in range(3)]
                    await call.write(write_request(n + 1, ops, session=session, sequence=n, below=1))
                answers = {}
                for _ in range(5):
                    answer = await call.read()
                    answers[answer.request_id] = msgpack.unpackb(answer.write.results)
                assert answers[2] == [[0, 1], [0, 2], [0, 3]]
                assert answers[6] == [[0, 13], [0, 14], [0, 15]]

                retry = [[1, b"k%d" % i, b"v1"] for i in range(3)]
                await call.write(write_request(10, retry, session=session, sequence=1, below=1))
                assert msgpack.unpackb((await call.read()).write.results) == answers[2]
                await call.write(read_request(11, [[1, b"k0", None], [2, b"", b"", 0, None, 2], [1, b"x", None]]))
                read = await call.read()
                value, counted, nothing = msgpack.unpackb(read.read.results)
                assert value[:2] == [b"k0", b"v5"], "the retry changed nothing"
                assert counted == [[], False, 3]
                assert nothing is None
                assert read.read.revision == 15

                await call.write(
                    kv_pb2.SessionRequest(request_id=12, close=kv_pb2.CloseSessionRequest(session_id=session))
                )
                assert (await call.read()).HasField("close")
                await call.write(write_request(13, retry, session=session, sequence=6))
                assert (await call.read()).error.code == kv_pb2.ERROR_CODE_SESSION_EXPIRED
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]

    run(scenario())


def test_wrong_requests_are_answered_one_by_one_and_the_stream_lives_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            async with kv_stub(addr) as kv:
                call = kv.Session()
                wrong: list[tuple[kv_pb2.SessionRequest, int]] = [
                    (write_request(1, [[1, b"", b"v"]]), kv_pb2.ERROR_CODE_INVALID),
                    (write_request(2, []), kv_pb2.ERROR_CODE_INVALID),
                    (write_request(3, [[99, b"future"]]), kv_pb2.ERROR_CODE_INVALID),
                    (write_request(4, [[1, b"k" * 5000, b"v"]]), kv_pb2.ERROR_CODE_TOO_LARGE),
                    (write_request(5, [[1, b"k", b"v"]], session=1), kv_pb2.ERROR_CODE_INVALID),
                    (read_request(6, [[1, b"", None]]), kv_pb2.ERROR_CODE_INVALID),
                    (read_request(7, [[7]]), kv_pb2.ERROR_CODE_INVALID),
                    (kv_pb2.SessionRequest(request_id=8), kv_pb2.ERROR_CODE_INVALID),
                ]
                for request, code in wrong:
                    await call.write(request)
                    answer = await call.read()
                    assert answer.request_id == request.request_id
                    assert answer.error.code == code, answer
                await call.write(read_request(20, [[1, b"k", 10**6], [1, b"k", None]]))
                failed, fine = msgpack.unpackb((await call.read()).read.results)
                assert failed["error"] == kv_pb2.ERROR_CODE_INVALID
                assert fine is None
                call.cancel()

    run(scenario())


def test_bytes_that_are_no_request_end_that_stream_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            async with grpc.aio.insecure_channel(addr) as channel:
                open_stream: Any = channel.stream_stream
                call = open_stream("/lattice.v1.KV/Session")()
                await call.write(b"\xff\xff\xff")
                assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            await put(addr, b"a", b"1")

    run(scenario())


def test_errors_of_unary_calls_carry_their_detail(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await put(addr, b"", b"1")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "key is empty" in str(from_rpc_error(caught.value)) or "well-formed" in str(
                from_rpc_error(caught.value)
            )

    run(scenario())


def test_a_restart_keeps_the_data(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            for n in range(20):
                await put(addr, b"key%d" % n, b"value%d" % n)
            await running.stop("n1")
            await running.start()
            await running.leader()
            assert await get(addr, b"key7") == b"value7"
            await running.kill("n1")
            await running.start()
            await running.leader()
            assert await get(addr, b"key19") == b"value19"
            async with cluster_stub(addr) as stub:
                status = await stub.NodeStatus(cluster_pb2.NodeStatusRequest())
            assert (status.role, status.voter, status.keys, status.revision) == ("leader", True, 20, 20)
            assert status.log_bytes > 0

    run(scenario())


def test_a_second_process_on_the_directory_is_refused(tmp_path: Path) -> None:
    """SAFETY 23."""

    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        async with cluster([config]) as running:
            await running.leader()
            (other,) = configs(tmp_path, 1)
            with pytest.raises(DirectoryInUse):
                await RunningNode(other).start()
            await put(config.client_addr, b"a", b"1")

    run(scenario())


@pytest.mark.parametrize("which", ["client_addr", "peer_addr"])
def test_a_port_that_is_taken_is_an_error_which_names_address_and_option(tmp_path: Path, which: str) -> None:
    async def scenario() -> None:
        first, second = configs(tmp_path / "a", 1)[0], configs(tmp_path / "b", 1)[0]
        async with cluster([first]) as running:
            await running.leader()
            clash = replace(second, **{which: getattr(first, which)})
            with pytest.raises(ConfigurationError) as caught:
                await RunningNode(clash).start()
            assert getattr(first, which) in str(caught.value)
            assert "--" + which.replace("_", "-") in str(caught.value)
            # What was taken was given back.
            again = RunningNode(replace(clash, **{which: getattr(second, which)})) if which == "client_addr" else None
            if again is not None:
                await again.start()
                await again.kill()

    run(scenario())


def test_options_that_contradict_the_directory_are_refused_with_both_values(tmp_path: Path) -> None:
    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        async with cluster([config]) as running:
            await running.leader()
        (other,) = configs(tmp_path, 1)
        for clash, asked in (
            (replace(config, name="n9"), "n9"),
            (replace(config, peer_addr=other.peer_addr), other.peer_addr),
            (
                replace(config, initial_cluster={"n1": config.peer_addr, "n2": other.peer_addr}),
                f"n2={other.peer_addr}",
            ),
        ):
            with pytest.raises(IdentityMismatch) as caught:
                await RunningNode(clash).start()
            assert asked in str(caught.value)
        async with cluster([replace(config, client_addr=other.client_addr)]) as running:
            await running.leader()  # a client address may change freely

    run(scenario())


def test_a_full_queue_answers_resource_exhausted_and_heartbeats_go_on(tmp_path: Path) -> None:
    """SAFETY 49: writes pile up behind a stalled disk, up to the bound and no further."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3, max_pending_bytes=2 << 20)) as running:
            leader = await running.leader()
            term = leader.node.core.term
            stalled = [each.node.storage for each in running.nodes.values()]
            held: list[Any] = []
            for storage in stalled:
                storage.submit = held.append  # type: ignore[method-assign]
            async with kv_stub(leader.config.client_addr) as kv:
                call = kv.Session()
                for n in range(1, 6):
                    await call.write(write_request(n, [[1, b"k", b"v" * 700_000]]))
                errors = [await call.read() for _ in range(3)]
                assert {answer.error.code for answer in errors} == {kv_pb2.ERROR_CODE_BUSY}
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await kv.Put(kv_pb2.PutRequest(key=b"k", value=b"v" * 700_000))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                # Far longer than an election timeout is not needed to see that rounds go on being echoed.
                assert (await kv.Get(kv_pb2.GetRequest(key=b"k"), timeout=2)).HasField("not_found")
                assert leader.node.core.is_leader
                assert leader.node.core.term == term
                call.cancel()

    run(scenario())
