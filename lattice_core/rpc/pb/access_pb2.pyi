from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccessLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCESS_LEVEL_UNSPECIFIED: _ClassVar[AccessLevel]
    ACCESS_LEVEL_READ: _ClassVar[AccessLevel]
    ACCESS_LEVEL_WRITE: _ClassVar[AccessLevel]
ACCESS_LEVEL_UNSPECIFIED: AccessLevel
ACCESS_LEVEL_READ: AccessLevel
ACCESS_LEVEL_WRITE: AccessLevel

class AccessStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AccessStatusResponse(_message.Message):
    __slots__ = ("enabled", "user", "roles", "users", "has_admin")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    HAS_ADMIN_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    user: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    users: int
    has_admin: bool
    def __init__(self, enabled: _Optional[bool] = ..., user: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., users: _Optional[int] = ..., has_admin: _Optional[bool] = ...) -> None: ...

class ListAccessRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAccessResponse(_message.Message):
    __slots__ = ("enabled", "users", "roles", "tokens")
    class User(_message.Message):
        __slots__ = ("name", "has_password", "roles", "tokens")
        NAME_FIELD_NUMBER: _ClassVar[int]
        HAS_PASSWORD_FIELD_NUMBER: _ClassVar[int]
        ROLES_FIELD_NUMBER: _ClassVar[int]
        TOKENS_FIELD_NUMBER: _ClassVar[int]
        name: str
        has_password: bool
        roles: _containers.RepeatedScalarFieldContainer[str]
        tokens: int
        def __init__(self, name: _Optional[str] = ..., has_password: _Optional[bool] = ..., roles: _Optional[_Iterable[str]] = ..., tokens: _Optional[int] = ...) -> None: ...
    class Grant(_message.Message):
        __slots__ = ("prefix", "level")
        PREFIX_FIELD_NUMBER: _ClassVar[int]
        LEVEL_FIELD_NUMBER: _ClassVar[int]
        prefix: bytes
        level: AccessLevel
        def __init__(self, prefix: _Optional[bytes] = ..., level: _Optional[_Union[AccessLevel, str]] = ...) -> None: ...
    class Role(_message.Message):
        __slots__ = ("name", "grants")
        NAME_FIELD_NUMBER: _ClassVar[int]
        GRANTS_FIELD_NUMBER: _ClassVar[int]
        name: str
        grants: _containers.RepeatedCompositeFieldContainer[ListAccessResponse.Grant]
        def __init__(self, name: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[ListAccessResponse.Grant, _Mapping]]] = ...) -> None: ...
    class Token(_message.Message):
        __slots__ = ("id", "user", "from_login", "expires_in_seconds")
        ID_FIELD_NUMBER: _ClassVar[int]
        USER_FIELD_NUMBER: _ClassVar[int]
        FROM_LOGIN_FIELD_NUMBER: _ClassVar[int]
        EXPIRES_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
        id: str
        user: str
        from_login: bool
        expires_in_seconds: float
        def __init__(self, id: _Optional[str] = ..., user: _Optional[str] = ..., from_login: _Optional[bool] = ..., expires_in_seconds: _Optional[float] = ...) -> None: ...
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    users: _containers.RepeatedCompositeFieldContainer[ListAccessResponse.User]
    roles: _containers.RepeatedCompositeFieldContainer[ListAccessResponse.Role]
    tokens: _containers.RepeatedCompositeFieldContainer[ListAccessResponse.Token]
    def __init__(self, enabled: _Optional[bool] = ..., users: _Optional[_Iterable[_Union[ListAccessResponse.User, _Mapping]]] = ..., roles: _Optional[_Iterable[_Union[ListAccessResponse.Role, _Mapping]]] = ..., tokens: _Optional[_Iterable[_Union[ListAccessResponse.Token, _Mapping]]] = ...) -> None: ...

