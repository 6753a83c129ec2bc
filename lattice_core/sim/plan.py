"""A plan: everything that a run depends on, written out.

A seed expands to a plan, and the plan alone decides the run. Faults, workload and settings are drawn
from separate streams, so that dropping a fault changes nothing else; that is what makes a failing plan
shrinkable: first faults, then nodes, then time.

Swarm testing (Groce et al. 2012): each seed turns a random subset of the kinds of fault on, each at a random
rate. A mix of everything all the time hides bugs: nodes that crash every second never fill a log.

Times are milliseconds of the world's clock. A node is named by its number, 1 to ``nodes``; 0 means whoever
leads at that moment.
"""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass, field
from typing import Any, Final

from lattice_core.errors import InvalidRequest

PLAN_VERSION: Final = 1
LEADER: Final = 0
MAX_NODES: Final = 9
SLOW_NETWORK_US: Final = 20_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at ``at_ms``, for ``for_ms`` where it lasts. See :data:`FAULT_KINDS`."""

    at_ms: int
    kind: str
    node: int = LEADER
    other: int = 0
    for_ms: int = 0
    amount: float = 0.0


FAULT_KINDS: Final[dict[str, str]] = {
    "crash": "power loss of a node for a while: unsynced data is lost or torn",
    "stop": "kill -9 of a node's process for a while: the kernel keeps what was written",
    "crash-all": "power loss everywhere at once",
    "pause": "a node stands still for a while (SIGSTOP, a stalled virtual machine)",
    "isolate": "a node hears nobody and is heard by nobody",
    "split": "the nodes up to `node` on one side, the rest on the other",
    "one-way": "messages from `node` to `other` are lost",
    "deaf": "a node can send but not receive",
    "bridge": "two halves that can only talk to `node`",
    "slow-link": "messages from `node` to `other` take `amount` ms longer",
    "slow-disk": "a node's fsync takes `amount` times as long",
    "eio": "a node's next fsync fails",
    "enospc": "a node's disk is full for a while",
    "bit-flip": "a node loses power and one bit of its log or snapshots, at rest, is flipped",
    "garble": "the next command that a node applies is read wrongly from memory",
    "transfer": "leadership is handed to `other`",
    "isolate-after-append": "the leader is cut off as soon as it has appended what is not committed",
    "crash-after-append": "the leader loses power as soon as it has appended what is not committed",
    "isolate-after-election": "whoever is elected next is cut off `amount` ms later",
    "crash-after-election": "whoever is elected next loses power `amount` ms later",
    "isolate-after-commit": "the leader is cut off as soon as its commit index moves, before anybody hears of it",
    "figure-8": "the paper's Figure 8: a leader is cut off with an entry, its successor with another, then the first "
    "again as soon as it has committed",
    "hold-votes": "votes are copied, and the copies arrive when the candidate runs again",
    "crash-in-write": "a follower loses power between write and fsync",
    "crash-after-vote": "a node loses power just after it has given its vote",
    "cut-after-transfer": "the leader is cut off just after it has sent TimeoutNow, but for the target",
    "delay-answers": "answers to the leader take `amount` ms longer, then it is cut off",
}
"""Every kind of fault, with what it does."""


@dataclass(frozen=True, slots=True)
class Network:
    """Every directed link; times in microseconds."""

    delay_min_us: int = 200
    delay_mean_us: int = 300
    """The mean of what is added to the minimum, exponentially distributed; large values reorder."""
    drop: float = 0.0
    duplicate: float = 0.0
    late_copies: float = 0.3
    """The share of duplicates that come seconds late, long after what they answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The nodes' settings; times in milliseconds."""

    heartbeat_ms: int = 100
    election_min_ms: int = 500
    election_max_ms: int = 1000
    max_append_bytes: int = 1 << 20
    max_inflight_appends: int = 64
    segment_bytes: int = 64 << 10
    fsync_min_us: int = 200
    fsync_mean_us: int = 300
    gather_us: int = 100
    """How long a leader's proposals gather into one entry."""
    session_ttl_ms: int = 3_600_000
    snapshot_entries: int = 1000
    """A snapshot is taken when so many entries were applied since the last; 0: never."""
    keep_entries: int = 100
    """The tail of the log that is kept for slow followers."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A node's own clock against the world's."""

    offset_ms: int = 0
    drift_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients do; each is sequential, with a pause between its operations."""

    clients: int = 5
    keys: int = 6
    think_ms: int = 350
    """The mean pause, exponentially distributed."""
    epoch_ms: int = 60_000
    """Keys get new names after this long, so that one key's history stays short enough to check."""
    put: int = 40
    get: int = 40
    delete: int = 5
    cas: int = 15
    """Weights of the operations."""
    lease_reads: float = 0.3
    follower_reads: float = 0.2
    """Shares of the reads."""
    pinned_readers: int = 0
    """Further clients that only read, under the lease, and stay with the leader they know as long as it
    answers: what a client on the wrong side of a cut does."""
    value_bytes: int = 0
    """Values are padded to this length, so that one write spans many sectors."""
    attempt_ms: int = 700
    deadline_ms: int = 4000


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module's docstring. Immutable; ``dataclasses.replace`` makes variants."""

    seed: int
    nodes: int
    duration_ms: int
    settings: Settings = Settings()
    network: Network = Network()
    workload: Workload = Workload()
    clocks: tuple[Clock, ...] = ()
    faults: tuple[Fault, ...] = field(default=())
    plant: str | None = None
    """The planted bug to run with, by name; None: the product as it is."""

    @classmethod
    def from_seed(cls, seed: int, *, hours: float = 0.05, nodes: int | None = None, plant: str | None = None) -> Plan:
        """Expand ``seed``. ``nodes`` fixes their number; the same seed may then give other faults."""
        if nodes is not None and not 1 <= nodes <= MAX_NODES:
            raise InvalidRequest(f"the simulator runs 1 to {MAX_NODES} nodes, not {nodes}")
        if hours <= 0:
            raise InvalidRequest(f"simulated time must be positive, not {hours} hours")
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
        return cls(
            seed=seed,
            nodes=count,
            duration_ms=duration_ms,
            settings=settings,
            network=network,
            workload=workload,
            clocks=_clocks(_stream(seed, "clocks"), count),
            faults=_faults(_stream(seed, "faults"), count, duration_ms),
            plant=plant,
        )

    @property
    def callers(self) -> int:
        """All clients that run from the beginning."""
        return self.workload.clients + self.workload.pinned_readers

    def to_json(self) -> str:
        document = {"lattice_plan": PLAN_VERSION, **dataclasses.asdict(self)}
        document["faults"] = [
            {name: value for name, value in dataclasses.asdict(fault).items() if value or name in ("at_ms", "kind")}
            for fault in self.faults
        ]
        return json.dumps(document, indent=1)

    @classmethod
    def from_json(cls, text: str, *, source: str = "plan") -> Plan:
        """Raises InvalidRequest, one line that names ``source``, for damage or another version."""
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidRequest(f"{source} is not a plan: {error}") from None
        if not isinstance(document, dict) or "lattice_plan" not in document:
            raise InvalidRequest(f"{source} is not a plan: there is no field lattice_plan")
        version = document.pop("lattice_plan")
        if version != PLAN_VERSION:
            raise InvalidRequest(f"{source} has plan version {version!r}, this program reads {PLAN_VERSION}")
        try:
            plan = cls(
                seed=_int(document.pop("seed"), "seed"),
                nodes=_int(document.pop("nodes"), "nodes"),
                duration_ms=_int(document.pop("duration_ms"), "duration_ms"),
                settings=_load(Settings, document.pop("settings"), "settings"),
                network=_load(Network, document.pop("network"), "network"),
                workload=_load(Workload, document.pop("workload"), "workload"),
                clocks=tuple(_load(Clock, item, "clocks") for item in document.pop("clocks")),
                faults=tuple(_load(Fault, item, "faults") for item in document.pop("faults")),
                plant=document.pop("plant", None),
            )
        except KeyError as error:
            raise InvalidRequest(f"{source} is not a whole plan: the field {error.args[0]!r} is missing") from None
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"{source} is not a valid plan: {error}") from None
        if document:
            raise InvalidRequest(f"{source} has a field that plans do not have: {sorted(document)[0]!r}")
        plan.validate(source)
        return plan

    def validate(self, source: str = "plan") -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise InvalidRequest(f"{source}: nodes is {self.nodes}, must be 1 to {MAX_NODES}")
        if self.duration_ms <= 0 or len(self.clocks) != self.nodes:
            raise InvalidRequest(f"{source}: duration must be positive, and clocks one for each node")
        for fault in self.faults:
            if fault.kind not in FAULT_KINDS:
                raise InvalidRequest(f"{source}: unknown kind of fault {fault.kind!r}")
            if not (0 <= fault.node <= self.nodes and 0 <= fault.other <= self.nodes):
                raise InvalidRequest(f"{source}: a {fault.kind} fault names a node beyond {self.nodes}")


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
        attempt_ms=draw.choice((300, 700, 1500)),
    )


