"""Whether heartbeat and election timeouts fit the disks and the network that were measured. No I/O.

Theory. A follower must not stand for election while the leader is well: so the election timeout has to be an order of
magnitude above the time that a round of the leader's takes (Raft, section 5.6), of which the slow end counts, because
one slow round in a hundred is one every few seconds. What a round takes: the way there and back, and the follower's
fsync. And several heartbeats must fit into it, since any may be lost. All voters should have the same timeouts: one
that is quicker than the others disturbs them again and again.
"""

from __future__ import annotations

from collections.abc import Iterator

from lattice_cli.doctor.observed import Finding, Observation
from lattice_cli.render.text import seconds_text
from lattice_core.client import NodeStatus

ROUNDS_IN_A_TIMEOUT = 10.0
HEARTBEATS_IN_A_TIMEOUT = 3.0
FEWEST = 50
"""A 99th percentile of fewer is the slowest."""

ROUND_TRIP_LONG_SECONDS = 0.1


def check(seen: Observation) -> Iterator[Finding]:
    trips = [*_round_trips(seen)]
    slowest = 0.0
    for name, p50, p99, count in trips:
        slowest = max(slowest, p99)
        text = f"half within {seconds_text(p50)}, 99 % within {seconds_text(p99)}, of {count:,} heartbeats"
        slow = p50 > ROUND_TRIP_LONG_SECONDS
        yield Finding(
            "warning" if slow else "ok",
            "round trips",
            f"from the leader: {text}",
            "move the member nearer, or look at the network: every write waits for a majority" if slow else None,
            (name,),
        )
    yield from _from_here(seen)
    yield from _timeouts(seen, slowest)


def _round_trips(seen: Observation) -> Iterator[tuple[str, float, float, int]]:
    """Each member as its leader measured it: name, median, 99th percentile, how many."""
    names = {report.id: report.name for report in seen.reports()}
    for node in seen.nodes():
        for progress in node.progress if node.role == "leader" else ():
            trip = progress.round_trip
            if trip is None or progress.node_id not in names:
                continue
            p50, p99 = trip.quantile(0.5), trip.quantile(0.99)
            if p50 is not None and p99 is not None and trip.count >= FEWEST:
                yield names[progress.node_id], p50, p99, trip.count


def _from_here(seen: Observation) -> Iterator[Finding]:
    quickest = {
        report.name: min(examined.round_trips)
        for report in seen.reports()
        if (examined := seen.members.get(report.id)) is not None and examined.round_trips
    }
    if quickest:
        told = ", ".join(f"{name} {seconds_text(seconds)}" for name, seconds in quickest.items())
        yield Finding("ok", "round trips", f"from here, a status each: {told}")


def _timeouts(seen: Observation, round_trip: float) -> Iterator[Finding]:
    nodes = [node for node in seen.nodes() if node.details is not None and node.voter]
    if not nodes:
        return
    settings: dict[tuple[int, int, int], list[str]] = {}
    for node in nodes:
        settings.setdefault(_settings(node), []).append(node.name)
    if len(settings) > 1:
        told = "; ".join(
            f"{', '.join(names)}: heartbeat {beat} ms, election {low} to {high} ms"
            for (beat, low, high), names in settings.items()
        )
        yield Finding(
            "warning",
            "timeouts",
            f"voters have different ones: {told}",
            "give all the same --heartbeat-ms and --election-timeout-min-ms / -max-ms, and restart them one by one",
        )
    if len(nodes) == 1:
        return  # nobody to hear from
    fsync = max((_fsync_p99(node) for node in nodes), default=0.0)
    needed_ms = ROUNDS_IN_A_TIMEOUT * (round_trip + fsync) * 1000
    shortest = min(_settings(node)[1] for node in nodes)
    beat = max(_settings(node)[0] for node in nodes)
    fits = True
    if needed_ms > shortest:
        fits = False
        wanted = _rounded_up(needed_ms)
        yield Finding(
            "warning",
            "timeouts",
            f"elections after {shortest} ms, and a round may take {seconds_text(round_trip + fsync)} "
            f"(99 % of round trips within {seconds_text(round_trip)}, of fsyncs within {seconds_text(fsync)}): "
            "fewer than ten fit",
            f"--election-timeout-min-ms {wanted} --election-timeout-max-ms {2 * wanted} on every member; or quicker "
            "disks",
        )
    if beat * HEARTBEATS_IN_A_TIMEOUT > shortest:
        fits = False
        yield Finding(
            "warning",
            "timeouts",
            f"a heartbeat every {beat} ms, and elections after {shortest} ms: two that are lost are one too many",
            f"--heartbeat-ms {max(1, shortest // 5)} on every member",
        )
    if round_trip * 1000 > beat:
        fits = False
        yield Finding(
            "warning",
            "timeouts",
            f"a heartbeat every {beat} ms, and a round trip may take {seconds_text(round_trip)}",
            f"--heartbeat-ms {_rounded_up(round_trip * 1000)} on every member, and election timeouts ten times that",
        )
    if fits and len(settings) == 1:
        (beat, low, high), *_ = settings
        fit = "ten of the slowest rounds fit into one" if needed_ms else "too little measured to say whether they fit"
        yield Finding("ok", "timeouts", f"heartbeat {beat} ms, election {low} to {high} ms: {fit}")


def _settings(node: NodeStatus) -> tuple[int, int, int]:
    details = node.details
    assert details is not None
    return details.heartbeat_ms, details.election_timeout_min_ms, details.election_timeout_max_ms


def _fsync_p99(node: NodeStatus) -> float:
    if node.counters is None or node.counters.fsync.count < FEWEST:
        return 0.0
    return node.counters.fsync.quantile(0.99) or 0.0


def _rounded_up(milliseconds: float) -> int:
    """To a number that people would choose: hundreds, or tens below that."""
    step = 100 if milliseconds > 100 else 10
    return int(-(-milliseconds // step) * step)
