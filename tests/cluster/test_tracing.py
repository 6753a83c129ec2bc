"""Traces of a real cluster and a real command, exported as the OTEL_* variables say, to a collector of ours."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from processes import LocalCluster, eventually, lattice

pytestmark = pytest.mark.cluster

Spans = list[tuple[str, str, bytes]]
"""The process (a member's name, or the service's), the span's name, the trace's id."""


@contextmanager
def collector() -> Iterator[tuple[str, Spans]]:
    """Its address, and every span it has been sent."""
    spans: Spans = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for exported in ExportTraceServiceRequest.FromString(body).resource_spans:
                known = {each.key: each.value.string_value for each in exported.resource.attributes}
                process = known.get("service.instance.id", "") if known.get("service.name") == "lattice" else "?"
                spans.extend(
                    (process, span.name, span.trace_id) for scope in exported.scope_spans for span in scope.spans
                )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_command_and_every_member_export_one_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (endpoint, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with LocalCluster(tmp_path / "cluster", options=("--trace",)) as cluster:
            leader = cluster.leader()
            done = lattice("put", "k", "v", env={"LATTICE_ENDPOINTS": cluster.endpoints, "LATTICE_TRACE": "1"})
            assert done.code == 0, done.err
            members = sorted(cluster.nodes)

            def whole() -> bool:
                (trace_id,) = {trace for _, name, trace in spans if name == "lattice.write"}
                mine = {(process, name) for process, name, trace in spans if trace == trace_id}
                followers = [process for process, name in mine if name == "follower apply"]
                return (leader, "lattice.leader") in mine and sorted([*followers, leader]) == members

            eventually(whole, "client, leader and both followers in one trace")


def test_an_exporter_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    env = {"OTEL_TRACES_EXPORTER": "nonsense"}
    done = lattice("start", "--trace", "--data-dir", str(tmp_path / "data"), env=env)
    assert done.code == 2
    assert "there is no exporter 'nonsense' here, but" in done.the_error()
    assert not (tmp_path / "data").exists()
