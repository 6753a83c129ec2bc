"""From a recorder to what the page of :mod:`lattice_core.sim.explain` draws: plain lists, made for JSON.

Times are whole microseconds of the world from its start. Servers come and go; a node is its place among those of the
window, from 1, and 0 is the world (:class:`Places`). Messages
are most of the page, so they are columns: see :func:`messages_of`. What the recorder cannot know when a
message is sent, because the world decides it on arrival, is worked out here: a machine that is down loses
what reaches it, one that stands still takes it when it goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lattice_core.raft import messages as m
from lattice_core.raft.types import NodeId
from lattice_core.sim.authority import describe
from lattice_core.sim.plan import FAULT_KINDS, Fault
from lattice_core.sim.recorder import LogShape, Recorder

ROLES: Final = ("follower", "pre-candidate", "candidate", "leader", "down", "refuses to start", "not there")
DOWN: Final = 4
REFUSES: Final = 5
ABSENT: Final = 6
"""Not there yet, or taken away."""
KINDS: Final = (
    "pre-vote",
    "pre-vote answer",
    "vote",
    "vote answer",
    "append",
    "probe",
    "append answer",
    "conflict",
    "heartbeat",
    "heartbeat answer",
    "snapshot",
    "timeout-now",
    "read index",
    "read index answer",
)
"""Kinds of message as the page draws them; the columns hold their places in this tuple."""
DELIVERED, LOST, DEAD_LETTER = 0, 1, 2
"""Fates of a message."""


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the run that is on the page."""

    from_ns: int
    to_ns: int

    def __contains__(self, time_ns: int) -> bool:
        return self.from_ns <= time_ns <= self.to_ns

    def overlaps(self, from_ns: int, to_ns: int) -> bool:
        return from_ns <= self.to_ns and to_ns >= self.from_ns


