"""From a seed to a plan: settings, network, clocks, workload, faults and changes of membership.

Each part is drawn from a stream of its own, so that dropping a part changes nothing else; that is what makes a
failing plan shrinkable.

Swarm testing (Groce et al. 2012): each seed turns a random subset of the kinds of fault on, each at a random
rate, and half of them change the membership. A mix of everything all the time hides bugs: nodes that crash every
second never fill a log.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final

from lattice_core.errors import InvalidRequest
from lattice_core.sim.plan import (
    ASK,
    FAULT_KINDS,
    LEADER,
    MAX_AT_ONCE,
    MAX_DRIFT_PPM,
    MAX_NODES,
    MEMBERSHIP_FAULTS,
    Change,
    Clock,
    Fault,
    Membership,
    Network,
    Plan,
    Settings,
    Workload,
)

SLOW_NETWORK_US: Final = 20_000
MEMBERSHIP: Final = {
    "off": "members stay what they are",
    "random": "servers join, leave, replace each other, several changes at once",
    "journey": "one after the other: three voters become five, two are replaced, leadership is handed over five times, "
    "the leader is removed, three are left; a crash or cut waits in the middle of each",
}
"""How the membership changes."""


def draw_plan(
    seed: int,
    *,
    hours: float,
    nodes: int | None = None,
    plant: str | None = None,
    membership: str | None = None,
) -> Plan:
    """See :meth:`lattice_core.sim.plan.Plan.from_seed`."""
    if nodes is not None and not 1 <= nodes <= MAX_NODES:
        raise InvalidRequest(f"the simulator runs 1 to {MAX_NODES} nodes, not {nodes}")
    if hours <= 0:
        raise InvalidRequest(f"simulated time must be positive, not {hours} hours")
    if membership is not None and membership not in MEMBERSHIP:
        raise InvalidRequest(f"membership is one of {', '.join(MEMBERSHIP)}, not {membership!r}")
    draw = _stream(seed, "settings")
    count = nodes if nodes is not None else draw.choice((3, 3, 3, 4, 5, 5, 5))
    duration_ms = max(1000, round(hours * 3_600_000))
    network = _network(_stream(seed, "network"))
    settings = _settings(draw)
    workload = _workload(_stream(seed, "workload"))
    if network.delay_mean_us >= SLOW_NETWORK_US:
        # One entry in flight and quick retries would only pile up: an overload, not a fault.
        settings = dataclasses.replace(settings, max_append_bytes=1 << 20, max_inflight_appends=64)
        workload = dataclasses.replace(workload, attempt_ms=1500)
    churn = _stream(seed, "membership")
    drawn = churn.choices(("off", "random", "journey"), (45, 40, 15))[0]
    way = drawn if membership is None else membership
    habits = _habits(churn, way)
    if nodes is None and way == "journey":
        count = 3
    elif nodes is None and habits.min_voters == 1:
        count = churn.choice((1, 2, 3))
    habits = dataclasses.replace(habits, max_servers=max(7, count))
    changes: tuple[Change, ...] = ()
    moments: list[Fault] = []
    if way == "random":
        changes, moments = _changes(churn, count, habits, duration_ms)
    elif way == "journey":
        changes, moments = _journey(churn, duration_ms)
    places = habits.max_servers if changes else count
    flips = {"off": (count - 1) // 2, "random": 5, "journey": 1}[way]
    faults = _faults(_stream(seed, "faults"), places, duration_ms, flips=flips)
    return Plan(
        seed=seed,
        nodes=count,
        duration_ms=duration_ms,
        settings=settings,
        network=network,
        workload=workload,
        clocks=_clocks(_stream(seed, "clocks"), count),
        faults=tuple(sorted((*moments, *faults), key=lambda fault: (fault.at_ms, fault.kind))),
        changes=changes,
        membership=habits,
        plant=plant,
    )


def _stream(seed: int, name: str) -> random.Random:
    """A source of its own for each purpose; text seeds are hashed the same way in every process."""
    return random.Random(f"{seed}/{name}")


def _settings(draw: random.Random) -> Settings:
    return Settings(
        heartbeat_ms=draw.choice((50, 100, 100)),
        max_append_bytes=draw.choice((1, 400, 1 << 20)),
        max_inflight_appends=draw.choice((1, 4, 64)),
        segment_bytes=draw.choice((64 << 10, 128 << 10)),
        fsync_min_us=draw.choice((50, 200, 500)),
        fsync_mean_us=draw.choice((50, 300, 5000)),
        gather_us=draw.choice((10, 100, 2000)),
        session_ttl_ms=draw.choice((5_000, 3_600_000, 3_600_000)),
        snapshot_entries=draw.choice((30, 100, 200, 400)),
        keep_entries=draw.choice((0, 5, 100)),
    )


def _network(draw: random.Random) -> Network:
    delay_mean_us = draw.choice((50, 300, 300, 2000, 20_000, 80_000))
    return Network(
        delay_min_us=draw.choice((50, 200, 1000)),
        delay_mean_us=delay_mean_us,
        drop=draw.choice((0.0, 0.0, 0.001, 0.01, 0.05)),
        duplicate=draw.choice((0.0, 0.0, 0.01, 0.1)),
    )


def _workload(draw: random.Random) -> Workload:
    return Workload(
        clients=draw.randint(3, 6),
        keys=draw.randint(1, 6),
        think_ms=draw.choice((200, 350, 600)),
        lease_reads=draw.choice((0.0, 0.3, 0.9)),
        pinned_readers=draw.choice((0, 1, 2)),
        value_bytes=draw.choice((0, 0, 600, 3000)),
        follower_reads=draw.choice((0.0, 0.2, 0.5)),
        attempt_ms=draw.choice((150, 300, 700, 1500)),
    )


def _clocks(draw: random.Random, nodes: int) -> tuple[Clock, ...]:
    drifting = draw.random() < 0.5
    return tuple(
        Clock(draw.randint(0, 100_000_000), draw.randint(-MAX_DRIFT_PPM, MAX_DRIFT_PPM) if drifting else 0)
        for _ in range(nodes)
    )


_LASTING: Final = {
    "crash": (50, 5000),
    "stop": (50, 5000),
    "crash-all": (50, 3000),
    "pause": (50, 4000),
    "isolate": (300, 6000),
    "split": (300, 6000),
    "one-way": (300, 6000),
    "deaf": (300, 4000),
    "bridge": (500, 6000),
    "slow-link": (300, 8000),
    "slow-disk": (500, 8000),
    "enospc": (300, 5000),
    "isolate-after-append": (300, 4000),
    "crash-after-append": (50, 3000),
    "crash-in-write": (50, 3000),
    "isolate-after-commit": (300, 4000),
    "isolate-after-election": (300, 3000),
    "crash-after-election": (50, 2000),
    "crash-after-vote": (10, 600),
    "cut-after-transfer": (300, 3000),
    "delay-answers": (500, 4000),
    "eio": (50, 2000),
    "garble": (50, 2000),
    "bit-flip": (50, 500),
    "isolate-after-change": (300, 5000),
    "crash-after-change": (50, 4000),
    "pause-after-change": (300, 4000),
    "eio-after-change": (50, 2000),
    "split-joint": (500, 6000),
    "crash-before-answer": (5, 1000),
    "crash-joiner": (50, 3000),
    "isolate-joiner": (300, 5000),
    "cut-leaver": (2000, 15_000),
    "crash-leaver": (500, 15_000),
}


def _faults(draw: random.Random, places: int, duration_ms: int, *, flips: int) -> list[Fault]:
    """Faults that may strike anybody, named by one of ``places``."""
    kinds = [kind for kind in FAULT_KINDS if kind not in MEMBERSHIP_FAULTS and draw.random() < 0.45]
    # Each run also has calm stretches in it: faults come in waves.
    faults: list[Fault] = []
    flips_left = flips
    for kind in kinds:
        gap_ms = draw.choice((4_000, 10_000, 30_000)) * (10 if kind == "crash-all" else 1)
        at_ms = draw.expovariate(1 / gap_ms)
        while at_ms < duration_ms:
            fault = _fault(draw, kind, int(at_ms), places)
            at_ms += draw.expovariate(1 / gap_ms)
            if kind == "bit-flip":
                # At most a minority may lose its log for good: what is gone on a quorum is gone. Where members come
                # and go, the nemesis looks again before it strikes.
                if flips_left == 0:
                    continue
                flips_left -= 1
            faults.append(fault)
    return faults


def _fault(draw: random.Random, kind: str, at_ms: int, places: int) -> Fault:
    low, high = _LASTING.get(kind, (0, 0))
    node = draw.randint(1, places)
    other = draw.randint(1, places)
    if kind in ("isolate", "crash", "stop", "pause", "slow-disk", "deaf") and draw.random() < 0.4:
        node = LEADER
    if kind == "delay-answers":
        node = LEADER
    amount = {
        "slow-link": float(draw.choice((20, 100, 400, 1200))),
        "slow-disk": float(draw.choice((5, 50, 500))),
        "delay-answers": float(draw.choice((100, 400, 800))),
        "isolate-after-election": float(draw.choice((0, 0, 1, 5, 20, 100))),
        "crash-after-election": float(draw.choice((0, 0, 1, 5, 20, 100))),
        "isolate-after-change": float(draw.choice((0, 1, 2))),
        "crash-after-change": float(draw.choice((0, 1, 2))),
        "pause-after-change": float(draw.choice((0, 1, 2))),
        "eio-after-change": float(draw.choice((0, 1, 2))),
        "split-joint": float(draw.choice((0, 1))),
        "crash-before-answer": float(draw.choice((0, 1, 2))),
        "crash-joiner": float(draw.choice((0, 5, 50, 300))),
        "isolate-joiner": float(draw.choice((0, 5, 50, 300))),
    }.get(kind, 0.0)
    if kind == "crash-before-answer":
        other = draw.choice((0, 1))
        if draw.random() < 0.5:
            high = 60  # back before anybody has noticed, as a process is that its supervisor has restarted
    return Fault(at_ms, kind, node, other, draw.randint(low, high) if high else 0, amount)


# ---- membership -----------------------------------------------------------------------------------------

_GROWS: Final = ("add", "add-voter", "promote")
_SHRINKS: Final = ("remove-follower", "remove-leader", "remove-dead")
_STAYS: Final = (
    "add-learner",
    "remove-learner",
    "replace",
    "replace-dead",
    "several",
    "transfer",
    "transfer-astray",
    "astray",
)
_OF_ALL: Final = (
    "isolate-after-change",
    "crash-after-change",
    "pause-after-change",
    "eio-after-change",
    "crash-before-answer",
)
_OF_VOTERS: Final = (*_OF_ALL, "split-joint")
_OF_JOINERS: Final = ("crash-joiner", "isolate-joiner")
_OF_LEAVERS: Final = ("cut-leaver", "crash-leaver")
_MOMENTS: Final = {
    "add": (*_OF_VOTERS, *_OF_JOINERS),
    "add-learner": (*_OF_ALL, *_OF_JOINERS),
    "add-voter": (*_OF_VOTERS, *_OF_JOINERS),
    "promote": _OF_VOTERS,
    "remove-follower": (*_OF_VOTERS, *_OF_LEAVERS),
    "remove-leader": _OF_VOTERS,
    "remove-dead": _OF_VOTERS,
    "remove-learner": (*_OF_ALL, *_OF_LEAVERS),
    "transfer": ("cut-after-transfer",),
    "transfer-astray": (),
    "astray": (),
}
"""What can happen in the middle of each kind of change; of those not named, anything."""
_Drawn = tuple[tuple[Change, ...], list[Fault]]


def _habits(draw: random.Random, way: str) -> Membership:
    if way == "random":
        return Membership(
            at_once=draw.choice((1, 2, 3)),
            min_voters=draw.choice((1, 2, 2, 3)),
            patience_ms=draw.choice((10_000, 20_000, 40_000)),
            lag_entries=draw.choice((5, 20, 100)),
            looks=draw.choice((1, 3)),
        )
    if way == "journey":
        return Membership(at_once=1, min_voters=3, patience_ms=0, lag_entries=draw.choice((5, 20, 100)))
    return Membership()


def _changes(draw: random.Random, nodes: int, habits: Membership, duration_ms: int) -> _Drawn:
    """Any change at any time."""
    kinds = [kind for kind in (*_GROWS, *_SHRINKS, *_STAYS) if draw.random() < 0.6]
    kinds += [("add",), ("remove-follower",), ("replace",), ("several",)][draw.randrange(4)]
    moments = [kind for kind in MEMBERSHIP_FAULTS if draw.random() < 0.6]
    share = draw.choice((0.2, 0.5, 0.8))
    gap_ms = draw.choice((1_500, 4_000, 10_000))
    # From and to one voter: the smaller the cluster, the more of what can happen happens to the few.
    most = max(5, nodes) if habits.min_voters > 1 else draw.choice((2, 3, 5))
    changes: list[Change] = []
    faults: list[Fault] = []
    voters, learners = nodes, 0  # if all goes well
    at_ms = 1000 + draw.expovariate(1 / gap_ms)
    while at_ms < duration_ms:
        fits = [
            kind
            for kind in kinds
            if not (kind in _GROWS and voters >= most)
            and not (kind in _SHRINKS and voters <= habits.min_voters)
            and not (kind in ("promote", "remove-learner") and not learners)
            and not (kind == "add-learner" and learners > 1)
        ]
        if fits:
            change = _change(draw, draw.choice(fits), int(at_ms))
            changes.append(change)
            voters += (change.kind in _GROWS) - (change.kind in _SHRINKS)
            learners += (change.kind == "add-learner") - (change.kind in ("promote", "remove-learner"))
            if draw.random() < share:
                faults += _in_the_middle(draw, change, moments)
        at_ms += draw.expovariate(1 / gap_ms)
    return tuple(changes), faults


def _journey(draw: random.Random, duration_ms: int) -> _Drawn:
    """One long story, each step of it carried to its end; see :data:`MEMBERSHIP`."""
    kinds = ["add", "add", "replace", "replace", *["transfer"] * 5, "remove-leader", "remove-follower"]
    gap_ms = duration_ms * 0.85 / len(kinds)
    changes = tuple(_change(draw, kind, int(1000 + place * gap_ms)) for place, kind in enumerate(kinds))
    faults: list[Fault] = []
    for change in changes:
        faults += _in_the_middle(draw, change, MEMBERSHIP_FAULTS)
    return changes, faults


def _change(draw: random.Random, kind: str, at_ms: int) -> Change:
    return Change(
        at_ms,
        kind,
        pick=draw.randrange(60),
        count=draw.randint(1, MAX_AT_ONCE) if kind == "several" else 1,
        ask=draw.choices(ASK, (60, 25, 15))[0],
        linger_ms=draw.choice((0, 2000, 8000, 20_000)),
    )


def _in_the_middle(draw: random.Random, change: Change, moments: tuple[str, ...] | list[str]) -> list[Fault]:
    """A fault, rarely two, that waits for its moment in ``change``."""
    may = [
        kind for kind in _MOMENTS.get(change.kind, MEMBERSHIP_FAULTS) if kind in moments or kind == "cut-after-transfer"
    ]
    picked = draw.sample(may, min(len(may), draw.choice((1, 1, 1, 2))))
    return [_fault(draw, kind, change.at_ms, 1) for kind in picked]
