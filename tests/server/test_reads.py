"""When a read is answered, from what, and how old it may be; the core is a fake that says so, and so is the clock."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lattice_core.kv import ClientBatch, StateMachine, encode_batch, encode_payload, put
from lattice_core.raft.ready import ReadRefused, ReadReleased
from lattice_core.raft.types import Configuration, Member
from lattice_core.rpc.pb import kv_pb2
from lattice_core.rpc.peers import LocalIdentity, PeerDirectory
from lattice_core.server.hints import Hints
from lattice_core.server.read_batches import Get, Read
from lattice_core.server.reads import Answers, Reads

MEMBERS = Configuration.of_voters([Member(1, "n1", "h:1"), Member(2, "n2", "h:2")])
SECOND = 10**9
STALE, LEASE, LINEARIZABLE = (
    kv_pb2.CONSISTENCY_STALE,
    kv_pb2.CONSISTENCY_LEASE,
    kv_pb2.CONSISTENCY_LINEARIZABLE,
)


class FakeCore:
    def __init__(self) -> None:
        self.leader_id: int | None = 2
        self.asked: list[int] = []
        self.lease_index: int | None = None

    def read_index(self, request_id: int, now_ns: int) -> None:
        self.asked.append(request_id)

    def lease_read_index(self, now_ns: int) -> int | None:
        return self.lease_index


class NoBook:
    def known(self) -> Mapping[int, int]:
        return {}

    async def bind(self, bindings: Mapping[int, int]) -> None:
        raise AssertionError


class Desk:
    """Reads over a fake core, the time, and the replies that came."""

    def __init__(self, *, leases_by_default: bool = False) -> None:
        self.core = FakeCore()
        self.now_ns = 100 * SECOND
        self.heard_seconds = 0.01
        self.machine = StateMachine()
        identity = LocalIdentity(7, 1, "n1", "c:1", "h:1", "t", 5)
        directory = PeerDirectory(identity, NoBook(), lambda: MEMBERS, lambda: (0, MEMBERS), print, print)
        self.replies: list[Answers | kv_pb2.ErrorDetail] = []
        self.reads = Reads(
            self.core,
            self.machine,
            Hints(directory),
            lambda: None,
            lambda: self.heard_seconds,
            leases_by_default=leases_by_default,
            now_ns=lambda: self.now_ns,
        )
        self.write(b"1")

    def write(self, value: bytes) -> None:
        batch = ClientBatch(0, 0, 0, encode_batch([put(b"k", value)]))
        self.machine.apply(self.machine.applied_index + 1, 1, encode_payload(0, [batch]))

    def read(self, consistency: int, max_stale: float | None = None, read: Read = Get(b"k", None)) -> None:  # noqa: B008
        self.reads.submit([read], consistency, self.replies.append, max_stale)
        self.reads.flush(self.now_ns)

    def release(self) -> None:
        self.reads.settle([ReadReleased(self.core.asked[-1], 1)], [])

    def refuse(self) -> None:
        self.reads.settle([], [ReadRefused(self.core.asked[-1], self.core.leader_id)])

    def pass_seconds(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND)

    @property
    def answer(self) -> Answers:
        (reply,) = self.replies
        self.replies.clear()
        assert isinstance(reply, Answers)
        return reply

    @property
    def refusal(self) -> kv_pb2.ErrorDetail:
        (reply,) = self.replies
        self.replies.clear()
        assert isinstance(reply, kv_pb2.ErrorDetail)
        return reply


def test_a_stale_read_without_a_bound_is_answered_at_once_whatever_its_age() -> None:
    desk = Desk()
    desk.heard_seconds = 99.0
    desk.read(STALE)
    assert desk.answer.stale_seconds == 99.0
    assert desk.core.asked == []


def test_a_bounded_stale_read_shares_a_round_when_nothing_is_known_of_the_states_age() -> None:
    """However lately a leader was heard: its message may have waited in a socket, and entries with it."""
    desk = Desk()
    desk.heard_seconds = 0.0
    desk.read(STALE, max_stale=10.0)
    assert desk.replies == []
    desk.pass_seconds(0.25)
    desk.release()
    assert desk.answer.stale_seconds == pytest.approx(0.25)
    assert desk.reads.idle


def test_while_a_confirmed_round_is_young_enough_bounded_reads_are_answered_at_once() -> None:
    desk = Desk()
    desk.read(LINEARIZABLE)  # anybody's round will do
    desk.pass_seconds(1.0)
    desk.release()
    assert desk.answer.stale_seconds == 0.0, "it is not a stale read"
    desk.pass_seconds(1.0)
    desk.read(STALE, max_stale=2.5)
    assert desk.answer.stale_seconds == pytest.approx(2.0), "counted from when the round began"
    assert len(desk.core.asked) == 1
    desk.pass_seconds(1.0)
    desk.read(STALE, max_stale=2.5)
    assert desk.replies == []
    assert len(desk.core.asked) == 2


def test_a_bounded_read_that_cannot_be_confirmed_is_refused_as_too_stale_with_its_age_and_the_leader() -> None:
    desk = Desk()
    desk.read(STALE, max_stale=0.5)
    desk.refuse()
    refusal = desk.refusal
    assert refusal.code == kv_pb2.ERROR_CODE_TOO_STALE
    assert "never known" in refusal.message
    assert refusal.leader.name == "n2"
    desk.read(LINEARIZABLE)
    desk.release()
    assert desk.answer
    desk.pass_seconds(3.0)
    desk.read(STALE, max_stale=0.5)
    desk.core.leader_id = None
    desk.refuse()
    refusal = desk.refusal
    assert "3 s ago, more than 0.5 s" in refusal.message
    assert not refusal.HasField("leader")


def test_other_reads_of_a_refused_round_are_told_that_this_is_not_the_leader() -> None:
    desk = Desk()
    desk.read(LINEARIZABLE)
    desk.refuse()
    assert desk.refusal.code == kv_pb2.ERROR_CODE_NOT_LEADER


def test_a_stale_read_of_a_revision_that_is_not_here_yet_waits_for_it() -> None:
    desk = Desk()
    desk.read(STALE, read=Get(b"k", 2))
    assert desk.replies == []
    desk.write(b"2")
    desk.release()
    (found,) = desk.answer.answers
    assert found is not None
    assert found.value == b"2"  # type: ignore[union-attr]
    desk.read(STALE, read=Get(b"k", 1))
    assert desk.answer.stale_seconds == desk.heard_seconds


@pytest.mark.parametrize("leases_by_default", [False, True])
@pytest.mark.parametrize("consistency", [kv_pb2.CONSISTENCY_UNSPECIFIED, LINEARIZABLE])
def test_linearizable_reads_go_by_the_lease_only_if_the_node_is_configured_so(
    leases_by_default: bool, consistency: int
) -> None:
    desk = Desk(leases_by_default=leases_by_default)
    desk.core.lease_index = 1
    desk.read(consistency)
    assert bool(desk.replies) == leases_by_default
    assert bool(desk.core.asked) != leases_by_default
    desk.replies.clear()
    desk.read(STALE, max_stale=0.0)
    assert len(desk.core.asked) == 1 + (not leases_by_default), "a lease says nothing to a bounded read"


def test_safety_41_without_a_lease_a_round_is_asked_for_whatever_the_configuration() -> None:
    desk = Desk(leases_by_default=True)
    desk.core.lease_index = None
    desk.read(LINEARIZABLE)
    assert desk.replies == []
    assert len(desk.core.asked) == 1
    desk.refuse()
    assert desk.refusal.code == kv_pb2.ERROR_CODE_NOT_LEADER


def test_safety_39_a_read_under_a_lease_waits_until_its_index_is_applied() -> None:
    desk = Desk(leases_by_default=True)
    desk.core.lease_index = 2
    desk.read(LINEARIZABLE)
    assert desk.replies == []
    desk.write(b"2")
    desk.reads.applied(2)
    (found,) = desk.answer.answers
    assert found is not None
    assert found.value == b"2"  # type: ignore[union-attr]


def test_abandoned_reads_are_all_answered() -> None:
    desk = Desk()
    desk.read(LINEARIZABLE)
    desk.reads.submit([Get(b"k", None)], STALE, desk.replies.append, 1.0)
    desk.reads.abandon()
    codes = {reply.code for reply in desk.replies if isinstance(reply, kv_pb2.ErrorDetail)}
    assert codes == {kv_pb2.ERROR_CODE_NOT_LEADER, kv_pb2.ERROR_CODE_TOO_STALE}
    assert desk.reads.idle
