"""A server with little to do collects what calls leave in circles all the same (server/garbage.py)."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from server_harness import cluster, configs, eventually, kv_stub, run

from lattice_core.rpc.pb import kv_pb2
from lattice_core.server import garbage


@pytest.fixture(autouse=True)
def _thresholds_of_a_server() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    garbage.tune()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


ROUNDS = 12


class Circle:
    def __init__(self) -> None:
        self.own = self


def test_a_young_circle_goes_long_before_the_threshold_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "COLLECT_SECONDS", 0.01)

    async def scenario() -> None:
        async with garbage.collected():
            gone = asyncio.Event()
            weakref.finalize(Circle(), gone.set)
            await gone.wait()
            assert gc.get_stats()[2]["collections"] == full + 1  # the one at the beginning

    full = gc.get_stats()[2]["collections"]
    run(scenario())


def test_a_circle_that_was_in_use_at_one_collection_goes_at_a_later_one() -> None:
    circle = Circle()
    gone = weakref.ref(circle)
    garbage.collect_young()  # it is in use, and not young any more
    del circle
    garbage.collect_young()
    assert gone() is not None
    for _ in range(garbage.GC_THRESHOLDS[1] + 1):
        garbage.collect_young()
    assert gone() is None


def test_a_call_that_is_refused_leaves_nothing_on_the_client_port(tmp_path: Path) -> None:
    def aborted() -> int:
        return sum(isinstance(each, grpc.aio.AbortError) for each in gc.get_objects())

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as nodes, kv_stub(nodes.configs["n1"].client_addr) as kv:
            await nodes.leader()
            gc.disable()
            try:
                for _ in range(ROUNDS):
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await kv.Put(kv_pb2.PutRequest(key=b"", value=b"v"), timeout=5)
                    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                await eventually(lambda: aborted() < ROUNDS // 2)
            finally:
                gc.enable()

    run(scenario())
