"""The stories of a run: its elections and log repairs, step by step, in plain words.

A story is what happened around one event, found again in the recorded messages: for an election the
candidacy that won it, for a repair the answer that said "the logs differ" and what the leader did about it.
Only what was really delivered is told. Section numbers are the Raft paper's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lattice_core.raft import messages as m
from lattice_core.raft.types import Configuration, NodeId
from lattice_core.sim.authority import describe, halves
from lattice_core.sim.explain_data import Places, Sent, Truncation, Window, names, us
from lattice_core.sim.recorder import Recorder, entries_text

MAX_STORIES: Final = 300
"""Of each kind; a page with more than this is not read story by story."""
_BEFORE_NS: Final = 2_000_000_000
_AFTER_NS: Final = 3_000_000_000
"""How far from its event a story's steps may lie; further off, they belong to something else."""


@dataclass(slots=True)
class Story:
    """What the page can jump to. ``nodes`` are the ones that it is about, the main one first."""

    at_ns: int
    title: str
    nodes: tuple[NodeId, ...]
    steps: list[tuple[int, NodeId, str]] = field(default_factory=list)
    """(time, node, text)."""

    def add(self, at_ns: int, node: NodeId, text: str) -> None:
        self.steps.append((at_ns, node, text))

    def to_json(self, places: Places) -> list[Any]:
        self.steps.sort(key=lambda step: step[0])
        times = [at for at, _, _ in self.steps] or [self.at_ns]
        return [
            us(self.at_ns),
            us(min(times)),
            us(max(times)),
            self.title,
            [places[node] for node in self.nodes],
            [[us(at), places[node], text] for at, node, text in self.steps],
        ]


class Mail:
    """The rare messages of a window, by what a story asks for: delivered ones, in order of arrival."""

    def __init__(self, sent: Sequence[Sent]) -> None:
        self._to: dict[tuple[type, NodeId], list[tuple[int, int, Sent]]] = {}
        for place, one in enumerate(sent):
            kind = type(one.message)
            if one.delivered and kind not in (m.Heartbeat, m.HeartbeatResponse):
                assert one.arrived_ns is not None
                self._to.setdefault((kind, one.message.to), []).append((one.arrived_ns, place, one))
        for arrivals in self._to.values():
            arrivals.sort(key=lambda item: item[:2])

    def receivers(self, kind: type) -> list[NodeId]:
        """Who got any of that kind."""
        return sorted(to for of_kind, to in self._to if of_kind is kind)

    def arrived(self, kind: type, to: NodeId, from_ns: int, to_ns: int) -> Iterator[tuple[int, Any, Sent]]:
        """(arrival, message, all about it) of what reached ``to`` between the two."""
        arrivals = self._to.get((kind, to), [])
        for at, _, one in arrivals[bisect_left(arrivals, (from_ns,)) :]:
            if at > to_ns:
                return
            yield at, one.message, one


def elections(recorder: Recorder, mail: Mail, window: Window) -> list[Story]:
    """One for each leader of the window."""
    stories: list[Story] = []
    for place, (won_ns, node, role, term, _, _) in enumerate(recorder.roles):
        if role != "leader" or won_ns not in window:
            continue
        if len(stories) == MAX_STORIES:
            break
        stories.append(_election(recorder, mail, place, won_ns, node, term))
    return stories


def _majority(recorder: Recorder, node: NodeId, at_ns: int) -> str:
    """ "3 of 5", of the voters in the configuration that ``node`` uses then; both halves of a joint one."""
    used = [one for at, who, _, one in recorder.configurations if who == node and at <= at_ns]
    if not used:
        return "enough"
    return " and ".join(f"{len(half) // 2 + 1} of {len(half)}" for half in halves(used[-1]))


