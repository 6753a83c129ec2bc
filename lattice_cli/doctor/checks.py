"""What an observation means: findings, each with its severity in a word and what to do. No I/O.

A check says something in every case, also that all is well: who reads a report wants to know what was looked at.
Thresholds stand with their reasons. What several members share is said once (:func:`diagnose`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lattice_cli.doctor import certificates, limits, machines
from lattice_cli.doctor.observed import Finding, Observation
from lattice_cli.render.text import hex_id, plural
from lattice_core.raft.quorum import majority

LAGGING_ENTRIES = 100
"""As in the tables: below it, the difference is the time the question took."""


def diagnose(seen: Observation) -> list[Finding]:
    """All findings, in the order in which somebody would look."""
    findings = [*_endpoints(seen)]
    if seen.cluster is not None:
        findings += _members(seen)
        findings += _voters(seen)
        findings += _logs(seen)
        findings += _versions(seen)
        findings += machines.check(seen)
        findings += limits.check(seen)
    elif seen.cluster_error is not None:
        findings.append(Finding("problem", "cluster", seen.cluster_error, "lattice status --endpoints H:P, one by one"))
    findings += certificates.check(seen)
    if seen.disk is not None:
        findings += machines.local_disk(seen.disk)
    return [*_shared(findings)]


def _shared(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The same of several members as one."""
    members: dict[Finding, list[str]] = {}
    for finding in findings:
        alone = Finding(finding.severity, finding.check, finding.text, finding.remedy)
        members.setdefault(alone, []).extend(finding.members)
    for finding, names in members.items():
        yield Finding(finding.severity, finding.check, finding.text, finding.remedy, tuple(dict.fromkeys(names)))


def _endpoints(seen: Observation) -> Iterator[Finding]:
    away = [each for each in seen.endpoints if each.status is None]
    members = {report.client_addr for report in seen.reports()}  # of these there is more to say
    for each in away:
        if each.address in members:
            continue
        yield Finding(
            "problem" if not seen.reached else "warning",
            "endpoints",
            f"{each.address}: {each.error}",
            "start the node there (lattice start), or correct --endpoints",
        )
    clusters: dict[int, list[str]] = {}
    for each in seen.endpoints:
        if each.status is not None:
            clusters.setdefault(each.status.cluster_id, []).append(each.address)
    if len(clusters) > 1:
        told = "; ".join(f"{', '.join(addresses)}: {hex_id(cluster)}" for cluster, addresses in clusters.items())
        yield Finding(
            "problem",
            "cluster id",
            f"the endpoints belong to {len(clusters)} clusters: {told}",
            "name one cluster's members only in --endpoints",
        )
    elif clusters and not away:
        yield Finding("ok", "endpoints", f"{len(seen.endpoints)} of {len(seen.endpoints)} answer")


def _members(seen: Observation) -> Iterator[Finding]:
    reports = seen.reports()
    fine = 0
    for report in reports:
        examined = seen.members.get(report.id)
        status = examined.status if examined is not None else None
        if status is not None and status.node_id == report.id:
            fine += 1
            assert examined is not None
            if not report.reachable:
                yield Finding(
                    "warning",
                    "members",
                    f"answers at {report.client_addr}, and not at its peer address {report.peer_addr}",
                    "check the network between members, and what the peer address of that member is",
                    (report.name,),
                )
        elif status is not None:
            assert examined is not None
            other = "another cluster" if seen.cluster and status.cluster_id != seen.cluster.cluster_id else status.name
            yield Finding(
                "problem",
                "members",
                f"at its client address {report.client_addr} answers {other}",
                "give every member a client address of its own: --client-addr",
                (report.name,),
            )
        elif report.reachable:
            where = report.client_addr or "an address that nobody knows"
            why = f": {examined.error}" if examined is not None else ""
            yield Finding(
                "warning",
                "members",
                f"other members reach it, clients here do not, at {where}{why}",
                "let clients through to --client-addr, and have it listen on an address they can reach",
                (report.name,),
            )
        else:
            since = f" for {report.unreachable_seconds:.0f} s" if report.unreachable_seconds is not None else ""
            kind = "voter" if report.voter else "learner"
            yield Finding(
                "problem" if report.voter else "warning",
                "members",
                f"{kind}, unreachable{since}",
                "start it with the same command as before; if it is gone for good: "
                f"lattice cluster replace-server {report.name} NEW PEER_ADDR",
                (report.name,),
            )
    if fine == len(reports):
        yield Finding("ok", "members", f"{fine} of {fine} answer, each with its own id and the same cluster id")
    for report in reports:
        node = seen.node(report)
        if node is not None and node.counters is not None and node.counters.not_ready:
            yield Finding(
                "problem", "readiness", f"not ready: {node.counters.not_ready}", "lattice top, to see whether it moves",
                (report.name,),
            )  # fmt: skip