class Places:
    """The servers of a window, in order of age: whoever is there in it, or is sent something."""

    def __init__(self, recorder: Recorder, window: Window) -> None:
        begun: dict[NodeId, int] = {}
        for at, node, *_ in recorder.ups:
            begun.setdefault(node, at)
        ended = {node: at for at, node in recorder.ends}
        there = {
            node for node, at in begun.items() if at <= window.to_ns and ended.get(node, window.to_ns) >= window.from_ns
        }
        there.update(message.to for at, _, message in recorder.messages if at in window)
        self.servers = sorted(there)
        self._places = {node: place for place, node in enumerate(self.servers, start=1)}

    def __getitem__(self, node: NodeId) -> int:
        """0 for the world, and for a server that is not in the window."""
        return self._places.get(node, 0)

    def of(self, nodes: Iterable[NodeId]) -> list[int]:
        return [self._places[node] for node in nodes if node in self._places]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message with its fate. ``arrived_ns`` is None where it was lost on the way."""

    sent_ns: int
    arrived_ns: int | None
    fate: int
    duplicate: bool
    message: m.Message

    @property
    def delivered(self) -> bool:
        return self.fate == DELIVERED


@dataclass(frozen=True, slots=True)
class Truncation:
    """Node ``node`` drops its entries ``first`` to ``last``, which are of ``terms``."""

    at_ns: int
    node: NodeId
    first: int
    last: int
    terms: tuple[int, ...]


@dataclass(slots=True)
class Strings:
    """Each text once; the page refers to it by its place."""

    texts: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
        return self._places[text]


def us(time_ns: int) -> int:
    return time_ns // 1000


def names(nodes: Iterable[NodeId]) -> str:
    """``n1, n2 and n4``."""
    words = [f"n{node}" for node in nodes]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "nobody"


# ---- machines -------------------------------------------------------------------------------------------


class Machines:
    """When each machine was down or stood still."""

    def __init__(self, recorder: Recorder) -> None:
        events = [(at, node, True) for at, node, *_ in recorder.ups]
        events += [(at, node, False) for at, node, _ in recorder.downs]
        self._changes: dict[NodeId, list[tuple[int, bool]]] = {}
        for at, node, up in sorted(events):
            self._changes.setdefault(node, []).append((at, up))
        self._pauses: dict[NodeId, list[tuple[int, int]]] = {}
        for start, end, node in recorder.pauses:
            self._pauses.setdefault(node, []).append((start, end))

    def is_up(self, node: NodeId, time_ns: int) -> bool:
        changes = self._changes.get(node, [])
        place = bisect_right(changes, (time_ns, True))
        return place > 0 and changes[place - 1][1]

    def first_down(self, node: NodeId, from_ns: int, to_ns: int) -> int:
        """When it first goes down between the two; ``to_ns`` if it does not."""
        return next((at for at, up in self._changes.get(node, []) if not up and from_ns <= at <= to_ns), to_ns)

    def arrival(self, node: NodeId, due_ns: int) -> int:
        """When a message due at ``due_ns`` is taken: at the end of a pause, if it falls into one."""
        for start, end in self._pauses.get(node, ()):
            if start <= due_ns < self.first_down(node, start, end):
                due_ns = end
        return due_ns


def lanes_of(recorder: Recorder, places: Places, window: Window, strings: Strings) -> list[list[list[int]]]:
    """For each node, rising: [time, role, term, the leader's number or 0, place of the reason]; one may be earlier."""
    refusals = {(at, node) for at, node, text in recorder.notes if text.startswith("refuses to start")}
    events: list[tuple[int, int, NodeId, int, int, int, str]] = []
    for at, node, term, *_ in recorder.ups:
        events.append((at, 0, node, 0, term, 0, "it has started, with what is on its disk"))
    for at, node, role, term, leader, reason in recorder.roles:
        events.append((at, 1, node, ROLES.index(role), term, leader or 0, reason))
    for at, node, power_lost in recorder.downs:
        why = [text for time, who, text in recorder.notes if (time, who) == (at, node)]
        default = "it has lost power: what was not synced is gone" if power_lost else "its process has ended"
        events.append((at, 2, node, DOWN, -1, 0, "; ".join(why) or default))
    events.extend((at, 2, node, REFUSES, -1, 0, "its log is damaged, and it says so") for at, node in refusals)
    events.extend((at, 3, node, ABSENT, 0, 0, "it is taken away") for at, node in recorder.ends)
    lanes: list[list[list[int]]] = [[[0, ABSENT, 0, 0, strings.place("it is not there yet")]] for _ in places.servers]
    terms = [0] * len(lanes)
    for at, _, node, role_place, term, leader_id, reason in sorted(events, key=lambda event: event[:2]):
        place = places[node]
        if not place:
            continue
        lane = lanes[place - 1]
        terms[place - 1] = term = term if term >= 0 else terms[place - 1]
        if at > window.to_ns:
            continue
        if at < window.from_ns or at == 0:
            lane.clear()
        lane.append([us(at), role_place, term, leader_id, strings.place(reason)])
    return lanes


def cuts_of(recorder: Recorder, places: Places, window: Window) -> list[list[Any]]:
    """[from, to, node, who does not hear it, whom it does not hear], for each stretch in which that is so."""
    changes: list[tuple[int, int, tuple[NodeId, NodeId]]] = []
    for start, end, pairs in recorder.cuts:
        if recorder.healed_ns is not None:
            end = min(end, recorder.healed_ns)
        if start < end and window.overlaps(start, end):
            for pair in pairs:
                changes.append((start, 1, pair))
                changes.append((end, -1, pair))
    changes.sort()
    active: dict[tuple[NodeId, NodeId], int] = {}
    last: dict[NodeId, list[Any]] = {}
    stretches: list[list[Any]] = []
    for place, (at, by, pair) in enumerate(changes):
        active[pair] = active.get(pair, 0) + by
        if place + 1 < len(changes) and changes[place + 1][0] == at:
            continue
        down = [link for link, count in active.items() if count > 0]
        for server in places.servers:
            node = places[server]
            unheard = places.of(sorted(to for sender, to in down if sender == server and to != server))
            unhearing = places.of(sorted(sender for sender, to in down if to == server and sender != server))
            before = last.get(node)
            if before is not None and before[3:] == [unheard, unhearing]:
                continue
            if before is not None:
                before[1] = us(at)
                del last[node]
            if unheard or unhearing:
                last[node] = [us(at), us(at), node, unheard, unhearing]
                stretches.append(last[node])
    return stretches


STAGES: Final = {1.0: " that ends a joint one", 2.0: " that is joint"}


def fault_text(fault: Fault, node: NodeId) -> str:
    """What it does, of this node, in plain words."""
    who, length = f"n{node}" if node else "whoever it strikes", f"for {fault.for_ms} ms"
    return {
        "crash": f"{who} loses power {length}",
        "stop": f"{who} is killed and is back after {fault.for_ms} ms",
        "crash-all": f"everybody loses power {length}",
        "pause": f"{who} stands still {length}",
        "isolate": f"{who} is cut off from everybody {length}",
        "split": f"the nodes up to {who} are cut off from the others {length}",
        "one-way": f"what {who} sends to n{fault.other} is lost {length}",
        "deaf": f"{who} can send but hears nobody {length}",
        "bridge": f"two halves can talk only to {who} {length}",
        "slow-link": f"what {who} sends to n{fault.other} takes {fault.amount:g} ms longer {length}",
        "slow-disk": f"the fsync of {who} takes {fault.amount:g} times as long {length}",
        "eio": f"the next fsync of {who} will fail",
        "enospc": f"the disk of {who} is full {length}",
        "bit-flip": f"{who} loses power, and one bit on its disk is flipped",
        "garble": f"{who} will read its next command wrongly",
        "transfer": f"{who} is told to hand leadership over",
        "isolate-after-append": f"the leader has just appended what is not committed, and is cut off {length}",
        "crash-after-append": f"the leader has just appended what is not committed, and loses power {length}",
        "crash-in-write": f"{who} will lose power between a write and its fsync",
        "crash-after-vote": f"a node has just given its vote, and loses power {length}",
        "cut-after-transfer": f"the leader has sent TimeoutNow, and is cut off from all but the target {length}",
        "delay-answers": f"answers to {who} take {fault.amount:g} ms longer, then it is cut off",
        "isolate-after-election": f"a leader was elected, and {fault.amount:g} ms later is cut off {length}",
        "crash-after-election": f"a leader was elected, and {fault.amount:g} ms later loses power {length}",
        "isolate-after-commit": f"the leader's commit index has just moved, and it is cut off {length}",
        "hold-votes": "votes are copied, and the copies arrive when the candidate runs again",
        "isolate-after-change": f"the leader has just appended a configuration{STAGES.get(fault.amount, '')}, "
        f"and is cut off {length}",
        "crash-after-change": f"the leader has just appended a configuration{STAGES.get(fault.amount, '')}, "
        f"and loses power {length}",
        "pause-after-change": f"the leader has just appended a configuration{STAGES.get(fault.amount, '')}, "
        f"and stands still {length}",
        "eio-after-change": f"the leader has just appended a configuration{STAGES.get(fault.amount, '')}, "
        "and its next fsync will fail",
        "split-joint": "a joint configuration was just appended, and a cut leaves its leader the "
        f"{'new' if fault.amount else 'old'} majority only {length}",
        "crash-before-answer": f"a follower has a configuration{STAGES.get(fault.amount, '')} on its disk, "
        f"and loses power {length}{' and is cut off for longer' if fault.other else ''}",
        "crash-joiner": f"a new server has begun to catch up, and {fault.amount:g} ms later loses power {length}",
        "isolate-joiner": f"a new server has begun to catch up, and {fault.amount:g} ms later is cut off {length}",
        "cut-leaver": f"a server is being removed, and is cut off before it hears of that {length}",
        "crash-leaver": f"a server is being removed, and loses power before it hears of that {length}",
    }.get(fault.kind, f"{FAULT_KINDS.get(fault.kind, fault.kind)} ({who})")


# ---- logs -----------------------------------------------------------------------------------------------


def logs_of(
    recorder: Recorder, places: Places, window: Window
) -> tuple[list[list[Any]], list[list[Any]], list[Truncation]]:
    """Logs at the window's start, their changes in it, and the truncations among these.

    A log is [offset, [[term, last index], ...], commit index]. A change is [time, node, cut off from this
    index or -1, first index appended, [term, count, ...]]; cut off from 0: replaced as a whole.
    """
    shapes = {node: LogShape() for node in places.servers}
    for node, shape in recorder.logs.items():
        if node not in shapes:
            continue
        shapes[node] = LogShape(shape.offset, (), shape.commit)
        shapes[node].runs = list(shape.runs)
    events: list[tuple[int, int, NodeId, int | None, int, tuple[tuple[int, int], ...]]] = [
        (at, 0, node, 0, offset + 1, runs) for at, node, _, offset, runs in recorder.ups if at >= recorder.from_ns
    ]
    events += [(at, 1, node, cut, first, runs) for at, node, cut, first, runs in recorder.writes]
    events.sort(key=lambda event: event[:2])
    for at, node, index, _ in recorder.commits:
        if at < window.from_ns and node in shapes:
            shapes[node].commit = index
    base: list[list[Any]] | None = None
    changes: list[list[Any]] = []
    truncations: list[Truncation] = []

    def bases() -> list[list[Any]]:
        return [[one.offset, [list(run) for run in one.runs], one.commit] for _, one in sorted(shapes.items())]

    for at, _, node, cut_from, first, runs in events:
        if at > window.to_ns:
            break
        if node not in shapes:
            continue
        if at >= window.from_ns:
            base = bases() if base is None else base
            shape = shapes[node]
            if cut_from and cut_from <= shape.last_index:
                gone = tuple(term for term in (shape.term_at(i) for i in range(cut_from, shape.last_index + 1)) if term)
                truncations.append(Truncation(at, node, cut_from, shape.last_index, tuple(sorted(set(gone)))))
            flat = [number for run in runs for number in run]
            changes.append([us(at), places[node], -1 if cut_from is None else cut_from, first, flat])
        shapes[node].change(cut_from, first, runs)
    return (bases() if base is None else base), changes, truncations


# ---- messages -------------------------------------------------------------------------------------------


def sent_of(recorder: Recorder, machines: Machines, window: Window) -> list[Sent]:
    """The window's messages in the order of sending, each with its fate."""
    found: list[Sent] = []
    previous: tuple[int, m.Message] | None = None
    for sent_ns, due_ns, message in recorder.messages:
        duplicate = previous is not None and previous[0] == sent_ns and previous[1] is message
        previous = (sent_ns, message)
        if sent_ns not in window:
            continue
        if due_ns is None:
            found.append(Sent(sent_ns, None, LOST, duplicate, message))
            continue
        arrived_ns = machines.arrival(message.to, due_ns) if machines.is_up(message.to, due_ns) else due_ns
        fate = DELIVERED if machines.is_up(message.to, arrived_ns) else DEAD_LETTER
        found.append(Sent(sent_ns, arrived_ns, fate, duplicate, message))
    return found


def messages_of(sent: Sequence[Sent], places: Places) -> dict[str, list[Any]]:
    """Columns, one row a message.

    ``code`` is kind + 16 * (sender + 256 * (receiver + 256 * (fate + 4 * duplicate))); ``sent`` the time since the
    row before; ``took`` -1 for what was lost on the way; ``more`` what only this kind has: see :func:`_more`.
    """
    columns: dict[str, list[Any]] = {"code": [], "sent": [], "took": [], "term": [], "more": []}
    last = 0
    for one in sent:
        message = one.message
        kind, more = _more(message)
        code = places[message.sender] + 256 * (places[message.to] + 256 * (one.fate + 4 * one.duplicate))
        columns["code"].append(kind + 16 * code)
        columns["sent"].append(us(one.sent_ns) - last)
        last = us(one.sent_ns)
        columns["took"].append(-1 if one.arrived_ns is None else us(one.arrived_ns) - last)
        columns["term"].append(message.term)
        columns["more"].append(more)
    return columns


def _more(message: m.Message) -> tuple[int, list[int]]:
    """The kind's place in KINDS, and the numbers that the page shows of it."""
    match message:
        case m.PreVoteRequest():
            return 0, [message.last_log_index, message.last_log_term]
        case m.PreVoteResponse():
            return 1, [int(message.granted)]
        case m.VoteRequest():
            return 2, [message.last_log_index, message.last_log_term, int(message.leadership_transfer)]
        case m.VoteResponse():
            return 3, [int(message.granted)]
        case m.AppendEntries(prev_log_index=previous, prev_log_term=term, entries=entries, leader_commit=commit):
            if not entries:
                return 5, [previous, term, commit]
            return 4, [previous, term, commit, len(entries), entries[0].term, entries[-1].term]
        case m.AppendSuccess():
            return 6, [message.match_index]
        case m.AppendConflict(conflict_term=term):
            return 7, [message.rejected_index, -1 if term is None else term, message.conflict_index]
        case m.Heartbeat():
            return 8, [message.commit]
        case m.HeartbeatResponse():
            return 9, []
        case m.InstallSnapshot(snapshot=snapshot):
            return 10, [snapshot.last_included_index, snapshot.last_included_term]
        case m.TimeoutNow():
            return 11, []
        case m.ReadIndexRequest():
            return 12, []
        case m.ReadIndexResponse():
            return 13, [-1 if message.read_index is None else message.read_index]


def commits_of(recorder: Recorder, places: Places, window: Window) -> dict[str, list[int]]:
    """Columns: ``at`` (time since the row before), ``node``, ``index`` (committed up to it), ``term`` of that."""
    columns: dict[str, list[int]] = {"at": [], "node": [], "index": [], "term": []}
    last = 0
    for at, node, index, term in recorder.commits:
        if at in window and places[node]:
            for name, value in (("at", us(at) - last), ("node", places[node]), ("index", index), ("term", term)):
                columns[name].append(value)
            last = us(at)
    return columns


def configurations_of(recorder: Recorder, places: Places, window: Window, strings: Strings) -> list[list[int]]:
    """[time, node, place of the description, whether it is joint], where a node begins to use another."""
    return [
        [us(at), places[node], strings.place(f"configuration of entry {index}: {describe(one)}"), int(one.is_joint)]
        for at, node, index, one in recorder.configurations
        if at in window and places[node]
    ]
