"""Who may speak to this member, and what members told it of themselves.

Before consensus sees a single message, both ends of a stream say hello, and each checks the other
(SAFETY 47): same cluster, same protocol, the one who was meant, a member id that fits the name the
configuration gives it, and an **incarnation** that fits the id. With TLS, the name must also be the one that the
connection's certificate proves (:mod:`lattice_core.rpc.credentials`).

The incarnation is a number drawn when a data directory is made. The first one seen for a member id is
bound, durably, and passed on in every hello. Another one later means that the directory was lost or
replaced under its old id (SAFETY 22): such a server has forgotten votes and acknowledgements that others
count on, and must come back as a new member.

Who was removed while it was down still has a configuration that names it, and asks for votes that nobody gives.
So a hello says up to which index its sender knows itself to be a member, and whoever knows a *later, committed*
configuration without it answers REMOVED. Ids are never used twice, so that is certain; a member that merely lags
behind, and has not heard of a new one yet, knows no later configuration and says nothing of the kind.

Limits: a directory that is lost before anybody but one member met it, while that one member is cut off,
is not recognised. Such a loss is a second failure beside the first, which three members do not survive.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from lattice_core.raft.types import Configuration, Member, NodeId
from lattice_core.rpc.credentials import PLAIN, PeerSecurity
from lattice_core.rpc.pb import raft_pb2

PROTOCOL = 1
"""Raised when the wire changes so that older members would misunderstand it."""

log = logging.getLogger("lattice.rpc")

_REPEAT_LOG_SECONDS = 60.0
_MAX_REFUSAL_LINES = 256


class Refusal(enum.Enum):
    """Why a stream was refused; the value travels in the trailing metadata ``lattice-refusal``."""

    MALFORMED = "malformed"
    CLUSTER = "cluster"
    PROTOCOL = "protocol"
    ADDRESSEE = "addressee"
    MEMBER = "member"
    INCARNATION = "incarnation"
    """Who is refused comes with another data directory than the one known: it must stop."""
    SELF = "self"
    """Who refuses has just learned that of itself; the one it refuses has done nothing wrong."""
    CERTIFICATE = "certificate"
    """The name claimed is not the one that the certificate proves."""
    REMOVED = "removed"
    """Who is refused is no member any more: it must stop, for good."""


REFUSAL_METADATA_KEY = "lattice-refusal"


class HelloRefused(Exception):
    """A hello that does not fit. ``kind`` is for programs, the message for the log."""

    def __init__(self, kind: Refusal, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """What this member says of itself."""

    cluster_id: int
    node_id: NodeId
    name: str
    client_addr: str
    peer_addr: str
    version: str
    incarnation: int
    joined_index: int = 0
    """The index of a committed configuration that made it a member; 0: it is one of the first."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a peer said of itself in its latest hello."""

    node_id: NodeId
    name: str
    client_addr: str
    peer_addr: str
    version: str
    incarnation: int


class IncarnationBook(Protocol):
    """The durable memory of which incarnation belongs to which member id."""

    def known(self) -> Mapping[NodeId, int]:
        """All bindings."""

    async def bind(self, bindings: Mapping[NodeId, int]) -> None:
        """Add those ids that are not bound yet; durable on return. Bound ones stay as they are."""


