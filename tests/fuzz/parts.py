"""A snapshot as it arrives at a member that lags: any parts, in any order, on two streams at a time.

The input is a script: for each part a byte that says which stream it comes on (and, by another bit, that the stream
begins anew), its length in two bytes, and the part, as it would be on the wire. What receives it is the real thing
(rpc/snapshot_stream.py, server/snapshot_install.py) with files on a simulated disk; only the core is played, by
something that would take any snapshot.

Whatever comes: no file gets the name of a snapshot, none but the two streams' is begun, it is no larger than was
announced, and what the core is given is what the leader's file says, to the last byte.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from crashfs import CrashFS
from examples import HELLO, META, SNAPSHOT, Book
from logs import CLUSTER, CONFIG

from lattice_core.config import NodeConfig
from lattice_core.raft.messages import InstallSnapshot
from lattice_core.rpc.aio import EOF
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import LocalIdentity, PeerDirectory
from lattice_core.rpc.snapshot_stream import serve_snapshot
from lattice_core.server.snapshot_files import SnapshotFiles
from lattice_core.server.snapshot_install import SnapshotInstaller
from lattice_core.storage.snapshots import SnapshotReader, snapshot_name

NAME = snapshot_name(META)
DIRECTORY = "/data/snapshots"
ROOM_BYTES = 1 << 20
SEGMENT_BYTES = 64 << 10

_HEAD = struct.Struct("<BH")
_OTHER, _ANEW = 1, 2


class _Aborted(Exception):
    """The handler ended the call."""


class _Call:
    """One stream, as its handler sees it."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._ended = False
        self._more = asyncio.Event()
        self.waits = asyncio.Event()

    def push(self, part: bytes | None) -> None:
        """None: there will be no more."""
        if part is None:
            self._ended = True
        else:
            self._parts.append(part)
        self.waits.clear()
        self._more.set()

    async def read(self) -> Any:
        while not self._parts:
            if self._ended:
                return EOF
            self._more.clear()
            self.waits.set()
            await self._more.wait()
        return self._parts.popleft()

    async def write(self, answer: bytes) -> None:
        raft_pb2.SnapshotAnswer.FromString(answer)

    async def abort(self, *_: object) -> NoReturn:
        raise _Aborted

    def peer(self) -> str:
        return "somebody"


class _Core:
    id, term, commit_index, snapshot_index = 1, 5, 3, 3


class _Loop:
    """Takes what is handed over to the core, and looks at it while it is there."""

    def __init__(self, fs: CrashFS) -> None:
        self._fs = fs

    def receive(self, _: int, messages: Sequence[InstallSnapshot]) -> None:
        (message,) = messages
        name = snapshot_name(message.snapshot)
        with SnapshotReader(self._fs, f"{DIRECTORY}/{name}.received") as reader:
            assert reader.verify().meta == message.snapshot

    def fail(self, error: BaseException) -> NoReturn:
        raise error


def _script(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEAD.size <= len(data):
        how, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield how, data[at : at + length]
        at += length


async def _receive(data: bytes) -> None:
    fs = CrashFS()
    fs.room = ROOM_BYTES
    failed: list[BaseException] = []
    ended: list[str] = []
    files = SnapshotFiles(fs, DIRECTORY, CLUSTER, failed.append)
    config = NodeConfig(segment_bytes=SEGMENT_BYTES)
    core: Any = _Core()
    loop: Any = _Loop(fs)
    installer = SnapshotInstaller(config, files, core, loop, lambda *_: None)
    local = LocalIdentity(CLUSTER, 1, "n1", "127.0.0.1:7401", "h:1", "1", 7)
    directory = PeerDirectory(local, Book(), lambda: CONFIG, lambda: (0, CONFIG), ended.append, ended.append, {})

    async def serve(call: _Call) -> None:
        try:
            await serve_snapshot(directory, installer, call)
        except _Aborted:
            pass
        finally:
            call.waits.set()

    calls: dict[int, tuple[_Call, asyncio.Task[None]]] = {}
    tasks: list[asyncio.Task[None]] = []
    for how, part in _script(data):
        stream = how & _OTHER
        if how & _ANEW and stream in calls:
            calls.pop(stream)[0].push(None)
        if stream not in calls:
            call = _Call()
            calls[stream] = call, asyncio.create_task(serve(call))
            tasks.append(calls[stream][1])
        call, task = calls[stream]
        if not task.done():
            call.push(part)
            await call.waits.wait()
        _look(fs)
    for call, _ in calls.values():
        call.push(None)
    for task in tasks:
        await task  # raises what was no typed error
    await installer.close()
    await files.worker.stop()
    assert not failed
    _look(fs)


def _look(fs: CrashFS) -> None:
    there = fs.list_dir(DIRECTORY) if fs.exists(DIRECTORY) else []
    assert all(name.endswith(".received") for name in there), there
    assert len(there) <= 2, there
    for name in there:
        file = fs.open_read_only(f"{DIRECTORY}/{name}")
        assert file.size() <= ROOM_BYTES


def snapshot_parts(data: bytes) -> None:
    asyncio.run(_receive(data))


# -- what is valid, and what nearly is -----------------------------------------------------------------


def _offer(**other: Any) -> bytes:
    offer = raft_pb2.SnapshotOffer(**{"term": 5, "round": 1, "name": NAME, "size_bytes": len(SNAPSHOT), **other})
    return raft_pb2.SnapshotPart(hello=HELLO, offer=offer).SerializeToString()


def _piece(offset: int, data: bytes) -> bytes:
    return raft_pb2.SnapshotPart(offset=offset, data=data).SerializeToString()


def _pieces(begin: int = 0, end: int = len(SNAPSHOT), size: int = 97) -> list[bytes]:
    return [_piece(at, SNAPSHOT[at : min(at + size, end)]) for at in range(begin, end, size)]


def _packed(*parts: tuple[int, bytes]) -> bytes:
    return b"".join(_HEAD.pack(how, len(part)) + part for how, part in parts)


def _on(how: int, parts: list[bytes]) -> list[tuple[int, bytes]]:
    return [(how, part) for part in parts]


_WHOLE = [_offer(), *_pieces()]
_HALF = 97 * (len(SNAPSHOT) // 194)
_SPOILED = SNAPSHOT[:-1] + bytes([SNAPSHOT[-1] ^ 1])
PARTS = (
    _packed(*_on(0, _WHOLE)),
    _packed((0, _offer()), *_on(0, _pieces(0, _HALF)), (_ANEW, _offer()), *_on(0, _pieces(_HALF))),
    _packed(*_on(0, _WHOLE[:3]), *_on(_OTHER, _WHOLE), *_on(0, _WHOLE[3:])),
    _packed((0, _offer()), *_on(0, _pieces()[::-1])),
    _packed((0, _offer()), *_on(0, [_piece(0, SNAPSHOT[:200])] * 2), *_on(0, _pieces(200))),
    _packed((0, _offer()), (0, _piece(0, _SPOILED)), *_on(_ANEW, _WHOLE)),
    _packed((0, _offer(size_bytes=len(SNAPSHOT) - 9)), (0, _piece(0, SNAPSHOT))),
    _packed((0, _offer(size_bytes=2**63)), (0, _piece(0, SNAPSHOT)), (0, _piece(2**62, b"x"))),
    _packed((0, _offer(name="../../identity")), (_ANEW, _offer(name=NAME.replace("9-", "8-"))), *_on(0, _pieces())),
    _packed((0, _offer(term=1)), (_OTHER, _offer(round=2**64 - 1)), *_on(_OTHER, _pieces())),
)
