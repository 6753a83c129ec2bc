"""Who may use the cluster, as it is at one applied index, and how changes are applied. The theory is in access.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgpack

from lattice_core.kv.access import (
    ADD_USER,
    ADMIN,
    ASSIGN,
    BUILT_IN,
    CREATE_TOKEN,
    DISABLE,
    ENABLE,
    GRANT,
    LEVELS,
    MAX_GRANTS,
    MAX_ROLES,
    MAX_TOKENS,
    MAX_USER_TOKENS,
    MAX_USERS,
    NO_ADMIN_LEFT,
    NO_ROLE,
    NO_TOKEN,
    NO_USER,
    REMOVE_ROLE,
    REMOVE_USER,
    REVOKE,
    REVOKE_TOKEN,
    SET_PASSWORD,
    TOKEN_EXISTS,
    TOO_MANY,
    UNASSIGN,
    USER_EXISTS,
    Change,
)
from lattice_core.kv.digests import chain, mix
from lattice_core.kv.operands import is_bytes, is_bytes_or_none, is_key, is_natural


class User(NamedTuple):
    verifier: bytes | None
    """Of the password; None: it has none."""
    roles: frozenset[bytes]


class Token(NamedTuple):
    user: bytes
    digest: bytes
    expires_ms: int
    """In the log's time; 0: never."""
    from_login: bool


class Access:
    """All there is to know, at one applied index. Never modified: see the module."""

    __slots__ = ("_digest", "enabled", "roles", "tokens", "users")

    def __init__(
        self,
        enabled: bool = False,
        users: dict[bytes, User] | None = None,
        roles: dict[bytes, dict[bytes, int]] | None = None,
        tokens: dict[bytes, Token] | None = None,
    ) -> None:
        self.enabled = enabled
        self.users = users if users is not None else {}
        self.roles = roles if roles is not None else {}
        """Levels by prefix, by role. ``admin`` is not among them."""
        self.tokens = tokens if tokens is not None else {}
        self._digest: int | None = None

    @property
    def is_empty(self) -> bool:
        """Nothing was ever set up, or all of it was taken back: not worth a word in a snapshot."""
        return not (self.enabled or self.users or self.roles or self.tokens)

    @property
    def state_hash(self) -> int:
        """Covers everything; 0 if empty, so that a state without any has the hash that it always had."""
        if self._digest is None:
            self._digest = 0 if self.is_empty else self.full_state_hash()
        return self._digest

    def full_state_hash(self) -> int:
        """``state_hash`` computed from the contents."""
        packed: bytes = msgpack.packb(self.dump())
        return 0 if self.is_empty else mix(chain(0, packed), len(packed), self.enabled)

    def has_admin(self) -> bool:
        """Somebody has the role ``admin`` and a way to prove it that does not expire."""
        admins = {name for name, user in self.users.items() if ADMIN in user.roles}
        return any(self.users[name].verifier is not None for name in admins) or any(
            token.user in admins and not token.expires_ms for token in self.tokens.values()
        )

    def grants_of(self, name: bytes) -> Iterable[tuple[bytes, int]]:
        """Every (prefix, level) that the user's roles hold."""
        for role in self.users[name].roles:
            yield from self.roles.get(role, {}).items()

    # -- snapshots --------------------------------------------------------------------------------

    def dump(self) -> list[Any]:
        """For a snapshot: the same contents give the same bytes."""
        return [
            int(self.enabled),
            [[name, user.verifier, sorted(user.roles)] for name, user in sorted(self.users.items())],
            [[name, [list(grant) for grant in sorted(grants.items())]] for name, grants in sorted(self.roles.items())],
            [[token_id, *token[:3], int(token.from_login)] for token_id, token in sorted(self.tokens.items())],
        ]

    @classmethod
    def load(cls, dumped: list[Any]) -> Access:
        """What :meth:`dump` wrote. Raises ValueError, TypeError for anything else."""
        enabled, users, roles, tokens = dumped
        well_formed = (
            all(
                is_key(name) and is_bytes_or_none(verifier) and all(map(is_key, held)) for name, verifier, held in users
            )
            and all(
                is_key(name) and all(is_bytes(prefix) and level in LEVELS for prefix, level in grants)
                for name, grants in roles
            )
            and all(
                is_key(token_id) and is_key(user) and is_key(digest) and is_natural(expires) and login in (0, 1)
                for token_id, user, digest, expires, login in tokens
            )
        )
        if not well_formed or enabled not in (0, 1):
            raise ValueError("users, roles and tokens that no member writes")
        return cls(
            bool(enabled),
            {name: User(verifier, frozenset(held)) for name, verifier, held in users},
            {name: dict(grants) for name, grants in roles},
            {token_id: Token(user, digest, expires, bool(login)) for token_id, user, digest, expires, login in tokens},
        )

    def check(self) -> None:
        """Assert the invariants. For tests."""
        assert not self.enabled or self.has_admin()
        assert all(role == ADMIN or role in self.roles for user in self.users.values() for role in user.roles)
        assert all(token.user in self.users for token in self.tokens.values())
        assert ADMIN not in self.roles
        assert self.state_hash == Access.load(self.dump()).full_state_hash()


# -- applying -------------------------------------------------------------------------------------


class Refused(Exception):
    """The change breaks a rule; ``args[0]`` is the reason's number."""


