"""Members of a cluster that exist only in this process and misbehave on request.

:class:`FakeCluster` is what a real cluster replicates: keys, sessions, and who leads. Its members serve the
real protocol over real sockets. What becomes of the next write or session batch is scripted with
``member.script``: one :class:`Do` each, then NORMAL again.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import msgpack

from lattice_core.rpc.errors import ERROR_METADATA_KEY, status_of
from lattice_core.rpc.pb import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc, raft_pb2


class Do(enum.Enum):
    NORMAL = "execute and answer"
    DROP = "end the stream without executing"
    EXECUTE_AND_DROP = "execute, then end the stream without an answer"
    EXECUTE_SILENTLY = "execute, never answer"
    IGNORE = "do nothing at all"
    HOLD = "execute and answer once the member is released"
    BUSY = "answer that a queue is full"
    NOT_LEADER = "answer that another member leads"
    NO_LEADER = "answer that nobody leads"
    IN_DOUBT = "execute, and answer that the outcome is unknown"
    EXPIRED = "forget the session, and answer that it has expired"
    INVALID = "answer that the batch is wrong"
    TOO_STALE = "answer that this member's state is too old for the read"


@dataclass
class Seen:
    """One batch as a member received it."""

    member: str
    session_id: int
    sequence: int
    acknowledged_below: int
    commands: bytes

    @property
    def keys(self) -> list[bytes]:
        return [op[1] for op in msgpack.unpackb(self.commands)]


@dataclass
class FakeCluster:
    leader: str | None = "n1"
    members: dict[str, FakeMember] = field(default_factory=dict)
    kvs: dict[bytes, list[Any]] = field(default_factory=dict)
    revision: int = 0
    sessions: dict[int, dict[int, bytes]] = field(default_factory=dict)
    opened: int = 0
    closed: int = 0
    refused: int = 0
    """Writes and openings answered with "nobody leads"."""
    seen: list[Seen] = field(default_factory=list)
    executed: list[tuple[int, int, bytes]] = field(default_factory=list)
    ranges: list[tuple[int | None, int]] = field(default_factory=list)
    """(revision, flags) of each range that was read."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def start(self, *names: str) -> str:
        """Start members; their endpoints, comma-separated."""
        for name in names:
            self.members[name] = FakeMember(self, name)
            await self.members[name].start()
        return ",".join(self.members[name].address for name in names)

    async def stop(self) -> None:
        for member in self.members.values():
            await member.stop()

    async def __aenter__(self) -> FakeCluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something a member did makes it true."""
        async with self.changed:
            await self.changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def hint(self) -> kv_pb2.LeaderHint | None:
        if self.leader is None:
            return None
        return kv_pb2.LeaderHint(name=self.leader, client_addr=self.members[self.leader].address)

    def execute(self, session_id: int, sequence: int, acknowledged_below: int, commands: bytes) -> bytes | None:
        """The results, the first ones for a retry; None: no such session."""
        results = self.sessions.get(session_id)
        if results is None:
            return None
        if sequence not in results:
            self.executed.append((session_id, sequence, commands))
            results[sequence] = msgpack.packb([self.apply(op) for op in msgpack.unpackb(commands)])
        answer = results[sequence]
        for old in [number for number in results if number < acknowledged_below]:
            del results[old]
        return answer

    def apply(self, op: list[Any]) -> list[Any]:
        code, key = op[0], op[1]
        found = self.kvs.get(key)
        if code == 1 or (code == 2 and (found[1] if found else 0) == op[3]):
            return [0, self._put(key, op[2])]
        if code == 2:
            return [1, found[1] if found else 0]
        if code == 3:
            self.revision += found is not None
            return [0, int(self.kvs.pop(key, None) is not None), self.revision]
        if code == 4:
            gone = [each for each in self.kvs if key <= each and (not op[2] or each < op[2])]
            for each in gone:
                del self.kvs[each]
            self.revision += bool(gone)
            return [0, len(gone), self.revision]
        assert code == 5
        if (found[0] if found else None) != op[2]:
            return [0, False, self.revision]
        return [0, True, self._put(key, op[3])]

    def _put(self, key: bytes, value: bytes) -> int:
        self.revision += 1
        old = self.kvs.get(key)
        self.kvs[key] = [value, self.revision, old[2] if old else self.revision, old[3] + 1 if old else 1]
        return self.revision

    def read(self, read: list[Any]) -> Any:
        def kv(key: bytes) -> list[Any]:
            value, modified, created, version = self.kvs[key]
            return [key, value, created, modified, version, None]

        if read[0] == 1:
            if read[2] is not None and read[2] < 3:
                code = kv_pb2.ERROR_CODE_COMPACTED
                return {"error": code, "message": "history up to 2 is gone", "compacted_revision": 2}
            return kv(read[1]) if read[1] in self.kvs else None
        _, start, end, limit, revision, flags = read
        self.ranges.append((revision, flags))
        keys = sorted(key for key in self.kvs if key >= start and (not end or key < end))
        if flags & 4:
            keys.reverse()
        shown = keys[: limit or None]
        return [[kv(key) for key in shown], len(shown) < len(keys), len(keys)]


class FakeMember:
    """One member's client port."""

    def __init__(self, cluster: FakeCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.address = ""
        self.script: deque[Do] = deque()
        self.default = Do.NORMAL
        self.read_script: deque[Do] = deque()
        self.read_batches: list[tuple[int, int]] = []
        """(consistency, number of reads) of each batch."""
        self.bounds: list[float] = []
        """The bound of staleness of each batch that had one."""
        self.snapshot = b""
        self.snapshot_bytes = 0
        self.streams = 0
        self.released = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str = "127.0.0.1:0") -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        kv_pb2_grpc.add_KVServicer_to_server(_KV(self), server)
        cluster_pb2_grpc.add_ClusterServicer_to_server(_Cluster(self), server)
        port = server.add_insecure_port(address)
        self.address = f"127.0.0.1:{port}"
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """As if killed: connections are cut."""
        self.released.set()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    @property
    def leads(self) -> bool:
        return self.cluster.leader == self.name


