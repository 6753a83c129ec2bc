"""A node as a process: what it prints, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from server_harness import configs, free_ports, kv_stub, run

from lattice_core.config import NodeConfig
from lattice_core.rpc.pb import kv_pb2

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from lattice_core.config import NodeConfig
from lattice_core.errors import LatticeError
from lattice_core.server.run import run
try:
    sys.exit(run(NodeConfig(**eval(sys.argv[1]))))
except LatticeError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def start(config: NodeConfig) -> subprocess.Popen[str]:
    options = {
        name: getattr(config, name) for name in ("name", "data_dir", "client_addr", "peer_addr", "drain_seconds")
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, repr(options)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for_ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ready "):
            return line.strip()
    raise AssertionError("the process ended before it was ready")


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_exit_code_0_and_the_data_is_kept(
    tmp_path: Path, number: signal.Signals
) -> None:
    (config,) = configs(tmp_path, 1)

    async def write() -> None:
        async with kv_stub(config.client_addr) as kv:
            await kv.Put(kv_pb2.PutRequest(key=b"a", value=b"1"), timeout=5, wait_for_ready=True)

    async def read() -> None:
        async with kv_stub(config.client_addr) as kv:
            answer = await kv.Get(kv_pb2.GetRequest(key=b"a"), timeout=5, wait_for_ready=True)
            assert answer.found.value == b"1"

    for use in (write, read):
        process = start(config)
        try:
            assert wait_for_ready(process) == f"ready name=n1 client={config.client_addr} peer={config.peer_addr}"
            run(use())
            process.send_signal(number)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.communicate()


@pytest.mark.cluster
def test_a_second_process_on_one_directory_is_refused_with_one_line(tmp_path: Path) -> None:
    """SAFETY 23."""
    (config,) = configs(tmp_path, 1)
    first = start(config)
    try:
        wait_for_ready(first)
        client, peer = free_ports(2)
        other = NodeConfig(
            name="n1", data_dir=config.data_dir, client_addr=f"127.0.0.1:{client}", peer_addr=f"127.0.0.1:{peer}"
        )
        second = start(other)
        _, errors = second.communicate(timeout=20)
        assert second.returncode == 3
        (line,) = errors.strip().splitlines()
        assert f"is in use by process {first.pid}" in line
    finally:
        first.kill()
        first.communicate()
