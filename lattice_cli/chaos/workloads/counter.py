"""Each caller has a counter of its own, and nobody else touches it: it has to count what was acknowledged.

An increment is a compare-and-set from the number before. With one caller a swap that fails shows at once what went
wrong: a write was lost, or executed a second time by a retry (SAFETY 43, 44). After an unknown outcome the caller
looks; from then on the counter may be ahead by one, should the write come through late.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from lattice_cli.chaos.workloads.base import FINAL_SECONDS, Arena, Workload
from lattice_core.client import AsyncClient
from lattice_core.errors import NotApplied, OutcomeUnknown
from lattice_core.verify.workloads import check_session_counter

CALLERS: Final = 2
PACE_SECONDS: Final = 0.03


class _Count:
    """What one caller knows."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.unknown = 0
        self.value = 0
        self.reads: list[int] = []


class Counter(Workload):
    """See the module."""

    name = "counter"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._counts = [_Count() for _ in range(CALLERS)]

    def callers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._count(caller) for caller in range(CALLERS)]

    async def _count(self, caller: int) -> None:
        key, count = _key(caller), self._counts[caller]
        in_doubt = False
        """Since the last answer a write's outcome was unknown."""
        while not self.arena.stopping.is_set():
            await self.arena.pause(PACE_SECONDS)
            if in_doubt:
                try:
                    found = await self.attempt(self.client.get(key), write=False)
                except (NotApplied, OutcomeUnknown):
                    continue
                count.value = int(found.value) if found is not None else 0
                count.reads.append(count.value)
            expected = b"%d" % count.value if count.value else None
            try:
                swapped = await self.attempt(self.client.cas(key, expected, b"%d" % (count.value + 1)))
            except NotApplied:
                continue
            except OutcomeUnknown:
                count.unknown += 1
                in_doubt = True
                continue
            if swapped:
                count.acknowledged += 1
                count.value += 1
                in_doubt = False
            elif not in_doubt:
                self.arena.violation(f"{key.decode()}: it was not {count.value}, though only one counts")
                return

    async def verify(self, client: AsyncClient) -> list[str]:
        violations: list[str] = []
        for caller, count in enumerate(self._counts):
            key = _key(caller)
            found = await client.get(key, timeout=FINAL_SECONDS)
            final, version = (int(found.value), found.version) if found is not None else (0, 0)
            wrong = check_session_counter(
                acknowledged=count.acknowledged, unknown=count.unknown, final=final, reads_in_order=count.reads
            )
            if version != final:
                wrong.append(f"it is at {final} after {version} writes")
            violations += [f"{key.decode()}: {line}" for line in wrong]
        return violations


def _key(caller: int) -> bytes:
    return b"counter/%d" % caller
