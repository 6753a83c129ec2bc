"""Raft messages to and from their wire form, one for one (lattice_core/raft/messages.py, proto raft.proto).

What arrives is somebody else's bytes: :func:`from_pb` checks everything that the core's types promise (a
body that is set, an entry with a payload, a configuration that is one) and raises :class:`MalformedMessage`
before the core sees any of it (SAFETY 48). It never repairs and never guesses a default: absent is refused,
except where the message says that absence means None. Whether a well-formed message makes sense (entries
that follow each other, terms that do not fall) is the core's to judge, which refuses it in the same way.

Sizes are the transport's business (gRPC refuses a message above its limit before it is parsed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import DecodeError

from lattice_core.raft.messages import (
    AppendConflict,
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.types import Configuration, Entry, Member, Promotion, SnapshotMeta
from lattice_core.rpc.pb import raft_pb2

MESSAGE_OVERHEAD_BYTES = 96
"""What a message without entries is charged in queues that are bounded in bytes: more than any takes."""


class MalformedMessage(Exception):
    """Bytes from a peer that are not a message of this protocol. Nothing was changed; drop the stream."""


# -- to the wire ----------------------------------------------------------------------------------


def to_pb(message: Message) -> raft_pb2.Message:
    """The wire form. Raises KeyError for a class that the wire does not know (a programming error)."""
    wire = raft_pb2.Message(sender=message.sender, to=message.to, term=message.term)
    _ENCODERS[type(message)](message, wire)
    return wire


def size_estimate(message: Message) -> int:
    """About how many bytes ``message`` takes on the wire; never less than what its entries' payloads take."""
    if type(message) is AppendEntries:
        size = MESSAGE_OVERHEAD_BYTES
        for entry in message.entries:
            size += entry.size_bytes
        return size
    return MESSAGE_OVERHEAD_BYTES


def configuration_to_pb(configuration: Configuration) -> raft_pb2.Configuration:
    return raft_pb2.Configuration(
        members=[member_to_pb(member) for member in configuration.members],
        voters=sorted(configuration.voters),
        voters_outgoing=sorted(configuration.voters_outgoing),
        learners=sorted(configuration.learners),
    )


def member_to_pb(member: Member) -> raft_pb2.Member:
    wire = raft_pb2.Member(id=member.id, name=member.name, peer_addr=member.peer_addr)
    if member.promotion is not None:
        wire.promotion.CopyFrom(raft_pb2.Promotion(replaces=member.promotion.replaces))
    return wire


def member_from_pb(wire: raft_pb2.Member) -> Member:
    promotion = None
    if wire.HasField("promotion"):
        promotion = Promotion(wire.promotion.replaces if wire.promotion.HasField("replaces") else None)
    return Member(wire.id, wire.name, wire.peer_addr, promotion)


def _entry_to_pb(entry: Entry) -> raft_pb2.Entry:
    payload = entry.payload
    if type(payload) is bytes:
        return raft_pb2.Entry(index=entry.index, term=entry.term, command=payload)
    if isinstance(payload, Configuration):
        return raft_pb2.Entry(index=entry.index, term=entry.term, configuration=configuration_to_pb(payload))
    if payload is None:
        return raft_pb2.Entry(index=entry.index, term=entry.term, no_op=raft_pb2.NoOp())
    return raft_pb2.Entry(index=entry.index, term=entry.term, command=bytes(payload))


def _encode_pre_vote_request(message: PreVoteRequest, wire: raft_pb2.Message) -> None:
    wire.pre_vote_request.last_log_index = message.last_log_index
    wire.pre_vote_request.last_log_term = message.last_log_term
    wire.pre_vote_request.SetInParent()


def _encode_pre_vote_response(message: PreVoteResponse, wire: raft_pb2.Message) -> None:
    wire.pre_vote_response.granted = message.granted
    wire.pre_vote_response.SetInParent()


def _encode_vote_request(message: VoteRequest, wire: raft_pb2.Message) -> None:
    wire.vote_request.last_log_index = message.last_log_index
    wire.vote_request.last_log_term = message.last_log_term
    wire.vote_request.leadership_transfer = message.leadership_transfer
    wire.vote_request.SetInParent()


