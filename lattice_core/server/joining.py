"""Joining a running cluster: the side of the server that has no identity yet.

It listens on its peer port, so that the leader can see for itself that the address is right and who answers there,
and asks the members it was told of, one after the other and whomever they name as the leader, until it is admitted
as a learner or refused for good. The request can be repeated at any time: the server is known by its incarnation,
which is durable before the first question (see incarnations.py), and gets the same id again.

Nothing is decided here. What the cluster answers is made durable by ``bootstrap.create_joined``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from lattice_core import __version__
from lattice_core.config import NodeConfig
from lattice_core.errors import LatticeError, NotApplied, NotLeader, OutcomeUnknown, Unauthenticated, Unavailable
from lattice_core.rpc.codec import MalformedMessage, configuration_from_pb
from lattice_core.rpc.credentials import PLAIN, PeerSecurity
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.link import STATUS_METHOD
from lattice_core.rpc.pb import cluster_pb2, raft_pb2
from lattice_core.server.bootstrap import Admission
from lattice_core.server.tls import NodeTLS
from lattice_core.tokens import read_token_file

ADD_SERVER_METHOD = "/lattice.v1.Cluster/AddServer"

JOINING = "joining"
"""The role of a server that waits to be admitted."""

PATIENCE_SECONDS = 30.0
"""Without any member that answers, or any leader: several elections, and time for the members to be started too."""

CALL_SECONDS = 10.0
"""For one member's answer: the leader looks back at this server, and commits one entry."""

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0

log = logging.getLogger("lattice.join")


async def ask_to_join(
    config: NodeConfig, incarnation: int, tls: NodeTLS, lost_cluster_id: int | None = None
) -> Admission:
    """Ask until there is an answer. The peer port must be served meanwhile: see :func:`joining_handlers`.

    With ``config.reseed``, in place of the member of this name and address (reseeding.py); ``lost_cluster_id``: the
    cluster that this was, if that is known.

    Raises NotAllowed with the cluster's reason (Unauthenticated: it wants a token), InvalidRequest, Unavailable if
    nobody could say for PATIENCE_SECONDS.
    """
    loop = asyncio.get_running_loop()
    token = read_token_file(config.token_file) if config.token_file else None
    deadline = loop.time() + PATIENCE_SECONDS
    pause = FIRST_PAUSE_SECONDS
    told = ""
    while True:
        reasons: dict[str, str] = {}
        addrs = list(reversed(config.join_addrs))
        while addrs:
            addr = addrs.pop()
            try:
                return await _ask(addr, config, incarnation, tls, token, lost_cluster_id)
            except NotLeader as error:
                reasons[addr] = error.message
                if error.leader_addr and error.leader_addr not in reasons:
                    addrs.append(error.leader_addr)
            except (Unavailable, OutcomeUnknown) as error:
                reasons[addr] = error.message  # asking again is safe, whatever became of it
            except Unauthenticated as error:
                error.hint = "the same command with --token-file FILE, an administrator's"
                raise
            except NotApplied as error:
                error.message = f"{config.name} cannot join: {error.message}"
                error.args = (error.message,)
                raise
        text = "; ".join(f"{addr}: {reason}" for addr, reason in reasons.items())
        if loop.time() >= deadline:
            raise Unavailable(
                f"{config.name} could not join within {PATIENCE_SECONDS:g} s: {text}",
                hint=f"lattice cluster status --endpoints {','.join(config.join_addrs)}, and the same command again",
            )
        if text != told:
            log.info("not admitted yet, asking again: %s", text)
            told = text
        await asyncio.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


async def _ask(
    addr: str, config: NodeConfig, incarnation: int, tls: NodeTLS, token: str | None, lost_cluster_id: int | None
) -> Admission:
    async with tls.open_client_channel(addr) as channel:
        call: Any = channel.unary_unary(
            ADD_SERVER_METHOD,
            request_serializer=cluster_pb2.AddServerRequest.SerializeToString,
            response_deserializer=cluster_pb2.MembershipResponse.FromString,
        )
        request = cluster_pb2.AddServerRequest(
            name=config.name,
            peer_addr=config.peer_addr,
            learner=config.learner,
            incarnation=incarnation,
            timeout_seconds=CALL_SECONDS * 0.8,
            reseed=bool(config.reseed),
            reseed_cluster_id=lost_cluster_id,
        )
        try:
            metadata = (("authorization", f"Bearer {token}"),) if token is not None else None
            response = await call(request, timeout=CALL_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise await _reason(error, addr, tls) from None
    try:
        configuration = configuration_from_pb(response.configuration)
    except MalformedMessage as error:
        raise Unavailable(str(error)) from None
    if response.member.id not in configuration or not response.cluster_id:
        raise Unavailable("an answer that names no member")
    return Admission(response.cluster_id, response.member.id, response.index, configuration)


async def _reason(error: grpc.aio.AioRpcError, addr: str, tls: NodeTLS) -> LatticeError:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable("no answer in time")
    failure = from_rpc_error(error)
    if type(failure) is Unavailable:
        if "Failed to connect" in failure.message:
            return Unavailable("nobody answers there")
        return Unavailable(await tls.explain(error, addr) or failure.message)
    return failure


def joining_handlers(
    config: NodeConfig, incarnation: int, security: PeerSecurity = PLAIN
) -> grpc.GenericRpcHandler[Any, Any]:
    """What a server that is being admitted says on its peer port: who it is, and nothing else."""

    async def serve_status(_request: raft_pb2.StatusRequest, context: object) -> raft_pb2.MemberStatus:
        await security.require_member(context)
        return raft_pb2.MemberStatus(
            name=config.name,
            client_addr=config.client_addr,
            peer_addr=config.peer_addr,
            role=JOINING,
            version=__version__,
            incarnation=incarnation,
        )

    service, method = STATUS_METHOD.strip("/").split("/")
    return grpc.method_handlers_generic_handler(
        service,
        {
            method: grpc.unary_unary_rpc_method_handler(
                serve_status,
                request_deserializer=raft_pb2.StatusRequest.FromString,
                response_serializer=raft_pb2.MemberStatus.SerializeToString,
            )
        },
    )
