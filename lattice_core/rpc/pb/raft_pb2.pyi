from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("cluster_id", "node_id", "to", "name", "client_addr", "peer_addr", "version", "protocol", "incarnation", "known", "member_at_index")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDR_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    MEMBER_AT_INDEX_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    node_id: int
    to: int
    name: str
    client_addr: str
    peer_addr: str
    version: str
    protocol: int
    incarnation: int
    known: _containers.RepeatedCompositeFieldContainer[Incarnation]
    member_at_index: int
    def __init__(self, cluster_id: _Optional[int] = ..., node_id: _Optional[int] = ..., to: _Optional[int] = ..., name: _Optional[str] = ..., client_addr: _Optional[str] = ..., peer_addr: _Optional[str] = ..., version: _Optional[str] = ..., protocol: _Optional[int] = ..., incarnation: _Optional[int] = ..., known: _Optional[_Iterable[_Union[Incarnation, _Mapping]]] = ..., member_at_index: _Optional[int] = ...) -> None: ...

class Incarnation(_message.Message):
    __slots__ = ("node_id", "incarnation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    incarnation: int
    def __init__(self, node_id: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("hello", "messages", "traces")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    traces: _containers.RepeatedCompositeFieldContainer[TracedEntry]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., traces: _Optional[_Iterable[_Union[TracedEntry, _Mapping]]] = ...) -> None: ...

class TracedEntry(_message.Message):
    __slots__ = ("index", "term", "traceparent")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    traceparent: str
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("id", "name", "peer_addr", "promotion")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDR_FIELD_NUMBER: _ClassVar[int]
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    peer_addr: str
    promotion: Promotion
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., peer_addr: _Optional[str] = ..., promotion: _Optional[_Union[Promotion, _Mapping]] = ...) -> None: ...

class Promotion(_message.Message):
    __slots__ = ("replaces",)
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    replaces: int
    def __init__(self, replaces: _Optional[int] = ...) -> None: ...

class Configuration(_message.Message):
    __slots__ = ("members", "voters", "voters_outgoing", "learners")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    VOTERS_OUTGOING_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    voters: _containers.RepeatedScalarFieldContainer[int]
    voters_outgoing: _containers.RepeatedScalarFieldContainer[int]
    learners: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., voters: _Optional[_Iterable[int]] = ..., voters_outgoing: _Optional[_Iterable[int]] = ..., learners: _Optional[_Iterable[int]] = ...) -> None: ...

class NoOp(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Entry(_message.Message):
    __slots__ = ("index", "term", "no_op", "command", "configuration")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    NO_OP_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    no_op: NoOp
    command: bytes
    configuration: Configuration
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., no_op: _Optional[_Union[NoOp, _Mapping]] = ..., command: _Optional[bytes] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ...) -> None: ...

