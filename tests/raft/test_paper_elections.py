"""Leader election, statement by statement: sections 5.1, 5.2 and 5.4.1 of the paper, 9.6 and 4.2.3 of the thesis.

In the manner of etcd's ``raft_paper_test.go``: one server among absent peers, a message in, a look at what
comes out. Each test cites what it holds the core to.
"""

from __future__ import annotations

import pytest
from harness import CONFIG, MS, Cluster, Server, lead, log_of, solo

from lattice_core.raft.messages import (
    AppendEntries,
    AppendSuccess,
    Heartbeat,
    HeartbeatResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
)
from lattice_core.raft.types import HardState, Role

RESPONSES_OF_TERM_9: list[Message] = [
    PreVoteResponse(2, 1, 9, False),
    VoteResponse(2, 1, 9, False),
    AppendSuccess(2, 1, 9, 0, 0),
    HeartbeatResponse(2, 1, 9, 0),
    AppendEntries(2, 1, 9, 0, 0, (), 0, 1),
    Heartbeat(2, 1, 9, 0, 1),
]


def candidate(**options: object) -> Server:
    """Server 1 of three, in the middle of an election."""
    server = solo(**options)  # type: ignore[arg-type]
    server.time_out()
    server.step(PreVoteResponse(2, 1, server.node.term + 1, True))
    assert server.node.role is Role.CANDIDATE
    server.take()
    return server


# ---- section 5.1: terms -----------------------------------------------------------------------------


@pytest.mark.parametrize("message", RESPONSES_OF_TERM_9, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("role", ["follower", "pre-candidate", "candidate", "leader"])
def test_whoever_sees_a_newer_term_takes_it_over_and_becomes_a_follower(role: str, message: Message) -> None:
    """Section 5.1: "If one server's current term is smaller than the other's, then it updates its current
    term to the larger value. If a candidate or leader discovers that its term is out of date, it
    immediately reverts to follower state."
    """
    server = solo()
    if role == "pre-candidate":
        server.time_out()
    elif role == "candidate":
        server = candidate()
    elif role == "leader":
        lead(server)
    assert server.node.role.value == role
    server.step(message)
    assert (server.node.role, server.node.term, server.node.voted_for) == (Role.FOLLOWER, 9, None)
    assert server.disk.hard_state == HardState(9, None)


def test_a_vote_request_of_a_newer_term_is_taken_over_even_when_the_vote_is_refused() -> None:
    """Section 5.1, with the log check of section 5.4.1: terms and votes are two things."""
    server = solo(term=2, log=log_of(1, 2))
    server.step(VoteRequest(2, 1, 5, 1, 1, False))
    assert (server.node.term, server.node.voted_for) == (5, None)
    assert server.take() == [VoteResponse(1, 2, 5, False)]


@pytest.mark.parametrize(
    "message", [AppendEntries(2, 1, 1, 0, 0, log_of(1), 1, 1), Heartbeat(2, 1, 1, 0, 1)], ids=["append", "heartbeat"]
)
def test_a_request_with_a_stale_term_is_rejected_and_changes_nothing(message: Message) -> None:
    """Section 5.1: "If a server receives a request with a stale term number, it rejects the request.\""""
    server = solo(term=3)
    deadline = server.node.next_deadline_ns
    server.step(message)
    assert (server.node.term, server.node.last_index, server.node.leader_id) == (3, 0, None)
    assert server.node.next_deadline_ns == deadline
    assert server.take() == [HeartbeatResponse(1, 2, 3, 0)], "the stale leader learns of the newer term"


def test_an_answer_with_a_stale_term_is_ignored() -> None:
    """Section 5.1; figure 2 acts only on answers of the current term."""
    server = candidate(term=4)
    server.step(VoteResponse(2, 1, 4, True))
    assert server.node.role is Role.CANDIDATE
    assert server.take() == []


# ---- section 5.2: leader election -------------------------------------------------------------------


def test_servers_start_as_followers() -> None:
    """Section 5.2: "When servers start up, they begin as followers.\""""
    server = solo(term=7, log=log_of(1, 7))
    assert (server.node.role, server.node.term, server.node.leader_id) == (Role.FOLLOWER, 7, None)


def test_a_follower_that_hears_from_its_leader_stays_a_follower() -> None:
    """Section 5.2: "A server remains in follower state as long as it receives valid RPCs from a leader.\""""
    server = solo()
    for _ in range(50):
        server.tick(server.now_ns + CONFIG.election_timeout_min_ns - MS)
        server.step(Heartbeat(2, 1, 1, 0, 1))
        assert (server.node.role, server.node.term, server.node.leader_id) == (Role.FOLLOWER, 1, 2)


def test_a_leader_sends_heartbeats_to_everyone_each_interval() -> None:
    """Section 5.2: "Leaders send periodic heartbeats to all followers in order to maintain their authority.\""""
    server = lead(solo())
    for _ in range(3):
        before = server.now_ns
        server.time_out()
        assert server.now_ns - before == CONFIG.heartbeat_interval_ns
        assert [message.to for message in server.take(Heartbeat)] == [2, 3]


def test_a_follower_that_hears_nothing_for_an_election_timeout_begins_an_election() -> None:
    """Section 5.2, with the pre-vote of thesis section 9.6: silence leads to a question, a majority's yes to
    a new term, a vote for oneself, and requests for votes to all others."""
    server = solo(term=1, log=log_of(1))
    server.time_out()
    assert (server.node.role, server.node.term) == (Role.PRE_CANDIDATE, 1)
    assert server.take() == [PreVoteRequest(1, 2, 2, 1, 1), PreVoteRequest(1, 3, 2, 1, 1)]
    server.step(PreVoteResponse(3, 1, 2, True))
    assert (server.node.role, server.node.term, server.node.voted_for) == (Role.CANDIDATE, 2, 1)
    assert server.take() == [VoteRequest(1, 2, 2, 1, 1, False), VoteRequest(1, 3, 2, 1, 1, False)]


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [
        (1, 0, Role.LEADER),
        (3, 1, Role.LEADER),
        (3, 0, Role.CANDIDATE),
        (4, 1, Role.CANDIDATE),
        (4, 2, Role.LEADER),
        (5, 1, Role.CANDIDATE),
        (5, 2, Role.LEADER),
        (5, 4, Role.LEADER),
    ],
)
def test_a_candidate_wins_with_the_votes_of_a_majority_of_the_whole_cluster(size: int, votes: int, role: Role) -> None:
    """Section 5.2: "A candidate wins an election if it receives votes from a majority of the servers in the
    full cluster for the same term." """
    server = solo(voters=range(1, size + 1))
    server.time_out()
    for peer in range(2, size + 1):
        if server.node.role is Role.PRE_CANDIDATE:
            server.step(PreVoteResponse(peer, 1, 1, True))
    for peer in range(2, votes + 2):
        server.step(VoteResponse(peer, 1, 1, True))
    assert (server.node.role, server.node.term) == (role, 1)


