"""Who is calling, and whether they may: asked on every call to the client port, and for every batch on a stream.

Theory
  * What counts is the access state as it is applied here (kv/access.py). While it is not enabled, all this costs one
    look at an attribute for each batch or call.
  * A call brings its token as metadata. It is looked up once, and again whenever the access state has been replaced,
    which is one comparison of identity: so what is taken away is gone from streams that are already open with
    their next batch.
  * **Writes** are decided by the leader when it takes them, before they are proposed. A leader that has not applied
    everything from before its term does not decide yet, but says that there is no leader. So: once a change is
    acknowledged, no write that it forbids is accepted any more, by no leader. What was accepted before goes on.
  * **Reads** are decided at the moment they are executed, under the very state that answers them. So a linearizable
    read is bound by every change that was acknowledged before it was asked, at any member; a stale one by those
    that have arrived there.
  * Other calls are decided when they come. A member that would refuse one first makes sure that it is not merely
    behind: a token made a moment ago is good everywhere.
  * **Sessions** belong to the user they were opened for. Their stored results answer whoever sends the right numbers,
    and these can be guessed; another's session is answered as if it did not exist. That includes those opened while
    access was open to all.

Deny by default: what a call needs stands in :data:`NEEDS`, and what does not stand there is for administrators.
Health checks are for everybody, since whoever probes has no token, and is told yes or no.

The way back in, if no administrator's secret is left: whoever can write to a member's data directory puts the hash of a
new token there (``lattice access rescue``). That member takes its bearer for an administrator, for an hour.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
import operator
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import grpc

from lattice_core import tokens
from lattice_core.errors import LatticeError, NoLeader, PermissionDenied, SessionExpired, Unauthenticated
from lattice_core.kv import ClientBatch, Ops, StateMachine
from lattice_core.kv.access_state import Access
from lattice_core.kv.commands import CLOSE_SESSION
from lattice_core.rpc.errors import ERROR_METADATA_KEY, status_of, to_detail
from lattice_core.server.clock import ClusterClock, now_ns
from lattice_core.server.metrics import NodeMetrics
from lattice_core.server.permissions import Permission
from lattice_core.server.read_batches import Read

log = logging.getLogger("lattice.access")

METADATA_KEY: Final = "authorization"
SCHEME: Final = "Bearer "

CATCH_UP_SECONDS: Final = 2.0
"""How long a refusal waits to learn whether this member is behind: a few elections."""

LOG_LINES_A_SECOND: Final = 5
"""Refusals that are logged; whoever guesses tokens shall not fill the disk."""


_opcode_of = operator.itemgetter(0)


class Need(enum.Enum):
    """What a call needs while access control is enabled."""

    NOTHING = "nothing"
    TOKEN = "token"
    ADMIN = "admin"
    SERVICE = "service"
    """The service itself decides, by what is in the request."""


_KV: Final = "/lattice.v1.KV/"
_CLUSTER: Final = "/lattice.v1.Cluster/"
_ACCESS: Final = "/lattice.v1.Access/"

NEEDS: Final[dict[str, Need]] = {
    f"{_KV}Session": Need.SERVICE,
    f"{_KV}Put": Need.SERVICE,
    f"{_KV}Get": Need.SERVICE,
    f"{_KV}Range": Need.SERVICE,
    f"{_KV}Delete": Need.SERVICE,
    f"{_KV}CompareAndSwap": Need.SERVICE,
    f"{_KV}Txn": Need.SERVICE,
    f"{_KV}OpenSession": Need.SERVICE,
    f"{_CLUSTER}NodeStatus": Need.TOKEN,
    f"{_CLUSTER}ClusterStatus": Need.TOKEN,
    f"{_CLUSTER}TransferLeader": Need.ADMIN,
    f"{_CLUSTER}AddServer": Need.ADMIN,
    f"{_CLUSTER}RemoveServer": Need.ADMIN,
    f"{_CLUSTER}ReplaceServer": Need.ADMIN,
    f"{_CLUSTER}PromoteServer": Need.ADMIN,
    f"{_CLUSTER}TakeSnapshot": Need.ADMIN,
    f"{_CLUSTER}SaveSnapshot": Need.ADMIN,  # all keys, and what is kept of passwords
    f"{_ACCESS}AccessStatus": Need.TOKEN,
    f"{_ACCESS}ListAccess": Need.ADMIN,
    f"{_ACCESS}Login": Need.NOTHING,  # it is how to get a token
    f"{_ACCESS}CreateToken": Need.SERVICE,
    f"{_ACCESS}ChangeAccess": Need.SERVICE,
    "/grpc.health.v1.Health/Check": Need.NOTHING,
    "/grpc.health.v1.Health/Watch": Need.NOTHING,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Need.TOKEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Need.TOKEN,
}


class Core(Protocol):
    """What is needed of the consensus core here."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def term(self) -> int: ...


