"""A node as a process: ports, signals, an orderly end.

``run_node`` is what ``lattice start`` calls. It raises nothing for what goes wrong in operation: it logs one
line and returns the exit code. Before the node serves, errors are raised, for the command line to show.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import grpc

from lattice_core.addresses import parse_addr
from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError, LatticeError, ServerRemoved, StorageDamaged, StorageFailed
from lattice_core.rpc.aborts import BriefAborts
from lattice_core.rpc.options import client_server_options, peer_server_options
from lattice_core.rpc.transport import raft_handlers
from lattice_core.server import garbage, logs
from lattice_core.server.access import GatedHandlers
from lattice_core.server.access_service import AccessService
from lattice_core.server.allocator import limit_arenas
from lattice_core.server.backlog import shorten_backlog
from lattice_core.server.bootstrap import Admission, OpenedNode, create_joined, incarnation_to_join, open_in
from lattice_core.server.bounds import CallBound, connection_limits, raise_descriptor_limit
from lattice_core.server.cluster_service import ClusterService
from lattice_core.server.handshakes import HandshakeLog
from lattice_core.server.http_listener import HttpListener
from lattice_core.server.joining import ask_to_join, joining_handlers
from lattice_core.server.kv_service import KVService
from lattice_core.server.measured_calls import MeasuredHandlers
from lattice_core.server.monitoring import http_listener, introspection_handlers
from lattice_core.server.node import Node
from lattice_core.server.reseeding import former_cluster_id, reseed, tidy, way_back
from lattice_core.server.tls import NodeTLS
from lattice_core.server.tracing import tracer_for
from lattice_core.storage.descriptors import Reserve
from lattice_core.storage.filesystem import OfflineFileSystem, RealFileSystem
from lattice_core.storage.identity import DataDirectory, nothing_in

log = logging.getLogger("lattice.run")

SWITCH_INTERVAL_SECONDS = 0.0001
"""How long the storage thread may have to wait for the interpreter after an fsync, and the loop after that.
The default of 5 ms is several fsyncs."""

UNCOUNTED_CALLS = 1024
"""Beyond ``max_client_calls``, of which each is told the numbers: calls whose request has not come whole yet, and those
that are being refused. gRPC turns away what is above that, in fewer words."""

STOP_GRACE_SECONDS = 0.25
"""For answers that are written already to leave before connections are cut."""


class RunningNode:
    """A node with its two listeners, in this process. Tests start several on one loop."""

    def __init__(self, config: NodeConfig, fs: OfflineFileSystem | None = None) -> None:
        config.validate()
        self.config = config
        self._tls = NodeTLS(config)
        self._watching: asyncio.Task[None] | None = None
        self._fs: OfflineFileSystem = fs if fs is not None else RealFileSystem(Reserve())
        self._opened: OpenedNode | None = None
        self.node: Node
        self._kv: KVService
        self._servers: list[grpc.aio.Server] = []
        self._http: HttpListener | None = None
        self._started = False

    @property
    def has_tls(self) -> bool:
        """Whether one of its ports speaks TLS."""
        return bool(self._tls.listeners)

    async def start(self) -> None:
        """Open the directory, take the ports, take part. On an error everything is given back."""
        try:
            tracer = tracer_for(self.config)  # before anything is made that would stay
            self._opened = await self._open()
            self.node = Node(self.config, self._opened, self._tls, tracer)
            self._kv = KVService(self.node)
            self._require_ports()
            services = (
                self._kv.handlers(),
                ClusterService(self.node).handlers(),
                AccessService(self.node, self._kv.refusal).handlers(),
            )
            calls = CallBound(self.config.max_client_calls)
            client_limits, peer_limits = connection_limits(self.config)
            peer_server = grpc.aio.server(
                handlers=[
                    raft_handlers(
                        self.node.transport,
                        self.node.status,
                        self.node.snapshots.installer,
                        self.node.comparison.answer,
                    )
                ],
                options=peer_server_options(peer_limits),
                maximum_concurrent_rpcs=self.config.max_peer_calls,
            )
            client_server = grpc.aio.server(
                handlers=[
                    BriefAborts(GatedHandlers(each, self.node.gate, self.node.catch_up, self.node.metrics))
                    for each in (
                        *(MeasuredHandlers(each, self.node.metrics, calls) for each in services),
                        *introspection_handlers(self.node),
                    )
                ],
                options=client_server_options(client_limits),
                maximum_concurrent_rpcs=self.config.max_client_calls + UNCOUNTED_CALLS,
            )
            self._bind(peer_server, "--peer-addr", self._tls.peer_port())
            self._bind(client_server, "--client-addr", self._tls.client_port())
            self._servers = [client_server, peer_server]
            if self._tls.listeners:
                self._watching = asyncio.create_task(self._tls.watch(), name="certificates")
            await self._listen_for_metrics()
            await peer_server.start()
            await self.node.start()
            await self.node.caught_up_with_join()
            await client_server.start()
            self._started = True
        except BaseException:
            await self.kill()
            raise

    async def _open(self) -> OpenedNode:
        """The data directory, made if need be, or another one in its place if it is damaged and that is wanted."""
        config, fs = self.config, self._fs
        if config.reseed:
            tidy(fs, config.data_dir)
        try:
            return await self._open_as_it_is()
        except (StorageDamaged, ServerRemoved) as error:
            if not config.reseed:
                if isinstance(error, StorageDamaged):
                    error.hint = way_back(config)
                raise
            log.warning("%s", error)
            log.warning("%s comes back as a new member, by way of %s", config.name, config.reseed)
            self._require_ports()
            await reseed(config, fs, self._admission)
            return await self._open_as_it_is()

    async def _open_as_it_is(self) -> OpenedNode:
        """Blocking, on purpose on the loop: nothing else runs here before. To make one that joins, the cluster is
        asked first."""
        config, fs = self.config, self._fs
        if nothing_in(fs, config.data_dir):
            self._require_ports()  # while a start that fails leaves nothing behind, not even a directory with a lock
        directory = DataDirectory.open(fs, config.data_dir)
        try:
            if directory.identity is not None or not (config.join or config.reseed):
                return open_in(directory, config, fs, before_making=self._require_ports)
            self._require_ports()
            incarnations = incarnation_to_join(fs, directory)
            admission = await self._admission(incarnations.own)
            return create_joined(directory, config, fs, incarnations, admission)
        except BaseException:
            directory.close()
            raise

    async def _admission(self, incarnation: int) -> Admission:
        """Ask to be let in, and be there for the leader to look at meanwhile."""
        listener = grpc.aio.server(
            handlers=[joining_handlers(self.config, incarnation, self._tls.peers)],
            options=peer_server_options(connection_limits(self.config)[1]),
            maximum_concurrent_rpcs=self.config.max_peer_calls,
        )
        self._bind(listener, "--peer-addr", self._tls.peer_port())
        await listener.start()
        try:
            lost = former_cluster_id(self._fs, self.config.data_dir) if self.config.reseed else None
            return await ask_to_join(self.config, incarnation, self._tls, lost)
        finally:
            await listener.stop(STOP_GRACE_SECONDS)

    async def _listen_for_metrics(self) -> None:
        """Before the node takes part, so that whoever watches sees why it is not ready yet."""
        addr = self.config.metrics_addr
        if not addr:
            return
        self._http = http_listener(addr, self.node)
        try:
            await self._http.start()
        except OSError as error:
            raise _cannot_listen(addr, "--metrics-addr", (error.strerror or str(error)).lower()) from None
        log.info("metrics: http://%s/metrics, also /healthz and /readyz", addr)

    def _require_ports(self) -> None:
        addrs = {
            "--peer-addr": self.config.peer_addr,
            "--client-addr": self.config.client_addr,
            "--metrics-addr": self.config.metrics_addr,
        }
        for option, addr in addrs.items():
            if addr:
                _require_free(addr, option)

    def _bind(self, server: grpc.aio.Server, option: str, credentials: grpc.ServerCredentials | None) -> None:
        """With TLS if there are credentials. Raises ConfigurationError if the port cannot be had."""
        addr = {"--peer-addr": self.config.peer_addr, "--client-addr": self.config.client_addr}[option]
        try:
            bound = server.add_insecure_port(addr) if credentials is None else server.add_secure_port(addr, credentials)
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise _cannot_listen(addr, option, "somebody else took the address just now")
        shorten_backlog(bound, self.config.accept_backlog)

    def log_context(self) -> dict[str, Any]:
        """What every line of a JSON log says of this node."""
        if not hasattr(self, "node"):
            return {}
        return {"role": self.node.role_name(), "term": self.node.core.term}

    async def stop(self) -> None:
        """In good order: hand leadership over, let requests finish, within ``drain_seconds``; then close."""
        if self._started and not self.node.failed.done():
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self.config.drain_seconds
            self._kv.draining = self.node.readiness.draining = True
            await self.node.hand_over(max(0.0, deadline - loop.time()))
            await self.node.drain(max(0.0, deadline - loop.time()))
        await self._close(STOP_GRACE_SECONDS if self._started else 0)

    async def kill(self) -> None:
        """At once: nobody is told, nothing is waited for but the disk. Safe to repeat."""
        await self._close(None)

    async def _close(self, grace: float | None) -> None:
        self._started = False
        if self._http is not None:
            await self._http.close()
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        servers, self._servers = self._servers, []
        if servers:
            await servers[0].stop(grace)
        if hasattr(self, "node"):
            await self.node.stop()
        for server in servers[1:]:
            await server.stop(None)
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.incarnations.close()  # streams that have just ended may have begun to write
            opened.close()


def _require_free(addr: str, option: str) -> None:
    """Raises ConfigurationError, with the system's reason, if nobody can listen there now.

    gRPC would say no more than "failed", and a server of its that was bound and never started keeps its port.
    """
    host, port = parse_addr(addr, what=option)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: TIME_WAIT is no obstacle
            probe.bind(where)
    except OSError as error:
        raise _cannot_listen(addr, option, (error.strerror or str(error)).lower()) from None


def _cannot_listen(addr: str, option: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot listen on {addr} ({option}): {reason}",
        hint=f"stop what listens there, or choose another address with {option}",
    )


def tune_interpreter() -> None:
    """Process-wide settings of a server. See the constants."""
    limit_arenas()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    garbage.tune()
    raise_descriptor_limit()


async def run_node(config: NodeConfig, *, ready: Callable[[], None] | None = None) -> int:
    """Run a node until SIGTERM or SIGINT, or until it fails; the exit code.

    ``ready`` is called once it serves; by default the line ``ready name=... client=... peer=...`` goes to
    stderr. Raises LatticeError for what keeps it from starting (ports, directory, identity).
    """
    running = RunningNode(config)
    handshakes = HandshakeLog()
    if running.has_tls:
        handshakes.start()
    logs.set_up(config.name, config.log_level, config.log_format, running.log_context)
    tune_interpreter()
    loop = asyncio.get_running_loop()
    asked_to_stop: asyncio.Future[str] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if not asked_to_stop.done():
            asked_to_stop.set_result(number.name)
        else:
            os._exit(128 + number)  # asked twice: somebody is in a hurry

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, on_signal, number)
    try:
        starting = asyncio.ensure_future(running.start())  # joining and catching up may take their time
        await asyncio.wait((starting, asked_to_stop), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            log.info("%s: stopping before it was ready", asked_to_stop.result())
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
        starting.result()
        async with garbage.collected():
            if ready is not None:
                ready()
            else:
                print(ready_line(config), file=sys.stderr, flush=True)  # noqa: T201
            ends: list[asyncio.Future[Any]] = [asked_to_stop, running.node.failed]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if running.node.failed.done():
                return await _failed(running, running.node.failed.result())
            log.info("%s: handing over and stopping", asked_to_stop.result())
            await running.stop()
        log.info("stopped")
        return 0
    except StorageFailed as error:
        log.error("%s", error)
        return error.exit_code
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
        handshakes.stop()


async def _failed(running: RunningNode, error: LatticeError) -> int:
    """The reason is logged already. Let go of what can be let go of, quickly."""
    with contextlib.suppress(TimeoutError, StorageFailed):
        async with asyncio.timeout(1.0):
            await running.kill()
    if error.hint:
        log.error("what to do: %s", error.hint)
    return error.exit_code


def ready_line(config: NodeConfig) -> str:
    """The one line that says that a node serves (CLI.md)."""
    return f"ready name={config.name} client={config.client_addr} peer={config.peer_addr}"


def run(config: NodeConfig, *, ready: Callable[[], None] | None = None) -> int:
    """``run_node`` on an event loop of its own, uvloop where it exists."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(run_node(config, ready=ready))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_node(config, ready=ready))
