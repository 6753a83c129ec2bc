"""Lattice: three ``lattice start`` with their defaults, driven by ``lattice bench``; bulk loads by the library."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.compare.processes import Failed, memory, run_json
from benchmarks.compare.system import KEYS, System
from lattice_cli.demo.processes import LocalCluster
from lattice_core import __version__
from lattice_core.errors import LatticeError

SETTLE_SECONDS = 30.0
CLIENT_LIMIT_SECONDS = 600.0


class Lattice(System):
    name = "Lattice"
    version = __version__

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._cluster: LocalCluster | None = None

    @property
    def cluster(self) -> LocalCluster:
        assert self._cluster is not None
        return self._cluster

    @property
    def endpoints(self) -> str:
        return self.cluster.endpoints

    async def start(self) -> None:
        self._cluster = LocalCluster(3, parent_dir=self._parent)
        try:
            await self._cluster.start()
        except (LatticeError, TimeoutError) as error:
            raise Failed(f"Lattice did not start: {error}") from None
        await self._until_led()

    async def close(self) -> None:
        if self._cluster is not None:
            await self._cluster.close()
            self._cluster = None

    async def put(
        self, callers: int, seconds: float, warm_up: float, way: str = "", keys: int = KEYS
    ) -> dict[str, Any]:
        if keys == KEYS:
            return await self._bench("put", callers, seconds, warm_up)
        over = ("-m", "benchmarks.compare.lattice_load", self.endpoints, str(keys))
        command = [sys.executable, *over, str(callers), str(seconds), str(warm_up)]
        found: dict[str, Any] = await run_json(command, CLIENT_LIMIT_SECONDS)
        return found

    async def get(self, callers: int, seconds: float, warm_up: float, way: str = "") -> dict[str, Any]:
        return await self._bench("get", callers, seconds, warm_up)

    async def load(self, keys: int) -> float:
        command = [sys.executable, "-m", "benchmarks.compare.lattice_load", self.endpoints, str(keys)]
        found = await run_json(command, CLIENT_LIMIT_SECONDS)
        return float(found["keys_per_second"])

    async def member_memory(self) -> list[dict[str, float]]:
        return [memory(pid) for pid in self.pids()]

    def pids(self) -> list[int]:
        return [node.pid for node in self.cluster.nodes.values() if node.pid is not None]

    async def term(self) -> int:
        return int((await self._status())["term"])

    async def kill_leader(self) -> str:
        leader = (await self._status())["leader"]
        if leader is None:
            raise Failed("Lattice has no leader")
        self.cluster.kill(leader)
        return str(leader)

    async def restart(self, name: str) -> None:
        await self.cluster.start(name)
        await self._until_led()

    async def write_through(self, callers: int, seconds: float) -> dict[str, Any]:
        return await self._bench("put", callers, seconds, 0.5)

    def notes(self) -> list[str]:
        return ["Lattice's client: lattice bench, one process, members' and client's defaults"]

    async def lattice(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> Any:
        """One command of the command line, as JSON."""
        command = [sys.executable, "-m", "lattice_cli", "--endpoints", self.endpoints, "-o", "json", *arguments]
        return await run_json(command, CLIENT_LIMIT_SECONDS, ok=ok)

    async def _bench(self, mix: str, callers: int, seconds: float, warm_up: float) -> dict[str, Any]:
        found: dict[str, Any] = await self.lattice(
            *("bench", "--mix", mix, "--callers", str(callers), "--seconds", str(seconds)),
            *("--warm-up", str(warm_up), "--value-size", "256", "--keys", str(KEYS), "--keep"),
        )
        return found

    async def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = await self.lattice("cluster", "status")
        return status

    async def _until_led(self) -> None:
        """Wait until every member answers and one leads."""
        last: object = None
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    try:
                        last = status = await self._status()
                    except Failed as error:
                        last = error
                    else:
                        if status["leader"] is not None and all(member["reachable"] for member in status["members"]):
                            return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            said = last if isinstance(last, Failed) else json.dumps(last)[:300]
            raise Failed(f"Lattice did not settle within {SETTLE_SECONDS:.0f} s: {said}") from None
