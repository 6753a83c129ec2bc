"""Nodes with TLS on both ports: who is served, who is refused and how they are told, and files that change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from membership_harness import joiner
from server_harness import Cluster, cluster, configs, eventually, free_ports, run
from tls_files import Mint, Pair

from lattice_core.client import AsyncClient, ClientTLS, StatusWatch
from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError, LatticeError, Unavailable
from lattice_core.server import tls as node_tls
from lattice_core.server.families import FAMILIES
from lattice_core.server.run import RunningNode


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Mint:
    return Mint(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_tls, "LOOK_SECONDS", 0.02)


def endpoints(running: Cluster) -> str:
    return ",".join(each.config.client_addr for each in running.nodes.values())


# -- in order ------------------------------------------------------------------------------------------


def test_a_cluster_with_mutual_tls_everywhere_serves_and_takes_a_new_member(tmp_path: Path, mint: Mint) -> None:
    async def scenario() -> None:
        async with cluster([mint.secured(config) for config in configs(tmp_path, 3)]) as running:
            await running.leader()
            async with AsyncClient(endpoints(running), timeout=10.0, tls=mint.client_tls()) as client:
                await client.put("k", "v")
                config = mint.secured(joiner(running, tmp_path, "n4"), tls_ca=mint.ca)
                running.configs["n4"] = config
                await running.start("n4")
                status = await client.cluster_status()
                assert {member.name for member in status.members if member.reachable} == {"n1", "n2", "n3", "n4"}
                async with StatusWatch(endpoints(running), tls=mint.client_tls()) as watch:
                    assert len((await watch.ask()).members) == 4
            async with AsyncClient(config.client_addr, timeout=10.0, tls=mint.client_tls()) as client:
                found = await client.get("k", consistency="stale")
                assert found is not None
                assert found.value == b"v"

    run(scenario())


def test_clients_need_no_certificate_where_none_is_asked_for(tmp_path: Path, mint: Mint) -> None:
    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        async with cluster([mint.secured(config, tls_client_ca="")]) as running:
            await running.leader()
            async with AsyncClient(config.client_addr, tls=ClientTLS(mint.ca)) as client:
                assert await client.put("k", "v") == 1

    run(scenario())


def test_when_a_ports_certificate_ends_is_a_metric(tmp_path: Path, mint: Mint) -> None:
    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        async with cluster([mint.secured(config)]) as running:
            (family,) = (each for each in FAMILIES if "tls" in each.name)
            samples = dict(family.read(running.nodes["n1"].node))
            listener = running.nodes["n1"].node.tls.listeners[0]
            assert samples == dict.fromkeys([("client",), ("peer",)], listener.certificate.not_after.timestamp())

    run(scenario())


def test_a_member_tells_a_doctor_of_the_certificates_in_force(tmp_path: Path, mint: Mint) -> None:
    async def scenario() -> None:
        config = mint.secured(configs(tmp_path, 1)[0])
        async with cluster([config]) as running:
            await running.leader()
            async with AsyncClient(config.client_addr, timeout=10.0, tls=mint.client_tls()) as client:
                (examined,) = await client.examine([config.client_addr])
                (other,) = (each.status for each in (await client.cluster_status()).members)
            assert examined.status is not None
            assert examined.status.details is not None
            assert other is not None
            assert other.details is None
            now = time.time()
            paths = {"client": config.tls_cert, "peer": config.peer_tls_cert}
            told = {each.port: each for each in examined.status.details.certificates}
            assert {port: each.path for port, each in told.items()} == paths
            for each in told.values():
                assert now + 4 * 86_400 < each.not_after_seconds <= now + 5 * 86_400
                assert each.not_before_seconds < now

    run(scenario())


# -- clients that are refused --------------------------------------------------------------------------

CLIENTS: dict[str, tuple[Callable[[Mint], ClientTLS | None], str, str]] = {
    # what it comes with; what it is told; what it is to try
    "plain text": (lambda mint: None, "it speaks TLS, and this side does not", "--tls-ca ca.pem"),
    "no certificate": (
        lambda mint: ClientTLS(mint.ca),
        "it demands a certificate, and this side has none to show",
        "--tls-cert FILE --tls-key FILE; to make them: lattice certs client NAME",
    ),
    "an expired certificate": (
        lambda mint: mint.client_tls(mint.client("late", expired=True)),
        "it refuses this side's certificate {dir}/late.pem (for late), which expired on ",
        "lattice certs client NAME --replace",
    ),
    "a strange authority's certificate": (
        lambda mint: mint.client_tls(mint.client("odd", authority=mint.strange_authority)),
        "it refuses this side's certificate {dir}/odd.pem (for odd): it may not trust CA strange, who issued it",
        "--tls-cert and --tls-key of an authority that it trusts",
    ),
    "a certificate for servers": (
        lambda mint: mint.client_tls(mint.pair("server", client=False)),
        "which may not be used by a client",
        "--tls-cert FILE --tls-key FILE; to make them: lattice certs client NAME",
    ),
    "trust in somebody else": (
        lambda mint: ClientTLS(mint.strange_ca),
        "its certificate (for member n1, localhost, 127.0.0.1) was issued by CA ca, which is not among the authorities "
        "in {dir}/strange.pem",
        "--tls-ca with the ca.pem of that cluster",
    ),
}


def test_a_client_that_is_refused_is_told_in_one_line_what_is_wrong_and_changes_nothing(
    tmp_path: Path, mint: Mint
) -> None:
    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        async with cluster([mint.secured(config)]) as running:
            await running.leader()
            async with AsyncClient(config.client_addr, tls=mint.client_tls()) as good:
                before = await good.node_status()
                for what, (make, told, hint) in CLIENTS.items():
                    async with AsyncClient(config.client_addr, timeout=8.0, tls=make(mint)) as client:
                        for call in (client.put("k", "v"), client.node_status(), client.get("k", consistency="stale")):
                            began = asyncio.get_running_loop().time()
                            with pytest.raises(Unavailable) as caught:
                                await call
                            assert told.format(dir=mint.directory) in caught.value.message, what
                            assert caught.value.hint == hint, what
                            assert asyncio.get_running_loop().time() - began < 7.0, f"{what}: told at once"
                after = await good.node_status()
                assert (after.last_index, after.revision) == (before.last_index, before.revision)

    run(scenario())


def test_a_member_that_does_not_speak_tls_is_recognised(tmp_path: Path, mint: Mint) -> None:
    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        async with cluster([config]), AsyncClient(config.client_addr, tls=ClientTLS(mint.ca)) as client:
            with pytest.raises(Unavailable, match="it does not speak TLS, and this side does"):
                await client.get("k")

    run(scenario())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda mint: mint.member("n1", expired=True), r"its certificate \(for member n1, .*\) expired on "),
        (
            lambda mint: mint.member("n1", hosts=["db1.example.com"], addresses=()),
            "its certificate is for member n1, db1.example.com, not for 127.0.0.1",
        ),
    ],
    ids=["expired", "for another host"],
)
def test_a_client_refuses_a_member_whose_certificate_is_not_good(
    tmp_path: Path, mint: Mint, monkeypatch: pytest.MonkeyPatch, make: Callable[[Mint], Pair], told: str
) -> None:
    async def scenario() -> None:
        (config,) = configs(tmp_path, 1)
        config = mint.secured(config)
        make(mint)
        # No node starts with an expired certificate; but it may expire while it runs.
        monkeypatch.setattr(node_tls.Listener, "_check", lambda self, material: None)
        monkeypatch.setattr(node_tls.Listener, "warn", lambda self: None)
        async with cluster([config]), AsyncClient(config.client_addr, tls=mint.client_tls()) as client:
            with pytest.raises(Unavailable, match=told):
                await client.get("k")

    run(scenario())


# -- nodes that do not start ---------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Callable[[Mint], dict[str, str]], str]] = {
    "missing": (lambda mint: {"tls_cert": "none.pem"}, "--tls-cert: cannot read none.pem: no such file or directory"),
    "a directory": (lambda mint: {"peer_tls_ca": "/"}, "--peer-tls-ca: cannot read /: is a directory"),
    "no PEM": (lambda mint: {"tls_client_ca": __file__}, "holds no certificate in PEM"),
    "key for certificate": (
        lambda mint: {"tls_cert": mint.member("n1").key},
        "holds a private key, where a certificate should be",
    ),
    "another's key": (
        lambda mint: {"tls_key": mint.client("other").key},
        "--tls-key {dir}/other.key is not the key of --tls-cert {dir}/n1.pem",
    ),
    "expired": (
        lambda mint: _pair("tls", mint.pair("late", expired=True)),
        "--tls-cert {dir}/late.pem expired on ",
    ),
    "for clients": (
        lambda mint: _pair("tls", mint.client()),
        "--tls-cert {dir}/client.pem is a certificate for clients only",
    ),
    "another member's": (
        lambda mint: _pair("peer_tls", mint.member("n2")),
        "--peer-tls-cert {dir}/n2.pem is for member n2, localhost, 127.0.0.1, and this node is n1",
    ),
    "nobody's": (
        lambda mint: _pair("peer_tls", mint.pair("host")),
        "--peer-tls-cert {dir}/host.pem is for localhost, 127.0.0.1, and this node is n1",
    ),
    "a strange authority's": (
        lambda mint: _pair("peer_tls", mint.pair("odd", members=["n1"], authority=mint.strange_authority)),
        "--peer-tls-cert {dir}/odd.pem was issued by CA strange, which is not among the authorities in --peer-tls-ca",
    ),
    "half a pair": (lambda mint: {"tls_key": ""}, "--tls-cert {dir}/n1.pem needs --tls-key too"),
    "no authority for peers": (
        lambda mint: {"peer_tls_ca": ""},
        "--peer-tls-cert {dir}/n1.pem needs --peer-tls-ca too",
    ),
    "an authority for nothing": (
        lambda mint: {"tls_cert": "", "tls_key": ""},
        "--tls-client-ca {dir}/ca.pem needs --tls-cert and --tls-key",
    ),
}


def _pair(port: str, pair: Pair) -> dict[str, str]:
    return {f"{port}_cert": pair.cert, f"{port}_key": pair.key}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_node_whose_files_cannot_work_does_not_start_and_names_the_file(
    tmp_path: Path, mint: Mint, what: str
) -> None:
    make, told = SETTINGS[what]
    config = mint.secured(NodeConfig(data_dir=str(tmp_path / "d")))
    with pytest.raises(ConfigurationError) as caught:
        RunningNode(replace(config, **make(mint)))
    assert told.format(dir=mint.directory) in caught.value.message
    assert not (tmp_path / "d").exists()


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked_for_a_password(tmp_path: Path, mint: Mint) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = mint.member("n1")
    key = serialization.load_pem_private_key(Path(pair.key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigurationError, match=r"locked\.key is encrypted"):
        AsyncClient("127.0.0.1:1", tls=ClientTLS(mint.ca, pair.cert, locked))


# -- files that change ---------------------------------------------------------------------------------


def test_new_files_are_met_by_new_connections_and_bad_ones_by_nobody(
    tmp_path: Path, mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    own = Mint(tmp_path)
    (config,) = configs(tmp_path, 1)

    async def scenario() -> None:
        async with cluster([own.secured(config)]) as running:
            await running.leader()
            listeners = running.nodes["n1"].node.tls.listeners
            first = [each.certificate for each in listeners]
            async with AsyncClient(config.client_addr, tls=own.client_tls()) as connected:
                await connected.put("k", "1")

                # A key of another certificate, and then one that has expired: neither is taken.
                own.replace("n1.key", own.client("other").key)
                await eventually(lambda: "is not the key of" in caplog.text)
                own.member("n1", expired=True)
                await eventually(lambda: "expired on" in caplog.text)
                assert [each.certificate for each in listeners] == first
                async with AsyncClient(config.client_addr, tls=own.client_tls()) as client:
                    await client.get("k")

                # A new authority: its clients are served, those of the old one are not, and whoever is connected stays.
                own.authority, own.ca = own._authority("ca")
                own.member("n1")
                await eventually(lambda: not {each.certificate for each in listeners} & set(first))
                async with AsyncClient(config.client_addr, tls=own.client_tls(own.client("renewed"))) as client:
                    assert await client.put("k", "2") == 2
                old = ClientTLS(own.ca, own.directory / "client.pem", own.directory / "client.key")
                async with AsyncClient(config.client_addr, tls=old) as client:
                    with pytest.raises(Unavailable, match="it refuses this side's certificate"):
                        await client.get("k")
                assert await connected.put("k", "3") == 3

    run(scenario())
    assert "the old ones stay in force" in caplog.text


def test_a_client_takes_new_files_for_its_next_connection_and_keeps_the_old_for_bad_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Mint(tmp_path)
    (config,) = configs(tmp_path, 1)

    async def scenario() -> None:
        async with cluster([own.secured(config)]) as running:
            await running.leader()
            async with AsyncClient(config.client_addr, timeout=10.0, tls=own.client_tls()) as client:
                await client.put("k", "1")
                own.replace("ca.pem", __file__)
                await client.node_status()  # a connection of its own
                assert "holds no certificate in PEM; what was read before stays in force" in caplog.text
                own.authority, own.ca = own._authority("ca")
                own.member("n1")
                own.client()
                await eventually(lambda: caplog.text.count("has a new certificate") == 2)
                assert (await client.node_status()).name == "n1"

    caplog.set_level(logging.INFO, "lattice.tls")
    run(scenario())


def test_a_certificate_that_ends_soon_is_warned_about_once_a_day(
    tmp_path: Path, mint: Mint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = mint.pair("short", days=1)
    listener = node_tls.Listener("client", (mint.ca, pair.cert, pair.key), node_tls.CLIENT_LABELS, None)
    listener.warn()
    assert not caplog.records
    ends = listener.certificate.not_after
    moment = ends - (ends - listener.certificate.not_before) / 4

    class Later(node_tls.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment

    monkeypatch.setattr(node_tls, "datetime", Later)
    listener.warn()
    listener.warn()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"the client port's certificate {pair.cert} is valid until" in caplog.text


# -- members -------------------------------------------------------------------------------------------


def test_a_server_that_joins_under_a_name_that_is_not_its_certificates_is_not_admitted(
    tmp_path: Path, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with cluster([mint.secured(config) for config in configs(tmp_path, 1)]) as running:
            leader = await running.leader()
            config = mint.secured(joiner(running, tmp_path, "n4"), tls_ca=mint.ca)
            pair = mint.member("n5")
            # It knows better than to start like that; a hostile one would.
            monkeypatch.setattr(
                node_tls.Listener, "_check", lambda self, material: leader.node.tls.listeners[0].certificate
            )
            monkeypatch.setattr("lattice_core.server.joining.PATIENCE_SECONDS", 0.0)
            node = RunningNode(replace(config, peer_tls_cert=pair.cert, peer_tls_key=pair.key))
            with pytest.raises(LatticeError, match=r"its certificate is for member n5, .*, not for member n4"):
                await node.start()
            assert len(leader.node.core.configuration.members) == 1

    run(scenario())


def test_one_that_joins_a_cluster_with_tls_is_told_which_options_are_missing(
    tmp_path: Path, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lattice_core.server.joining.PATIENCE_SECONDS", 0.0)

    async def scenario() -> None:
        async with cluster([mint.secured(config) for config in configs(tmp_path, 1)]) as running:
            await running.leader()
            ports = free_ports(2)
            config = NodeConfig(
                name="n4",
                data_dir=str(tmp_path / "n4"),
                client_addr=f"127.0.0.1:{ports[0]}",
                peer_addr=f"127.0.0.1:{ports[1]}",
                join=endpoints(running),
            )
            with pytest.raises(Unavailable, match=r"it speaks TLS, and this side does not \(--tls-ca ca\.pem\)"):
                await RunningNode(config).start()

    run(scenario())
