"""PySyncObj: three processes with its journal on, driven through its own interface.

The journal is a file mapped into memory, never flushed by the library (``flush`` exists and has no caller): what it
has written survives the end of the process and not that of the machine. The others fsync before they acknowledge.
It has no linearizable reads to compare: a read is one of the local dictionary.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.compare.processes import Failed, environment, memory, remove, scratch
from benchmarks.compare.system import KEYS, System
from lattice_cli.demo.processes import free_ports

MISSING = "PySyncObj is not here: pip install pysyncobj==0.3.17"
START_SECONDS = 30.0
ANSWER_SECONDS = 600.0


class PySyncObj(System):
    name = "PySyncObj"

    def __init__(self, parent: Path) -> None:
        if importlib.util.find_spec("pysyncobj") is None:
            raise Failed(MISSING)
        self.version = importlib.metadata.version("pysyncobj")
        self._parent = parent
        self._directory: Path | None = None
        self._members: dict[str, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        self._directory = scratch(self._parent, "pysyncobj")
        addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        for own in addresses:
            others = ",".join(address for address in addresses if address != own)
            self._members[own] = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "benchmarks.compare.pysyncobj_node", str(self._directory / own.rpartition(":")[2])),
                *(own, others),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                while await self._leader() is None:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Failed(f"PySyncObj had no leader within {START_SECONDS:.0f} s") from None

    async def close(self) -> None:
        for member in self._members.values():
            if member.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    member.kill()
            await member.wait()
        self._members = {}
        if self._directory is not None:
            remove(self._directory)

    async def put(
        self, callers: int, seconds: float, warm_up: float, way: str = "", keys: int = KEYS
    ) -> dict[str, Any]:
        leader = await self._required_leader()
        return await self._ask(leader, {"do": "put", "callers": callers, "seconds": seconds, "warm_up": warm_up})

    async def load(self, keys: int) -> float:
        answer = await self._ask(await self._required_leader(), {"do": "load", "keys": keys})
        return float(answer["keys_per_second"])

    async def member_memory(self) -> list[dict[str, float]]:
        return [memory(pid) for pid in self.pids()]

    def pids(self) -> list[int]:
        return [member.pid for member in self._members.values()]

    def notes(self) -> list[str]:
        return [
            "PySyncObj's journal is not fsynced (a mapped file that nobody flushes): it acknowledges what a loss of "
            "power loses; callers live in the leader's process"
        ]

    async def _leader(self) -> str | None:
        """Whom all members follow, once all are ready."""
        answers = [await self._ask(own, {"do": "status"}) for own in self._members]
        leaders = {answer["leader"] for answer in answers}
        return leaders.pop() if len(leaders) == 1 and all(answer["ready"] for answer in answers) else None

    async def _required_leader(self) -> str:
        leader = await self._leader()
        if leader is None:
            raise Failed("PySyncObj has no leader")
        return leader

    async def _ask(self, own: str, order: dict[str, Any]) -> dict[str, Any]:
        member = self._members[own]
        assert member.stdin is not None
        assert member.stdout is not None
        member.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await member.stdout.readline()
        if not line:
            raise Failed("a member of PySyncObj has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
