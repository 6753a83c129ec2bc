"""The network: a link for each ordered pair of servers, each with its own delay, loss, copies and cuts.

Clients reach servers over links of their own, which fail only with the server.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, TypeAlias

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.raft.messages import Message
from lattice_core.raft.types import NodeId
from lattice_core.sim.service import Answer, Request

if TYPE_CHECKING:
    from lattice_core.sim.world import World

Pair: TypeAlias = tuple[NodeId, NodeId]
"""A directed link: (sender, receiver)."""
_TRACE = struct.Struct("<QBIQ")


class Links:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._settings = world.plan.network
        self._chance = world.stream("links")
        self._cuts: dict[Pair, int] = {}
        self._extra_ns: dict[Pair, int] = {}

    # ---- between servers ----------------------------------------------------------------------------

    def transmit(self, message: Message) -> None:
        world = self.world
        link = (message.sender, message.to)
        settings, chance = self._settings, self._chance
        if self._cuts and link in self._cuts:
            self._lost(message)
            return
        if settings.drop and chance.random() < settings.drop:
            self._lost(message)
            return
        delay_ns = int((settings.delay_min_us + chance.expovariate(1 / settings.delay_mean_us)) * 1000)
        if self._extra_ns:
            delay_ns += self._extra_ns.get(link, 0)
        world.later(delay_ns, self.deliver, message)
        if world.recorder is not None:
            world.recorder.sent(world.now_ns, world.now_ns + delay_ns, message)
        if settings.duplicate and chance.random() < settings.duplicate:
            late = chance.random() < settings.late_copies
            extra_us = 1_000_000 if late else 10 * settings.delay_mean_us
            extra_ns = int(chance.expovariate(1 / extra_us) * 1000)
            world.later(delay_ns + extra_ns, self.deliver, message)
            if world.recorder is not None:
                world.recorder.sent(world.now_ns, world.now_ns + delay_ns + extra_ns, message)

    def connected(self, sender: NodeId, to: NodeId) -> bool:
        """Whether the link is up in both directions, as a stream needs it."""
        return (sender, to) not in self._cuts and (to, sender) not in self._cuts

    def _lost(self, message: Message) -> None:
        if self.world.recorder is not None:
            self.world.recorder.sent(self.world.now_ns, None, message)

    def deliver(self, message: Message) -> None:
        world = self.world
        node = world.nodes.get(message.to)
        if node is None or node.raft is None:
            return
        if node.paused_until_ns > world.now_ns:
            world.at(node.paused_until_ns, self.deliver, message)
            return
        world.hash.update(_TRACE.pack(world.now_ns, 1, message.to, message.term * 4096 + message.sender))
        node.receive(message)

    # ---- clients ------------------------------------------------------------------------------------

    def submit(self, target: NodeId, request: Request) -> None:
        """A client's request is on its way; clients' links fail with their node only."""
        self.world.later(self._client_delay_ns(), self._arrive, (target, request))

    def _arrive(self, item: tuple[NodeId, Request]) -> None:
        target, request = item
        world = self.world
        node = world.nodes.get(target)
        if node is None or node.raft is None:
            return
        if node.paused_until_ns > world.now_ns:
            world.at(node.paused_until_ns, self._arrive, item)
            return
        world.trace(2, target, request.client * 1_000_000 + request.attempt)
        node.service.request(request)

    def answer(self, answer: Answer) -> None:
        world = self.world
        world.later(self._client_delay_ns(), world.clients[answer.client].on_answer, answer)

    def _client_delay_ns(self) -> int:
        return int((200 + self._chance.expovariate(1 / 300)) * 1000)

    # ---- what fails ---------------------------------------------------------------------------------

    def cut(self, pairs: list[Pair], for_ns: int) -> None:
        world = self.world
        for pair in pairs:
            self._cuts[pair] = self._cuts.get(pair, 0) + 1
        if world.recorder is not None:
            world.recorder.cut(world.now_ns, world.now_ns + for_ns, pairs)
        world.later(for_ns, self._mend, pairs)

    def cut_item(self, item: tuple[list[Pair], int]) -> None:
        """:meth:`cut` as an event."""
        self.cut(*item)

    def _mend(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            left = self._cuts.get(pair, 0) - 1
            if left > 0:
                self._cuts[pair] = left
            else:
                self._cuts.pop(pair, None)

    def slow(self, pairs: list[Pair], milliseconds: float, for_ns: int) -> None:
        for pair in pairs:
            self._extra_ns[pair] = int(milliseconds * MILLISECOND_NS)
        self.world.later(for_ns, self._unslow, pairs)

    def _unslow(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self._extra_ns.pop(pair, None)

    def heal(self) -> None:
        """Every cut ends, nothing is slow or lost any more, and copies do not come seconds late: those of a leader that
        is gone would go on being heard. Delays stay, and copies that come soon."""
        self._cuts.clear()
        self._extra_ns.clear()
        self._settings = dataclasses.replace(self._settings, drop=0.0, late_copies=0.0)

    def all_of(self, node: NodeId) -> list[Pair]:
        """Every link from or to ``node``."""
        return [pair for other in self.world.nodes if other != node for pair in ((node, other), (other, node))]

    def between(self, left: list[NodeId], right: list[NodeId]) -> list[Pair]:
        """Every link from one side to the other, in both directions."""
        return [pair for a in left for b in right for pair in ((a, b), (b, a))]
