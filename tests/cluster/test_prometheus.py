"""A real Prometheus scrapes a real cluster, under the alerts of docs/. Skipped where it is not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from processes import LocalCluster, eventually, free_ports, kill_group, lattice, spawn

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "docs" / "alerts.yml"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


@needs_promtool
def test_promtool_accepts_the_alerts_and_they_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)
    for command in (["promtool", "check", "rules", "alerts.yml"], ["promtool", "test", "rules", "alerts_test.yml"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.cluster
@needs_prometheus
def test_a_real_prometheus_scrapes_every_member_and_sees_a_dead_one(tmp_path: Path) -> None:
    web, *ports = free_ports(4)
    targets = [f"127.0.0.1:{port}" for port in ports]
    members = LocalCluster(tmp_path / "cluster")
    for node, target in zip(members.nodes.values(), targets, strict=True):
        node.arguments += ["--metrics-addr", target]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{ALERTS}']\n"
        f"scrape_configs: [{{job_name: lattice, static_configs: [{{targets: {json.dumps(targets)}}}]}}]\n"
    )
    with members as cluster:
        leader = cluster.leader()
        done = lattice("put", "greeting", "hello", env={"LATTICE_ENDPOINTS": cluster.endpoints})
        assert done.code == 0, done.err
        prometheus = spawn(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{web}",
            ],
            output=tmp_path / "prometheus.log",
        )
        try:
            api = f"http://127.0.0.1:{web}/api/v1/"

            def value(expression: str) -> float | None:
                found = _get(f"{api}query?{urllib.parse.urlencode({'query': expression})}")
                return float(found["data"]["result"][0]["value"][1]) if found["data"]["result"] else None

            eventually(lambda: value("sum(up)") == 3, "Prometheus scrapes three members")
            eventually(lambda: value("sum(lattice_has_leader)") == 3, "every member knows the leader")
            eventually(lambda: (value("sum(lattice_write_operations_total)") or 0) > 0, "the put was counted")
            eventually(lambda: value("max(lattice_keys) == min(lattice_keys)") == 1, "one key, on every member")
            eventually(lambda: (value("count(lattice_peer_round_trip_seconds_count > 0)") or 0) >= 2, "round trips")
            eventually(
                lambda: (value("histogram_quantile(0.99, sum by (le) (lattice_fsync_seconds_bucket))") or 0) > 0,
                "a quantile of the fsyncs",
            )
            groups = _get(f"{api}rules")["data"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert len(rules) >= 15
            eventually(
                lambda: all(rule["health"] == "ok" for group in _get(f"{api}rules")["data"]["groups"]
                            for rule in group["rules"]),
                "every rule can be evaluated",
            )  # fmt: skip
            before = value("max(lattice_leader_changes_total)")
            assert before is not None
            cluster.kill(leader)
            eventually(lambda: value("sum(up)") == 2, "Prometheus misses the member that was killed")
            eventually(lambda: (value("max(lattice_leader_changes_total)") or 0) > before, "a new leader is seen")
            pending = 'ALERTS{alertname="LatticeMemberDown"}'
            eventually(lambda: value(pending) == 1, "the alert for it is pending")
        finally:
            kill_group(prometheus)


def _get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError as error:
        raise AssertionError(f"{url}: {error}") from None
