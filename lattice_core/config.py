"""A node's settings: frozen, with units in the names, validated once, here.

Where the values come from (flags over LATTICE_* variables over a TOML file over what the data directory
knows) is the command line's business; this module only says what a valid configuration is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lattice_core.addresses import parse_addr
from lattice_core.errors import ConfigurationError
from lattice_core.raft.config import MILLISECOND_NS, RaftConfig
from lattice_core.tls import require_pair

DEFAULT_CLIENT_ADDR = "127.0.0.1:7400"
DEFAULT_PEER_ADDR = "127.0.0.1:7500"
DEFAULT_DATA_DIR = "./lattice-data"
DEFAULT_NAME = "n1"
MAX_NAME_CHARS = 64
MAX_KEY_BYTES = 4096
MAX_VALUE_BYTES = 1 << 20
MAX_BATCH_BYTES = 2 << 20
MAX_BATCH_OPS = 4096
MAX_TXN_OPS = 1024
"""The largest that a server may take, and by default does: kv/commands.py and kv/txn.py say why. Repeated here, where
nothing of the state machine is imported; a test compares them."""

MIN_QUOTA_SEGMENTS = 4
"""One that is written to, and two generations of snapshots with the log between them."""

MIN_AUTO_REMOVE_SECONDS = 5.0
"""Ten elections: whoever is away for less may be restarting."""


def validate_name(name: str) -> None:
    """A member's name: 1 to 64 letters, digits, dots, dashes, underscores. Raises ConfigurationError."""
    allowed = all(character.isascii() and (character.isalnum() or character in "._-") for character in name)
    if not name or len(name) > MAX_NAME_CHARS or not allowed:
        raise ConfigurationError(
            f"member name {name!r} is not valid: 1 to {MAX_NAME_CHARS} letters, digits, dots, dashes or underscores"
        )


