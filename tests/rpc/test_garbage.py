"""Streams that end leave nothing for the garbage collector, which runs rarely in a server: what gRPC holds for a call
or a channel goes when the last name for it does."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from rpc_loopback import Peer, eventually, run

from lattice_core.raft.messages import Heartbeat
from lattice_core.rpc import link
from lattice_core.rpc.aio import CONNECTION_ERRORS, until_first_ends
from lattice_core.rpc.codec import MalformedMessage

HEARTBEAT = Heartbeat(1, 2, 3, 0, 7)

KINDS: tuple[type[object], ...] = (grpc.aio.StreamStreamCall, grpc.aio.Channel, asyncio.Task)

ROUNDS = 12
"""Far more than the calls and channels that are in use at a time."""


@contextmanager
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive(kind: type[object]) -> int:
    return sum(isinstance(each, kind) for each in gc.get_objects())


@pytest.fixture(autouse=True)
def links_try_again_soon_and_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("lattice.rpc"), "disabled", True)  # pytest keeps errors that are logged
    monkeypatch.setattr(link, "FIRST_RETRY_SECONDS", 0.005)
    monkeypatch.setattr(link, "MAX_RETRY_SECONDS", 0.01)


class Connection:
    """What the coroutines of one connection share."""


@pytest.mark.parametrize("how", ["fails", "returns", "cancelled"])
def test_what_ran_together_is_gone_when_the_first_of_it_has_ended(how: str) -> None:
    async def first(connection: Connection) -> None:
        if how == "fails":
            raise ConnectionError(connection)
        if how == "cancelled":
            await asyncio.Event().wait()

    async def other(_connection: Connection) -> None:
        await asyncio.Event().wait()

    async def together(connection: Connection) -> None:
        try:
            await until_first_ends(other(connection), first(connection), other(connection))
        except CONNECTION_ERRORS:
            pass

    async def scenario() -> None:
        with no_collection():
            connection = Connection()
            gone = weakref.ref(connection)
            task = asyncio.create_task(together(connection))
            del connection
            if how == "cancelled":
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task
            await asyncio.sleep(0)
            assert gone() is None

    run(scenario())


def test_a_stream_that_was_lost_leaves_no_call_and_no_channel_on_either_side() -> None:
    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await one.start()
        await two.start()
        one.meet(two)
        two.meet(one)
        ours = one.transport._links[2]
        await eventually(lambda: ours.connected and two.transport._links[1].connected)
        with no_collection():
            before = {kind: alive(kind) for kind in KINDS}
            for _ in range(ROUNDS):
                two.refuse = MalformedMessage("not today")
                one.transport.send([HEARTBEAT])
                await eventually(lambda: not ours.connected)
                two.refuse = None
                ours.dial()
                await eventually(lambda: ours.connected and 1 in two.transport._inbound)
            for kind in KINDS:
                await eventually(lambda kind=kind: alive(kind) < before[kind] + ROUNDS // 2)  # type: ignore[misc]

    run(scenario())


def test_a_dial_that_failed_leaves_no_call_and_no_channel() -> None:
    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await one.start()
        await two.start()
        one.meet(two)
        ours = one.transport._links[2]
        await eventually(lambda: ours.connected)
        await two.stop()
        await eventually(lambda: not ours.connected)
        with no_collection():
            for _ in range(ROUNDS):
                failed = len(one.unreachable)
                one.transport.send([HEARTBEAT])
                await eventually(lambda failed=failed: len(one.unreachable) > failed)  # type: ignore[misc]
            await eventually(lambda: alive(grpc.aio.StreamStreamCall) == 0)
            await eventually(lambda: alive(grpc.aio.Channel) == 0)

    run(scenario())
