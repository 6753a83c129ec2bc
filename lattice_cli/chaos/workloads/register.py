"""Registers with compare-and-set: every operation is recorded, and the history has to be linearizable.

Some callers go through the client library and any member. Each of the others stays with one member and only reads,
linearizably or under the lease: a member that answers from the past cannot hide behind the others.

Keys get new names every few seconds, so that one key's history stays short: the checker's work grows with the
operations on one key that nobody knows the outcome of, and those stay open to the end of the key.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any, Final

import grpc

from lattice_cli.chaos.workloads.base import Arena, Workload
from lattice_core.client import AsyncClient
from lattice_core.errors import NotApplied, OutcomeUnknown
from lattice_core.rpc.pb import kv_pb2, kv_pb2_grpc
from lattice_core.verify import Budget, HistoryRecorder, check_history, read_history
from lattice_core.verify.history import OpName

CALLERS: Final = 4
KEYS: Final = 3
EPOCH_SECONDS: Final = 3.0
PACE_SECONDS: Final = 0.02
READER_TIMEOUT_SECONDS: Final = 1.0
CHECK_SECONDS: Final = 60.0
LARGE_BYTES: Final = 6000
"""Some values, so that one entry spans many sectors and segments fill up."""

CHANNEL_OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
]


class Register(Workload):
    """See the module."""

    name = "register"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.other = arena.new_client()
        self.recorder = HistoryRecorder(callers=CALLERS + len(arena.addresses), path=arena.history_path)
        self.operations = 0
        self._began = time.monotonic()

    def callers(self) -> list[Coroutine[Any, Any, None]]:
        mixed = [self._work(caller) for caller in range(CALLERS)]
        return mixed + [
            self._read_from(caller, name, address)
            for caller, (name, address) in enumerate(self.arena.addresses.items(), CALLERS)
        ]

    async def close(self) -> None:
        self.recorder.close()
        await self.other.close()
        await super().close()

    async def verify(self, client: AsyncClient) -> list[str]:
        """Nothing is read back: what the callers saw is all there is to judge, see :meth:`judge`."""
        self.recorder.close()
        return []

    def judge(self) -> list[str]:
        """The verdict over the history; takes a while, and needs no cluster."""
        path = self.arena.history_path
        verdict = check_history(read_history(path), budget=Budget(seconds=CHECK_SECONDS))
        self.operations = verdict.operations
        if verdict.linearizable:
            return []
        return [f"register: {verdict.lines()[0]}; see: lattice verify {path}"]

    def _key(self, draw: random.Random) -> bytes:
        epoch = int((time.monotonic() - self._began) / EPOCH_SECONDS)
        return b"register/%d/%d" % (epoch, draw.randrange(KEYS))

    async def _work(self, caller: int) -> None:
        """Distinct values, so that each read says which write it saw."""
        arena, recorder = self.arena, self.recorder
        draw = arena.random(f"register/{caller}")
        client = self.client if caller % 2 else self.other
        seen: dict[bytes, bytes | None] = {}
        number = 0
        while not arena.stopping.is_set():
            number += 1
            key = self._key(draw)
            value = b"%d.%d" % (caller, number)
            if draw.random() < 0.1:
                value = value.ljust(LARGE_BYTES, b".")
            op: OpName = draw.choices(("put", "get", "cas", "delete"), (4, 4, 3, 1))[0]
            expected = seen.get(key)
            identifier = recorder.invoke(
                caller,
                op,
                key,
                value=value if op in ("put", "cas") else None,
                expected=expected if op == "cas" else None,
            )
            answer: dict[str, Any] = {}
            try:
                if op == "put":
                    await self.attempt(client.put(key, value))
                    seen[key] = value
                elif op == "get":
                    consistency = draw.choice(("linearizable", "linearizable", "lease"))
                    found = await self.attempt(client.get(key, consistency=consistency), write=False)  # type: ignore[arg-type]
                    seen[key] = answer["result"] = None if found is None else found.value
                elif op == "cas":
                    answer["swapped"] = bool(await self.attempt(client.cas(key, expected, value)))
                    if answer["swapped"]:
                        seen[key] = value
                    else:
                        seen.pop(key, None)
                else:
                    answer["deleted"] = bool(await self.attempt(client.delete(key)))
                    seen[key] = None
            except NotApplied:
                recorder.complete(identifier, "fail")
            except OutcomeUnknown:
                recorder.complete(identifier, "unknown")
            else:
                recorder.complete(identifier, **answer)
            if len(seen) > 4 * KEYS:
                seen.clear()
            await arena.pause(PACE_SECONDS)

    async def _read_from(self, caller: int, name: str, address: str) -> None:
        draw = self.arena.random(f"register/reader/{name}")
        make: Any = kv_pb2_grpc.KVStub
        async with self.arena.open_channel(address, CHANNEL_OPTIONS) as channel:
            stub = make(channel)
            while not self.arena.stopping.is_set():
                key = self._key(draw)
                consistency = draw.choice((kv_pb2.CONSISTENCY_LINEARIZABLE, kv_pb2.CONSISTENCY_LEASE))
                identifier = self.recorder.invoke(caller, "get", key)
                try:
                    request = kv_pb2.GetRequest(key=key, consistency=consistency)
                    answer = await stub.Get(request, timeout=READER_TIMEOUT_SECONDS)
                except grpc.RpcError:
                    self.recorder.complete(identifier, "fail")
                    await asyncio.sleep(0.05)  # one that is down refuses at once
                else:
                    found = answer.found.value if answer.HasField("found") else None
                    self.recorder.complete(identifier, result=found)
                    await self.arena.pause(PACE_SECONDS)
