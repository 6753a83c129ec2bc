"""A client that answers from memory, so that parsing and rendering are tested without a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "server"))  # saved_data

from cli_fixtures import explained, node, report

from lattice_cli.main import run
from lattice_cli.options import Globals
from lattice_core.client import (
    CasResult,
    ClusterStatus,
    DeleteResult,
    Explained,
    KeyValue,
    MembershipChanged,
    NodeStatus,
    PutResult,
    RangeResult,
    SnapshotSaved,
    SnapshotTaken,
    Transfer,
    TxnResult,
)
from lattice_core.client.txn import txn_op
from lattice_core.kv import txn


def every_kind_of_cluster() -> ClusterStatus:
    """A leader, a follower, a laggard, a learner and one that is away."""
    return ClusterStatus(
        cluster_id=0xF8721FD7386F22D0,
        leader_id=1,
        term=3,
        members=(
            report(node("n1"), "n1"),
            report(node("n2", "follower"), "n2"),
            report(node("n3", "follower", applied_index=1200), "n3"),
            report(node("n4", "learner", voter=False), "n4", voter=False, learner=True),
            report(None, "n5", unreachable_seconds=42.4, client_addr=""),
        ),
    )


@dataclass
class MemoryClient:
    """The methods that commands use, and what they were called with."""

    kvs: dict[bytes, KeyValue] = field(default_factory=dict)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    error: BaseException | None = None
    condition_holds: bool = True
    changed: MembershipChanged | None = None
    """What the next change of members comes to."""

    def __enter__(self) -> MemoryClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _called(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.calls.append((name, args, kwargs))
        if self.error is not None:
            raise self.error

    def put(self, key: bytes, value: bytes, **kwargs: Any) -> int | PutResult:
        self._called("put", key, value, **kwargs)
        return PutResult(self.condition_holds, 8) if kwargs else 8

    def put_explained(self, key: bytes, value: bytes, *, if_revision: int | None) -> tuple[PutResult, Explained]:
        self._called("put_explained", key, value, if_revision=if_revision)
        return PutResult(self.condition_holds, 8), explained()

    def get_explained(self, key: bytes, **kwargs: Any) -> tuple[KeyValue | None, int, Explained]:
        self._called("get_explained", key, **kwargs)
        return self.kvs.get(key), 77, explained()

    def delete(self, key: bytes) -> DeleteResult:
        self._called("delete", key)
        return DeleteResult(int(key in self.kvs), 9)

    def delete_range(self, *, prefix: bytes) -> DeleteResult:
        self._called("delete_range", prefix)
        return DeleteResult(sum(key.startswith(prefix) for key in self.kvs), 9)

    def cas(self, key: bytes, expected: bytes, new: bytes) -> CasResult:
        self._called("cas", key, expected, new)
        return CasResult(self.condition_holds, 10)

    def range(
        self, *, limit: int, start: bytes = b"", end: bytes | None = None, prefix: bytes = b"", **kwargs: Any
    ) -> RangeResult:
        start = prefix or start
        self._called("range", start, end, limit, **kwargs)
        keys = [key for key in sorted(self.kvs) if key >= start and (end is None or key < end)]
        if kwargs.get("count_only"):
            return RangeResult((), False, len(keys), 77)
        shown = (keys[::-1] if kwargs.get("reverse") else keys)[:limit]
        kvs = [self.kvs[key] for key in shown]
        if kwargs.get("keys_only"):
            kvs = [kv._replace(value=b"") for kv in kvs]
        return RangeResult(tuple(kvs), len(keys) > limit, len(keys), 77)

    def txn(self, *, when: list[Any], then: list[Any], otherwise: list[Any]) -> TxnResult:
        """``condition_holds`` decides; deletes find one key, gets what is in ``kvs``."""
        self._called("txn", when, then, otherwise)
        txn_op(when, then, otherwise)  # refuses what the real one would
        done = then if self.condition_holds else otherwise
        results = tuple(self._txn_result(each.op) for each in done)
        return TxnResult(self.condition_holds, 12, results, None if self.condition_holds else len(when) - 1)

    def _txn_result(self, op: Any) -> Any:
        if op[0] == txn.PUT:
            return 12
        if op[0] == txn.GET:
            return self.kvs.get(op[1])
        if op[0] == txn.RANGE:
            flags = op[4]
            found = self.range(
                start=op[1],
                end=op[2] or None,
                limit=op[3] or 1000,
                reverse=flags & txn.REVERSE,
                keys_only=flags & txn.KEYS_ONLY,
                count_only=flags & txn.COUNT_ONLY,
            )
            self.calls.pop()
            return found
        return DeleteResult(1, 12)

    def node_status(self) -> NodeStatus:
        self._called("node_status")
        return node()

    def cluster_status(self, **_: Any) -> ClusterStatus:
        self._called("cluster_status")
        return every_kind_of_cluster()

    def transfer_leader(self, name: str | None) -> Transfer:
        self._called("transfer_leader", name)
        return Transfer("n1", name or "n2", 4, 12.3456)

    def add_server(self, name: str, peer_addr: str, **kwargs: Any) -> MembershipChanged:
        self._called("add_server", name, peer_addr, **kwargs)
        return self._change()

    def remove_server(self, name: str, **kwargs: Any) -> MembershipChanged:
        self._called("remove_server", name, **kwargs)
        return self._change()

    def replace_server(self, old: str, name: str, peer_addr: str, **kwargs: Any) -> MembershipChanged:
        self._called("replace_server", old, name, peer_addr, **kwargs)
        return self._change()

    def promote(self, name: str, **kwargs: Any) -> MembershipChanged:
        self._called("promote", name, **kwargs)
        return self._change()

    def _change(self) -> MembershipChanged:
        assert self.changed is not None, "say first what it comes to"
        return self.changed

    def take_snapshot(self, member: str | None, *, timeout: float | None) -> tuple[SnapshotTaken, ...]:
        self._called("take_snapshot", member, timeout=timeout)
        return (SnapshotTaken(member or "n1", True, 9, 2, "/d/9.snap", 100, 1.5),)

    def save_snapshot(self, path: Path, *, progress: Any, timeout: float | None) -> SnapshotSaved:
        self._called("save_snapshot", path, timeout=timeout)
        return SnapshotSaved(str(path), "n1", 9, 2, 100, replaced=f"{path}.part")

    def add(self, key: bytes, value: bytes) -> None:
        self.kvs[key] = KeyValue(key, value, 3, 7, 2, None)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    """In place of a connected client; remembers the options it was made with as ``globals``."""
    memory = MemoryClient()

    def make(options: Globals) -> MemoryClient:
        memory.calls.append(("client", (options,), {}))
        return memory

    monkeypatch.setattr(Globals, "client", make)
    return memory


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    for name in (
        "LATTICE_ENDPOINTS",
        "LATTICE_CONTEXT",
        "LATTICE_TIMEOUT",
        "LATTICE_CONFIG",
        "LATTICE_TRACEBACK",
        "NO_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


Lattice = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lattice(capfd: pytest.CaptureFixture[str]) -> Lattice:
    """Run one command line in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call
