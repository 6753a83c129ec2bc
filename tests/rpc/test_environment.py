"""What gRPC is told before it is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import grpc
import pytest

from lattice_core.rpc import environment


def test_the_installed_version_is_read_without_importing_grpc() -> None:
    assert environment.installed_version() == tuple(int(part) for part in grpc.__version__.split(".")[:2])


@pytest.mark.parametrize(
    ("version", "said"),
    [((1, 79), False), ((1, 80), True), (environment.LAST_WITH_A_CHOICE, True), ((1, 999), False), (None, False)],
)
def test_the_event_engine_is_only_switched_off_where_that_is_known_to_work(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int] | None, said: bool
) -> None:
    monkeypatch.setattr(environment, "installed_version", lambda: version)
    environ: dict[str, str] = {}
    environment.prepare_grpc(environ)
    assert (environ.get("GRPC_EXPERIMENTS") == environment.WITHOUT_EVENT_ENGINE) is said


def test_what_the_user_has_set_stays() -> None:
    environ = {"GRPC_VERBOSITY": "DEBUG", "GRPC_EXPERIMENTS": ""}
    environment.prepare_grpc(environ)
    assert environ == {"GRPC_VERBOSITY": "DEBUG", "GRPC_EXPERIMENTS": ""}


def test_the_installed_grpc_has_nothing_to_say_about_it() -> None:
    """A name that it does not know makes it write to stderr, into everybody's terminal."""
    program = "import lattice_core.rpc, grpc, os; grpc.insecure_channel('127.0.0.1:1').close()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


PROGRAM = """
import importlib, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            assert "GRPC_VERBOSITY" in os.environ, "grpc is imported too early"

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize(
    "module",
    [
        "lattice_core.client.channels",
        "lattice_core.server.run",
        "lattice_core.rpc.link",
        "lattice_cli.bench.worker",
        "lattice_cli.chaos.run",
        "lattice_cli.commands.top",
    ],
)
def test_grpc_is_told_before_it_is_imported_whoever_imports_it(module: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module], capture_output=True, text=True, timeout=60, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
