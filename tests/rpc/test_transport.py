"""Streams between members: who is let in, what happens when they break (SAFETY 15, 22, 47, 48)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest
from rpc_loopback import CLUSTER, Peer, eventually, run

from lattice_core.raft.messages import AppendEntries, AppendSuccess, Heartbeat, HeartbeatResponse
from lattice_core.raft.types import Configuration, Entry, Member
from lattice_core.rpc.codec import MalformedMessage, to_pb
from lattice_core.rpc.link import STREAM_METHOD
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.peers import PROTOCOL, REFUSAL_METADATA_KEY

HEARTBEAT = Heartbeat(1, 2, 3, 0, 7)


async def pair() -> tuple[Peer, Peer]:
    one, two = Peer(1), Peer(2)
    await one.start()
    await two.start()
    one.meet(two)
    two.meet(one)
    return one, two


def test_requests_go_out_and_answers_come_back_on_the_same_stream() -> None:
    async def scenario() -> None:
        one, two = await pair()
        await two.transport._links[1].close()  # a follower needs no stream of its own to answer
        append = AppendEntries(1, 2, 3, 0, 0, (Entry(1, 3, b"x" * 100_000), Entry(2, 3, None)), 0, 1)
        one.transport.send([HEARTBEAT, append])
        await eventually(lambda: len(two.received) == 2)
        assert two.received == [HEARTBEAT, append]
        answers = [HeartbeatResponse(2, 1, 3, 7), AppendSuccess(2, 1, 3, 2, 1)]
        two.transport.send(answers)
        await eventually(lambda: len(one.received) == 2)
        assert one.received == answers

    run(scenario())


def test_a_peer_is_down_since_its_last_stream_went_and_not_since_ours_did() -> None:
    """A follower's own link to another may have been given up long before: `cluster status` told of a member that had
    been killed 3 s before that it had been unreachable for 13 s."""

    async def scenario() -> None:
        one, two = await pair()
        await eventually(lambda: two.transport._links[1].connected and 2 in one.transport._inbound)
        link = one.transport._links[2]
        await link.close()
        link.down_since = asyncio.get_running_loop().time() - 10
        assert one.transport.down_seconds(2) is None
        await two.stop()
        await eventually(lambda: one.transport.down_seconds(2) is not None)
        assert (one.transport.down_seconds(2) or 0) < 5

    run(scenario())


def test_an_answer_whose_stream_is_gone_takes_the_other_way() -> None:
    async def scenario() -> None:
        one, two = await pair()
        await eventually(lambda: 1 in two.transport._inbound)
        await one.transport._links[2].close()
        await eventually(lambda: 1 not in two.transport._inbound)
        two.transport.send([HeartbeatResponse(2, 1, 3, 7)])
        await eventually(lambda: one.received)

    run(scenario())


def test_a_routed_member_is_dialled_there_and_nowhere_else() -> None:
    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await two.start()
        one.routes = {"n2": two.addr}
        await one.start()
        nowhere = Member(2, "n2", "127.0.0.1:1")
        one.configuration = Configuration.of_voters([Member(1, "n1", one.addr), nowhere])
        one.transport.set_configuration(one.configuration)
        two.meet(one)
        one.transport.send([HEARTBEAT])
        await eventually(lambda: two.received == [HEARTBEAT])
        status = await one.transport.status(2, 5)
        assert status is not None
        assert status.node_id == 2

    run(scenario())


def test_hello_tells_names_and_client_addresses() -> None:
    async def scenario() -> None:
        one, two = await pair()
        one.transport.send([HEARTBEAT])
        await eventually(lambda: two.received)
        assert two.directory.client_addr_of(1) == "127.0.0.1:9001"
        assert one.directory.client_addr_of(2) == "127.0.0.1:9002"
        assert one.directory.name_of(2) == "n2"
        status = await one.transport.status(2, 1.0)
        assert status is not None
        assert status.name == "n2"

    run(scenario())


def test_a_lost_peer_is_reported_and_found_again_within_a_second() -> None:
    async def scenario() -> None:
        one, two = await pair()
        one.transport.send([HEARTBEAT])
        await eventually(lambda: two.received)
        await two.stop()
        await eventually(lambda: 2 in one.unreachable)
        port = two.port
        again = Peer(2)
        await again.start(port)
        again.meet(one)

        def keep_saying() -> bool:
            one.transport.send([HEARTBEAT])
            return bool(again.received)

        await eventually(keep_saying, within=3)
        assert again.received[0] == HEARTBEAT

    run(scenario())


def test_a_peer_that_cannot_be_reached_costs_nothing_but_a_report() -> None:
    async def scenario() -> None:
        one = Peer(1)
        await one.start()
        one.configuration = Configuration.of_voters([Member(1, "n1", one.addr), Member(2, "n2", "127.0.0.1:1")])
        one.transport.set_configuration(one.configuration)
        one.transport.send([HEARTBEAT])
        await eventually(lambda: 2 in one.unreachable)
        assert not one.transport.connected(2)
        assert await one.transport.status(2, 0.5) is None
        assert one.transport.down_seconds(2) is not None

    run(scenario())


def hello(**changes: Any) -> raft_pb2.Hello:
    fields: dict[str, Any] = {
        "cluster_id": CLUSTER,
        "node_id": 1,
        "to": 2,
        "name": "n1",
        "client_addr": "127.0.0.1:9001",
        "peer_addr": "127.0.0.1:9101",
        "version": "test",
        "protocol": PROTOCOL,
        "incarnation": 1001,
    }
    return raft_pb2.Hello(**{**fields, **changes})


async def knock(addr: str, *messages: bytes) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """Say these bytes to a peer port and return how the stream ended."""
    async with grpc.aio.insecure_channel(addr) as channel:
        open_stream: Any = channel.stream_stream
        call = open_stream(STREAM_METHOD)()
        try:
            for message in messages:
                await call.write(message)
            while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass
        return await call.code(), await call.details(), dict(await call.trailing_metadata() or ())


REFUSALS = {
    "another cluster's id": (hello(cluster_id=0xBAD), "cluster"),
    "an addressee who is not here": (hello(to=3), "addressee"),
    "another member's id under this name": (hello(name="imposter"), "member"),
    "this member's own id": (hello(node_id=2, name="n2"), "member"),
    "another protocol": (hello(protocol=PROTOCOL + 1), "protocol"),
    "another incarnation than the one bound": (hello(incarnation=5), "incarnation"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_hello_that_does_not_fit_is_refused_before_consensus_sees_anything(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    greeting, kind = REFUSALS[case]

    async def scenario() -> None:
        two = Peer(2)
        await two.start()
        two.book.bindings = {1: 1001}
        two.configuration = Configuration.of_voters([Member(1, "n1", "h:1"), Member(2, "n2", two.addr)])
        with caplog.at_level(logging.WARNING, logger="lattice.rpc"):
            first = raft_pb2.Envelope(hello=greeting, messages=[to_pb(HEARTBEAT)]).SerializeToString()
            code, reason, trailing = await knock(two.addr, first)
            # grpc.aio may call a write into a stream that ends INTERNAL, so the status of this is no matter.
            await knock(two.addr, first, raft_pb2.Envelope(messages=[to_pb(HEARTBEAT)]).SerializeToString())
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert trailing[REFUSAL_METADATA_KEY] == kind
        assert two.received == []
        assert two.book.bindings == {1: 1001}
        assert reason in caplog.text, "the refuser's log says why"
        assert len(caplog.records) == 1, "and not again for every attempt from another port"

    run(scenario())


@pytest.mark.parametrize(
    ("case", "data"),
    [
        ("not an envelope", b"\xff\xff\xff"),
        (
            "a message without a body",
            raft_pb2.Envelope(messages=[raft_pb2.Message(sender=1, to=2)]).SerializeToString(),
        ),
        (
            "a message of somebody else",
            raft_pb2.Envelope(messages=[to_pb(Heartbeat(3, 2, 1, 0, 0))]).SerializeToString(),
        ),
    ],
)
def test_malformed_bytes_close_that_stream_and_change_nothing(case: str, data: bytes) -> None:
    async def scenario() -> None:
        one, two = await pair()
        # The real one would take the place of who claims to be it, and the stream would end before its bytes are read.
        await eventually(lambda: one.transport._links[2].connected)
        await one.stop()
        three = Peer(3)
        await three.start()
        three.meet(two)
        good = raft_pb2.Envelope(hello=hello()).SerializeToString()
        code, _, _ = await knock(two.addr, good, data)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert two.received == []
        three.transport.send([Heartbeat(3, 2, 1, 0, 0)])
        await eventually(lambda: two.received)  # others are not concerned

    run(scenario())


def test_an_oversized_message_closes_that_stream_and_changes_nothing() -> None:
    async def scenario() -> None:
        two = Peer(2)
        await two.start()
        code, _, _ = await knock(two.addr, raft_pb2.Envelope(hello=hello()).SerializeToString(), bytes(17 << 20))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert two.received == []

    run(scenario())


def test_a_message_that_the_core_refuses_closes_that_stream() -> None:
    async def scenario() -> None:
        one, two = await pair()
        two.refuse = MalformedMessage("acknowledges what was never sent")
        one.transport.send([HEARTBEAT])
        await eventually(lambda: 2 in one.unreachable)
        two.refuse = None

        def keep_saying() -> bool:
            one.transport.send([HEARTBEAT])
            return bool(two.received)

        await eventually(keep_saying)

    run(scenario())


def test_the_first_incarnation_seen_is_bound_and_passed_on() -> None:
    """A member that lost its directory is recognised even by those who never met it before (SAFETY 22)."""

    async def scenario() -> None:
        one, two, three = Peer(1), Peer(2), Peer(3)
        for peer in (one, two, three):
            await peer.start()
        three.meet(one)
        await eventually(lambda: one.book.bindings.get(3) == 1003)
        await three.stop()  # and its disk is gone
        one.meet(two)
        await eventually(lambda: two.book.bindings.get(3) == 1003)
        replaced = Peer(3, incarnation=4711)
        await replaced.start()
        replaced.meet(two)
        replaced.transport.send([Heartbeat(3, 2, 1, 0, 0)])
        await eventually(lambda: replaced.disowned)
        assert "remove-server n3" in replaced.disowned[0]
        two.meet(replaced)  # and is told by it why it is refused, which is no fault of its own
        await eventually(lambda: 3 in two.unreachable)
        assert not two.disowned
        assert not one.disowned
        assert two.received == []

    run(scenario())


def test_a_dialler_refuses_whoever_answers_at_the_wrong_address() -> None:
    async def scenario() -> None:
        one, two = Peer(1), Peer(2, cluster_id=0xBAD)
        await one.start()
        await two.start()
        one.meet(two)
        one.transport.send([HEARTBEAT])
        await eventually(lambda: 2 in one.unreachable)
        assert two.received == []
        assert one.directory.get(2) is None

    run(scenario())
