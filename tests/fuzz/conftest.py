"""Puts the helpers beside the tests, and those of the storage and core tests, on the path."""

from __future__ import annotations

import sys
from pathlib import Path

for directory in ("fuzz", "storage", "raft"):
    sys.path.insert(0, str(Path(__file__).parents[1] / directory))
