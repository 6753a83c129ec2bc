"""From statuses that follow each other to what has happened in between: rates, percentiles, events. Pure.

Counters are since a member's start, and each status says how long that is; so a rate is measured by the member's own
clock, whenever the answers came. A member that was restarted counts from nothing: what it has is what came since.
One that was away for a while, or is new, is no trouble either: there is just more, or nothing, to subtract.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from lattice_core.client import ClusterStatus, MemberReport, NodeStatus
from lattice_core.histogram import HistogramReading

HISTORY = 120
"""Points of a sparkline kept: two minutes at a second each; more than a line has room for."""

MAX_EVENTS = 50


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """One member now, and since the status before. None: not known (yet)."""

    report: MemberReport
    lag: int | None
    """Entries behind the leader's log."""
    writes_per_second: float | None = None
    reads_per_second: float | None = None
    failures_per_second: float | None = None
    fsync: HistogramReading | None = None
    round_trip: HistogramReading | None = None
    """From the leader to it and back."""
    cpu: float | None = None
    """Of one core: 1.0 is all of it."""
    elections_started: int | None = None
    """Since this view began."""

    @property
    def node(self) -> NodeStatus | None:
        return self.report.status


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole cluster at one moment."""

    status: ClusterStatus
    members: tuple[MemberFigures, ...]
    seconds: float | None
    """What the rates are over; None in the first: there are none."""
    writes_per_second: float | None
    reads_per_second: float | None
    failures_per_second: float | None
    writes: HistogramReading | None
    reads: HistogramReading | None
    elections: int
    """Terms that have begun since this view did."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed from one status to the next."""

    at: float
    """Wall clock, for people."""
    mark: str
    text: str


