"""A set whose elements are put once each, and lists that are appended to by compare-and-set."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Any, Final

from lattice_cli.chaos.workloads.base import FINAL_SECONDS, Arena, Workload, everything
from lattice_core.client import AsyncClient
from lattice_core.errors import NotApplied, OutcomeUnknown
from lattice_core.verify.workloads import check_append_list, check_unique_set

SET_CALLERS: Final = 3
SET_PACE_SECONDS: Final = 0.03
SET_PREFIX: Final = b"set/"

LIST_CALLERS: Final = 3
LIST_PACE_SECONDS: Final = 0.05
LIST_PREFIX: Final = b"list/"
LIST_ELEMENTS: Final = 150
"""Then the next list is begun: each append sends the whole list twice."""

_MAX_LISTED = 5


class UniqueSet(Workload):
    """The store itself tells what became of each element: its version says how often it was put."""

    name = "set"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.acknowledged: dict[bytes, int] = {}
        """Key to the revision it was acknowledged at."""
        self.unknown: set[bytes] = set()
        self.failed: set[bytes] = set()

    def callers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._put(caller) for caller in range(SET_CALLERS)]

    async def _put(self, caller: int) -> None:
        for number in itertools.count():
            if self.arena.stopping.is_set():
                return
            key = SET_PREFIX + b"%d/%07d" % (caller, number)
            try:
                self.acknowledged[key] = await self.attempt(self.client.put(key, b"%d" % number))
            except NotApplied:
                self.failed.add(key)
            except OutcomeUnknown:
                self.unknown.add(key)
            await self.arena.pause(SET_PACE_SECONDS)

    async def verify(self, client: AsyncClient) -> list[str]:
        found = await everything(client, SET_PREFIX)
        violations = check_unique_set(acknowledged=self.acknowledged, unknown=self.unknown, final=list(found))
        twice = [key for key, kv in found.items() if kv.version != 1]
        moved = [key for key in self.acknowledged.keys() & found if found[key].mod_revision != self.acknowledged[key]]
        violations += _listed("element applied twice", twice)
        violations += _listed("element acknowledged at another revision than it has", moved)
        violations += _listed("element said not to be applied, and is there", list(self.failed & found.keys()))
        return [f"set: {violation}" for violation in violations]


class AppendList(Workload):
    """Every list's elements are in the order in which they were acknowledged, and what a read saw stays."""

    name = "list"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._lists = 1
        self._acknowledged: dict[int, list[bytes]] = {}
        self._unknown: dict[int, list[bytes]] = {}
        self._reads: dict[int, list[list[bytes]]] = {}
        self._precedes: dict[int, list[tuple[bytes, bytes]]] = {}

    def callers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._append(caller) for caller in range(LIST_CALLERS)]

    async def _append(self, caller: int) -> None:
        number = 0
        while not self.arena.stopping.is_set():
            await self.arena.pause(LIST_PACE_SECONDS)
            which = self._lists
            key = LIST_PREFIX + b"%04d" % which
            try:
                found = await self.attempt(self.client.get(key), write=False)
            except (NotApplied, OutcomeUnknown):
                continue
            before = _elements(found.value if found is not None else b"")
            self._reads.setdefault(which, []).append(before)
            if len(before) >= LIST_ELEMENTS:
                self._lists = max(self._lists, which + 1)
                continue
            number += 1
            element = b"%d.%d" % (caller, number)
            # Whatever is acknowledged so far stands before what is appended from here on.
            acknowledged = self._acknowledged.setdefault(which, [])
            last = acknowledged[-1] if acknowledged else None
            try:
                value = b",".join([*before, element])
                swapped = await self.attempt(self.client.cas(key, found.value if found is not None else None, value))
            except NotApplied:
                continue
            except OutcomeUnknown:
                self._unknown.setdefault(which, []).append(element)
                continue
            if swapped:
                acknowledged.append(element)
                if last is not None:
                    self._precedes.setdefault(which, []).append((last, element))

    async def verify(self, client: AsyncClient) -> list[str]:
        violations: list[str] = []
        for which in range(1, self._lists + 1):
            key = LIST_PREFIX + b"%04d" % which
            found = await client.get(key, timeout=FINAL_SECONDS)
            wrong = check_append_list(
                acknowledged=self._acknowledged.get(which, []),
                unknown=self._unknown.get(which, []),
                reads=self._reads.get(which, []),
                final=_elements(found.value if found is not None else b""),
                precedes=self._precedes.get(which, []),
            )
            violations += [f"{key.decode()}: {violation}" for violation in wrong]
        return violations


def _elements(value: bytes) -> list[bytes]:
    return value.split(b",") if value else []


def _listed(what: str, keys: list[bytes]) -> list[str]:
    if not keys:
        return []
    names = ", ".join(key.decode() for key in sorted(keys)[:_MAX_LISTED])
    return [f"{what}: {names}" + (f" and {len(keys) - _MAX_LISTED} more" if len(keys) > _MAX_LISTED else "")]
