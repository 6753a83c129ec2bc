"""What grpc.aio leaves to its users: how a stream's calls fail, and coroutines that end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import grpc

_aio: Any = grpc.aio  # the stubs lack EOF
EOF: Final[Any] = _aio.EOF
"""What ``read()`` of a stream returns at its end. Compare with ``is``."""

CONNECTION_ERRORS = (
    grpc.RpcError,
    grpc.aio.BaseError,
    asyncio.InvalidStateError,  # "RPC already finished": grpc.aio's answer to a write after the end
    TimeoutError,
    OSError,
)
"""Everything a call on a channel or a handler's context raises because the other side is not there."""


async def until_first_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all; when the first returns or raises, cancel and await the rest, then raise what it raised.

    Cancelling this cancels and awaits all of them. Errors of the others that come up while they are being
    cancelled are consequences of the first, and dropped.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    try:
        # In the order given, so that which error is reported does not depend on a set's order.
        for task in tasks:
            if task in done and not task.cancelled():
                task.result()
    finally:
        # The error's traceback leads to this frame, and from here a task would lead back to the error.
        tasks.clear()
        done.clear()
        del task
