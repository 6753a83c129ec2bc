"""The machines that members run on: clocks, disks, descriptors, and whether they were held up. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from lattice_cli.doctor.observed import DiskMeasured, Finding, Observation
from lattice_cli.render.text import bytes_text, seconds_text
from lattice_core.client import NodeStatus

CLOCK_SECONDS = 1.0
"""Wall clocks further apart than this. Nothing in the cluster goes by them; but logs, certificates and people do."""

FSYNC_SLOW_SECONDS = 0.010
"""The 99th percentile of a disk that is fit for this: a solid-state disk takes one or two milliseconds."""
FSYNC_BAD_SECONDS = 0.100
"""A heartbeat: from here on writes are slow for everybody whenever this member is needed."""
FSYNC_STALLED_SECONDS = 1.0
FEWEST_FSYNCS = 50
"""A percentile of fewer is one of them."""

FREE_LOW_BYTES = 1 << 30
FREE_NONE_BYTES = 128 << 20
"""A few segments of the log and a small snapshot."""
FREE_LOW_FRACTION = 0.10
STATES_THAT_FIT = 4
"""Two snapshots, and as much log after each of them."""

DESCRIPTORS_FEW = 4096
DESCRIPTORS_USED = 0.7

SNAPSHOT_OLD_BYTES = 256 << 20
"""Of log since the last snapshot; by default one is taken after 32 MiB, or as much as a large state takes."""

LOG_STATES = 5
"""Of a large state: the log is kept from the older of two snapshots on, and grows while one is written."""

HELD_UP_PER_HOUR = 6.0
ELECTIONS_PER_HOUR = 6.0
FEW = 3
"""So many say nothing, however short the time: one election comes with a start, another with a hand-over."""
FEWEST_HOURS = 0.1
"""A member that was started just now has just held an election."""


def check(seen: Observation) -> Iterator[Finding]:
    yield from _clocks(seen)
    for node in seen.nodes():
        yield from _disk(node)
        yield from _descriptors(node)
        yield from _snapshots(node)
        yield from _unrest(node)


def _clocks(seen: Observation) -> Iterator[Finding]:
    offsets: list[tuple[float, str]] = []
    error = 0.0
    for report in seen.reports():
        examined = seen.members.get(report.id)
        if examined is not None and examined.clock_offset_seconds is not None:
            offsets.append((examined.clock_offset_seconds, report.name))
            error = max(error, examined.clock_error_seconds or 0.0)
    if not offsets:
        return
    (first, slow), (last, fast) = min(offsets), max(offsets)
    apart = last - first
    about = f"(give or take {seconds_text(error)})"
    remedy = "synchronise the machines' clocks (NTP). The cluster does not go by them; logs and certificates do"
    if apart - 2 * error > CLOCK_SECONDS:
        yield Finding(
            "warning", "clocks", f"{fast} is {seconds_text(apart)} ahead of {slow} {about}", remedy, (slow, fast)
        )
    elif len(offsets) > 1:
        yield Finding("ok", "clocks", f"members' wall clocks are within {seconds_text(apart)} {about}")
    middle = sorted(offset for offset, _ in offsets)[len(offsets) // 2]
    if abs(middle) - error > CLOCK_SECONDS:
        side = "behind" if middle > 0 else "ahead of"
        yield Finding("warning", "clocks", f"this machine is {seconds_text(abs(middle))} {side} the members", remedy)


def _disk(node: NodeStatus) -> Iterator[Finding]:
    who = (node.name,)
    counters, details = node.counters, node.details
    if counters is None:
        return
    if counters.disk_full:
        yield Finding(
            "problem", "disk space", "its disk is full: it takes no writes", "make room; it goes on by itself", who
        )
    elif counters.disk_free_bytes is not None:
        yield from _space(counters.disk_free_bytes, details.disk_bytes if details else None, _state_bytes(node), who)
    if counters.fsync_stalled_seconds > FSYNC_STALLED_SECONDS:
        yield Finding(
            "problem",
            "fsync",
            f"one has been under way for {counters.fsync_stalled_seconds:.0f} s: the disk hangs",
            "look at the disk (dmesg); if it does not come back, replace the member",
            who,
        )
    fsync = counters.fsync
    p50, p99 = fsync.quantile(0.5), fsync.quantile(0.99)
    if p50 is None or p99 is None or fsync.count < FEWEST_FSYNCS:
        yield Finding("note", "fsync", f"fewer than {FEWEST_FSYNCS} so far: too few to judge", None, who)
        return
    yield _fsync_finding(p50, p99, f"{fsync.count:,} since its start", who)


def _fsync_finding(p50: float, p99: float, of: str, who: tuple[str, ...]) -> Finding:
    text = f"half within {seconds_text(p50)}, 99 % within {seconds_text(p99)}, of {of}"
    remedy = "a disk of its own for the data directory, solid-state, not shared with what writes much"
    if p99 > FSYNC_BAD_SECONDS:
        return Finding("warning", "fsync", text, remedy, who)
    if p99 > FSYNC_SLOW_SECONDS:
        return Finding("note", "fsync", f"{text}: slow, or busy", remedy, who)
    return Finding("ok", "fsync", text, None, who)


def _state_bytes(node: NodeStatus) -> int:
    snapshot = node.details.snapshot_bytes if node.details is not None else None
    return snapshot or 0


def _space(free: int, total: int | None, state: int, who: tuple[str, ...]) -> Iterator[Finding]:
    of = f" of {bytes_text(total)}" if total else ""
    text = f"{bytes_text(free)}{of} free"
    remedy = "make room, or move the data directory to a larger disk"
    if free < max(FREE_NONE_BYTES, state):
        yield Finding("problem", "disk space", f"{text}: the next snapshot may not fit", remedy, who)
    elif free < max(FREE_LOW_BYTES, STATES_THAT_FIT * state):
        yield Finding("warning", "disk space", text, remedy, who)
    elif total and free < FREE_LOW_FRACTION * total:
        yield Finding("note", "disk space", text, remedy, who)
    else:
        yield Finding("ok", "disk space", text, None, who)


def _descriptors(node: NodeStatus) -> Iterator[Finding]:
    details = node.details
    if details is None or details.open_descriptors is None or details.descriptor_limit is None:
        return
    used, limit = details.open_descriptors, details.descriptor_limit
    remedy = "start it with a higher limit: ulimit -n 65536, or LimitNOFILE=65536 in its unit"
    if used > DESCRIPTORS_USED * limit:
        yield Finding(
            "warning", "descriptors", f"{used:,} of {limit:,} are open: soon nobody can connect", remedy, (node.name,)
        )
    elif limit < DESCRIPTORS_FEW:
        yield Finding(
            "note", "descriptors", f"at most {limit:,}: enough for about {limit - 100:,} clients", remedy, (node.name,)
        )
    else:
        yield Finding("ok", "descriptors", f"at most {limit:,}", None, (node.name,))


def _snapshots(node: NodeStatus) -> Iterator[Finding]:
    details = node.details
    if details is None:
        return
    if details.snapshots_failed:
        yield Finding(
            "warning",
            "snapshots",
            f"{details.snapshots_failed} could not be written since it was started",
            "look at its log (mostly a full disk), then: lattice snapshot take",
            (node.name,),
        )
    if node.log_bytes > max(SNAPSHOT_OLD_BYTES, LOG_STATES * _state_bytes(node)):
        yield Finding(
            "warning",
            "snapshots",
            f"its log has grown to {bytes_text(node.log_bytes)} without one",
            f"lattice snapshot take --member {node.name}",
            (node.name,),
        )
    elif not details.snapshots_failed:
        age = details.snapshot_age_seconds
        last = "none needed yet" if age is None else f"the last is {_age_text(age)} old"
        since = node.last_index - node.snapshot_index
        text = f"{last}, {since:,} {'entry' if since == 1 else 'entries'} since"
        yield Finding("ok", "snapshots", text, None, (node.name,))


def _age_text(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _unrest(node: NodeStatus) -> Iterator[Finding]:
    counters = node.counters
    hours = node.uptime_seconds / 3600
    if counters is None or hours < FEWEST_HOURS:
        return
    if counters.held_up > FEW and counters.held_up / hours > HELD_UP_PER_HOUR:
        yield Finding(
            "warning",
            "process",
            f"was stopped or starved {counters.held_up} times in {hours:.1f} h",
            "give it processor time of its own; look for swapping, and for pauses of the virtual machine",
            (node.name,),
        )
    if counters.elections_started > FEW and counters.elections_started / hours > ELECTIONS_PER_HOUR:
        yield Finding(
            "warning",
            "elections",
            f"began {counters.elections_started} elections in {hours:.1f} h",
            "its network or its disk is too slow for the election timeout: see round trips and fsync",
            (node.name,),
        )


def local_disk(disk: DiskMeasured) -> Iterator[Finding]:
    """The directory that was tried out here."""
    where = f"{disk.path}: "
    if disk.identity is not None:
        name, cluster_id = disk.identity
        yield Finding("ok", "data directory", f"{where}that of {name}, in cluster {cluster_id:016x}")
    if disk.error is not None:
        yield Finding("problem", "data directory", f"{where}{disk.error}", "give the directory of a node: --data-dir")
        if not disk.total_bytes:
            return
    if disk.fsyncs:
        of = f"{len(disk.fsyncs)} writes of {bytes_text(disk.write_bytes)} tried just now"
        found = _fsync_finding(disk.fsync_quantile(0.5), disk.fsync_quantile(0.99), of, ())
        yield Finding(found.severity, "fsync", f"{where}{found.text}", found.remedy)
    for space in _space(disk.free_bytes, disk.total_bytes, 0, ()):
        yield Finding(space.severity, space.check, f"{where}{space.text}", space.remedy)
    if disk.filesystem in ("tmpfs", "ramfs"):
        yield Finding(
            "warning", "data directory", f"{where}{disk.filesystem}: it is memory, and is lost with the machine",
            "put it on a disk: --data-dir",
        )  # fmt: skip
    elif disk.filesystem in ("nfs", "nfs4", "cifs", "fuse.sshfs"):
        yield Finding(
            "warning", "data directory", f"{where}{disk.filesystem}: a disk of somebody else's, over a network",
            "put it on a local disk: --data-dir",
        )  # fmt: skip
    if disk.identity is not None and not disk.owner_only:
        yield Finding(
            "warning", "data directory", f"{where}others than its owner may look into it", f"chmod 700 {disk.path}"
        )
