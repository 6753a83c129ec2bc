"""Everything that reads bytes it did not write: each target takes any bytes, and may raise only what it says.

A target is a function of bytes that returns nothing, with some examples of what is valid: mutations of those get
further than noise. What it raises on purpose it catches; anything else is a finding, and so is taking long or much
memory.
``python tests/fuzz/run.py`` goes on for as long as it is let.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from crashfs import CrashFS
from examples import BATCHES, CHUNKS, HELLO, PAYLOADS, SNAPSHOT, Book
from logs import CLUSTER, CONFIG, DIR, NODE, append, create, snapshot, term
from logs import put as write_to
from parts import PARTS, snapshot_parts

from lattice_cli import contexts, settings, txn_file
from lattice_core.addresses import parse_addr
from lattice_core.config import parse_initial_cluster
from lattice_core.errors import LatticeError
from lattice_core.kv import StateMachine, commands
from lattice_core.kv.capture import Restore
from lattice_core.raft import messages as m
from lattice_core.raft.types import Entry, SnapshotMeta
from lattice_core.rpc.codec import MalformedMessage, decode_envelope, decode_messages, to_pb
from lattice_core.rpc.errors import from_detail
from lattice_core.rpc.pb import kv_pb2, raft_pb2
from lattice_core.rpc.peers import HelloRefused, LocalIdentity, PeerDirectory
from lattice_core.server.read_batches import decode_reads
from lattice_core.sim.plan import Plan
from lattice_core.storage import records
from lattice_core.storage.identity import read_identity
from lattice_core.storage.snapshots import SnapshotReader
from lattice_core.storage.wal import Wal
from lattice_core.verify.history import read_history


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    examples: tuple[bytes, ...]


# -- the state machine ---------------------------------------------------------------------------------


def batch(data: bytes) -> None:
    with contextlib.suppress(LatticeError):
        commands.decode_batch(data)


def payload(data: bytes) -> None:
    """An entry is refused whole, or applied alike by two machines."""
    machines = StateMachine(), StateMachine()
    outcomes: list[Any] = []
    for machine in machines:
        machine.apply(1, 1, PAYLOADS[0])
        try:
            outcomes.append(machine.apply(2, 1, data))
        except LatticeError as error:
            outcomes.append(str(error))
        machine.check()
    assert outcomes[0] == outcomes[1]
    assert machines[0].state_hash == machines[1].state_hash


def reads(data: bytes) -> None:
    with contextlib.suppress(LatticeError):
        decode_reads(data)


def snapshot_chunk(data: bytes) -> None:
    """A chunk whose checksum is right, in the place of each of a snapshot's, and in the end."""
    try:
        found = msgpack.unpackb(data)
    except Exception:
        return  # the reader's business: SnapshotReader.objects, in the target ``snapshot_file``
    for place in range(len(CHUNKS) + 1):
        chunks = [msgpack.unpackb(each) for each in CHUNKS]
        chunks[place : place + 1] = [found]
        restore = Restore()
        try:
            for chunk in chunks:
                restore.feed(chunk)
            StateMachine.restored(restore)
        except LatticeError:
            pass


# -- the wire ------------------------------------------------------------------------------------------

MESSAGES = (
    m.PreVoteRequest(2, 1, 5, 7, 4),
    m.AppendEntries(2, 1, 5, 3, 2, (Entry(4, 5, b"x"), Entry(5, 5, None), Entry(6, 5, CONFIG)), 3, 1, 1),
    m.AppendConflict(2, 1, 5, 9, 3, 4, 1, 2),
    m.InstallSnapshot(2, 1, 5, SnapshotMeta(9, 4, CONFIG), 1),
    m.ReadIndexResponse(2, 1, 5, 9, None),
)


