"""Transactions by gRPC, as any language would call them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgpack
import pytest
from server_harness import cluster, configs, kv_stub, run, write_request

from lattice_core.errors import InvalidRequest, TooLarge
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import kv_pb2

Op = kv_pb2.TxnOp
EQUAL, GREATER = kv_pb2.Compare.RELATION_EQUAL, kv_pb2.Compare.RELATION_GREATER


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Any]:
    """A node alone, and its stub."""
    async with cluster(configs(tmp_path, 1)) as running, kv_stub((await running.leader()).config.client_addr) as kv:
        yield kv


def put(key: bytes, value: bytes) -> kv_pb2.TxnOp:
    return Op(put=Op.Put(key=key, value=value))


def get(key: bytes) -> kv_pb2.TxnOp:
    return Op(range=Op.Range(key=key))


def absent(key: bytes) -> kv_pb2.Compare:
    return kv_pb2.Compare(target=kv_pb2.Compare.TARGET_VERSION, relation=EQUAL, key=key, number=0)


def test_a_transaction_is_compared_done_and_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as kv:
            request = kv_pb2.TxnRequest(
                compare=[absent(b"lock")],
                then=[put(b"lock", b"me"), put(b"since", b"now"), get(b"lock"), get(b"nothing")],
                otherwise=[get(b"lock"), Op(delete=Op.Delete(key=b"since"))],
            )
            done = await kv.Txn(request)
            assert (done.succeeded, done.revision, done.HasField("failed_compare")) == (True, 1, False)
            assert [each.WhichOneof("result") for each in done.results] == ["put", "put", "range", "range"]
            (found,) = done.results[2].range.kvs
            assert (found.key, found.value, found.mod_revision) == (b"lock", b"me", 1)
            assert done.results[3].range.count == 0

            again = await kv.Txn(request)
            assert (again.succeeded, again.failed_compare, again.revision) == (False, 0, 2)
            assert again.results[0].range.kvs[0].value == b"me"
            assert again.results[1].delete.deleted == 1

            every = Op.Range(key=b"", range_end=b"", keys_only=True, reverse=True, limit=1)
            listed = await kv.Txn(
                kv_pb2.TxnRequest(
                    compare=[
                        kv_pb2.Compare(
                            target=kv_pb2.Compare.TARGET_MOD_REVISION,
                            relation=GREATER,
                            key=b"",
                            range_end=b"",
                            number=0,
                        ),
                        kv_pb2.Compare(target=kv_pb2.Compare.TARGET_VALUE, relation=EQUAL, key=b"lock", value=b"me"),
                    ],
                    then=[put(b"z", b"1"), Op(range=every), Op(delete=Op.Delete(key=b"", range_end=b"z"))],
                )
            )
            assert listed.succeeded
            page = listed.results[1].range
            assert ([kv.key for kv in page.kvs], page.kvs[0].value, page.more, page.count) == ([b"z"], b"", True, 2)
            assert listed.results[2].delete.deleted == 1

    run(scenario())


@pytest.mark.parametrize(
    "request_",
    [
        kv_pb2.TxnRequest(),
        kv_pb2.TxnRequest(then=[Op()]),
        kv_pb2.TxnRequest(then=[put(b"", b"")]),
        kv_pb2.TxnRequest(then=[put(b"a", b""), put(b"a", b"")]),
        kv_pb2.TxnRequest(compare=[kv_pb2.Compare(key=b"a", number=1)]),
        kv_pb2.TxnRequest(compare=[kv_pb2.Compare(target=1, relation=1, key=b"a", number=1)]),
        kv_pb2.TxnRequest(compare=[kv_pb2.Compare(target=2, relation=1, key=b"a", value=b"1")]),
        kv_pb2.TxnRequest(compare=[kv_pb2.Compare(target=2, relation=1, key=b"", number=1)]),
        kv_pb2.TxnRequest(then=[get(b"a")] * 1025),
    ],
)
def test_a_transaction_that_means_nothing_is_refused_and_never_reaches_the_log(
    tmp_path: Path, request_: kv_pb2.TxnRequest
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            before = leader.node.core.last_index
            async with kv_stub(leader.config.client_addr) as kv:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await kv.Txn(request_)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert isinstance(from_rpc_error(caught.value), InvalidRequest)
            assert leader.node.core.last_index == before

    run(scenario())


def test_what_a_transaction_comes_to_is_limited_and_the_error_names_the_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as kv:
            for n in range(3):
                await kv.Put(kv_pb2.PutRequest(key=b"%d" % n, value=bytes(900_000)))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await kv.Txn(kv_pb2.TxnRequest(then=[put(b"x", b""), *(get(b"%d" % n) for n in range(3))]))
            error = from_rpc_error(caught.value)
            assert isinstance(error, TooLarge)
            assert (error.limit, error.actual) == (2 << 20, 2_700_147)
            assert (await kv.Get(kv_pb2.GetRequest(key=b"x"))).HasField("not_found")

    run(scenario())


def test_safety_44_a_transaction_sent_again_with_its_identity_is_done_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as kv:
            session = (await kv.OpenSession(kv_pb2.OpenSessionRequest())).session_id
            request = kv_pb2.TxnRequest(
                compare=[absent(b"lock")],
                then=[put(b"lock", b"me")],
                identity=kv_pb2.RequestIdentity(session_id=session, sequence=1, acknowledged_below=1),
            )
            first = await kv.Txn(request)
            assert first.succeeded
            assert await kv.Txn(request) == first
            request.identity.sequence = 2
            assert not (await kv.Txn(request)).succeeded

    run(scenario())


def test_a_large_range_is_deleted_while_other_callers_are_served_and_nobody_sees_half_of_it(tmp_path: Path) -> None:
    keys = 40_000

    async def scenario() -> None:
        async with served(tmp_path) as kv:
            call = kv.Session()
            for first in range(0, keys, 4000):
                ops: list[Any] = [[1, b"%06d" % n, b"v"] for n in range(first, first + 4000)]
                await call.write(write_request(1, ops))
                assert (await call.read()).HasField("write")
            count = kv_pb2.RangeRequest(count_only=True, consistency=kv_pb2.CONSISTENCY_STALE)
            await call.write(write_request(2, [[4, b"", b""], [1, b"z", b""]]))
            seen = set()
            reading = asyncio.ensure_future(call.read())
            while not reading.done():
                seen.add((await kv.Range(count)).count)
            answer = await reading
            assert msgpack.unpackb(answer.write.results) == [[0, keys, keys + 1], [0, keys + 2]]
            seen.add((await kv.Range(count)).count)
            assert seen <= {keys, 0, 1}
            call.cancel()

    run(scenario())
