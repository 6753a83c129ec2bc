"""What operators ask of members: single calls, apart from the stream of operations.

A status is a snapshot, so it is not worth waiting for: every known address is tried once, and if none
answers, that is the answer. A transfer of leadership is the leader's to do, so that call follows the hint
and waits out an election, until its deadline.
"""

# ruff: noqa: ASYNC109 - the time is what is left of the caller's deadline, and goes to the server too
from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, BinaryIO, TypeVar

import grpc

from lattice_core.client.channels import (
    NOBODY_ANSWERS_HINT,
    AddressBook,
    ConnectFailed,
    cluster_stub,
    connect,
    connect_first,
    plain_reason,
)
from lattice_core.client.cluster_types import (
    ClusterStatus,
    MemberReport,
    NodeStatus,
    SnapshotSaved,
    SnapshotTaken,
    Transfer,
)
from lattice_core.client.counters import counters_from_pb, details_from_pb, progress_from_pb
from lattice_core.errors import (
    InvalidRequest,
    LatticeError,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    StorageDamaged,
    StorageFailed,
    Unavailable,
)
from lattice_core.rpc.aio import EOF
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import cluster_pb2, raft_pb2

T = TypeVar("T")

MEMBER_SECONDS = 1.0
"""What the member that is asked may spend on each other member. It asks them all at the same time."""

RETRY_SECONDS = 0.1
"""Between attempts to find a leader: a tenth of an election."""

SNAPSHOT_SECONDS = 300.0
"""For taking a snapshot, unless the caller says otherwise: gigabytes, on a busy member with a slow disk."""

SAVE_SECONDS = 24 * 3600.0
"""For a whole file; that it goes on at all is watched by SNAPSHOT_SECONDS between pieces."""

PART_SUFFIX = ".part"

Progress = Callable[[int, int], None]
"""Told the bytes that are here, and how many there will be."""

Call = Callable[[Any, float], Awaitable[T]]
MakeStub = Callable[[grpc.aio.Channel, str | None], Any]


async def node_status(book: AddressBook, timeout: float) -> NodeStatus:
    """The status of the first member that answers. Raises Unavailable."""

    async def call(stub: Any, seconds: float) -> raft_pb2.MemberStatus:
        status: raft_pb2.MemberStatus = await stub.NodeStatus(cluster_pb2.NodeStatusRequest(), timeout=seconds)
        return status

    return node_from_pb(await ask(book, call, timeout, what="status"))


async def cluster_status(book: AddressBook, timeout: float) -> ClusterStatus:
    """Every member's status, gathered by the first member that answers. Raises Unavailable."""

    async def call(stub: Any, seconds: float) -> cluster_pb2.ClusterStatusResponse:
        request = cluster_pb2.ClusterStatusRequest(timeout_seconds=min(MEMBER_SECONDS, seconds / 2))
        response: cluster_pb2.ClusterStatusResponse = await stub.ClusterStatus(request, timeout=seconds)
        return response

    response = await ask(book, call, timeout, what="cluster status")
    book.learn(member.client_addr for member in response.members)
    return cluster_from_pb(response)


def cluster_from_pb(response: cluster_pb2.ClusterStatusResponse) -> ClusterStatus:
    return ClusterStatus(
        cluster_id=response.cluster_id,
        leader_id=response.leader_id if response.HasField("leader_id") else None,
        term=response.term,
        members=tuple(sorted(_members(response), key=lambda member: member.name)),
        joint=bool(response.configuration.voters_outgoing),
        pending=_pending(response.configuration),
    )


async def transfer_leader(book: AddressBook, target: str, timeout: float) -> Transfer:
    """Hand leadership to the member named ``target`` ("": the best-placed voter)."""

    async def call(stub: Any, seconds: float) -> cluster_pb2.TransferLeaderResponse:
        request = cluster_pb2.TransferLeaderRequest(target=target, timeout_seconds=seconds)
        response: cluster_pb2.TransferLeaderResponse = await stub.TransferLeader(request, timeout=seconds)
        return response

    response = await ask_leader(book, call, timeout, what="transfer-leader")
    # "from" is a keyword: the field can only be had by name.
    return Transfer(getattr(response, "from"), response.to, response.term, response.milliseconds)