def envelope(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        for message in decode_messages(decode_envelope(data).messages):
            assert decode_messages([to_pb(message)]) == [message], "what is taken can be said again"


def hello(data: bytes) -> None:
    try:
        greeting = decode_envelope(data).hello
    except MalformedMessage:
        return
    local = LocalIdentity(CLUSTER, 1, "n1", "127.0.0.1:7401", "h:1", "1", 7)
    ended: list[str] = []
    directory = PeerDirectory(local, Book(), lambda: CONFIG, lambda: (0, CONFIG), ended.append, ended.append, {})
    with contextlib.suppress(HelloRefused):
        asyncio.run(directory.admit(greeting, expected=None))


def error_detail(data: bytes) -> None:
    """What a server says went wrong, for a client: always some error, whatever it is."""
    try:
        detail = kv_pb2.ErrorDetail.FromString(data)
    except Exception:
        return
    assert isinstance(from_detail(detail), LatticeError)


# -- files ---------------------------------------------------------------------------------------------


@functools.cache
def _place() -> Path:
    return Path(tempfile.mkdtemp(prefix="lattice-fuzz-"))


def clean_up() -> None:
    """Remove the files that targets were given. Whoever runs them calls it in the end."""
    if _place.cache_info().currsize:
        shutil.rmtree(_place(), ignore_errors=True)
        _place.cache_clear()


def _file(name: str, data: bytes) -> Path:
    path = _place() / name
    path.write_bytes(data)
    return path


def plan(data: bytes) -> None:
    with contextlib.suppress(LatticeError):
        Plan.from_json(data.decode(errors="surrogateescape"))


def history(data: bytes) -> None:
    with contextlib.suppress(LatticeError):
        read_history(_file("history.jsonl", data))


def transaction_file(data: bytes) -> None:
    with contextlib.suppress(LatticeError):
        txn_file.parse(data, "t.txn")


def config(data: bytes) -> None:
    with contextlib.suppress(LatticeError):
        settings.load({}, config_file=_file("lattice.toml", data), environ={}).config.validate()


def contexts_file(data: bytes) -> None:
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(_place())
    try:
        (_place() / "lattice").mkdir(exist_ok=True)
        _file("lattice/contexts.toml", data)
        with contextlib.suppress(LatticeError):
            contexts.load()
    finally:
        if before is None:
            del os.environ["XDG_CONFIG_HOME"]
        else:
            os.environ["XDG_CONFIG_HOME"] = before


def addresses(data: bytes) -> None:
    text = data.decode(errors="replace")
    with contextlib.suppress(LatticeError):
        parse_addr(text)
    with contextlib.suppress(LatticeError):
        parse_initial_cluster(text)


def identity(data: bytes) -> None:
    fs = CrashFS()
    fs.make_dirs("/data")
    file = fs.open("/data/identity", create=True)
    file.write_at(0, data)
    with contextlib.suppress(LatticeError):
        read_identity(fs, "/data")


def _log() -> tuple[CrashFS, str]:
    fs = CrashFS()
    wal = create(fs, append(1, 8), term(2, 1), append(7, 9, term=2), snapshot(3))
    write_to(wal, append(10, 12, term=2))
    wal.close()
    names = fs.list_dir(DIR)
    return fs, f"{DIR}/{names[-1]}"


_LOG, _SEGMENT = _log()


def _segment() -> bytes:
    file = _LOG.open_read_only(_SEGMENT)
    return file.read_at(0, file.size())


def wal(data: bytes) -> None:
    """The log's last segment in whatever state: it opens, or says what is wrong, and what was opened can be closed."""
    fs = _LOG.copy()
    file = fs.open(_SEGMENT)
    file.truncate(0)
    file.write_at(0, data)
    with contextlib.suppress(LatticeError):
        opened, _ = Wal.open(fs, DIR, CLUSTER, NODE)
        opened.close()


def wal_record(data: bytes) -> None:
    """The inside of a record whose checksum is right; the first byte is its type."""
    body = data[1:]
    head = records._HEAD.pack(len(body), data[0] if data else 0)
    crc = records.google_crc32c.extend(0, head + body)
    whole = records._CRC.pack(crc) + head + body
    with contextlib.suppress(LatticeError, records.BadRecord):
        for found in records.read_records(whole, 0, len(whole), 0):
            repr(found.record)


def snapshot_file(data: bytes) -> None:
    fs = CrashFS()
    fs.make_dirs("/data")
    file = fs.open("/data/some.snap", create=True)
    file.write_at(0, data)
    with contextlib.suppress(LatticeError), SnapshotReader(fs, "/data/some.snap") as reader:
        restore = Restore()
        for chunk in reader.objects():
            restore.feed(chunk)
        StateMachine.restored(restore)


def _records() -> tuple[bytes, ...]:
    """Bodies of real records, each with its type in front."""
    entries = [
        records.entry_record(Entry(1, 1, b"command")),
        records.entry_record(Entry(2, 1, None)),
        records.entry_record(Entry(3, 1, CONFIG)),
        records.hard_state_record(records.HardState(3, 1)),
        records.truncation_record(records.Truncation(3, 1)),
        records.commit_hint_record(records.CommitHint(3)),
        records.snapshot_record(records.SnapshotMark(SnapshotMeta(3, 1, CONFIG), False)),
    ]
    return tuple(bytes([head[records._HEAD.size - 1]]) + body for head, body in entries)


_HISTORY = (
    b'{"process":3,"op":"put","key":"k","value":"v","call":1,"return":2,"outcome":"ok"}\n'
    b'{"process":4,"op":"get","key":"k","result":"v","call":1,"return":3,"outcome":"ok"}\n'
    b'{"process":5,"op":"cas","key":{"base64":"AAA="},"value":"v","expected":"e","swapped":true,"call":4,"return":null,'
    b'"outcome":"unknown"}\n'
)
_TXN = b"when:\n  value(stock/apples) = 5\n  absent(--prefix P)\nthen:\n  put a 4\n  delete b\nelse:\n  get a\n"
_TOML = (
    b'name = "n1"\nclient-addr = "127.0.0.1:7401"\nsegment_bytes = 65536\n[initial_cluster]\nn1 = "127.0.0.1:7500"\n'
)
_CONTEXTS = b'current = "a"\n[contexts.a]\nendpoints = "127.0.0.1:7400"\n'

TARGETS: dict[str, Target] = {
    "addresses": Target(addresses, (b"127.0.0.1:7400", b"[::1]:7400", b"n1=h:1,n2=h:2")),
    "batch": Target(batch, BATCHES),
    "config": Target(config, (_TOML,)),
    "contexts": Target(contexts_file, (_CONTEXTS,)),
    "envelope": Target(
        envelope, tuple(raft_pb2.Envelope(messages=[to_pb(each)]).SerializeToString() for each in MESSAGES)
    ),
    "error_detail": Target(
        error_detail,
        (kv_pb2.ErrorDetail(code=3, message="no", hint="yes", limit=1, actual=2).SerializeToString(),),  # type: ignore[arg-type]
    ),
    "hello": Target(hello, (raft_pb2.Envelope(hello=HELLO).SerializeToString(),)),
    "history": Target(history, (_HISTORY,)),
    "identity": Target(identity, ()),
    "payload": Target(payload, PAYLOADS),
    "plan": Target(plan, tuple(Plan.from_seed(seed, hours=0.001).to_json().encode() for seed in (1, 2))),
    "reads": Target(reads, (msgpack.packb([[1, b"key", None], [2, b"a", b"z", 10, 7, 1]]),)),
    "snapshot_chunk": Target(snapshot_chunk, CHUNKS),
    "snapshot_file": Target(snapshot_file, (SNAPSHOT,)),
    "snapshot_parts": Target(snapshot_parts, PARTS),
    "transaction_file": Target(transaction_file, (_TXN,)),
    "wal": Target(wal, (_segment()[:4096],)),
    "wal_record": Target(wal_record, _records()),
}
