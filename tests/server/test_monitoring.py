"""/metrics, /healthz and /readyz on a running node; gRPC's health and reflection on its client port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from server_harness import Cluster, cluster, configs, eventually, free_ports, put, run

from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError, Fatal
from lattice_core.server import monitoring
from lattice_core.server.run import RunningNode

SERVING = health_pb2.HealthCheckResponse.ServingStatus.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.ServingStatus.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.ServingStatus.SERVICE_UNKNOWN


def with_metrics(node_configs: list[NodeConfig]) -> list[NodeConfig]:
    ports = free_ports(len(node_configs))
    return [replace(config, metrics_addr=f"127.0.0.1:{port}") for config, port in zip(node_configs, ports, strict=True)]


async def page(running: RunningNode, path: str) -> tuple[int, str]:
    """Status and body."""
    host, port = running.config.metrics_addr.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body.decode()


@asynccontextmanager
async def health(running: RunningNode) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(running.config.client_addr) as channel:
        make: Any = health_pb2_grpc.HealthStub
        yield make(channel)


async def serving(running: RunningNode, service: str = "") -> int:
    async with health(running) as stub:
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status)


def test_a_node_that_leads_is_alive_ready_and_measured(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(with_metrics(configs(tmp_path, 1))) as running:
            leader = await running.leader()
            await put(leader.config.client_addr, b"k", b"v")
            assert await page(leader, "/healthz") == (200, "ok\n")
            assert await page(leader, "/readyz") == (200, "ready\n")
            status, body = await page(leader, "/metrics")
            assert status == 200
            assert "lattice_keys 1.0\n" in body
            assert 'lattice_rpc_seconds_count{rpc="KV/Put"} 1.0\n' in body
            for service in ("", "lattice.v1.KV", "lattice.v1.Cluster", "grpc.health.v1.Health"):
                assert await serving(leader, service) == SERVING

    run(scenario())


def test_without_an_address_nothing_listens_and_prometheus_client_is_not_imported() -> None:
    import subprocess
    import sys

    program = (
        "import sys, lattice_core.server.run; "
        "print(sorted({'prometheus_client', 'grpc_health.v1.health_pb2', 'grpc_reflection.v1alpha.reflection'} "
        "& sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_member_without_a_leader_is_alive_and_not_ready_and_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        node_configs = with_metrics(configs(tmp_path, 3))
        running = Cluster(node_configs)
        try:
            await running.start("n1")
            alone = running.nodes["n1"]
            assert await page(alone, "/healthz") == (200, "ok\n")
            assert await page(alone, "/readyz") == (503, "not ready: no leader is known\n")
            assert await serving(alone) == NOT_SERVING
            assert await serving(alone, "lattice.v1.KV") == NOT_SERVING
            assert await serving(alone, "lattice.v1.Cluster") == SERVING
            async with health(alone) as stub:
                watch = stub.Watch(health_pb2.HealthCheckRequest())
                assert (await watch.read()).status == NOT_SERVING
                await running.start("n2")
                await running.leader()
                assert await page(alone, "/readyz") == (200, "ready\n")
                assert (await watch.read()).status == SERVING, "watchers are told"
                watch.cancel()
        finally:
            for name in list(running.nodes):
                await running.kill(name)

    run(scenario())


def test_a_node_is_not_ready_before_its_state_is_where_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            readiness = leader.node.readiness
            readiness._committed_at_start = leader.node.machine.applied_index + 1
            assert "was committed before it started" in (readiness.reason() or "")
            await put(leader.config.client_addr, b"k", b"v")
            assert readiness.reason() is None
            await running.stop("n1")
            await running.start()
            again = (await running.leader()).node
            assert again.readiness._committed_at_start > 0, "the log remembers what it knew to be committed"
            assert again.readiness.reason() is None

    run(scenario())


def test_a_node_that_is_told_to_stop_is_not_ready_and_one_that_failed_is_not_alive(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(with_metrics(configs(tmp_path, 1))) as running:
            leader = await running.leader()
            leader.node.readiness.draining = True
            assert await page(leader, "/readyz") == (503, "not ready: it is shutting down\n")
            assert await serving(leader) == NOT_SERVING
            leader.node.failed.set_result(Fatal("the disk is gone"))
            assert await page(leader, "/healthz") == (503, "failed: the disk is gone\n")
            assert await page(leader, "/readyz") == (503, "not ready: it has failed: the disk is gone\n")

    run(scenario())


def test_stopping_a_node_marks_it_not_ready_first_and_closes_the_listener(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(with_metrics(configs(tmp_path, 1))) as running:
            leader = await running.leader()
            seen: list[bool] = []
            hand_over = leader.node.hand_over

            async def watched(timeout_seconds: float) -> None:
                seen.append(leader.node.readiness.draining)
                await hand_over(timeout_seconds)

            leader.node.hand_over = watched  # type: ignore[method-assign]
            await running.stop("n1")
            assert seen == [True]
            with pytest.raises(ConnectionRefusedError):
                await page(leader, "/healthz")

    run(scenario())


def test_an_unknown_service_is_not_found_and_watched_as_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            leader = await running.leader()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await serving(leader, "lattice.v2.KV")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            async with health(leader) as stub:
                watch = stub.Watch(health_pb2.HealthCheckRequest(service="lattice.v2.KV"))
                assert (await watch.read()).status == SERVICE_UNKNOWN
                watch.cancel()

    run(scenario())


def test_watches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "MAX_WATCHERS", 1)
    monkeypatch.setattr(monitoring, "WATCH_SECONDS", 0.01)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running, health(await running.leader()) as stub:
            first = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await first.read()).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Watch(health_pb2.HealthCheckRequest()):
                    pass
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            first.cancel()
            await asyncio.sleep(0.05)

            async def again() -> bool:
                watch = stub.Watch(health_pb2.HealthCheckRequest())
                try:
                    return bool((await watch.read()).status == SERVING)
                except (grpc.aio.AioRpcError, AttributeError):
                    return False
                finally:
                    watch.cancel()

            for _ in range(100):
                if await again():
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("a watch that ended still takes a place")

    run(scenario())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_names_the_services_and_describes_them(tmp_path: Path, version: str) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            async with grpc.aio.insecure_channel(addr) as channel:
                open_stream: Any = channel.stream_stream
                call = open_stream(
                    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
                )()
                await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                names = {each.name for each in (await call.read()).list_services_response.service}
                assert names >= {"lattice.v1.KV", "lattice.v1.Cluster", "grpc.health.v1.Health"}
                for symbol in sorted(names - {"grpc.reflection.v1.ServerReflection"}):
                    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
                    assert (await call.read()).file_descriptor_response.file_descriptor_proto, symbol
                call.cancel()

    run(scenario())


def test_a_metrics_address_in_use_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    async def scenario() -> None:
        (config,) = with_metrics(configs(tmp_path, 1))
        host, port = config.metrics_addr.split(":")
        other = await asyncio.start_server(lambda *_: None, host, int(port))
        try:
            with pytest.raises(ConfigurationError, match=r"cannot listen on .* \(--metrics-addr\)"):
                await RunningNode(config).start()
        finally:
            other.close()
            await other.wait_closed()
        node = RunningNode(config)
        await node.start()
        await eventually(lambda: node.node.core.is_leader)
        await node.kill()

    run(scenario())


@pytest.mark.parametrize("which", ["client_addr", "peer_addr"])
def test_two_listeners_need_two_ports(which: str) -> None:
    config = NodeConfig(metrics_addr="127.0.0.1:9000", **{which: "127.0.0.1:9000"})
    with pytest.raises(ConfigurationError, match="two listeners need two ports"):
        config.validate()
