"""What is valid, for targets to begin with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import msgpack
from crashfs import CrashFS
from logs import CLUSTER, CONFIG

from lattice_core.kv import StateMachine, access, commands, txn
from lattice_core.raft.types import SnapshotMeta
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import PROTOCOL
from lattice_core.storage.snapshots import SnapshotHeader, SnapshotWriter

PUT = commands.put(b"key", b"value")
TXN = commands.transaction(
    [(txn.VALUE, txn.EQUAL, b"key", None, b"value"), (txn.VERSION, txn.GREATER, b"a", b"b", 0)],
    [(txn.PUT, b"key", b"new"), (txn.RANGE, b"a", b"z", 10, 0)],
    [(txn.DELETE, b"key"), (txn.GET, b"key"), (txn.DELETE_RANGE, b"a", b"z")],
)
BATCHES = (
    commands.encode_batch([PUT]),
    commands.encode_batch([PUT, commands.delete(b"key"), commands.cas(b"key", None, b"v"), commands.open_session()]),
    commands.encode_batch([TXN, commands.delete_range(b"a", b""), commands.close_session(1)]),
)
CHANGES = (
    (access.GRANT, b"writers", access.WRITE, b"app/"),
    (access.ADD_USER, b"root", b"verifier", (access.ADMIN, b"writers")),
    (access.CREATE_TOKEN, b"id", b"root", b"digest", 0, 0),
    (access.ENABLE,),
    (access.SET_PASSWORD, b"root", None),
    (access.CREATE_TOKEN, b"other", b"root", b"digest", 5000, 1),
)
WITH_CHANGES = commands.encode_batch([commands.change_access(change) for change in CHANGES])
PAYLOADS = tuple(
    commands.encode_payload(1000, [commands.ClientBatch(session, 1, 1, batch)])
    for session, batch in (*itertools.product((0, 1), BATCHES), (0, WITH_CHANGES))
)


def _chunks() -> tuple[bytes, ...]:
    machine = StateMachine()
    for index, each in enumerate(PAYLOADS, start=1):
        machine.apply(index, 1, each)
    assert machine.access.enabled
    capture = machine.capture()
    try:
        return tuple(msgpack.packb(chunk) for chunk in capture.to_chunks(100, 1 << 16))
    finally:
        capture.close()


CHUNKS = _chunks()
META = SnapshotMeta(9, 2, CONFIG)


def _snapshot_file() -> bytes:
    fs = CrashFS()
    fs.make_dirs("/data/snapshots")
    writer = SnapshotWriter(fs, "/data/snapshots", SnapshotHeader(CLUSTER, META))
    for chunk in CHUNKS:
        writer.write(chunk)
    file = fs.open_read_only(writer.publish())
    return file.read_at(0, file.size())


SNAPSHOT = _snapshot_file()


class Book:
    own = 7

    def __init__(self) -> None:
        self.bindings: dict[int, int] = {2: 22}

    def known(self) -> Mapping[int, int]:
        return self.bindings

    async def bind(self, bindings: Mapping[int, int]) -> None:
        self.bindings.update(bindings)


HELLO = raft_pb2.Hello(
    cluster_id=CLUSTER,
    node_id=2,
    to=1,
    name="n2",
    client_addr="127.0.0.1:7402",
    peer_addr="h:2",
    version="1",
    protocol=PROTOCOL,
    incarnation=22,
    known=[raft_pb2.Incarnation(node_id=1, incarnation=7)],
)
