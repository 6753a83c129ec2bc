"""What doctor has seen, before anybody judges it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lattice_core.client import CertificateDetails, ClusterStatus, Examined, MemberReport, NodeStatus

Severity = Literal["ok", "note", "warning", "problem"]
"""``problem``: broken, or one step from it. ``warning``: will hurt; act. ``note``: to be known, nothing to do."""

ACTION: frozenset[Severity] = frozenset({"warning", "problem"})
"""What somebody has to see to: exit code 1."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so, and what to do about it."""

    severity: Severity
    check: str
    """What was looked at, in a word or two."""
    text: str
    remedy: str | None = None
    members: tuple[str, ...] = ()
    """Whom it is about; empty: the cluster, or this machine."""


@dataclass(frozen=True, slots=True)
class DiskMeasured:
    """A directory's disk, tried out with writes like the log's."""

    path: str
    fsyncs: tuple[float, ...]
    """Seconds each, in ascending order."""
    write_bytes: int
    free_bytes: int
    total_bytes: int
    filesystem: str | None
    """Its type, where the system says."""
    owner_only: bool
    """Nobody else may read what is in it."""
    error: str | None = None
    """Why it could not be tried out."""
    identity: tuple[str, int] | None = None
    """The member whose data is there, and its cluster's id."""

    def fsync_quantile(self, fraction: float) -> float:
        return self.fsyncs[min(len(self.fsyncs) - 1, int(fraction * len(self.fsyncs)))]


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that was found out."""

    endpoints: tuple[Examined, ...]
    """The addresses that were given."""
    cluster: ClusterStatus | None = None
    """As one member sees it; None: nobody could say."""
    cluster_error: str | None = None
    members: dict[int, Examined] = field(default_factory=dict)
    """By id: each member of ``cluster`` whose client address is known, asked by itself, from here."""
    disk: DiskMeasured | None = None
    own_certificate: CertificateDetails | None = None
    """What was shown to members from here."""
    now_seconds: float = 0.0
    """This machine's wall clock, for that."""

    def reports(self) -> Sequence[MemberReport]:
        return self.cluster.members if self.cluster is not None else ()

    def node(self, report: MemberReport) -> NodeStatus | None:
        """The best that is known of a member: what it told us, or else what it told another member."""
        examined = self.members.get(report.id)
        if examined is not None and examined.status is not None and examined.status.node_id == report.id:
            return examined.status
        return report.status

    def nodes(self) -> list[NodeStatus]:
        return [node for node in map(self.node, self.reports()) if node is not None]

    @property
    def reached(self) -> bool:
        return any(each.status is not None for each in (*self.endpoints, *self.members.values()))


def with_disk(seen: Observation, disk: DiskMeasured) -> Observation:
    return dataclasses.replace(seen, disk=disk)
