"""Puts the script runner, and the harness of the core's tests, on the path."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
for directory in (HERE, HERE.parent / "raft"):
    sys.path.insert(0, str(directory))