def _encode_vote_response(message: VoteResponse, wire: raft_pb2.Message) -> None:
    wire.vote_response.granted = message.granted
    wire.vote_response.SetInParent()


def _encode_append_entries(message: AppendEntries, wire: raft_pb2.Message) -> None:
    body = wire.append_entries
    body.SetInParent()
    body.prev_log_index = message.prev_log_index
    body.prev_log_term = message.prev_log_term
    body.leader_commit = message.leader_commit
    body.round = message.round
    body.flight = message.flight
    if message.entries:
        body.entries.extend([_entry_to_pb(entry) for entry in message.entries])


def _encode_append_success(message: AppendSuccess, wire: raft_pb2.Message) -> None:
    wire.append_success.match_index = message.match_index
    wire.append_success.round = message.round
    wire.append_success.SetInParent()


def _encode_append_conflict(message: AppendConflict, wire: raft_pb2.Message) -> None:
    body = wire.append_conflict
    body.SetInParent()
    body.rejected_index = message.rejected_index
    if message.conflict_term is not None:
        body.conflict_term = message.conflict_term
    body.conflict_index = message.conflict_index
    body.round = message.round
    body.flight = message.flight


def _encode_heartbeat(message: Heartbeat, wire: raft_pb2.Message) -> None:
    wire.heartbeat.commit = message.commit
    wire.heartbeat.round = message.round
    wire.heartbeat.SetInParent()


def _encode_heartbeat_response(message: HeartbeatResponse, wire: raft_pb2.Message) -> None:
    wire.heartbeat_response.round = message.round
    wire.heartbeat_response.SetInParent()


def _encode_install_snapshot(message: InstallSnapshot, wire: raft_pb2.Message) -> None:
    body = wire.install_snapshot
    body.snapshot.last_included_index = message.snapshot.last_included_index
    body.snapshot.last_included_term = message.snapshot.last_included_term
    body.snapshot.configuration.CopyFrom(configuration_to_pb(message.snapshot.configuration))
    body.round = message.round


def _encode_timeout_now(message: TimeoutNow, wire: raft_pb2.Message) -> None:
    wire.timeout_now.SetInParent()


def _encode_read_index_request(message: ReadIndexRequest, wire: raft_pb2.Message) -> None:
    wire.read_index_request.request_id = message.request_id
    wire.read_index_request.SetInParent()


def _encode_read_index_response(message: ReadIndexResponse, wire: raft_pb2.Message) -> None:
    body = wire.read_index_response
    body.SetInParent()
    body.request_id = message.request_id
    if message.read_index is not None:
        body.read_index = message.read_index


_ENCODERS: dict[type, Callable[[Any, raft_pb2.Message], None]] = {
    PreVoteRequest: _encode_pre_vote_request,
    PreVoteResponse: _encode_pre_vote_response,
    VoteRequest: _encode_vote_request,
    VoteResponse: _encode_vote_response,
    AppendEntries: _encode_append_entries,
    AppendSuccess: _encode_append_success,
    AppendConflict: _encode_append_conflict,
    Heartbeat: _encode_heartbeat,
    HeartbeatResponse: _encode_heartbeat_response,
    InstallSnapshot: _encode_install_snapshot,
    TimeoutNow: _encode_timeout_now,
    ReadIndexRequest: _encode_read_index_request,
    ReadIndexResponse: _encode_read_index_response,
}


# -- from the wire --------------------------------------------------------------------------------


def decode_envelope(data: bytes) -> raft_pb2.Envelope:
    """Parse one envelope's bytes. Raises MalformedMessage; the messages inside are not looked at yet."""
    try:
        return raft_pb2.Envelope.FromString(data)
    except DecodeError as error:
        raise MalformedMessage(f"not an envelope: {error}") from None


def decode_messages(wires: Iterable[raft_pb2.Message]) -> list[Message]:
    """All of an envelope's messages, or MalformedMessage and none of them."""
    return [from_pb(wire) for wire in wires]


