"""Changes that cannot be meant: one sentence each, with what to do instead, and the members stay as they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from membership_harness import ask, joiner, member_ids
from server_harness import cluster, configs, free_ports, put, run

from lattice_core.errors import (
    InvalidRequest,
    LatticeError,
    NotAllowed,
    Unavailable,
)
from lattice_core.raft.membership import MembershipChange
from lattice_core.raft.types import Configuration
from lattice_core.rpc.pb import cluster_pb2
from lattice_core.server import joining

# -- who is let in ------------------------------------------------------------------------------------


def test_an_address_is_looked_at_before_anybody_is_added(tmp_path: Path) -> None:
    """One sentence each, and the members stay as they are."""

    async def scenario() -> None:
        others = configs(tmp_path / "others", 1)
        dead, strange = (f"127.0.0.1:{port}" for port in free_ports(2))
        stranger = grpc.aio.server()
        stranger.add_insecure_port(strange)
        await stranger.start()
        async with cluster(configs(tmp_path, 3)) as running, cluster(others) as elsewhere:
            leader = await running.leader()
            (foreign,) = elsewhere.configs.values()
            waiting = joiner(running, tmp_path, "n9")
            listener = grpc.aio.server(handlers=[joining.joining_handlers(waiting, 77)])
            listener.add_insecure_port(waiting.peer_addr)
            await listener.start()
            n1 = running.configs["n1"]
            before = leader.node.core.configuration
            cases: list[tuple[str, str, type[LatticeError], str]] = [
                ("n1", dead, NotAllowed, f"n1 is a member already, at {n1.peer_addr}"),
                ("n4", n1.peer_addr, NotAllowed, "is the peer address of the member n1"),
                ("n4", dead, NotAllowed, "nobody who could join answers at .*: connection refused"),
                ("n4", strange, NotAllowed, "what listens there is no peer address of Lattice's"),
                ("n4", n1.client_addr, NotAllowed, "what listens there is no peer address of Lattice's"),
                ("n4", foreign.peer_addr, NotAllowed, f"is the peer address of {foreign.name} of another cluster"),
                ("n4", waiting.peer_addr, NotAllowed, "the server that waits at .* is n9, not n4"),
                ("n4", n1.peer_addr.replace("127.0.0.1", "localhost"), NotAllowed, "the peer address of the member n1"),
                ("n 4", dead, InvalidRequest, "member name 'n 4' is not valid"),
                ("n4", "nonsense", InvalidRequest, "peer address 'nonsense' is not HOST:PORT"),
                ("n4", "127.0.0.1:99999", InvalidRequest, "no valid port"),
            ]
            for name, addr, kind, text in cases:
                for dry_run in (False, True):
                    request = cluster_pb2.AddServerRequest(name=name, peer_addr=addr, dry_run=dry_run)
                    if dry_run and kind is NotAllowed:
                        assert (await ask(running, "AddServer", request)).refused
                        continue
                    with pytest.raises(kind, match=text) as caught:
                        await ask(running, "AddServer", request)
                    assert "\n" not in caught.value.message
                    assert kind is InvalidRequest or caught.value.hint
            assert leader.node.core.configuration == before
            # And the one that does wait there, under its own name, is added.
            request = cluster_pb2.AddServerRequest(name="n9", peer_addr=waiting.peer_addr)
            added = await ask(running, "AddServer", request)
            assert leader.node.peers.known_incarnation(added.member.id) == 77
            await listener.stop(None)
        await stranger.stop(None)

    run(scenario())


def test_what_would_cost_the_quorum_is_refused_unless_forced(tmp_path: Path) -> None:
    """SAFETY 38."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            dead, alive = (each.config.name for each in running.followers())
            await running.kill(dead)
            await asyncio.sleep(1.1)
            before = leader.node.core.configuration
            for name in (alive, leader.config.name):
                request = cluster_pb2.RemoveServerRequest(name=name)
                with pytest.raises(NotAllowed, match=f"1 of 2 voters would be live, and 2 are needed .{dead}: no"):
                    await ask(running, "RemoveServer", request)
                request.dry_run = True
                would = await ask(running, "RemoveServer", request)
                assert dead in would.refused
                assert dead in would.hint
            request = cluster_pb2.RemoveServerRequest(name=alive, force=True, dry_run=True)
            assert not (await ask(running, "RemoveServer", request)).refused
            assert leader.node.core.configuration == before
            # The dead one may go: the two that are left are live.
            answer = await ask(running, "RemoveServer", cluster_pb2.RemoveServerRequest(name=dead))
            assert (answer.after.size, answer.after.tolerates, answer.after.live) == (2, 0, 2)

    run(scenario())


