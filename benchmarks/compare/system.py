"""What the comparison asks of each system. All of it runs against a cluster of three, started afresh."""

from __future__ import annotations

from typing import Any

KEYS = 10_000


class System:
    """One system under test. ``start`` and ``close`` may be repeated; each start begins with empty directories."""

    name: str
    version: str
    ways: tuple[str, ...] = ("",)
    """Of driving it. The first is how people would; others have names, and columns of their own."""

    def label(self, way: str) -> str:
        """The name of the column."""
        return f"{self.name}, {way}" if way else self.name

    async def start(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """End every process and remove the data. Never raises for what is gone already."""
        raise NotImplementedError

    async def put(
        self, callers: int, seconds: float, warm_up: float, way: str = "", keys: int = KEYS
    ) -> dict[str, Any]:
        """Puts of 256 bytes over so many keys: ``ops_per_second``, ``p50_ms``, ``p99_ms``, ``ops``, ``errors``..."""
        raise NotImplementedError

    async def get(self, callers: int, seconds: float, warm_up: float, way: str = "") -> dict[str, Any]:
        """Linearizable gets of keys that are there."""
        raise NotImplementedError

    async def load(self, keys: int) -> float:
        """Put so many keys of 256 bytes, the quickest way there is; keys a second."""
        raise NotImplementedError

    async def member_memory(self) -> list[dict[str, float]]:
        """Each member's resident memory."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        raise NotImplementedError

    async def term(self) -> int:
        """The highest term; it rises with each election."""
        raise NotImplementedError

    async def kill_leader(self) -> str:
        """kill -9; the name of whom."""
        raise NotImplementedError

    async def restart(self, name: str) -> None:
        """Start that member again, and wait until all is well."""
        raise NotImplementedError

    async def write_through(self, callers: int, seconds: float) -> dict[str, Any]:
        """As ``put``, from clients that find the next leader; ``longest_gap_ms`` is what is wanted."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """What a reader has to know of how it was driven."""
        return []