def _election(recorder: Recorder, mail: Mail, place: int, won_ns: int, node: NodeId, term: int) -> Story:
    majority = _majority(recorder, node, won_ns)
    story = Story(won_ns, f"n{node} is elected leader of term {term}", (node,))
    stood_ns = asked_ns = won_ns
    for at, who, role, its_term, _, reason in reversed(recorder.roles[:place]):
        if won_ns - at > _BEFORE_NS:
            break
        if who != node:
            continue
        if role == "candidate" and its_term == term:
            stood_ns = asked_ns = at
            story.add(at, node, _stands(mail, node, term, at, reason, won_ns))
        elif role == "pre-candidate" and stood_ns != won_ns:
            asked_ns = at
            story.add(
                at,
                node,
                f"n{node} would like to lead ({reason}). First it only asks: would you vote for me? "
                "This pre-vote changes nothing anywhere, so a node that was merely cut off disturbs nobody.",
            )
            break
        else:
            break
    willing = [
        (at, answer.sender)
        for at, answer, _ in mail.arrived(m.PreVoteResponse, node, asked_ns, stood_ns)
        if answer.granted and answer.term == term
    ]
    if willing:
        askers = names(sorted({sender for _, sender in willing}))
        story.steps.insert(0, (willing[-1][0], node, f"{askers} would. With itself that is a majority: {majority} do."))
    given = [node]
    for at, answer, _ in mail.arrived(m.VoteResponse, node, stood_ns, won_ns + _AFTER_NS):
        if answer.term != term or answer.sender in given:
            continue
        if answer.granted:
            given.append(answer.sender)
        late = ", too late to matter" if at > won_ns else ""
        verdict = "gives its vote" if answer.granted else "refuses its vote"
        story.add(at, answer.sender, f"n{answer.sender} {verdict} in term {term}{late}.")
    votes = f"{majority} votes" if majority != "1 of 1" else "its own vote, which is enough"
    story.add(
        won_ns,
        node,
        f"n{node} has {votes} and leads term {term}. At most one node can: nobody votes twice in a term (5.2). "
        "It appends an empty entry of its own term and sends it to all.",
    )
    for at, who, index, of_term in recorder.commits:
        if at > won_ns + _AFTER_NS:
            break
        if who == node and at >= won_ns and of_term == term:
            story.add(
                at,
                node,
                f"It is on a majority: committed, and with it all before it. That is up to {index} now (5.4.2).",
            )
            break
    return story


def _stands(mail: Mail, node: NodeId, term: int, at: int, reason: str, won_ns: int) -> str:
    text = f"n{node} starts term {term} ({reason}), votes for itself and asks the others for their vote."
    for peer in mail.receivers(m.VoteRequest):
        for _, request, _ in mail.arrived(m.VoteRequest, peer, at, won_ns + _AFTER_NS):
            if request.sender == node and request.term == term:
                end = f"{request.last_log_index} (term {request.last_log_term})" if request.last_log_index else "0"
                return f"{text} Its log ends at {end}; whoever has more refuses (5.4.1)."
    return text


def repairs(recorder: Recorder, mail: Mail, truncations: Sequence[Truncation]) -> list[Story]:
    """One for each time that a follower dropped what its leader does not have."""
    return [_repair(mail, cut, committed_of(recorder, cut)) for cut in truncations[:MAX_STORIES]]


def committed_of(recorder: Recorder, cut: Truncation) -> int | None:
    """The last dropped entry that some node knew to be committed. There must never be one: a bug, if there is."""
    known = (
        index
        for at, _, index, term in recorder.commits
        if at <= cut.at_ns and cut.first <= index <= cut.last and term in cut.terms
    )
    return max(known, default=None)


def _repair(mail: Mail, cut: Truncation, committed: int | None) -> Story:
    node, at = cut.node, cut.at_ns
    gone = f"{cut.first}" if cut.first == cut.last else f"{cut.first} to {cut.last}"
    terms = " and ".join(str(term) for term in cut.terms)
    cause = next((item for item in mail.arrived(m.AppendEntries, node, at, at) if item[1].entries), None)
    leader = cause[1].sender if cause is not None else 0
    story = Story(at, f"n{node} drops {gone} (term {terms}), which its leader does not have", (node, leader))
    new = ""
    if cause is not None:
        append = cause[1]
        new = f" and takes {entries_text(append)} of n{leader} instead"
        for told_ns, conflict, one in _conflicts(mail, leader, node, append.term, at):
            _tell_conflict(story, mail, one, conflict, told_ns)
        story.add(
            cause[2].sent_ns,
            leader,
            f"n{leader} sends {_entries(append)}, to go after entry {append.prev_log_index}"
            f"{_of_term(append.prev_log_term)}: there the two logs agree.",
        )
        for done_ns, answer, _ in mail.arrived(m.AppendSuccess, leader, at, at + _AFTER_NS):
            if answer.sender == node and answer.match_index >= cut.first:
                text = (
                    f"n{leader} hears that its log and the one of n{node} agree up to {answer.match_index}: repaired."
                )
                story.add(done_ns, leader, text)
                break
    if committed is None:
        why = "They were never committed, so no client was told that they are safe. "
    else:
        why = f"But {committed} was committed already! This must never happen. "
    story.add(
        at,
        node,
        f"n{node} drops {'entry' if cut.first == cut.last else 'entries'} {gone} of term {terms}{new}. {why}"
        "A leader never changes its own log; followers are made like it (5.3).",
    )
    return story