def parse_initial_cluster(text: str) -> dict[str, str]:
    """``n1=H:P,n2=H:P`` as {name: peer address}, in the order given. Raises ConfigurationError."""
    members: dict[str, str] = {}
    for part in text.split(","):
        name, separator, addr = part.strip().partition("=")
        if not separator:
            raise ConfigurationError(
                f"--initial-cluster: {part.strip()!r} is not NAME=HOST:PORT",
                hint="for example n1=127.0.0.1:7501",
            )
        validate_name(name)
        parse_addr(addr, what=f"--initial-cluster: the peer address of {name}")
        if name in members:
            raise ConfigurationError(f"--initial-cluster names {name} twice: {members[name]} and {addr}")
        if addr in members.values():
            raise ConfigurationError(f"--initial-cluster uses the address {addr} twice")
        members[name] = addr
    return members


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything one node needs to know to start."""

    name: str = DEFAULT_NAME
    data_dir: str = DEFAULT_DATA_DIR
    client_addr: str = DEFAULT_CLIENT_ADDR
    peer_addr: str = DEFAULT_PEER_ADDR
    initial_cluster: dict[str, str] = field(default_factory=dict)
    """Name to peer address for a static bootstrap; empty: a cluster of this node alone."""

    join: str = ""
    """Client addresses of members of a running cluster, ``H:P[,H:P]``, to join when the data directory is made."""

    learner: bool = False
    """Join as a learner that stays one: a read replica, which never votes."""

    reseed: str = ""
    """Client addresses of healthy members, ``H:P[,H:P]``: if the data directory is damaged or lost, come back as a new
    member in the old one's place, with the leader's state. If it is whole, this changes nothing."""

    token_file: str = ""
    """Where the token is that proves an administrator's consent to ``join`` and ``reseed``, if the cluster's access
    control is on."""

    auto_remove_after_seconds: float = 0.0
    """The leader removes a member that has not answered for so long, while all the others do. 0: it never does."""

    peer_routes: dict[str, str] = field(default_factory=dict)
    """Name to the address where this node dials that member, in place of the peer address that the cluster knows:
    through a tunnel, an address translation, or a proxy that breaks things on purpose (lattice chaos)."""

    tls_cert: str = ""
    """The certificate (PEM) that clients are shown; with it, the client port speaks TLS and nothing else."""

    tls_key: str = ""
    """Its private key."""

    tls_client_ca: str = ""
    """Whose certificates clients must have; empty: none is asked of them."""

    tls_ca: str = ""
    """Which authorities certify members' client ports; needed to join a cluster that has TLS there. This node then
    shows tls_cert as its own."""

    peer_tls_cert: str = ""
    """The certificate of this member, by its name, for connections with other members, in both directions. With it
    the peer port speaks mutual TLS and nothing else; all members have to have it, or none."""

    peer_tls_key: str = ""
    peer_tls_ca: str = ""
    """Which authorities certify members."""

    heartbeat_ms: int = 100
    """How often the leader lets the others hear from it. The same on every member, like the two below."""

    election_timeout_min_ms: int = 500
    """A member that has not heard from a leader for this long, or longer by chance, asks for votes: the least. At least
    five heartbeats, and ten times a slow fsync."""

    election_timeout_max_ms: int = 1000
    """The most. The further apart, the fewer elections in which nobody wins."""

    segment_bytes: int = 16 << 20
    """One preallocated file of the write-ahead log."""

    snapshot_entries: int = 1000
    """Take a snapshot when so many entries were applied since the last; not before the log has grown by as much as
    that snapshot's size, so that a big state is not written again for little."""

    snapshot_log_bytes: int = 32 << 20
    """Or when the log has grown by so much since, however few entries it was (under load one may have 2 MiB): what
    the log holds is in memory and on disk. The size of the last snapshot counts here too."""

    snapshot_keep_entries: int = 1000
    """Entries before a snapshot that stay in memory for followers that are a little behind: a member that is
    restarted under load misses about this many, and should need no snapshot for it."""

    max_pending_bytes: int = 64 << 20
    """Client writes accepted and not yet answered; beyond it callers get RESOURCE_EXHAUSTED."""

    max_entry_bytes: int = 2 << 20
    """How much of what is waiting one log entry gathers. Bounds the time that one apply or append takes."""

    max_key_bytes: int = MAX_KEY_BYTES
    """The longest key that this member takes while it leads. This and the next four can only be made smaller."""

    max_value_bytes: int = MAX_VALUE_BYTES
    """The largest value."""

    max_batch_bytes: int = MAX_BATCH_BYTES
    """The largest batch of operations, as it is sent."""

    max_batch_ops: int = MAX_BATCH_OPS
    """Operations in one batch, those of transactions included."""

    max_txn_ops: int = MAX_TXN_OPS
    """Comparisons, and operations in each of its two lists, of one transaction."""

    max_stream_requests: int = 1024
    """Taken from one client stream and not answered; the server reads no further meanwhile."""

    max_stream_bytes: int = 16 << 20
    """The same in bytes."""

    max_answer_bytes: int = 256 << 20
    """Answers made and not yet taken by their clients, all together; beyond it reads get RESOURCE_EXHAUSTED."""

    max_client_calls: int = 10_000
    """Streams and unary calls under way from all clients; more are answered RESOURCE_EXHAUSTED."""

    max_peer_calls: int = 256
    """On the peer port: a stream and a few status calls for each member, with room for those being replaced."""

    max_client_connections: int = 16_384
    """Connections open on the client port; more are closed as they come. Fewer, if the process may not have so many
    descriptors."""

    max_peer_connections: int = 512
    """The same on the peer port."""

    accept_backlog: int = 64
    """Connections that wait at a port to be accepted. Others try again by themselves, a second later: more are for
    crowds of clients that come at once, fewer for what members say to each other meanwhile."""

    handshake_timeout_ms: int = 5000
    """How long a connection may take to begin to speak the protocol, TLS included, before it is closed."""

    idle_connection_seconds: int = 300
    """A connection without a call for so long is closed; clients make another when they need one. 0: never."""

    keepalive_ms: int = 2000
    """After so long without a sound from the other end it is asked whether it is there, and has as long to answer."""

    disk_quota_bytes: int = 0
    """What the log and the snapshots may take up on the disk; beyond it writes get RESOURCE_EXHAUSTED while deletes go
    through, until there is room again. 0: no quota."""

    disk_reserve_bytes: int = 32 << 20
    """The same where the disk itself has less than this left: kept for deletes, compaction, and term and vote."""

    read_mode: str = "read-index"
    """How linearizable reads are confirmed. ``read-index``: by a round of the leader's with a majority, which one
    read shares with all that wait. ``lease``: by the leader alone while it holds a lease, which is quicker, and right
    as long as no member's clock runs 5 % faster than another's; elsewhere and without a lease as ``read-index``."""

    history_revisions: int = 10_000
    """How many changes of the past are kept, for reads at a revision."""

    history_bytes: int = 64 << 20
    """And how large they may be together; whichever is reached first counts."""

    drain_seconds: float = 5.0
    """After SIGTERM: how long to wait for a successor and for requests under way."""

    metrics_addr: str = ""
    """Where /metrics, /healthz and /readyz are served over HTTP; empty: nowhere."""

    trace: bool = False
    """Take part in OpenTelemetry traces; everything about them is set by the standard `OTEL_*` variables."""

    log_level: str = "info"
    """The least severe events that are logged, on stderr."""

    log_format: str = "text"
    """A line for each event: ``text`` for people, ``json`` for machines."""

    def validate(self) -> None:
        """Raise ConfigurationError, one line, naming both values where two clash."""
        validate_name(self.name)
        client = parse_addr(self.client_addr, what="client address")
        peer = parse_addr(self.peer_addr, what="peer address")
        if client == peer:
            raise ConfigurationError(
                f"client and peer address are both {self.client_addr}: two listeners need two ports"
            )
        if self.metrics_addr:
            metrics = parse_addr(self.metrics_addr, what="metrics address")
            for what, other in (("client", client), ("peer", peer)):
                if metrics == other:
                    raise ConfigurationError(
                        f"{what} and metrics address are both {self.metrics_addr}: two listeners need two ports"
                    )
        if self.initial_cluster:
            known = self.initial_cluster.get(self.name)
            if known is None:
                raise ConfigurationError(
                    f"--initial-cluster does not name this node: {self.name} is not among "
                    f"{', '.join(self.initial_cluster)}"
                )
            if known != self.peer_addr:
                raise ConfigurationError(
                    f"--initial-cluster gives {self.name} the peer address {known}, --peer-addr says {self.peer_addr}"
                )
        if self.join:
            if self.initial_cluster:
                raise ConfigurationError(
                    f"--join {self.join} and --initial-cluster {','.join(self.initial_cluster)}: a node either joins a "
                    "running cluster or is one of the first of a new one",
                    hint="leave one of them out",
                )
            for addr in self.join_addrs:
                if parse_addr(addr, what="--join") in (client, peer):
                    raise ConfigurationError(
                        f"--join {addr} is this node's own address",
                        hint="give the client address of a member that runs",
                    )
        elif self.learner and not self.reseed:
            raise ConfigurationError("--learner says how to join a cluster, and there is no --join")
        for addr in self.reseed.split(",") if self.reseed else ():
            if parse_addr(addr.strip(), what="--reseed") in (client, peer):
                raise ConfigurationError(
                    f"--reseed {addr} is this node's own address",
                    hint="give the client address of a healthy member",
                )
        for name in ("auto_remove_after_seconds", "drain_seconds"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigurationError(f"{name} is {getattr(self, name)}, not a number of seconds")
        self._validate_tls()
        if self.auto_remove_after_seconds and self.auto_remove_after_seconds < MIN_AUTO_REMOVE_SECONDS:
            raise ConfigurationError(
                f"auto_remove_after_seconds is {self.auto_remove_after_seconds:g}, must be 0 (off) or at least "
                f"{MIN_AUTO_REMOVE_SECONDS:g}: a restart is no reason to lose a member"
            )
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ConfigurationError(f"log level {self.log_level!r} is not debug, info, warning or error")
        if self.log_format not in ("text", "json"):
            raise ConfigurationError(f"log format {self.log_format!r} is not text or json")
        if self.read_mode not in ("read-index", "lease"):
            raise ConfigurationError(
                f"read mode {self.read_mode!r} is not read-index or lease", hint='read_mode = "read-index"'
            )
        for name, smallest in (
            ("segment_bytes", 64 << 10),
            ("snapshot_entries", 1),
            ("snapshot_log_bytes", 64 << 10),
            ("snapshot_keep_entries", 0),
            ("max_pending_bytes", 1 << 20),
            ("max_entry_bytes", 1 << 10),
            ("max_key_bytes", 1),
            ("max_value_bytes", 0),
            ("max_batch_bytes", 1 << 10),
            ("max_batch_ops", 1),
            ("max_txn_ops", 1),
            ("max_stream_requests", 1),
            ("max_stream_bytes", 64 << 10),
            ("max_answer_bytes", 4 << 20),
            ("max_client_calls", 16),
            ("max_peer_calls", 16),
            ("max_client_connections", 16),
            ("max_peer_connections", 16),
            ("accept_backlog", 1),
            ("handshake_timeout_ms", 100),
            ("idle_connection_seconds", 0),
            ("keepalive_ms", 500),
            ("disk_quota_bytes", 0),
            ("disk_reserve_bytes", 0),
            ("history_revisions", 1),
            ("history_bytes", 1 << 10),
        ):
            if getattr(self, name) < smallest:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, must be at least {smallest}")
        for name, largest in (
            ("max_key_bytes", MAX_KEY_BYTES),
            ("max_value_bytes", MAX_VALUE_BYTES),
            ("max_batch_bytes", MAX_BATCH_BYTES),
            ("max_batch_ops", MAX_BATCH_OPS),
            ("max_txn_ops", MAX_TXN_OPS),
        ):
            if getattr(self, name) > largest:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}, must be at most {largest}: clients count on that"
                )
        if 0 < self.disk_quota_bytes < MIN_QUOTA_SEGMENTS * self.segment_bytes:
            raise ConfigurationError(
                f"disk_quota_bytes is {self.disk_quota_bytes}, which is less than {MIN_QUOTA_SEGMENTS} segments of the "
                f"log (segment_bytes is {self.segment_bytes})",
                hint="give it more room, or make segment_bytes smaller",
            )
        if self.drain_seconds < 0:
            raise ConfigurationError(f"drain_seconds is {self.drain_seconds}, must not be negative")
        try:
            self.raft().validate()
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def _validate_tls(self) -> None:
        require_pair(self.tls_cert, self.tls_key)
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigurationError(
                f"--tls-client-ca {self.tls_client_ca} needs --tls-cert and --tls-key: clients show certificates only "
                "to a port that has one",
                hint="lattice certs node NAME",
            )
        peer = {
            "--peer-tls-cert": self.peer_tls_cert,
            "--peer-tls-key": self.peer_tls_key,
            "--peer-tls-ca": self.peer_tls_ca,
        }
        missing = [option for option, path in peer.items() if not path]
        if missing and len(missing) < len(peer):
            given = next(f"{option} {path}" for option, path in peer.items() if path)
            raise ConfigurationError(
                f"{given} needs {' and '.join(missing)} too: members show each other certificates, both ways",
                hint="lattice certs node NAME",
            )

    @property
    def join_addrs(self) -> tuple[str, ...]:
        """Whom to ask to be let in: ``reseed``, else ``join``, as distinct addresses, in order."""
        return tuple(dict.fromkeys(addr.strip() for addr in (self.reseed or self.join).split(",")))

    def raft(self) -> RaftConfig:
        """The core's part of the settings."""
        return RaftConfig(
            heartbeat_interval_ns=self.heartbeat_ms * MILLISECOND_NS,
            election_timeout_min_ns=self.election_timeout_min_ms * MILLISECOND_NS,
            election_timeout_max_ns=self.election_timeout_max_ms * MILLISECOND_NS,
        )
