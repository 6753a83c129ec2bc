"""Every batch gets exactly one answer, and none that claims more than is known (SAFETY 44)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from server_harness import eventually

from lattice_core.kv import BatchResult, BatchStatus, ClientBatch, decode_payload, encode_batch, put
from lattice_core.raft import errors as raft_errors
from lattice_core.raft.types import Configuration, Member
from lattice_core.rpc.pb import kv_pb2
from lattice_core.rpc.peers import LocalIdentity, PeerDirectory
from lattice_core.server import proposals as module
from lattice_core.server.clock import ClusterClock
from lattice_core.server.hints import Hints
from lattice_core.server.proposals import Outcome, Proposals

MEMBERS = Configuration.of_voters([Member(1, "n1", "h:1"), Member(2, "n2", "h:2")])
RESULT = BatchResult(BatchStatus.OK, b"\x90")


class FakeCore:
    def __init__(self) -> None:
        self.is_leader = True
        self.leader_id: int | None = 1
        self.term = 3
        self.log: list[bytes] = []
        self.raises: Exception | None = None

    def propose(self, payload: bytes, now_ns: int) -> tuple[int, int]:
        if self.raises is not None:
            raise self.raises
        self.log.append(payload)
        return len(self.log), self.term

    def step_down(self, leader_id: int | None = 2) -> None:
        self.is_leader, self.leader_id = False, leader_id


class NoBook:
    def known(self) -> Mapping[int, int]:
        return {}

    async def bind(self, bindings: Mapping[int, int]) -> None:
        raise AssertionError


class Desk:
    """Proposals over a fake core, and the replies that came."""

    def __init__(self, **bounds: int) -> None:
        self.core = FakeCore()
        identity = LocalIdentity(7, 1, "n1", "c:1", "h:1", "t", 5)
        directory = PeerDirectory(identity, NoBook(), lambda: MEMBERS, lambda: (0, MEMBERS), print, print)
        self.replies: dict[str, Outcome] = {}
        self.kicks = 0
        self.proposals = Proposals(
            self.core,
            ClusterClock(0, 0),
            Hints(directory),
            self._kick,
            **{"max_pending_bytes": 100_000, "max_entry_bytes": 50_000, **bounds},
        )

    def _kick(self) -> None:
        self.kicks += 1

    def submit(self, name: str, *, session: int = 0, size: int = 10) -> None:
        def reply(outcome: Outcome) -> None:
            assert name not in self.replies, "exactly one reply"
            self.replies[name] = outcome

        ops = (put(name.encode(), bytes(size)),)
        self.proposals.submit(ClientBatch(session, 1, 0, encode_batch(ops), ops), reply)

    def apply(self, index: int, term: int) -> None:
        mine = self.proposals.decided(index, term)
        for proposal in mine[1] if mine is not None else ():
            self.proposals.finish(proposal, RESULT)

    def code(self, name: str) -> Any:
        outcome = self.replies[name]
        assert isinstance(outcome, kv_pb2.ErrorDetail)
        return outcome.code


def test_all_that_waits_becomes_one_entry_in_the_order_it_came() -> None:
    desk = Desk()
    for name in "abc":
        desk.submit(name, session=ord(name))
    desk.proposals.flush(5_000_000)
    (payload,) = desk.core.log
    decoded = decode_payload(payload)
    assert [batch.session_id for batch in decoded.batches] == [ord(name) for name in "abc"]
    assert decoded.time_ms == 5
    desk.apply(1, 3)
    assert desk.replies == dict.fromkeys("abc", RESULT)
    assert desk.proposals.pending_bytes == 0
    assert desk.proposals.idle


def test_an_entry_is_bounded_in_bytes_and_a_larger_batch_travels_alone() -> None:
    desk = Desk(max_entry_bytes=2000)
    for name, size in (("a", 500), ("b", 5000), ("c", 10), ("d", 10)):
        desk.submit(name, size=size)
    desk.proposals.flush(0)
    assert [len(decode_payload(payload).batches) for payload in desk.core.log] == [1, 1, 2]


def test_beyond_the_bound_of_bytes_callers_are_told_busy_until_answers_make_room() -> None:
    desk = Desk(max_pending_bytes=3000)
    desk.submit("a", size=2000)
    desk.submit("b", size=2000)
    assert desk.code("b") == kv_pb2.ERROR_CODE_BUSY
    desk.proposals.flush(0)
    desk.apply(1, 3)
    desk.submit("c", size=2000)
    assert "c" not in desk.replies


def test_a_follower_refuses_at_once_and_names_the_leader() -> None:
    desk = Desk()
    desk.core.step_down()
    desk.submit("a")
    assert desk.code("a") == kv_pb2.ERROR_CODE_NOT_LEADER
    outcome = desk.replies["a"]
    assert isinstance(outcome, kv_pb2.ErrorDetail)
    assert outcome.leader.name == "n2"
    desk.core.step_down(None)
    desk.submit("b")
    assert desk.code("b") == kv_pb2.ERROR_CODE_NO_LEADER


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (raft_errors.NotLeader(2), kv_pb2.ERROR_CODE_NOT_LEADER),
        (raft_errors.NotLeader(None), kv_pb2.ERROR_CODE_NO_LEADER),
        (raft_errors.Busy("handing over"), kv_pb2.ERROR_CODE_BUSY),
    ],
)
def test_what_the_core_does_not_take_was_not_applied(refusal: Exception, code: int) -> None:
    desk = Desk()
    desk.submit("a")
    desk.core.raises = refusal
    desk.proposals.flush(0)
    assert desk.code("a") == code
    assert desk.proposals.pending_bytes == 0


def test_another_terms_entry_in_its_place_means_that_it_never_happened() -> None:
    desk = Desk()
    desk.submit("a")
    desk.proposals.flush(0)
    desk.core.step_down()
    desk.apply(1, 4)
    assert desk.code("a") == kv_pb2.ERROR_CODE_NOT_LEADER


def test_when_leadership_is_lost_sessions_learn_at_once_that_the_outcome_is_unknown() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.submit("session", session=9)
        desk.submit("bare")
        desk.proposals.flush(0)
        desk.submit("never proposed", session=9)
        desk.core.step_down()
        desk.proposals.leadership_lost()
        assert desk.code("session") == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN
        assert desk.code("never proposed") == kv_pb2.ERROR_CODE_NOT_LEADER
        assert "bare" not in desk.replies
        desk.apply(1, 3)  # the new leader has committed it
        assert desk.replies["bare"] is RESULT
        assert desk.proposals.pending_bytes == 0
        desk.proposals.abandon()

    asyncio.run(scenario())


def test_a_batch_without_a_session_waits_only_so_long_for_a_new_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECISION_WAIT_SECONDS", 0.01)

    async def scenario() -> None:
        desk = Desk()
        desk.submit("bare")
        desk.proposals.flush(0)
        desk.core.step_down()
        desk.proposals.leadership_lost()
        await eventually(lambda: "bare" in desk.replies)
        assert desk.code("bare") == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN
        assert desk.proposals.idle

    asyncio.run(scenario())


def test_a_proposal_of_an_earlier_term_whose_place_is_taken_is_not_forgotten() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.submit("old")
        desk.proposals.flush(0)
        desk.core.step_down()
        desk.proposals.leadership_lost()
        desk.core.is_leader, desk.core.leader_id, desk.core.term, desk.core.log = True, 1, 5, []
        desk.submit("new")
        desk.proposals.flush(0)
        assert desk.code("old") == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN
        desk.apply(1, 5)
        assert desk.replies["new"] is RESULT
        desk.proposals.abandon()
        assert desk.proposals.pending_bytes == 0

    asyncio.run(scenario())


def test_cluster_time_goes_on_from_what_was_logged_and_never_back() -> None:
    clock = ClusterClock(1000, 0)
    assert clock.read(5_000_000) == 1005
    clock.observe(900, 6_000_000)
    assert clock.read(6_000_000) == 1006
    clock.observe(5000, 7_000_000)
    assert clock.read(8_000_000) == 5001
