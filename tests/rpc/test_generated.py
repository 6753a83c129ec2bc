"""lattice_core/rpc/pb is what proto/ says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_code_is_in_step_with_the_proto_files() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "generate_proto.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