class _EndOfStream(Exception):
    pass


class _KV(kv_pb2_grpc.KVServicer):
    def __init__(self, member: FakeMember) -> None:
        self.member = member
        self.cluster = member.cluster

    async def Session(  # noqa: N802
        self, requests: AsyncIterator[kv_pb2.SessionRequest], context: Any
    ) -> AsyncIterator[kv_pb2.SessionResponse]:
        self.member.streams += 1
        answers: asyncio.Queue[kv_pb2.SessionResponse | None] = asyncio.Queue()

        async def take() -> None:
            try:
                async for request in requests:
                    await self._take(request, answers)
            except _EndOfStream:
                pass
            answers.put_nowait(None)

        taking = asyncio.create_task(take())
        try:
            while (answer := await answers.get()) is not None:
                yield answer
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        finally:
            taking.cancel()

    async def _take(self, request: kv_pb2.SessionRequest, answers: asyncio.Queue[Any]) -> None:
        kind = request.WhichOneof("body")
        response = kv_pb2.SessionResponse(request_id=request.request_id)
        if kind == "read":
            await self._take_read(request.read, response, answers)
            return
        if kind == "close":
            self.cluster.closed += 1
            self.cluster.sessions.pop(request.close.session_id, None)
            response.close.SetInParent()
            answers.put_nowait(response)
            await self.cluster._notify()
            return
        if kind == "write":
            batch = request.write
            self.cluster.seen.append(
                Seen(self.member.name, batch.session_id, batch.sequence, batch.acknowledged_below, batch.commands)
            )
        script = self.member.script
        do = script.popleft() if script and kind == "write" else self.member.default
        if not self.member.leads and do is Do.NORMAL:
            do = Do.NOT_LEADER if self.cluster.leader else Do.NO_LEADER
            self.cluster.refused += do is Do.NO_LEADER
        if do is Do.HOLD:
            await self.member.released.wait()
        if do in (Do.NORMAL, Do.HOLD, Do.EXECUTE_AND_DROP, Do.EXECUTE_SILENTLY, Do.IN_DOUBT):
            self._execute(request, response)
        await self.cluster._notify()
        if do in (Do.DROP, Do.EXECUTE_AND_DROP):
            raise _EndOfStream
        if do in (Do.EXECUTE_SILENTLY, Do.IGNORE):
            return
        if do is Do.EXPIRED:
            self.cluster.sessions.pop(request.write.session_id, None)
            response.error.code = kv_pb2.ERROR_CODE_SESSION_EXPIRED
        error = _ERRORS.get(do)
        if error is not None:
            response.error.code, response.error.message = error
        if do is Do.NOT_LEADER and (hint := self.cluster.hint()) is not None:
            response.error.leader.CopyFrom(hint)
        answers.put_nowait(response)

    async def _take_read(
        self, read: kv_pb2.ReadBatch, response: kv_pb2.SessionResponse, answers: asyncio.Queue[Any]
    ) -> None:
        reads = msgpack.unpackb(read.reads)
        self.member.read_batches.append((read.consistency, len(reads)))
        if read.HasField("max_stale_seconds"):
            self.member.bounds.append(read.max_stale_seconds)
        do = self.member.read_script.popleft() if self.member.read_script else Do.NORMAL
        await self.cluster._notify()
        if do is Do.DROP:
            raise _EndOfStream
        if read.consistency != kv_pb2.CONSISTENCY_STALE and self.cluster.leader is None:
            do = Do.NO_LEADER
        if do is Do.TOO_STALE and (hint := self.cluster.hint()) is not None:
            response.error.leader.CopyFrom(hint)
        error = _ERRORS.get(do)
        if error is not None:
            response.error.code, response.error.message = error
        else:
            response.read.results = msgpack.packb([self.cluster.read(each) for each in reads])
            response.read.revision = self.cluster.revision
            response.read.stale_seconds = 1.5 if read.consistency == kv_pb2.CONSISTENCY_STALE else 0.0
        answers.put_nowait(response)

    def _execute(self, request: kv_pb2.SessionRequest, response: kv_pb2.SessionResponse) -> None:
        cluster = self.cluster
        if request.WhichOneof("body") == "open":
            cluster.opened += 1
            cluster.sessions[cluster.opened] = {}
            response.open.session_id = cluster.opened
            return
        batch = request.write
        results = cluster.execute(batch.session_id, batch.sequence, batch.acknowledged_below, batch.commands)
        if results is None:
            response.error.code = kv_pb2.ERROR_CODE_SESSION_EXPIRED
        else:
            response.write.results = results