class Host(Protocol):
    """Where the state machine is to be found; another one takes its place when a snapshot is installed."""

    machine: StateMachine

    @property
    def core(self) -> Core: ...


class Caller:
    """Whoever made one call, for as long as it lasts. Made without looking at anything; see :meth:`permission`."""

    __slots__ = ("_gate", "_permission", "_seen", "peer", "token")

    def __init__(self, gate: Gate, token: str | None, peer: str) -> None:
        self._gate = gate
        self.token = token
        self.peer = peer
        self._seen: Access | None = None
        self._permission: Permission | None = None

    def permission(self) -> Permission:
        """What the caller may do under the present access state. Raises Unauthenticated."""
        access = self._gate.access
        permission = self._permission
        if permission is None or access is not self._seen:
            permission = self._permission = self._gate.identify(self.token)
            self._seen = access
        if permission.expires_ms and self._gate.time_ms() >= permission.expires_ms:
            self._permission = None
            raise _Invalid(f"the token of {permission.name} has expired")
        return permission


class _Invalid(Unauthenticated):
    """``why`` is for the log here; whoever holds a wrong token is told no more than that."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "the token is not valid: unknown, revoked or expired",
            hint="lattice login USER, or a new one from an administrator: lattice token create USER",
        )
        self.why = why


class Gate:
    """Decides, for one member. One event loop's."""

    def __init__(self, host: Host, clock: ClusterClock, data_dir: str, metrics: NodeMetrics) -> None:
        self._host = host
        self._clock = clock
        self._rescue_path = os.path.join(data_dir, tokens.RESCUE_FILE)
        self._metrics = metrics
        self._known_under: Access | None = None
        self._known: dict[str, tuple[bytes, Permission]] = {}
        """By token id: what its secret hashes to and what it allows, under that access state."""
        self._logged_second = 0
        self._logged = 0
        self._unlogged = 0

    @property
    def access(self) -> Access:
        return self._host.machine.access

    @property
    def enabled(self) -> bool:
        return self._host.machine.access.enabled

    def time_ms(self) -> int:
        """The log's time, as far as it is known here."""
        return self._clock.read(now_ns())

    def caller(self, context: Any) -> Caller:
        """Whoever makes the call ``context`` belongs to."""
        return Caller(self, token_in(context.invocation_metadata()), context.peer())

    def identify(self, token: str | None) -> Permission:
        """Whose token it is, and what that user may do. Raises Unauthenticated."""
        if token is None:
            raise Unauthenticated("access control is enabled here, and the call brought no token")
        parts = tokens.split_token(token)
        if parts is None:
            raise _Invalid("that is no token of ours")
        token_id, secret = parts
        if token_id == tokens.RESCUE_ID:
            return self._rescued(secret)
        access = self.access
        if access is not self._known_under:
            self._known_under = access
            self._known.clear()
        known = self._known.get(token_id)
        if known is None:
            found = access.tokens.get(token_id.encode())
            if found is None:
                raise _Invalid(f"no token {token_id[:16]!r} is known: never made, or revoked, or its user removed")
            known = self._known[token_id] = (found.digest, Permission.of(access, found.user, found.expires_ms))
        digest, permission = known
        if not tokens.is_secret_of(secret, digest):
            raise _Invalid(f"wrong secret for the token {token_id[:16]!r} of {permission.name}")
        return permission

    def _rescued(self, secret: str) -> Permission:
        try:
            with open(self._rescue_path, encoding="ascii") as file:
                digest = bytes.fromhex(file.read(200).strip())
                age_seconds = time.time() - os.fstat(file.fileno()).st_mtime
        except (OSError, ValueError):
            raise _Invalid("a rescue token, and none was made here") from None
        left = tokens.RESCUE_SECONDS - age_seconds
        if not 0 < left <= 2 * tokens.RESCUE_SECONDS:
            raise _Invalid(f"the rescue token is older than {tokens.RESCUE_SECONDS / 60:g} minutes")
        if not tokens.is_secret_of(secret, digest):
            raise _Invalid("a wrong rescue token")
        log.warning("the rescue token made in the data directory is used")
        return Permission(b"(rescue)", is_admin=True, expires_ms=self.time_ms() + int(left * 1000))

    # -- what the KV service asks, only while it is enabled -----------------------------------------

    def check_write(self, caller: Caller, batch: ClientBatch, ops: Ops) -> None:
        """Raises what the batch is to be answered with unless the leader may propose it for this caller."""
        machine, core = self._host.machine, self._host.core
        if not core.is_leader:
            return  # whoever leads decides, and is named
        self.require_settled()
        permission = caller.permission()
        if batch.session_id:
            self._require_own(machine, batch.session_id, permission)
        if CLOSE_SESSION in map(_opcode_of, ops):  # never, from our client, and this is the quickest way to see it
            for op in ops:
                if op[0] == CLOSE_SESSION:
                    self._require_own(machine, op[1], permission)
        permission.check_ops(ops)

    def require_settled(self) -> None:
        """Raises NoLeader as long as a new leader has not applied all that may have been acknowledged before it."""
        if self._host.machine.applied_term != self._host.core.term:
            raise NoLeader("the leader has just been elected and does not know yet who may do what")

    def check_reads(self, caller: Caller, reads: Sequence[Read]) -> None:
        """Raises unless these reads may be answered now."""
        if self.enabled:
            caller.permission().check_reads(reads)

    @staticmethod
    def _require_own(machine: StateMachine, session_id: int, permission: Permission) -> None:
        if machine.sessions.owner_of(session_id) != permission.user:
            raise SessionExpired("the session has expired or was never opened")

    # -- refusals -----------------------------------------------------------------------------------

    def refused(self, error: LatticeError, what: str, peer: str) -> None:
        """Note it where the operator looks; nobody's token is in it."""
        if not isinstance(error, Unauthenticated | PermissionDenied):
            return
        second = int(time.monotonic())
        if second != self._logged_second:
            if self._unlogged:
                log.warning("%d more calls were refused", self._unlogged)
            self._logged_second, self._logged, self._unlogged = second, 0, 0
        if self._logged >= LOG_LINES_A_SECOND:
            self._unlogged += 1
            return
        self._logged += 1
        why = error.why if isinstance(error, _Invalid) else error.message
        log.warning("refused %s from %s: %s", what, peer, why, extra={"call": what, "peer": peer})

    async def authorize(self, caller: Caller, need: Need, what: str, catch_up: Callable[[], Any]) -> None:
        """Return if the call is allowed. Raises Unauthenticated, PermissionDenied, logged."""
        try:
            self.check(caller, need, what)
        except LatticeError:
            # Perhaps what would allow it has not arrived here yet.
            try:
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await catch_up()
            except (LatticeError, TimeoutError):
                pass  # there is nobody to ask: what is known here counts
            try:
                self.check(caller, need, what)
            except LatticeError as error:
                self.refused(error, what, caller.peer)
                raise

    def check(self, caller: Caller, need: Need, what: str) -> None:
        """Raises Unauthenticated, PermissionDenied unless the call is allowed now."""
        if not self.enabled or need is Need.NOTHING:
            return
        permission = caller.permission()
        if need is Need.ADMIN:
            permission.require_admin(what)


