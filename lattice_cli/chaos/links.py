"""The network between the members of a local cluster, in user space: a proxy on each directed link.

Member A dials member B at an address of ours (``peer_routes``), and nothing else is told of it: B's own address, the
configuration and the hellos stay as they are. A connection that A dialled carries bytes both ways, and so does the
one that B dialled; what is bent or cut here is therefore not a connection but a *flow*, everything on its way from A
to B, on whichever of the two it travels.

A stalled flow holds bytes back as a network does that loses every packet: nothing is lost in the end, TCP sees to
that, but nothing arrives, and after a megabyte the sender's own socket is full. Bytes are never dropped from within a
stream, for no network does that to TCP either; a connection that is to lose something is reset.

One event loop, no threads. Everything is bounded: what a connection holds, and how many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import operator
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

READ_BYTES = 64 << 10
MAX_HELD_BYTES = 1 << 20
"""Of one direction of a connection: what a long fat network holds, and a bound for a stall."""

MAX_CONNECTIONS = 64
"""On one link. Members keep one or two; whoever dials more often than they are closed is refused."""

DIAL_SECONDS = 2.0

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@dataclass(frozen=True, slots=True)
class Weather:
    """What a flow suffers. The default is a good day."""

    stalled: bool = False
    refused: bool = False
    """New connections are reset; those that are there stay."""
    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0

    def __or__(self, other: Weather) -> Weather:
        """Both at once."""
        return Weather(
            self.stalled or other.stalled,
            self.refused or other.refused,
            max(self.delay_seconds, other.delay_seconds),
            max(self.jitter_seconds, other.jitter_seconds),
        )


class Flow:
    """Everything on its way from one member to another."""

    def __init__(self) -> None:
        self.weather = Weather()
        self.bytes = 0
        """What has arrived, all in all."""
        self._reasons: list[Weather] = []
        self._changed = asyncio.Event()

    def add(self, weather: Weather) -> None:
        """This comes on top of what there is."""
        self._reasons.append(weather)
        self._update()

    def remove(self, weather: Weather) -> None:
        """One of those that were added is over."""
        self._reasons.remove(weather)
        self._update()

    def _update(self) -> None:
        self.weather = functools.reduce(operator.or_, self._reasons, Weather())
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def hold(self, since: float) -> None:
        """Return when a byte that came at loop time ``since`` may arrive, as things are then."""
        loop = asyncio.get_running_loop()
        jitter = random.random()
        while True:
            weather, changed = self.weather, self._changed
            if weather.stalled:
                await changed.wait()
                continue
            left = since + weather.delay_seconds + jitter * weather.jitter_seconds - loop.time()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)


class Pump:
    """One direction of one connection: reads, holds, writes, and passes the end on."""

    def __init__(self, flow: Flow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.flow = flow
        self._reader = reader
        self._writer = writer
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.half_closed = False

    async def run(self) -> None:
        """Until the source has ended and everything has arrived. Raises OSError for a broken connection."""
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def half_close(self) -> None:
        """The receiver sees the end of the stream; the sender sees nothing, and speaks to nobody from now on."""
        if not self.half_closed and not self._writer.is_closing():
            self.half_closed = True
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.write_eof()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.wait()
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError:
                data = b""  # a reset is told as an end, and like everything else only when the flow lets it through
            self._held.append((loop.time(), data))
            self._held_bytes += len(data)
            if self._held_bytes >= MAX_HELD_BYTES:
                self._room.clear()
            self._more.set()
            if not data:
                return

    async def _write(self) -> None:
        while True:
            while not self._held:
                self._more.clear()
                await self._more.wait()
            since, data = self._held[0]
            await self.flow.hold(since)
            self._held.popleft()
            self._held_bytes -= len(data)
            if self._held_bytes < MAX_HELD_BYTES:
                self._room.set()
            if not data:
                self.half_close()
                return
            if not self.half_closed:
                self._writer.write(data)
                await self._writer.drain()
                self.flow.bytes += len(data)


class Connection:
    """A connection that came in, and the one we made for it."""

    def __init__(self, forward: Pump, backward: Pump, writers: Iterable[asyncio.StreamWriter]) -> None:
        self.forward = forward
        self.backward = backward
        self._writers = tuple(writers)
        self._gone = asyncio.Event()

    async def run(self) -> None:
        """Until both directions have ended, one has broken, or :meth:`reset`; it never raises what they raise."""
        both = asyncio.gather(self.forward.run(), self.backward.run())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((both, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.reset()
            both.cancel()
            gone.cancel()
            await asyncio.gather(both, gone, return_exceptions=True)

    def reset(self) -> None:
        """Both ends see a reset, now, whatever is held back."""
        self._gone.set()
        for writer in self._writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Links:
    """All flows between the members of one cluster, and the listeners that their connections come through."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self.flows = {pair: Flow() for pair in itertools.permutations(self._names, 2)}
        self.connections = 0
        """Made so far, for whoever wants to know that anything went through here."""
        self._open: dict[tuple[str, str], set[Connection]] = {pair: set() for pair in self.flows}
        self._servers: dict[tuple[str, str], asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, addresses: Mapping[str, str]) -> None:
        """Listen on a free port for each link. ``addresses``: the members' real peer addresses."""
        for source, target in self.flows:
            host, _, port = addresses[target].rpartition(":")
            self._servers[source, target] = await asyncio.start_server(
                self._acceptor(source, target, host, int(port)), "127.0.0.1", 0
            )

    def routes(self, source: str) -> dict[str, str]:
        """Where ``source`` is to dial each of the others."""
        return {
            target: f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for (origin, target), server in self._servers.items()
            if origin == source
        }

    async def close(self) -> None:
        """Nothing listens and no connection is left. Safe to repeat."""
        for server in self._servers.values():
            server.close()
        for connections in self._open.values():
            for connection in list(connections):
                connection.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers.clear()

    # -- weather ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def bent(self, pairs: Iterable[tuple[str, str]], weather: Weather) -> Iterator[None]:
        """While the block runs these flows have this weather, on top of what others make of them."""
        flows = [self.flows[pair] for pair in pairs]
        for flow in flows:
            flow.add(weather)
        try:
            yield
        finally:
            for flow in flows:
                flow.remove(weather)

    def reset(self, pairs: Iterable[tuple[str, str]]) -> int:
        """Reset every connection in which one of these flows travels; how many there were."""
        count = 0
        for source, target in {tuple(sorted(pair)) for pair in pairs}:
            for connection in [*self._open[source, target], *self._open[target, source]]:
                connection.reset()
                count += 1
        return count

    def half_close(self, source: str, target: str) -> int:
        """``target`` is told on every connection that ``source`` has no more to say; how many there were."""
        pumps = [each.forward for each in self._open[source, target]]
        pumps += [each.backward for each in self._open[target, source]]
        for pump in pumps:
            pump.half_close()
        return len(pumps)

    # -- connections ------------------------------------------------------------------------------

    def _acceptor(self, source: str, target: str, host: str, port: int) -> Accept:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(source, target, host, port, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return accept

    async def _serve(
        self,
        source: str,
        target: str,
        host: str,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        flow = self.flows[source, target]
        mine = self._open[source, target]
        if flow.weather.refused or len(mine) >= MAX_CONNECTIONS:
            _reset(writer)
            return
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                onward_reader, onward_writer = await asyncio.open_connection(host, port)
        except OSError:  # TimeoutError is one
            _reset(writer)
            return
        except BaseException:
            _reset(writer)
            raise
        self.connections += 1
        connection = Connection(
            Pump(flow, reader, onward_writer),
            Pump(self.flows[target, source], onward_reader, writer),
            (writer, onward_writer),
        )
        mine.add(connection)
        try:
            await connection.run()
        finally:
            mine.discard(connection)
