"""A listener for scrapers and probes: short GETs over HTTP/1.1, on the node's own event loop.

Not a web server, and meant for a network one trusts. What it is careful about is time and memory, for it shares
both with consensus: so many connections at once and no more, a request head of some KiB, one request for each
connection, and one deadline for all of it, after which the connection is cut, read or unread. Bodies are not read.
A page is made in one go, so it must be quick to make.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lattice_core.addresses import parse_addr

log = logging.getLogger("lattice.http")

MAX_CONNECTIONS = 32
"""A scraper or two and some probes; more are turned away unheard."""

MAX_HEAD_BYTES = 8 << 10
"""Request line and headers. Prometheus sends about 300 bytes."""

DEADLINE_SECONDS = 10.0
"""From the connection to the last byte; Prometheus' own default for a scrape."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: http.HTTPStatus
    content_type: str
    body: bytes


def text(status: http.HTTPStatus, line: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", line.encode() + b"\n")


Page = Callable[[Mapping[str, str]], Response]
"""Makes the answer from the request's headers, names in lower case. Called on the loop; must not block."""


class HttpListener:
    """Serves ``pages`` by path until closed."""

    def __init__(self, addr: str, pages: Mapping[str, Page], *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._addr = addr
        self._pages = dict(pages)
        self._deadline_seconds = deadline_seconds
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        host, port = parse_addr(self._addr)
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD_BYTES)

    async def close(self) -> None:
        """Stop listening and cut what is open. Safe to repeat."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        connections = [*self._connections]
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    response = text(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too long")
                    head = b""
                else:
                    response = self._answer(head)
                _write(writer, response, with_body=not head.startswith(b"HEAD "))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # slow, or gone: cut below
        finally:
            writer.transport.abort()

    def _answer(self, head: bytes) -> Response:
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return text(http.HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return text(http.HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return text(http.HTTPStatus.NOT_FOUND, "there are " + " ".join(self._pages))
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        try:
            return page(headers)
        except Exception:
            log.exception("the page %s could not be made", target)
            return text(http.HTTPStatus.INTERNAL_SERVER_ERROR, "the page could not be made; the node's log says why")


def _write(writer: asyncio.StreamWriter, response: Response, *, with_body: bool) -> None:
    allow = "Allow: GET, HEAD\r\n" if response.status is http.HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        f"Cache-Control: no-store\r\n{allow}"
        "Connection: close\r\n\r\n"
    )
    writer.write(head.encode("latin-1") + (response.body if with_body else b""))
