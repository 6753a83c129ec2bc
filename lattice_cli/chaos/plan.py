"""One seed, one schedule: what will go wrong, where, when, and for how long. Pure, and saved with every run.

Two tracks run side by side: one of faults in nodes and their disks, one of faults in the network between them. On
each a fault follows the last after a pause, so that the cluster is now whole, now hurt once, now hurt twice. Which
kinds take part is drawn as well (swarm testing: all of them all the time hide what a few of them find).

The same seed, seconds, nodes and kinds give the same schedule anywhere. What comes of it does not repeat: real
processes have real timing. A member that is meant is a number from 1, or LEADER: whoever leads at that moment.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lattice_core.errors import InvalidRequest

LEADER: Final = 0
MIN_NODES, MAX_NODES = 3, 9

FIRST_MS: Final = 1_000
"""Before the first fault: the workloads have begun by then."""

GAPS_MS: Final = (300, 2_500)
"""Between one fault's end and the next one's beginning on a track. An election takes half a second to two, the
start of a process about one: after the longer gaps the cluster is whole again, after the shorter ones it is not."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault."""

    text: str
    lasting_ms: tuple[int, int]
    network: bool = False
    costs_leadership_ms: int | None = None
    """Aimed at the leader for at least so long, it costs it its place; None: not reliably."""
    amounts: tuple[int, ...] = (0,)
    """What ``amount`` is drawn from; its unit is in the text."""
    weight: int = 2
    aims_at_leader: float = 0.5


_DEPOSED_MS: Final = 2_500
"""Two elections at their slowest."""

_ONCE_MS: Final = (2_000, 3_000)
"""Until the next fault on its track, for what takes as long as it takes: about the start of a node."""

KINDS: Final[dict[str, Kind]] = {
    "kill": Kind("kill -9, started again a while later", (50, 2500), costs_leadership_ms=0, weight=4),
    "kill-all": Kind("kill -9 of every node at once", (50, 800), costs_leadership_ms=0, weight=1),
    "power": Kind(
        "a node is killed and what it never synced is lost, by sectors", (50, 1500), costs_leadership_ms=0, weight=3
    ),
    "power-all": Kind("the same to every node at once", (50, 800), costs_leadership_ms=0, weight=1),
    "pause": Kind("SIGSTOP, SIGCONT a while later", (200, 4000), costs_leadership_ms=_DEPOSED_MS, weight=3),
    "restart": Kind("SIGTERM: leadership is handed over, exit code 0", (0, 500), costs_leadership_ms=0),
    "transfer": Kind("leadership is handed to another member", (0, 0), aims_at_leader=0),
    "rejoin": Kind(
        "a member is removed, and comes back as a new one with nothing", _ONCE_MS, costs_leadership_ms=0, weight=1,
        aims_at_leader=0.3,
    ),
    "fsync-error": Kind("the next fsync fails: the node has to stop at once", (3000, 5000), costs_leadership_ms=0),
    "kill-in-fsync": Kind(
        "kill -9 at the amount-th fdatasync from now", (3000, 5000), costs_leadership_ms=0, amounts=(1, 2, 5, 20)
    ),
    "slow-disk": Kind("every fdatasync takes amount ms longer", (1000, 4000), amounts=(20, 100, 400)),
    "disk-full": Kind("no room for a new segment of the log", (1500, 4000)),
    "bit-flip": Kind("one bit of a stopped node's log or snapshots is flipped", _ONCE_MS, costs_leadership_ms=0),
    "truncate": Kind("a stopped node's log or snapshot loses its end", _ONCE_MS, costs_leadership_ms=0),
    "few-descriptors": Kind("room for amount more descriptors", (1000, 4000), amounts=(0, 1, 3)),
    "isolate": Kind(
        "nothing gets to a node or away from it", (500, 5000), network=True, costs_leadership_ms=_DEPOSED_MS,
        weight=4, aims_at_leader=0.7,
    ),
    "split": Kind("two groups that do not hear each other", (500, 5000), network=True, weight=3),
    "one-way": Kind("nothing gets from one node to another", (500, 5000), network=True, weight=3),
    "mute": Kind("a node hears and is not heard", (500, 5000), network=True, costs_leadership_ms=_DEPOSED_MS),
    "deaf": Kind("a node is heard and does not hear", (500, 5000), network=True, costs_leadership_ms=_DEPOSED_MS),
    "bridge": Kind("two groups that only hear one node between them", (500, 5000), network=True),
    "delay": Kind("what a node sends takes amount ms longer", (500, 4000), network=True, amounts=(5, 50, 200, 600)),
    "reset": Kind("every connection of a node is reset, every amount ms", (0, 2000), network=True, amounts=(100, 500)),
    "refuse": Kind(
        "connections of a node are reset, new ones refused", (300, 3000), network=True,
        costs_leadership_ms=_DEPOSED_MS,
    ),
    "half-close": Kind("a node is told that another has no more to say", (0, 500), network=True),
}  # fmt: skip
"""In the order in which they are told."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``node`` and ``other`` are numbers from 1; ``node`` may be LEADER."""

    at_ms: int
    kind: str
    node: int
    other: int
    for_ms: int
    amount: int
    draw: int
    """For what is chosen only when it happens (a file, a byte, a bit): a seed of its own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module. Immutable."""

    seed: int
    nodes: int
    seconds: float
    workloads: tuple[str, ...]
    faults: tuple[Fault, ...]

    @classmethod
    def from_seed(
        cls,
        seed: int,
        *,
        nodes: int = 3,
        seconds: float = 30.0,
        workloads: Iterable[str],
        kinds: Iterable[str] | None = None,
    ) -> Plan:
        """Expand ``seed``. ``kinds``: only these, all of them; None: the seed chooses from all."""
        if not MIN_NODES <= nodes <= MAX_NODES:
            raise InvalidRequest(f"chaos runs {MIN_NODES} to {MAX_NODES} nodes, not {nodes}")
        if kinds is not None:
            chosen = tuple(dict.fromkeys(kinds))
            for kind in chosen:
                require_kind(kind)
        else:
            chosen = _swarm(random.Random(f"{seed}/kinds"))
        duration_ms = round(seconds * 1000)
        faults: list[Fault] = []
        for network in (False, True):
            track = [kind for kind in chosen if KINDS[kind].network is network]
            if track:
                draw = random.Random(f"{seed}/{'network' if network else 'nodes'}")
                faults += _track(draw, track, nodes, duration_ms)
        faults.sort(key=lambda fault: (fault.at_ms, fault.kind))
        return cls(seed, nodes, seconds, tuple(workloads), tuple(faults))

    def to_json(self) -> str:
        document: dict[str, Any] = dataclasses.asdict(self)
        document["faults"] = [dataclasses.asdict(fault) for fault in self.faults]
        return json.dumps({"lattice_chaos": 1, **document}, indent=1)