class PeerDirectory:
    """Checks hellos and remembers what they said. Not thread-safe: lives on the event loop."""

    def __init__(
        self,
        local: LocalIdentity,
        book: IncarnationBook,
        configuration: Callable[[], Configuration],
        committed: Callable[[], tuple[int, Configuration]],
        on_disowned: Callable[[str], None],
        on_removed: Callable[[str], None],
        routes: Mapping[str, str] | None = None,
        security: PeerSecurity = PLAIN,
    ) -> None:
        """``configuration`` is the one in force, ``committed`` the newest committed one and its index.

        ``on_disowned`` is called with the reason when a member holds another incarnation for *our* id,
        ``on_removed`` when one knows that this member was removed.

        ``routes``: where to dial members of these names, if not at their peer address. ``security``: how, and what
        proves who answers or dials.
        """
        self.local = local
        self.security = security
        self._book = book
        self._configuration = configuration
        self._committed = committed
        self._on_disowned = on_disowned
        self._on_removed = on_removed
        self._routes = dict(routes or {})
        self._peers: dict[NodeId, PeerInfo] = {}
        self._logged: dict[str, float] = {}

    def get(self, node_id: NodeId) -> PeerInfo | None:
        return self._peers.get(node_id)

    def name_of(self, node_id: NodeId) -> str:
        """The best name there is: the configuration's, the peer's own, or the id."""
        member = self._configuration().member(node_id)
        if member is not None:
            return member.name
        peer = self._peers.get(node_id)
        return peer.name if peer is not None else f"{node_id:016x}"

    def dial_addr(self, name: str, peer_addr: str) -> str:
        """Where this node dials the server of this name. Who answers there is checked, as everywhere."""
        return self._routes.get(name, peer_addr)

    def dial_addr_of(self, member: Member) -> str:
        return self.dial_addr(member.name, member.peer_addr)

    def client_addr_of(self, node_id: NodeId) -> str:
        """Where clients reach that member; empty if it has not said so yet."""
        if node_id == self.local.node_id:
            return self.local.client_addr
        peer = self._peers.get(node_id)
        return peer.client_addr if peer is not None else ""

    def known_incarnation(self, node_id: NodeId) -> int | None:
        """Of the data directory that belongs to that id; None: nobody has come with one yet."""
        return self._book.known().get(node_id)

    async def bind(self, node_id: NodeId, incarnation: int) -> None:
        """Let that id belong to the directory of that incarnation from now on; durable on return."""
        await self._book.bind({node_id: incarnation})

    def _member_at_index(self) -> int:
        at, committed = self._committed()
        return max(self.local.joined_index, at if self.local.node_id in committed else 0)

    def hello(self, to: NodeId) -> raft_pb2.Hello:
        local = self.local
        return raft_pb2.Hello(
            cluster_id=local.cluster_id,
            node_id=local.node_id,
            to=to,
            name=local.name,
            client_addr=local.client_addr,
            peer_addr=local.peer_addr,
            version=local.version,
            protocol=PROTOCOL,
            incarnation=local.incarnation,
            known=[
                raft_pb2.Incarnation(node_id=node_id, incarnation=incarnation)
                for node_id, incarnation in sorted(self._book.known().items())
            ],
            member_at_index=self._member_at_index(),
        )

    async def admit(
        self, hello: raft_pb2.Hello, *, expected: NodeId | None, proven: frozenset[str] | None = None
    ) -> PeerInfo:
        """Check a hello, bind its incarnation, remember the peer. Raises HelloRefused; then nothing changed.

        ``expected`` is whom we dialled; None where we were dialled. ``proven``: the members' names that the
        certificate of the connection is for; None where no certificate is asked for, or gRPC has compared it already.
        """
        if proven is not None and hello.name not in proven:
            whose = ", ".join(f"member {name}" for name in sorted(proven)) or "no member"
            raise HelloRefused(
                Refusal.CERTIFICATE,
                f"who says to be {hello.name or 'nobody'} ({hello.node_id:016x} at {hello.peer_addr or 'no address'}) "
                f"has shown a certificate for {whose}",
            )
        self._check(hello, expected)
        known = self._book.known()
        fresh = {hello.node_id: hello.incarnation}
        for binding in hello.known:
            fresh.setdefault(binding.node_id, binding.incarnation)
        # Our own id among them was checked; binding it as well makes a later self of ours recognisable.
        fresh = {node_id: number for node_id, number in fresh.items() if node_id not in known}
        if fresh:
            await self._book.bind(fresh)
            self._check(hello, expected)  # somebody else may have bound the id while we waited for the disk
        info = PeerInfo(
            node_id=hello.node_id,
            name=hello.name,
            client_addr=hello.client_addr,
            peer_addr=hello.peer_addr,
            version=hello.version,
            incarnation=hello.incarnation,
        )
        self._peers[hello.node_id] = info
        return info

    def _check(self, hello: raft_pb2.Hello, expected: NodeId | None) -> None:
        local = self.local
        speaker = f"{hello.name or 'somebody'} ({hello.node_id:016x} at {hello.peer_addr or 'no address'})"
        if hello.cluster_id != local.cluster_id:
            raise HelloRefused(
                Refusal.CLUSTER,
                f"{speaker} belongs to cluster {hello.cluster_id:016x}, this member to {local.cluster_id:016x}",
            )
        if hello.protocol != PROTOCOL:
            raise HelloRefused(Refusal.PROTOCOL, f"{speaker} speaks protocol {hello.protocol}, this member {PROTOCOL}")
        if hello.to != local.node_id:
            raise HelloRefused(
                Refusal.ADDRESSEE,
                f"{speaker} wants to speak to {hello.to:016x}, this member is {local.node_id:016x} ({local.name})",
            )
        if not hello.node_id or hello.node_id == local.node_id:
            raise HelloRefused(Refusal.MEMBER, f"{speaker} claims an id that cannot be its own")
        if expected is not None and hello.node_id != expected:
            raise HelloRefused(Refusal.MEMBER, f"{speaker} answered where member {expected:016x} should be")
        at, committed = self._committed()
        # Not where we dialled: a leader that reaches for somebody who is leaving wants to tell it so itself.
        if expected is None and at > hello.member_at_index and hello.node_id not in committed:
            raise HelloRefused(
                Refusal.REMOVED,
                f"{hello.name} was removed from the cluster: it is in the configuration of index "
                f"{hello.member_at_index}, and no longer in that of index {at}",
            )
        member = self._configuration().member(hello.node_id)
        if member is not None and member.name != hello.name:
            raise HelloRefused(
                Refusal.MEMBER,
                f"{speaker} has the id of member {member.name} at {member.peer_addr}",
            )
        bound = self._book.known().get(hello.node_id)
        if bound is not None and bound != hello.incarnation:
            raise HelloRefused(
                Refusal.INCARNATION,
                f"{speaker} comes back with another data directory (incarnation {hello.incarnation:016x}, known is "
                f"{bound:016x}): what it had promised is lost; "
                f"run: lattice cluster remove-server {hello.name}, then let it join as a new member",
            )
        for binding in hello.known:
            if binding.node_id == local.node_id and binding.incarnation != local.incarnation:
                reason = disowned_text(local.name, local.incarnation, f"{hello.name} knows {binding.incarnation:016x}")
                self._on_disowned(reason)
                raise HelloRefused(Refusal.SELF, reason)

    def refused_by(self, peer: NodeId, kind: str, text: str) -> None:
        """The member ``peer`` has refused our hello."""
        self.log_refusal(f"{self.name_of(peer)} refused this member: {text}")
        if kind == Refusal.INCARNATION.value:
            self._on_disowned(
                disowned_text(self.local.name, self.local.incarnation, self.name_of(peer) + " refused it")
            )
        elif kind == Refusal.REMOVED.value:
            self._on_removed(f"{self.name_of(peer)} says: {text}")

    def log_refusal(self, line: str) -> None:
        """Log a refusal; the same one again at most once a minute, for its cause keeps retrying."""
        now = time.monotonic()
        if now - self._logged.get(line, -_REPEAT_LOG_SECONDS) < _REPEAT_LOG_SECONDS:
            return
        if len(self._logged) >= _MAX_REFUSAL_LINES:
            self._logged.clear()
        self._logged[line] = now
        log.warning("%s", line)


def disowned_text(name: str, incarnation: int, what: str) -> str:
    """Why a member whose data directory is not the one the cluster knows has to stop."""
    return (
        f"this data directory (incarnation {incarnation:016x}) is not the one the cluster knows for {name}: {what}. "
        f"A lost directory cannot come back under its old identity; "
        f"run: lattice cluster remove-server {name}, then join again with an empty data directory"
    )
