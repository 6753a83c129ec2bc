"""A closed client is gone: its connections at once, its objects without waiting for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from fake import Do, FakeCluster

from lattice_core.client import AsyncClient, Client
from lattice_core.errors import Unavailable

CLIENTS = 10
"""One after the other. Far more than any but the last connection's closing may be under way."""


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Relay:
    """In front of a member: knows how many connections its clients have open."""

    def __init__(self) -> None:
        self.address = ""
        self.accepted = 0
        self.open = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()

    async def start(self, member: str) -> None:
        self._host, _, self._port = member.rpartition(":")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def until_closed(self) -> None:
        """No client has a connection open."""
        async with asyncio.timeout(10):
            while self.open:
                self._changed.clear()
                await self._changed.wait()

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        member_reader, member_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, member_writer}
        back = asyncio.create_task(_copy(member_reader, writer))
        try:
            await _copy(reader, member_writer)
        finally:
            self.open -= 1
            self._changed.set()
            member_writer.transport.abort()
            await asyncio.gather(back, return_exceptions=True)
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


def put_and_close(address: str) -> None:
    with Client(address) as client:
        client.put("k", "v")


@pytest.mark.parametrize("kind", ["writes", "reads", "asks for status", "has a thread of its own"])
async def test_a_member_sees_the_connection_of_a_closed_client_go(kind: str) -> None:
    async with FakeCluster() as cluster:
        relay = Relay()
        await relay.start(await cluster.start("n1"))
        for count in range(1, CLIENTS + 1):
            if kind == "has a thread of its own":
                await asyncio.to_thread(put_and_close, relay.address)
            else:
                client = AsyncClient(relay.address)
                if kind == "writes":
                    await client.put("k", "v")
                elif kind == "reads":
                    assert await client.get("none") is None
                else:
                    await client.node_status()
                assert kind == "asks for status" or relay.open
                await client.close()
            await relay.until_closed()
            assert relay.accepted >= count
        await relay.stop()


@pytest.mark.parametrize("end", ["served", "never served", "cut off", "no member"])
async def test_a_closed_client_leaves_no_cycle(end: str) -> None:
    async with FakeCluster() as cluster:
        address = await cluster.start("n1")
        if end == "no member":
            await cluster.stop()
        for _ in range(3):
            client = AsyncClient(address, timeout=0.3 if end == "no member" else 10)
            if end == "cut off":
                await client.put("k", "v")
                cluster.members["n1"].script.extend([Do.DROP, Do.EXECUTE_AND_DROP])
                await client.put("k", "v")
            elif end == "served":
                await client.put("k", "v")
            elif end == "no member":
                with pytest.raises(Unavailable):
                    await client.get("k")
            gone = asyncio.Event()
            weakref.finalize(client._engine, gone.set)
            await client.close()
            del client
            async with asyncio.timeout(5):
                await gone.wait()
