"""The nodes under attack: real processes, and what can be done to one from outside.

Settings are small, so that a run of seconds begins segments, takes snapshots, and has followers that need one. Each
node dials the others through :class:`~lattice_cli.chaos.links.Links`.

A process that ends although nobody meant it to is a finding; so whoever ends one says so (:meth:`ChaosCluster.
expecting`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc

from lattice_cli.chaos import power
from lattice_cli.chaos.links import Links
from lattice_cli.demo.processes import DIE_WITH_PARENT, POLL_SECONDS, LocalCluster, LocalNode, reason_in
from lattice_core.rpc.credentials import open_channel
from lattice_core.tls import Material, load

SETTINGS = {
    "segment_bytes": 128 << 10,
    "snapshot_entries": 150,
    "snapshot_keep_entries": 40,
}

START_SECONDS = 60.0
"""Several nodes may start at once, under load, on few cores, with a slow disk on top."""

EXIT_REMOVED = 4
"""What a node exits with that is no member any more (CLI.md)."""

REMOVED = "was removed from its cluster"
"""And what it says then."""

STOP_SECONDS = 30.0
"""SIGTERM: five seconds to hand over and drain, and a disk that may be slow."""

_PTRACE = "ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1))\n"
"""PR_SET_PTRACER, any: where the kernel restricts ptrace to parents (Yama), strace may attach to this one."""


def _tls_options(arguments: list[str]) -> list[str]:
    """Those of a node's options that are about TLS, each with its file."""
    return [
        word
        for option, value in itertools.pairwise(arguments)
        if option.startswith(("--tls-", "--peer-tls-"))
        for word in (option, value)
    ]


