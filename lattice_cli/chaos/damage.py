"""Rot in a stopped node's files: a flipped bit, a lost end; and how to undo it.

A start on damaged files may end in two ways. Either it refuses, with one line that names the file (SAFETY 17, 31), or
it serves, because what was hit was never used (the rest of a preallocated segment), was a torn tail, or was a
snapshot that an older one and the log can stand in for. Whatever it serves is judged like everything else.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

UNDAMAGED = ".undamaged"
"""What the copy's name ends in; it is kept outside the data directory."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done to which file, and where it was before."""

    path: Path
    offset: int
    text: str
    copy: Path

    def undo(self) -> None:
        """The file is as it was, even if the node has put it aside or cut it."""
        shutil.copyfile(self.copy, self.path)

    def forget(self) -> None:
        self.copy.unlink(missing_ok=True)


def files(data_dir: Path) -> list[Path]:
    """What holds the node's memory: segments and snapshots."""
    return sorted([*(data_dir / "wal").glob("*.wal"), *(data_dir / "snapshots").glob("*.snap")])


def flip_bit(data_dir: Path, draw: random.Random) -> Damage | None:
    """Flip one bit of one file, most often where something is written. None if there is no file."""
    target = _choose(data_dir, draw)
    if target is None:
        return None
    path, used, copy = target
    offset = draw.randrange(used) if draw.random() < 0.9 else draw.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << draw.randrange(8)]))
    return Damage(path, offset, f"one bit at {offset} of {path.name} flipped", copy)


def cut_end(data_dir: Path, draw: random.Random) -> Damage | None:
    """Cut one file, most often within what is written."""
    target = _choose(data_dir, draw)
    if target is None:
        return None
    path, used, copy = target
    size = path.stat().st_size
    left = draw.randrange(used) if draw.random() < 0.7 else draw.randrange(size)
    with path.open("r+b") as file:
        file.truncate(left)
    return Damage(path, left, f"{path.name} cut from {size} to {left} bytes", copy)


def _choose(data_dir: Path, draw: random.Random) -> tuple[Path, int, Path] | None:
    """A file, how many bytes of it are used, and the copy that was made of it."""
    found = files(data_dir)
    if not found:
        return None
    path = draw.choice(found)
    copy = data_dir.parent / f"{data_dir.name}-{path.name}{UNDAMAGED}"
    shutil.copyfile(path, copy)
    return path, max(1, len(path.read_bytes().rstrip(b"\0"))), copy
