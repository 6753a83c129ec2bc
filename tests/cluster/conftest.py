"""Puts the helpers beside the tests on the path; clusters as fixtures; logs of failed tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from processes import LIVE, LocalCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three members of its own, for tests that break some."""
    with LocalCluster(tmp_path / "cluster") as running:
        running.leader()
        yield running


class _Shared:
    """One cluster for many tests, made anew should one of them have left it beyond mending."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._cluster: LocalCluster | None = None

    def healthy(self) -> LocalCluster:
        if self._cluster is not None:
            try:
                self._cluster.mend()
                return self._cluster
            except Exception as error:
                print(f"the shared cluster cannot be mended, here is a new one: {error}")
                self.close()
        self._cluster = LocalCluster(self._factory.mktemp("shared")).__enter__()
        self._cluster.healed()
        return self._cluster

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Shared]:
    shared = _Shared(tmp_path_factory)
    yield shared
    shared.close()


@pytest.fixture
def shared(_shared: _Shared) -> LocalCluster:
    """Three members for tests that leave them as they found them: healthy, under the same identities."""
    return _shared.healthy()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        for cluster in LIVE:
            report.sections.extend(cluster.log_tails())
    return report