class ChaosCluster(LocalCluster):
    """Call :meth:`prepare` before :meth:`start`, and in the end :meth:`end` (and :meth:`kill_all`, unless what is
    left behind is wanted)."""

    start_seconds = START_SECONDS
    launcher = DIE_WITH_PARENT.replace("if os.getppid()", _PTRACE + "if os.getppid()")

    def __init__(self, nodes: int, *, parent_dir: Path | None = None, tls: bool = False) -> None:
        super().__init__(nodes, parent_dir=parent_dir, tls=tls)
        self._material: Material | None = None
        if self.tls is not None:
            self._material = load(str(self.tls.ca), str(self.tls.cert), str(self.tls.key))
            for node in self.nodes.values():
                node.arguments += ["--tls-ca", str(self.tls.ca)]  # for those that come back as new members
        self.links = Links(self.nodes)
        self._expected: dict[str, int] = {}
        self._removable: set[str] = set()
        self.begun_anew: Counter[str] = Counter()
        """How often each node has lost everything it had."""
        self._paused: set[str] = set()
        self._life_began: dict[str, int] = {}
        self.power_may_fail = False
        """Nodes run on a filesystem that knows what is not synced. Set it before they are started."""

    async def prepare(self) -> None:
        """Open the proxies and write each node's settings."""
        await self.links.open({node.name: node.peer_addr for node in self.nodes.values()})
        for node in self.nodes.values():
            config = self.directory / f"{node.name}.toml"
            routes = {name: f'"{addr}"' for name, addr in self.links.routes(node.name).items()}
            lines = [f"{name} = {value}" for name, value in SETTINGS.items()]
            lines += ["[peer_routes]", *(f"{name} = {addr}" for name, addr in routes.items())]
            config.write_text("\n".join(lines) + "\n")
            node.arguments += ["--config", str(config)]

    async def end(self) -> None:
        """No process and no connection is left; the directory is."""
        for name in list(self._paused):
            self.resume(name)
        for node in self.nodes.values():
            if node.running:
                self.kill(node.name)
        await self.links.close()

    def open_channel(self, addr: str, options: list[tuple[str, int]]) -> grpc.aio.Channel:
        """To a client port, as one who shows a certificate where that is wanted."""
        return open_channel(addr, self._material, options)

    # -- what is known of them --------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.nodes)

    def awake(self) -> list[str]:
        """Who runs and is not paused."""
        return [name for name, node in self.nodes.items() if node.running and name not in self._paused]

    @contextlib.contextmanager
    def expecting(self, name: str) -> Iterator[None]:
        """While the block runs the node may end, and be down."""
        self._expected[name] = self._expected.get(name, 0) + 1
        try:
            yield
        finally:
            self._expected[name] -= 1

    def unexpected_ends(self) -> list[tuple[str, int, str]]:
        """Name, exit code and last words of those that have ended by themselves."""
        return [
            (name, node.process.returncode, self.last_words(name))
            for name, node in self.nodes.items()
            if node.process is not None
            and node.process.poll() is not None
            and not self._expected.get(name)
            and not self.was_removed(name)
        ]

    def may_be_removed(self, name: str) -> None:
        """The cluster was asked to remove it: whatever the answer was, it may hear of it at any time from now on."""
        self._removable.add(name)

    def was_removed(self, name: str) -> bool:
        """It has ended because it is no member any more; it can only come back by :meth:`begin_anew`."""
        process = self.nodes[name].process
        ended = name in self._removable and process is not None and process.poll() == EXIT_REMOVED
        # What a rule of the cluster refuses to let in just now ends with the same code, and is a member still.
        return ended and REMOVED in self.said(name)

    def begin_anew(self, name: str) -> None:
        """The next start is that of a new member: with nothing, and by asking the others to be let in."""
        node = self.nodes[name]
        assert not node.running
        self._removable.discard(name)
        self.begun_anew[name] += 1
        shutil.rmtree(node.data_dir, ignore_errors=True)
        self.forget_unsynced(name)
        others = ",".join(other.client_addr for other in self.nodes.values() if other is not node)
        # A reseeding whose answer was lost may have left a member that never came: only another one replaces that.
        way = "--reseed" if "--reseed" in node.arguments else "--join"
        node.arguments = [
            *("--name", name, "--data-dir", str(node.data_dir)),
            *("--client-addr", node.client_addr, "--peer-addr", node.peer_addr),
            *("--config", str(self.directory / f"{name}.toml"), way, others),
            *_tls_options(node.arguments),
        ]

    def reseed(self, name: str) -> None:
        """The next start is to bring it back as a new member if its data is damaged; the option stays."""
        node = self.nodes[name]
        assert not node.running
        self.may_be_removed(name)
        if "--reseed" not in node.arguments:
            others = ",".join(other.client_addr for other in self.nodes.values() if other is not node)
            node.arguments += ["--reseed", others]

    def lives(self, name: str) -> int:
        """How many members' data this node has had, or is about to: what was done to a former one's files is over."""
        archived = list(self.nodes[name].data_dir.glob("before-recovery-*"))
        return self.begun_anew[name] + len(archived) + (self.nodes[name].data_dir / "changing").exists()

    def said(self, name: str) -> str:
        """What the node has said in its present, or last, life."""
        node = self.nodes[name]
        if not node.log_path.exists():
            return ""
        with node.log_path.open("rb") as file:
            file.seek(self._life_began.get(name, 0))
            return file.read().decode(errors="replace")

    def last_words(self, name: str) -> str:
        """Why it ended, in its own words, if it said."""
        return reason_in(self.said(name))

    # -- power ------------------------------------------------------------------------------------

    def command(self, node: LocalNode) -> list[str]:
        if not self.power_may_fail:
            return super().command(node)
        # By way of env: the journal's name is this node's alone.
        variable = f"{power.JOURNAL_VARIABLE}={self._journal(node.name)}"
        return ["/usr/bin/env", variable, sys.executable, "-m", "lattice_cli.chaos.power", "start", *node.arguments]

    def _journal(self, name: str) -> Path:
        return self.directory / f"{name}.unsynced"

    def lose_unsynced(self, name: str, draw: random.Random) -> int:
        """It has been killed, and the power with it: how many sectors are lost."""
        assert not self.nodes[name].running
        return power.lose_unsynced(self._journal(name), draw)

    def forget_unsynced(self, name: str) -> None:
        """Its files are about to be changed by us: what is not synced in them stays."""
        self._journal(name).unlink(missing_ok=True)

    # -- what can be done to one ------------------------------------------------------------------

    def pause(self, name: str) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        node = self.nodes[name]
        if node.running:
            assert node.pid is not None
            self._paused.add(name)
            os.kill(node.pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        node = self.nodes[name]
        self._paused.discard(name)
        if node.running:
            assert node.pid is not None
            os.kill(node.pid, signal.SIGCONT)

    async def terminate(self, name: str) -> int | None:
        """SIGTERM; the exit code, None if it does not end."""
        node = self.nodes[name]
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)
        return await self.wait(name, STOP_SECONDS)

    async def wait(self, name: str, seconds: float) -> int | None:
        """The exit code, once it has ended; None if it does not within ``seconds``."""
        process = self.nodes[name].process
        assert process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while process.poll() is None:  # noqa: ASYNC110 - Popen has no event
                    await asyncio.sleep(POLL_SECONDS)
        return process.poll()

    async def try_start(self, name: str) -> int | None:
        """Start it: None once it serves, else the code with which it ended. Raises TimeoutError for neither."""
        node = self.nodes[name]
        self.spawn(name)
        async with asyncio.timeout(START_SECONDS):
            while True:
                code = node.process.poll() if node.process is not None else None
                if any(line.startswith("ready ") for line in self.said(name).splitlines()):
                    return None
                if code is not None:
                    return code
                await asyncio.sleep(POLL_SECONDS)

    def spawn(self, name: str) -> None:
        """Start it, and do not wait."""
        self._spawn(self.nodes[name])

    def _spawn(self, node: LocalNode) -> None:
        self._life_began[node.name] = node.log_path.stat().st_size if node.log_path.exists() else 0
        self._paused.discard(node.name)
        super()._spawn(node)
