"""What waits to be sent to one peer: bounded, and never in the way of a heartbeat.

Two lanes. *Urgent* messages (heartbeats, votes, answers, reads) are small, are always accepted, and leave
first; should a dead peer let more than ``MAX_URGENT`` pile up, the oldest go, which by then mean nothing.
*Bulk* messages (AppendEntries) are bounded in bytes. Past the bound all of them are dropped at once, for an
append that follows a lost one is refused anyway: the core is told, and probes before it sends more
(SAFETY 15, 49). No lane ever blocks a caller.

Overtaking is allowed: nothing in the core relies on order (lattice_core/raft/messages.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from lattice_core.raft.messages import AppendEntries, Message
from lattice_core.rpc.codec import MESSAGE_OVERHEAD_BYTES, size_estimate

MAX_URGENT = 1024
"""Messages; about ten seconds of everything a leader says to a peer that has stopped reading."""

MAX_BULK_BYTES = 32 << 20
"""Four times the core's in-flight window for a peer, so only a broken connection ever reaches it."""

MAX_ENVELOPE_BYTES = 2 << 20
"""Stop gathering here. A message of 64 KiB costs little more than an empty one; beyond 2 MiB nothing is
gained and what comes later waits longer."""


class Outbox:
    """One consumer takes; anybody on the same loop puts. ``on_overflow`` is called when appends were dropped."""

    def __init__(self, on_overflow: Callable[[], None], max_bulk_bytes: int = MAX_BULK_BYTES) -> None:
        self._on_overflow = on_overflow
        self._max_bulk_bytes = max_bulk_bytes
        self._urgent: deque[Message] = deque(maxlen=MAX_URGENT)
        self._bulk: deque[tuple[int, AppendEntries]] = deque()
        # Invariant: the sum of the sizes in _bulk.
        self._bulk_bytes = 0
        self._waiting = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._bulk)

    @property
    def bulk_bytes(self) -> int:
        return self._bulk_bytes

    def put(self, message: Message) -> None:
        if type(message) is AppendEntries:
            size = size_estimate(message)
            # One message is always accepted, however large: it could never be sent otherwise.
            if self._bulk and self._bulk_bytes + size > self._max_bulk_bytes:
                self._drop_bulk()
                self._on_overflow()
                return
            self._bulk.append((size, message))
            self._bulk_bytes += size
        else:
            self._urgent.append(message)
        if not self._waiting.is_set():
            self._waiting.set()

    def wake(self) -> None:
        """End the consumer's wait although there is nothing to take."""
        self._waiting.set()

    async def wait(self) -> None:
        """Return when there is something to take."""
        await self._waiting.wait()

    def take(self) -> list[Message]:
        """What goes into the next envelope: everything urgent, then appends until the envelope is full."""
        messages: list[Message] = list(self._urgent)
        self._urgent.clear()
        size = MESSAGE_OVERHEAD_BYTES * len(messages)
        bulk = self._bulk
        while bulk:
            next_size = bulk[0][0]
            if messages and size + next_size > MAX_ENVELOPE_BYTES:
                break
            size += next_size
            self._bulk_bytes -= next_size
            messages.append(bulk.popleft()[1])
        if not bulk:
            self._waiting.clear()
        return messages

    def clear(self) -> None:
        """Forget everything, after a connection failed: by the time there is another, it is stale."""
        self._urgent.clear()
        self._drop_bulk()
        self._waiting.clear()

    def _drop_bulk(self) -> None:
        self._bulk.clear()
        self._bulk_bytes = 0
