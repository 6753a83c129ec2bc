from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSISTENCY_UNSPECIFIED: _ClassVar[Consistency]
    CONSISTENCY_LINEARIZABLE: _ClassVar[Consistency]
    CONSISTENCY_LEASE: _ClassVar[Consistency]
    CONSISTENCY_STALE: _ClassVar[Consistency]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_LEADER: _ClassVar[ErrorCode]
    ERROR_CODE_NO_LEADER: _ClassVar[ErrorCode]
    ERROR_CODE_BUSY: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_LARGE: _ClassVar[ErrorCode]
    ERROR_CODE_SESSION_EXPIRED: _ClassVar[ErrorCode]
    ERROR_CODE_STALE_SEQUENCE: _ClassVar[ErrorCode]
    ERROR_CODE_COMPACTED: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_ALLOWED: _ClassVar[ErrorCode]
    ERROR_CODE_OUTCOME_UNKNOWN: _ClassVar[ErrorCode]
    ERROR_CODE_SHUTTING_DOWN: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_STALE: _ClassVar[ErrorCode]
    ERROR_CODE_UNAUTHENTICATED: _ClassVar[ErrorCode]
    ERROR_CODE_PERMISSION_DENIED: _ClassVar[ErrorCode]
CONSISTENCY_UNSPECIFIED: Consistency
CONSISTENCY_LINEARIZABLE: Consistency
CONSISTENCY_LEASE: Consistency
CONSISTENCY_STALE: Consistency
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_NOT_LEADER: ErrorCode
ERROR_CODE_NO_LEADER: ErrorCode
ERROR_CODE_BUSY: ErrorCode
ERROR_CODE_INVALID: ErrorCode
ERROR_CODE_TOO_LARGE: ErrorCode
ERROR_CODE_SESSION_EXPIRED: ErrorCode
ERROR_CODE_STALE_SEQUENCE: ErrorCode
ERROR_CODE_COMPACTED: ErrorCode
ERROR_CODE_NOT_ALLOWED: ErrorCode
ERROR_CODE_OUTCOME_UNKNOWN: ErrorCode
ERROR_CODE_SHUTTING_DOWN: ErrorCode
ERROR_CODE_TOO_STALE: ErrorCode
ERROR_CODE_UNAUTHENTICATED: ErrorCode
ERROR_CODE_PERMISSION_DENIED: ErrorCode