def test_one_vote_counted_twice_is_one_vote() -> None:
    """Section 5.2: a majority of servers, not of messages (SAFETY 3: distinct voters)."""
    server = solo(voters=range(1, 6))
    server.time_out()
    for peer in (2, 3):
        server.step(PreVoteResponse(peer, 1, 1, True))
    for _ in range(5):
        server.step(VoteResponse(2, 1, 1, True))
    assert server.node.role is Role.CANDIDATE


def test_a_server_gives_at_most_one_vote_in_a_term_first_come_first_served() -> None:
    """Section 5.2: "Each server will vote for at most one candidate in a given term, on a
    first-come-first-served basis." """
    server = solo()
    server.step(VoteRequest(2, 1, 1, 0, 0, False))
    server.step(VoteRequest(3, 1, 1, 0, 0, False))
    server.step(VoteRequest(2, 1, 1, 0, 0, False))
    assert server.take() == [VoteResponse(1, 2, 1, True), VoteResponse(1, 3, 1, False), VoteResponse(1, 2, 1, True)]


def test_a_candidate_does_not_vote_for_another_in_its_own_term() -> None:
    """Section 5.2: it has voted for itself."""
    server = candidate()
    server.step(VoteRequest(2, 1, 1, 5, 1, False))
    assert server.take() == [VoteResponse(1, 2, 1, False)]
    assert server.node.role is Role.CANDIDATE


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_that_hears_from_a_leader_of_its_term_or_a_newer_one_follows_it(role: Role, term: int) -> None:
    """Section 5.2: "If the leader's term is at least as large as the candidate's current term, then the
    candidate recognizes the leader as legitimate and returns to follower state." """
    server = solo(term=1) if role is Role.PRE_CANDIDATE else candidate()
    if role is Role.PRE_CANDIDATE:
        server.time_out()
    assert (server.node.role, server.node.term) == (role, 1)
    server.step(AppendEntries(3, 1, term, 0, 0, (), 0, 1))
    assert (server.node.role, server.node.term, server.node.leader_id) == (Role.FOLLOWER, term, 3)