class Observer:
    """Takes statuses, gives figures; remembers what it needs for the next."""

    def __init__(self) -> None:
        self.writes: deque[float] = deque(maxlen=HISTORY)
        self.reads: deque[float] = deque(maxlen=HISTORY)
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._before: dict[int, NodeStatus] = {}
        self._last: ClusterStatus | None = None
        self._first_term: int | None = None
        self._elections_at_first: dict[int, int] = {}
        self._led = ""
        self._led_term = 0
        self._heard: set[int] = set()
        """Members that have answered before."""

    def observe(self, status: ClusterStatus, at: float) -> Figures:
        """The figures of this status; ``at``: wall clock seconds, only for the times of events."""
        term = max([status.term, *(member.status.term for member in status.members if member.status is not None)])
        if self._first_term is None:
            self._first_term = term
        self._note_events(status, at)
        intervals: list[float] = []
        members = tuple(self._member(member, status, intervals) for member in status.members)
        figures = Figures(
            status=status,
            members=members,
            seconds=max(intervals, default=None),
            writes_per_second=_total(member.writes_per_second for member in members),
            reads_per_second=_total(member.reads_per_second for member in members),
            failures_per_second=_total(member.failures_per_second for member in members),
            writes=self._together(status, "write_batches"),
            reads=self._together(status, "read_batches"),
            elections=max(0, term - self._first_term),
        )
        self._before.update({member.id: member.status for member in status.members if member.status is not None})
        known = {member.id for member in status.members}
        for gone in self._before.keys() - known:
            del self._before[gone]
        self._last = status
        if figures.writes_per_second is not None:
            self.writes.append(figures.writes_per_second)
        if figures.reads_per_second is not None:
            self.reads.append(figures.reads_per_second)
        return figures

    def lost(self) -> None:
        """Nobody answered: nothing is known to have gone through."""
        if self._last is not None:
            self.writes.append(0.0)
            self.reads.append(0.0)

    # -- one member -----------------------------------------------------------------------------------

    def _member(self, report: MemberReport, cluster: ClusterStatus, intervals: list[float]) -> MemberFigures:
        node = report.status
        if node is None:
            return MemberFigures(report, report.lag)
        lag = report.lag
        if lag is None:
            lag = max(0, max(each.status.commit_index for each in cluster.members if each.status) - node.last_index)
        counters = node.counters
        if counters is None:
            return MemberFigures(report, lag)
        before = self._earlier(node)
        past = before.counters if before is not None else None
        first = self._elections_at_first.setdefault(node.node_id, counters.elections_started)
        if counters.elections_started < first:
            first = self._elections_at_first[node.node_id] = 0  # restarted
        if past is None or before is None:
            return MemberFigures(
                report, lag, round_trip=self._round_trip(cluster, node.node_id), fsync=counters.fsync,
                elections_started=counters.elections_started - first,
            )  # fmt: skip
        seconds = max(node.uptime_seconds - before.uptime_seconds, 1e-3)
        intervals.append(seconds)
        failed = counters.write_batches_failed + counters.read_batches_failed
        failed_before = past.write_batches_failed + past.read_batches_failed
        return MemberFigures(
            report,
            lag,
            writes_per_second=max(0, counters.write_operations - past.write_operations) / seconds,
            reads_per_second=max(0, counters.read_operations - past.read_operations) / seconds,
            failures_per_second=max(0, failed - failed_before) / seconds,
            fsync=_recent(counters.fsync, past.fsync),
            round_trip=self._round_trip(cluster, node.node_id),
            cpu=max(0.0, counters.cpu_seconds - past.cpu_seconds) / seconds,
            elections_started=counters.elections_started - first,
        )

    def _earlier(self, node: NodeStatus) -> NodeStatus | None:
        """The status before, if it is of the same life of the member."""
        before = self._before.get(node.node_id)
        if before is None or node.uptime_seconds < before.uptime_seconds:
            return None
        return before

    def _round_trip(self, cluster: ClusterStatus, node_id: int) -> HistogramReading | None:
        """What the leader has measured, lately if it has, else since it was started."""
        leader = cluster.leader.status if cluster.leader is not None else None
        if leader is None or leader.node_id == node_id:
            return None
        now = next((each.round_trip for each in leader.progress if each.node_id == node_id), None)
        if now is None:
            return None
        before = self._earlier(leader)
        past = next((each.round_trip for each in before.progress if each.node_id == node_id), None) if before else None
        return _recent(now, past)

    def _together(self, cluster: ClusterStatus, name: str) -> HistogramReading | None:
        """All members' batches since the status before, as one histogram."""
        found: list[HistogramReading] = []
        for member in cluster.members:
            node = member.status
            if node is None or node.counters is None:
                continue
            before = self._earlier(node)
            if before is not None and before.counters is not None:
                found.append(getattr(node.counters, name).since(getattr(before.counters, name)))
        same = [each for each in found if each.bounds == found[0].bounds]
        if not same:
            return None
        counts = tuple(map(sum, zip(*(each.counts for each in same), strict=True)))
        return HistogramReading(same[0].bounds, counts, sum(each.total_seconds for each in same))

    # -- what changed -----------------------------------------------------------------------------------

    def _note_events(self, status: ClusterStatus, at: float) -> None:
        last = self._last
        leader = status.leader
        name = leader.name if leader is not None else ""
        if last is None:
            self._led, self._led_term = name, status.term
            return
        self._heard |= {member.id for member in last.members if member.reachable}
        before = {member.id: member for member in last.members}
        for member in status.members:
            former = before.pop(member.id, None)
            if former is None:
                self._tell(at, "+", f"{member.name} has joined as a {'voter' if member.voter else 'learner'}")
            elif former.reachable and not member.reachable:
                self._tell(at, "!", f"{member.name} does not answer")
            elif member.reachable and not former.reachable:
                again = " again" if member.id in self._heard else ""
                self._tell(at, "+", f"{member.name} answers{again}")
            elif member.status is not None and former.status is not None:
                if member.status.uptime_seconds < former.status.uptime_seconds:
                    self._tell(at, "+", f"{member.name} was restarted")
                elif member.voter and not former.voter:
                    self._tell(at, "+", f"{member.name} votes now")
        for gone in before.values():
            self._tell(at, "-", f"{gone.name} is no member any more")
        if name and (name != self._led or status.term > self._led_term):
            after = f", after {self._led}" if self._led and self._led != name else ""
            self._tell(at, "*", f"{name} leads in term {status.term}{after}")
            self._led, self._led_term = name, status.term
        elif not name and last.leader is not None:
            self._tell(at, "!", f"no leader; {self._led} led in term {self._led_term}")

    def _tell(self, at: float, mark: str, text: str) -> None:
        self.events.append(Event(at, mark, text))


def _recent(now: HistogramReading, before: HistogramReading | None) -> HistogramReading:
    """What came since the status before; in a quiet interval rather all there is than nothing."""
    between = now.since(before)
    return between if between.count else now


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
