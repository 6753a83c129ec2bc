"""The Cluster service: what operators ask. Any member answers; it asks the others on the way."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import grpc

from lattice_core.errors import Busy, LatticeError, Unavailable
from lattice_core.rpc.aio import CONNECTION_ERRORS
from lattice_core.rpc.codec import configuration_to_pb, member_to_pb
from lattice_core.rpc.errors import to_detail
from lattice_core.rpc.pb import cluster_pb2, raft_pb2
from lattice_core.rpc.snapshot_stream import PIECE_BYTES, PIECE_PAUSE_SECONDS
from lattice_core.server.access import Need
from lattice_core.server.details import node_details
from lattice_core.server.kv_service import abort
from lattice_core.server.membership_requests import MembershipRequests
from lattice_core.server.node import Node
from lattice_core.server.snapshot_files import Snapshot

STATUS_TIMEOUT_SECONDS = 0.5
"""For each member, all asked at once: a status table should not take longer than a blink."""

MAX_STATUS_TIMEOUT_SECONDS = 10.0
TRANSFER_TIMEOUT_SECONDS = 5.0

MAX_SAVES = 4
"""Snapshots being streamed out at once: each holds a file, and takes a share of the loop."""


class ClusterService:
    """Handlers for lattice.v1.Cluster."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._changes = MembershipRequests(node)
        self._saving = 0

    async def node_status(self, request: cluster_pb2.NodeStatusRequest, _context: Any) -> raft_pb2.MemberStatus:
        # First what takes a thread: the clock is to be read just before the answer leaves.
        details = await node_details(self._node) if request.details else None
        status = await self._node.status()
        if details is not None:
            details.wall_clock_seconds = time.time()
            status.details.CopyFrom(details)
        return status

    async def cluster_status(
        self, request: cluster_pb2.ClusterStatusRequest, _context: Any
    ) -> cluster_pb2.ClusterStatusResponse:
        node = self._node
        timeout = min(request.timeout_seconds or STATUS_TIMEOUT_SECONDS, MAX_STATUS_TIMEOUT_SECONDS)
        configuration = node.core.configuration
        statuses: list[raft_pb2.MemberStatus | None]
        if request.addresses_only:
            statuses = [None] * len(configuration.members)
        else:
            statuses = await asyncio.gather(*(self._status_of(member.id, timeout) for member in configuration.members))
        silence = _silence(statuses, node.core.leader_id)
        response = cluster_pb2.ClusterStatusResponse(
            cluster_id=node.peers.local.cluster_id,
            leader_id=node.core.leader_id,
            term=node.core.term,
            configuration=configuration_to_pb(configuration),
        )
        for member, status in zip(configuration.members, statuses, strict=True):
            response.members.append(
                cluster_pb2.MemberReport(
                    member=member_to_pb(member),
                    reachable=status is not None,
                    voter=configuration.is_voter(member.id),
                    learner=member.id in configuration.learners,
                    status=status,
                    client_addr=status.client_addr if status is not None else node.peers.client_addr_of(member.id),
                    # The leader never stops trying, so it knows best since when.
                    unreachable_seconds=None
                    if status is not None or request.addresses_only
                    else silence.get(member.id, node.transport.down_seconds(member.id)),
                )
            )
        return response

    async def _status_of(self, member_id: int, timeout_seconds: float) -> raft_pb2.MemberStatus | None:
        if member_id == self._node.core.id:
            return await self._node.status()
        status = await self._node.transport.status(member_id, timeout_seconds)
        # Whoever listens at that address now, it must be the member that is meant.
        return status if status is not None and status.node_id == member_id else None

    async def transfer_leader(
        self, request: cluster_pb2.TransferLeaderRequest, context: Any
    ) -> cluster_pb2.TransferLeaderResponse:
        began = time.perf_counter()
        timeout = request.timeout_seconds or TRANSFER_TIMEOUT_SECONDS
        try:
            async with asyncio.timeout(timeout):
                to, term = await self._node.transfer_leader(request.target or None)
        except TimeoutError:
            await abort(context, to_detail(Unavailable(f"no successor was known after {timeout:g} s")))
        except LatticeError as error:
            await abort(context, to_detail(error))
        return cluster_pb2.TransferLeaderResponse(
            **{"from": self._node.config.name},
            to=to,
            term=term,
            milliseconds=(time.perf_counter() - began) * 1000,
        )

    async def add_server(self, request: cluster_pb2.AddServerRequest, context: Any) -> cluster_pb2.MembershipResponse:
        return await self._change(self._changes.add(request), context)

    async def remove_server(
        self, request: cluster_pb2.RemoveServerRequest, context: Any
    ) -> cluster_pb2.MembershipResponse:
        return await self._change(self._changes.remove(request), context)

    async def replace_server(
        self, request: cluster_pb2.ReplaceServerRequest, context: Any
    ) -> cluster_pb2.MembershipResponse:
        return await self._change(self._changes.replace(request), context)

    async def promote_server(
        self, request: cluster_pb2.PromoteServerRequest, context: Any
    ) -> cluster_pb2.MembershipResponse:
        return await self._change(self._changes.promote(request), context)

    async def _change(
        self, change: Coroutine[Any, Any, cluster_pb2.MembershipResponse], context: Any
    ) -> cluster_pb2.MembershipResponse:
        try:
            return await change
        except LatticeError as error:
            await abort(context, to_detail(error))

    async def take_snapshot(
        self, _request: cluster_pb2.TakeSnapshotRequest, context: Any
    ) -> cluster_pb2.TakeSnapshotResponse:
        began = time.perf_counter()
        try:
            snapshot = await self._node.snapshots.take()
        except LatticeError as error:
            await abort(context, to_detail(error))
        return self._describe(snapshot, began)

    async def save_snapshot(self, _request: cluster_pb2.SaveSnapshotRequest, context: Any) -> None:
        """A fresh file's bytes. The file is held; a piece is read when the one before has left."""
        began = time.perf_counter()
        if self._saving >= MAX_SAVES:
            await abort(context, to_detail(Busy(f"{self._saving} snapshots are being saved from this member already")))
        self._saving += 1
        gate, caller = self._node.gate, self._node.gate.caller(context)
        files = self._node.snapshots.files
        try:
            snapshot = await self._node.snapshots.take()
            with files.hold(snapshot.path):
                file, size = await files.open(snapshot.path)
                try:
                    await context.write(cluster_pb2.SaveSnapshotPart(snapshot=self._describe(snapshot, began)))
                    for offset in range(0, size, PIECE_BYTES):
                        # It may take hours; whoever is no administrator any more gets no further.
                        gate.check(caller, Need.ADMIN, "SaveSnapshot")
                        data = await files.read(file, offset, min(PIECE_BYTES, size - offset))
                        await context.write(cluster_pb2.SaveSnapshotPart(offset=offset, data=data))
                        await asyncio.sleep(PIECE_PAUSE_SECONDS)
                finally:
                    files.worker.later(file.close)
        except LatticeError as error:
            await abort(context, to_detail(error))
        except CONNECTION_ERRORS:
            pass  # whoever asked has gone
        finally:
            self._saving -= 1

    def _describe(self, snapshot: Snapshot, began: float) -> cluster_pb2.TakeSnapshotResponse:
        return cluster_pb2.TakeSnapshotResponse(
            index=snapshot.index,
            term=snapshot.meta.last_included_term,
            path=os.path.abspath(snapshot.path),
            size_bytes=snapshot.size_bytes,
            milliseconds=(time.perf_counter() - began) * 1000,
            name=self._node.config.name,
        )

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        def unary(behavior: Any, request: Any, response: Any) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(
                behavior, request_deserializer=request.FromString, response_serializer=response.SerializeToString
            )

        return grpc.method_handlers_generic_handler(
            "lattice.v1.Cluster",
            {
                "NodeStatus": unary(self.node_status, cluster_pb2.NodeStatusRequest, raft_pb2.MemberStatus),
                "ClusterStatus": unary(
                    self.cluster_status, cluster_pb2.ClusterStatusRequest, cluster_pb2.ClusterStatusResponse
                ),
                "TransferLeader": unary(
                    self.transfer_leader, cluster_pb2.TransferLeaderRequest, cluster_pb2.TransferLeaderResponse
                ),
                "AddServer": unary(self.add_server, cluster_pb2.AddServerRequest, cluster_pb2.MembershipResponse),
                "RemoveServer": unary(
                    self.remove_server, cluster_pb2.RemoveServerRequest, cluster_pb2.MembershipResponse
                ),
                "ReplaceServer": unary(
                    self.replace_server, cluster_pb2.ReplaceServerRequest, cluster_pb2.MembershipResponse
                ),
                "PromoteServer": unary(
                    self.promote_server, cluster_pb2.PromoteServerRequest, cluster_pb2.MembershipResponse
                ),
                "TakeSnapshot": unary(
                    self.take_snapshot, cluster_pb2.TakeSnapshotRequest, cluster_pb2.TakeSnapshotResponse
                ),
                "SaveSnapshot": grpc.unary_stream_rpc_method_handler(
                    self.save_snapshot,
                    request_deserializer=cluster_pb2.SaveSnapshotRequest.FromString,
                    response_serializer=cluster_pb2.SaveSnapshotPart.SerializeToString,
                ),
            },
        )


def _silence(statuses: Sequence[raft_pb2.MemberStatus | None], leader_id: int | None) -> dict[int, float]:
    """For how long the leader has not heard each other member, if its status is among these."""
    for status in statuses:
        if status is not None and status.node_id == leader_id:
            return {progress.node_id: progress.seconds_since_heard for progress in status.progress}
    return {}
