"""A cluster of real processes on this machine: ``python -m lattice_cli start ...`` on free loopback ports.

Whoever starts one owns it: :meth:`LocalCluster.close` leaves no process and no directory behind. On Linux the
nodes also die with their parent, should it be killed before it can clean up; elsewhere they have to be stopped by
hand then.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lattice_core.errors import LatticeError, Unavailable
from lattice_core.tls import ClientTLS

START_SECONDS = 20.0
"""Until "ready": the interpreter and gRPC take about one second of CPU, and several nodes share it."""

STOP_SECONDS = 8.0
"""After SIGTERM, before SIGKILL: a node drains for up to five."""

POLL_SECONDS = 0.02

_RECORD = re.compile(r"\S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
"""How a line of a node's log begins (lattice_core/server/logs.py)."""

_LEVELS_OF_ERRORS = re.compile(r"\S+ (ERROR|CRITICAL) ")

FIRST_PORT = 10_000
"""Below it are too many that somebody may have an opinion of."""

DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))\n"  # PR_SET_PDEATHSIG; it outlives execv
    "if os.getppid() != int(sys.argv[1]): os._exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody uses now. Taken all at once, so that they differ.

    From below the range that the system gives to outgoing connections, where that is known: while a node is down one
    of those might take its port.
    """
    probes: list[socket.socket] = []
    try:
        while len(probes) < count:
            probe = socket.socket()
            probes.append(probe)
            try:
                probe.bind(("127.0.0.1", _listening_port()))
            except OSError:
                probes.pop().close()
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _listening_port() -> int:
    """A port to try; 0, any, where the system does not say which are for outgoing connections."""
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
    return random.randrange(FIRST_PORT, lowest) if lowest >= 2 * FIRST_PORT else 0


@dataclass
class LocalNode:
    """One node, running or not."""

    name: str
    client_addr: str
    peer_addr: str
    data_dir: Path
    log_path: Path
    arguments: list[str] = field(default_factory=list)
    source: Path = Path(__file__).resolve().parents[2]
    """The tree it runs from: this one, but where two are compared."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None