async def ask_leader(
    book: AddressBook,
    call: Call[T],
    timeout: float,
    *,
    what: str,
    stub: MakeStub = cluster_stub,
    is_write: bool = True,
) -> T:
    """Something that only the leader can do: to the leader, until the deadline. Not done twice if ``is_write``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    hint: str | None = None
    while True:
        try:
            left = deadline - loop.time()
            return await ask(book, call, left, what=what, stub=stub, hint=hint, is_write=is_write)
        except (NotLeader, NoLeader) as error:
            hint = error.leader_addr if isinstance(error, NotLeader) else None
            if loop.time() + RETRY_SECONDS >= deadline:
                raise
            await asyncio.sleep(RETRY_SECONDS)


async def take_snapshot(
    book: AddressBook, member: str | None, status_timeout: float, timeout: float
) -> tuple[SnapshotTaken, ...]:
    """Have ``member`` (None: every one) take a snapshot now, all at the same time; ordered by name."""
    status = await cluster_status(book, status_timeout)
    chosen = [each for each in status.members if member in (None, each.name)]
    if not chosen:
        names = ", ".join(each.name for each in status.members)
        raise InvalidRequest(
            f"snapshot: no member is called {member!r}; there are {names}", hint="lattice cluster members"
        )
    return tuple(await asyncio.gather(*(_take(book, each, timeout) for each in chosen)))


async def _take(book: AddressBook, member: MemberReport, timeout: float) -> SnapshotTaken:
    if not member.reachable or not member.client_addr:
        return SnapshotTaken(member.name, False, error=Unavailable(f"{member.name} is unreachable"))
    try:
        channel = await connect(member.client_addr, book.material)
    except ConnectFailed as error:
        return SnapshotTaken(member.name, False, error=Unavailable(f"{member.name} is unreachable: {error}"))
    try:
        stub = cluster_stub(channel, book.token)
        response = await stub.TakeSnapshot(cluster_pb2.TakeSnapshotRequest(), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return SnapshotTaken(member.name, True, error=_failure(error, f"snapshot of {member.name}", is_write=True))
    finally:
        await channel.close(None)
    return SnapshotTaken(
        response.name,
        True,
        response.index,
        response.term,
        response.path,
        response.size_bytes,
        response.milliseconds,
    )


async def save_snapshot(book: AddressBook, path: str, timeout: float, progress: Progress | None) -> SnapshotSaved:
    """A fresh snapshot of the first member that answers, as the new file ``path``: whole, or not there.

    Written aside, checked to its last byte, made durable, and only then given its name. ``timeout`` is for
    each piece. A stream that is cut begins again at another member. What a save that was killed has left aside is
    written over.
    """
    _require_new(path)
    part = path + PART_SUFFIX
    file, left_over = _open_part(part)

    async def call(stub: Any, seconds: float) -> cluster_pb2.TakeSnapshotResponse:
        file.seek(0)
        file.truncate()
        stream = stub.SaveSnapshot(cluster_pb2.SaveSnapshotRequest(), timeout=seconds)
        described: cluster_pb2.TakeSnapshotResponse | None = None
        received = 0
        try:
            while True:
                async with asyncio.timeout(timeout):
                    piece = await stream.read()
                if piece is EOF:
                    break
                if piece.HasField("snapshot"):
                    described = piece.snapshot
                if piece.offset != received and piece.data:
                    raise Unavailable(f"snapshot save: a piece at {piece.offset} came after {received} bytes")
                file.write(piece.data)
                received += len(piece.data)
                if progress is not None and described is not None:
                    progress(received, described.size_bytes)
        except TimeoutError:
            raise Unavailable(f"snapshot save: nothing came for {timeout:g} s") from None
        finally:
            stream.cancel()
        if described is None or received != described.size_bytes:
            raise Unavailable("snapshot save: the file ended too early", hint="try again")
        return described

    try:
        try:
            described = await ask(book, call, SAVE_SECONDS, what="snapshot save")
            await asyncio.to_thread(_publish, file, part, path)
        except OSError as error:
            raise StorageFailed(
                f"snapshot save: {part} cannot be written: {error.strerror}", hint="make room, or save it elsewhere"
            ) from None
    except BaseException:
        _discard(file, part)
        raise
    return SnapshotSaved(
        path,
        described.name,
        described.index,
        described.term,
        described.size_bytes,
        replaced=part if left_over else None,
    )


def _require_new(path: str) -> None:
    if os.path.lexists(path):
        raise InvalidRequest(f"snapshot save: {path} exists already, and is left as it is", hint="give another name")


def _open_part(part: str) -> tuple[BinaryIO, bool]:
    """The file aside, for this save alone, and whether a save that was killed had left it there.

    Its lock dies with the process, so whoever has it knows that nobody else writes here.
    """
    from lattice_core.storage.snapshots import MAGIC

    try:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
    except OSError as error:
        raise InvalidRequest(
            f"snapshot save: {part} cannot be made: {error.strerror}", hint="give a directory that can be written"
        ) from None
    try:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What was opened may have been published meanwhile by the one who held the lock.
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                raise FileNotFoundError(part)
        except (BlockingIOError, FileNotFoundError):
            raise InvalidRequest(
                f"snapshot save: another save writes {part} just now", hint="wait for it, or give another name"
            ) from None
        beginning = file.read(len(MAGIC))
        if not MAGIC.startswith(beginning):
            raise InvalidRequest(
                f"snapshot save: {part} is in the way, and is not what a save leaves", hint="give another name"
            )
    except BaseException:
        file.close()
        raise
    return file, bool(beginning)


def _discard(file: BinaryIO, part: str) -> None:
    # In this order: once it is closed, and so unlocked, the name may be another save's.
    if not file.closed:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
    with contextlib.suppress(OSError):  # a full disk, told of already
        file.close()


def _publish(file: BinaryIO, part: str, path: str) -> None:
    """Check what was received, and make it durable under its name."""
    from lattice_core.storage.filesystem import RealFileSystem
    from lattice_core.storage.snapshots import SnapshotReader

    file.flush()
    os.fsync(file.fileno())
    try:
        with SnapshotReader(RealFileSystem(), part) as reader:
            reader.verify()
    except StorageDamaged as error:
        error.hint = "save again, from another member: --endpoints H:P"
        raise
    _require_new(path)
    os.rename(part, path)
    file.close()
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


async def ask(
    book: AddressBook,
    call: Call[T],
    timeout: float,
    *,
    what: str,
    stub: MakeStub = cluster_stub,
    hint: str | None = None,
    is_write: bool = False,
) -> T:
    """One call to the first address that answers at all; a refusal is an answer, and is raised."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    left = book.candidates(hint)
    reasons: list[str] = []
    next_step = NOBODY_ANSWERS_HINT
    while left and deadline > loop.time():
        try:
            address, channel = await connect_first(book, left)
        except ConnectFailed as error:
            reasons.append(str(error))
            next_step = error.hint
            break
        # Those that were dialled before and had not answered yet keep their turn.
        left.remove(address)
        try:
            return await call(stub(channel, book.token), max(0.001, deadline - loop.time()))
        except grpc.aio.AioRpcError as error:
            failure = _failure(error, what, is_write)
            if type(failure) is not Unavailable:
                raise failure from None
            book.failed(address)
            reasons.append(f"{address}: {plain_reason(failure.message)}")
        finally:
            await channel.close(None)
    raise Unavailable(
        f"{what}: cannot reach {'; '.join(reasons) or 'any member in time'}",
        hint=next_step,
    )


