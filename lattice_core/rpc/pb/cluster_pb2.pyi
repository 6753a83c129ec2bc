from lattice_core.rpc.pb import raft_pb2 as _raft_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeStatusRequest(_message.Message):
    __slots__ = ("details",)
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    details: bool
    def __init__(self, details: _Optional[bool] = ...) -> None: ...

class ClusterStatusRequest(_message.Message):
    __slots__ = ("timeout_seconds", "addresses_only")
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_ONLY_FIELD_NUMBER: _ClassVar[int]
    timeout_seconds: float
    addresses_only: bool
    def __init__(self, timeout_seconds: _Optional[float] = ..., addresses_only: _Optional[bool] = ...) -> None: ...

class MemberReport(_message.Message):
    __slots__ = ("member", "reachable", "voter", "learner", "status", "client_addr", "unreachable_seconds")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDR_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    member: _raft_pb2.Member
    reachable: bool
    voter: bool
    learner: bool
    status: _raft_pb2.MemberStatus
    client_addr: str
    unreachable_seconds: float
    def __init__(self, member: _Optional[_Union[_raft_pb2.Member, _Mapping]] = ..., reachable: _Optional[bool] = ..., voter: _Optional[bool] = ..., learner: _Optional[bool] = ..., status: _Optional[_Union[_raft_pb2.MemberStatus, _Mapping]] = ..., client_addr: _Optional[str] = ..., unreachable_seconds: _Optional[float] = ...) -> None: ...

class ClusterStatusResponse(_message.Message):
    __slots__ = ("cluster_id", "leader_id", "term", "members", "configuration")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    leader_id: int
    term: int
    members: _containers.RepeatedCompositeFieldContainer[MemberReport]
    configuration: _raft_pb2.Configuration
    def __init__(self, cluster_id: _Optional[int] = ..., leader_id: _Optional[int] = ..., term: _Optional[int] = ..., members: _Optional[_Iterable[_Union[MemberReport, _Mapping]]] = ..., configuration: _Optional[_Union[_raft_pb2.Configuration, _Mapping]] = ...) -> None: ...

class AddServerRequest(_message.Message):
    __slots__ = ("name", "peer_addr", "learner", "start_later", "dry_run", "timeout_seconds", "incarnation", "reseed", "reseed_cluster_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDR_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    START_LATER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RESEED_FIELD_NUMBER: _ClassVar[int]
    RESEED_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    peer_addr: str
    learner: bool
    start_later: bool
    dry_run: bool
    timeout_seconds: float
    incarnation: int
    reseed: bool
    reseed_cluster_id: int
    def __init__(self, name: _Optional[str] = ..., peer_addr: _Optional[str] = ..., learner: _Optional[bool] = ..., start_later: _Optional[bool] = ..., dry_run: _Optional[bool] = ..., timeout_seconds: _Optional[float] = ..., incarnation: _Optional[int] = ..., reseed: _Optional[bool] = ..., reseed_cluster_id: _Optional[int] = ...) -> None: ...

class RemoveServerRequest(_message.Message):
    __slots__ = ("name", "force", "dry_run", "timeout_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    dry_run: bool
    timeout_seconds: float
    def __init__(self, name: _Optional[str] = ..., force: _Optional[bool] = ..., dry_run: _Optional[bool] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class ReplaceServerRequest(_message.Message):
    __slots__ = ("old", "name", "peer_addr", "start_later", "dry_run", "timeout_seconds")
    OLD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDR_FIELD_NUMBER: _ClassVar[int]
    START_LATER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    old: str
    name: str
    peer_addr: str
    start_later: bool
    dry_run: bool
    timeout_seconds: float
    def __init__(self, old: _Optional[str] = ..., name: _Optional[str] = ..., peer_addr: _Optional[str] = ..., start_later: _Optional[bool] = ..., dry_run: _Optional[bool] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class PromoteServerRequest(_message.Message):
    __slots__ = ("name", "dry_run", "timeout_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dry_run: bool
    timeout_seconds: float
    def __init__(self, name: _Optional[str] = ..., dry_run: _Optional[bool] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class MembershipResponse(_message.Message):
    __slots__ = ("cluster_id", "member", "index", "configuration", "before", "after", "refused", "hint")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    member: _raft_pb2.Member
    index: int
    configuration: _raft_pb2.Configuration
    before: Quorum
    after: Quorum
    refused: str
    hint: str
    def __init__(self, cluster_id: _Optional[int] = ..., member: _Optional[_Union[_raft_pb2.Member, _Mapping]] = ..., index: _Optional[int] = ..., configuration: _Optional[_Union[_raft_pb2.Configuration, _Mapping]] = ..., before: _Optional[_Union[Quorum, _Mapping]] = ..., after: _Optional[_Union[Quorum, _Mapping]] = ..., refused: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class Quorum(_message.Message):
    __slots__ = ("voters", "learners", "size", "tolerates", "live")
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TOLERATES_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    voters: _containers.RepeatedScalarFieldContainer[str]
    learners: _containers.RepeatedScalarFieldContainer[str]
    size: int
    tolerates: int
    live: int
    def __init__(self, voters: _Optional[_Iterable[str]] = ..., learners: _Optional[_Iterable[str]] = ..., size: _Optional[int] = ..., tolerates: _Optional[int] = ..., live: _Optional[int] = ...) -> None: ...

class TransferLeaderRequest(_message.Message):
    __slots__ = ("target", "timeout_seconds")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    target: str
    timeout_seconds: float
    def __init__(self, target: _Optional[str] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class TransferLeaderResponse(_message.Message):
    __slots__ = ("to", "term", "milliseconds")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    to: str
    term: int
    milliseconds: float
    def __init__(self, to: _Optional[str] = ..., term: _Optional[int] = ..., milliseconds: _Optional[float] = ..., **kwargs) -> None: ...

class TakeSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TakeSnapshotResponse(_message.Message):
    __slots__ = ("index", "term", "path", "size_bytes", "milliseconds", "name")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    path: str
    size_bytes: int
    milliseconds: float
    name: str
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., milliseconds: _Optional[float] = ..., name: _Optional[str] = ...) -> None: ...

class SaveSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SaveSnapshotPart(_message.Message):
    __slots__ = ("snapshot", "offset", "data")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    snapshot: TakeSnapshotResponse
    offset: int
    data: bytes
    def __init__(self, snapshot: _Optional[_Union[TakeSnapshotResponse, _Mapping]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
