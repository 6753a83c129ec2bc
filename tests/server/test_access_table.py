"""Every RPC of the client port, called by everybody: who may, who may not. An RPC that is not here fails the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from access_harness import READS, WRITES, Guarded, guarded_node, verdict
from google.protobuf import descriptor_pool
from server_harness import read_request, run, write_request

from lattice_core import tokens
from lattice_core.rpc.aio import EOF
from lattice_core.rpc.pb import access_pb2, cluster_pb2, kv_pb2
from lattice_core.server.access import NEEDS
from lattice_core.server.monitoring import SERVICES

WHO = ("none", "wrong", "revoked", "nobody", "reader", "writer", "root")
NO, DENIED, YES = "UNAUTHENTICATED", "PERMISSION_DENIED", "allowed"

EVERYBODY = (YES, YES, YES, YES, YES, YES, YES)
A_TOKEN = (NO, NO, NO, YES, YES, YES, YES)
READER = (NO, NO, NO, DENIED, YES, YES, YES)
DOCS_READER = (NO, NO, NO, DENIED, YES, DENIED, YES)
WRITER = (NO, NO, NO, DENIED, DENIED, YES, YES)
ROOT = (NO, NO, NO, DENIED, DENIED, DENIED, YES)

KEY = f"{WRITES}a".encode()
DOC = f"{READS}a".encode()
C = access_pb2.ChangeAccessRequest


def unary(service: str, method: str, request: Any) -> Callable[[Guarded, str], Awaitable[Any]]:
    return lambda guarded, who: guarded.call(who, service, method, request)


def session(*requests: kv_pb2.SessionRequest) -> Callable[[Guarded, str], Awaitable[Any]]:
    """On a stream: refused as the first answer that is an error."""

    async def call(guarded: Guarded, who: str) -> None:
        stub = guarded.channel.stream_stream(
            "/lattice.v1.KV/Session",
            request_serializer=kv_pb2.SessionRequest.SerializeToString,
            response_deserializer=kv_pb2.SessionResponse.FromString,
        )
        stream: Any = stub(metadata=guarded.metadata(who), timeout=10)
        try:
            for request in requests:
                await stream.write(request)
                answer = await stream.read()
                code = answer.error.code
                if code == kv_pb2.ERROR_CODE_UNAUTHENTICATED:
                    raise Refused(grpc.StatusCode.UNAUTHENTICATED)
                if code == kv_pb2.ERROR_CODE_PERMISSION_DENIED:
                    raise Refused(grpc.StatusCode.PERMISSION_DENIED)
        finally:
            stream.cancel()

    return call


class Refused(grpc.aio.AioRpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def save_snapshot(guarded: Guarded, who: str) -> Awaitable[Any]:
    async def call() -> None:
        stub = guarded.channel.unary_stream(
            "/lattice.v1.Cluster/SaveSnapshot",
            request_serializer=cluster_pb2.SaveSnapshotRequest.SerializeToString,
            response_deserializer=cluster_pb2.SaveSnapshotPart.FromString,
        )
        stream: Any = stub(cluster_pb2.SaveSnapshotRequest(), metadata=guarded.metadata(who), timeout=10)
        await stream.read()
        stream.cancel()

    return call()


def health(method: str) -> Callable[[Guarded, str], Awaitable[Any]]:
    from grpc_health.v1 import health_pb2

    async def call(guarded: Guarded, who: str) -> None:
        kind = guarded.channel.unary_unary if method == "Check" else guarded.channel.unary_stream
        stub = kind(  # type: ignore[operator]
            f"/grpc.health.v1.Health/{method}",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = stub(health_pb2.HealthCheckRequest(), metadata=guarded.metadata(who), timeout=10)
        if method == "Check":
            await answer
        else:
            await answer.read()
            answer.cancel()

    return call


def reflection(version: str) -> Callable[[Guarded, str], Awaitable[Any]]:
    from grpc_reflection.v1alpha import reflection_pb2

    async def call(guarded: Guarded, who: str) -> None:
        stub = guarded.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        while True:
            stream: Any = stub(metadata=guarded.metadata(who), timeout=10)
            try:
                await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                if await stream.read() is EOF:
                    raise Refused(await stream.code())
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INTERNAL:
                    continue  # gRPC's client: it was refused while we wrote, and with what is lost
                raise
            stream.cancel()
            return

    return call


def txn(*, compare: bytes = KEY, then: bytes = KEY, otherwise: bytes = KEY) -> kv_pb2.TxnRequest:
    """Reads and a comparison: what is allowed depends on their keys alone."""
    absent = kv_pb2.Compare(
        target=kv_pb2.Compare.TARGET_VERSION, relation=kv_pb2.Compare.RELATION_EQUAL, key=compare, number=0
    )
    return kv_pb2.TxnRequest(
        compare=[absent],
        then=[kv_pb2.TxnOp(range=kv_pb2.TxnOp.Range(key=then))],
        otherwise=[kv_pb2.TxnOp(range=kv_pb2.TxnOp.Range(key=otherwise))],
    )


PUT_OP = kv_pb2.TxnOp(put=kv_pb2.TxnOp.Put(key=KEY, value=b"v"))
WIDE = kv_pb2.TxnOp(range=kv_pb2.TxnOp.Range(key=KEY, range_end=b"b"))

TABLE: list[tuple[str, str, Callable[[Guarded, str], Awaitable[Any]], tuple[str, ...]]] = [
    ("KV/Put", "", unary("KV", "Put", kv_pb2.PutRequest(key=KEY, value=b"v")), WRITER),
    ("KV/Put", "if-revision", unary("KV", "Put", kv_pb2.PutRequest(key=KEY, if_mod_revision=9)), WRITER),
    ("KV/Put", "elsewhere", unary("KV", "Put", kv_pb2.PutRequest(key=DOC, value=b"v")), ROOT),
    ("KV/Get", "", unary("KV", "Get", kv_pb2.GetRequest(key=KEY)), READER),
    ("KV/Get", "stale", unary("KV", "Get", kv_pb2.GetRequest(key=KEY, consistency=kv_pb2.CONSISTENCY_STALE)), READER),
    ("KV/Get", "docs", unary("KV", "Get", kv_pb2.GetRequest(key=DOC)), DOCS_READER),
    ("KV/Get", "absent", unary("KV", "Get", kv_pb2.GetRequest(key=b"x")), ROOT),
    ("KV/Range", "", unary("KV", "Range", kv_pb2.RangeRequest(start=b"app/", end=b"app0")), READER),
    ("KV/Range", "wider", unary("KV", "Range", kv_pb2.RangeRequest(start=b"app/", end=b"app0\0")), ROOT),
    ("KV/Range", "all", unary("KV", "Range", kv_pb2.RangeRequest(count_only=True)), ROOT),
    ("KV/Delete", "", unary("KV", "Delete", kv_pb2.DeleteRequest(key=KEY)), WRITER),
    ("KV/Delete", "range", unary("KV", "Delete", kv_pb2.DeleteRequest(key=b"app/", range_end=b"app0")), WRITER),
    ("KV/Delete", "wider", unary("KV", "Delete", kv_pb2.DeleteRequest(key=b"app/", range_end=b"")), ROOT),
    ("KV/CompareAndSwap", "", unary("KV", "CompareAndSwap", kv_pb2.CompareAndSwapRequest(key=KEY, value=b"")), WRITER),
    ("KV/Txn", "reads", unary("KV", "Txn", txn()), READER),
    ("KV/Txn", "compares docs", unary("KV", "Txn", txn(compare=DOC)), DOCS_READER),
    ("KV/Txn", "then docs", unary("KV", "Txn", txn(then=DOC)), DOCS_READER),
    ("KV/Txn", "else docs", unary("KV", "Txn", txn(otherwise=DOC)), DOCS_READER),
    ("KV/Txn", "writes", unary("KV", "Txn", kv_pb2.TxnRequest(otherwise=[PUT_OP])), WRITER),
    ("KV/Txn", "wide", unary("KV", "Txn", kv_pb2.TxnRequest(then=[WIDE])), ROOT),
    ("KV/OpenSession", "", unary("KV", "OpenSession", kv_pb2.OpenSessionRequest()), A_TOKEN),
    ("KV/Session", "open", session(kv_pb2.SessionRequest(request_id=1, open=kv_pb2.OpenSessionRequest())), A_TOKEN),
    ("KV/Session", "write", session(write_request(1, [[1, KEY, b"v"]])), WRITER),
    ("KV/Session", "mixed", session(write_request(1, [[1, KEY, b"v"], [3, DOC]])), ROOT),
    ("KV/Session", "txn", session(write_request(1, [[6, [], [[64, DOC]], []]])), DOCS_READER),
    ("KV/Session", "read", session(read_request(1, [[1, KEY, None]])), READER),
    ("KV/Session", "mixed reads", session(read_request(1, [[1, KEY, None], [2, DOC, b"e", 0, None, 0]])), ROOT),
    ("Cluster/NodeStatus", "", unary("Cluster", "NodeStatus", cluster_pb2.NodeStatusRequest()), A_TOKEN),
    ("Cluster/ClusterStatus", "", unary("Cluster", "ClusterStatus", cluster_pb2.ClusterStatusRequest()), A_TOKEN),
    ("Cluster/TransferLeader", "", unary("Cluster", "TransferLeader", cluster_pb2.TransferLeaderRequest()), ROOT),
    ("Cluster/AddServer", "", unary("Cluster", "AddServer", cluster_pb2.AddServerRequest(dry_run=True)), ROOT),
    ("Cluster/RemoveServer", "", unary("Cluster", "RemoveServer", cluster_pb2.RemoveServerRequest(dry_run=True)), ROOT),
    ("Cluster/ReplaceServer", "", unary("Cluster", "ReplaceServer", cluster_pb2.ReplaceServerRequest()), ROOT),
    ("Cluster/PromoteServer", "", unary("Cluster", "PromoteServer", cluster_pb2.PromoteServerRequest()), ROOT),
    ("Cluster/TakeSnapshot", "", unary("Cluster", "TakeSnapshot", cluster_pb2.TakeSnapshotRequest()), ROOT),
    ("Cluster/SaveSnapshot", "", save_snapshot, ROOT),
    ("Access/AccessStatus", "", unary("Access", "AccessStatus", access_pb2.AccessStatusRequest()), A_TOKEN),
    ("Access/ListAccess", "", unary("Access", "ListAccess", access_pb2.ListAccessRequest()), ROOT),
    # Everybody may try: refused here is the wrong password, whoever it is that tries.
    ("Access/Login", "", unary("Access", "Login", access_pb2.LoginRequest(user="root")), (NO,) * 7),
    ("Access/CreateToken", "", unary("Access", "CreateToken", access_pb2.CreateTokenRequest(user="reader")),
     (NO, NO, NO, DENIED, YES, DENIED, YES)),
    *(
        ("Access/ChangeAccess", kind, unary("Access", "ChangeAccess", C(**{kind: part})), who)  # type: ignore[arg-type]
        for kind, part, who in (
            ("enable", C.Enable(), ROOT),
            ("add_user", C.AddUser(name="reader"), ROOT),
            ("remove_user", C.RemoveUser(name="stranger"), ROOT),
            ("set_password", C.SetPassword(name="reader"), (NO, NO, NO, DENIED, YES, DENIED, YES)),
            ("assign", C.Assign(user="reader", role="readers"), ROOT),
            ("unassign", C.Assign(user="reader", role="writers"), ROOT),
            ("grant", C.Grant(role="none", prefix=b"x", level=access_pb2.ACCESS_LEVEL_READ), ROOT),
            ("revoke", C.Revoke(role="none", prefix=b"x"), ROOT),
            ("remove_role", C.RemoveRole(name="none"), ROOT),
            ("revoke_token", C.RevokeToken(id="0123"), ROOT),
            ("disable", C.Disable(), ROOT),  # the last of all
        )
    ),
    ("grpc.health.v1.Health/Check", "", health("Check"), EVERYBODY),
    ("grpc.health.v1.Health/Watch", "", health("Watch"), EVERYBODY),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", reflection("v1"), A_TOKEN),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "", reflection("v1alpha"), A_TOKEN),
]  # fmt: skip


NOT_SERVED = {"grpc.health.v1.Health/List"}


def methods_served() -> set[str]:
    """Every method in the descriptors of what the client port serves."""
    import grpc_health.v1.health_pb2  # noqa: F401
    import grpc_reflection.v1alpha.reflection_pb2  # noqa: F401

    found = set()
    for service in (*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"):
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            found.add(f"{service}/{method.name}")
    found |= {each.replace("v1alpha", "v1") for each in found if "v1alpha" in each}
    return found - NOT_SERVED


def full(name: str) -> str:
    return name if name.startswith("grpc.") else f"lattice.v1.{name}"


def test_every_rpc_that_exists_is_in_the_table_and_has_its_need_written_down() -> None:
    served = methods_served()
    assert len(served) == 26
    assert {full(name) for name, *_ in TABLE} == served
    assert {method.removeprefix("/") for method in NEEDS} == served
    assert {"lattice.v1.KV", "lattice.v1.Cluster", "lattice.v1.Access"} == set(SERVICES)
    kinds = {each.name for each in C.DESCRIPTOR.oneofs_by_name["change"].fields}
    assert kinds == {what for name, what, *_ in TABLE if name == "Access/ChangeAccess"}


def test_every_rpc_is_allowed_to_those_in_the_table_and_to_nobody_else(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tokens, "SCRYPT_LOG2_N", 10)

    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            found = {}
            for name, what, call, _ in sorted(TABLE, key=lambda row: row[1] == "disable"):
                if what == "disable":  # whoever comes after the one who may, would be asked for nothing
                    verdicts = [await verdict(call(guarded, who)) for who in WHO]
                else:
                    verdicts = await asyncio.gather(*(verdict(call(guarded, who)) for who in WHO))
                found.update({(name, what, who): each for who, each in zip(WHO, verdicts, strict=True)})
            expected = {
                (name, what, who): each for name, what, _, row in TABLE for who, each in zip(WHO, row, strict=True)
            }
            assert found == expected

    run(scenario())


def test_a_method_that_nobody_has_thought_of_is_for_administrators(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            monkeypatch.delitem(NEEDS, "/lattice.v1.Cluster/NodeStatus")
            request = cluster_pb2.NodeStatusRequest()
            found = [await verdict(guarded.call(who, "Cluster", "NodeStatus", request)) for who in WHO]
            assert tuple(found) == ROOT

    run(scenario())


def test_nothing_is_asked_for_while_it_is_not_enabled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            await guarded.change("root", disable=C.Disable())
            for name, what, call, _ in TABLE:
                if what != "enable" and name != "Access/Login":
                    assert await verdict(call(guarded, "none")) == YES, (name, what)

    run(scenario())