def from_pb(wire: raft_pb2.Message) -> Message:
    """The message. Raises MalformedMessage for anything the core's types do not allow."""
    kind = wire.WhichOneof("body")
    if kind is None:
        raise MalformedMessage("a message without a body, or of a kind this version does not know")
    if not wire.sender or not wire.to:
        raise MalformedMessage(f"a {kind} without sender or addressee")
    return _DECODERS[kind](wire, getattr(wire, kind))


def configuration_from_pb(wire: raft_pb2.Configuration) -> Configuration:
    """The configuration. Raises MalformedMessage where it breaks a configuration's invariants."""
    try:
        return Configuration(
            members=tuple(map(member_from_pb, wire.members)),
            voters=frozenset(wire.voters),
            voters_outgoing=frozenset(wire.voters_outgoing),
            learners=frozenset(wire.learners),
        )
    except ValueError as error:
        raise MalformedMessage(f"a configuration that cannot be: {error}") from None


def _entry_from_pb(wire: raft_pb2.Entry) -> Entry:
    kind = wire.WhichOneof("payload")
    if kind == "command":
        return Entry(wire.index, wire.term, wire.command)
    if kind == "configuration":
        return Entry(wire.index, wire.term, configuration_from_pb(wire.configuration))
    if kind == "no_op":
        return Entry(wire.index, wire.term, None)
    raise MalformedMessage(f"entry {wire.index} has no payload, or one of a kind this version does not know")


def _decode_append_entries(wire: raft_pb2.Message, body: raft_pb2.AppendEntries) -> AppendEntries:
    entries = tuple([_entry_from_pb(entry) for entry in body.entries])
    return AppendEntries(
        wire.sender,
        wire.to,
        wire.term,
        body.prev_log_index,
        body.prev_log_term,
        entries,
        body.leader_commit,
        body.round,
        body.flight,
    )


def _decode_append_conflict(wire: raft_pb2.Message, body: raft_pb2.AppendConflict) -> AppendConflict:
    return AppendConflict(
        wire.sender,
        wire.to,
        wire.term,
        body.rejected_index,
        body.conflict_term if body.HasField("conflict_term") else None,
        body.conflict_index,
        body.round,
        body.flight,
    )


def _decode_install_snapshot(wire: raft_pb2.Message, body: raft_pb2.InstallSnapshot) -> InstallSnapshot:
    if not body.HasField("snapshot") or not body.snapshot.HasField("configuration"):
        raise MalformedMessage("an InstallSnapshot that does not describe its snapshot")
    meta = SnapshotMeta(
        body.snapshot.last_included_index,
        body.snapshot.last_included_term,
        configuration_from_pb(body.snapshot.configuration),
    )
    return InstallSnapshot(wire.sender, wire.to, wire.term, meta, body.round)


_DECODERS: dict[str, Callable[[raft_pb2.Message, Any], Message]] = {
    "pre_vote_request": lambda wire, body: PreVoteRequest(
        wire.sender, wire.to, wire.term, body.last_log_index, body.last_log_term
    ),
    "pre_vote_response": lambda wire, body: PreVoteResponse(wire.sender, wire.to, wire.term, body.granted),
    "vote_request": lambda wire, body: VoteRequest(
        wire.sender, wire.to, wire.term, body.last_log_index, body.last_log_term, body.leadership_transfer
    ),
    "vote_response": lambda wire, body: VoteResponse(wire.sender, wire.to, wire.term, body.granted),
    "append_entries": _decode_append_entries,
    "append_success": lambda wire, body: AppendSuccess(wire.sender, wire.to, wire.term, body.match_index, body.round),
    "append_conflict": _decode_append_conflict,
    "heartbeat": lambda wire, body: Heartbeat(wire.sender, wire.to, wire.term, body.commit, body.round),
    "heartbeat_response": lambda wire, body: HeartbeatResponse(wire.sender, wire.to, wire.term, body.round),
    "install_snapshot": _decode_install_snapshot,
    "timeout_now": lambda wire, body: TimeoutNow(wire.sender, wire.to, wire.term),
    "read_index_request": lambda wire, body: ReadIndexRequest(wire.sender, wire.to, wire.term, body.request_id),
    "read_index_response": lambda wire, body: ReadIndexResponse(
        wire.sender,
        wire.to,
        wire.term,
        body.request_id,
        body.read_index if body.HasField("read_index") else None,
    ),
}
