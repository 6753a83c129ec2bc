"""lattice certs: what it makes, who may read it, and that it writes over nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from lattice_cli import cert_files
from lattice_core.certificates import Certificate, issued_by, read
from lattice_core.tls import load


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(path: str) -> Certificate:
    return read(Path(path).read_bytes())[0]


def files() -> set[str]:
    return {path.name for path in Path("certs").iterdir()}


@pytest.fixture
def authority(lattice: Any) -> None:
    assert lattice("certs", "init")[0] == 0


def test_an_authority_is_made_for_everybody_and_its_key_for_nobody(lattice: Any) -> None:
    code, out, err = lattice("certs", "init")
    assert (code, out.split("\t")[:2]) == (0, ["certs/ca.pem", "certs/ca.key"])
    assert "certs/ca.key stays here" in err
    assert "lattice certs node n1 --host HOST" in err
    assert stat.S_IMODE(Path("certs").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path("certs/ca.key").stat().st_mode) == 0o600
    assert made("certs/ca.pem").is_authority
    assert files() == {"ca.pem", "ca.key"}


@pytest.mark.usefixtures("authority")
def test_a_members_certificate_is_for_its_name_and_its_hosts_in_both_directions(lattice: Any) -> None:
    code, out, err = lattice("certs", "node", "N_1", "--host", "10.0.0.1,Db1.example.com", "--host", "[2001:db8::1]")
    assert code == 0, err
    found = made("certs/N_1.pem")
    assert found.members == ("N_1",)
    assert found.dns_names == ("_n__1.member.lattice", "db1.example.com")
    assert found.addresses == ("10.0.0.1", "2001:db8::1")
    assert (found.for_servers, found.for_clients, found.is_authority) == (True, True, False)
    assert stat.S_IMODE(Path("certs/N_1.key").stat().st_mode) == 0o600
    assert issued_by(Path("certs/N_1.pem").read_bytes(), Path("certs/ca.pem").read_bytes())
    assert load("certs/ca.pem", "certs/N_1.pem", "certs/N_1.key").cert is not None
    assert "--peer-tls-cert certs/N_1.pem --peer-tls-key certs/N_1.key --peer-tls-ca certs/ca.pem" in err
    assert out.startswith("certs/N_1.pem\tcerts/N_1.key\t")


@pytest.mark.usefixtures("authority")
def test_without_hosts_it_is_for_this_machine_and_says_so(lattice: Any) -> None:
    err = lattice("certs", "node", "n1")[2]
    assert (made("certs/n1.pem").dns_names[1:], made("certs/n1.pem").addresses) == (
        ("localhost",),
        ("127.0.0.1", "::1"),
    )
    assert "Clients reach it on this machine only" in err


@pytest.mark.usefixtures("authority")
def test_a_clients_certificate_is_no_servers_and_no_members(lattice: Any) -> None:
    code, out, _ = lattice("certs", "client", "alice", "-o", "json")
    document = json.loads(out)
    assert (code, document["kind"], document["certificate"]) == (0, "client", "certs/client-alice.pem")
    found = made("certs/client-alice.pem")
    assert (found.common_name, found.members, found.for_servers, found.for_clients) == ("alice", (), False, True)


@pytest.mark.usefixtures("authority")
def test_nothing_is_written_over_unless_asked(lattice: Any) -> None:
    assert lattice("certs", "node", "n1")[0] == 0
    before = {path: path.read_bytes() for path in Path("certs").iterdir()}
    for command in (["init"], ["node", "n1"]):
        code, out, err = lattice("certs", *command)
        assert (code, out) == (2, "")
        assert "exists already, and is left as it is" in err
    assert {path: path.read_bytes() for path in Path("certs").iterdir()} == before
    assert lattice("certs", "node", "n1", "--replace")[0] == 0
    assert Path("certs/n1.pem").read_bytes() != before[Path("certs/n1.pem")]
    assert load("", "certs/n1.pem", "certs/n1.key").key is not None
    assert files() == {"ca.pem", "ca.key", "n1.pem", "n1.key"}


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["node", "a b"], "member name 'a b' is not valid"),
        (["node", "ca"], "a member called ca would have the authority's files"),
        (["node", "n1", "--host", "10.0.0.1:7400"], "--host '10.0.0.1:7400' is neither a host name nor an IP address"),
        (["node", "n1", "--host", "https://db"], "is neither a host name nor an IP address"),
        (["node", "n1", "--dir", "none"], "there is no none/ca.pem. try: lattice certs init --dir none"),
        (["node", "n1", "--days", "3650", "--dir", "short"], "valid for longer than the authority"),
        (["client", "x", "--dir", "mixed"], "are no authority's: the key is not the certificate's"),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing(lattice: Any, command: list[str], says: str) -> None:
    assert lattice("certs", "init", "--dir", "short", "--days", "2")[0] == 0
    Path("mixed").mkdir()
    Path("mixed/ca.pem").write_bytes(Path("short/ca.pem").read_bytes())
    Path("mixed/ca.key").write_bytes(Path("certs/ca.key").read_bytes())
    code, out, err = lattice("certs", *command)
    assert (code, out) == (2, "")
    assert says in err
    assert files() == {"ca.pem", "ca.key"}


@pytest.mark.usefixtures("authority")
def test_a_disk_that_takes_no_more_leaves_the_old_pair(lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lattice("certs", "node", "n1")[0] == 0
    before = Path("certs/n1.key").read_bytes()
    calls: list[int] = []

    def fsync(_fd: int) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(cert_files.os, "fsync", fsync)
    code, _, err = lattice("certs", "node", "n1", "--replace")
    assert code == 2
    assert "no space left on device" in err
    assert Path("certs/n1.key").read_bytes() == before
    assert files() == {"ca.pem", "ca.key", "n1.pem", "n1.key"}
