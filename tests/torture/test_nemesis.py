"""Whatever comes of a fault, the node it was in runs again before anybody is blamed for its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lattice_cli.chaos.nemesis import Nemesis, Passed
from lattice_cli.chaos.plan import Fault, Plan


class FakeCluster:
    """One node; who may end, and who was started."""

    names = ("n1",)
    links = None

    def __init__(self) -> None:
        self.nodes = {"n1": SimpleNamespace(running=True, arguments=[])}
        self.expected = 0
        self.started: list[int] = []

    @contextlib.contextmanager
    def expecting(self, name: str) -> Iterator[None]:
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    def was_removed(self, name: str) -> bool:
        return False

    async def try_start(self, name: str) -> None:
        self.started.append(self.expected)
        self.nodes[name].running = True


def test_a_node_that_ends_while_its_fault_is_given_up_is_started_again_and_not_blamed() -> None:
    """Seed 8009: no fsync had failed in time, the fault was passed over, and one failed while strace let go."""

    async def scenario() -> None:
        cluster = FakeCluster()
        watch = SimpleNamespace(leader=lambda: None)
        violations: list[str] = []
        nemesis = Nemesis(
            Plan(1, 3, 1.0, (), ()), cast(Any, cluster), cast(Any, watch), cast(Any, None), print, violations.append
        )
        fault = Fault(0, "fsync-error", 1, 1, 0, 0, 0)

        async def given_up() -> None:
            async with nemesis._one(fault) as name:
                cluster.nodes[name].running = False
                raise Passed("nothing was synced meanwhile")

        with pytest.raises(Passed):
            await given_up()
        assert cluster.started == [1], "started, and while its end was expected"
        assert cluster.nodes["n1"].running
        assert not violations

    asyncio.run(scenario())
