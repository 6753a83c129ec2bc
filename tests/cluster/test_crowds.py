"""Crowds at the door (SAFETY 49): idle connections and floods leave heartbeats, leadership and writers alone.

Small in CI; ``LATTICE_CROWD=10000 LATTICE_HOLD=45 LATTICE_FLOOD=500`` is the long form. Clients here are raw sockets,
written to by hand: thousands of gRPC channels would be a test of this process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crowd import PREFACE, SETTINGS, SETTINGS_ACK, Crowd, allow_descriptors
from load import Load
from processes import LocalCluster, LocalNode, eventually

from lattice_core.config import NodeConfig

CROWD = int(os.environ.get("LATTICE_CROWD", "2000"))
"""Connections, half of them with HTTP/2 spoken and no call made, half with a single byte."""

FLOOD = int(os.environ.get("LATTICE_FLOOD", "20"))
MESSAGE_BYTES = 64 << 20

HOLD_SECONDS = float(os.environ.get("LATTICE_HOLD", "2"))
"""How long the crowd stays: two election timeouts, or longer."""

OWN_DESCRIPTORS = 1000

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900, method="signal"),
    pytest.mark.skipif(sys.platform != "linux", reason="it looks at members through /proc"),
]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not allow_descriptors(CROWD + OWN_DESCRIPTORS):
        pytest.skip(f"this needs {CROWD + OWN_DESCRIPTORS} descriptors, and the limit is {before[1]}")
    yield
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def unshaken(cluster: LocalCluster, deed: Callable[[], None], figure: Callable[[str], None], *, what: str) -> None:
    """Do it while writers write: same leader, same term, nothing lost. On a busy machine an election may happen for no
    fault of the deed's, so that is tried three times; one that the deed causes comes every time."""
    for _ in range(3):
        leader = cluster.healed()
        before = {name: node.status() for name, node in cluster.nodes.items()}
        with Load(cluster.endpoints) as load, load.gap(20) as gap:
            deed()
        load.account()
        assert all(node.running for node in cluster.nodes.values())
        assert "Traceback" not in "".join(node.log() for node in cluster.nodes.values())
        cluster.healed()
        after = {name: node.status() for name, node in cluster.nodes.items()}
        memory = {name: status.counters.memory_bytes >> 20 for name, status in after.items()}
        grown = max(after[name].counters.memory_bytes - before[name].counters.memory_bytes for name in after) >> 20
        figure(
            f"{what}: writers stood still for {gap.seconds * 1000:.0f} ms at most, the largest member has "
            f"{max(memory.values())} MiB, {grown} MiB more than before"
        )
        if all((after[name].term, after[name].role) == (before[name].term, before[name].role) for name in after):
            assert after[leader].role == "leader"
            return
    raise AssertionError("each time there was an election")


def connect(addr: str) -> socket.socket:
    host, _, port = addr.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.usefixtures("many_descriptors")
