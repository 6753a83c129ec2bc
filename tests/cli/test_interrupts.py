"""Ctrl-C is known from its first moment, whatever the loop is at."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from lattice_cli.interrupts import Interrupts


def test_a_signal_is_known_before_the_next_line_and_an_error_may_be_quicker_than_the_cancelling() -> None:
    async def command() -> list[str]:
        told: list[str] = []
        interrupts = Interrupts(lambda: told.append("at once"))
        try:
            os.kill(os.getpid(), signal.SIGINT)
            told.append(f"came: {interrupts.came}")
            raise ConnectionError("a node that the signal reached, too")
        except ConnectionError:
            await interrupts.settle()
            os.kill(os.getpid(), signal.SIGTERM)  # cleaning up is left alone
            await asyncio.sleep(0)
            told.append("cleaned up")
        finally:
            interrupts.close()
        return told

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert asyncio.run(command()) == ["at once", "came: True", "cleaned up"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_wakes_and_cancels_whoever_waits_and_only_once() -> None:
    async def command() -> int:
        interrupts = Interrupts()
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        try:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(60)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)
            await interrupts.settle()
            return 7
        finally:
            interrupts.close()

    assert asyncio.run(command()) == 7
