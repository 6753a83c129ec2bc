"""Puts the root of the tree on the path: benchmarks are no part of the package, and so nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
