"""Errors and delays in a running node's system calls, by ``strace``; limits on its descriptors, by ``prlimit``.

Attached to a process, strace stops it at every system call, so a node under it is also a slow one; detached, nothing is
left of it. Where strace is missing or may not attach (no ptrace in this container), the faults that need it are
passed over, and the report says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import signal
import sys
from collections.abc import AsyncIterator

ATTACH_SECONDS = 10.0
DETACH_SECONDS = 10.0


class CannotInject(Exception):
    """strace could not be attached; says why."""


async def why_not() -> str | None:
    """None if system calls can be tampered with here, else the reason."""
    if sys.platform != "linux":
        return "system call injection needs Linux"
    if shutil.which("strace") is None:
        return "strace is not installed"
    process = await asyncio.create_subprocess_exec("sleep", "30", stdin=asyncio.subprocess.DEVNULL)
    try:
        async with injected(process.pid, "fdatasync", "error=EIO"):
            return None
    except CannotInject as error:
        return f"strace cannot attach here: {error}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def injected(pid: int, calls: str, what: str) -> AsyncIterator[None]:
    """While the block runs, the system calls ``calls`` of the process are tampered with: ``what`` in strace's words
    (``error=EIO:when=1``, ``signal=KILL:when=3``, ``delay_enter=20000``). Raises CannotInject."""
    try:
        tracer = await asyncio.create_subprocess_exec(
            "strace",
            *("-f", "-p", str(pid), "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise CannotInject(str(error)) from None
    assert tracer.stderr is not None
    rest: asyncio.Task[bytes] | None = None
    try:
        try:
            async with asyncio.timeout(ATTACH_SECONDS):
                said = b""
                while b"attached" not in said:
                    said = await tracer.stderr.readline()
                    if b"attached" not in said:
                        raise CannotInject(said.decode(errors="replace").strip() or "it ended at once")
        except TimeoutError:
            raise CannotInject(f"not attached after {ATTACH_SECONDS:g} s") from None
        rest = asyncio.ensure_future(tracer.stderr.read())  # it tells of every thread: never let it block
        yield
    finally:
        await _detach(tracer)
        if rest is not None:
            rest.cancel()
            await asyncio.gather(rest, return_exceptions=True)


async def _detach(tracer: asyncio.subprocess.Process) -> None:
    """SIGTERM has strace let go and end. It has ended already if the process has."""
    with contextlib.suppress(ProcessLookupError):
        tracer.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(DETACH_SECONDS):
            await tracer.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            tracer.kill()  # the kernel detaches it
        await tracer.wait()


# -- descriptors ----------------------------------------------------------------------------------


def may_limit_descriptors() -> str | None:
    """None if another process's limits can be set here, else the reason."""
    if sys.platform != "linux" or not hasattr(resource, "prlimit"):
        return "prlimit needs Linux"
    return None


def limit_descriptors(pid: int, more: int) -> tuple[int, int]:
    """Leave the process room for ``more`` descriptors beyond those it has; its limits until now."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    # A new one gets the lowest free number, and that has to be below the limit.
    limit = next(itertools.islice((number for number in itertools.count() if number not in used), more, None))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(limit, before[1]), before[1]))
    return before


def restore_descriptors(pid: int, limits: tuple[int, int]) -> None:
    """As they were."""
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
