"""Asking who may use the cluster, and changing it: single calls to the leader, or for the status to any member.

Secrets are arguments and results here and nowhere else: no error, no representation and no log has one.
"""

# ruff: noqa: ASYNC109 - the time is what is left of the caller's deadline
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import grpc

from lattice_core.client.channels import AddressBook, authorized
from lattice_core.client.cluster import ask, ask_leader
from lattice_core.errors import InvalidRequest
from lattice_core.rpc.pb import access_pb2, access_pb2_grpc

Level = Literal["read", "write"]

_LEVELS: dict[str, access_pb2.AccessLevel] = {
    "read": access_pb2.ACCESS_LEVEL_READ,
    "write": access_pb2.ACCESS_LEVEL_WRITE,
}


@dataclass(frozen=True, slots=True)
class AccessStatus:
    """``user`` is whose token the call brought; None: nobody's that is known."""

    enabled: bool
    user: str | None
    roles: tuple[str, ...]
    users: int
    has_admin: bool


@dataclass(frozen=True, slots=True)
class UserInfo:
    name: str
    has_password: bool
    roles: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class GrantInfo:
    level: str
    prefix: bytes


@dataclass(frozen=True, slots=True)
class RoleInfo:
    name: str
    grants: tuple[GrantInfo, ...]


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """``expires_in_seconds`` None: never."""

    id: str
    user: str
    from_login: bool
    expires_in_seconds: float | None


@dataclass(frozen=True, slots=True)
class AccessInfo:
    """All there is, but for what is secret. The role ``admin`` is not listed: it is built in."""

    enabled: bool
    users: tuple[UserInfo, ...]
    roles: tuple[RoleInfo, ...]
    tokens: tuple[TokenInfo, ...]


@dataclass(frozen=True, slots=True)
class NewToken:
    """``token`` is the secret, to be kept by whoever asked: nobody can be asked for it again."""

    id: str
    user: str
    token: str = field(repr=False)
    expires_in_seconds: float | None = None


def access_stub(channel: grpc.aio.Channel, token: str | None = None) -> Any:
    """The Access service on ``channel``."""
    make: Any = access_pb2_grpc.AccessStub
    return authorized(make(channel), token)


async def status(book: AddressBook, timeout: float) -> AccessStatus:
    async def call(stub: Any, seconds: float) -> access_pb2.AccessStatusResponse:
        answer: access_pb2.AccessStatusResponse = await stub.AccessStatus(
            access_pb2.AccessStatusRequest(), timeout=seconds
        )
        return answer

    found = await ask(book, call, timeout, what="access status", stub=access_stub)
    user = found.user if found.HasField("user") else None
    return AccessStatus(found.enabled, user, tuple(found.roles), found.users, found.has_admin)


async def info(book: AddressBook, timeout: float) -> AccessInfo:
    async def call(stub: Any, seconds: float) -> access_pb2.ListAccessResponse:
        answer: access_pb2.ListAccessResponse = await stub.ListAccess(access_pb2.ListAccessRequest(), timeout=seconds)
        return answer

    found = await ask_leader(book, call, timeout, what="access", stub=access_stub, is_write=False)
    names = {number: name for name, number in _LEVELS.items()}
    return AccessInfo(
        found.enabled,
        tuple(UserInfo(each.name, each.has_password, tuple(each.roles), each.tokens) for each in found.users),
        tuple(
            RoleInfo(
                each.name,
                tuple(GrantInfo(names.get(grant.level, str(grant.level)), grant.prefix) for grant in each.grants),
            )
            for each in found.roles
        ),
        tuple(
            TokenInfo(
                each.id,
                each.user,
                each.from_login,
                each.expires_in_seconds if each.HasField("expires_in_seconds") else None,
            )
            for each in found.tokens
        ),
    )


async def login(book: AddressBook, user: str, password: bytes, ttl_seconds: float | None, timeout: float) -> NewToken:
    request = access_pb2.LoginRequest(user=user, password=password, ttl_seconds=ttl_seconds)

    async def call(stub: Any, seconds: float) -> access_pb2.NewToken:
        answer: access_pb2.NewToken = await stub.Login(request, timeout=seconds)
        return answer

    # Nothing is lost by a login whose answer did not come: it expires.
    return _new_token(await ask_leader(book, call, timeout, what="login", stub=access_stub, is_write=False))


async def create_token(book: AddressBook, user: str, ttl_seconds: float | None, timeout: float) -> NewToken:
    request = access_pb2.CreateTokenRequest(user=user, ttl_seconds=ttl_seconds)

    async def call(stub: Any, seconds: float) -> access_pb2.NewToken:
        answer: access_pb2.NewToken = await stub.CreateToken(request, timeout=seconds)
        return answer

    return _new_token(await ask_leader(book, call, timeout, what="token", stub=access_stub))


async def change(book: AddressBook, request: access_pb2.ChangeAccessRequest, what: str, timeout: float) -> None:
    async def call(stub: Any, seconds: float) -> access_pb2.ChangeAccessResponse:
        answer: access_pb2.ChangeAccessResponse = await stub.ChangeAccess(request, timeout=seconds)
        return answer

    await ask_leader(book, call, timeout, what=what, stub=access_stub)


def grant_request(role: str, level: str, prefix: bytes) -> access_pb2.ChangeAccessRequest:
    """Raises InvalidRequest for a level there is not."""
    if level not in _LEVELS:
        raise InvalidRequest(f"role grant: {level!r} is neither read nor write")
    grant = access_pb2.ChangeAccessRequest.Grant(role=role, level=_LEVELS[level], prefix=prefix)
    return access_pb2.ChangeAccessRequest(grant=grant)


def _new_token(answer: access_pb2.NewToken) -> NewToken:
    expires = answer.expires_in_seconds if answer.HasField("expires_in_seconds") else None
    return NewToken(answer.id, answer.user, answer.token, expires)