class LeaderHint(_message.Message):
    __slots__ = ("node_id", "name", "client_addr")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDR_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    name: str
    client_addr: str
    def __init__(self, node_id: _Optional[int] = ..., name: _Optional[str] = ..., client_addr: _Optional[str] = ...) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("code", "message", "leader", "limit", "actual", "compacted_revision", "hint")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    COMPACTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    message: str
    leader: LeaderHint
    limit: int
    actual: int
    compacted_revision: int
    hint: str
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., message: _Optional[str] = ..., leader: _Optional[_Union[LeaderHint, _Mapping]] = ..., limit: _Optional[int] = ..., actual: _Optional[int] = ..., compacted_revision: _Optional[int] = ..., hint: _Optional[str] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("request_id", "write", "read", "open", "close")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    write: WriteBatch
    read: ReadBatch
    open: OpenSessionRequest
    close: CloseSessionRequest
    def __init__(self, request_id: _Optional[int] = ..., write: _Optional[_Union[WriteBatch, _Mapping]] = ..., read: _Optional[_Union[ReadBatch, _Mapping]] = ..., open: _Optional[_Union[OpenSessionRequest, _Mapping]] = ..., close: _Optional[_Union[CloseSessionRequest, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("request_id", "write", "read", "open", "close", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    write: WriteResults
    read: ReadResults
    open: OpenSessionResponse
    close: CloseSessionResponse
    error: ErrorDetail
    def __init__(self, request_id: _Optional[int] = ..., write: _Optional[_Union[WriteResults, _Mapping]] = ..., read: _Optional[_Union[ReadResults, _Mapping]] = ..., open: _Optional[_Union[OpenSessionResponse, _Mapping]] = ..., close: _Optional[_Union[CloseSessionResponse, _Mapping]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class WriteBatch(_message.Message):
    __slots__ = ("session_id", "sequence", "acknowledged_below", "commands", "traceparent")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_BELOW_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    sequence: int
    acknowledged_below: int
    commands: bytes
    traceparent: str
    def __init__(self, session_id: _Optional[int] = ..., sequence: _Optional[int] = ..., acknowledged_below: _Optional[int] = ..., commands: _Optional[bytes] = ..., traceparent: _Optional[str] = ...) -> None: ...

class WriteResults(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: bytes
    def __init__(self, results: _Optional[bytes] = ...) -> None: ...

class ReadBatch(_message.Message):
    __slots__ = ("consistency", "reads", "max_stale_seconds", "traceparent")
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    MAX_STALE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    consistency: Consistency
    reads: bytes
    max_stale_seconds: float
    traceparent: str
    def __init__(self, consistency: _Optional[_Union[Consistency, str]] = ..., reads: _Optional[bytes] = ..., max_stale_seconds: _Optional[float] = ..., traceparent: _Optional[str] = ...) -> None: ...

class ReadResults(_message.Message):
    __slots__ = ("results", "revision", "stale_seconds")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STALE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    results: bytes
    revision: int
    stale_seconds: float
    def __init__(self, results: _Optional[bytes] = ..., revision: _Optional[int] = ..., stale_seconds: _Optional[float] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session_id", "leader")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    leader: LeaderHint
    def __init__(self, session_id: _Optional[int] = ..., leader: _Optional[_Union[LeaderHint, _Mapping]] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    def __init__(self, session_id: _Optional[int] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KeyValue(_message.Message):
    __slots__ = ("key", "value", "create_revision", "mod_revision", "version", "lease")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CREATE_REVISION_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., create_revision: _Optional[int] = ..., mod_revision: _Optional[int] = ..., version: _Optional[int] = ..., lease: _Optional[int] = ...) -> None: ...

class RequestIdentity(_message.Message):
    __slots__ = ("session_id", "sequence", "acknowledged_below")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_BELOW_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    sequence: int
    acknowledged_below: int
    def __init__(self, session_id: _Optional[int] = ..., sequence: _Optional[int] = ..., acknowledged_below: _Optional[int] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("key", "value", "identity", "if_mod_revision", "explain")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    IF_MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    identity: RequestIdentity
    if_mod_revision: int
    explain: bool
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., identity: _Optional[_Union[RequestIdentity, _Mapping]] = ..., if_mod_revision: _Optional[int] = ..., explain: _Optional[bool] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("done", "revision", "explanation")
    DONE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    done: bool
    revision: int
    explanation: Explanation
    def __init__(self, done: _Optional[bool] = ..., revision: _Optional[int] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key", "consistency", "revision", "max_stale_seconds", "explain")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MAX_STALE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    consistency: Consistency
    revision: int
    max_stale_seconds: float
    explain: bool
    def __init__(self, key: _Optional[bytes] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., revision: _Optional[int] = ..., max_stale_seconds: _Optional[float] = ..., explain: _Optional[bool] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("revision", "found", "not_found", "explanation")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    NOT_FOUND_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    found: KeyValue
    not_found: NotFound
    explanation: Explanation
    def __init__(self, revision: _Optional[int] = ..., found: _Optional[_Union[KeyValue, _Mapping]] = ..., not_found: _Optional[_Union[NotFound, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("member", "role", "total_seconds", "steps", "index", "batches")
    class Step(_message.Message):
        __slots__ = ("name", "began", "ended", "member")
        NAME_FIELD_NUMBER: _ClassVar[int]
        BEGAN_FIELD_NUMBER: _ClassVar[int]
        ENDED_FIELD_NUMBER: _ClassVar[int]
        MEMBER_FIELD_NUMBER: _ClassVar[int]
        name: str
        began: float
        ended: float
        member: str
        def __init__(self, name: _Optional[str] = ..., began: _Optional[float] = ..., ended: _Optional[float] = ..., member: _Optional[str] = ...) -> None: ...
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    member: str
    role: str
    total_seconds: float
    steps: _containers.RepeatedCompositeFieldContainer[Explanation.Step]
    index: int
    batches: int
    def __init__(self, member: _Optional[str] = ..., role: _Optional[str] = ..., total_seconds: _Optional[float] = ..., steps: _Optional[_Iterable[_Union[Explanation.Step, _Mapping]]] = ..., index: _Optional[int] = ..., batches: _Optional[int] = ...) -> None: ...

class NotFound(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RangeRequest(_message.Message):
    __slots__ = ("start", "end", "consistency", "revision", "limit", "keys_only", "count_only", "reverse", "max_stale_seconds")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    KEYS_ONLY_FIELD_NUMBER: _ClassVar[int]
    COUNT_ONLY_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    MAX_STALE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    start: bytes
    end: bytes
    consistency: Consistency
    revision: int
    limit: int
    keys_only: bool
    count_only: bool
    reverse: bool
    max_stale_seconds: float
    def __init__(self, start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., revision: _Optional[int] = ..., limit: _Optional[int] = ..., keys_only: _Optional[bool] = ..., count_only: _Optional[bool] = ..., reverse: _Optional[bool] = ..., max_stale_seconds: _Optional[float] = ...) -> None: ...

class RangeResponse(_message.Message):
    __slots__ = ("revision", "kvs", "more", "count")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KVS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    revision: int
    kvs: _containers.RepeatedCompositeFieldContainer[KeyValue]
    more: bool
    count: int
    def __init__(self, revision: _Optional[int] = ..., kvs: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ..., more: _Optional[bool] = ..., count: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("key", "range_end", "identity")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    identity: RequestIdentity
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., identity: _Optional[_Union[RequestIdentity, _Mapping]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("deleted", "revision")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    revision: int
    def __init__(self, deleted: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class CompareAndSwapRequest(_message.Message):
    __slots__ = ("key", "expected", "value", "identity")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    expected: bytes
    value: bytes
    identity: RequestIdentity
    def __init__(self, key: _Optional[bytes] = ..., expected: _Optional[bytes] = ..., value: _Optional[bytes] = ..., identity: _Optional[_Union[RequestIdentity, _Mapping]] = ...) -> None: ...

class CompareAndSwapResponse(_message.Message):
    __slots__ = ("swapped", "revision")
    SWAPPED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    swapped: bool
    revision: int
    def __init__(self, swapped: _Optional[bool] = ..., revision: _Optional[int] = ...) -> None: ...

class Compare(_message.Message):
    __slots__ = ("target", "relation", "key", "range_end", "value", "number")
    class Target(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TARGET_UNSPECIFIED: _ClassVar[Compare.Target]
        TARGET_VALUE: _ClassVar[Compare.Target]
        TARGET_MOD_REVISION: _ClassVar[Compare.Target]
        TARGET_CREATE_REVISION: _ClassVar[Compare.Target]
        TARGET_VERSION: _ClassVar[Compare.Target]
    TARGET_UNSPECIFIED: Compare.Target
    TARGET_VALUE: Compare.Target
    TARGET_MOD_REVISION: Compare.Target
    TARGET_CREATE_REVISION: Compare.Target
    TARGET_VERSION: Compare.Target
    class Relation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RELATION_UNSPECIFIED: _ClassVar[Compare.Relation]
        RELATION_EQUAL: _ClassVar[Compare.Relation]
        RELATION_NOT_EQUAL: _ClassVar[Compare.Relation]
        RELATION_LESS: _ClassVar[Compare.Relation]
        RELATION_GREATER: _ClassVar[Compare.Relation]
    RELATION_UNSPECIFIED: Compare.Relation
    RELATION_EQUAL: Compare.Relation
    RELATION_NOT_EQUAL: Compare.Relation
    RELATION_LESS: Compare.Relation
    RELATION_GREATER: Compare.Relation
    TARGET_FIELD_NUMBER: _ClassVar[int]
    RELATION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    target: Compare.Target
    relation: Compare.Relation
    key: bytes
    range_end: bytes
    value: bytes
    number: int
    def __init__(self, target: _Optional[_Union[Compare.Target, str]] = ..., relation: _Optional[_Union[Compare.Relation, str]] = ..., key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., value: _Optional[bytes] = ..., number: _Optional[int] = ...) -> None: ...

class TxnOp(_message.Message):
    __slots__ = ("put", "delete", "range")
    class Put(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: bytes
        value: bytes
        def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...
    class Delete(_message.Message):
        __slots__ = ("key", "range_end")
        KEY_FIELD_NUMBER: _ClassVar[int]
        RANGE_END_FIELD_NUMBER: _ClassVar[int]
        key: bytes
        range_end: bytes
        def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ...) -> None: ...
    class Range(_message.Message):
        __slots__ = ("key", "range_end", "limit", "keys_only", "count_only", "reverse")
        KEY_FIELD_NUMBER: _ClassVar[int]
        RANGE_END_FIELD_NUMBER: _ClassVar[int]
        LIMIT_FIELD_NUMBER: _ClassVar[int]
        KEYS_ONLY_FIELD_NUMBER: _ClassVar[int]
        COUNT_ONLY_FIELD_NUMBER: _ClassVar[int]
        REVERSE_FIELD_NUMBER: _ClassVar[int]
        key: bytes
        range_end: bytes
        limit: int
        keys_only: bool
        count_only: bool
        reverse: bool
        def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., limit: _Optional[int] = ..., keys_only: _Optional[bool] = ..., count_only: _Optional[bool] = ..., reverse: _Optional[bool] = ...) -> None: ...
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    put: TxnOp.Put
    delete: TxnOp.Delete
    range: TxnOp.Range
    def __init__(self, put: _Optional[_Union[TxnOp.Put, _Mapping]] = ..., delete: _Optional[_Union[TxnOp.Delete, _Mapping]] = ..., range: _Optional[_Union[TxnOp.Range, _Mapping]] = ...) -> None: ...

class TxnRequest(_message.Message):
    __slots__ = ("compare", "then", "otherwise", "identity")
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    THEN_FIELD_NUMBER: _ClassVar[int]
    OTHERWISE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    compare: _containers.RepeatedCompositeFieldContainer[Compare]
    then: _containers.RepeatedCompositeFieldContainer[TxnOp]
    otherwise: _containers.RepeatedCompositeFieldContainer[TxnOp]
    identity: RequestIdentity
    def __init__(self, compare: _Optional[_Iterable[_Union[Compare, _Mapping]]] = ..., then: _Optional[_Iterable[_Union[TxnOp, _Mapping]]] = ..., otherwise: _Optional[_Iterable[_Union[TxnOp, _Mapping]]] = ..., identity: _Optional[_Union[RequestIdentity, _Mapping]] = ...) -> None: ...

class TxnOpResult(_message.Message):
    __slots__ = ("put", "delete", "range")
    class Done(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Deleted(_message.Message):
        __slots__ = ("deleted",)
        DELETED_FIELD_NUMBER: _ClassVar[int]
        deleted: int
        def __init__(self, deleted: _Optional[int] = ...) -> None: ...
    class Found(_message.Message):
        __slots__ = ("kvs", "more", "count")
        KVS_FIELD_NUMBER: _ClassVar[int]
        MORE_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        kvs: _containers.RepeatedCompositeFieldContainer[KeyValue]
        more: bool
        count: int
        def __init__(self, kvs: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ..., more: _Optional[bool] = ..., count: _Optional[int] = ...) -> None: ...
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    put: TxnOpResult.Done
    delete: TxnOpResult.Deleted
    range: TxnOpResult.Found
    def __init__(self, put: _Optional[_Union[TxnOpResult.Done, _Mapping]] = ..., delete: _Optional[_Union[TxnOpResult.Deleted, _Mapping]] = ..., range: _Optional[_Union[TxnOpResult.Found, _Mapping]] = ...) -> None: ...

class TxnResponse(_message.Message):
    __slots__ = ("succeeded", "failed_compare", "revision", "results")
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_COMPARE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    succeeded: bool
    failed_compare: int
    revision: int
    results: _containers.RepeatedCompositeFieldContainer[TxnOpResult]
    def __init__(self, succeeded: _Optional[bool] = ..., failed_compare: _Optional[int] = ..., revision: _Optional[int] = ..., results: _Optional[_Iterable[_Union[TxnOpResult, _Mapping]]] = ...) -> None: ...