def execute(access: Access, change: Change, time_ms: int) -> tuple[Access, tuple[int, ...]]:
    """The state after a well-formed change, and its result: ``(0,)``, or ``(1, reason)`` with nothing changed."""
    try:
        changed = _CHANGES[change[0]](access, time_ms, *change[1:])
        if changed.enabled and not changed.has_admin():
            raise Refused(NO_ADMIN_LEFT)
    except Refused as refusal:
        return access, (1, refusal.args[0])
    return changed, (0,)


def _with(access: Access, **parts: Any) -> Access:
    return Access(
        parts.get("enabled", access.enabled),
        parts.get("users", access.users),
        parts.get("roles", access.roles),
        parts.get("tokens", access.tokens),
    )


def _user(access: Access, name: bytes) -> User:
    user = access.users.get(name)
    if user is None:
        raise Refused(NO_USER)
    return user


def _require_role(access: Access, role: bytes) -> None:
    if role != ADMIN and role not in access.roles:
        raise Refused(NO_ROLE)


def _enable(access: Access, _: int) -> Access:
    return _with(access, enabled=True)


def _disable(access: Access, _: int) -> Access:
    return _with(access, enabled=False)


def _add_user(access: Access, _: int, name: bytes, verifier: bytes | None, roles: tuple[bytes, ...]) -> Access:
    if name in access.users:
        raise Refused(USER_EXISTS)
    if len(access.users) >= MAX_USERS:
        raise Refused(TOO_MANY)
    for role in roles:
        _require_role(access, role)
    return _with(access, users={**access.users, name: User(verifier, frozenset(roles))})


def _remove_user(access: Access, _: int, name: bytes) -> Access:
    _user(access, name)
    users = {each: user for each, user in access.users.items() if each != name}
    tokens = {token_id: token for token_id, token in access.tokens.items() if token.user != name}
    return _with(access, users=users, tokens=tokens)


def _set_password(access: Access, _: int, name: bytes, verifier: bytes | None) -> Access:
    """Logins made with the former password end: whoever changes it may have reason to."""
    user = _user(access, name)
    tokens = {
        token_id: token for token_id, token in access.tokens.items() if token.user != name or not token.from_login
    }
    return _with(access, users={**access.users, name: user._replace(verifier=verifier)}, tokens=tokens)


def _assign(access: Access, _: int, name: bytes, role: bytes) -> Access:
    user = _user(access, name)
    _require_role(access, role)
    return _with(access, users={**access.users, name: user._replace(roles=user.roles | {role})})


def _unassign(access: Access, _: int, name: bytes, role: bytes) -> Access:
    user = _user(access, name)
    if role not in user.roles:
        raise Refused(NO_ROLE)
    return _with(access, users={**access.users, name: user._replace(roles=user.roles - {role})})


def _grant(access: Access, _: int, role: bytes, level: int, prefix: bytes) -> Access:
    """The role comes into being with its first grant; a prefix has one level, the last one given."""
    if role == ADMIN:
        raise Refused(BUILT_IN)
    grants = access.roles.get(role, {})
    if (role not in access.roles and len(access.roles) >= MAX_ROLES) or (
        prefix not in grants and len(grants) >= MAX_GRANTS
    ):
        raise Refused(TOO_MANY)
    return _with(access, roles={**access.roles, role: {**grants, prefix: level}})


def _revoke(access: Access, _: int, role: bytes, prefix: bytes) -> Access:
    if role == ADMIN:
        raise Refused(BUILT_IN)
    grants = access.roles.get(role)
    if grants is None or prefix not in grants:
        raise Refused(NO_ROLE)
    left = {each: level for each, level in grants.items() if each != prefix}
    return _with(access, roles={**access.roles, role: left})


def _remove_role(access: Access, _: int, role: bytes) -> Access:
    if role == ADMIN:
        raise Refused(BUILT_IN)
    _require_role(access, role)
    roles = {each: grants for each, grants in access.roles.items() if each != role}
    users = {
        name: user._replace(roles=user.roles - {role}) if role in user.roles else user
        for name, user in access.users.items()
    }
    return _with(access, users=users, roles=roles)


def _create_token(
    access: Access, time_ms: int, token_id: bytes, name: bytes, digest: bytes, expires_ms: int, from_login: int
) -> Access:
    _user(access, name)
    tokens = {
        each: token for each, token in access.tokens.items() if not token.expires_ms or token.expires_ms > time_ms
    }
    if token_id in tokens:
        raise Refused(TOKEN_EXISTS)
    if len(tokens) >= MAX_TOKENS or sum(token.user == name for token in tokens.values()) >= MAX_USER_TOKENS:
        raise Refused(TOO_MANY)
    tokens[token_id] = Token(name, digest, expires_ms, bool(from_login))
    return _with(access, tokens=tokens)


def _revoke_token(access: Access, _: int, token_id: bytes) -> Access:
    if token_id not in access.tokens:
        raise Refused(NO_TOKEN)
    return _with(access, tokens={each: token for each, token in access.tokens.items() if each != token_id})


_CHANGES: Final[dict[int, Callable[..., Access]]] = {
    ENABLE: _enable,
    DISABLE: _disable,
    ADD_USER: _add_user,
    REMOVE_USER: _remove_user,
    SET_PASSWORD: _set_password,
    ASSIGN: _assign,
    UNASSIGN: _unassign,
    GRANT: _grant,
    REVOKE: _revoke,
    REMOVE_ROLE: _remove_role,
    CREATE_TOKEN: _create_token,
    REVOKE_TOKEN: _revoke_token,
}
