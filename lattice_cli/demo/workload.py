"""Writers that never write a key twice, so that the store itself tells what happened to each write.

Every write puts a new key. Afterwards an acknowledged key that is missing was lost, and a key whose version is
above 1 was applied twice: versions count the writes of a key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lattice_core.client import AsyncClient, KeyValue
from lattice_core.errors import LatticeError, NotApplied

PREFIX = b"demo/"
PAGE_KEYS = 2000
VALUE = b"x" * 256


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the store says of a finished workload."""

    acknowledged: int
    lost: tuple[bytes, ...]
    """Acknowledged, and not there, or with another value."""
    twice: tuple[bytes, ...]
    """Applied more than once."""
    unknown: int
    """Not acknowledged with an unknown outcome; such a write may be there or not."""
    not_applied: int

    @property
    def holds(self) -> bool:
        return not self.lost and not self.twice


@dataclass
class Workload:
    """Some writers, each waiting for its answer before the next write."""

    client: AsyncClient
    callers: int = 8
    pace_seconds: float = 0.0
    """A pause between two writes of a caller."""
    acknowledged: set[bytes] = field(default_factory=set)
    unknown: set[bytes] = field(default_factory=set)
    not_applied: set[bytes] = field(default_factory=set)
    longest_gap_seconds: float = 0.0
    """The longest time without an acknowledgement since :meth:`watch_gap`."""
    _last_at: float = 0.0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        self.watch_gap()
        self._tasks = [asyncio.ensure_future(self._write(caller)) for caller in range(self.callers)]

    def watch_gap(self) -> None:
        """Measure gaps from now on."""
        self._last_at = time.monotonic()
        self.longest_gap_seconds = 0.0

    async def until_acknowledged(self, count: int, seconds: float) -> None:
        """Wait for ``count`` more acknowledgements. Raises TimeoutError."""
        goal = len(self.acknowledged) + count
        async with asyncio.timeout(seconds):
            while len(self.acknowledged) < goal:
                self._progress.clear()
                await self._progress.wait()

    async def stop(self) -> None:
        """End every writer. A write that is under way has an unknown outcome."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def verdict(self) -> Verdict:
        """Read everything back, linearizably, and compare."""
        found: dict[bytes, KeyValue] = {}
        start = PREFIX
        while True:
            page = await self.client.range(start=start, end=PREFIX + b"\xff", limit=PAGE_KEYS)
            found.update((kv.key, kv) for kv in page.kvs)
            if not page.more:
                break
            start = page.kvs[-1].key + b"\0"
        return Verdict(
            acknowledged=len(self.acknowledged),
            lost=_sorted(key for key in self.acknowledged if key not in found or found[key].value != VALUE),
            twice=_sorted(key for key, kv in found.items() if kv.version != 1),
            unknown=len(self.unknown),
            not_applied=len(self.not_applied),
        )

    async def _write(self, caller: int) -> None:
        number = 0
        while True:
            number += 1
            key = PREFIX + b"%02d/%07d" % (caller, number)
            try:
                await self.client.put(key, VALUE)
            except NotApplied:
                self.not_applied.add(key)
            except (LatticeError, asyncio.CancelledError) as error:
                self.unknown.add(key)
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                self._acknowledge(key)
            if self.pace_seconds:
                await asyncio.sleep(self.pace_seconds)

    def _acknowledge(self, key: bytes) -> None:
        now = time.monotonic()
        self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._last_at)
        self._last_at = now
        self.acknowledged.add(key)
        self._progress.set()


def _sorted(keys: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(keys))
