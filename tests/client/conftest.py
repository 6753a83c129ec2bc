"""Puts the helpers beside the tests (fake) on the path, and runs `async def` tests."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # connections are cut on purpose here


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """An `async def` test runs on a loop of its own, which reports what it leaves behind."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    names = inspect.signature(test).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def run() -> None:
        async with asyncio.timeout(20):
            await test(**arguments)
        left = [task for task in asyncio.all_tasks() if task.get_name() == "lattice-client"]
        assert not left, f"the client left tasks behind: {left}"

    asyncio.run(run())
    return True
