"""A member's name is bound to its certificate, and both sides of a connection check it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from rpc_loopback import Peer, eventually, run
from tls_files import Mint, Pair

from lattice_core.raft.messages import Heartbeat
from lattice_core.raft.types import Configuration, Member
from lattice_core.rpc import link
from lattice_core.rpc.credentials import NOT_A_MEMBER, open_channel
from lattice_core.rpc.link import STATE_HASH_METHOD, STATUS_METHOD, fetch_status, greet
from lattice_core.rpc.options import peer_channel_options
from lattice_core.rpc.pb import raft_pb2
from lattice_core.rpc.snapshot_stream import Offer, Sink, send_snapshot
from lattice_core.rpc.transport import raft_handlers
from lattice_core.tls import Material, load, member_dns_name, member_of_dns_name

HEARTBEAT = Heartbeat(1, 2, 3, 0, 7)


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Mint:
    return Mint(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def _always_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "EXPLAIN_AGAIN_SECONDS", 0.0)


def material(mint: Mint, pair: Pair, ca: str | None = None) -> Material:
    return load(ca or mint.ca, pair.cert, pair.key)


async def start(peer: Peer, given: Material | None) -> Peer:
    peer.material = given
    await peer.start()
    return peer


async def two_members(mint: Mint, first: Pair, second: Pair) -> tuple[Peer, Peer]:
    one, two = await start(Peer(1), material(mint, first)), await start(Peer(2), material(mint, second))
    one.meet(two)
    two.meet(one)
    return one, two


@pytest.mark.parametrize("name", ["n1", "N1", "a_b", "a.b", "_A", "a__B", "-", "x" * 64, "_" * 64])
def test_no_two_members_have_the_same_name_in_their_certificates(name: str) -> None:
    dns_name = member_dns_name(name)
    assert dns_name == dns_name.lower()
    assert len(dns_name) < 255
    assert member_of_dns_name(dns_name) == name


@pytest.mark.parametrize("dns_name", ["member.lattice", ".member.lattice", "_.member.lattice", "n1.example.com", "n1"])
def test_other_names_are_no_members(dns_name: str) -> None:
    assert member_of_dns_name(dns_name) is None


@pytest.mark.parametrize("name", ["n2", "N2", "a_b.c-d"])
def test_members_with_certificates_of_their_names_talk(mint: Mint, name: str) -> None:
    async def scenario() -> None:
        one, two = Peer(1), Peer(2, name=name)
        await start(one, material(mint, mint.member("n1")))
        await start(two, material(mint, mint.member(name)))
        one.meet(two)
        two.meet(one)
        one.transport.send([HEARTBEAT])
        await eventually(lambda: two.received == [HEARTBEAT])
        status = await one.transport.status(2, 5)
        assert status is not None
        assert status.node_id == 2

    run(scenario())


def test_a_member_that_claims_anothers_name_is_refused_before_its_hello_counts(
    mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    """It has a good certificate, of another name: a member that was broken into, or a mistake."""

    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await start(two, material(mint, mint.member("n2")))
        await start(one, material(mint, mint.member("n4")))  # and says that it is n1
        one.meet(two)
        two.configuration = Configuration.of_voters([Member(1, "n1", one.addr), Member(2, "n2", two.addr)])
        one.transport.send([HEARTBEAT])
        await eventually(lambda: "has shown a certificate for member n4" in caplog.text)
        assert "who says to be n1 (0000000000000001 at 127.0.0.1:" in caplog.text
        assert two.book.bindings == {}
        assert two.directory.get(1) is None
        assert two.received == []
        assert not await greet(2, two.addr, one.directory, 5)
        assert two.book.bindings == {}

    run(scenario())


def test_a_snapshot_from_a_member_that_claims_anothers_name_is_refused(mint: Mint) -> None:
    class Nothing:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the sink was asked to {name}")

    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await start(one, material(mint, mint.member("n4")))
        await start(two, material(mint, mint.member("n2")))
        sink: Sink = Nothing()
        two.server.add_generic_rpc_handlers((raft_handlers(two.transport, _no_status, sink),))
        one.meet(two)
        two.meet(one)
        snapshots = await start_with_snapshots(two, sink, mint)
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send_snapshot(2, snapshots.addr, one.directory, Offer(1, 1, "x", 1), _nothing, lambda: True)
            assert "has shown a certificate for member n4" in (caught.value.details() or "")
        finally:
            await snapshots.server.stop(None)

    run(scenario())


class _Listener:
    def __init__(self, server: grpc.aio.Server, addr: str) -> None:
        self.server = server
        self.addr = addr


async def start_with_snapshots(peer: Peer, sink: Sink, mint: Mint) -> _Listener:
    """A listener of the same member that takes snapshots, which :class:`Peer`'s does not."""
    from lattice_core.rpc.credentials import server_credentials
    from lattice_core.rpc.options import peer_server_options

    server = grpc.aio.server(handlers=[raft_handlers(peer.transport, _no_status, sink)], options=peer_server_options())
    given = material(mint, mint.member(peer.name))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: given))
    await server.start()
    return _Listener(server, f"127.0.0.1:{port}")


