"""Where the time of one request goes, for those that ask (``lattice put --explain``): marks by this member's clock.

Theory. All that a request waits for shows in the core's state: its entry's place in the log, the index up to which the
log is durable here, what each follower has acknowledged, the commit index. That changes only while the Ready loop
handles an input, so looking whenever it has handled one sees each change when it happens. The reply itself says when
the entry was applied.

Cost. While nobody asks, one test of an empty list for each input that the loop handles; nothing for each operation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lattice_core.raft.types import NodeId
from lattice_core.rpc.pb import kv_pb2

if TYPE_CHECKING:
    from lattice_core.raft.node import RaftNode
    from lattice_core.server.proposals import Proposals
    from lattice_core.server.reads import Reads

MAX_WATCHED: Final = 64
"""Requests at once; who asks beyond that is answered without an explanation."""


class Explanations:
    """Those that are under way. Lives on the loop."""

    def __init__(self, core: RaftNode, proposals: Proposals, reads: Reads, role: Callable[[], str]) -> None:
        self.core = core
        self.proposals = proposals
        self.reads = reads
        self.role = role
        self.watched: list[Explained] = []

    def look(self) -> None:
        """An input has been handled: note what has come about."""
        now = time.perf_counter()
        for each in self.watched:
            each.look(now)

    def write(self) -> ExplainedWrite | None:
        return ExplainedWrite(self) if len(self.watched) < MAX_WATCHED else None

    def read(self) -> ExplainedRead | None:
        return ExplainedRead(self) if len(self.watched) < MAX_WATCHED else None


class Explained:
    """One request: in place of its reply, so that it also sees the answer. ``asked`` is the very object that holds its
    commands or reads, by which it is found again."""

    def __init__(self, explanations: Explanations) -> None:
        self._of = explanations
        self._asked: Any
        self._reply: Callable[[Any], None]
        self._began = time.perf_counter()
        self._answered: float | None = None
        self.batches = 1

    def replying(self, asked: object, reply: Callable[[Any], None]) -> Callable[[Any], None]:
        """The reply to use instead. From here on it is watched, until that is called."""
        self._asked, self._reply = asked, reply
        self._of.watched.append(self)
        return self

    def __call__(self, outcome: Any) -> None:
        now = time.perf_counter()
        self.look(now)
        self._answered = now
        self._of.watched.remove(self)
        self._reply(outcome)

    def look(self, now: float) -> None:
        raise NotImplementedError

    def to_pb(self) -> kv_pb2.Explanation:
        """All of it; the answer leaves now."""
        core = self._of.core
        name = core.name(core.id)
        explanation = kv_pb2.Explanation(member=name, role=self._of.role(), batches=self.batches)
        self._add_steps(explanation, name)
        now = time.perf_counter()
        self._step(explanation, "answer", name, self._answered, now)
        explanation.total_seconds = now - self._began
        return explanation

    def _add_steps(self, explanation: kv_pb2.Explanation, name: str) -> None:
        raise NotImplementedError

    def _step(
        self, explanation: kv_pb2.Explanation, step: str, member: str, began: float | None, ended: float | None
    ) -> None:
        if began is not None:
            explanation.steps.add(
                name=step,
                member=member,
                began=began - self._began,
                ended=None if ended is None else ended - self._began,
            )


class ExplainedWrite(Explained):
    """From the list of proposals into an entry; to this disk and to the followers, beside each other; applied."""

    def __init__(self, explanations: Explanations) -> None:
        super().__init__(explanations)
        self._place: tuple[int, int] | None = None
        self._proposed: float | None = None
        self._durable: float | None = None
        self._committed: float | None = None
        self._acknowledged: dict[NodeId, float] = {}

    def look(self, now: float) -> None:
        core = self._of.core
        if self._place is None:
            found = self._of.proposals.place_of(self._asked)
            if found is None:
                return
            index, term, self.batches = found
            self._place, self._proposed = (index, term), now
        index, term = self._place
        if core.term != term or not core.is_leader:
            return  # what an index means is another leader's business now
        if self._durable is None and core.durability.durable_index >= index:
            self._durable = now
        for peer, progress in core.progress.items():
            if progress.match_index >= index:
                self._acknowledged.setdefault(peer, now)
        if self._committed is None and core.commit_index >= index:
            self._committed = now

    def _add_steps(self, explanation: kv_pb2.Explanation, name: str) -> None:
        if self._place is not None:
            explanation.index = self._place[0]
        self._step(explanation, "queue", name, self._began, self._proposed or self._answered)
        self._step(explanation, "fsync", name, self._proposed, self._durable)
        core = self._of.core
        for peer in sorted(core.progress, key=core.name):
            if core.configuration.is_voter(peer):
                self._step(explanation, "follower", core.name(peer), self._proposed, self._acknowledged.get(peer))
        self._step(explanation, "quorum", name, self._proposed, self._committed)
        self._step(explanation, "apply", name, self._committed, self._answered)


class ExplainedRead(Explained):
    """Until a round is asked for; until that is confirmed and what it vouches for is applied. By a lease, or stale:
    no round."""

    def __init__(self, explanations: Explanations) -> None:
        super().__init__(explanations)
        self._round: float | None = None

    def look(self, now: float) -> None:
        if self._round is None and (sharing := self._of.reads.sharing_round(self._asked)):
            self._round, self.batches = now, sharing

    def _add_steps(self, explanation: kv_pb2.Explanation, name: str) -> None:
        self._step(explanation, "queue", name, self._began, self._round or self._answered)
        self._step(explanation, "confirm", name, self._round, self._answered)
