"""Carries a plan out on a cluster, and makes good again what it did.

Every fault is a task of its own that cleans up after itself however it ends. Faults in one node take turns: what
comes while another one has the node waits for the next of the plan. A fault that cannot be had on this machine is
passed over, counted, and told.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from lattice_cli.chaos import damage, syscalls
from lattice_cli.chaos.links import Weather
from lattice_cli.chaos.nodes import EXIT_REMOVED, ChaosCluster
from lattice_cli.chaos.plan import KINDS, LEADER, Fault, Plan
from lattice_cli.chaos.watch import Watch
from lattice_core.client import AsyncClient
from lattice_core.errors import LatticeError

TRANSFER_SECONDS: Final = 5.0
REMOVE_SECONDS: Final = 8.0
TOLD_SECONDS: Final = 3.0
"""Until a removed member that can be reached hears of it and ends."""

JOIN_ATTEMPTS: Final = 3
"""A node that has yet to be let in asks for half a minute and gives up."""

LEADER_SECONDS: Final = 2.0
"""How long a fault that is meant for the leader waits for one to be known."""

EXIT_FATAL: Final = 3
"""What a node exits with when its disk fails or is damaged (CLI.md)."""

Pairs = list[tuple[str, str]]


class Passed(Exception):
    """This fault was not carried out; says why."""


class Nemesis:
    """Call :meth:`run`, then :meth:`heal`. ``tell`` gets a line for each thing done, ``violation`` what may not be."""

    def __init__(
        self,
        plan: Plan,
        cluster: ChaosCluster,
        watch: Watch,
        client: AsyncClient,
        tell: Callable[[str], None],
        violation: Callable[[str], None],
    ) -> None:
        self.done: Counter[str] = Counter()
        """Faults carried out, by kind."""
        self.passed: Counter[str] = Counter()
        """Faults passed over, by kind and reason."""
        self.costly = 0
        """Of those carried out, the ones that were to cost a leader its place."""
        self.active: dict[int, str] = {}
        """What is wrong just now, for a live view."""
        self._plan = plan
        self._cluster = cluster
        self._links = cluster.links
        self._watch = watch
        self._client = client
        self._tell = tell
        self._violation = violation
        self._busy: set[str] = set()
        self._hit_leader: set[int] = set()
        self._no_injection: str | None = None
        # Members are removed one at a time: two at once may be more than a quorum can spare.
        self._rejoining = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "kill-all": self._kill_all,
            "power": self._power,
            "power-all": self._power_all,
            "pause": self._pause,
            "restart": self._restart,
            "transfer": self._transfer,
            "rejoin": self._rejoin,
            "fsync-error": self._fsync_error,
            "kill-in-fsync": self._kill_in_fsync,
            "slow-disk": self._slow_disk,
            "disk-full": self._disk_full,
            "bit-flip": self._bit_flip,
            "truncate": self._truncate,
            "few-descriptors": self._few_descriptors,
            "isolate": self._isolate,
            "split": self._split,
            "one-way": self._one_way,
            "mute": self._mute,
            "deaf": self._deaf,
            "bridge": self._bridge,
            "delay": self._delay,
            "reset": self._reset,
            "refuse": self._refuse,
            "half-close": self._half_close,
        }
        assert self._handlers.keys() == KINDS.keys()

    async def run(self) -> None:
        """The whole plan; returns at its end, with faults still under way."""
        if any(fault.kind in _NEEDS_STRACE for fault in self._plan.faults):
            self._no_injection = await syscalls.why_not()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, fault in enumerate(self._plan.faults):
            await asyncio.sleep(max(0.0, began + fault.at_ms / 1000 - loop.time()))
            task = asyncio.ensure_future(self._carry_out(number, fault))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(max(0.0, began + self._plan.seconds - loop.time()))

    async def heal(self) -> None:
        """Lift everything, have every node run."""
        with contextlib.ExitStack() as stack:
            # What is cancelled leaves nodes down that were to be started later.
            for name in self._cluster.names:
                stack.enter_context(self._cluster.expecting(name))
            await self.stop()
            for name in self._cluster.names:
                self._cluster.resume(name)
            down = [name for name, node in self._cluster.nodes.items() if not node.running]
            await asyncio.gather(*(self._start(name) for name in down))

    async def stop(self) -> None:
        """No fault is under way any more, and those that were are taken back; nodes may be down. Safe to repeat."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.active.clear()

    async def keep_members(self) -> None:
        """Start again, as new ones, nodes that hear only now that they have been removed. Until cancelled."""
        while True:
            for name in self._cluster.names:
                if self._cluster.was_removed(name):
                    with self._cluster.expecting(name):
                        await self._start(name)
            await asyncio.sleep(0.2)

    async def _carry_out(self, number: int, fault: Fault) -> None:
        self.active[number] = fault.kind
        try:
            await self._handlers[fault.kind](fault)
            self.done[fault.kind] += 1
            least_ms = KINDS[fault.kind].costs_leadership_ms
            if least_ms is not None and fault.for_ms >= least_ms and id(fault) in self._hit_leader:
                self.costly += 1
        except Passed as reason:
            self.passed[f"{fault.kind}: {reason}"] += 1
        except asyncio.CancelledError:
            self.done[fault.kind] += 1
            raise
        except Exception as error:
            self._violation(f"the harness failed in a {fault.kind} fault: {type(error).__name__}: {error}")
        finally:
            self.active.pop(number, None)

    # -- whom -------------------------------------------------------------------------------------

    async def _name(self, number: int) -> str:
        """The member meant. Raises Passed if it is the leader and none is known."""
        if number != LEADER:
            return self._cluster.names[number - 1]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEADER_SECONDS):
                while (leader := self._watch.leader()) is None:  # noqa: ASYNC110 - it is others that look
                    await asyncio.sleep(0.05)
                return leader
        raise Passed("there was no leader")

    async def _target(self, fault: Fault) -> str:
        """The member that the fault is meant for. Raises Passed."""
        name = await self._name(fault.node)
        self._aimed(fault, name)
        return name

    def _aimed(self, fault: Fault, name: str) -> None:
        if name == self._watch.leader():
            self._hit_leader.add(id(fault))
        else:
            self._hit_leader.discard(id(fault))

    def _others(self, name: str) -> list[str]:
        return [other for other in self._cluster.names if other != name]

    @contextlib.asynccontextmanager
    async def _one(self, fault: Fault) -> AsyncIterator[str]:
        """The node meant (or another, if it is taken), which has no other fault within while the block runs, and may
        be down."""
        name = await self._target(fault)
        if name in self._busy:
            free = [other for other in self._others(name) if other not in self._busy]
            if not free:
                raise Passed("every node had another fault")
            name = free[fault.draw % len(free)]
            self._aimed(fault, name)
        self._busy.add(name)
        try:
            with self._cluster.expecting(name):
                try:
                    yield name
                except Passed:
                    # It may have come after all: a tracer takes a moment to let go, and the last fsync fails then.
                    if not self._cluster.nodes[name].running:
                        await self._start(name)
                    raise
                if not self._cluster.nodes[name].running:
                    await self._start(name)
        finally:
            self._busy.discard(name)

    def _note(self, fault: Fault, text: str) -> None:
        self._tell(f"{fault.kind}: {text}")

    async def _start(self, name: str, attempts: int = JOIN_ATTEMPTS) -> None:
        """Start a node that has to start: at once, or, if it has yet to be let in, when there is somebody to do it."""
        if self._cluster.was_removed(name):
            self._cluster.begin_anew(name)
        joins = bool({"--join", "--reseed"} & set(self._cluster.nodes[name].arguments))
        try:
            while True:
                code = await self._cluster.try_start(name)
                if self._cluster.was_removed(name):
                    self._cluster.begin_anew(name)  # it was down when it was removed, and hears of it now
                    joins = True
                elif code is None or not joins or attempts <= 1:
                    break
                attempts -= 1
        except TimeoutError:
            self._violation(
                f"{name} was started and was neither ready nor gone in time: {self._cluster.last_words(name)}"
            )
            return
        if code is not None:
            self._violation(f"{name} did not start again, exit code {code}: {self._cluster.last_words(name)}")

    # -- nodes ------------------------------------------------------------------------------------

    async def _kill(self, fault: Fault) -> None:
        async with self._one(fault) as name:
            self._note(fault, f"{name} for {fault.for_ms} ms")
            self._cluster.kill(name)
            await _ms(fault.for_ms)

    async def _power(self, fault: Fault) -> None:
        async with self._one(fault) as name:
            self._cluster.kill(name)
            lost = self._cluster.lose_unsynced(name, random.Random(fault.draw))
            self._note(fault, f"{name} for {fault.for_ms} ms, {lost} sectors lost")
            await _ms(fault.for_ms)

    async def _power_all(self, fault: Fault) -> None:
        """SAFETY 24."""
        await self._all_at_once(fault, random.Random(fault.draw))

    async def _kill_all(self, fault: Fault) -> None:
        await self._all_at_once(fault, None)

    async def _all_at_once(self, fault: Fault, power: random.Random | None) -> None:
        free = [name for name in self._cluster.names if name not in self._busy]
        if len(free) < len(self._cluster.names):
            raise Passed("another fault had a node")
        self._busy.update(free)
        try:
            with contextlib.ExitStack() as stack:
                for name in free:
                    stack.enter_context(self._cluster.expecting(name))
                self._hit_leader.add(id(fault))
                self._note(fault, f"every node for {fault.for_ms} ms")
                for name in free:
                    self._cluster.kill(name)
                if power is not None:
                    lost = [self._cluster.lose_unsynced(name, power) for name in free]
                    self._note(fault, f"{', '.join(map(str, lost))} sectors lost")
                await _ms(fault.for_ms)
                await asyncio.gather(*(self._start(name) for name in free))
        finally:
            self._busy.difference_update(free)

    async def _pause(self, fault: Fault) -> None:
        async with self._one(fault) as name:
            self._note(fault, f"{name} for {fault.for_ms} ms")
            self._cluster.pause(name)
            try:
                await _ms(fault.for_ms)
            finally:
                self._cluster.resume(name)

    async def _restart(self, fault: Fault) -> None:
        async with self._one(fault) as name:
            if not self._cluster.nodes[name].running:
                raise Passed("the node was down")
            self._note(fault, name)
            code = await self._cluster.terminate(name)
            if code is None:
                self._violation(f"{name} was sent SIGTERM and did not end: {self._cluster.last_words(name)}")
                self._cluster.kill(name)
            elif code != 0:
                self._violation(f"{name} ended with exit code {code} after SIGTERM: {self._cluster.last_words(name)}")
            await _ms(fault.for_ms)

    async def _transfer(self, fault: Fault) -> None:
        target = await self._name(fault.other)
        self._note(fault, f"to {target}")
        try:
            await self._client.transfer_leader(target, timeout=TRANSFER_SECONDS)
        except LatticeError as error:
            raise Passed("it was refused") from error

    async def _rejoin(self, fault: Fault) -> None:
        async with self._one(fault) as name:
            self._note(fault, name)
            await self._replaced(name)

    async def _replaced(self, name: str) -> None:
        """Have the member removed, and started again as a new one. Raises Passed if the cluster does not remove it
        now; it may do so later all the same, and the node then ends and is started anew when all is healed."""
        if self._rejoining.locked():
            raise Passed("another member was being replaced")
        async with self._rejoining:
            self._cluster.may_be_removed(name)
            try:
                await self._client.remove_server(name, timeout=REMOVE_SECONDS)
            except LatticeError as error:
                raise Passed("its removal was refused, or not known in time") from error
            if self._cluster.nodes[name].running:
                code = await self._cluster.wait(name, TOLD_SECONDS)
                if code is None:
                    self._cluster.kill(name)  # cut off, and has not heard of it
                elif code != EXIT_REMOVED:
                    words = self._cluster.last_words(name)
                    self._violation(f"{name} was removed and ended with exit code {code}, not {EXIT_REMOVED}: {words}")
            self._cluster.begin_anew(name)
            await self._start(name)

    # -- disks ------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _injected(self, name: str, calls: str, what: str) -> AsyncIterator[None]:
        if self._no_injection is not None:
            raise Passed(self._no_injection)
        pid = self._cluster.nodes[name].pid
        if pid is None or not self._cluster.nodes[name].running:
            raise Passed("the node was down")
        try:
            async with syscalls.injected(pid, calls, what):
                yield
        except syscalls.CannotInject as error:
            raise Passed(str(error)) from None

    async def _fsync_error(self, fault: Fault) -> None:
        """SAFETY 18: it ends at once, and says why."""
        async with self._one(fault) as name, self._injected(name, "fdatasync,fsync", "error=EIO"):
            self._note(fault, name)
            code = await self._cluster.wait(name, fault.for_ms / 1000)
            if code is None:
                raise Passed("nothing was synced meanwhile")
            words = self._cluster.said(name)
            if code != EXIT_FATAL or "EIO" not in words:
                self._violation(
                    f"{name} had an fsync fail and ended with exit code {code}, not {EXIT_FATAL} and a reason: "
                    f"{self._cluster.last_words(name)}"
                )

    async def _kill_in_fsync(self, fault: Fault) -> None:
        what = f"signal=KILL:when={fault.amount}"
        async with self._one(fault) as name, self._injected(name, "fdatasync", what):
            self._note(fault, f"{name}, at the {fault.amount}. one")
            if await self._cluster.wait(name, fault.for_ms / 1000) is None:
                raise Passed("so many were not synced meanwhile")

    async def _slow_disk(self, fault: Fault) -> None:
        what = f"delay_enter={fault.amount * 1000}"
        async with self._one(fault) as name, self._injected(name, "fdatasync", what):
            self._note(fault, f"{name}, {fault.amount} ms for {fault.for_ms} ms")
            await self._still_there(name, fault.for_ms)

    async def _disk_full(self, fault: Fault) -> None:
        """SAFETY 19: it goes on, acknowledges nothing that is not on disk, and recovers by itself."""
        async with self._one(fault) as name:
            async with self._injected(name, "fallocate", "error=ENOSPC"):
                before = len(self._cluster.said(name))
                self._note(fault, f"{name} for {fault.for_ms} ms")
                await self._still_there(name, fault.for_ms)
            if "the disk is full" not in self._cluster.said(name)[before:]:
                raise Passed("no segment was begun meanwhile")

    async def _still_there(self, name: str, for_ms: int) -> None:
        """Wait; the node must not end."""
        code = await self._cluster.wait(name, for_ms / 1000)
        if code is not None:
            self._violation(f"{name} ended by itself with exit code {code}: {self._cluster.last_words(name)}")

    async def _bit_flip(self, fault: Fault) -> None:
        await self._damaged(fault, damage.flip_bit)

    async def _truncate(self, fault: Fault) -> None:
        await self._damaged(fault, damage.cut_end)

    async def _damaged(self, fault: Fault, hurt: Callable[..., damage.Damage | None]) -> None:
        """SAFETY 17, 31: see :mod:`lattice_cli.chaos.damage`."""
        async with self._one(fault) as name:
            self._cluster.kill(name)
            self._cluster.forget_unsynced(name)
            done = hurt(self._cluster.nodes[name].data_dir, random.Random(fault.draw))
            if done is None:
                raise Passed("there was nothing to damage")
            self._note(fault, f"{name}: {done.text}")
            lives = self._cluster.lives(name)
            try:
                code = await self._cluster.try_start(name)
                if code is not None:
                    words = self._cluster.last_words(name)
                    self._note(fault, f"{name} refused to start: {words}")
                    if code != EXIT_FATAL or not _names(words, done):
                        self._violation(f"{name} refused damaged files, exit code {code}, with {words!r} ({done.text})")
                    if not await self._way_out(fault, name) and self._cluster.lives(name) == lives:
                        done.undo()
            except BaseException as error:
                self._cluster.kill(name)
                if self._cluster.lives(name) == lives:
                    done.undo()
                if not isinstance(error, TimeoutError):
                    raise
                self._violation(f"{name} started on damaged files and was neither ready nor gone in time ({done.text})")
            finally:
                done.forget()

    async def _way_out(self, fault: Fault, name: str) -> bool:
        """What the error says: half of the damaged come back as new members, if the cluster lets them in now."""
        if fault.draw % 2 or self._rejoining.locked():
            return False
        async with self._rejoining:
            self._cluster.reseed(name)
            code = await self._cluster.try_start(name)
            if code is not None:
                self._note(fault, f"{name} could not be reseeded: {self._cluster.last_words(name)}")
            return code is None

    async def _few_descriptors(self, fault: Fault) -> None:
        """SAFETY 49."""
        async with self._one(fault) as name:
            reason = syscalls.may_limit_descriptors()
            pid = self._cluster.nodes[name].pid
            if reason is not None or pid is None or not self._cluster.nodes[name].running:
                raise Passed(reason or "the node was down")
            self._note(fault, f"{name}, {fault.amount} for {fault.for_ms} ms")
            before = syscalls.limit_descriptors(pid, fault.amount)
            try:
                await self._still_there(name, fault.for_ms)
            finally:
                syscalls.restore_descriptors(pid, before)

    # -- network ----------------------------------------------------------------------------------

    async def _bent(self, fault: Fault, pairs: Pairs, weather: Weather, text: str) -> None:
        """These flows have this weather for a while. Half of the cuts end as they do where the network has forgotten
        the connections meanwhile: with a reset."""
        self._note(fault, f"{text} for {fault.for_ms} ms")
        with self._links.bent(pairs, weather):
            if weather.refused:
                self._links.reset(pairs)
            try:
                await _ms(fault.for_ms)
            finally:
                if weather.stalled and fault.draw % 2:
                    self._links.reset(pairs)

    async def _isolate(self, fault: Fault) -> None:
        name = await self._target(fault)
        pairs = [pair for other in self._others(name) for pair in ((name, other), (other, name))]
        await self._bent(fault, pairs, Weather(stalled=True), name)

    async def _split(self, fault: Fault) -> None:
        name = await self._target(fault)
        others = self._others(name)
        draw = random.Random(fault.draw)
        beside = draw.sample(others, draw.randrange(len(others)))
        left, right = [name, *beside], [other for other in others if other not in beside]
        pairs = [pair for one in left for two in right for pair in ((one, two), (two, one))]
        await self._bent(fault, pairs, Weather(stalled=True), f"{','.join(left)} from {','.join(right)}")

    async def _one_way(self, fault: Fault) -> None:
        name = await self._target(fault)
        other = self._cluster.names[fault.other - 1]
        if other == name:
            other = self._others(name)[fault.draw % len(self._others(name))]
        await self._bent(fault, [(name, other)], Weather(stalled=True), f"{name} to {other}")

    async def _mute(self, fault: Fault) -> None:
        name = await self._target(fault)
        await self._bent(fault, [(name, other) for other in self._others(name)], Weather(stalled=True), name)

    async def _deaf(self, fault: Fault) -> None:
        name = await self._target(fault)
        await self._bent(fault, [(other, name) for other in self._others(name)], Weather(stalled=True), name)

    async def _bridge(self, fault: Fault) -> None:
        """A leader is never the bridge, but on one side of it (SAFETY 7)."""
        name = await self._target(fault)
        others = self._others(name)
        bridge = others[fault.draw % len(others)]
        beyond = [other for other in others if other != bridge]
        random.Random(fault.draw).shuffle(beyond)
        left = [name, *beyond[: (len(beyond) - 1) // 2]]
        right = [other for other in beyond if other not in left]
        pairs = [pair for one in left for two in right for pair in ((one, two), (two, one))]
        await self._bent(fault, pairs, Weather(stalled=True), f"{','.join(left)} and {','.join(right)} by {bridge}")

    async def _delay(self, fault: Fault) -> None:
        name = await self._target(fault)
        seconds = fault.amount / 1000
        weather = Weather(delay_seconds=seconds, jitter_seconds=seconds / 4)
        await self._bent(fault, [(name, other) for other in self._others(name)], weather, f"{name}, {fault.amount} ms,")

    async def _reset(self, fault: Fault) -> None:
        name = await self._target(fault)
        pairs = [(name, other) for other in self._others(name)]
        self._note(fault, f"{name}, every {fault.amount} ms for {fault.for_ms} ms")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + fault.for_ms / 1000
        while True:
            self._links.reset(pairs)
            if loop.time() >= deadline:
                return
            await _ms(fault.amount)

    async def _refuse(self, fault: Fault) -> None:
        name = await self._target(fault)
        pairs = [pair for other in self._others(name) for pair in ((name, other), (other, name))]
        await self._bent(fault, pairs, Weather(refused=True), name)

    async def _half_close(self, fault: Fault) -> None:
        """Of a follower and the leader, one to the other: followers rarely speak to each other."""
        leader = await self._name(LEADER)
        follower = self._others(leader)[fault.draw % len(self._others(leader))]
        name, other = (leader, follower) if fault.node == LEADER else (follower, leader)
        if not self._links.half_close(name, other):
            raise Passed("there was no connection")
        self._note(fault, f"{name} to {other}")
        await _ms(fault.for_ms)


_NEEDS_STRACE: Final = frozenset({"fsync-error", "kill-in-fsync", "slow-disk", "disk-full"})


def _names(words: str, done: damage.Damage) -> bool:
    """Whether a refusal says where: the very file, or the directory where no whole file is left."""
    return str(done.path) in words or str(done.path.parent) in words


async def _ms(milliseconds: float) -> None:
    await asyncio.sleep(milliseconds / 1000)
