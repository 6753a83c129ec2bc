"""A node's spans: what becomes of a traced client batch here, as the leader or a follower. See lattice_core/tracing.py.

Theory
  * A traced batch has one span on the leader (``lattice.leader``), from arrival to reply, and in it one for each stage:
    ``queue`` until it is part of an entry, then ``persist`` (until the leader's own fsync) and ``replicate`` (until the
    entry is committed) beside each other, then ``apply``. Whichever of the first two ends last was what it waited for.
  * The peers' envelopes carry which of their entries hold traced batches. A follower has two spans for each, below the
    leader's ``replicate``: ``follower append``, from arrival until the entry is durable, and ``follower apply``.
  * Everything here hangs on the index of an entry. One that is replaced by another term's ends its spans as failed.

Cost. Without tracing: one test for None per envelope, entry, fsync and pass. With it: only while a sampled batch is on
its way is anything looked at beyond that, and the number of those is bounded; beyond the bound they are not traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lattice_core.config import NodeConfig
from lattice_core.kv import BatchResult, BatchStatus
from lattice_core.raft.messages import AppendEntries, Message
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Entry
from lattice_core.rpc.pb import kv_pb2, raft_pb2
from lattice_core.server.metrics import CONSISTENCIES
from lattice_core.tracing import fail, parent_from, start_tracer, traceparent_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from lattice_core.server.proposals import Outcome, Proposal, Reply

A = TypeVar("A")

MAX_ENTRIES: Final = 256
"""Entries with traced batches that are followed at once."""

MAX_BATCHES: Final = 32
"""Traced batches of one entry."""


def tracer_for(config: NodeConfig) -> NodeTracer | None:
    """Raises ConfigurationError if tracing is asked for and cannot be had."""
    return NodeTracer(start_tracer("lattice.server", instance=config.name), config.name) if config.trace else None


class NodeTracer:
    """Lives on the loop, like everything that calls it."""

    def __init__(self, tracer: Tracer, node: str) -> None:
        self._tracer = tracer
        self._node = node
        self._entries: dict[int, _TracedEntry] = {}

    # -- clients ------------------------------------------------------------------------------------

    def writing(self, traceparent: str, size_bytes: int, reply: Reply) -> Reply:
        """The reply to use for a batch that says it is traced."""
        parent = parent_from(traceparent)
        return reply if parent is None else TracedReply(self, parent, size_bytes, reply)

    def reading(
        self, traceparent: str, consistency: int, reads: int, reply: Callable[[A], None]
    ) -> Callable[[A], None]:
        """The same for reads, which have one span: from arrival to reply."""
        parent = parent_from(traceparent)
        if parent is None:
            return reply
        span = self.begin("lattice.read", parent, server=True)
        span.set_attributes(
            {"lattice.operations": reads, "lattice.consistency": CONSISTENCIES.get(consistency, "unknown")}
        )

        def answer(answers: A) -> None:
            if isinstance(answers, kv_pb2.ErrorDetail):
                fail(span, answers.message)
            span.end()
            reply(answers)

        return answer

    def begin(self, name: str, parent: Context, *, server: bool = False, **attributes: str | int) -> Span:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(
            name,
            context=parent,
            kind=SpanKind.SERVER if server else SpanKind.INTERNAL,
            attributes={"lattice.node": self._node, **attributes},
        )

    # -- entries, as the leader -----------------------------------------------------------------------

    def proposed(self, index: int, term: int, proposals: Iterable[Proposal]) -> None:
        """These have become the entry at ``index``."""
        replies = [each.reply for each in proposals if isinstance(each.reply, TracedReply)]
        if not replies:
            return
        entry = self._follow(index, term)
        for reply in replies[: MAX_BATCHES if entry is not None else 0]:
            assert entry is not None
            reply.proposed(index, term)
            entry.batches.append(reply)

    def outgoing(self, messages: Sequence[Message]) -> list[raft_pb2.TracedEntry]:
        """What to say of the entries in these messages."""
        marks: list[raft_pb2.TracedEntry] = []
        if not self._entries:
            return marks
        for message in messages:
            if type(message) is AppendEntries:
                for index, term in self._among(message.entries):
                    for batch in self._entries[index].batches:
                        if isinstance(batch, TracedReply) and batch.traceparent:
                            marks.append(raft_pb2.TracedEntry(index=index, term=term, traceparent=batch.traceparent))
        return marks

    # -- entries, as a follower -----------------------------------------------------------------------

    def incoming(self, marks: Iterable[raft_pb2.TracedEntry]) -> None:
        """Said of the entries in the messages that are about to be taken in."""
        for mark in marks:
            parent = parent_from(mark.traceparent)
            entry = self._follow(mark.index, mark.term) if parent is not None else None
            if parent is not None and entry is not None and len(entry.batches) < MAX_BATCHES:
                entry.batches.append(_Followed(self, parent, mark.index, mark.term))

    # -- entries, as either ---------------------------------------------------------------------------

    def durable(self, units: Iterable[Persist]) -> None:
        """These are on this member's disk."""
        if self._entries:
            for unit in units:
                for index, _ in self._among(unit.entries):
                    for batch in self._entries[index].batches:
                        batch.durable()

    def committed(self, entries: Sequence[Entry]) -> None:
        """These are committed, and are to be applied."""
        if self._entries:
            for index, _ in self._among(entries):
                for batch in self._entries[index].batches:
                    batch.committed()

    def applied(self, index: int) -> None:
        """Everything up to ``index`` is applied."""
        for at in [at for at in self._entries if at <= index]:
            for batch in self._entries.pop(at).batches:
                batch.applied()

    def close(self) -> None:
        """The node ends: what is open has no end here."""
        for index in list(self._entries):
            self._drop(index, "the node stopped")

    def _follow(self, index: int, term: int) -> _TracedEntry | None:
        found = self._entries.get(index)
        if found is not None:
            if found.term == term:
                return found
            self._drop(index, f"replaced by an entry of term {term}")
        if len(self._entries) >= MAX_ENTRIES:
            return None
        self._entries[index] = entry = _TracedEntry(term)
        return entry

    def _drop(self, index: int, why: str) -> None:
        for batch in self._entries.pop(index).batches:
            batch.lost(why)

    def _among(self, entries: Sequence[Entry]) -> list[tuple[int, int]]:
        """Index and term of those among ``entries``, which follow each other, that are followed here. One whose place
        was taken by another term's is dropped."""
        if not entries:
            return []
        first, last = entries[0].index, entries[-1].index
        found = []
        for index in [index for index in self._entries if first <= index <= last]:
            term = entries[index - first].term
            if self._entries[index].term == term:
                found.append((index, term))
            else:
                self._drop(index, f"replaced by an entry of term {term}")
        return found


