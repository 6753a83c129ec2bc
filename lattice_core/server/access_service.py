"""The Access service: who may use the cluster. What it changes goes through the log; what it refuses is decided there.

The leader does all of it but the status: it decides under the latest state, with nothing acknowledged that it does not
know of. Passwords are checked and hashed by a thread, one at a time, since each takes a fifth of a second and 32 MiB
(tokens.py); more than a handful waiting is answered BUSY, so that guessing is slow and costs the cluster little.
Whoever is not a user waits just as long to hear the same.

While access control is not enabled, anybody may set it up, as anybody may do anything. Only enabling it needs an
administrator's token even then: it proves that there is a way in before the door is shut.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc

from lattice_core import tokens
from lattice_core.errors import Busy, InvalidRequest, LatticeError, NotAllowed, PermissionDenied, Unauthenticated
from lattice_core.kv import MAX_KEY_BYTES, BatchResult, ClientBatch, access, encode_batch, raise_for_status
from lattice_core.kv.access_state import Access
from lattice_core.kv.commands import change_access
from lattice_core.rpc.errors import from_detail, to_detail
from lattice_core.rpc.pb import access_pb2, kv_pb2
from lattice_core.server.access import Caller
from lattice_core.server.kv_service import abort
from lattice_core.server.node import Node
from lattice_core.server.proposals import Outcome

log = logging.getLogger("lattice.access")

T = TypeVar("T")

LOGIN_SECONDS: Final = 12 * 3600.0
"""A working day and a bit."""
MAX_LOGIN_SECONDS: Final = 30 * 24 * 3600.0
MAX_TTL_SECONDS: Final = 100 * 365 * 24 * 3600.0

MAX_HASHING: Final = 1
"""Anybody may have one hashed: so no more than one core is ever busy with it, and heartbeats have the others."""
MAX_WAITING_TO_HASH: Final = 16
"""Three seconds' worth."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccessService:
    """Handlers for lattice.v1.Access. ``refusal``: why nothing new is taken, if so."""

    def __init__(self, node: Node, refusal: Callable[[], kv_pb2.ErrorDetail | None]) -> None:
        self._node = node
        self._refusal = refusal
        self._hashing = asyncio.Semaphore(MAX_HASHING)
        self._waiting_to_hash = 0

    @property
    def _access(self) -> Access:
        return self._node.machine.access

    async def status(self, _request: access_pb2.AccessStatusRequest, caller: Caller) -> access_pb2.AccessStatusResponse:
        state = self._access
        response = access_pb2.AccessStatusResponse(
            enabled=state.enabled, users=len(state.users), has_admin=state.has_admin()
        )
        try:
            permission = caller.permission()
        except Unauthenticated:
            return response  # it is not enabled, or the call would not have come here
        response.user = permission.name
        if permission.user in state.users:
            response.roles.extend(sorted(role.decode() for role in state.users[permission.user].roles))
        elif permission.is_admin:
            response.roles.append(access.ADMIN.decode())
        return response

    async def list_all(self, _request: access_pb2.ListAccessRequest, _caller: Caller) -> access_pb2.ListAccessResponse:
        await self._node.confirm_leadership()
        state, now_ms = self._access, self._node.gate.time_ms()
        response = access_pb2.ListAccessResponse(enabled=state.enabled)
        held: dict[bytes, int] = {}
        for token_id, token in sorted(state.tokens.items(), key=lambda item: (item[1].user, item[0])):
            held[token.user] = held.get(token.user, 0) + 1
            response.tokens.add(
                id=token_id.decode(),
                user=token.user.decode(),
                from_login=token.from_login,
                expires_in_seconds=max(0, token.expires_ms - now_ms) / 1000 if token.expires_ms else None,
            )
        for name, user in sorted(state.users.items()):
            response.users.add(
                name=name.decode(),
                has_password=user.verifier is not None,
                roles=sorted(role.decode() for role in user.roles),
                tokens=held.get(name, 0),
            )
        for name, grants in sorted(state.roles.items()):
            role = response.roles.add(name=name.decode())
            for prefix, level in sorted(grants.items()):
                role.grants.add(prefix=prefix, level=access_pb2.AccessLevel.ValueType(level))
        return response

    async def login(self, request: access_pb2.LoginRequest, caller: Caller) -> access_pb2.NewToken:
        ttl = request.ttl_seconds if request.HasField("ttl_seconds") else LOGIN_SECONDS
        if not 0 < ttl <= MAX_LOGIN_SECONDS:
            raise InvalidRequest(f"a login lasts more than 0 and at most {MAX_LOGIN_SECONDS / 86400:g} days")
        self._require_deciding()
        name = request.user.encode()
        user = self._access.users.get(name)
        verifier = user.verifier if user is not None else None
        right = await self._in_thread(tokens.is_password_of, request.password, verifier)
        user = self._access.users.get(name)
        if not right or user is None or user.verifier != verifier:
            log.warning("refused a login as %r from %s: wrong name or password", request.user[:64], caller.peer)
            raise Unauthenticated("the name or the password is wrong", hint="lattice login USER")
        return await self._new_token(request.user, ttl, from_login=True)

    async def create_token(self, request: access_pb2.CreateTokenRequest, caller: Caller) -> access_pb2.NewToken:
        ttl = request.ttl_seconds if request.HasField("ttl_seconds") else None
        if ttl is not None and not 0 < ttl <= MAX_TTL_SECONDS:
            raise InvalidRequest(f"a token lasts more than 0 seconds, not {ttl:g}")
        who = self._who(caller, "making a token", owner=request.user.encode())
        fresh = await self._new_token(request.user, ttl, from_login=False)
        log.info("%s made the token %s of the user %s", who, fresh.id, request.user)
        return fresh

    async def change(self, request: access_pb2.ChangeAccessRequest, caller: Caller) -> access_pb2.ChangeAccessResponse:
        kind = request.WhichOneof("change")
        if kind is None:
            raise InvalidRequest("a change of access that is empty, or of a kind this server does not know")
        self._authorize(request, kind, caller)
        password = _password_in(request, kind)
        verifier = None
        if password is not None:
            verifier = await self._in_thread(tokens.hash_password, password)
        who = self._authorize(request, kind, caller)  # again: time has passed
        change, words = _change_of(request, kind, verifier)
        await self._propose(change)
        log.info("%s %s", who, words)
        return access_pb2.ChangeAccessResponse()

    def _authorize(self, request: access_pb2.ChangeAccessRequest, kind: str, caller: Caller) -> str:
        """Who makes the change. Raises unless he may."""
        owner = None
        if kind == "set_password":
            owner = request.set_password.name.encode()
        elif kind == "revoke_token":
            token = self._access.tokens.get(request.revoke_token.id.encode())
            owner = token.user if token is not None else None
        if kind == "enable" and not self._access.enabled:
            try:
                permission = caller.permission()
            except Unauthenticated:
                raise Unauthenticated(
                    "enabling access control needs an administrator's token, so that nobody locks himself out",
                    hint="lattice user add NAME --role admin, lattice token create NAME --out FILE, "
                    "lattice access enable --token-file FILE",
                ) from None
            permission.require_admin("enabling access control")
        return self._who(caller, "changing who may do what", owner=owner)

    def _who(self, caller: Caller, what: str, *, owner: bytes | None) -> str:
        """The name of an administrator, or of the user whom it is about alone. Raises for everybody else."""
        self._require_deciding()
        if not self._access.enabled:
            return "somebody (access control is not enabled)"
        permission = caller.permission()
        if permission.user != owner:
            permission.require_admin(what)
        return permission.name

    def _require_deciding(self) -> None:
        """Raises NotLeader, NoLeader unless this member decides now."""
        self._node.require_leader()
        self._node.gate.require_settled()

    async def _new_token(self, user: str, ttl: float | None, *, from_login: bool) -> access_pb2.NewToken:
        fresh = tokens.new_token()
        expires_ms = self._node.gate.time_ms() + int(ttl * 1000) if ttl is not None else 0
        await self._propose(
            (access.CREATE_TOKEN, fresh.id.encode(), _name(user), fresh.digest, expires_ms, int(from_login))
        )
        return access_pb2.NewToken(id=fresh.id, user=user, token=fresh.text, expires_in_seconds=ttl)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        if self._waiting_to_hash >= MAX_WAITING_TO_HASH:
            raise Busy(f"{self._waiting_to_hash} passwords wait to be hashed already", hint="try again in a moment")
        self._waiting_to_hash += 1
        try:
            async with self._hashing:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting_to_hash -= 1

    async def _propose(self, change: access.Change) -> None:
        """Have it applied. Raises NotAllowed with the reason if it breaks a rule, and what proposals raise."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        op = change_access(change)
        self._node.proposals.submit(
            ClientBatch(0, 0, 0, encode_batch([op]), (op,)),
            lambda outcome: None if done.done() else done.set_result(outcome),
        )
        outcome = await done
        if not isinstance(outcome, BatchResult):
            raise from_detail(outcome)
        raise_for_status(outcome.status)
        result = outcome.results[0]
        if result[0]:
            raise _refusal(result[1], change)

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        def unary(behavior: Callable[[Any, Caller], Awaitable[Any]], request: Any) -> grpc.RpcMethodHandler[Any, Any]:
            async def serve(message: Any, context: Any) -> Any:
                caller = self._node.gate.caller(context)
                try:
                    refusal = self._refusal()
                    if refusal is not None:
                        raise from_detail(refusal)
                    return await behavior(message, caller)
                except LatticeError as error:
                    if isinstance(error, PermissionDenied) or (
                        isinstance(error, Unauthenticated) and behavior != self.login
                    ):
                        self._node.gate.refused(error, request.DESCRIPTOR.name.removesuffix("Request"), caller.peer)
                    await abort(context, to_detail(error))

            return grpc.unary_unary_rpc_method_handler(
                serve, request_deserializer=request.FromString, response_serializer=_serialize
            )

        return grpc.method_handlers_generic_handler(
            "lattice.v1.Access",
            {
                "AccessStatus": unary(self.status, access_pb2.AccessStatusRequest),
                "ListAccess": unary(self.list_all, access_pb2.ListAccessRequest),
                "Login": unary(self.login, access_pb2.LoginRequest),
                "CreateToken": unary(self.create_token, access_pb2.CreateTokenRequest),
                "ChangeAccess": unary(self.change, access_pb2.ChangeAccessRequest),
            },
        )


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _password_in(request: access_pb2.ChangeAccessRequest, kind: str) -> bytes | None:
    """The password to be hashed. Raises InvalidRequest for one that is too short or too long."""
    if kind not in ("add_user", "set_password"):
        return None
    part = request.add_user if kind == "add_user" else request.set_password
    if not part.HasField("password"):
        return None
    if not tokens.MIN_PASSWORD_BYTES <= len(part.password) <= tokens.MAX_PASSWORD_BYTES:
        raise InvalidRequest(
            f"a password has {tokens.MIN_PASSWORD_BYTES} to {tokens.MAX_PASSWORD_BYTES} bytes, not {len(part.password)}"
        )
    return part.password


def _change_of(request: access_pb2.ChangeAccessRequest, kind: str, verifier: bytes | None) -> tuple[access.Change, str]:
    """The change as the log has it, and in words. Raises InvalidRequest."""
    match kind:
        case "enable":
            return (access.ENABLE,), "enables access control"
        case "disable":
            return (access.DISABLE,), "disables access control"
        case "add_user":
            user = request.add_user
            roles = tuple(_name(role, "role") for role in user.roles)
            return (access.ADD_USER, _name(user.name), verifier, roles), f"adds the user {user.name}"
        case "remove_user":
            name = request.remove_user.name
            return (access.REMOVE_USER, _name(name)), f"removes the user {name}"
        case "set_password":
            name = request.set_password.name
            words = f"{'sets' if verifier is not None else 'removes'} the password of {name}"
            return (access.SET_PASSWORD, _name(name), verifier), words
        case "assign" | "unassign":
            pair = request.assign if kind == "assign" else request.unassign
            code, words = (access.ASSIGN, "gives to") if kind == "assign" else (access.UNASSIGN, "takes from")
            return (code, _name(pair.user), _name(pair.role, "role")), f"{words} {pair.user} the role {pair.role}"
        case "grant":
            grant = request.grant
            if grant.level not in access.LEVELS:
                raise InvalidRequest("a grant without a level, or with one that this server does not know")
            what = f"{access.LEVELS[grant.level]} on {grant.prefix!r}"
            change = (access.GRANT, _name(grant.role, "role"), int(grant.level), _prefix(grant.prefix))
            return change, f"grants the role {grant.role} {what}"
        case "revoke":
            revoke = request.revoke
            words = f"revokes what the role {revoke.role} had on {revoke.prefix!r}"
            return (access.REVOKE, _name(revoke.role, "role"), _prefix(revoke.prefix)), words
        case "remove_role":
            name = request.remove_role.name
            return (access.REMOVE_ROLE, _name(name, "role")), f"removes the role {name}"
        case "revoke_token":
            token_id = request.revoke_token.id
            return (access.REVOKE_TOKEN, _name(token_id, "token")), f"revokes the token {token_id}"
    raise InvalidRequest("a change of access of a kind this server does not know")


def _name(text: str, what: str = "user") -> bytes:
    if not _NAME.fullmatch(text):
        raise InvalidRequest(
            f"{text[:64]!r} cannot be the name of a {what}: 1 to 64 letters, digits, dots, dashes or underscores, and "
            "first a letter or digit"
        )
    return text.encode()


def _prefix(prefix: bytes) -> bytes:
    if len(prefix) > MAX_KEY_BYTES:
        raise InvalidRequest(f"the prefix has {len(prefix)} bytes, more than {MAX_KEY_BYTES}")
    return prefix


def _refusal(reason: int, change: access.Change) -> NotAllowed:
    """Why a change was refused, in words."""

    def named(position: int) -> str:
        return repr(change[position].decode(errors="replace")) if len(change) > position else "it"

    user = named(2) if change[0] == access.CREATE_TOKEN else named(1)
    role = named(2) if change[0] in (access.ASSIGN, access.UNASSIGN) else named(1)
    match reason:
        case access.NO_USER:
            return NotAllowed(f"there is no user {user}", hint="lattice user list")
        case access.USER_EXISTS:
            return NotAllowed(f"there is a user {user} already", hint="lattice user list")
        case access.NO_TOKEN:
            return NotAllowed(f"there is no token {named(1)}", hint="lattice token list")
        case access.BUILT_IN:
            return NotAllowed("the role 'admin' is built in: it allows everything, and cannot be changed or removed")
        case access.TOO_MANY:
            return NotAllowed(
                f"there are too many: at most {access.MAX_USERS} users, {access.MAX_ROLES} roles of "
                f"{access.MAX_GRANTS} prefixes, {access.MAX_USER_TOKENS} tokens of a user, {access.MAX_TOKENS} in all",
                hint="lattice token list, and revoke what nobody needs",
            )
        case access.NO_ADMIN_LEFT:
            return NotAllowed(
                "then nobody could administer it: there has to be a user with the role admin and a password, or a "
                "token that does not expire",
                hint="lattice user add NAME --role admin",
            )
        case access.NO_ROLE:
            if change[0] == access.UNASSIGN:
                return NotAllowed(f"the user {user} does not have the role {role}", hint="lattice user list")
            if change[0] == access.REVOKE:
                return NotAllowed(f"the role {role} has nothing on {change[2]!r}", hint="lattice role list")
            if change[0] == access.ADD_USER:
                return NotAllowed(f"one of the roles for {user} does not exist", hint="lattice role list")
            return NotAllowed(
                f"there is no role {role}", hint="lattice role list; a role begins with: lattice role grant"
            )
    return NotAllowed(f"refused for the reason {reason}, which this version does not know")