def catch_ups(sent: Sequence[Sent], mail: Mail, told: Sequence[Story]) -> list[Story]:
    """Refusals that ended without a truncation: the follower's log was only too short.

    One story for each follower, leader and term, the first refusal on; not those that a repair tells.
    """
    repaired = {(story.nodes, step[0]) for story in told for step in story.steps}
    stories: list[Story] = []
    until: dict[tuple[NodeId, NodeId, int], int] = {}
    for one in sent:
        conflict = one.message
        if not isinstance(conflict, m.AppendConflict) or not one.delivered or len(stories) == MAX_STORIES:
            continue
        assert one.arrived_ns is not None
        node, leader = conflict.sender, conflict.to
        key = (node, leader, conflict.term)
        if until.get(key, -1) >= one.sent_ns or ((node, leader), one.sent_ns) in repaired:
            continue
        answers = mail.arrived(m.AppendSuccess, leader, one.arrived_ns, one.arrived_ns + _AFTER_NS)
        good = next((item for item in answers if item[1].sender == node and item[1].term == conflict.term), None)
        if good is None:
            continue
        done_ns, answer, _ = good
        until[key] = done_ns
        story = Story(one.sent_ns, f"n{node} lacks entries, and n{leader} brings it up to date", (node, leader))
        _tell_conflict(story, mail, one, conflict, one.arrived_ns)
        for at, append, sending in mail.arrived(m.AppendEntries, node, one.arrived_ns, done_ns):
            if append.sender == leader and append.entries:
                story.add(
                    sending.sent_ns, leader, f"n{leader} goes back and sends what is missing: {entries_text(append)}."
                )
                story.add(at, node, f"n{node} has them.")
                break
        text = f"n{leader} hears that its log and the one of n{node} agree up to {answer.match_index}."
        story.add(done_ns, leader, text)
        stories.append(story)
    return stories


def changes(recorder: Recorder, window: Window) -> list[Story]:
    """One for each configuration that a leader appended: who uses it from when on, and when it is committed."""
    begun: dict[tuple[int, Configuration], Story] = {}
    before: dict[NodeId, Configuration] = {}
    for at, node, index, configuration in recorder.configurations:
        story = begun.get((index, configuration))
        if story is not None:
            if at - story.at_ns <= _AFTER_NS:
                story.add(at, node, f"n{node} has it in its log, and uses it.")
        elif at in window and index and node in before and len(begun) < MAX_STORIES:
            story = Story(at, f"n{node} appends a configuration: {describe(configuration)}", (node,))
            needs = " and ".join(f"{len(half) // 2 + 1} of {len(half)}" for half in halves(configuration))
            kind = "joint: both majorities decide" if configuration.is_joint else "in force at once"
            story.add(
                at, node, f"n{node} appends entry {index}, {describe(configuration)}: {kind}, {needs} (section 6)."
            )
            begun[index, configuration] = story
        before[node] = configuration
    for (index, _), story in begun.items():
        node = story.nodes[0]
        done = next(
            (at for at, who, upto, _ in recorder.commits if who == node and at >= story.at_ns and upto >= index), None
        )
        if done is not None and done - story.at_ns <= _AFTER_NS:
            story.add(done, node, f"n{node} knows that it is committed.")
    return list(begun.values())


def _conflicts(
    mail: Mail, leader: NodeId, node: NodeId, term: int, before_ns: int
) -> list[tuple[int, m.AppendConflict, Sent]]:
    """The last refusals before the repair, at most two: a round trip for each term that differs."""
    found = [
        (at, conflict, one)
        for at, conflict, one in mail.arrived(m.AppendConflict, leader, before_ns - _BEFORE_NS, before_ns)
        if conflict.sender == node and conflict.term == term and not one.duplicate
    ]
    return found[-2:]


def _tell_conflict(story: Story, mail: Mail, one: Sent, conflict: m.AppendConflict, told_ns: int) -> None:
    node, leader, place = conflict.sender, conflict.to, conflict.rejected_index
    asked = [
        item
        for item in mail.arrived(m.AppendEntries, node, one.sent_ns - _BEFORE_NS, one.sent_ns)
        if item[1].sender == leader and item[1].prev_log_index == place
    ]
    if asked:
        append = asked[-1][1]
        what = _entries(append) if append.entries else "a question"
        story.add(
            asked[-1][2].sent_ns,
            leader,
            f"n{leader} sends {what}, to go after its entry {place}{_of_term(append.prev_log_term)}.",
        )
    if conflict.conflict_term is None:
        has = f"n{node} has no entry {place}: its log ends before {conflict.conflict_index}"
        hint = f"go on from {conflict.conflict_index}"
    else:
        has = f"the entry {place} of n{node} is of term {conflict.conflict_term}"
        hint = f"my term {conflict.conflict_term} begins at {conflict.conflict_index}"
    story.add(one.sent_ns, node, f"The logs differ: {has}. So it refuses, and says: {hint}.")
    story.add(told_ns, leader, f"n{leader} hears it, and goes back in its log.")


def _entries(append: m.AppendEntries) -> str:
    return f"{'entry' if len(append.entries) == 1 else 'entries'} {entries_text(append)}"


def _of_term(term: int) -> str:
    return f" (term {term})" if term else ""
