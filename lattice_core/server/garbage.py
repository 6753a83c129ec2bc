"""When a server's garbage is collected.

Theory
  * Nearly everything is freed by its last reference. What is left to the collector are circles, and all that we know of
    are gRPC's own: five objects, some 700 bytes, of every call that comes in (how it looks its handler up).
  * By itself the collector runs when so many more objects have been made than freed. Batches make many that live for a
    moment; the default of 700 would have it run several times for each, so the threshold is high (GC_THRESHOLDS). A
    server with little to do then keeps the circles of ten thousand calls: some 7 MiB, filled in three hours by a health
    check each second.
  * So the young objects are looked at every few seconds as well: whenever there is little to do there are few of them,
    and when there is much to do the threshold has come first. What has survived that is looked at every few minutes.

Limits: a circle of a call that was open for longer than two of those waits for a full collection, which Python makes
under load and once a quarter of all is new, and a quiet server never: 700 bytes for each such call. None is made here:
it would look at the whole state, on the loop. What exists when the server begins to serve is frozen, and never looked
at again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

GC_THRESHOLDS = (50_000, 20, 50)
"""What lives long (the store, the log) is tuples of bytes, in no cycles."""

COLLECT_SECONDS = 10.0
"""A collection of what ten seconds of some dozens of calls a second leave takes less than a millisecond."""


def tune() -> None:
    """Of the whole process."""
    gc.set_threshold(*GC_THRESHOLDS)


def collect_young() -> None:
    """What Python would do if the first threshold had been reached, but never a full collection."""
    _, middle, _ = gc.get_count()
    gc.collect(1 if middle > gc.get_threshold()[1] else 0)


@contextlib.asynccontextmanager
async def collected() -> AsyncIterator[None]:
    """While the block runs. What exists when it begins lives as long as the process, and is not looked at again."""
    gc.collect()
    gc.freeze()
    task = asyncio.create_task(_now_and_then(), name="garbage")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _now_and_then() -> None:
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        collect_young()