class SnapshotMeta(_message.Message):
    __slots__ = ("last_included_index", "last_included_term", "configuration")
    LAST_INCLUDED_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INCLUDED_TERM_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    last_included_index: int
    last_included_term: int
    configuration: Configuration
    def __init__(self, last_included_index: _Optional[int] = ..., last_included_term: _Optional[int] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("sender", "to", "term", "pre_vote_request", "pre_vote_response", "vote_request", "vote_response", "append_entries", "append_success", "append_conflict", "heartbeat", "heartbeat_response", "install_snapshot", "timeout_now", "read_index_request", "read_index_response")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    APPEND_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    APPEND_CONFLICT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    INSTALL_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_REQUEST_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    sender: int
    to: int
    term: int
    pre_vote_request: PreVoteRequest
    pre_vote_response: PreVoteResponse
    vote_request: VoteRequest
    vote_response: VoteResponse
    append_entries: AppendEntries
    append_success: AppendSuccess
    append_conflict: AppendConflict
    heartbeat: Heartbeat
    heartbeat_response: HeartbeatResponse
    install_snapshot: InstallSnapshot
    timeout_now: TimeoutNow
    read_index_request: ReadIndexRequest
    read_index_response: ReadIndexResponse
    def __init__(self, sender: _Optional[int] = ..., to: _Optional[int] = ..., term: _Optional[int] = ..., pre_vote_request: _Optional[_Union[PreVoteRequest, _Mapping]] = ..., pre_vote_response: _Optional[_Union[PreVoteResponse, _Mapping]] = ..., vote_request: _Optional[_Union[VoteRequest, _Mapping]] = ..., vote_response: _Optional[_Union[VoteResponse, _Mapping]] = ..., append_entries: _Optional[_Union[AppendEntries, _Mapping]] = ..., append_success: _Optional[_Union[AppendSuccess, _Mapping]] = ..., append_conflict: _Optional[_Union[AppendConflict, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., heartbeat_response: _Optional[_Union[HeartbeatResponse, _Mapping]] = ..., install_snapshot: _Optional[_Union[InstallSnapshot, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ..., read_index_request: _Optional[_Union[ReadIndexRequest, _Mapping]] = ..., read_index_response: _Optional[_Union[ReadIndexResponse, _Mapping]] = ...) -> None: ...

class PreVoteRequest(_message.Message):
    __slots__ = ("last_log_index", "last_log_term")
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    last_log_index: int
    last_log_term: int
    def __init__(self, last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ...) -> None: ...

class PreVoteResponse(_message.Message):
    __slots__ = ("granted",)
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    def __init__(self, granted: _Optional[bool] = ...) -> None: ...

class VoteRequest(_message.Message):
    __slots__ = ("last_log_index", "last_log_term", "leadership_transfer")
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    LEADERSHIP_TRANSFER_FIELD_NUMBER: _ClassVar[int]
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool
    def __init__(self, last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ..., leadership_transfer: _Optional[bool] = ...) -> None: ...

class VoteResponse(_message.Message):
    __slots__ = ("granted",)
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    def __init__(self, granted: _Optional[bool] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("prev_log_index", "prev_log_term", "entries", "leader_commit", "round", "flight")
    PREV_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    prev_log_index: int
    prev_log_term: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    leader_commit: int
    round: int
    flight: int
    def __init__(self, prev_log_index: _Optional[int] = ..., prev_log_term: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., leader_commit: _Optional[int] = ..., round: _Optional[int] = ..., flight: _Optional[int] = ...) -> None: ...

class AppendSuccess(_message.Message):
    __slots__ = ("match_index", "round")
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    match_index: int
    round: int
    def __init__(self, match_index: _Optional[int] = ..., round: _Optional[int] = ...) -> None: ...

class AppendConflict(_message.Message):
    __slots__ = ("rejected_index", "conflict_term", "conflict_index", "round", "flight")
    REJECTED_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_TERM_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_INDEX_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    rejected_index: int
    conflict_term: int
    conflict_index: int
    round: int
    flight: int
    def __init__(self, rejected_index: _Optional[int] = ..., conflict_term: _Optional[int] = ..., conflict_index: _Optional[int] = ..., round: _Optional[int] = ..., flight: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("commit", "round")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    commit: int
    round: int
    def __init__(self, commit: _Optional[int] = ..., round: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: int
    def __init__(self, round: _Optional[int] = ...) -> None: ...

class InstallSnapshot(_message.Message):
    __slots__ = ("snapshot", "round")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    snapshot: SnapshotMeta
    round: int
    def __init__(self, snapshot: _Optional[_Union[SnapshotMeta, _Mapping]] = ..., round: _Optional[int] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadIndexRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    def __init__(self, request_id: _Optional[int] = ...) -> None: ...

class ReadIndexResponse(_message.Message):
    __slots__ = ("request_id", "read_index")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    read_index: int
    def __init__(self, request_id: _Optional[int] = ..., read_index: _Optional[int] = ...) -> None: ...

class SnapshotPart(_message.Message):
    __slots__ = ("hello", "offer", "offset", "data")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    offer: SnapshotOffer
    offset: int
    data: bytes
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., offer: _Optional[_Union[SnapshotOffer, _Mapping]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class SnapshotOffer(_message.Message):
    __slots__ = ("term", "round", "name", "size_bytes")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    term: int
    round: int
    name: str
    size_bytes: int
    def __init__(self, term: _Optional[int] = ..., round: _Optional[int] = ..., name: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class SnapshotAnswer(_message.Message):
    __slots__ = ("received_bytes", "delivered", "reason")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    delivered: bool
    reason: str
    def __init__(self, received_bytes: _Optional[int] = ..., delivered: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class StateHashRequest(_message.Message):
    __slots__ = ("cluster_id", "digest_version", "index", "state_hash", "asker_id", "no_room")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    ASKER_ID_FIELD_NUMBER: _ClassVar[int]
    NO_ROOM_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    digest_version: int
    index: int
    state_hash: int
    asker_id: int
    no_room: str
    def __init__(self, cluster_id: _Optional[int] = ..., digest_version: _Optional[int] = ..., index: _Optional[int] = ..., state_hash: _Optional[int] = ..., asker_id: _Optional[int] = ..., no_room: _Optional[str] = ...) -> None: ...

class StateHashResponse(_message.Message):
    __slots__ = ("cluster_id", "node_id", "state_hash")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    node_id: int
    state_hash: int
    def __init__(self, cluster_id: _Optional[int] = ..., node_id: _Optional[int] = ..., state_hash: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("cluster_id", "node_id", "name", "client_addr", "peer_addr", "role", "voter", "term", "leader_id", "commit_index", "applied_index", "last_index", "snapshot_index", "version", "revision", "state_hash", "incarnation", "configuration", "configuration_index", "log_bytes", "keys", "sessions", "uptime_seconds", "progress", "counters", "details")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDR_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDR_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_INDEX_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_INDEX_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    node_id: int
    name: str
    client_addr: str
    peer_addr: str
    role: str
    voter: bool
    term: int
    leader_id: int
    commit_index: int
    applied_index: int
    last_index: int
    snapshot_index: int
    version: str
    revision: int
    state_hash: int
    incarnation: int
    configuration: Configuration
    configuration_index: int
    log_bytes: int
    keys: int
    sessions: int
    uptime_seconds: float
    progress: _containers.RepeatedCompositeFieldContainer[PeerProgress]
    counters: NodeCounters
    details: NodeDetails
    def __init__(self, cluster_id: _Optional[int] = ..., node_id: _Optional[int] = ..., name: _Optional[str] = ..., client_addr: _Optional[str] = ..., peer_addr: _Optional[str] = ..., role: _Optional[str] = ..., voter: _Optional[bool] = ..., term: _Optional[int] = ..., leader_id: _Optional[int] = ..., commit_index: _Optional[int] = ..., applied_index: _Optional[int] = ..., last_index: _Optional[int] = ..., snapshot_index: _Optional[int] = ..., version: _Optional[str] = ..., revision: _Optional[int] = ..., state_hash: _Optional[int] = ..., incarnation: _Optional[int] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ..., configuration_index: _Optional[int] = ..., log_bytes: _Optional[int] = ..., keys: _Optional[int] = ..., sessions: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., progress: _Optional[_Iterable[_Union[PeerProgress, _Mapping]]] = ..., counters: _Optional[_Union[NodeCounters, _Mapping]] = ..., details: _Optional[_Union[NodeDetails, _Mapping]] = ...) -> None: ...

class NodeDetails(_message.Message):
    __slots__ = ("wall_clock_seconds", "heartbeat_ms", "election_timeout_min_ms", "election_timeout_max_ms", "open_descriptors", "descriptor_limit", "disk_bytes", "data_dir", "snapshot_age_seconds", "snapshot_bytes", "snapshots_failed", "certificates")
    WALL_CLOCK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    ELECTION_TIMEOUT_MIN_MS_FIELD_NUMBER: _ClassVar[int]
    ELECTION_TIMEOUT_MAX_MS_FIELD_NUMBER: _ClassVar[int]
    OPEN_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_FAILED_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    wall_clock_seconds: float
    heartbeat_ms: int
    election_timeout_min_ms: int
    election_timeout_max_ms: int
    open_descriptors: int
    descriptor_limit: int
    disk_bytes: int
    data_dir: str
    snapshot_age_seconds: float
    snapshot_bytes: int
    snapshots_failed: int
    certificates: _containers.RepeatedCompositeFieldContainer[CertificateDetails]
    def __init__(self, wall_clock_seconds: _Optional[float] = ..., heartbeat_ms: _Optional[int] = ..., election_timeout_min_ms: _Optional[int] = ..., election_timeout_max_ms: _Optional[int] = ..., open_descriptors: _Optional[int] = ..., descriptor_limit: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., data_dir: _Optional[str] = ..., snapshot_age_seconds: _Optional[float] = ..., snapshot_bytes: _Optional[int] = ..., snapshots_failed: _Optional[int] = ..., certificates: _Optional[_Iterable[_Union[CertificateDetails, _Mapping]]] = ...) -> None: ...

class CertificateDetails(_message.Message):
    __slots__ = ("port", "path", "not_before_seconds", "not_after_seconds")
    PORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    port: str
    path: str
    not_before_seconds: float
    not_after_seconds: float
    def __init__(self, port: _Optional[str] = ..., path: _Optional[str] = ..., not_before_seconds: _Optional[float] = ..., not_after_seconds: _Optional[float] = ...) -> None: ...

class NodeCounters(_message.Message):
    __slots__ = ("elections_started", "leader_changes", "write_operations", "write_batches_failed", "linearizable_reads", "lease_reads", "stale_reads", "read_batches_failed", "held_up", "fsync", "write_batches", "read_batches", "pending_write_bytes", "fsync_stalled_seconds", "disk_full", "disk_free_bytes", "memory_bytes", "cpu_seconds", "not_ready", "disk_used_bytes", "disk_quota_bytes", "no_room")
    ELECTIONS_STARTED_FIELD_NUMBER: _ClassVar[int]
    LEADER_CHANGES_FIELD_NUMBER: _ClassVar[int]
    WRITE_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    WRITE_BATCHES_FAILED_FIELD_NUMBER: _ClassVar[int]
    LINEARIZABLE_READS_FIELD_NUMBER: _ClassVar[int]
    LEASE_READS_FIELD_NUMBER: _ClassVar[int]
    STALE_READS_FIELD_NUMBER: _ClassVar[int]
    READ_BATCHES_FAILED_FIELD_NUMBER: _ClassVar[int]
    HELD_UP_FIELD_NUMBER: _ClassVar[int]
    FSYNC_FIELD_NUMBER: _ClassVar[int]
    WRITE_BATCHES_FIELD_NUMBER: _ClassVar[int]
    READ_BATCHES_FIELD_NUMBER: _ClassVar[int]
    PENDING_WRITE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FSYNC_STALLED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DISK_FULL_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    NO_ROOM_FIELD_NUMBER: _ClassVar[int]
    elections_started: int
    leader_changes: int
    write_operations: int
    write_batches_failed: int
    linearizable_reads: int
    lease_reads: int
    stale_reads: int
    read_batches_failed: int
    held_up: int
    fsync: Histogram
    write_batches: Histogram
    read_batches: Histogram
    pending_write_bytes: int
    fsync_stalled_seconds: float
    disk_full: bool
    disk_free_bytes: int
    memory_bytes: int
    cpu_seconds: float
    not_ready: str
    disk_used_bytes: int
    disk_quota_bytes: int
    no_room: str
    def __init__(self, elections_started: _Optional[int] = ..., leader_changes: _Optional[int] = ..., write_operations: _Optional[int] = ..., write_batches_failed: _Optional[int] = ..., linearizable_reads: _Optional[int] = ..., lease_reads: _Optional[int] = ..., stale_reads: _Optional[int] = ..., read_batches_failed: _Optional[int] = ..., held_up: _Optional[int] = ..., fsync: _Optional[_Union[Histogram, _Mapping]] = ..., write_batches: _Optional[_Union[Histogram, _Mapping]] = ..., read_batches: _Optional[_Union[Histogram, _Mapping]] = ..., pending_write_bytes: _Optional[int] = ..., fsync_stalled_seconds: _Optional[float] = ..., disk_full: _Optional[bool] = ..., disk_free_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., not_ready: _Optional[str] = ..., disk_used_bytes: _Optional[int] = ..., disk_quota_bytes: _Optional[int] = ..., no_room: _Optional[str] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("bounds", "counts", "total_seconds")
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    total_seconds: float
    def __init__(self, bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., total_seconds: _Optional[float] = ...) -> None: ...

class PeerProgress(_message.Message):
    __slots__ = ("node_id", "state", "match_index", "next_index", "seconds_since_heard", "snapshot_sent_bytes", "snapshot_bytes", "round_trip", "inflight_bytes")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_HEARD_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    INFLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    state: str
    match_index: int
    next_index: int
    seconds_since_heard: float
    snapshot_sent_bytes: int
    snapshot_bytes: int
    round_trip: Histogram
    inflight_bytes: int
    def __init__(self, node_id: _Optional[int] = ..., state: _Optional[str] = ..., match_index: _Optional[int] = ..., next_index: _Optional[int] = ..., seconds_since_heard: _Optional[float] = ..., snapshot_sent_bytes: _Optional[int] = ..., snapshot_bytes: _Optional[int] = ..., round_trip: _Optional[_Union[Histogram, _Mapping]] = ..., inflight_bytes: _Optional[int] = ...) -> None: ...