def require_kind(kind: str) -> None:
    """Raise InvalidRequest for what is no kind of fault."""
    if kind not in KINDS:
        raise InvalidRequest(f"chaos: there is no fault called {kind!r}", hint="lattice chaos --faults list")


def _swarm(draw: random.Random) -> tuple[str, ...]:
    """Some of each track, and always one of those that reliably cost a leader its place."""
    chosen = {draw.choice(("kill", "pause", "isolate"))}
    for network in (False, True):
        track = [kind for kind in KINDS if KINDS[kind].network is network]
        chosen.update(draw.sample(track, draw.randint(2, len(track) - 2)))
    return tuple(kind for kind in KINDS if kind in chosen)


def _track(draw: random.Random, kinds: Sequence[str], nodes: int, duration_ms: int) -> list[Fault]:
    faults = []
    at_ms = FIRST_MS + draw.randint(0, GAPS_MS[1])
    # Short runs, too, are to see a leader go: the first fault that can do it is aimed.
    aimed = False
    while at_ms < duration_ms:
        kind = draw.choices(kinds, [KINDS[kind].weight for kind in kinds])[0]
        facts = KINDS[kind]
        node, other = draw.sample(range(1, nodes + 1), 2)
        at_leader = draw.random() < facts.aims_at_leader
        for_ms = draw.randint(*facts.lasting_ms)
        if facts.costs_leadership_ms is not None and not aimed:
            at_leader = aimed = True
            for_ms = max(for_ms, facts.costs_leadership_ms)
        if at_leader:
            node = LEADER
        faults.append(Fault(at_ms, kind, node, other, for_ms, draw.choice(facts.amounts), draw.getrandbits(32)))
        at_ms += for_ms + draw.randint(*GAPS_MS)
    return faults
