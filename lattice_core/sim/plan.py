"""A plan: everything that a run depends on, written out.

A seed expands to a plan (``drawing.py``), and the plan alone decides the run. It can be saved, edited, replayed and
shrunk: fewer faults, fewer changes of membership, fewer nodes, less time.

Times are milliseconds of the world's clock. A fault names a server by its place among those that are there at that
moment, in order of age, counted round and round: in a cluster whose members stay the same, that is its number, 1 to
``nodes``. 0 means whoever leads at that moment.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Final

from lattice_core.errors import InvalidRequest

PLAN_VERSION: Final = 2
LEADER: Final = 0
MAX_NODES: Final = 9
MAX_DRIFT_PPM: Final = 20_000
"""Within the bound that leases assume: any two clocks differ by less than 5 % in rate."""
MAX_SERVERS: Final = 12
"""With those that join, and those that linger."""


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
    "isolate-after-change": "the leader is cut off as soon as it has appended a configuration (any; `amount` 1: one "
    "that ends a joint one; 2: a joint one)",
    "crash-after-change": "the leader loses power as soon as it has appended a configuration (`amount` as before)",
    "pause-after-change": "the leader stands still as soon as it has appended a configuration (`amount` as before)",
    "eio-after-change": "the fsync of a configuration that the leader has just appended fails (`amount` as before)",
    "split-joint": "as soon as a joint configuration is appended, a cut leaves the leader only one of its two "
    "majorities (`amount` 0: the old one, 1: the new one)",
    "crash-before-answer": "a follower loses power as soon as a configuration (`amount` as before) is on its disk, "
    "before it says so; with `other` it is also cut off, until a while after it is back",
    "crash-joiner": "a new server loses power `amount` ms after it began to catch up",
    "isolate-joiner": "a new server is cut off `amount` ms after it began to catch up",
    "cut-leaver": "a server is cut off as its removal begins, does not hear of it, and comes back with an old log",
    "crash-leaver": "a server loses power as its removal begins, and comes back with an old log",
}
"""Every kind of fault, with what it does."""

MEMBERSHIP_FAULTS: Final = (
    "isolate-after-change",
    "crash-after-change",
    "pause-after-change",
    "eio-after-change",
    "split-joint",
    "crash-before-answer",
    "crash-joiner",
    "isolate-joiner",
    "cut-leaver",
    "crash-leaver",
)
"""Those that wait for a moment of a membership change."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that the operator wants of the cluster from ``at_ms`` on. See :data:`CHANGE_KINDS`."""

    at_ms: int
    kind: str
    pick: int = 0
    """Which of those it may mean at that moment, in order of age, counted round and round."""
    count: int = 1
    """Servers at once, where the kind allows several."""
    ask: str = "leader"
    """Who is asked: ``leader`` (of the newest term), ``any`` (somebody who thinks so, deposed or not), ``all``
    (everyone who thinks so)."""
    linger_ms: int = 0
    """How long a removed server goes on running, before it is stopped for good."""


CHANGE_KINDS: Final[dict[str, str]] = {
    "add": "a new server joins as a learner and is promoted when it has caught up",
    "add-learner": "a new server joins and stays a learner",
    "add-voter": "a new server is made a voter at once, with nothing in its log",
    "promote": "a learner that stayed one becomes a voter when it has caught up",
    "remove-follower": "a voter that does not lead is removed",
    "remove-leader": "the leader is removed",
    "remove-learner": "a learner is removed",
    "remove-dead": "a voter that is dead for good is removed; if there is none, one dies first",
    "replace": "a new server, caught up, takes a voter's place in one change",
    "replace-dead": "the same for a voter that is dead for good",
    "several": "`count` new servers, caught up, take the places of as many voters in one change",
    "transfer": "leadership is handed to a voter, or to the best-placed one",
    "transfer-astray": "leadership is to be handed to a learner, a dead, removed or unknown server, or to the leader",
    "astray": "a change that breaks a rule is asked for, and must be refused",
}
"""Every kind of change, with what it does."""

