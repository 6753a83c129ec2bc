"""What workloads share: clients, a tally, and the rules for callers.

A caller is a coroutine that does one operation after the other through the public client. An operation ends in an
answer, in ``NotApplied`` (it has not happened and will not), or in ``OutcomeUnknown``; anything else is a finding, and
so is one that outlives its deadline by far.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc

from lattice_core.client import AsyncClient, ClientTLS, KeyValue
from lattice_core.errors import LatticeError, NotApplied, OutcomeUnknown

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 3.0
"""An operation's. Short: what is cut off by a fault and stays unknown is what makes a history interesting."""

OVERDUE_SECONDS: Final = 15.0
"""An operation that has not ended so long after its deadline never will; on a starved machine it may be late."""

FINAL_SECONDS: Final = 30.0
"""For each read at the end, when all is whole again."""

PAGE_KEYS: Final = 2_000


@dataclass
class Tally:
    """Operations of all workloads, by how they ended."""

    acknowledged: int = 0
    """Answered; reads too."""
    acknowledged_writes: int = 0
    unknown: int = 0
    failed: int = 0
    last_acknowledged_at: float = field(default_factory=time.monotonic)
    longest_gap_seconds: float = 0.0
    """Without any acknowledged write."""

    def acknowledge(self, *, write: bool) -> None:
        self.acknowledged += 1
        if write:
            self.acknowledged_writes += 1
            now = time.monotonic()
            self.longest_gap_seconds = max(self.longest_gap_seconds, now - self.last_acknowledged_at)
            self.last_acknowledged_at = now


@dataclass
class Arena:
    """What a workload gets to work with."""

    endpoints: str
    addresses: Mapping[str, str]
    """Member to client address, for callers that stay with one."""
    seed: int
    tally: Tally
    violation: Callable[[str], None]
    history_path: str
    open_channel: Callable[[str, list[tuple[str, int]]], grpc.aio.Channel]
    tls: ClientTLS | None = None
    """What clients need; None: plain text."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def new_client(self) -> AsyncClient:
        return AsyncClient(self.endpoints, timeout=TIMEOUT_SECONDS, tls=self.tls)

    def random(self, name: str) -> random.Random:
        """A source of its own for each caller."""
        return random.Random(f"{self.seed}/{name}")

    async def pause(self, seconds: float) -> None:
        """Room for the nodes, which share the machine with the callers."""
        await asyncio.sleep(seconds)


class Workload(ABC):
    """Callers at work until the arena is stopping; then :meth:`verify`."""

    name: str

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.client = arena.new_client()

    @abstractmethod
    def callers(self) -> list[Coroutine[Any, Any, None]]:
        """Each returns soon after the arena is stopping."""

    @abstractmethod
    async def verify(self, client: AsyncClient) -> list[str]:
        """Read back through ``client`` what came of it all; what must not be, as lines. Raises LatticeError."""

    async def close(self) -> None:
        await self.client.close()

    async def attempt(self, operation: Awaitable[T], *, write: bool = True) -> T:
        """Await one operation and count how it ended. Raises NotApplied, OutcomeUnknown."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS + OVERDUE_SECONDS):
                result = await operation
        except NotApplied:
            self.arena.tally.failed += 1
            raise
        except OutcomeUnknown:
            self.arena.tally.unknown += 1
            raise
        except TimeoutError:
            self.arena.violation(
                f"{self.name}: an operation with a deadline of {TIMEOUT_SECONDS:g} s had not ended "
                f"{OVERDUE_SECONDS:g} s after it"
            )
            raise OutcomeUnknown("it never ended") from None
        self.arena.tally.acknowledge(write=write)
        return result


async def everything(client: AsyncClient, prefix: bytes) -> dict[bytes, KeyValue]:
    """All keys under ``prefix``, page by page. Raises LatticeError."""
    found: dict[bytes, KeyValue] = {}
    start = prefix
    while True:
        page = await client.range(start=start, end=prefix + b"\xff", limit=PAGE_KEYS, timeout=FINAL_SECONDS)
        found.update((kv.key, kv) for kv in page.kvs)
        if not page.more:
            return found
        start = page.kvs[-1].key + b"\0"


__all__ = ["FINAL_SECONDS", "TIMEOUT_SECONDS", "Arena", "LatticeError", "Tally", "Workload", "everything"]