def _failure(error: grpc.aio.AioRpcError, what: str, is_write: bool) -> LatticeError:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        unknown = OutcomeUnknown(f"{what}: sent, and no answer in time", hint="lattice cluster status")
        return unknown if is_write else Unavailable("no answer in time")
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return Unavailable(error.details() or "no such call")  # not one of ours: ask the next
    failure = from_rpc_error(error, may_have_been_applied=is_write)
    if type(failure) is OutcomeUnknown:
        return OutcomeUnknown(f"{what}: {plain_reason(failure.message)}", hint="lattice cluster status")
    if type(failure) is not Unavailable and not failure.message.startswith(what):
        failure.message = f"{what}: {failure.message}"
        failure.args = (failure.message,)
    return failure


def _members(response: cluster_pb2.ClusterStatusResponse) -> Iterable[MemberReport]:
    leading = next(
        (each.status for each in response.members if each.HasField("status") and each.status.role == "leader"), None
    )
    progress = {} if leading is None else {each.node_id: each for each in leading.progress}
    names = {each.member.id: each.member.name for each in response.members}
    for report in response.members:
        yield _member(report, names, leading.last_index if leading is not None else 0, progress.get(report.member.id))


def _pending(configuration: raft_pb2.Configuration) -> str | None:
    names = {each.id: each.name for each in configuration.members}

    def listed(ids: Iterable[int]) -> str:
        return ", ".join(sorted(names[each] for each in ids))

    if configuration.voters_outgoing:
        return f"the voters {listed(configuration.voters_outgoing)} become {listed(configuration.voters)}"
    waiting = []
    for each in configuration.members:
        if each.HasField("promotion"):
            replaced = names.get(each.promotion.replaces) if each.promotion.HasField("replaces") else None
            waiting.append(f"{each.name} is to {f'replace {replaced}' if replaced else 'vote'} when it has caught up")
    return "; ".join(waiting) or None