def _clocks(draw: random.Random, nodes: int) -> tuple[Clock, ...]:
    # Within the bound that leases assume: any two differ by less than 5 % in rate.
    drifting = draw.random() < 0.5
    return tuple(
        Clock(draw.randint(0, 100_000_000), draw.randint(-20_000, 20_000) if drifting else 0) for _ in range(nodes)
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
}


def _faults(draw: random.Random, nodes: int, duration_ms: int) -> tuple[Fault, ...]:
    kinds = [kind for kind in FAULT_KINDS if draw.random() < 0.45]
    # Each run also has calm stretches in it: faults come in waves.
    faults: list[Fault] = []
    flips_left = (nodes - 1) // 2
    for kind in kinds:
        gap_ms = draw.choice((4_000, 10_000, 30_000)) * (10 if kind == "crash-all" else 1)
        at_ms = draw.expovariate(1 / gap_ms)
        while at_ms < duration_ms:
            fault = _fault(draw, kind, int(at_ms), nodes)
            at_ms += draw.expovariate(1 / gap_ms)
            if kind == "bit-flip":
                # At most a minority may lose its log for good: what is gone on a quorum is gone.
                if flips_left == 0:
                    continue
                flips_left -= 1
            faults.append(fault)
    faults.sort(key=lambda fault: (fault.at_ms, fault.kind))
    return tuple(faults)


def _fault(draw: random.Random, kind: str, at_ms: int, nodes: int) -> Fault:
    low, high = _LASTING.get(kind, (0, 0))
    node = draw.randint(1, nodes)
    other = draw.randint(1, nodes)
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
    }.get(kind, 0.0)
    return Fault(at_ms, kind, node, other, draw.randint(low, high) if high else 0, amount)


def _int(value: Any, name: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    return value


def _load(cls: type[Any], document: Any, where: str) -> Any:
    if not isinstance(document, dict):
        raise ValueError(f"{where} must be an object, not {document!r}")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for name, value in document.items():
        if name not in fields:
            raise ValueError(f"{where} has no field {name!r}")
        wanted = {"int": int, "float": (int, float), "str": str}[str(fields[name].type)]
        if not isinstance(value, wanted) or isinstance(value, bool):  # type: ignore[arg-type]
            raise ValueError(f"{where}.{name} cannot be {value!r}")
    return cls(**document)
