"""The acts of ``lattice demo``. Each says what it does, waits for what must come of it, and checks it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from lattice_cli.demo.processes import DemoFailed, LocalCluster
from lattice_cli.demo.workload import Workload
from lattice_core.client import AsyncClient, ClusterStatus, MemberReport
from lattice_core.errors import LatticeError

ELECTION_SECONDS = 10.0
"""Far more than the worst election that is not a failure: two split votes of a second each."""

WRITES_BEFORE = 400
WRITES_AFTER = 400
POLL_SECONDS = 0.05


class Stage(Protocol):
    """Where the story is told."""

    def act(self, text: str) -> None:
        """A new step begins."""

    def result(self, text: str) -> None:
        """What came of it."""

    def cluster(self, status: ClusterStatus) -> None:
        """The table of members."""


class Story:
    """A cluster, a client and a workload, on their way from nothing to a proven failover."""

    def __init__(self, cluster: LocalCluster, stage: Stage) -> None:
        self.cluster = cluster
        self.stage = stage
        self.client = AsyncClient(cluster.endpoints, timeout=10.0, tls=cluster.tls)
        self.workload = Workload(self.client)
        self.told = False
        """All of it, and everything held."""

    async def tell(self) -> None:
        """All acts. Raises DemoFailed with what did not hold."""
        await self._start()
        leader = await self._elect()
        await self._write_through_every_member()
        self.workload.start()
        try:
            await self._kill(leader)
            await self._restart(leader)
        finally:
            await self.workload.stop()
        await self._check()
        self.told = True

    async def close(self) -> None:
        await self.workload.stop()
        await self.client.close()

    # -- acts ---------------------------------------------------------------------------------------

    async def _start(self) -> None:
        count = len(self.cluster.nodes)
        self.stage.act(f"Starting {count} nodes, real processes in {self.cluster.directory}")
        began = time.monotonic()
        try:
            await self.cluster.start()
        except TimeoutError:
            raise DemoFailed("demo: the nodes were not ready in time") from None
        pids = ", ".join(f"{node.name} (pid {node.pid})" for node in self.cluster.nodes.values())
        self.stage.result(f"{pids} ready after {_seconds(began)}")
        if self.cluster.tls is not None:
            self.stage.result(
                "mutual TLS among members and with clients: each shows a certificate, and checks the other's"
            )

    async def _elect(self) -> str:
        self.stage.act("Waiting for them to elect a leader")
        began = time.monotonic()
        status = await self._until(lambda status: status.leader is not None and _all_reachable(status), "elect")
        assert status.leader is not None
        self.stage.result(f"{status.leader.name} leads in term {status.term}, after {_seconds(began)}")
        return status.leader.name

    async def _write_through_every_member(self) -> None:
        self.stage.act("Writing through one member, reading through each")
        revision = await self.client.put("greeting", "hello")
        for node in self.cluster.nodes.values():
            async with AsyncClient(node.client_addr, timeout=5.0, tls=self.cluster.tls) as client:
                found = await client.get("greeting")
            if found is None or found.value != b"hello" or found.mod_revision != revision:
                raise DemoFailed(f"demo: {node.name} answered {found!r} for a key written at revision {revision}")
        swapped = await self.client.cas("greeting", "hello", "hello again")
        if not swapped or await self.client.cas("greeting", "hello", "wrong"):
            raise DemoFailed("demo: compare-and-swap compared wrongly")
        self.stage.result(f"greeting=hello at revision {revision}, the same on every member")
        self.stage.cluster(await self.client.cluster_status())

    async def _kill(self, leader: str) -> None:
        self.stage.act(f"{self.workload.callers} writers at work; then kill -9 {leader}, the leader")
        await self._progress(WRITES_BEFORE)
        before = len(self.workload.acknowledged)
        self.workload.watch_gap()
        self.cluster.kill(leader)
        await self._progress(WRITES_AFTER)
        gap = self.workload.longest_gap_seconds
        status = await self._until(lambda status: status.leader is not None, "elect another leader")
        assert status.leader is not None
        if status.leader.name == leader:
            raise DemoFailed(f"demo: {leader} was killed and is said to lead")
        self.stage.result(
            f"{before:,} writes acknowledged before; {status.leader.name} leads in term {status.term}, "
            f"writes stood still for {gap * 1000:.0f} ms"
        )
        self.stage.cluster(status)

    async def _restart(self, name: str) -> None:
        self.stage.act(f"Restarting {name} with the same command, while writes go on")
        began = time.monotonic()
        await self.cluster.start(name)

        def caught_up(status: ClusterStatus) -> bool:
            return _all_reachable(status) and _lag(status, name) <= 10

        await self._until(caught_up, f"let {name} catch up")
        self.stage.result(f"{name} is back and has caught up after {_seconds(began)}")

    async def _check(self) -> None:
        self.stage.act("Writers stopped. Reading everything back")
        verdict = await self.workload.verdict()

        def equal(status: ClusterStatus) -> bool:
            nodes = [member.status for member in status.members if member.status is not None]
            applied = {(node.applied_index, node.state_hash) for node in nodes}
            return len(nodes) == len(status.members) and len(applied) == 1

        status = await self._until(equal, "reach the same state on every member")
        self.stage.result(
            f"{verdict.acknowledged:,} writes acknowledged: {len(verdict.lost)} lost, {len(verdict.twice)} applied "
            f"twice; the state is the same on all {len(status.members)} members"
        )
        self.stage.cluster(status)
        if not verdict.holds:
            example = (verdict.lost or verdict.twice)[0].decode()
            raise DemoFailed(
                f"demo: {len(verdict.lost)} acknowledged writes lost, {len(verdict.twice)} applied twice, "
                f"for example {example}"
            )

    # -- helpers ------------------------------------------------------------------------------------

    async def _progress(self, writes: int) -> None:
        try:
            await self.workload.until_acknowledged(writes, ELECTION_SECONDS)
        except TimeoutError:
            raise DemoFailed(f"demo: no {writes} writes were acknowledged in {ELECTION_SECONDS:.0f} s") from None

    async def _until(self, condition: Callable[[ClusterStatus], bool], what: str) -> ClusterStatus:
        """Ask for the cluster's status until it is as wanted."""
        return await poll(self.client.cluster_status, condition, f"demo: the cluster did not {what}")


async def poll(
    ask: Callable[[], Awaitable[ClusterStatus]], condition: Callable[[ClusterStatus], bool], failure: str
) -> ClusterStatus:
    """Ask until ``condition`` holds. Raises DemoFailed with ``failure`` after :data:`ELECTION_SECONDS`."""
    deadline = time.monotonic() + ELECTION_SECONDS
    while True:
        try:
            status = await ask()
            if condition(status):
                return status
            reason = ""
        except LatticeError as error:
            reason = f": {error.message}"
        if time.monotonic() > deadline:
            raise DemoFailed(f"{failure} in {ELECTION_SECONDS:.0f} s{reason}")
        await asyncio.sleep(POLL_SECONDS)


def _all_reachable(status: ClusterStatus) -> bool:
    return all(member.reachable for member in status.members)


def _lag(status: ClusterStatus, name: str) -> int:
    """How many entries ``name`` is behind the leader."""

    def applied(member: MemberReport | None) -> int:
        return member.status.applied_index if member is not None and member.status is not None else 0

    member = next((member for member in status.members if member.name == name), None)
    return applied(status.leader) - applied(member) if status.leader is not None else 1 << 62


def _seconds(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
