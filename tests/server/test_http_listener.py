"""The listener for scrapers: whatever a client sends or leaves undone, it costs a bounded time and memory."""

from __future__ import annotations

import asyncio
import http
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from server_harness import eventually, free_ports, run

from lattice_core.server import http_listener as module
from lattice_core.server.http_listener import HttpListener, Response, text


def fine(headers: Mapping[str, str]) -> Response:
    return text(http.HTTPStatus.OK, f"accept={headers.get('accept', '')}")


def broken(_headers: Mapping[str, str]) -> Response:
    raise RuntimeError("no figures")


def huge(_headers: Mapping[str, str]) -> Response:
    return Response(http.HTTPStatus.OK, "text/plain", b"x" * (64 << 20))


@asynccontextmanager
async def listening(deadline_seconds: float = 10.0) -> AsyncIterator[tuple[HttpListener, int]]:
    (port,) = free_ports(1)
    pages = {"/fine": fine, "/broken": broken, "/huge": huge}
    listener = HttpListener(f"127.0.0.1:{port}", pages, deadline_seconds=deadline_seconds)
    await listener.start()
    try:
        yield listener, port
    finally:
        await listener.close()


async def ask(port: int, request: bytes) -> bytes:
    """All that comes back until the listener closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("request_bytes", "status", "body"),
    [
        (b"GET /fine HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\n\r\n", 200, b"accept=a/b\n"),
        (b"GET /fine?name=value HTTP/1.0\r\n\r\n", 200, b"accept=\n"),
        (b"HEAD /fine HTTP/1.1\r\n\r\n", 200, b""),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404, b"there are /fine /broken /huge\n"),
        (b"POST /fine HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405, b"only GET and HEAD\n"),
        (b"GET /fine\r\n\r\n", 400, b"not an HTTP/1.1 request\n"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, b"not an HTTP/1.1 request\n"),
        (b"\xff\x00\x80\r\n\r\n", 400, b"not an HTTP/1.1 request\n"),
        (b"GET /broken HTTP/1.1\r\n\r\n", 500, b"the page could not be made; the node's log says why\n"),
    ],
)
def test_each_request_gets_its_answer_and_the_connection_is_closed(
    request_bytes: bytes, status: int, body: bytes
) -> None:
    async def scenario() -> None:
        async with listening() as (_, port):
            head, _, got = (await ask(port, request_bytes)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"Connection: close" in head
            assert got == body
            if status == 200 and not body:
                assert b"Content-Length: 8" in head, "as GET would say"

    run(scenario())


def test_a_head_that_is_too_long_is_refused() -> None:
    async def scenario() -> None:
        async with listening() as (_, port):
            answer = await ask(port, b"GET /fine HTTP/1.1\r\nX: " + b"x" * 100_000)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), answer[:80]

    run(scenario())


@pytest.mark.parametrize("sent", [b"", b"GET /fine HTTP/1.1\r\nHost:"])
def test_whoever_does_not_finish_its_request_is_cut_at_the_deadline(sent: bytes) -> None:
    async def scenario() -> None:
        async with listening(deadline_seconds=0.05) as (listener, port):
            assert await ask(port, sent) == b""
            await eventually(lambda: not listener._connections)

    run(scenario())


def test_whoever_does_not_read_its_answer_is_cut_at_the_deadline() -> None:
    async def scenario() -> None:
        async with listening(deadline_seconds=0.2) as (listener, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"GET /huge HTTP/1.1\r\n\r\n")
            await eventually(lambda: listener._connections)
            await eventually(lambda: not listener._connections)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(64 << 20)  # what is in the sockets' buffers, and then no more
            writer.transport.abort()

    run(scenario())


def test_more_connections_than_allowed_are_turned_away_and_the_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)

    async def scenario() -> None:
        async with listening() as (listener, port):
            waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            await eventually(lambda: len(listener._connections) == 2)
            assert await ask(port, b"GET /fine HTTP/1.1\r\n\r\n") == b""
            reader, writer = waiting[0]
            writer.write(b"GET /fine HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            for _, each in waiting:
                each.transport.abort()

    run(scenario())


def test_closing_cuts_what_is_open_and_frees_the_port() -> None:
    async def scenario() -> None:
        async with listening() as (listener, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await eventually(lambda: listener._connections)
            await listener.close()
            assert not listener._connections
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.transport.abort()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)

    run(scenario())
