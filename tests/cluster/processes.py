"""Clusters of real processes on loopback, for tests: start, kill -9, SIGSTOP, SIGCONT, SIGTERM.

Each node is ``python -m lattice_cli start ...`` in a process group of its own, so that a signal reaches it and
what it may have started, and nothing else; only groups that were started here are ever signalled. On Linux a node
also dies with the thread that started it, should the test process be killed before it can clean up: so start
nodes from the main thread only.

Everything waits for conditions, with generous limits: the machine may be busy with something else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc

from lattice_core.errors import LatticeError
from lattice_core.rpc.pb import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc, raft_pb2

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]

START_SECONDS = 60.0
"""Until "ready". Alone it takes about a second; beside other test runs on two cores, several."""

EVENTUALLY_SECONDS = 40.0
POLL_SECONDS = 0.02
COMMAND_SECONDS = 60.0
LOG_TAIL_LINES = 60

SEGMENT_BYTES = 1 << 20
"""Small, so that a run of a few seconds begins new segments, and a dozen clusters do not fill the disk."""

LIVE: list[LocalCluster] = []
"""Clusters that exist now: where a failing test's logs are."""

_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))\n"  # PR_SET_PDEATHSIG; it outlives execv
    "if os.getppid() != int(sys.argv[1]): os._exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


# --- waiting ----------------------------------------------------------------------------------------


def eventually(condition: Callable[[], T], what: str, within: float = EVENTUALLY_SECONDS) -> T:
    """Poll until the condition is true, and return what it returned.

    An unreachable node, a Lattice error or a failed assertion is "not yet"; the last one is told on failure.
    """
    deadline = time.monotonic() + within
    while True:
        last: object
        try:
            last = found = condition()
            if found:
                return found
        except (grpc.RpcError, LatticeError, AssertionError) as error:
            last = _brief(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:g} s; the last attempt gave {last!r}")
        time.sleep(POLL_SECONDS)


def _brief(error: BaseException) -> str:
    details = getattr(error, "details", None)
    return f"{type(error).__name__}: {details() if callable(details) else error}"


# --- commands and processes -------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody uses now. Taken all at once, so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def free_addr() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings that are meant for other nodes, and with this source tree."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "NO_COLOR": "1",
        "XDG_CONFIG_HOME": str(ROOT / "tests"),  # whoever runs the tests may have contexts
        **more,
    }


