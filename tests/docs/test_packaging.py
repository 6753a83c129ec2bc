"""The systemd unit and the container file say what the program understands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lattice_cli import settings
from lattice_core.errors import ConfigurationError, ServerRemoved

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    command = tmp_path / "lattice"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    unit = tmp_path / "lattice.service"
    unit.write_text((PACKAGING / "lattice.service").read_text().replace("/usr/local/bin/lattice", str(command)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["lattice.service", "Dockerfile"])
def test_its_variables_are_settings(name: str) -> None:
    variables = re.findall(r"\b(LATTICE_[A-Z_]+)=(\S+)", (PACKAGING / name).read_text())
    assert {variable for variable, _ in variables} >= {"LATTICE_DATA_DIR", "LATTICE_LOG_FORMAT"}
    settings.load({}, environ=dict(variables)).config.validate()
    assert all(variable.removeprefix("LATTICE_").lower() in settings.FIELDS for variable, _ in variables)


def test_the_unit_does_not_restart_what_a_restart_cannot_help() -> None:
    unit = (PACKAGING / "lattice.service").read_text()
    codes = {ConfigurationError("x").exit_code, ServerRemoved("x").exit_code}
    assert re.search(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)[1] == " ".join(map(str, sorted(codes)))  # type: ignore[index]
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])  # type: ignore[index]
    assert stop > 2 * settings.load({}, environ={}).config.drain_seconds
