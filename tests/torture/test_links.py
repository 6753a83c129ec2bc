"""The proxy itself: what a flow suffers, bytes suffer, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from lattice_cli.chaos.links import MAX_HELD_BYTES, Links, Weather

A_TO_B, B_TO_A = ("a", "b"), ("b", "a")
BLINK_SECONDS = 0.15
SIDES: list[Side] = []


def on_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


class Side:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        SIDES.append(self)

    async def arrives(self, data: bytes) -> None:
        async with asyncio.timeout(5):
            assert await self.reader.readexactly(len(data)) == data

    async def silent(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BLINK_SECONDS):
                await self.reader.read(1)
                return False
        return True

    async def ended(self) -> bool:
        """The other side has said its last; False: the connection is reset."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return False


@contextlib.asynccontextmanager
async def two() -> AsyncIterator[tuple[Links, asyncio.Queue[Side]]]:
    """Members a and b, each a bare listener; whoever connects to b is in the queue."""
    came: asyncio.Queue[Side] = asyncio.Queue()
    listener = await asyncio.start_server(lambda r, w: came.put_nowait(Side(r, w)), "127.0.0.1", 0)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    links = Links("ab")
    await links.open({"a": address, "b": address})
    try:
        yield links, came
    finally:
        await links.close()
        listener.close()
        await hang_up()
        assert not links._tasks


async def hang_up() -> None:
    while SIDES:
        SIDES.pop().writer.transport.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def connect(links: Links, came: asyncio.Queue[Side], pair: tuple[str, str] = A_TO_B) -> tuple[Side, Side]:
    """A connection that the first has dialled; its two ends."""
    dialled = await dial(links, *pair)
    met = await came.get()
    async with asyncio.timeout(5):
        while not links._open[pair]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return dialled, met


async def dial(links: Links, source: str, target: str) -> Side:
    host, _, port = links.routes(source)[target].rpartition(":")
    return Side(*await asyncio.open_connection(host, int(port)))


@on_a_loop
async def test_bytes_go_both_ways_and_the_end_of_a_stream_is_passed_on_by_itself() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        a.writer.write(b"question")
        await b.arrives(b"question")
        b.writer.write(b"answer")
        await a.arrives(b"answer")
        a.writer.write_eof()
        assert await b.ended()
        b.writer.write(b"more")
        await a.arrives(b"more")
        assert links.flows[A_TO_B].bytes == 8
        assert links.flows[B_TO_A].bytes == 10


@on_a_loop
async def test_a_stalled_flow_holds_its_bytes_back_and_lets_the_other_direction_through() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        with links.bent([A_TO_B], Weather(stalled=True)):
            a.writer.write(b"lost?")
            b.writer.write(b"heard")
            await a.arrives(b"heard")
            assert await b.silent()
        await b.arrives(b"lost?")


@on_a_loop
async def test_a_flow_is_bent_on_connections_that_either_side_dialled() -> None:
    async with two() as (links, came):
        b, a = await connect(links, came, B_TO_A)
        with links.bent([A_TO_B], Weather(stalled=True)):
            a.writer.write(b"x")
            b.writer.write(b"y")
            await a.arrives(b"y")
            assert await b.silent()


@on_a_loop
async def test_a_stalled_flow_holds_a_bounded_number_of_bytes() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        data = bytes(64 * MAX_HELD_BYTES)
        with links.bent([A_TO_B], Weather(stalled=True)):
            a.writer.write(data)
            assert await b.silent()
            (connection,) = links._open[A_TO_B]
            assert connection.forward._held_bytes <= MAX_HELD_BYTES + (64 << 10)
        async with asyncio.timeout(30):
            await b.reader.readexactly(len(data))


@on_a_loop
async def test_delayed_bytes_arrive_late_in_order_and_whole() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        with links.bent([A_TO_B], Weather(delay_seconds=0.3, jitter_seconds=0.05)):
            for number in range(20):
                a.writer.write(b"%02d" % number)
                await asyncio.sleep(0.001)
            assert await b.silent()
            await b.arrives(b"".join(b"%02d" % number for number in range(20)))


@on_a_loop
async def test_of_two_faults_on_one_flow_the_other_stays_when_one_ends() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        with links.bent([A_TO_B], Weather(stalled=True)):
            with links.bent([A_TO_B, B_TO_A], Weather(stalled=True)):
                a.writer.write(b"x")
                b.writer.write(b"y")
                assert await a.silent()
            await a.arrives(b"y")
            assert await b.silent()
        await b.arrives(b"x")


@on_a_loop
async def test_a_half_closed_connection_ends_for_the_receiver_only() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        assert links.half_close("a", "b") == 1
        assert await b.ended()
        a.writer.write(b"to nobody")
        await a.writer.drain()
        b.writer.write(b"still")
        await a.arrives(b"still")


@on_a_loop
async def test_a_reset_ends_connections_both_ways_even_while_their_flow_is_stalled() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        with links.bent([A_TO_B, B_TO_A], Weather(stalled=True)):
            a.writer.write(b"held")
            await asyncio.sleep(0.05)
            assert links.reset([B_TO_A]) == 1
            assert not await a.ended()
            assert not await b.ended()
        async with asyncio.timeout(5):
            while links._open[A_TO_B]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@on_a_loop
async def test_a_flow_that_refuses_resets_new_connections_and_leaves_those_that_are_there() -> None:
    async with two() as (links, came):
        a, b = await connect(links, came)
        with links.bent([A_TO_B], Weather(refused=True)):
            late = await dial(links, "a", "b")
            assert not await late.ended()
        a.writer.write(b"here")
        await b.arrives(b"here")


@on_a_loop
async def test_a_member_that_does_not_listen_resets_whoever_dials_it() -> None:
    links = Links("ab")
    await links.open({"a": "127.0.0.1:1", "b": "127.0.0.1:1"})
    try:
        a = await dial(links, "a", "b")
        assert not await a.ended()
    finally:
        await links.close()
        await hang_up()