class LocalCluster:
    """Nodes n1, n2, ... and the directory that holds all they leave behind."""

    start_seconds = START_SECONDS
    launcher = DIE_WITH_PARENT
    """Linux only: a program that gets our process id and a command, and becomes that command."""

    def __init__(
        self,
        nodes: int = 3,
        *,
        parent_dir: Path | None = None,
        options: tuple[str, ...] = (),
        may_outlive: bool = False,
        tls: bool = False,
    ) -> None:
        """``parent_dir``: where the temporary directory is made. ``options``: more for ``lattice start``.
        ``may_outlive``: nodes do not die with this process; who never closes the cluster leaves it running.
        ``tls``: with an authority and certificates of its own, mutual TLS on every port."""
        self._may_outlive = may_outlive
        self.directory = Path(tempfile.mkdtemp(prefix="lattice-", dir=parent_dir))
        self.tls: ClientTLS | None = None
        """What a client needs; None: plain text."""
        ports = free_ports(2 * nodes)
        peers = {f"n{number + 1}": f"127.0.0.1:{ports[2 * number + 1]}" for number in range(nodes)}
        initial_cluster = ",".join(f"{name}={addr}" for name, addr in peers.items())
        self.nodes: dict[str, LocalNode] = {}
        for number, (name, peer_addr) in enumerate(peers.items()):
            node = LocalNode(
                name,
                f"127.0.0.1:{ports[2 * number]}",
                peer_addr,
                self.directory / name,
                self.directory / f"{name}.log",
            )
            node.arguments = [
                *("--name", name, "--data-dir", str(node.data_dir)),
                *("--client-addr", node.client_addr, "--peer-addr", peer_addr),
                *("--initial-cluster", initial_cluster, *options),
            ]
            self.nodes[name] = node
        if tls:
            self._make_certificates()

    @property
    def certificates(self) -> Path:
        """Where they are, if there are any."""
        return self.directory / "certs"

    def _make_certificates(self) -> None:
        from lattice_cli import cert_files

        directory, days = self.certificates, 7
        cert_files.make_authority(directory, days + 1)
        ca = directory / "ca.pem"
        for node in self.nodes.values():
            made = cert_files.make_node(directory, node.name, (), days)
            own = ("cert", str(made.certificate)), ("key", str(made.key)), ("ca", str(ca))
            for name, path in own:
                node.arguments += [f"--peer-tls-{name}", path, f"--tls-{'client-ca' if name == 'ca' else name}", path]
        client = cert_files.make_client(directory, "demo", days)
        self.tls = ClientTLS(ca, client.certificate, client.key)

    def joiner(self, name: str, *options: str) -> LocalNode:
        """A further server, to join those that there are; not started yet."""
        client_port, peer_port = free_ports(2)
        node = LocalNode(
            name,
            f"127.0.0.1:{client_port}",
            f"127.0.0.1:{peer_port}",
            self.directory / name,
            self.directory / f"{name}.log",
        )
        node.arguments = [
            *("--name", name, "--data-dir", str(node.data_dir)),
            *("--client-addr", node.client_addr, "--peer-addr", node.peer_addr),
            *("--join", self.endpoints, *options),
        ]
        self.nodes[name] = node
        return node

    @property
    def endpoints(self) -> str:
        """Every node's client address, comma-separated."""
        return ",".join(node.client_addr for node in self.nodes.values())

    async def start(self, *names: str) -> None:
        """Start these (all, without any) and wait until each serves. Raises Unavailable with a node's last
        words if it does not."""
        nodes = [self.nodes[name] for name in names or self.nodes]
        offsets = {node.name: node.log_path.stat().st_size if node.log_path.exists() else 0 for node in nodes}
        for node in nodes:
            self._spawn(node)
        async with asyncio.timeout(self.start_seconds):
            for node in nodes:
                await self._until_ready(node, offsets[node.name])

    def kill(self, name: str) -> None:
        """SIGKILL, and wait for the process to be gone: as a power failure of one machine."""
        process = self.nodes[name].process
        if process is not None:
            process.kill()
            process.wait()

    async def close(self) -> None:
        """Stop what runs, in good order if that is quick, and remove the directory. Idempotent."""
        running = [node.process for node in self.nodes.values() if node.process is not None]
        try:
            for process in running:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_SECONDS):
                while any(process.poll() is None for process in running):  # noqa: ASYNC110 - Popen has no event
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            pass
        finally:
            self.kill_all()

    def kill_all(self) -> None:
        """No process and no directory left behind, at once."""
        for node in self.nodes.values():
            if node.running:
                self.kill(node.name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, node: LocalNode) -> list[str]:
        """What runs a node. For subclasses: the same under a profiler, say."""
        return [sys.executable, "-m", "lattice_cli", "start", *node.arguments]

    def _spawn(self, node: LocalNode) -> None:
        command = self.command(node)
        if sys.platform == "linux" and not self._may_outlive:
            command = [sys.executable, "-I", "-S", "-c", self.launcher, str(os.getpid()), *command]
        # Settings of the caller's environment are meant for other nodes than these.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(node.source), environment.get("PYTHONPATH")]))
        with node.log_path.open("ab") as log:
            node.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.directory,
                # Ctrl-C in the terminal is for whoever owns the cluster, not for each node.
                start_new_session=True,
            )

    async def _until_ready(self, node: LocalNode, offset: int) -> None:
        """Read the log from ``offset`` until the ready line is there."""
        assert node.process is not None
        while True:
            ended = node.process.poll()
            with node.log_path.open("rb") as log:
                if _has_ready_line(log, offset):
                    return
            if ended is not None:
                said = node.log_path.read_bytes()[offset:].decode(errors="replace")
                raise Unavailable(f"{node.name} did not start (exit code {ended}): {reason_in(said)}")
            await asyncio.sleep(POLL_SECONDS)


def reason_in(said: str) -> str:
    """Why a node ended, by what it has said: the last error, else the last line that is none of its log's."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if _LEVELS_OF_ERRORS.match(line) and ": what to do: " not in line]
    others = [line for line in lines if not line.startswith("ready ") and not _RECORD.match(line)]
    told = [line for line in others if line.startswith("error: ")] or errors or others
    return told[-1] if told else "it gave no reason"


def _has_ready_line(log: IO[bytes], offset: int) -> bool:
    log.seek(offset)
    return any(line.startswith(b"ready ") and line.endswith(b"\n") for line in log)


class DemoFailed(LatticeError):
    """Something that the cluster promises did not hold."""

    exit_code = 1