ASK: Final = ("leader", "any", "all")
MAX_AT_ONCE: Final = 3
"""The most servers that one change adds."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The operator's habits."""

    at_once: int = 3
    """How many changes are under way at the same time; others wait for their turn."""
    max_servers: int = 7
    """How many may be running, the removed that linger among them."""
    min_voters: int = 2
    """No change leaves fewer."""
    patience_ms: int = 20_000
    """A change that takes longer is given up. 0: none ever is, and after healing what is left of the list is done."""
    lag_entries: int = 20
    looks: int = 3
    look_ms: int = 100
    """A learner is promoted when it lagged at most so many entries at so many looks in a row."""


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
    """One for each node; those of servers that join come from the seed."""
    faults: tuple[Fault, ...] = field(default=())
    changes: tuple[Change, ...] = field(default=())
    membership: Membership = Membership()
    plant: str | None = None
    """The planted bug to run with, by name; None: the product as it is."""

    @classmethod
    def from_seed(
        cls,
        seed: int,
        *,
        hours: float = 0.05,
        nodes: int | None = None,
        plant: str | None = None,
        membership: str | None = None,
    ) -> Plan:
        """Expand ``seed``.

        ``nodes`` and ``membership`` (one of ``drawing.MEMBERSHIP``) fix what the seed would decide; the same seed may
        then give other faults. Raises InvalidRequest.
        """
        from lattice_core.sim.drawing import draw_plan

        return draw_plan(seed, hours=hours, nodes=nodes, plant=plant, membership=membership)

    @property
    def callers(self) -> int:
        """All clients that run from the beginning."""
        return self.workload.clients + self.workload.pinned_readers

    def to_json(self) -> str:
        document = {"lattice_plan": PLAN_VERSION, **dataclasses.asdict(self)}
        for part in ("faults", "changes"):
            document[part] = [
                {name: value for name, value in item.items() if value or name in ("at_ms", "kind")}
                for item in document[part]
            ]
        return json.dumps(document, indent=1)

    @classmethod
    def from_json(cls, text: str, *, source: str = "plan") -> Plan:
        """Raises InvalidRequest, one line that names ``source``, for damage or another version."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{source} is not a plan: {error}") from None
        if not isinstance(document, dict) or "lattice_plan" not in document:
            raise InvalidRequest(f"{source} is not a plan: there is no field lattice_plan")
        version = document.pop("lattice_plan")
        if version == 1:  # of before membership changes
            document.update(changes=[], membership={})
        elif version != PLAN_VERSION:
            raise InvalidRequest(f"{source} has plan version {version!r}, this program reads 1 to {PLAN_VERSION}")
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
                changes=tuple(_load(Change, item, "changes") for item in document.pop("changes")),
                membership=_load(Membership, document.pop("membership"), "membership"),
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
        places = max(self.nodes, self.membership.max_servers) if self.changes else self.nodes
        for fault in self.faults:
            if fault.kind not in FAULT_KINDS:
                raise InvalidRequest(f"{source}: unknown kind of fault {fault.kind!r}")
            if not (0 <= fault.node <= places and 0 <= fault.other <= places):
                raise InvalidRequest(f"{source}: a {fault.kind} fault names a node beyond {places}")
        for change in self.changes:
            if change.kind not in CHANGE_KINDS:
                raise InvalidRequest(f"{source}: unknown kind of change {change.kind!r}")
            if change.ask not in ASK or not 1 <= change.count <= MAX_AT_ONCE or min(change.at_ms, change.pick) < 0:
                raise InvalidRequest(f"{source}: a {change.kind} change is out of range")
        habits = self.membership
        if min(habits.at_once, habits.min_voters, habits.looks, habits.look_ms) < 1 or habits.max_servers > MAX_SERVERS:
            raise InvalidRequest(f"{source}: membership is out of range")


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