class _TracedEntry:
    """An entry and the traced batches in it."""

    __slots__ = ("batches", "term")

    def __init__(self, term: int) -> None:
        self.term = term
        self.batches: list[TracedReply | _Followed] = []


def traceparent_of_call(context: Any) -> str:
    """What a unary call's metadata say of the caller's span; empty if nothing."""
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "traceparent"), "")


class TracedReply:
    """The reply to a traced batch's client, in place of the plain one: the leader's spans end with it."""

    __slots__ = ("_reply", "_span", "_stages", "_tracer", "traceparent")

    def __init__(self, tracer: NodeTracer, parent: Context, size_bytes: int, reply: Reply) -> None:
        self._tracer = tracer
        self._reply = reply
        self._span = tracer.begin("lattice.leader", parent, server=True, **{"lattice.bytes": size_bytes})
        self._stages: dict[str, Span] = {}
        self.traceparent = ""
        """Of the span that the followers' spans belong to. A slow one may begin when the leader's has ended."""
        self._begin("queue")

    def _begin(self, stage: str) -> None:
        from opentelemetry import trace

        self._stages[stage] = self._tracer.begin(stage, trace.set_span_in_context(self._span))

    def _end(self, stage: str) -> None:
        span = self._stages.pop(stage, None)
        if span is not None:
            span.end()

    def proposed(self, index: int, term: int) -> None:
        self._end("queue")
        self._span.set_attributes({"lattice.index": index, "lattice.term": term})
        self._begin("persist")
        self._begin("replicate")
        self.traceparent = traceparent_of(self._stages["replicate"])

    def durable(self) -> None:
        self._end("persist")

    def committed(self) -> None:
        if "replicate" in self._stages:
            self._end("replicate")
            self._begin("apply")

    def applied(self) -> None:
        self._end(
            "persist"
        )  # everything else ended with the reply; a slow disk may have been overtaken by the followers

    def lost(self, why: str) -> None:
        for span in self._stages.values():
            fail(span, why)
            span.end()
        self._stages.clear()

    def __call__(self, outcome: Outcome) -> None:
        if not isinstance(outcome, BatchResult):
            self.lost(outcome.message)
            fail(self._span, outcome.message)
        elif outcome.status is not BatchStatus.OK:
            fail(self._span, outcome.status.name.lower())
        for stage in ("queue", "replicate", "apply"):
            self._end(stage)
        self._span.end()
        self._reply(outcome)


class _Followed:
    """A traced batch in an entry of another's: this follower's spans."""

    __slots__ = ("_append", "_apply", "_parent", "_place", "_tracer")

    def __init__(self, tracer: NodeTracer, parent: Context, index: int, term: int) -> None:
        self._tracer = tracer
        self._parent = parent
        self._place = {"lattice.index": index, "lattice.term": term}
        self._append: Span | None = self._begin("follower append")
        self._apply: Span | None = None

    def _begin(self, name: str) -> Span:
        return self._tracer.begin(name, self._parent, server=True, **self._place)

    def durable(self) -> None:
        if self._append is not None:
            self._append.end()
            self._append = None

    def committed(self) -> None:
        if self._apply is None:
            self._apply = self._begin("follower apply")

    def applied(self) -> None:
        self.durable()
        if self._apply is not None:
            self._apply.end()

    def lost(self, why: str) -> None:
        for span in (self._append, self._apply):
            if span is not None:
                fail(span, why)
                span.end()
