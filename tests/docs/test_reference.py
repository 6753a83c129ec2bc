"""What is generated from the code stays in step with it, and examples of configuration are valid."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lattice_cli import settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("tool", ["reference.py", "metrics_table.py"])
def test_generated_pages_are_in_step_with_the_code(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / tool), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + "regenerate them with: make docs"


def test_every_example_of_a_configuration_file_is_valid(tmp_path: Path) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    examples = [
        (page, text) for page in pages for text in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S)
    ]
    assert examples
    for page, text in examples:
        file = tmp_path / f"{page.name}.toml"  # the name is in the error
        file.write_text(text)
        settings.load({}, config_file=file, environ={}).config.validate()
