"""Transfers between accounts, each a key. Nobody ever sees money appear, vanish, or a balance below zero.

A transfer is a transaction: if both balances still are what was read, both are written. Whoever looks reads all
accounts at one revision.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from lattice_cli.chaos.workloads.base import FINAL_SECONDS, Arena, Workload
from lattice_core.client import AsyncClient, RangeResult, key, put
from lattice_core.errors import NotApplied, OutcomeUnknown
from lattice_core.verify.workloads import check_bank_total

CALLERS: Final = 3
ACCOUNTS: Final = 6
EACH: Final = 100
PACE_SECONDS: Final = 0.05
PREFIX: Final = b"bank/"
NAMES: Final = tuple(PREFIX + b"account-%d" % number for number in range(ACCOUNTS))
MAX_SNAPSHOTS: Final = 20_000
"""Kept for the check; the latest win."""


class Bank(Workload):
    """See the module."""

    name = "bank"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._snapshots: list[dict[str, int]] = []

    def callers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._transfer(caller) for caller in range(CALLERS)]

    async def _transfer(self, caller: int) -> None:
        draw = self.arena.random(f"bank/{caller}")
        while not self.arena.stopping.is_set():
            await self.arena.pause(PACE_SECONDS)
            try:
                found = await self.attempt(self.client.range(prefix=PREFIX), write=False)
                if not found.kvs:
                    await self._open()
                    continue
                self._saw(found)
                source, target = draw.sample(NAMES, 2)
                balances = {kv.key: int(kv.value) for kv in found.kvs}
                amount = draw.randint(1, EACH // 3)
                if balances[source] >= amount:
                    await self._move(balances, source, target, amount)
            except (NotApplied, OutcomeUnknown):
                continue  # it happened or not: the next read says what there is

    async def _open(self) -> None:
        opening = [put(name, b"%d" % EACH) for name in NAMES]
        await self.attempt(self.client.txn(when=[key(name).absent() for name in NAMES], then=opening))

    async def _move(self, balances: dict[bytes, int], source: bytes, target: bytes, amount: int) -> None:
        unchanged = [key(name).value == b"%d" % balances[name] for name in (source, target)]
        change = [
            put(source, b"%d" % (balances[source] - amount)),
            put(target, b"%d" % (balances[target] + amount)),
        ]
        await self.attempt(self.client.txn(when=unchanged, then=change))

    def _saw(self, found: RangeResult) -> None:
        self._snapshots.append({kv.key.decode(): int(kv.value) for kv in found.kvs})
        if len(self._snapshots) > MAX_SNAPSHOTS:
            del self._snapshots[: MAX_SNAPSHOTS // 2]

    async def verify(self, client: AsyncClient) -> list[str]:
        found = await client.range(prefix=PREFIX, timeout=FINAL_SECONDS)
        if not found.kvs:
            return ["bank: the bank is gone"] if self._snapshots else []
        self._saw(found)
        return [f"bank: {line}" for line in check_bank_total(total=ACCOUNTS * EACH, snapshots=self._snapshots)]
