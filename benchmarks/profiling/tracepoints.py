"""Marks on the way of one request, within a running node or client: who was where, at which nanosecond.

    python -m benchmarks.profiling.tracepoints FILE start ...     a node, as ``lattice start ...``, that writes FILE
                                                                  when it ends

A mark is (monotonic nanoseconds, label, detail). All processes of one machine share that clock, so the marks of a
client, a leader and a follower can be laid side by side (timeline.py). Marks are set by wrapping the methods named
in ``install_*``, in the traced process only; each costs about half a microsecond. A name that the code has no more
is reported on stderr, and the timeline is shorter by that step: keep this file in step with the server.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Mark = tuple[int, str, str]

MAX_MARKS = 2_000_000
"""Some 100 MB in memory: a bound for a trace that somebody forgets to end."""


class Tracer:
    """The marks of this process, in the order they were made."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def mark(self, label: str, detail: str = "") -> None:
        if len(self.marks) < MAX_MARKS:
            self.marks.append((time.monotonic_ns(), label, detail))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.marks))

    @contextlib.contextmanager
    def installed_in_client(self) -> Iterator[None]:
        """Wrap what a request passes in a client that is made within the block."""
        from lattice_core.client.engine import Engine

        before = {name: getattr(Engine, name) for name in ("write", "_on_response", "_write_loop")}
        self.around(Engine, "write", "client.write")
        self.around(Engine, "_on_response", "client.response")
        tracer = self

        async def write_loop(engine: Any, call: Any) -> None:
            class Traced:
                write = staticmethod(tracer.writer(call.write, "client.send"))

            await before["_write_loop"](engine, Traced)

        Engine._write_loop = write_loop  # type: ignore[method-assign]
        try:
            yield
        finally:
            for name, original in before.items():
                setattr(Engine, name, original)

    # -- wrapping ---------------------------------------------------------------------------------

    def around(
        self, owner: Any, name: str, label: str, *, end: bool = False, detail: Callable[..., str] | None = None
    ) -> None:
        """Mark ``label`` when ``owner.name`` is called, and ``label.end`` when it returns if ``end``."""
        original = getattr(owner, name, None)
        if original is None:
            print(f"trace: {getattr(owner, '__name__', owner)} has no {name}: no mark {label!r}", file=sys.stderr)
            return
        mark = self.mark

        @functools.wraps(original)
        def traced(*args: Any, **kwargs: Any) -> Any:
            mark(label, detail(*args) if detail is not None else "")
            if not end:
                return original(*args, **kwargs)
            try:
                return original(*args, **kwargs)
            finally:
                mark(label + ".end")

        setattr(owner, name, traced)

    def writer(self, write: Callable[[Any], Any], label: str) -> Callable[[Any], Any]:
        """A gRPC stream's ``write`` that marks its beginning and end."""

        async def traced(message: Any) -> None:
            self.mark(label)
            await write(message)
            self.mark(label + ".end")

        return traced


def install_server(tracer: Tracer) -> None:
    """Wrap what a request passes on leader and follower."""
    from lattice_core.rpc import link, transport
    from lattice_core.server import kv_service, ready_loop, storage_thread
    from lattice_core.server.apply import Applier
    from lattice_core.storage.wal import Wal

    stream: Any = kv_service._SessionStream
    tracer.around(stream, "_take", "request")
    tracer.around(stream, "_answer", "answer")
    original_answers = stream.write_answers

    async def write_answers(self: Any, write: Callable[[Any], Any]) -> None:
        await original_answers(self, tracer.writer(write, "answer.write"))

    stream.write_answers = write_answers

    loop = ready_loop.ReadyLoop
    tracer.around(loop, "_run_pass", "pass", end=True)
    tracer.around(loop, "receive", "receive", detail=lambda _self, _peer, messages: _types(messages))
    tracer.around(loop, "durable", "durable", end=True)
    tracer.around(Applier, "run_slice", "apply", end=True)
    thread = storage_thread.StorageThread
    tracer.around(thread, "submit", "storage.submit")
    tracer.around(thread, "_carry_out", "storage.begin", end=True)
    tracer.around(thread, "_write_inline", "storage.begin")
    tracer.around(Wal, "write", "wal.write", end=True)
    tracer.around(Wal, "sync", "wal.sync", end=True)
    tracer.around(transport.PeerTransport, "send", "send", detail=lambda _self, messages: _types(messages))

    original_write = link.write_envelopes

    async def write_envelopes(outbox: Any, write: Callable[[bytes], Any], *rest: Any) -> None:
        take = outbox.take

        def traced_take() -> Any:
            tracer.mark("peer.take")
            return take()

        outbox.take = traced_take
        await original_write(outbox, tracer.writer(write, "peer.write"), *rest)

    link.write_envelopes = write_envelopes
    transport.write_envelopes = write_envelopes  # type: ignore[attr-defined]


def read(path: Path) -> list[Mark]:
    """The marks that a process has written."""
    return [(at, label, detail) for at, label, detail in json.loads(path.read_text())]


def _types(messages: Any) -> str:
    return ",".join(type(message).__name__ for message in messages)


def main() -> None:
    path = Path(sys.argv[1])
    tracer = Tracer()
    install_server(tracer)
    atexit.register(lambda: tracer.write(path))
    sys.argv[1:] = sys.argv[2:]
    from lattice_cli.entry import main as lattice

    lattice()


if __name__ == "__main__":
    main()
