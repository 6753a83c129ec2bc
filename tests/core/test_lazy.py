"""Packages that import nothing until a name is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = ("lattice_core.client", "lattice_core.kv")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_a_lazy_package_is_the_one_that_type_checkers_see(package: str) -> None:
    module = import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    promised = {
        alias.name: node.module
        for node in imports
        if node.module and node.module.startswith("lattice_core") and node.module != "lattice_core.lazy"
        for alias in node.names
    }
    assert set(promised) == set(module.__all__)
    for name, origin in promised.items():
        source = import_module(str(origin))
        expected = getattr(source, name, None) or import_module(f"{origin}.{name}")
        assert getattr(module, name) is expected


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_a_lazy_package_does_not_have_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_module(package).no_such_name


def test_a_client_imports_no_store_and_nothing_for_operators() -> None:
    """What ``lattice get`` pays for as a process (issue 6)."""
    program = "import sys; from lattice_core.client import Client; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "lattice_core.client.sync" in loaded
    for unwanted in (
        "lattice_core.kv.store",
        "lattice_core.kv.machine",
        "lattice_core.client.cluster",
        "lattice_core.client.bulk",
        "lattice_core.config",
        "sortedcontainers",
        "google_crc32c",
        "rich",
    ):
        assert unwanted not in loaded, unwanted