def test_a_candidate_keeps_on_when_a_stale_leader_speaks() -> None:
    """Section 5.2: "If the term in the RPC is smaller than the candidate's current term, then the candidate
    rejects the RPC and continues in candidate state." """
    server = candidate(term=1)
    server.step(Heartbeat(3, 1, 1, 0, 1))
    assert (server.node.role, server.node.term) == (Role.CANDIDATE, 2)


def test_after_a_split_vote_a_candidate_times_out_and_asks_anew() -> None:
    """Section 5.2: "each candidate will time out and start a new election." The new one begins with a
    pre-vote, so that a candidate that reaches nobody does not raise its term for ever (thesis section 9.6).
    """
    server = candidate()
    server.time_out()
    assert (server.node.role, server.node.term) == (Role.PRE_CANDIDATE, 1)
    server.step(PreVoteResponse(2, 1, 2, True))
    assert (server.node.role, server.node.term) == (Role.CANDIDATE, 2)


def test_election_timeouts_are_random_and_drawn_anew_each_time() -> None:
    """Section 5.2: "Raft uses randomized election timeouts to ensure that split votes are rare": chosen
    from the fixed interval, and not the same twice in a row."""
    server = solo()
    waits = set()
    for _ in range(200):
        server.step(Heartbeat(2, 1, 1, 0, 1))
        wait = server.node.next_deadline_ns - server.now_ns
        assert CONFIG.election_timeout_min_ns <= wait < CONFIG.election_timeout_max_ns
        waits.add(wait // MS)
    assert len(waits) > 100


def test_servers_rarely_time_out_together() -> None:
    """Section 5.2: "in most cases only a single server will time out.\""""
    together = 0
    for seed in range(50):
        cluster = Cluster(5, seed=seed)
        deadlines = sorted(server.node.next_deadline_ns for server in cluster)
        together += deadlines[1] - deadlines[0] < 2 * MS
    assert together <= 5


def test_a_leader_is_elected_and_the_others_know_it() -> None:
    """Section 5.2, the whole of it: out of nothing, one leader, within a few election timeouts."""
    for seed in range(20):
        cluster = Cluster(5, seed=seed)
        cluster.run(3_000 * MS)
        leader = cluster.leader
        assert leader is not None
        assert {server.node.leader_id for server in cluster} == {leader.id}
        assert {server.node.term for server in cluster} == {leader.node.term}


# ---- section 5.4.1: the election restriction --------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "last_index", "last_term", "granted"),
    [
        ((1,), 1, 1, True),  # the same log
        ((1,), 2, 1, True),  # the candidate's is longer
        ((1, 1), 1, 1, False),  # the candidate's is shorter
        ((1, 1), 1, 2, True),  # shorter, but of a newer term
        ((1, 2), 1, 2, False),
        ((1, 2), 9, 1, False),  # longer, but of an older term
        ((), 0, 0, True),
        ((1,), 0, 0, False),
    ],
)
def test_a_voter_refuses_a_candidate_whose_log_is_less_up_to_date(
    own: tuple[int, ...], last_index: int, last_term: int, granted: bool
) -> None:
    """Section 5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate":
    the later last term, and with equal terms the longer log. The same holds for pre-votes."""
    server = solo(log=log_of(*own), term=2)
    server.step(PreVoteRequest(2, 1, 3, last_index, last_term))
    server.step(VoteRequest(2, 1, 3, last_index, last_term, False))
    pre_vote, vote = server.take()
    assert isinstance(pre_vote, PreVoteResponse)
    assert isinstance(vote, VoteResponse)
    assert (pre_vote.granted, vote.granted) == (granted, granted)


def test_vote_requests_tell_of_the_candidates_log() -> None:
    """Section 5.4.1: "the RPC includes information about the candidate's log": index and term of its last entry."""
    server = candidate(log=log_of(1, 1, 4))
    server.step(VoteResponse(2, 1, 4, False))
    server.time_out()
    server.step(PreVoteResponse(2, 1, 6, True))
    for message in server.take((PreVoteRequest, VoteRequest)):
        assert isinstance(message, PreVoteRequest | VoteRequest)
        assert (message.last_log_index, message.last_log_term) == (3, 4)


