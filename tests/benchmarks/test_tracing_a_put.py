"""A put followed through a real cluster: the trace points must not change what they look at."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from benchmarks import profile_server

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("callers", [1, 8])
def test_most_puts_are_followed_through_client_leader_and_follower(
    callers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_server, "UNTRACED_PUTS", 40)
    monkeypatch.setattr(profile_server, "TRACED_PUTS", 100)
    lines = asyncio.run(profile_server.trace(argparse.Namespace(dir=tmp_path), callers))
    followed = next(line for line in lines if "puts followed" in line)
    assert int(followed.split()[0]) > 50, lines
