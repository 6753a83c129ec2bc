"""The end of a run: nothing fails any more, and the cluster must come together, and then agree.

Within a bound of simulated time the clients have their answers, the changes of membership that were under way are
finished, and a write is taken (liveness); then every key is read once more, so that the checker sees what became of
each write, and the members must have one state and one membership. At last they are left alone for a while:
servers that were removed, and still run, must not cause an election (SAFETY 35).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.sim.clients import SimClient
from lattice_core.sim.drawing import SLOW_NETWORK_US
from lattice_core.sim.violation import Violation
from lattice_core.verify.history import Operation

if TYPE_CHECKING:
    from lattice_core.sim.node import SimNode
    from lattice_core.sim.world import World

HEAL_BOUND_MS: Final = 30_000
"""An election or two, a client's deadline, and the slowest disk's backlog."""
CHANGES_BOUND_MS: Final = 120_000
"""What was under way, and of a story that must be told to its end all that is left of it."""
CALM_MS: Final = 5_000
_READ_BY_CLIENT: Final = 50
_BOUND_NS: Final = HEAL_BOUND_MS * MILLISECOND_NS


def heal(world: World) -> None:
    """Everything of the module's docstring. Raises Violation."""
    world.note(0, "the world heals")
    if world.recorder is not None:
        world.recorder.healed_ns = world.now_ns
    world.nemesis.rest()
    world.operator.rest()
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
    _finish_changes(world)
    reader = _read_back(world)
    members = _require_agreement(world)
    _read_the_rest(world, members[0], reader)
    _require_calm(world)


def _finish_changes(world: World) -> None:
    operator = world.operator
    if operator.busy:
        bound_ns = world.now_ns + CHANGES_BOUND_MS * MILLISECOND_NS
        if not world.run_until(bound_ns, lambda: not operator.busy):
            raise Violation(
                "progress",
                f"{CHANGES_BOUND_MS} ms after healing, changes of membership are not over: "
                f"{', '.join(operator.under_way)}",
            )


def _read_back(world: World) -> SimClient:
    """A write, and a read of every recent key."""
    reader = SimClient(world, world.plan.callers)
    reader.stopped = True
    reader.patience_ms = HEAL_BOUND_MS
    world.clients.append(reader)
    keys = sorted({operation.key for operation in world.history})
    for key in [b"after-healing", *keys[-_READ_BY_CLIENT:]]:
        if key == b"after-healing":
            reader.call("put", key, b"here", None, "write")
        else:
            reader.call("get", key, None, None, "read")
        world.run_until(world.now_ns + _BOUND_NS, lambda: not reader.busy)
        if reader.busy or world.history[-1].outcome != "ok":
            raise Violation("progress", f"after healing, {world.history[-1].op} of {key!r} found no answer")
    return reader


def _require_agreement(world: World) -> list[SimNode]:
    """Everybody in the newest committed configuration who is not dead for good; removed servers are on their own."""

    def agreed() -> bool:
        final = world.operator.committed
        if final.is_joint:
            return False
        states = set()
        for node in _members(world):
            raft = node.raft
            if raft is None or raft.configuration != final or raft.configuration_index > raft.commit_index:
                return False
            states.add((node.machine.applied_index, node.machine.state_hash))
        return len(states) == 1

    if not agreed() and not world.run_until(world.now_ns + _BOUND_NS, agreed):
        states = ", ".join(
            f"n{node.id} applied {node.machine.applied_index} with the configuration of {node.raft.configuration_index}"
            if node.raft is not None
            else f"n{node.id} is down"
            for node in _members(world)
        )
        raise Violation("convergence", f"{HEAL_BOUND_MS} ms after healing the members differ: {states}")
    members = _members(world)
    for node in members:
        node.machine.check()
    return members


def _members(world: World) -> list[SimNode]:
    final = world.operator.committed
    return [node for node in world.nodes.values() if node.id in final and not node.dead_for_good]


def _read_the_rest(world: World, member: SimNode, reader: SimClient) -> None:
    """Every other key, from the state that all members share: nothing is written any more, so this is what a client
    would read. So every write that was ever acknowledged is looked for."""
    keys = sorted({operation.key for operation in world.history})
    for key in keys[: -_READ_BY_CLIENT - 1]:
        found = member.machine.store.get(key)
        world.record(
            Operation(
                process=reader.process,
                op="get",
                key=key,
                value=None,
                expected=None,
                result=None if found is None else found.value,
                swapped=None,
                call_ns=world.now_ns,
                return_ns=world.now_ns,
                outcome="ok",
                deleted=None,
            )
        )


def _require_calm(world: World) -> None:
    """Nothing is wrong any more, so nobody should campaign; where messages take as long as timeouts, somebody may."""
    network = world.plan.network
    if network.delay_mean_us >= SLOW_NETWORK_US:
        return
    before, leader = world.invariants.elections, world.leader()
    world.run_until(world.now_ns + CALM_MS * MILLISECOND_NS)
    if world.invariants.elections != before:
        new = world.leader()
        raise Violation(
            "needless-election",
            f"nothing is wrong any more, and there is an election: {_name(leader)} led, now {_name(new)} does",
        )


def _name(node: SimNode | None) -> str:
    return "nobody" if node is None else f"n{node.id}"
