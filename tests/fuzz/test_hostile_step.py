"""Hostile messages to ``RaftNode.step``: typed errors only, bounded work, nothing sent that the wire cannot carry.

Whoever sends them is, for the core, a member (the transport has checked that): one gone mad. Raft trusts its members,
so such a one may depose leaders and may make a node stop, by :class:`InvariantViolation`, rather than give up what it
has committed. It must not make it fail in any other way, hang, or fill its memory; and where the node goes on, it must
still take part in honest rounds.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

from harness import MS, Server, configuration, log_of, solo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattice_core.raft import messages as m
from lattice_core.raft.errors import InvariantViolation, RaftError, Refused
from lattice_core.raft.node import MAX_TERM
from lattice_core.raft.ready import Persist
from lattice_core.raft.types import Configuration, Entry, Role, SnapshotMeta
from lattice_core.rpc.codec import from_pb, to_pb
from lattice_core.storage import records

EXAMPLES = int(os.environ.get("LATTICE_FUZZ_EXAMPLES", "250"))
MAX_STEP_SECONDS = 0.5
MAX_U64 = 2**64 - 1

near = st.integers(0, 12)
numbers = st.one_of(near, near, near, st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, MAX_U64 - 1, MAX_U64]))
terms = st.one_of(st.integers(0, 6), st.integers(0, 6), numbers)
senders = st.sampled_from([1, 2, 3, 4, 99, MAX_U64])
CONFIGURATIONS = (
    configuration((1, 2, 3)),
    configuration((2, 3)),
    configuration((1,)),
    configuration((1, 2, 3), outgoing=(1, 4)),
    configuration((2, 3), learners=(1,)),
    Configuration(members=(), voters=frozenset()),
)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, ...]:
    """Mostly a run as it could be sent, so that it gets past the first check."""
    first, count = draw(numbers), draw(st.integers(0, 4))
    payloads = st.one_of(st.none(), st.binary(max_size=8), st.sampled_from(CONFIGURATIONS))
    if draw(st.integers(0, 9)) == 0:
        return tuple(draw(st.lists(st.builds(Entry, numbers, terms, payloads), max_size=3)))
    term = draw(terms)
    return tuple(Entry(min(MAX_U64, first + place), term, draw(payloads)) for place in range(count))


@st.composite
def appends(draw: st.DrawFn) -> m.AppendEntries:
    run = draw(entries())
    before = run[0].index - 1 if run and run[0].index else draw(numbers)
    return m.AppendEntries(
        draw(senders), 1, draw(terms), before, draw(terms), run, draw(numbers), draw(numbers), draw(numbers)
    )


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "sender": senders,
    "to": st.sampled_from([1, 1, 1, 1, 1, 1, 2]),
    "term": terms,
    "granted": st.booleans(),
    "leadership_transfer": st.booleans(),
    "snapshot": st.builds(SnapshotMeta, numbers, terms, st.sampled_from(CONFIGURATIONS)),
    "conflict_term": st.none() | terms,
    "read_index": st.none() | numbers,
}
hostile: st.SearchStrategy[m.Message] = st.one_of(
    appends(),
    *(
        st.builds(kind, **{each.name: FIELDS.get(each.name, numbers) for each in dataclasses.fields(kind)})
        for kind in m.Message.__args__
        if kind is not m.AppendEntries
    ),
)


def follower() -> Server:
    return solo(1, (1, 2, 3), log=log_of(1, 1, 2, 3), commit=2)


def leader() -> Server:
    server = solo(1, (1, 2, 3), log=log_of(1, 1, 2, 3), commit=2)
    server.time_out()
    for kind in (m.PreVoteResponse, m.VoteResponse):
        asked = max(message.term for message in server.sent if message.to == 2)
        server.step(kind(2, 1, asked, True))
    assert server.node.role is Role.LEADER
    server.propose(b"mine")
    return server


def learner() -> Server:
    return solo(1, configuration((2, 3), learners=(1,)), log=log_of(1, 1), commit=1)


def alone() -> Server:
    server = solo(1, (1,), log=log_of(1, 1), commit=1)
    server.time_out()
    return server


def _can_be_written(persist: Persist) -> None:
    if persist.hard_state is not None:
        records.hard_state_record(persist.hard_state)
    for entry in persist.entries:
        records.entry_record(entry)
    if persist.commit_hint is not None:
        records.commit_hint_record(records.CommitHint(persist.commit_hint))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    start=st.sampled_from([follower, leader, learner, alone]),
    script=st.lists(st.one_of(hostile, hostile, hostile, st.integers(1, 1500)), min_size=1, max_size=12),
)
def test_48_a_member_gone_mad_meets_typed_errors_and_leaves_a_node_that_works(start: Any, script: list[Any]) -> None:
    server: Server = start()
    node = server.node
    stopped = False
    taken = 0
    server.disk.held = True  # what the core wants written is looked at here; nothing of it need be possible
    for deed in script:
        before = (node.role, node.term, node.commit_index, node.last_index)
        began = time.process_time()
        try:
            if isinstance(deed, int):
                node.tick(node.now_ns + deed * MS)
            else:
                node.step(deed, node.now_ns)
        except Refused:
            assert (node.role, node.term, node.commit_index, node.last_index) == before, "refused, and changed"
        except InvariantViolation:
            stopped = True
            break
        assert time.process_time() - began < MAX_STEP_SECONDS
        if node.has_ready():
            ready = node.ready()
            persist = [ready.persist] if ready.persist is not None else []
            for each in persist:
                _can_be_written(each)
            for message in [*ready.messages, *(message for each in persist for message in each.messages)]:
                assert from_pb(to_pb(message)) == message
            assert len(ready.messages) < 200
            taken += len(ready.events)
        assert node.commit_index >= before[2], "what is committed does not go back"
        assert node.last_index - node.first_index < 100, "a few messages make a few entries"
    if not stopped and node.term < MAX_TERM:
        _takes_part(server)


def _takes_part(server: Server) -> None:
    """An honest leader of a later term is followed, and an honest heartbeat answered."""
    node = server.node
    term = node.term + 1
    try:
        node.step(m.Heartbeat(2, 1, term, 0, 7), node.now_ns)
    except RaftError as error:
        raise AssertionError(f"an honest heartbeat is refused: {error}") from None
    assert (node.term, node.role, node.leader_id) == (term, Role.FOLLOWER, 2)
    ready = node.ready()
    sent = [*ready.messages, *(ready.persist.messages if ready.persist is not None else ())]
    assert any(isinstance(each, m.HeartbeatResponse) and each.to == 2 and each.round == 7 for each in sent)
