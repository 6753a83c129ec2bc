"""Who may use the cluster: changes of users, roles and tokens, as they are written in the log.

::

    (ACCESS, change)

    change      (ENABLE,)  (DISABLE,)
                (ADD_USER, name, verifier|nil, [role, ...])   (REMOVE_USER, name)   (SET_PASSWORD, name, verifier|nil)
                (ASSIGN, user, role)        (UNASSIGN, user, role)
                (GRANT, role, level, prefix)   (REVOKE, role, prefix)   (REMOVE_ROLE, role)
                (CREATE_TOKEN, id, user, digest, expires at ms|0, from a login 0|1)   (REVOKE_TOKEN, id)

Theory
  * A **role** is a set of grants; a grant lets read, or read and write, all keys with one prefix. The role ``admin``
    is always there, cannot be changed, and allows everything, this module's changes included. Rights only add up:
    there is nothing that takes one away again.
  * A **user** has roles, and proves to be that user by a **token** (or by a password, which buys a token for some
    hours). What is kept of either is a hash made before it came here: applying neither hashes nor chooses anything,
    so it stays quick, and the same on every member. What the hashes are is tokens.py's business.
  * Tokens expire by the log's time, like sessions. Expired ones are dropped when the next is made.
  * While it is not enabled, everybody may do everything. It cannot be enabled before, nor be changed so that
    while it is, there is nobody with the role ``admin`` and a way to prove it that does not expire.
  * The state (access_state.py) is one immutable value, replaced by each change: whoever has decided by one can tell
    with ``is`` whether that decision still holds, and a snapshot holds on to it for nothing.

A change that breaks a rule is refused whole and answered so, everywhere alike. Hence **the rules and the limits here
are part of what ACCESS means** and can only change with a new opcode; a change of a kind not known here halts, as any
newer command (commands.py).

Enforcing it is not the state machine's: the server decides before anything is proposed (server/access.py). Clients
cannot send ACCESS in their batches; it has a service of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from lattice_core.kv.operands import Newer, is_bytes, is_bytes_or_none, is_code, is_key, is_natural

Change: TypeAlias = tuple[Any, ...]

ENABLE: Final = 1
DISABLE: Final = 2
ADD_USER: Final = 3
REMOVE_USER: Final = 4
SET_PASSWORD: Final = 5
ASSIGN: Final = 6
UNASSIGN: Final = 7
GRANT: Final = 8
REVOKE: Final = 9
REMOVE_ROLE: Final = 10
CREATE_TOKEN: Final = 11
REVOKE_TOKEN: Final = 12

READ: Final = 1
WRITE: Final = 2
LEVELS: Final = {READ: "read", WRITE: "write"}
"""WRITE includes READ: conditional writes, and how many keys a deletion found, tell what is there."""

ADMIN: Final = b"admin"
"""The role that allows everything."""

MAX_USERS: Final = 1000
MAX_ROLES: Final = 1000
MAX_GRANTS: Final = 100
"""Prefixes of one role."""
MAX_USER_TOKENS: Final = 100
MAX_TOKENS: Final = 10_000
"""All tokens are copied by each change and make one chunk of a snapshot: about a megabyte."""

# Why a change was refused. Numbers are in the session table and on the wire: never reuse one.
NO_USER: Final = 1
NO_ROLE: Final = 2
NO_TOKEN: Final = 3
USER_EXISTS: Final = 4
TOKEN_EXISTS: Final = 5
BUILT_IN: Final = 6
NO_ADMIN_LEFT: Final = 7
TOO_MANY: Final = 8


def _is_names(operand: object) -> bool:
    return type(operand) is tuple and all(is_key(each) for each in operand)


def _is_level(operand: object) -> bool:
    if is_code(operand) and operand not in LEVELS:
        raise Newer(f"an access level with code {operand}")
    return is_code(operand)


def _is_flag(operand: object) -> bool:
    return type(operand) is int and operand in (0, 1)


_OPERANDS: Final[dict[int, tuple[Callable[[object], bool], ...]]] = {
    ENABLE: (),
    DISABLE: (),
    ADD_USER: (is_key, is_bytes_or_none, _is_names),
    REMOVE_USER: (is_key,),
    SET_PASSWORD: (is_key, is_bytes_or_none),
    ASSIGN: (is_key, is_key),
    UNASSIGN: (is_key, is_key),
    GRANT: (is_key, _is_level, is_bytes),
    REVOKE: (is_key, is_bytes),
    REMOVE_ROLE: (is_key,),
    CREATE_TOKEN: (is_key, is_key, is_key, is_natural, _is_flag),
    REVOKE_TOKEN: (is_key,),
}


def is_change(operand: object) -> bool:
    """Whether it is a change of this version. Raises Newer if it may be one of a later version."""
    if type(operand) is not tuple or not operand or not is_code(operand[0]):
        return False
    kind = operand[0]
    checks = _OPERANDS.get(kind)
    if checks is None:
        raise Newer(f"a change of access with code {kind}")
    if len(operand) - 1 > len(checks):
        raise Newer(f"a change of access with code {kind} and {len(operand) - 1} operands")
    if len(operand) - 1 < len(checks):
        return False
    well_formed = True
    for check, each in zip(checks, operand[1:], strict=True):
        well_formed &= check(each)
    return well_formed