def _member(
    report: cluster_pb2.MemberReport,
    names: Mapping[int, str],
    last_index: int,
    progress: raft_pb2.PeerProgress | None,
) -> MemberReport:
    promotion = report.member.promotion if report.member.HasField("promotion") else None
    sending = progress is not None and progress.HasField("snapshot_bytes")
    away = report.unreachable_seconds if report.HasField("unreachable_seconds") else None
    return MemberReport(
        id=report.member.id,
        name=report.member.name,
        peer_addr=report.member.peer_addr,
        client_addr=report.client_addr,
        voter=report.voter,
        learner=report.learner,
        reachable=report.reachable,
        unreachable_seconds=away,
        status=node_from_pb(report.status) if report.HasField("status") else None,
        promotes=promotion is not None,
        replaces=names.get(promotion.replaces) if promotion is not None and promotion.HasField("replaces") else None,
        lag=max(0, last_index - progress.match_index) if progress is not None else None,
        snapshot_sent_bytes=progress.snapshot_sent_bytes if progress is not None and sending else None,
        snapshot_bytes=progress.snapshot_bytes if progress is not None and sending else None,
    )


def node_from_pb(status: raft_pb2.MemberStatus) -> NodeStatus:
    return NodeStatus(
        cluster_id=status.cluster_id,
        node_id=status.node_id,
        name=status.name,
        client_addr=status.client_addr,
        peer_addr=status.peer_addr,
        role=status.role,
        voter=status.voter,
        term=status.term,
        leader_id=status.leader_id if status.HasField("leader_id") else None,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        last_index=status.last_index,
        snapshot_index=status.snapshot_index,
        version=status.version,
        revision=status.revision,
        state_hash=status.state_hash,
        keys=status.keys,
        sessions=status.sessions,
        log_bytes=status.log_bytes,
        uptime_seconds=status.uptime_seconds,
        counters=counters_from_pb(status.counters) if status.HasField("counters") else None,
        progress=tuple(map(progress_from_pb, status.progress)),
        details=details_from_pb(status.details) if status.HasField("details") else None,
    )