_ERRORS = {
    Do.BUSY: (kv_pb2.ERROR_CODE_BUSY, "a queue is full"),
    Do.NOT_LEADER: (kv_pb2.ERROR_CODE_NOT_LEADER, "not the leader"),
    Do.NO_LEADER: (kv_pb2.ERROR_CODE_NO_LEADER, "there is no leader"),
    Do.IN_DOUBT: (kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN, "leadership was lost"),
    Do.TOO_STALE: (kv_pb2.ERROR_CODE_TOO_STALE, "this member's state is old"),
    Do.INVALID: (kv_pb2.ERROR_CODE_INVALID, "this is wrong"),
}


class _Cluster(cluster_pb2_grpc.ClusterServicer):
    def __init__(self, member: FakeMember) -> None:
        self.member = member

    def _status(self, member: FakeMember) -> raft_pb2.MemberStatus:
        number = int(member.name[1:])
        return raft_pb2.MemberStatus(
            cluster_id=0xABC,
            node_id=number,
            name=member.name,
            client_addr=member.address,
            role="leader" if member.leads else "follower",
            voter=True,
            term=7,
        )

    async def NodeStatus(self, request: Any, context: Any) -> raft_pb2.MemberStatus:  # noqa: N802
        return self._status(self.member)

    async def ClusterStatus(self, request: Any, context: Any) -> cluster_pb2.ClusterStatusResponse:  # noqa: N802
        cluster = self.member.cluster
        response = cluster_pb2.ClusterStatusResponse(cluster_id=0xABC, term=7)
        for name, member in cluster.members.items():
            response.members.append(
                cluster_pb2.MemberReport(
                    member=raft_pb2.Member(id=int(name[1:]), name=name),
                    reachable=member._server is not None,
                    voter=True,
                    client_addr=member.address,
                    status=self._status(member),
                )
            )
        await cluster._notify()
        return response

    async def TakeSnapshot(self, request: Any, context: Any) -> cluster_pb2.TakeSnapshotResponse:  # noqa: N802
        return cluster_pb2.TakeSnapshotResponse(name=self.member.name, index=9, term=7, size_bytes=5)

    async def SaveSnapshot(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[cluster_pb2.SaveSnapshotPart]:
        """``member.snapshot``, announced as ``snapshot_bytes`` long; cut off where it is shorter."""
        content, size = self.member.snapshot, self.member.snapshot_bytes or len(self.member.snapshot)
        described = cluster_pb2.TakeSnapshotResponse(name=self.member.name, index=9, term=7, size_bytes=size)
        yield cluster_pb2.SaveSnapshotPart(snapshot=described)
        for offset in range(0, len(content), 100):
            yield cluster_pb2.SaveSnapshotPart(offset=offset, data=content[offset : offset + 100])
        if len(content) < size:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async def TransferLeader(self, request: Any, context: Any) -> cluster_pb2.TransferLeaderResponse:  # noqa: N802
        cluster = self.member.cluster
        if not self.member.leads:
            detail = kv_pb2.ErrorDetail(code=kv_pb2.ERROR_CODE_NOT_LEADER, message="not the leader")
            if (hint := cluster.hint()) is not None:
                detail.leader.CopyFrom(hint)
        elif request.target and request.target not in cluster.members:
            detail = kv_pb2.ErrorDetail(code=kv_pb2.ERROR_CODE_NOT_ALLOWED, message="no such member")
        else:
            cluster.leader = request.target
            return cluster_pb2.TransferLeaderResponse(
                **{"from": self.member.name}, to=request.target, term=8, milliseconds=3.5
            )
        await context.abort(status_of(detail), detail.message, ((ERROR_METADATA_KEY, detail.SerializeToString()),))
        raise AssertionError("abort raises")