# ---- thesis sections 9.6 and 4.2.3: pre-vote and the leader's protection -----------------------------


def test_a_pre_vote_changes_no_state_at_either_side() -> None:
    """Thesis section 9.6: "the Pre-Vote algorithm does not change term or vote": nothing in memory, nothing on
    disk, no timer, whether it is granted or not."""
    for last_index in (0, 5):
        server = solo(term=2, log=log_of(1, 2), voted_for=3)
        before = (server.node.hard_state, server.node.role, server.node.leader_id, server.node.next_deadline_ns)
        server.disk.held = True
        server.step(PreVoteRequest(2, 1, 3, last_index, 2))
        assert before == (
            server.node.hard_state,
            server.node.role,
            server.node.leader_id,
            server.node.next_deadline_ns,
        )
        assert not server.disk.pending
        assert server.take() == [PreVoteResponse(1, 2, 3 if last_index else 2, bool(last_index))]


def test_a_pre_candidate_that_no_majority_supports_never_raises_its_term() -> None:
    """Thesis section 9.6: an isolated server "cannot increase its term"."""
    server = solo(term=3)
    for _ in range(100):
        server.time_out()
        server.step(PreVoteResponse(2, 1, 3, False))
    assert (server.node.term, server.disk.hard_state) == (3, HardState(3, None))


def test_an_answer_to_an_earlier_pre_vote_is_not_counted() -> None:
    """Thesis section 9.6, with section 5.1: a yes is for one proposed term."""
    server = solo(term=5)
    server.time_out()
    server.step(PreVoteResponse(2, 1, 5, True))
    assert server.node.role is Role.PRE_CANDIDATE


def test_a_pre_vote_goes_out_though_the_disk_is_busy() -> None:
    """Thesis section 9.6: nothing durable depends on a question that changes nothing, so it waits for no write."""
    server = solo(term=1)
    server.disk.held = True
    server.step(AppendEntries(2, 1, 1, 0, 0, log_of(1), 0, 1))
    server.take()
    server.time_out()
    assert [type(message) for message in server.take()] == [PreVoteRequest, PreVoteRequest]
    server.step(PreVoteRequest(2, 1, 2, 1, 1))
    assert server.take() == [PreVoteResponse(1, 2, 2, True)]


def test_within_the_minimum_election_timeout_of_hearing_a_leader_nobody_gets_a_vote() -> None:
    """Thesis section 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of
    hearing from a current leader, it does not update its term or grant its vote." """
    server = solo()
    server.step(Heartbeat(2, 1, 1, 0, 1))
    server.take()
    server.tick(server.now_ns + CONFIG.election_timeout_min_ns - 1)
    server.step(PreVoteRequest(3, 1, 2, 9, 9))
    server.step(VoteRequest(3, 1, 2, 9, 9, False))
    assert server.take() == [PreVoteResponse(1, 3, 1, False)]
    assert server.node.hard_state == HardState(1, None)
    server.tick(server.now_ns + 1)
    server.step(PreVoteRequest(3, 1, 2, 9, 9))
    server.step(VoteRequest(3, 1, 2, 9, 9, False))
    assert server.take() == [PreVoteResponse(1, 3, 2, True), VoteResponse(1, 3, 2, True)]


def test_a_leader_is_not_deposed_by_a_candidate_that_its_followers_do_not_know() -> None:
    """Thesis section 4.2.3, from the leader's own side."""
    server = lead(solo())
    server.step(PreVoteRequest(3, 1, 2, 9, 9))
    server.step(VoteRequest(3, 1, 2, 9, 9, False))
    assert server.take() == [PreVoteResponse(1, 3, 1, False)]
    assert server.node.is_leader


def test_a_pre_candidate_that_gives_its_vote_to_another_stops_asking_for_itself() -> None:
    """Section 5.2: granting a vote resets the election timer; going on would depose the one just voted for."""
    server = solo(term=1)
    server.time_out()
    server.step(VoteRequest(2, 1, 1, 0, 0, False))
    assert server.take(VoteResponse) == [VoteResponse(1, 2, 1, True)]
    server.step(PreVoteResponse(3, 1, 2, True))
    assert (server.node.role, server.node.term) == (Role.FOLLOWER, 1)
    assert server.node.next_deadline_ns >= server.now_ns + CONFIG.election_timeout_min_ns