async def _no_status() -> raft_pb2.MemberStatus:
    return raft_pb2.MemberStatus()


async def _nothing(_offset: int, _size: int) -> bytes:
    return b""


DIALLED: dict[str, tuple[Callable[[Mint], Material | None], str]] = {
    # what the server at n2's address has, and what the one who dials it logs
    "another member's certificate": (
        lambda mint: material(mint, mint.member("n3")),
        "its certificate is for member n3, localhost, 127.0.0.1, not for member n2",
    ),
    "a host's certificate": (
        lambda mint: material(mint, mint.pair("host")),
        "its certificate is for localhost, 127.0.0.1, not for member n2",
    ),
    "a client's certificate": (
        lambda mint: material(mint, mint.client()),
        "its certificate (for client) is not for servers",
    ),
    "an expired certificate": (
        lambda mint: material(mint, mint.member("n2", expired=True)),
        "its certificate (for member n2, localhost, 127.0.0.1) expired on ",
    ),
    "a strange authority's certificate": (
        lambda mint: material(mint, mint.member("n2", authority=mint.strange_authority)),
        "was issued by CA strange, which is not among the authorities in ",
    ),
    "other trust": (
        lambda mint: material(mint, mint.member("n2"), mint.strange_ca),
        "it refuses this side's certificate",
    ),
    "no TLS": (lambda mint: None, "it does not speak TLS, and this side does"),
}


@pytest.mark.parametrize("what", DIALLED)
def test_who_answers_where_a_member_should_be_hears_nothing_without_its_certificate(
    mint: Mint, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    make, told = DIALLED[what]

    async def scenario() -> None:
        greeted: list[object] = []
        one, two = Peer(1), Peer(2)
        await start(one, material(mint, mint.member("n1")))
        await start(two, make(mint))

        async def admit(*arguments: object, **_: object) -> None:
            greeted.append(arguments)

        two.directory.admit = admit  # type: ignore[method-assign, assignment]
        one.meet(two)
        one.transport.send([HEARTBEAT])
        await eventually(lambda: told in caplog.text)
        assert f"cannot talk to n2 at {two.addr}: " in caplog.text
        assert not greeted
        assert one.directory.get(2) is None
        with pytest.raises(grpc.aio.AioRpcError):
            await fetch_status(one.directory.security, "n2", two.addr, 5)

    run(scenario())


def test_plain_text_to_a_member_with_tls_is_recognised(mint: Mint, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        one, two = Peer(1), Peer(2)
        await start(one, None)
        await start(two, material(mint, mint.member("n2")))
        one.meet(two)
        one.transport.send([HEARTBEAT])
        await eventually(lambda: "it speaks TLS, and this side does not" in caplog.text)
        assert two.received == []

    run(scenario())


@pytest.mark.parametrize("method", [STATUS_METHOD, STATE_HASH_METHOD])
def test_a_clients_certificate_opens_nothing_on_the_peer_port(mint: Mint, method: str) -> None:
    async def scenario() -> None:
        two = await start(Peer(2), material(mint, mint.member("n2")))
        client = mint.client()
        async with open_channel(two.addr, material(mint, client), peer_channel_options()) as channel:
            ask: Callable[..., Awaitable[bytes]] = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert caught.value.details() == NOT_A_MEMBER
        assert two.asked == []

    run(scenario())


@pytest.mark.parametrize("secured", [True, False])
def test_a_member_says_what_its_disk_has_and_with_tls_not_what_anothers_has(mint: Mint, secured: bool) -> None:
    async def scenario() -> None:
        two = await start(Peer(2), material(mint, mint.member("n2")) if secured else None)
        members = [Member(1, "n1", "127.0.0.1:1"), Member(2, "n2", two.addr), Member(3, "n3", "127.0.0.1:3")]
        two.configuration = Configuration.of_voters(members)
        given = material(mint, mint.member("n3")) if secured else None
        async with open_channel(two.addr, given, peer_channel_options()) as channel:
            ask: Callable[..., Awaitable[bytes]] = channel.unary_unary(STATE_HASH_METHOD)
            for asker in (1, 2, 3, 4):
                said = raft_pb2.StateHashRequest(index=7, asker_id=asker, no_room="it is full")
                await ask(said.SerializeToString(), timeout=5)
        assert [each.index for each in two.asked] == [7] * 4, "it may ask"
        assert [each.asker_id for each in two.asked] == ([0, 0, 3, 0] if secured else [1, 2, 3, 4])

    run(scenario())


def test_a_key_is_not_shown_where_material_is_printed(mint: Mint) -> None:
    pair = mint.member("n1")
    assert "PRIVATE KEY" not in repr(material(mint, pair))
    assert "PRIVATE KEY" in Path(pair.key).read_text()
