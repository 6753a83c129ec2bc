"""Asking the leader to change who belongs to the cluster.

Each call is sent to the leader, wherever that is by now, until the deadline. It is answered when the change is
committed; what follows from it by itself (a learner's promotion) is seen in the cluster's status.

A call whose connection broke may have been carried out: OutcomeUnknown. It is not sent again by itself, since the
answer to a repetition ("is a member already") would say nothing of the first.
"""

# ruff: noqa: ASYNC109 - the time is what is left of the caller's deadline, and goes to the server too
from __future__ import annotations

from typing import Any

from lattice_core.client.channels import AddressBook
from lattice_core.client.cluster import ask_leader
from lattice_core.client.cluster_types import MembershipChanged, QuorumReport
from lattice_core.rpc.pb import cluster_pb2, raft_pb2


async def add_server(
    book: AddressBook, name: str, peer_addr: str, *, learner: bool, start_later: bool, dry_run: bool, timeout: float
) -> MembershipChanged:
    async def call(stub: Any, seconds: float) -> cluster_pb2.MembershipResponse:
        request = cluster_pb2.AddServerRequest(
            name=name,
            peer_addr=peer_addr,
            learner=learner,
            start_later=start_later,
            dry_run=dry_run,
            timeout_seconds=_inner(seconds),
        )
        response: cluster_pb2.MembershipResponse = await stub.AddServer(request, timeout=seconds)
        return response

    return _changed(await ask_leader(book, call, timeout, what="add-server"), dry_run)


async def remove_server(
    book: AddressBook, name: str, *, force: bool, dry_run: bool, timeout: float
) -> MembershipChanged:
    async def call(stub: Any, seconds: float) -> cluster_pb2.MembershipResponse:
        request = cluster_pb2.RemoveServerRequest(
            name=name, force=force, dry_run=dry_run, timeout_seconds=_inner(seconds)
        )
        response: cluster_pb2.MembershipResponse = await stub.RemoveServer(request, timeout=seconds)
        return response

    return _changed(await ask_leader(book, call, timeout, what="remove-server"), dry_run)


async def replace_server(
    book: AddressBook, old: str, name: str, peer_addr: str, *, start_later: bool, dry_run: bool, timeout: float
) -> MembershipChanged:
    async def call(stub: Any, seconds: float) -> cluster_pb2.MembershipResponse:
        request = cluster_pb2.ReplaceServerRequest(
            old=old,
            name=name,
            peer_addr=peer_addr,
            start_later=start_later,
            dry_run=dry_run,
            timeout_seconds=_inner(seconds),
        )
        response: cluster_pb2.MembershipResponse = await stub.ReplaceServer(request, timeout=seconds)
        return response

    return _changed(await ask_leader(book, call, timeout, what="replace-server"), dry_run)


async def promote(book: AddressBook, name: str, *, dry_run: bool, timeout: float) -> MembershipChanged:
    async def call(stub: Any, seconds: float) -> cluster_pb2.MembershipResponse:
        request = cluster_pb2.PromoteServerRequest(name=name, dry_run=dry_run, timeout_seconds=_inner(seconds))
        response: cluster_pb2.MembershipResponse = await stub.PromoteServer(request, timeout=seconds)
        return response

    return _changed(await ask_leader(book, call, timeout, what="promote"), dry_run)


def _inner(seconds: float) -> float:
    """What the server may take, so that its own account of what it could not do still arrives in time."""
    return max(0.05, seconds * 0.9)


def _changed(response: cluster_pb2.MembershipResponse, dry_run: bool) -> MembershipChanged:
    member = response.member
    configuration = response.configuration
    replaces = None
    if member.HasField("promotion") and member.promotion.HasField("replaces"):
        replaces = _name_of(member.promotion.replaces, configuration)
    return MembershipChanged(
        name=member.name,
        id=member.id,
        peer_addr=member.peer_addr,
        index=response.index,
        member=any(each.id == member.id for each in configuration.members),
        voter=member.id in configuration.voters,
        promotes=member.HasField("promotion"),
        replaces=replaces,
        before=_quorum(response.before),
        after=_quorum(response.after),
        dry_run=dry_run,
        refused=response.refused or None,
        hint=response.hint or None,
    )


def _name_of(node_id: int, configuration: raft_pb2.Configuration) -> str:
    return next((each.name for each in configuration.members if each.id == node_id), f"{node_id:016x}")


def _quorum(report: cluster_pb2.Quorum) -> QuorumReport:
    return QuorumReport(
        voters=tuple(report.voters),
        learners=tuple(report.learners),
        size=report.size,
        tolerates=report.tolerates,
        live=report.live,
    )
