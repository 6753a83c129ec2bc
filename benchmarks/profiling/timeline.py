"""One put, laid out: where each microsecond goes between a lone caller's call and its answer.

From the marks of client, leader and followers (tracepoints.py). For every put of the traced stretch the first mark
of each kind after the step before it is looked up; a put whose chain is broken (a heartbeat in between, a snapshot)
is left out. Printed are medians of each step's length, so that they add up only roughly to the median of the whole.

Leader and follower work at the same time: the leader's own fsync runs beside the round trip to the followers, and
the put is committed when its second copy is durable, usually by the quicker follower.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.profiling.tracepoints import Mark


@dataclass(frozen=True, slots=True)
class Step:
    """From the mark before to this one."""

    where: str
    label: str
    detail: str
    says: str


CLIENT_OUT = (
    Step("client", "client.send", "", "caller's put, future, wake the writer, batch encoded (one loop turn)"),
    Step("leader", "request", "", "gRPC: written, socket, its threads, wake of the leader's loop"),
    Step("leader", "pass", "", "request parsed, pass of the Ready loop scheduled"),
    Step("leader", "send", "AppendEntries", "proposed: entry encoded, append made for each follower"),
)
LEADER_DISK = (
    Step("leader", "storage.submit", "", "to the storage queue"),
    Step("leader", "storage.begin", "", "hand-over: next turn of the loop, or the storage thread with the interpreter"),
    Step("leader", "wal.write.end", "", "records encoded, pwrite"),
    Step("leader", "wal.sync.end", "", "fdatasync (and the interpreter again)"),
    Step("leader", "durable", "", "hand-over: call_soon_threadsafe, loop wakes, gets the interpreter"),
)
OUT_TO_FOLLOWER = (
    Step("leader", "peer.write", "", "until the link's writer runs; envelope encoded"),
    Step("follower", "receive", "AppendEntries", "gRPC: written, socket, its threads, wake of the follower's loop"),
    Step("follower", "storage.submit", "", "core's step, pass, to the storage queue"),
    Step("follower", "storage.begin", "", "hand-over: next turn of the loop, or the storage thread"),
    Step("follower", "wal.write.end", "", "records encoded, pwrite"),
    Step("follower", "wal.sync.end", "", "fdatasync (and the interpreter again)"),
    Step("follower", "durable", "", "hand-over: back to the loop"),
    Step("follower", "peer.write", "", "answer queued, writer wakes, encoded"),
    Step("leader", "receive", "AppendSuccess", "gRPC: written, socket, its threads, wake of the leader's loop"),
)
BACK = (
    Step("leader", "pass", "", "counted: committed; pass scheduled"),
    Step("leader", "apply.end", "", "applied to the state machine, results to the stream"),
    Step("leader", "answer.write", "", "until the answer's writer runs"),
    Step("client", "client.response", "", "gRPC: written, socket, its threads, wake of the client's loop"),
    Step("client", "put.end", "", "result decoded, caller resumed"),
)


class Track:
    """One process's marks, searchable by label from a time on."""

    def __init__(self, marks: list[Mark]) -> None:
        self._times: dict[str, list[int]] = {}
        self._details: dict[str, list[str]] = {}
        for at, label, detail in sorted(marks):
            self._times.setdefault(label, []).append(at)
            self._details.setdefault(label, []).append(detail)

    def first(self, label: str, since: int, detail: str = "") -> int | None:
        """When the first mark of this label (and detail) at or after ``since`` was made."""
        times = self._times.get(label, [])
        at = bisect.bisect_left(times, since)
        while at < len(times):
            if detail in self._details[label][at]:
                return times[at]
            at += 1
        return None

    def between(self, label: str, since: int, until: int, detail: str = "") -> int:
        """How many marks of this label fall there."""
        times = self._times.get(label, [])
        return sum(
            1
            for at in range(bisect.bisect_left(times, since), bisect.bisect_right(times, until))
            if detail in self._details[label][at]
        )

    def pairs(self, label: str) -> Iterator[tuple[int, int]]:
        """Each mark of ``label`` with the first ``label.end`` after it."""
        for since in self._times.get(label, []):
            until = self.first(label + ".end", since)
            if until is not None:
                yield since, until


def _follow(tracks: dict[str, Track], steps: tuple[Step, ...], since: int, until: int) -> list[int] | None:
    """When each step was reached, or None if one is missing."""
    reached = []
    for step in steps:
        at = tracks[step.where].first(step.label, since, step.detail)
        if at is None or at > until:
            return None
        reached.append(at)
        since = at
    return reached


def timeline(client: Track, leader: Track, followers: list[Track]) -> str:
    """The text of it."""
    out: list[list[int]] = []
    disk: list[list[int]] = []
    trip: list[list[int]] = []
    back: list[list[int]] = []
    whole: list[int] = []
    slack: list[int] = []
    messages: list[tuple[int, int, int, int]] = []
    for since, until in client.pairs("put"):
        tracks = {"client": client, "leader": leader}
        first = _follow(tracks, CLIENT_OUT, since, until)
        if first is None:
            continue
        own = _follow(tracks, LEADER_DISK, first[-1], until)
        trips = [_follow({**tracks, "follower": each}, OUT_TO_FOLLOWER, first[-1], until) for each in followers]
        complete = [each for each in trips if each is not None]
        if own is None or not complete:
            continue
        quickest = min(complete, key=lambda each: each[-1])
        committed = max(own[-1], quickest[-1])
        last = _follow(tracks, BACK, committed, until)
        if last is None:
            continue
        whole.append(until - since)
        slack.append(quickest[-1] - own[-1])
        out.append(_lengths(since, first))
        disk.append(_lengths(first[-1], own))
        trip.append(_lengths(first[-1], quickest))
        back.append(_lengths(committed, last))
        messages.append(
            (
                leader.between("peer.write", since, until),
                leader.between("receive", since, until),
                leader.between("pass", since, until),
                sum(each.between("storage.begin", since, until) for each in followers),
            )
        )
    if not whole:
        return "no put could be followed all the way: are the trace points in step with the code?\n"
    lines = [
        f"{len(whole)} puts followed; median {statistics.median(whole) / 1e3:,.0f} us, traced",
        "",
        *_section("client to leader", CLIENT_OUT, out),
        *_section("leader's own disk (beside what follows)", LEADER_DISK, disk),
        *_section("the quicker follower", OUT_TO_FOLLOWER, trip),
        f"  the follower's answer comes {statistics.median(slack) / 1e3:,.0f} us after the leader's own disk is done",
        "",
        *_section("back to the caller", BACK, back),
        "in the time of one put the leader wrote {:.1f} envelopes, received {:.1f} and made {:.1f} passes; the "
        "followers wrote {:.1f} groups to disk".format(*_means(messages)),
    ]
    return "\n".join(lines) + "\n"


def _lengths(since: int, reached: list[int]) -> list[int]:
    return [after - before for before, after in zip([since, *reached], reached, strict=False)]


def _means(rows: list[tuple[int, int, int, int]]) -> list[float]:
    return [statistics.mean(column) for column in zip(*rows, strict=True)]


def _section(title: str, steps: tuple[Step, ...], lengths: list[list[int]]) -> list[str]:
    medians = [statistics.median(column) / 1e3 for column in zip(*lengths, strict=True)]
    lines = [f"{title}: {sum(medians):,.0f} us"]
    lines += [f"  {median:7,.0f}  {step.where:<9}{step.says}" for median, step in zip(medians, steps, strict=True)]
    return [*lines, ""]
