"""A member's directory in real files, hurt at every byte: it is refused with file and way out, or loses nothing.

tests/storage does the same to log and snapshots by themselves; here all of it is opened as a node opens it, and what
was acknowledged is compared: entries 1 to 8, of which a snapshot holds the first four (SAFETY 16, 17, 26, 31).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from saved_data import config, leave_member, state_at

from lattice_core.errors import Fatal, StorageDamaged
from lattice_core.server.bootstrap import open_node
from lattice_core.storage.filesystem import RealFileSystem

LAST, SNAPSHOT = 8, 4


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """In memory where there is such a filesystem: thousands of starts sync thousands of times."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="lattice-", dir=base) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def whole(room: Path) -> Path:
    directory = room / "whole"
    leave_member(RealFileSystem(), "n1", LAST, snapshot_at=SNAPSHOT, data_dir=str(directory))
    assert state_after_start(directory) == state_at(LAST).state_hash
    return directory


def state_after_start(directory: Path) -> int:
    """The state with all of the log applied. Raises what a start raises."""
    opened = open_node(config(data_dir=str(directory)), RealFileSystem())
    try:
        machine = opened.take_machine()
        for entry in opened.recovered.entries:
            assert isinstance(entry.payload, bytes)
            machine.apply(entry.index, entry.term, entry.payload)
        return machine.state_hash
    finally:
        opened.close()


def outcome(directory: Path) -> int | Fatal:
    """That state, or why it is refused."""
    try:
        return state_after_start(directory)
    except Fatal as error:
        return error


def used(path: Path) -> int:
    return len(path.read_bytes().rstrip(b"\0"))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


@pytest.mark.parametrize("hurt", [flipped, cut])
@pytest.mark.parametrize("what", ["identity", "peers", "wal", "snapshots"])
def test_safety_17_31_hurt_at_any_byte_it_is_refused_with_the_file_or_loses_nothing(
    room: Path, whole: Path, what: str, hurt: Callable[[bytes, int], bytes]
) -> None:
    expected = state_at(LAST).state_hash
    files = [whole / what] if (whole / what).is_file() else sorted((whole / what).iterdir())
    refused = served = 0
    for file in files:
        data, length = file.read_bytes(), used(file)
        for at in range(length):
            copy = room / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(whole, copy)
            victim = copy / file.relative_to(whole)
            victim.write_bytes(hurt(data, at))
            found = outcome(copy)
            if isinstance(found, int):
                served += 1
                assert found == expected, f"{file.name} at {at}: something acknowledged is gone, and nothing was said"
            else:
                refused += 1
                assert str(copy) in str(found), f"{file.name} at {at}: {found}"
                assert found.hint or not isinstance(found, StorageDamaged), f"{file.name} at {at}: no way out"
    assert refused + served > 100
    assert refused, "nothing that was done to it mattered"
