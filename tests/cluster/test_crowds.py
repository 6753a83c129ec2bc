"""Crowds at the door (SAFETY 49): idle connections and floods leave heartbeats, leadership and writers alone.

Small in CI; ``LATTICE_CROWD=10000 LATTICE_FLOOD=500`` is the long form. Clients here are raw sockets, written to by
hand: thousands of gRPC channels would be a test of this process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from load import Load
from processes import LocalCluster, LocalNode, eventually

CROWD = int(os.environ.get("LATTICE_CROWD", "2000"))
"""Connections, half of them with HTTP/2 spoken and no call made, half without a word."""

FLOOD = int(os.environ.get("LATTICE_FLOOD", "20"))
MESSAGE_BYTES = 64 << 20

OWN_DESCRIPTORS = 1000

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600, method="signal")]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + OWN_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):
            pytest.skip(f"this needs {wanted} descriptors, and the limit is {hard}")
    elif soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
        crowd: list[socket.socket] = []

        def deed() -> None:
            while crowd:
                crowd.pop().close()
            began = time.monotonic()
            for number in range(CROWD):
                connection = connect(leader.client_addr)
                if number % 2:
                    connection.sendall(PREFACE + SETTINGS)
                crowd.append(connection)
            figure(f"{CROWD} connections to the leader in {time.monotonic() - began:.1f} s")
            assert eventually(lambda: leader.status(timeout=20), "it answers a new connection too").term
            time.sleep(2 * 1.0)  # two election timeouts with all of them open

        try:
            unshaken(cluster, deed, figure, what=f"{CROWD} idle connections")
            assert _closed(crowd[-CROWD:]) == 0, "within the bound, they are left alone"
        finally:
            for connection in crowd:
                connection.close()


@pytest.mark.usefixtures("many_descriptors")
def test_49_a_crowd_on_the_peer_port_is_kept_to_its_bound_and_members_go_on_hearing_each_other(
    shared: LocalCluster, figure: Callable[[str], None]
) -> None:
    leader = shared[shared.healed()]
    crowd: list[socket.socket] = []

    def deed() -> None:
        crowd.clear()
        crowd.extend(connect(leader.peer_addr) for _ in range(min(CROWD, 2000)))
        began = time.monotonic()
        eventually(lambda: _closed(crowd) >= len(crowd) - 512, "those beyond the bound are closed")
        figure(f"{len(crowd)} connections to the peer port, all but 512 closed after {time.monotonic() - began:.1f} s")
        eventually(lambda: _closed(crowd) == len(crowd), "those that say nothing are closed", 20)

    try:
        unshaken(shared, deed, figure, what="a crowd on the peer port")
    finally:
        for connection in crowd:
            connection.close()


def _closed(crowd: list[socket.socket]) -> int:
    """How many the other side has closed."""
    poll = select.poll()
    by_number = {each.fileno(): each for each in crowd}
    for number in by_number:
        poll.register(number, select.POLLIN)
    closed = 0
    for number, _ in poll.poll(0):
        each = by_number[number]
        each.setblocking(False)
        try:
            while data := each.recv(65536):
                del data
            closed += 1
        except BlockingIOError:
            pass
        except OSError:
            closed += 1
    return closed


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
