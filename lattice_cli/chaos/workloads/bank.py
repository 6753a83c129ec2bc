"""Transfers between accounts. Nobody ever sees money appear, vanish, or a balance below zero.

All accounts live in one value, and a transfer is one compare-and-set of it.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any, Final

from lattice_cli.chaos.workloads.base import FINAL_SECONDS, Arena, Workload
from lattice_core.client import AsyncClient
from lattice_core.errors import NotApplied, OutcomeUnknown
from lattice_core.verify.workloads import check_bank_total

CALLERS: Final = 2
ACCOUNTS: Final = 6
EACH: Final = 100
PACE_SECONDS: Final = 0.05
KEY: Final = b"bank"
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
        opening = _encode({f"account-{number}": EACH for number in range(ACCOUNTS)})
        while not self.arena.stopping.is_set():
            await self.arena.pause(PACE_SECONDS)
            try:
                found = await self.attempt(self.client.get(KEY), write=False)
                if found is None:
                    await self.attempt(self.client.cas(KEY, None, opening))
                    continue
                accounts: dict[str, int] = json.loads(found.value)
                self._saw(accounts)
                source, target = draw.sample(sorted(accounts), 2)
                amount = draw.randint(1, EACH // 3)
                if accounts[source] < amount:
                    continue
                after = {**accounts, source: accounts[source] - amount, target: accounts[target] + amount}
                await self.attempt(self.client.cas(KEY, found.value, _encode(after)))
            except (NotApplied, OutcomeUnknown):
                continue  # it happened or not: the next read says what there is

    def _saw(self, accounts: dict[str, int]) -> None:
        self._snapshots.append(accounts)
        if len(self._snapshots) > MAX_SNAPSHOTS:
            del self._snapshots[: MAX_SNAPSHOTS // 2]

    async def verify(self, client: AsyncClient) -> list[str]:
        found = await client.get(KEY, timeout=FINAL_SECONDS)
        if found is None:
            return ["bank: the bank is gone"] if self._snapshots else []
        self._saw(json.loads(found.value))
        return [f"bank: {line}" for line in check_bank_total(total=ACCOUNTS * EACH, snapshots=self._snapshots)]


def _encode(accounts: dict[str, int]) -> bytes:
    return json.dumps(accounts, sort_keys=True).encode()