class LoginRequest(_message.Message):
    __slots__ = ("user", "password", "ttl_seconds")
    USER_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    user: str
    password: bytes
    ttl_seconds: float
    def __init__(self, user: _Optional[str] = ..., password: _Optional[bytes] = ..., ttl_seconds: _Optional[float] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("user", "ttl_seconds")
    USER_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    user: str
    ttl_seconds: float
    def __init__(self, user: _Optional[str] = ..., ttl_seconds: _Optional[float] = ...) -> None: ...

class NewToken(_message.Message):
    __slots__ = ("id", "user", "token", "expires_in_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    user: str
    token: str
    expires_in_seconds: float
    def __init__(self, id: _Optional[str] = ..., user: _Optional[str] = ..., token: _Optional[str] = ..., expires_in_seconds: _Optional[float] = ...) -> None: ...

class ChangeAccessRequest(_message.Message):
    __slots__ = ("enable", "disable", "add_user", "remove_user", "set_password", "assign", "unassign", "grant", "revoke", "remove_role", "revoke_token")
    class Enable(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Disable(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class AddUser(_message.Message):
        __slots__ = ("name", "password", "roles")
        NAME_FIELD_NUMBER: _ClassVar[int]
        PASSWORD_FIELD_NUMBER: _ClassVar[int]
        ROLES_FIELD_NUMBER: _ClassVar[int]
        name: str
        password: bytes
        roles: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, name: _Optional[str] = ..., password: _Optional[bytes] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...
    class RemoveUser(_message.Message):
        __slots__ = ("name",)
        NAME_FIELD_NUMBER: _ClassVar[int]
        name: str
        def __init__(self, name: _Optional[str] = ...) -> None: ...
    class SetPassword(_message.Message):
        __slots__ = ("name", "password")
        NAME_FIELD_NUMBER: _ClassVar[int]
        PASSWORD_FIELD_NUMBER: _ClassVar[int]
        name: str
        password: bytes
        def __init__(self, name: _Optional[str] = ..., password: _Optional[bytes] = ...) -> None: ...
    class Assign(_message.Message):
        __slots__ = ("user", "role")
        USER_FIELD_NUMBER: _ClassVar[int]
        ROLE_FIELD_NUMBER: _ClassVar[int]
        user: str
        role: str
        def __init__(self, user: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...
    class Grant(_message.Message):
        __slots__ = ("role", "level", "prefix")
        ROLE_FIELD_NUMBER: _ClassVar[int]
        LEVEL_FIELD_NUMBER: _ClassVar[int]
        PREFIX_FIELD_NUMBER: _ClassVar[int]
        role: str
        level: AccessLevel
        prefix: bytes
        def __init__(self, role: _Optional[str] = ..., level: _Optional[_Union[AccessLevel, str]] = ..., prefix: _Optional[bytes] = ...) -> None: ...
    class Revoke(_message.Message):
        __slots__ = ("role", "prefix")
        ROLE_FIELD_NUMBER: _ClassVar[int]
        PREFIX_FIELD_NUMBER: _ClassVar[int]
        role: str
        prefix: bytes
        def __init__(self, role: _Optional[str] = ..., prefix: _Optional[bytes] = ...) -> None: ...
    class RemoveRole(_message.Message):
        __slots__ = ("name",)
        NAME_FIELD_NUMBER: _ClassVar[int]
        name: str
        def __init__(self, name: _Optional[str] = ...) -> None: ...
    class RevokeToken(_message.Message):
        __slots__ = ("id",)
        ID_FIELD_NUMBER: _ClassVar[int]
        id: str
        def __init__(self, id: _Optional[str] = ...) -> None: ...
    ENABLE_FIELD_NUMBER: _ClassVar[int]
    DISABLE_FIELD_NUMBER: _ClassVar[int]
    ADD_USER_FIELD_NUMBER: _ClassVar[int]
    REMOVE_USER_FIELD_NUMBER: _ClassVar[int]
    SET_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    UNASSIGN_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_ROLE_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    enable: ChangeAccessRequest.Enable
    disable: ChangeAccessRequest.Disable
    add_user: ChangeAccessRequest.AddUser
    remove_user: ChangeAccessRequest.RemoveUser
    set_password: ChangeAccessRequest.SetPassword
    assign: ChangeAccessRequest.Assign
    unassign: ChangeAccessRequest.Assign
    grant: ChangeAccessRequest.Grant
    revoke: ChangeAccessRequest.Revoke
    remove_role: ChangeAccessRequest.RemoveRole
    revoke_token: ChangeAccessRequest.RevokeToken
    def __init__(self, enable: _Optional[_Union[ChangeAccessRequest.Enable, _Mapping]] = ..., disable: _Optional[_Union[ChangeAccessRequest.Disable, _Mapping]] = ..., add_user: _Optional[_Union[ChangeAccessRequest.AddUser, _Mapping]] = ..., remove_user: _Optional[_Union[ChangeAccessRequest.RemoveUser, _Mapping]] = ..., set_password: _Optional[_Union[ChangeAccessRequest.SetPassword, _Mapping]] = ..., assign: _Optional[_Union[ChangeAccessRequest.Assign, _Mapping]] = ..., unassign: _Optional[_Union[ChangeAccessRequest.Assign, _Mapping]] = ..., grant: _Optional[_Union[ChangeAccessRequest.Grant, _Mapping]] = ..., revoke: _Optional[_Union[ChangeAccessRequest.Revoke, _Mapping]] = ..., remove_role: _Optional[_Union[ChangeAccessRequest.RemoveRole, _Mapping]] = ..., revoke_token: _Optional[_Union[ChangeAccessRequest.RevokeToken, _Mapping]] = ...) -> None: ...

class ChangeAccessResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
