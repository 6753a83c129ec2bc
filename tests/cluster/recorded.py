"""Callers whose every operation is recorded, so that the history can be judged: is it linearizable?

Some go through the client library and any member; each of the others asks one member only, with linearizable and
lease reads, so that a member which answers from the past cannot hide behind the others.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import grpc
from processes import LocalCluster, LocalNode

from lattice_core.client import Client
from lattice_core.errors import NotApplied, OutcomeUnknown
from lattice_core.rpc.pb import kv_pb2, kv_pb2_grpc
from lattice_core.verify import HistoryRecorder, Operation

KEYS = [b"red", b"green", b"blue", b"white"]
CALLERS = 3
TIMEOUT_SECONDS = 3.0
"""Short: operations that are cut off by a fault and stay unknown are what makes a history interesting."""

READ_TIMEOUT_SECONDS = 1.0

PACE_SECONDS = 0.004
"""A caller's pause after each operation: room for the nodes on two cores, and for the checker."""

CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class RecordedCallers:
    """At work while the block runs."""

    def __init__(self, cluster: LocalCluster, *, seed: int = 1) -> None:
        nodes = list(cluster.nodes.values())
        self.recorder = HistoryRecorder(callers=CALLERS + len(nodes))
        self._client = Client(cluster.endpoints, timeout=TIMEOUT_SECONDS)
        self._stopping = threading.Event()
        self._problems: list[str] = []
        self._threads = []
        for caller in range(CALLERS):
            arguments = (self._work, caller, random.Random(f"{seed}/{caller}"))
            self._threads.append(threading.Thread(target=self._guarded, args=arguments, name=f"caller {caller}"))
        for caller, node in enumerate(nodes, CALLERS):
            arguments = (self._read_from, caller, random.Random(f"{seed}/{caller}"), node)
            self._threads.append(threading.Thread(target=self._guarded, args=arguments, name=f"reader of {node.name}"))

    def __enter__(self) -> RecordedCallers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        self._client.close()
        self.recorder.close()

    @property
    def operations(self) -> list[Operation]:
        """All that ended so far."""
        assert not self._problems, self._problems
        return list(self.recorder.operations)

    def count(self, *outcomes: str, by: Callable[[Operation], bool] = lambda _: True) -> int:
        return sum(operation.outcome in outcomes and by(operation) for operation in self.operations)

    def writes(self, *outcomes: str) -> int:
        return self.count(*outcomes, by=lambda operation: operation.op != "get")

    # -- the callers --------------------------------------------------------------------------------

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            self._problems.append(f"{threading.current_thread().name} ended: {type(error).__name__}: {error}")

    def _work(self, caller: int, rng: random.Random) -> None:
        """Distinct values, so that each read says which write it saw."""
        client, recorder = self._client, self.recorder
        seen: dict[bytes, bytes | None] = {}
        number = 0
        while not self._stopping.is_set():
            number += 1
            key, value = rng.choice(KEYS), b"%d.%d" % (caller, number)
            op: Any = rng.choices(["put", "get", "cas", "delete"], [4, 4, 3, 1])[0]
            expected = seen.get(key)
            identifier = recorder.invoke(
                caller,
                op,
                key,
                value=value if op in ("put", "cas") else None,
                expected=expected if op == "cas" else None,
            )
            try:
                if op == "put":
                    client.put(key, value)
                    answer: dict[str, Any] = {}
                    seen[key] = value
                elif op == "get":
                    found = client.get(key)
                    seen[key] = None if found is None else found.value
                    answer = {"result": seen[key]}
                elif op == "cas":
                    answer = {"swapped": bool(client.cas(key, expected, value))}
                else:
                    answer = {"deleted": bool(client.delete(key))}
            except NotApplied:
                recorder.complete(identifier, "fail")
            except OutcomeUnknown:
                recorder.complete(identifier, "unknown")
            else:
                recorder.complete(identifier, **answer)
            self._stopping.wait(PACE_SECONDS)

    def _read_from(self, caller: int, rng: random.Random, node: LocalNode) -> None:
        with grpc.insecure_channel(node.client_addr, options=CHANNEL_OPTIONS) as channel:
            stub: Any = kv_pb2_grpc.KVStub(channel)
            while not self._stopping.is_set():
                key = rng.choice(KEYS)
                consistency = rng.choice([kv_pb2.CONSISTENCY_LINEARIZABLE, kv_pb2.CONSISTENCY_LEASE])
                identifier = self.recorder.invoke(caller, "get", key)
                try:
                    request = kv_pb2.GetRequest(key=key, consistency=consistency)
                    found = stub.Get(request, timeout=READ_TIMEOUT_SECONDS)
                except grpc.RpcError:
                    self.recorder.complete(identifier, "fail")
                    self._stopping.wait(0.02)  # a dead member refuses at once: do not spin
                else:
                    result = found.found.value if found.HasField("found") else None
                    self.recorder.complete(identifier, result=result)
                    self._stopping.wait(PACE_SECONDS)
