"""TLS with real processes and the real command line: one line for whoever is refused, and one in the node's log."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import LocalCluster, LocalNode, eventually, lattice

from lattice_cli import cert_files

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, method="signal")]


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As lattice certs makes them (tests/cli/test_certs.py): of the cluster's authority, and of another."""
    directory = tmp_path_factory.mktemp("tls")
    for authority in ("certs", "other"):
        cert_files.make_authority(directory / authority, 10)
    cert_files.make_node(directory / "certs", "n1", [], 5)
    cert_files.make_client(directory / "certs", "alice", 5)
    cert_files.make_client(directory / "other", "mallory", 5)
    return directory


@pytest.fixture(scope="module")
def node(certs: Path) -> Iterator[LocalNode]:
    """One member with mutual TLS on both ports, and a log in JSON."""
    own = ("certs/n1.pem", "certs/n1.key", "certs/ca.pem")
    client = zip(("--tls-cert", "--tls-key", "--tls-client-ca"), own, strict=True)
    peer = zip(("--peer-tls-cert", "--peer-tls-key", "--peer-tls-ca"), own, strict=True)
    options = [part for pair in (*client, *peer) for part in pair]
    with LocalCluster(certs, 1, options=(*options, "--log-format", "json")) as cluster:
        yield cluster["n1"]


REFUSED = {
    # what it comes with; the line it gets; the reason in the node's log
    "no certificate": (
        ["--tls-ca", "certs/ca.pem"],
        "it demands a certificate, and this side has none to show. try: --tls-cert FILE --tls-key FILE",
        "it has shown no certificate, and has to",
    ),
    "plain text": (
        [],
        "it speaks TLS, and this side does not. try: --tls-ca ca.pem",
        "it does not speak TLS",
    ),
    "another authority's certificate": (
        ["--tls-ca", "certs/ca.pem", "--tls-cert", "other/client-mallory.pem", "--tls-key", "other/client-mallory.key"],
        "it refuses this side's certificate other/client-mallory.pem (for mallory): it may not trust Lattice CA",
        "its certificate was not issued by an authority that is trusted here",
    ),
    "trust in another authority": (
        ["--tls-ca", "other/ca.pem"],
        "which is not among the authorities in other/ca.pem. try: --tls-ca with the ca.pem of that cluster",
        None,  # it is the client that refuses
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_who_is_refused_gets_one_line_and_the_node_logs_why(certs: Path, node: LocalNode, what: str) -> None:
    options, told, logged = REFUSED[what]
    done = lattice("--endpoints", node.client_addr, *options, "put", "k", "v", cwd=certs)
    assert done.code == 3
    assert told in done.the_error()
    if logged is not None:
        line = f'"message": "a TLS connection with somebody was not made: {logged}"'
        eventually(lambda: line in node.log(), "the node says why")


def test_who_has_a_certificate_is_served_by_options_and_by_variables(certs: Path, node: LocalNode) -> None:
    files = {"ca": "certs/ca.pem", "cert": "certs/client-alice.pem", "key": "certs/client-alice.key"}
    options = [part for name, path in files.items() for part in (f"--tls-{name}", path)]
    done = lattice("--endpoints", node.client_addr, "put", "served", "yes", *options, cwd=certs)
    assert (done.code, done.err) == (0, ""), done
    variables = {f"LATTICE_TLS_{name.upper()}": path for name, path in files.items()}
    done = lattice("get", "served", env={"LATTICE_ENDPOINTS": node.client_addr, **variables}, cwd=certs)
    assert (done.code, done.out) == (0, b"yes"), done


@pytest.mark.parametrize("port", ["client_addr", "peer_addr"])
def test_nothing_older_than_tls_1_3_is_spoken(certs: Path, node: LocalNode, port: str) -> None:
    host, _, number = getattr(node, port).rpartition(":")

    def version(highest: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=str(certs / "certs/ca.pem"))
        context.load_cert_chain(certs / "certs/client-alice.pem", certs / "certs/client-alice.key")
        context.set_alpn_protocols(["h2"])
        context.maximum_version = highest
        plain = socket.create_connection((host, int(number)), timeout=10)
        with context.wrap_socket(plain, server_hostname=host) as secure:
            return secure.version()

    assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        version(ssl.TLSVersion.TLSv1_2)
    eventually(lambda: "it does not offer TLS 1.3" in node.log(), "the node says why")


def test_the_log_holds_nothing_of_grpcs_own(node: LocalNode) -> None:
    assert "ssl_transport_security" not in node.log()
    assert all(line.startswith(("{", "ready ")) for line in node.log().splitlines()), node.log()


def test_a_renewed_certificate_is_shown_without_a_restart(certs: Path, node: LocalNode) -> None:
    host, _, number = node.client_addr.rpartition(":")

    def shown() -> bytes | None:
        context = ssl.create_default_context(cafile=str(certs / "certs/ca.pem"))
        context.load_cert_chain(certs / "certs/client-alice.pem", certs / "certs/client-alice.key")
        plain = socket.create_connection((host, int(number)), timeout=10)
        with context.wrap_socket(plain, server_hostname=host) as secure:
            return secure.getpeercert(binary_form=True)

    before = shown()
    assert lattice("certs", "node", "n1", "--replace", "--days", "3", cwd=certs).code == 0
    eventually(lambda: shown() != before, "new connections are shown the new certificate")
    assert "has a new certificate" in node.log()