def token_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """The token that a call brought; "" for what is there and is none."""
    for key, value in metadata or ():
        if key == METADATA_KEY:
            return value.removeprefix(SCHEME) if isinstance(value, str) and value.startswith(SCHEME) else ""
    return None


class GatedHandlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """The same handlers, behind the gate: what the call's method needs is asked for before any of its code runs."""

    def __init__(
        self, handlers: grpc.GenericRpcHandler[Any, Any], gate: Gate, catch_up: Callable[[], Any], metrics: NodeMetrics
    ) -> None:
        self._handlers = handlers
        self._gate = gate
        self._catch_up = catch_up
        self._metrics = metrics

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._handlers.service(handler_call_details)
        method = handler_call_details.method
        need = NEEDS.get(method, Need.ADMIN)
        if handler is None or not self._gate.enabled or need in (Need.NOTHING, Need.SERVICE):
            return handler
        return self._gated(handler, need, method)

    def _gated(self, handler: Any, need: Need, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        what = method.rpartition("/")[2]

        async def enter(context: Any) -> None:
            try:
                await self._gate.authorize(self._gate.caller(context), need, what, self._catch_up)
            except LatticeError as error:
                detail = to_detail(error)
                self._metrics.calls[method.rpartition(".")[2]].errors[status_of(detail).name] += 1
                await context.abort(
                    status_of(detail), detail.message, ((ERROR_METADATA_KEY, detail.SerializeToString()),)
                )

        async def behavior(request: Any, context: Any) -> Any:
            await enter(context)
            return await inner(request, context)

        async def generator(request: Any, context: Any) -> Any:
            await enter(context)
            async for response in inner(request, context):
                yield response

        kind: Any
        if not handler.request_streaming and not handler.response_streaming:
            inner, kind = handler.unary_unary, grpc.unary_unary_rpc_method_handler
        elif handler.request_streaming and handler.response_streaming:
            inner, kind = handler.stream_stream, grpc.stream_stream_rpc_method_handler
        elif handler.response_streaming:
            inner, kind = handler.unary_stream, grpc.unary_stream_rpc_method_handler
        else:
            inner, kind = handler.stream_unary, grpc.stream_unary_rpc_method_handler
        gated: grpc.RpcMethodHandler[Any, Any] = kind(
            generator if inspect.isasyncgenfunction(inner) else behavior,
            handler.request_deserializer,
            handler.response_serializer,
        )
        return gated
