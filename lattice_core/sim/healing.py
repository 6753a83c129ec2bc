"""The end of a run: nothing fails any more, and the cluster must come together, and then agree.

Within a bound of simulated time the clients have their answers and a write is taken (liveness); then every key
is read once more, so that the checker sees what became of each write, and the nodes must have one state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.sim.clients import SimClient
from lattice_core.sim.invariants import Violation

if TYPE_CHECKING:
    from lattice_core.sim.world import World

HEAL_BOUND_MS: Final = 30_000
"""An election or two, a client's deadline, and the slowest disk's backlog."""
_BOUND_NS: Final = HEAL_BOUND_MS * MILLISECOND_NS


def heal(world: World) -> None:
    """Everything of the module's docstring. Raises Violation."""
    world.note(0, "the world heals")
    if world.recorder is not None:
        world.recorder.healed_ns = world.now_ns
    world.nemesis.rest()
    world.links.heal()
    for client in world.clients:
        client.stopped = True
    for node in world.nodes.values():
        node.fs.full = False
        node.fs.fail_next_sync = False
        node.slow_disk = 1.0
        node.garble_next = False
        node.crash_when = None
        if node.raft is None:
            node.start()
    world.run_until(world.now_ns + 2000 * MILLISECOND_NS)
    for node in world.nodes.values():  # who was to be started a little later
        if node.raft is None:
            node.start()
    if not world.run_until(world.now_ns + _BOUND_NS, lambda: not any(client.busy for client in world.clients)):
        raise Violation("progress", f"clients still wait {HEAL_BOUND_MS} ms after everything was healed")
    _read_back(world)
    _require_agreement(world)


def _read_back(world: World) -> None:
    """A write, and a read of every recent key."""
    reader = SimClient(world, world.plan.callers)
    reader.stopped = True
    world.clients.append(reader)
    keys = sorted({operation.key for operation in world.history})
    recent = keys if len(keys) <= 50 else keys[-50:]
    for key in [b"after-healing", *recent]:
        if key == b"after-healing":
            reader.call("put", key, b"here", None, "write")
        else:
            reader.call("get", key, None, None, "read")
        world.run_until(world.now_ns + _BOUND_NS, lambda: not reader.busy)
        if reader.busy or world.history[-1].outcome != "ok":
            raise Violation("progress", f"after healing, {world.history[-1].op} of {key!r} found no answer")


def _require_agreement(world: World) -> None:
    alive = [node for node in world.nodes.values() if not node.dead_for_good]

    def agreed() -> bool:
        states = {(node.machine.applied_index, node.machine.state_hash) for node in alive if node.raft is not None}
        return len(states) == 1 and all(node.raft is not None for node in alive)

    if not agreed() and not world.run_until(world.now_ns + _BOUND_NS, agreed):
        states = ", ".join(
            f"n{node.id} applied {node.machine.applied_index}" if node.raft is not None else f"n{node.id} is down"
            for node in alive
        )
        raise Violation("convergence", f"{HEAL_BOUND_MS} ms after healing the nodes differ: {states}")
    for node in alive:
        node.machine.check()