def _voters(seen: Observation) -> Iterator[Finding]:
    cluster = seen.cluster
    assert cluster is not None
    voters = [report for report in cluster.members if report.voter]
    live = [report for report in voters if seen.node(report) is not None]
    quorum = majority(len(voters))
    if len(live) < quorum:
        yield Finding(
            "problem",
            "quorum",
            f"{len(live)} of {plural(len(voters), 'voter')} answer, {quorum} have to: nothing can be written",
            "start those that are away; if they are gone for good: docs/operations.md, lattice recover",
        )
    elif len(live) == quorum and len(voters) > 2 and len(live) < len(voters):
        yield Finding(
            "problem",
            "quorum",
            f"{len(live)} of {len(voters)} voters answer, just enough: the next failure stops all writes",
            "start those that are away, or replace them: lattice cluster replace-server OLD NEW PEER_ADDR",
        )
    else:
        yield Finding("ok", "quorum", f"{len(live)} of {len(voters)} voters answer, {quorum} have to")
    leaders = {node.leader_id for node in seen.nodes()} - {None}
    if cluster.leader is None and len(live) >= quorum:
        yield Finding(
            "problem",
            "leader",
            "nobody leads",
            "again in a few seconds; if it stays so: lattice top, and members' logs",
        )
    elif len(leaders) > 1:
        yield Finding("note", "leader", "members differ about who leads: an election has just been", None)
    elif cluster.leader is not None:
        yield Finding("ok", "leader", f"{cluster.leader.name} leads in term {cluster.term}")
    if cluster.joint or cluster.pending is not None:
        change = "two majorities decide until it is done: " if cluster.joint else ""
        yield Finding("note", "membership", f"a change is under way: {change}{cluster.pending}", None)
    if len(voters) == 1:
        yield Finding(
            "note",
            "voters",
            "one voter: if it is away, so is the data",
            "two more, one by one: lattice start --name n2 ... --join H:P",
        )
    elif len(voters) % 2 == 0:
        tolerated = len(voters) - quorum
        yield Finding(
            "warning",
            "voters",
            f"{len(voters)} voters tolerate {tolerated or 'no'} failure{'' if tolerated == 1 else 's'}, as "
            f"{len(voters) - 1} would: an even number only adds one that can fail",
            "add one (lattice start ... --join H:P), or remove one (lattice cluster remove-server NAME)",
        )
    elif len(live) == len(voters):
        yield Finding("ok", "voters", f"{len(voters)} voters tolerate {plural(len(voters) - quorum, 'failure')}")
    elif len(live) > quorum:
        left = plural(len(live) - quorum, "more failure")
        yield Finding("ok", "voters", f"the {len(live)} of {len(voters)} voters that answer tolerate {left}")


def _logs(seen: Observation) -> Iterator[Finding]:
    cluster = seen.cluster
    assert cluster is not None
    nodes = seen.nodes()
    furthest = max((node.commit_index for node in nodes), default=0)
    lagging = False
    for report in cluster.members:
        node = seen.node(report)
        if node is None:
            continue
        behind = furthest - node.applied_index
        if behind >= LAGGING_ENTRIES:
            lagging = True
            sending = report.snapshot_sent_bytes is not None
            yield Finding(
                "note" if sending else "warning",
                "lag",
                "is being sent a snapshot" if sending else f"{'learner, ' if report.learner else ''}{behind:,} behind",
                None
                if sending
                else "lattice top: if it does not catch up, its disk, its processor or its network is "
                "too slow for what is written",
                (report.name,),
            )
        if report.learner and not report.promotes:
            yield Finding(
                "note", "learners", "a learner that stays one: a read replica, no help when voters fail", None,
                (report.name,),
            )  # fmt: skip
        elif report.learner:
            yield Finding("note", "learners", "a learner, to vote when it has caught up", None, (report.name,))
    if nodes and not lagging:
        yield Finding("ok", "lag", "every member that answers has applied what is committed")
    hashes: dict[int, dict[int, list[str]]] = {}
    for node in nodes:
        hashes.setdefault(node.applied_index, {}).setdefault(node.state_hash, []).append(node.name)
    compared = 0
    for index, states in hashes.items():
        compared = max(compared, *(len(names) for names in states.values()))
        if len(states) > 1:
            told = "; ".join(f"{', '.join(names)}: {hex_id(state)}" for state, names in states.items())
            yield Finding(
                "problem",
                "state",
                f"members that applied the same {index:,} entries hold different states: {told}",
                "take a backup of each now (lattice snapshot save), and report it",
            )
            return
    if compared > 1:
        yield Finding("ok", "state", "members that have applied the same hold the same")


def _versions(seen: Observation) -> Iterator[Finding]:
    versions: dict[str, list[str]] = {}
    for node in seen.nodes():
        versions.setdefault(node.version, []).append(node.name)
    if len(versions) > 1:
        told = "; ".join(f"{version}: {', '.join(names)}" for version, names in sorted(versions.items()))
        yield Finding(
            "warning", "versions", f"members run different versions: {told}",
            "finish the upgrade, one member after the other: docs/operations.md",
        )  # fmt: skip
    elif versions:
        yield Finding("ok", "versions", f"every member runs {next(iter(versions))}")
