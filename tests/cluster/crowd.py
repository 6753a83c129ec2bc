"""A crowd of connections, opened as fast as the other side lets it: plain sockets in a process of its own.

Of its own, so that what it costs is known, and is not taken from the writers that are watched meanwhile; plain
sockets, because it is the node that is to be tested, and not 10,000 clients. Every second one speaks HTTP/2 and makes
no call, unless none is to; it answers when it is asked whether it is still there, as a client would. Of the others
comes the first byte of it, and no more.

That byte is not for the node. Where more come than are accepted the kernel answers with cookies, and then this side
alone believes that there is a connection, until something is sent over it.

Run as a script it opens, says so in one line of JSON, and for each line on its standard input does what that says:
``look``: how many did the other side close?; ``close``: all at once. Its standard input's end is the end.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any

IN_FLIGHT = 500
"""Opened at a time without any being answered: a few hundred programs that were all started at once."""

SOURCES = 8
"""Loopback addresses they come from: one has 28,000 ports, and those of the last crowd are not free at once."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"

_HEADER_BYTES, _SETTINGS, _PING, _ACK = 9, 4, 6, 1


class Crowd:
    """The process; they are open when it is made. ``cpu_seconds`` is what it had used up when it was last asked."""

    def __init__(self, addr: str, count: int, *, speaking: bool = True) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, addr, str(count), *(["speaking"] if speaking else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        opened = self._answer()
        self.opened: int = opened["opened"]
        self.cpu_seconds: float = opened["cpu_seconds"]

    def closed(self) -> int:
        """How many the other side has closed."""
        found = self._ask("look")
        self.cpu_seconds = found["cpu_seconds"]
        return int(found["closed"])

    def close(self) -> None:
        """All of them, at once. Safe to repeat."""
        if self._process.poll() is None:
            self._ask("close")
            self._process.communicate()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._process.communicate(timeout=20)  # closes its standard input
        self._process.kill()
        self._process.wait()

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def allow_descriptors(wanted: int) -> bool:
    """Have this process and those it starts open so many; False if the system does not let it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return True
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (OSError, ValueError):
        return False
    return True


def _answer(received: bytes) -> bytes:
    """To SETTINGS and PING; frames this small come whole."""
    answer = b""
    while len(received) >= _HEADER_BYTES:
        end = _HEADER_BYTES + int.from_bytes(received[:3], "big")
        kind, flags = received[3], received[4]
        if kind == _SETTINGS and not flags & _ACK:
            answer += SETTINGS_ACK
        elif kind == _PING and not flags & _ACK:
            answer += received[:4] + bytes([_ACK]) + received[5:end]
        received = received[end:]
    return answer


def _speaks(number: int) -> bool:
    """Every second one; of the others' first byte nothing more may come."""
    return number % 2 == 1


def _open(host: str, port: int, count: int, *, speaking: bool) -> list[socket.socket]:
    waiting = select.epoll()
    crowd: dict[int, socket.socket] = {}
    pending = 0
    while pending or len(crowd) < count:
        while len(crowd) < count and pending < IN_FLIGHT:
            each = socket.socket()
            each.setblocking(False)
            if host.startswith("127."):
                each.bind((f"127.0.0.{len(crowd) % SOURCES + 1}", 0))
            with contextlib.suppress(BlockingIOError):
                each.connect((host, port))
            waiting.register(each.fileno(), select.EPOLLOUT)
            crowd[each.fileno()] = each
            pending += 1
        for number, _ in waiting.poll(1):
            waiting.unregister(number)
            pending -= 1
            with contextlib.suppress(OSError):  # refused, or hung up already
                crowd[number].send(PREFACE + SETTINGS if speaking and _speaks(number) else PREFACE[:1])
    return list(crowd.values())


class _Open:
    """The connections, once they are open: whatever comes is answered until the next line on standard input."""

    def __init__(self, crowd: list[socket.socket], *, speaking: bool) -> None:
        self._speaking = speaking
        self._crowd = {each.fileno(): each for each in crowd}
        self._waiting = select.epoll()
        for number in self._crowd:
            self._waiting.register(number, select.EPOLLIN)
        self._waiting.register(0, select.EPOLLIN)
        self._closed = 0

    def next_line(self) -> str:
        """Empty: there will be none."""
        while True:
            for number, _ in self._waiting.poll():
                if number == 0:
                    return sys.stdin.readline()
                self._take(number)

    def look(self) -> int:
        """How many are closed."""
        for number in [*self._crowd]:
            self._take(number)
        return self._closed

    def close(self) -> None:
        self._waiting.close()
        for each in self._crowd.values():
            each.close()

    def _take(self, number: int) -> None:
        each = self._crowd[number]
        try:
            if received := each.recv(65536):
                if self._speaking and _speaks(number):
                    each.send(_answer(received))
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._waiting.unregister(number)
        self._closed += 1
        self._crowd.pop(number).close()


def main(addr: str, count: int, *, speaking: bool) -> None:
    host, _, port = addr.rpartition(":")
    crowd = _open(host, int(port), count, speaking=speaking)
    say: dict[str, float] = {"opened": len(crowd), "cpu_seconds": time.process_time()}
    print(json.dumps(say), flush=True)
    connections = _Open(crowd, speaking=speaking)
    while line := connections.next_line().strip():
        if line == "look":
            say = {"closed": connections.look(), "cpu_seconds": time.process_time()}
        else:
            connections.close()
            say = {}
        print(json.dumps(say), flush=True)
        if line == "close":
            break


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), speaking="speaking" in sys.argv)