def test_49_a_crowd_of_idle_connections_on_the_client_port_leaves_leadership_and_writers_alone(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    # Idle ones are not to go while they are counted, and nobody is to be thrown out for keeping silent.
    options = ("--config", str(_settings(tmp_path, handshake_timeout_ms=600_000, idle_connection_seconds=0)))
    with LocalCluster(tmp_path / "cluster", options=options) as cluster:
        leader = cluster[cluster.healed()]

        def deed() -> None:
            before, began = _cpu_seconds(leader), time.monotonic()
            with Crowd(leader.client_addr, CROWD) as crowd:
                eventually(lambda: _descriptors(leader) > CROWD, "it has accepted them all", 120)
                tell("opened", crowd, before, began)
                assert eventually(lambda: leader.status(timeout=20), "it answers a new connection too").term
                before, began = _cpu_seconds(leader), time.monotonic()
                time.sleep(HOLD_SECONDS)
                assert crowd.closed() == 0, "within the bound, they are left alone"
                tell("held", crowd, before, began)
                crowd.close()

        def tell(what: str, crowd: Crowd, before: float, began: float) -> None:
            figure(
                f"{crowd.opened} connections to the leader, {what} for {time.monotonic() - began:.1f} s: they used "
                f"{crowd.cpu_seconds:.1f} s of CPU so far, it {_cpu_seconds(leader) - before:.1f} s meanwhile "
                f"(load {os.getloadavg()[0]:.1f})"
            )

        unshaken(cluster, deed, figure, what=f"{CROWD} idle connections")


@pytest.mark.usefixtures("many_descriptors")
def test_49_a_crowd_on_the_peer_port_is_kept_to_its_bound_and_members_go_on_hearing_each_other(
    shared: LocalCluster, figure: Callable[[str], None]
) -> None:
    leader = shared[shared.healed()]

    def deed() -> None:
        with Crowd(leader.peer_addr, min(CROWD, 2000), speaking=False) as crowd:
            began = time.monotonic()
            eventually(lambda: crowd.closed() >= crowd.opened - 512, "those beyond the bound are closed")
            took = time.monotonic() - began
            figure(f"{crowd.opened} connections to the peer port, all but 512 closed after {took:.1f} s")
            eventually(lambda: crowd.closed() == crowd.opened, "those that do not go on are closed", 20)

    unshaken(shared, deed, figure, what="a crowd on the peer port")


@pytest.mark.parametrize("port", ["client_addr", "peer_addr"])
def test_49_few_connections_wait_to_be_accepted_so_that_accepting_them_takes_little_time(
    shared: LocalCluster, port: str
) -> None:
    """One that stands still accepts nothing: what is connected to it then is what waits."""
    node = shared[shared.others(shared.healed())[0]]
    host, _, number = getattr(node, port).rpartition(":")
    backlog = NodeConfig().accept_backlog
    shared.pause(node.name)
    with contextlib.ExitStack() as opened:
        waiting = select.poll()
        for _ in range(4 * backlog):
            each = opened.enter_context(socket.socket())
            each.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                each.connect((host, int(number)))
            waiting.register(each.fileno(), select.POLLOUT)
        # On loopback connect() itself usually carries the whole handshake through, and nothing is left to wait for.
        eventually(lambda: len(waiting.poll(0)) >= backlog, "as many as may wait are connected")
        time.sleep(0.2)
        connected = len(waiting.poll(0))
    shared.resume(node.name)
    assert connected <= backlog + 8, f"{connected} wait"
    shared.healed()


def _descriptors(node: LocalNode) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def _cpu_seconds(node: LocalNode) -> float:
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _settings(directory: Path, **settings: int) -> Path:
    file = directory / "lattice.toml"
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    return file


# -- floods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["client", "peer"])
def test_49_a_flood_of_messages_of_64_mib_is_refused_and_leaves_leadership_and_writers_alone(
    shared: LocalCluster, port: str, figure: Callable[[str], None]
) -> None:
    leader = shared[shared.healed()]

    def deed() -> None:
        began = time.monotonic()
        outcomes = _flood(leader, port)
        sent = sum(outcomes)
        figure(
            f"{FLOOD} messages of {MESSAGE_BYTES >> 20} MiB to the {port} port in {time.monotonic() - began:.1f} s, "
            f"of which {sent >> 20} MiB were taken off the wire"
        )

    unshaken(shared, deed, figure, what=f"a flood on the {port} port")


def _flood(target: LocalNode, port: str) -> list[int]:
    """Four senders; how many bytes of each message left before it was refused."""
    addr, path = {
        "client": (target.client_addr, b"/lattice.v1.KV/Put"),
        "peer": (target.peer_addr, b"/lattice.v1.Raft/Stream"),
    }[port]
    taken: list[int] = []
    senders = [
        threading.Thread(target=lambda: taken.extend(_push(addr, path) for _ in range(FLOOD // 4))) for _ in range(4)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert len(taken) == 4 * (FLOOD // 4)
    return taken


def _push(addr: str, path: bytes) -> int:
    """One call with one oversized message, without any regard for flow control; how much of it was taken.

    The server closes the connection, ends the stream, or stops reading: any of them, but not for ever.
    """
    headers = b"\x83\x86" + _header(b":path", path) + _header(b":authority", b"lattice")
    headers += _header(b"content-type", b"application/grpc") + _header(b"te", b"trailers")
    chunk = bytes(16384)
    with connect(addr) as connection:
        connection.sendall(PREFACE + SETTINGS + SETTINGS_ACK + _frame(1, 4, 1, headers))
        connection.settimeout(5)
        taken = 0
        try:
            connection.sendall(_frame(0, 0, 1, b"\0" + struct.pack(">I", MESSAGE_BYTES)))
            while taken < MESSAGE_BYTES:
                connection.sendall(_frame(0, 0, 1, chunk))
                taken += len(chunk)
            connection.recv(65536)
        except OSError:
            pass  # closed, reset, or no further bytes are taken
        return taken


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _header(name: bytes, value: bytes) -> bytes:
    """HPACK: literal, never indexed, not compressed."""
    return b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value
