"""Contexts: what is remembered, which one has a say, and whose credentials go where."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lattice_cli import contexts


def connection(client: Any) -> Any:
    """Of the command that was run last."""
    return [call[1][0] for call in client.calls if call[0] == "client"][-1].connection


@pytest.fixture
def two(lattice: Any, tmp_path: Path) -> Path:
    """``prod``, in use, with everything there is to say; and ``local``."""
    for name in ("ca.pem", "cert.pem", "key.pem", "token"):
        (tmp_path / name).write_text("x")
    os.chdir(tmp_path)
    files = ("--tls-ca", "ca.pem", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--token-file", "token")
    assert lattice("context", "add", "prod", "--endpoints", "p1:1, p2:1,p2:1", *files)[0] == 0
    assert lattice("context", "add", "local", "--endpoints", "l1:1")[0] == 0
    return tmp_path


@pytest.fixture(autouse=True)
def _back() -> Any:
    before = os.getcwd()
    yield
    os.chdir(before)


def test_the_first_context_is_used_and_its_files_are_found_from_anywhere(client: Any, lattice: Any, two: Path) -> None:
    os.chdir("/")
    assert lattice("put", "k", "v")[0] == 0
    found = connection(client)
    assert found.endpoints == "p1:1,p2:1"
    assert (found.tls_ca, found.tls_cert) == (str(two / "ca.pem"), str(two / "cert.pem"))
    assert (found.tls_key, found.token_file) == (str(two / "key.pem"), str(two / "token"))


def test_the_file_is_for_its_owner_alone_and_holds_no_secret(two: Path) -> None:
    path = Path(contexts.path())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["contexts.toml"]
    assert str(two / "token") in path.read_text()


def test_flags_win_over_variables_over_the_context(
    client: Any, lattice: Any, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lattice("put", "k", "v", "--context", "local")
    assert connection(client).endpoints == "l1:1"
    monkeypatch.setenv("LATTICE_CONTEXT", "local")
    lattice("put", "k", "v")
    assert (connection(client).endpoints, connection(client).sources["endpoints"]) == ("l1:1", "context local")
    lattice("put", "k", "v", "--context", "prod")
    assert connection(client).endpoints == "p1:1,p2:1"
    monkeypatch.setenv("LATTICE_ENDPOINTS", "v:1")
    lattice("--context", "prod", "put", "k", "v")
    assert (connection(client).endpoints, connection(client).tls_ca) == ("v:1", str(two / "ca.pem"))
    lattice("--context", "prod", "put", "k", "v", "--endpoints", "f:1")
    assert (connection(client).endpoints, connection(client).sources["endpoints"]) == ("f:1", "--endpoints")


def test_what_opens_the_cluster_in_use_is_not_sent_to_other_endpoints(
    client: Any, lattice: Any, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lattice("put", "k", "v", "--endpoints", "p2:1")  # one member of it, by itself
    assert connection(client).token_file == str(two / "token")
    lattice("put", "k", "v", "--endpoints", "p2:1,stranger:1")
    assert (connection(client).token_file, connection(client).tls_ca) == (None, None)
    monkeypatch.setenv("LATTICE_ENDPOINTS", "stranger:1")
    lattice("put", "k", "v")
    assert connection(client).values()["token_file"] is None


def test_use_list_show_and_remove(client: Any, lattice: Any, two: Path) -> None:
    code, _, err = lattice("context", "use", "lcoal")
    assert (code, err) == (2, "error: there is no context 'lcoal'. try: local, or: lattice context list\n")
    assert lattice("context", "use", "local")[0] == 0
    document = json.loads(lattice("context", "list", "-o", "json")[1])
    assert (document["current"], [each["name"] for each in document["contexts"]]) == ("local", ["local", "prod"])
    table = lattice("context", "list", "-o", "table")[1]
    assert "*  local" in table
    assert lattice("context", "list")[1].startswith("local\ttrue\tl1:1\t-\t-\t-\t-\n")
    assert lattice("context", "show", "local")[1] == "endpoints\tl1:1\tcontext local\n"
    shown = json.loads(lattice("context", "show", "--context", "prod", "-o", "json")[1])
    assert shown["token_file"] == {"value": str(two / "token"), "source": "context prod"}
    assert "none is in use now" in lattice("context", "remove", "local")[2]
    lattice("put", "k", "v")
    assert connection(client).endpoints == "127.0.0.1:7400"
    assert "no contexts" in (lattice("context", "remove", "prod"), lattice("context", "list"))[1][2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prod", "--endpoints", "h:1"], "there is a context 'prod' already. try: lattice context add prod"),
        (["new"], "say where the cluster is: --endpoints H:P"),
        (["new", "--endpoints", "h"], "endpoint 'h' is not HOST:PORT"),
        (["new", "--endpoints", "h:1", "--tls-cert", "cert.pem"], "--tls-cert and --tls-key go together"),
        (["new", "--endpoints", "h:1", "--tls-ca", "none.pem"], "'none.pem' does not exist"),
        (["a b", "--endpoints", "h:1"], "'a b' cannot name a context"),
    ],
)
def test_what_cannot_be_added_is_said(lattice: Any, two: Path, arguments: list[str], says: str) -> None:
    before = Path(contexts.path()).read_bytes()
    code, out, err = lattice("context", "add", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert Path(contexts.path()).read_bytes() == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"current = ", "Invalid value"),
        (b"\xff", "can't decode"),
        (b'current = "gone"', "current is 'gone', and there is no such context"),
        (b"[contexts.a]\nendpoint = 'h:1'", "contexts.a.endpoint is no setting"),
        (b"[contexts.a]\nendpoints = 3", "contexts.a is no table of texts"),
        (b"[contexts.a]\ntls_ca = 'x'", "contexts.a has no endpoints"),
        (b"contexts = 3", "contexts is no table"),
    ],
)
def test_a_broken_file_is_named_and_stands_in_nobodys_way_who_needs_none(
    client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch, text: bytes, says: str
) -> None:
    path = Path(contexts.path())
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    code, _, err = lattice("context", "list")
    assert code == 2
    assert f"error: {path}: " in err
    assert says in err
    assert err.endswith(f". try: mend or remove {path}\n")
    assert lattice("config", "show")[0] == 0


def test_a_variable_that_overrules_the_chosen_context_is_said_to_and_how_to_be_rid_of_it(
    lattice: Any, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATTICE_ENDPOINTS", "127.0.0.1:7401,127.0.0.1:7402")
    monkeypatch.setenv("LATTICE_CONTEXT", "prod")
    _, _, err = lattice("context", "use", "local")
    wins = "warning: LATTICE_ENDPOINTS=127.0.0.1:7401,127.0.0.1:7402 is set and wins over context local. try: unset"
    assert f"{wins} LATTICE_ENDPOINTS\n" in err
    assert "LATTICE_CONTEXT=prod is set and wins over context local. try: unset LATTICE_CONTEXT\n" in err
    _, _, err = lattice("context", "add", "third", "--endpoints", "t:1", "--use")
    assert "wins over context third. try: unset LATTICE_ENDPOINTS\n" in err
    assert "warning" not in lattice("context", "add", "fourth", "--endpoints", "f:1")[2], "that one is not in use"


def test_variables_that_agree_with_the_chosen_context_are_no_reason_to_warn(
    lattice: Any, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATTICE_ENDPOINTS", "p2:1")
    monkeypatch.setenv("LATTICE_TLS_CA", "ca.pem")
    assert lattice("context", "use", "prod")[2] == "using context prod: p1:1,p2:1\n"
    monkeypatch.setenv("LATTICE_TLS_CA", "other.pem")
    assert "LATTICE_TLS_CA=other.pem is set and wins" in lattice("context", "use", "prod")[2]
