"""What a node counts, on nodes that really do it; and that what is documented is what there is."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_harness import cluster, configs, eventually, get, kv_stub, put, read_request, run, write_request

from lattice_core.rpc.pb import kv_pb2
from lattice_core.server.exporter import Exporter
from lattice_core.server.families import FAMILIES
from lattice_core.server.node import Node

ROOT = Path(__file__).resolve().parents[2]


def read(node: Node, name: str, *labels: str) -> Any:
    """One sample of one family, as a scrape would find it."""
    family = next(each for each in FAMILIES if each.name == name)
    return dict(family.read(node))[labels]


def scraped(node: Node) -> dict[str, Any]:
    """The text format, parsed: families by name."""
    content_type, body = Exporter(node).render("")
    assert content_type.startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def test_every_family_is_there_from_the_start_with_help_and_kind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            found = scraped((await running.leader()).node)
            for family in FAMILIES:
                name = family.name.removesuffix("_total")
                assert (found[name].type, found[name].documentation) == (family.kind, family.help)
            assert found["process_resident_memory_bytes"].samples[0].value > 1 << 20

    run(scenario())


def test_names_and_helps_follow_the_conventions() -> None:
    names = [family.name for family in FAMILIES]
    # OpenMetrics knows counters without their suffix, so that must not make two families one.
    assert len({name.removesuffix("_total") for name in names}) == len(names)
    for family in FAMILIES:
        assert re.fullmatch(r"lattice(_[a-z]+)+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        if family.kind == "histogram":
            assert family.name.endswith("_seconds")
        assert family.help.endswith("."), family.name


def test_the_documentation_lists_every_metric_as_it_is() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(lattice_\w+)(?:\{([\w, ]+)\})?` \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    listed = [(name, tuple(filter(None, labels.split(", "))), kind, text) for name, labels, kind, text in rows]
    assert listed == [(family.name, family.labels, family.kind, family.help) for family in FAMILIES]


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_alerts_and_the_board_ask_only_for_metrics_and_labels_that_exist(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    if name.endswith(".json"):
        page = "\n".join(_expressions(json.loads(page)))
    known = {family.name: family for family in FAMILIES}
    asked = re.findall(r"\blattice_\w+", page)
    assert len(set(asked)) > 8
    for each in asked:
        plain = re.sub(r"_(bucket|sum|count)$", "", each)
        family = known.get(each) or known.get(plain)
        assert family is not None, f"{each} is no metric"
        assert (each != plain) == (family.kind == "histogram"), f"{each} is asked for as if it were something else"


def _expressions(document: Any) -> list[str]:
    if isinstance(document, dict):
        own = [document["expr"]] if "expr" in document else []
        return own + [each for value in document.values() for each in _expressions(value)]
    return [each for value in document for each in _expressions(value)] if isinstance(document, list) else []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say_against_a_scrape(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"k", b"v")
            await eventually(lambda: len(leader.node.metrics.round_trip_seconds) == 2)
            _, body = Exporter(leader.node).render("")
        done = await asyncio.to_thread(
            subprocess.run, ["promtool", "check", "metrics"], input=body, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    run(scenario())


def test_writes_and_reads_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            addr, node = leader.config.client_addr, leader.node
            async with kv_stub(addr) as kv:
                call = kv.Session()
                await call.write(write_request(1, [[1, b"a", b"1"], [1, b"b", b"2"], [3, b"c"]]))
                assert (await call.read()).HasField("write")
                await call.write(write_request(2, [[1, b"a", b"1"]], session=99, sequence=1))
                assert (await call.read()).error.code == kv_pb2.ERROR_CODE_SESSION_EXPIRED
                reads = [[1, b"a", None], [1, b"b", None]]
                for number, consistency in enumerate(kv_pb2.Consistency.values()):
                    await call.write(read_request(10 + number, reads, consistency))
                    assert (await call.read()).HasField("read")
                assert read(node, "lattice_open_streams", "KV/Session") == 1
                call.cancel()
                await eventually(lambda: read(node, "lattice_open_streams", "KV/Session") == 0)
            assert read(node, "lattice_streams_opened_total", "KV/Session") == 1
            assert read(node, "lattice_write_operations_total") == 3
            assert read(node, "lattice_write_batch_seconds").count == 1
            assert read(node, "lattice_write_batches_failed_total", "expired") == 1
            # CONSISTENCY_UNSPECIFIED means linearizable.
            assert read(node, "lattice_read_operations_total", "linearizable") == 4
            assert read(node, "lattice_read_operations_total", "lease") == 2
            assert read(node, "lattice_read_batch_seconds", "stale").count == 1
            assert read(node, "lattice_entries_proposed_total") == 2
            assert read(node, "lattice_fsync_seconds").count >= 3, "a vote, a no-op, and two entries"
            assert (read(node, "lattice_pending_write_bytes"), read(node, "lattice_pending_read_batches")) == (0, 0)
            assert (read(node, "lattice_keys"), read(node, "lattice_revision")) == (2, 2)

    run(scenario())


def test_unary_calls_are_timed_and_their_errors_counted_by_code(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            addr, node = leader.config.client_addr, leader.node
            await put(addr, b"k", b"v")
            await get(addr, b"k")
            with pytest.raises(grpc.aio.AioRpcError):
                await put(addr, b"", b"v")
            # Counted when the handler ends, which for a refusal is after its answer has left.
            await eventually(lambda: read(node, "lattice_rpc_seconds", "KV/Put").count == 2)
            assert read(node, "lattice_rpc_seconds", "KV/Get").count == 1
            assert read(node, "lattice_rpc_errors_total", "KV/Put", "INVALID_ARGUMENT") == 1
            async with grpc.aio.insecure_channel(addr) as channel:
                strange: Any = channel.unary_unary("/lattice.v1.KV/Nothing")
                with pytest.raises(grpc.aio.AioRpcError):
                    await strange(b"")
            assert set(node.metrics.calls) == {"KV/Put", "KV/Get"}, "strangers' names are not remembered"

    run(scenario())


def test_elections_leaders_and_peers_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            follower = next(each for each in running.followers())
            assert read(leader.node, "lattice_role", "leader") == 1
            assert sum(value for _, value in FAMILIES[3].read(leader.node)) == 1
            assert read(leader.node, "lattice_leader_changes_total") == 1
            assert read(leader.node, "lattice_elections_started_total") >= 1
            peers = [(name,) for name in sorted(set(running.nodes) - {leader.config.name})]
            for name in ("lattice_peer_lag_entries", "lattice_peer_inflight_bytes", "lattice_peer_silent_seconds",
                         "lattice_peer_connected", "lattice_peer_queue_bytes"):  # fmt: skip
                family = next(each for each in FAMILIES if each.name == name)
                assert sorted(labels for labels, _ in family.read(leader.node)) == peers
            assert not list(
                next(each for each in FAMILIES if each.name == "lattice_peer_lag_entries").read(follower.node)
            )
            await eventually(lambda: len(leader.node.metrics.round_trip_seconds) == 2)
            with pytest.raises(grpc.aio.AioRpcError):
                await put(follower.config.client_addr, b"k", b"v")
            assert read(follower.node, "lattice_write_batches_failed_total", "not_leader") == 1

            before = {name: each.node.metrics.leader_changes for name, each in running.nodes.items()}
            await leader.node.transfer_leader(follower.config.name)
            await running.leader()
            for name, each in running.nodes.items():
                await eventually(lambda name=name, each=each: each.node.metrics.leader_changes == before[name] + 1)
            assert read(leader.node, "lattice_role", "follower") == 1

    run(scenario())


def test_snapshots_are_counted_and_timed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"k", b"v")
            await leader.node.snapshots.take()
            assert read(leader.node, "lattice_snapshots_taken_total") == 1
            assert read(leader.node, "lattice_snapshot_seconds").count == 1
            assert read(leader.node, "lattice_snapshot_bytes") > 0

    run(scenario())


def test_an_fsync_that_hangs_is_seen_while_it_hangs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            node = (await running.leader()).node
            assert read(node, "lattice_fsync_stalled_seconds") == 0
            node.metrics.fsync_began = time.perf_counter() - 7.0
            assert 7.0 <= read(node, "lattice_fsync_stalled_seconds") < 60.0

    run(scenario())