def lattice(
    *arguments: str,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    through: tuple[str, ...] = (),
) -> Finished:
    """Run one command of the real CLI to its end; ``through``: a command that executes the one it is given."""
    began = time.monotonic()
    done = subprocess.run(
        [*through, sys.executable, "-m", "lattice_cli", *arguments],
        input=stdin,
        capture_output=True,
        timeout=COMMAND_SECONDS,
        env=environment(**(env or {})),
        cwd=cwd,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr.decode(), time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command said, and how it ended."""

    code: int
    out: bytes
    err: str
    seconds: float

    def the_error(self) -> str:
        """The one line on stderr. Fails if there is any other."""
        assert "Traceback" not in self.err, self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, f"not one line on stderr: {self.err!r}"
        assert lines[0].startswith("error: "), lines[0]
        return lines[0]


def spawn(
    command: list[str], *, output: Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """A process in a group of its own, output appended to a file, that does not survive this one (Linux)."""
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
    with output.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(**(env or {})),
            cwd=cwd,
            start_new_session=True,
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process that :func:`spawn` started and to its group, and wait for it. Safe to repeat."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: macOS, for a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- nodes ------------------------------------------------------------------------------------------


@dataclass
class LocalNode:
    """One member, running, paused or neither."""

    name: str
    client_addr: str
    peer_addr: str
    data_dir: Path
    log_path: Path
    arguments: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    paused: bool = False
    log_offset: int = 0
    """Where in the log file the present life begins."""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def wal_dir(self) -> Path:
        return self.data_dir / "wal"

    def log(self) -> str:
        """What it has said in its present (or last) life."""
        with self.log_path.open("rb") as file:
            file.seek(self.log_offset)
            return file.read().decode(errors="replace")

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A connection of its own to the client port: no other's backoff is in play."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        channel = grpc.insecure_channel(self.client_addr, options=options)
        try:
            yield channel
        finally:
            channel.close()

    def status(self, timeout: float = 2.0) -> raft_pb2.MemberStatus:
        """This very member's own account. Raises grpc.RpcError."""
        with self.channel() as channel:
            stub: Any = cluster_pb2_grpc.ClusterStub(channel)
            return stub.NodeStatus(cluster_pb2.NodeStatusRequest(), timeout=timeout)

    def read(self, key: bytes, consistency: int = kv_pb2.CONSISTENCY_LINEARIZABLE, timeout: float = 5.0) -> Any:
        """The value as this very member answers, None if there is none. Raises grpc.RpcError."""
        with self.channel() as channel:
            stub: Any = kv_pb2_grpc.KVStub(channel)
            request = kv_pb2.GetRequest(key=key, consistency=consistency)  # type: ignore[arg-type]
            answer = stub.Get(request, timeout=timeout)
            return answer.found.value if answer.HasField("found") else None


class LocalCluster:
    """A static cluster n1, n2, ... in ``directory``. A context manager: at its end no process is left."""

    def __init__(self, directory: Path, size: int = 3, *, options: tuple[str, ...] = ()) -> None:
        """``options``: more for every ``lattice start``."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * size)
        peers = {f"n{number + 1}": f"127.0.0.1:{ports[size + number]}" for number in range(size)}
        self.initial_cluster = ",".join(f"{name}={addr}" for name, addr in peers.items())
        self.nodes: dict[str, LocalNode] = {}
        self.gone: list[LocalNode] = []
        """Those that were removed, for their logs."""
        for number, (name, peer_addr) in enumerate(peers.items()):
            node = LocalNode(name, f"127.0.0.1:{ports[number]}", peer_addr, directory / name, directory / f"{name}.log")
            node.arguments = [
                *("--name", name, "--data-dir", str(node.data_dir)),
                *("--client-addr", node.client_addr, "--peer-addr", peer_addr),
                *("--initial-cluster", self.initial_cluster, *options),
            ]
            self.nodes[name] = node

    def __enter__(self) -> LocalCluster:
        LIVE.append(self)
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> LocalNode:
        return self.nodes[name]

    @property
    def endpoints(self) -> str:
        """Every member's client address."""
        return ",".join(node.client_addr for node in self.nodes.values())

    def newcomer(self, name: str, *options: str) -> LocalNode:
        """A server that is to join, by the members that there are; not started yet."""
        client, peer = free_ports(2)
        node = LocalNode(
            name,
            f"127.0.0.1:{client}",
            f"127.0.0.1:{peer}",
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

    def left(self, name: str) -> int:
        """It was removed: wait until it has ended by itself, and count it no longer. Its exit code."""
        code = self.until_ended(name)
        self.gone.append(self.nodes.pop(name))
        return code

    def others(self, *names: str) -> list[str]:
        return [name for name in self.nodes if name not in names]

    # -- faults -------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start these (all, without any), each by the same command as ever, and wait until they serve."""
        for name in names or self.nodes:
            self.spawn(name)
        for name in names or self.nodes:
            self.until_ready(name)

    def spawn(self, name: str) -> LocalNode:
        """Start it, and do not wait."""
        node = self.nodes[name]
        assert not node.running, f"{name} runs already"
        node.log_offset = node.log_path.stat().st_size if node.log_path.exists() else 0
        node.paused = False
        node.process = spawn(
            [sys.executable, "-m", "lattice_cli", "start", *node.arguments],
            output=node.log_path,
            env={"LATTICE_SEGMENT_BYTES": str(SEGMENT_BYTES)},
            cwd=self.directory,
        )
        return node

    def until_ready(self, name: str) -> None:
        node = self.nodes[name]

        def ready() -> bool:
            ended = not node.running
            said = node.log()
            if any(line.startswith("ready ") for line in said.splitlines(keepends=True) if line.endswith("\n")):
                return True
            if ended:
                raise RuntimeError(f"{name} ended with {node.process and node.process.returncode}: {said}")
            return False

        eventually(ready, f"{name} says that it is ready", START_SECONDS)

    def until_ended(self, name: str) -> int:
        """Wait for it to end by itself; its exit code."""
        process = self.nodes[name].process
        assert process is not None
        return process.wait(START_SECONDS)

    def kill(self, *names: str) -> None:
        """SIGKILL, all of them at once, and wait until they are gone."""
        for name in names:
            os.killpg(self.nodes[name].pid, signal.SIGKILL)
        for name in names:
            kill_group(self._process(name))

    def pause(self, *names: str) -> None:
        """SIGSTOP: connections stay open, nothing is answered. Returns when they stand still."""
        for name in names:
            os.killpg(self.nodes[name].pid, signal.SIGSTOP)
            self.nodes[name].paused = True
        for name in names:
            os.waitid(os.P_PID, self.nodes[name].pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self, *names: str) -> None:
        """SIGCONT."""
        for name in names:
            os.killpg(self.nodes[name].pid, signal.SIGCONT)
            self.nodes[name].paused = False

    def terminate(self, name: str) -> int:
        """SIGTERM; the exit code."""
        process = self._process(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(START_SECONDS)

    def close(self) -> None:
        """Kill whatever runs; remove the data and keep the logs."""
        for node in (*self.nodes.values(), *self.gone):
            if node.process is not None:
                kill_group(node.process)
            shutil.rmtree(node.data_dir, ignore_errors=True)
        if self in LIVE:
            LIVE.remove(self)

    def _process(self, name: str) -> subprocess.Popen[bytes]:
        process = self.nodes[name].process
        assert process is not None, f"{name} was never started"
        return process

    # -- conditions ---------------------------------------------------------------------------------

    def awake(self) -> list[LocalNode]:
        return [node for node in self.nodes.values() if node.running and not node.paused]

    def leader(self) -> str:
        """Who leads, as soon as all that run and are not paused agree on it and it has committed in its term."""
        return eventually(self._agreed_leader, "a leader that every member awake knows")

    def _agreed_leader(self) -> str | None:
        statuses = [node.status() for node in self.awake()]
        leading = [status for status in statuses if status.role == "leader"]
        if len(leading) != 1 or any(status.leader_id != leading[0].node_id for status in statuses):
            return None
        (leader,) = leading
        return leader.name if leader.applied_index == leader.commit_index > 0 else None

    def healed(self) -> str:
        """Wait until every member runs, follows one leader and has applied what was committed; the leader."""
        goal = {"leader": self.leader()}
        commit = self.nodes[goal["leader"]].status().commit_index

        def caught_up() -> bool:
            assert len(self.awake()) == len(self.nodes), "a member does not run"
            goal["leader"] = self._agreed_leader() or ""
            return bool(goal["leader"]) and all(node.status().applied_index >= commit for node in self.awake())

        eventually(caught_up, "every member has caught up")
        return goal["leader"]

    def mend(self) -> None:
        """Resume whoever is paused, start whoever does not run, and wait until all is well."""
        self.resume(*[name for name, node in self.nodes.items() if node.running and node.paused])
        stopped = [name for name, node in self.nodes.items() if not node.running]
        if stopped:
            self.start(*stopped)
        self.healed()

    def same_state(self) -> int:
        """Wait until all members have applied the same index; their state hashes must be one. That hash."""

        def at_one_index() -> list[raft_pb2.MemberStatus]:
            statuses = [node.status() for node in self.nodes.values()]
            return statuses if len({status.applied_index for status in statuses}) == 1 else []

        statuses = eventually(at_one_index, "all members have applied the same index")
        hashes = {status.name: f"{status.state_hash:016x}" for status in statuses}
        assert len(set(hashes.values())) == 1, f"at index {statuses[0].applied_index} the states differ: {hashes}"
        return statuses[0].state_hash

    def log_tails(self) -> list[tuple[str, str]]:
        """Per node, the end of its log: for the report of a failed test."""
        tails = []
        for node in (*self.nodes.values(), *self.gone):
            if node.log_path.exists():
                lines = node.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
                state = "paused" if node.paused else "running" if node.running else "not running"
                tails.append((f"log of {node.name} ({state})", "\n".join(lines)))
        return tails
