"""What the clients offer for access control, apart from their other methods: ``client.access.add_user(...)``."""

# ruff: noqa: ASYNC109 - as in AsyncClient
from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from lattice_core.client import access
from lattice_core.client.access import AccessInfo, AccessStatus, NewToken
from lattice_core.client.arguments import Data, to_bytes
from lattice_core.client.channels import AddressBook
from lattice_core.rpc.pb import access_pb2

_Change = access_pb2.ChangeAccessRequest


class AsyncAccess:
    """Users, roles and tokens. While access control is enabled all but :meth:`status` and :meth:`login` are for
    administrators, or about the caller's own password and tokens.

    Everything raises Unauthenticated, PermissionDenied; NotAllowed with the reason if a change breaks a rule;
    InvalidRequest for a bad name; Unavailable if nothing was done, OutcomeUnknown if that is not known.
    """

    def __init__(self, book: AddressBook, timeout: float) -> None:
        self._book = book
        self._timeout = timeout

    async def status(self, *, timeout: float | None = None) -> AccessStatus:
        """Whether it is enabled, and as whom this client is known."""
        return await access.status(self._book, self._seconds(timeout))

    async def info(self, *, timeout: float | None = None) -> AccessInfo:
        """All users, roles and tokens, without anything secret."""
        return await access.info(self._book, self._seconds(timeout))

    async def login(
        self, user: str, password: Data, *, ttl_seconds: float | None = None, timeout: float | None = None
    ) -> NewToken:
        """A token that expires, by default in 12 hours. This client goes on with its own."""
        data = to_bytes(password, "password")
        return await access.login(self._book, user, data, ttl_seconds, self._seconds(timeout))

    async def create_token(
        self, user: str, *, ttl_seconds: float | None = None, timeout: float | None = None
    ) -> NewToken:
        """A new token of ``user``; it does not expire unless ``ttl_seconds`` is given."""
        return await access.create_token(self._book, user, ttl_seconds, self._seconds(timeout))

    async def revoke_token(self, token_id: str, *, timeout: float | None = None) -> None:
        await self._change(_Change(revoke_token=_Change.RevokeToken(id=token_id)), "token revoke", timeout)

    async def enable(self, *, timeout: float | None = None) -> None:
        """From now on every call needs a token. This client has to have an administrator's."""
        await self._change(_Change(enable=_Change.Enable()), "access enable", timeout)

    async def disable(self, *, timeout: float | None = None) -> None:
        """Everybody may do everything; users, roles and tokens stay."""
        await self._change(_Change(disable=_Change.Disable()), "access disable", timeout)

    async def add_user(
        self, name: str, *, password: Data | None = None, roles: Iterable[str] = (), timeout: float | None = None
    ) -> None:
        data = None if password is None else to_bytes(password, "password")
        add = _Change.AddUser(name=name, password=data, roles=list(roles))
        await self._change(_Change(add_user=add), "user add", timeout)

    async def remove_user(self, name: str, *, timeout: float | None = None) -> None:
        """The user's tokens go too."""
        await self._change(_Change(remove_user=_Change.RemoveUser(name=name)), "user remove", timeout)

    async def set_password(self, name: str, password: Data | None, *, timeout: float | None = None) -> None:
        """None: it has no password any more. Tokens that the former one bought end."""
        data = None if password is None else to_bytes(password, "password")
        part = _Change.SetPassword(name=name, password=data)
        await self._change(_Change(set_password=part), "user passwd", timeout)

    async def assign(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Give the user the role; ``admin`` is built in and allows everything."""
        await self._change(_Change(assign=_Change.Assign(user=user, role=role)), "user grant", timeout)

    async def unassign(self, user: str, role: str, *, timeout: float | None = None) -> None:
        await self._change(_Change(unassign=_Change.Assign(user=user, role=role)), "user revoke", timeout)

    async def grant(self, role: str, level: str, prefix: Data, *, timeout: float | None = None) -> None:
        """Let the role ``read``, or ``write`` (which includes reading), all keys that begin with ``prefix``."""
        await self._change(access.grant_request(role, level, to_bytes(prefix, "prefix")), "role grant", timeout)

    async def revoke(self, role: str, prefix: Data, *, timeout: float | None = None) -> None:
        """Take back what the role was granted on exactly this prefix."""
        part = _Change.Revoke(role=role, prefix=to_bytes(prefix, "prefix"))
        await self._change(_Change(revoke=part), "role revoke", timeout)

    async def remove_role(self, name: str, *, timeout: float | None = None) -> None:
        await self._change(_Change(remove_role=_Change.RemoveRole(name=name)), "role remove", timeout)

    async def _change(self, request: access_pb2.ChangeAccessRequest, what: str, timeout: float | None) -> None:
        await access.change(self._book, request, what, self._seconds(timeout))

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


class Access:
    """The same for threads. See :class:`AsyncAccess` for arguments, results and errors."""

    def __init__(self, asynchronous: AsyncAccess, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._async = asynchronous
        self._wait = wait

    def status(self, *, timeout: float | None = None) -> AccessStatus:
        found: AccessStatus = self._wait(self._async.status(timeout=timeout))
        return found

    def info(self, *, timeout: float | None = None) -> AccessInfo:
        found: AccessInfo = self._wait(self._async.info(timeout=timeout))
        return found

    def login(
        self, user: str, password: Data, *, ttl_seconds: float | None = None, timeout: float | None = None
    ) -> NewToken:
        fresh: NewToken = self._wait(self._async.login(user, password, ttl_seconds=ttl_seconds, timeout=timeout))
        return fresh

    def create_token(self, user: str, *, ttl_seconds: float | None = None, timeout: float | None = None) -> NewToken:
        fresh: NewToken = self._wait(self._async.create_token(user, ttl_seconds=ttl_seconds, timeout=timeout))
        return fresh

    def revoke_token(self, token_id: str, *, timeout: float | None = None) -> None:
        self._wait(self._async.revoke_token(token_id, timeout=timeout))

    def enable(self, *, timeout: float | None = None) -> None:
        self._wait(self._async.enable(timeout=timeout))

    def disable(self, *, timeout: float | None = None) -> None:
        self._wait(self._async.disable(timeout=timeout))

    def add_user(
        self, name: str, *, password: Data | None = None, roles: Iterable[str] = (), timeout: float | None = None
    ) -> None:
        self._wait(self._async.add_user(name, password=password, roles=roles, timeout=timeout))

    def remove_user(self, name: str, *, timeout: float | None = None) -> None:
        self._wait(self._async.remove_user(name, timeout=timeout))

    def set_password(self, name: str, password: Data | None, *, timeout: float | None = None) -> None:
        self._wait(self._async.set_password(name, password, timeout=timeout))

    def assign(self, user: str, role: str, *, timeout: float | None = None) -> None:
        self._wait(self._async.assign(user, role, timeout=timeout))

    def unassign(self, user: str, role: str, *, timeout: float | None = None) -> None:
        self._wait(self._async.unassign(user, role, timeout=timeout))

    def grant(self, role: str, level: str, prefix: Data, *, timeout: float | None = None) -> None:
        self._wait(self._async.grant(role, level, prefix, timeout=timeout))

    def revoke(self, role: str, prefix: Data, *, timeout: float | None = None) -> None:
        self._wait(self._async.revoke(role, prefix, timeout=timeout))

    def remove_role(self, name: str, *, timeout: float | None = None) -> None:
        self._wait(self._async.remove_role(name, timeout=timeout))