def test_a_second_change_while_one_is_pending_names_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAFETY 33."""
    from lattice_core.server import membership_requests

    monkeypatch.setattr(membership_requests, "PENDING_SECONDS", 0.1)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            core = leader.node.core
            # Nothing is heard of the only other voter, and so a change waits.
            dead = running.followers()[0].config.name
            await running.kill(dead)
            other = running.followers()[0].node
            monkeypatch.setattr(other.transport, "send", lambda messages: None)
            core.propose_membership(MembershipChange(remove=frozenset((member_ids(leader)[dead],))), core.now_ns)
            leader.node.loop.kick()
            request = cluster_pb2.RemoveServerRequest(name=dead)
            with pytest.raises(NotAllowed, match="another change is under way: the voters n1, n2, n3 become") as caught:
                await ask(running, "RemoveServer", request, addr=leader.config.client_addr)
            assert "lattice cluster status" in (caught.value.hint or "")

    run(scenario())


@pytest.mark.parametrize("name", ["the leader", "a follower"])
def test_a_leader_in_a_minority_puts_no_change_into_its_log(tmp_path: Path, name: str) -> None:
    """It could be committed later, when it leads again, after its caller was told that nothing had come of it."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            core, last = leader.node.core, leader.node.core.last_index
            for follower in running.followers():
                follower.node.transport.send = lambda messages: None  # type: ignore[method-assign]
            whom = leader.config.name if name == "the leader" else running.followers()[0].config.name
            request = cluster_pb2.RemoveServerRequest(name=whom, timeout_seconds=3)
            with pytest.raises((Unavailable, NotAllowed)):
                await ask(running, "RemoveServer", request, addr=leader.config.client_addr)
            assert not core.is_leader
            assert not any(
                isinstance(entry.payload, Configuration) for entry in core.log.between(last, core.last_index)
            )

    run(scenario())


def test_a_dry_run_says_what_becomes_of_the_quorum_and_proposes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            last = leader.node.core.last_index
            add = cluster_pb2.AddServerRequest(name="n4", peer_addr="127.0.0.1:1", start_later=True, dry_run=True)
            outlook = await ask(running, "AddServer", add)
            assert (outlook.before.size, outlook.before.tolerates, outlook.before.live) == (2, 1, 3)
            assert (list(outlook.after.voters), outlook.after.size) == (["n1", "n2", "n3", "n4"], 3)
            add.learner = True
            outlook = await ask(running, "AddServer", add)
            assert (list(outlook.after.learners), outlook.after.size) == (["n4"], 2)
            swap = cluster_pb2.ReplaceServerRequest(
                old="n2", name="n4", peer_addr="127.0.0.1:1", start_later=True, dry_run=True
            )
            assert list((await ask(running, "ReplaceServer", swap)).after.voters) == ["n1", "n3", "n4"]
            gone = cluster_pb2.RemoveServerRequest(name="n3", dry_run=True)
            assert list((await ask(running, "RemoveServer", gone)).after.voters) == ["n1", "n2"]
            assert leader.node.core.last_index == last

    run(scenario())


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        ("RemoveServer", cluster_pb2.RemoveServerRequest(name="nix"), "'nix' is no member of this cluster; there are"),
        ("PromoteServer", cluster_pb2.PromoteServerRequest(name="nix"), "'nix' is no member"),
        ("PromoteServer", cluster_pb2.PromoteServerRequest(name="n1"), "n1 votes already"),
        ("PromoteServer", cluster_pb2.PromoteServerRequest(name="n4"), "n4 has never been heard from"),
        ("ReplaceServer", cluster_pb2.ReplaceServerRequest(old="nix", name="n5", peer_addr="h:1"), "'nix' is no"),
        ("ReplaceServer", cluster_pb2.ReplaceServerRequest(old="n4", name="n5", peer_addr="h:1"), "n4 is a learner"),
        ("ReplaceServer", cluster_pb2.ReplaceServerRequest(old="n1", name="n2", peer_addr="h:1"), "n2 votes already"),
        ("TransferLeader", cluster_pb2.TransferLeaderRequest(target="nix"), "'nix' is no member"),
        ("TransferLeader", cluster_pb2.TransferLeaderRequest(target="n4"), "n4 is a learner and cannot lead"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_meant_is_refused_with_what_to_do_instead(
    tmp_path: Path, method: str, request_: Any, text: str
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 2)) as running:
            leader = await running.leader()
            add = cluster_pb2.AddServerRequest(name="n4", peer_addr="127.0.0.1:1", start_later=True)
            await ask(running, "AddServer", add)
            before = leader.node.core.configuration
            with pytest.raises(NotAllowed, match=text) as caught:
                await ask(running, method, request_)
            assert caught.value.hint
            assert leader.node.core.configuration == before
            assert leader.node.core.is_leader

    run(scenario())


def test_safety_46_a_transfer_to_a_dead_member_or_to_itself_is_refused_and_writes_go_on(tmp_path: Path) -> None:
    """Without that, writes would wait for an election timeout, for nothing."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            with pytest.raises(NotAllowed, match="leads already"):
                await leader.node.transfer_leader(leader.config.name)
            dead, alive = (each.config.name for each in running.followers())
            await running.kill(dead)
            await asyncio.sleep(1.1)
            with pytest.raises(NotAllowed, match=f"{dead} does not answer") as caught:
                await leader.node.transfer_leader(dead)
            assert alive in (caught.value.hint or "")
            assert leader.node.core.progress
            await put(leader.config.client_addr, b"a", b"1")

    run(scenario())
