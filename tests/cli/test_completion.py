"""Completion without a shell: what is offered of keys and members, and that nothing is ever said when it cannot be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click
import pytest

from lattice_cli import completing, contexts
from lattice_cli.main import cli
from lattice_core.client.access import AccessInfo, RoleInfo, TokenInfo, UserInfo


def offered(monkeypatch: pytest.MonkeyPatch, capfd: Any, line: str) -> list[str]:
    monkeypatch.setenv("_LATTICE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    assert completing.answer(cli) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    return [each.removeprefix("plain,") for each in captured.out.splitlines() if each]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", ["jobs/", "plain", "single/only"]),
        ("jo", ["jobs/"]),
        ("jobs/", ["jobs/a", "jobs/deep/", "jobs/z"]),
        ("jobs/deep/", ["jobs/deep/1", "jobs/deep/2"]),
        ("p", ["plain"]),
        ("none", []),
    ],
)
def test_keys_are_offered_a_level_at_a_time(
    client: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any, typed: str, expected: list[str]
) -> None:
    for key in (b"jobs/a", b"jobs/deep/1", b"jobs/deep/2", b"jobs/z", b"plain", b"single/only", b"b\xff", b"c\n"):
        client.add(key, b"v")
    assert offered(monkeypatch, capfd, f"lattice get {typed}") == expected


def test_a_large_level_is_passed_over_at_once(client: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    for number in range(1000):
        client.add(b"a/%04d" % number, b"v")
    client.add(b"b", b"v")
    assert offered(monkeypatch, capfd, "lattice delete ") == ["a/", "b"]
    assert len([call for call in client.calls if call[0] == "range"]) == 2


def test_no_more_is_offered_than_anybody_reads(client: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    for number in range(1000):
        client.add(b"%04d" % number, b"v")
    assert len(offered(monkeypatch, capfd, "lattice get ")) == completing.MOST_OFFERED


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lattice cluster remove-server ", ["n1", "n2", "n3", "n4", "n5"]),
        ("lattice cluster promote ", ["n4"]),
        ("lattice transfer-leader ", ["n2", "n3", "n5"]),
        ("lattice snapshot take --member n", ["n1", "n2", "n3", "n4", "n5"]),
        ("lattice get k -o ", ["table", "json", "raw"]),
        ("lattice clu", ["cluster"]),
        ("lattice context use ", ["local", "prod"]),
        ("lattice context remove p", ["prod"]),
        ("lattice sim --plant lease", ["lease-from-reply", "lease-kept-in-transfer"]),
        ("lattice chaos --faults kill", ["kill", "kill-all", "kill-in-fsync"]),
        ("lattice chaos --faults kill,paus", ["kill,pause"]),
        ("lattice chaos --faults kill,pause,kill", ["kill,pause,kill-all", "kill,pause,kill-in-fsync"]),
        ("lattice chaos --workload set,c", ["set,counter"]),
        ("lattice user grant ", ["ann", "bob"]),
        ("lattice user grant ann ", ["admin", "readers", "writers"]),
        ("lattice user add cy --role r", ["readers"]),
        ("lattice role remove ", ["readers", "writers"]),
        ("lattice token revoke 0", ["0123"]),
        ("lattice nonsense --", []),
    ],
)
def test_members_and_commands_are_offered_where_they_are_meant(
    client: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any, line: str, expected: list[str]
) -> None:
    known = contexts.Contexts({name: contexts.Context(f"{name}:1") for name in ("prod", "local")}, "prod")
    contexts.save(known)
    users = (UserInfo("ann", True, ("readers",), 1), UserInfo("bob", False, (), 0))
    info = AccessInfo(
        True, users, (RoleInfo("readers", ()), RoleInfo("writers", ())), (TokenInfo("0123", "ann", False, None),)
    )
    client.access = SimpleNamespace(info=lambda *, timeout: info)
    found = offered(monkeypatch, capfd, line)
    assert found == expected or (not expected and "--help" in found)


def test_the_cluster_asked_is_the_one_that_the_line_is_about(
    client: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    offered(monkeypatch, capfd, "lattice --endpoints h:1 get --timeout 9 a")
    options = client.calls[0][1][0]
    assert (options.endpoints, options.timeout) == ("h:1", completing.ASK_SECONDS)


def test_nobody_there_is_nothing_to_offer_and_no_word_of_it(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    for line in ("get a", "cluster remove-server n", "--endpoints nonsense get a", "--context none get a"):
        assert offered(monkeypatch, capfd, f"lattice --endpoints 127.0.0.1:1 {line}") == []


def test_every_argument_that_is_a_key_or_a_member_can_be_completed() -> None:
    """So that a new command does not forget it."""
    missing = []
    context = click.Context(cli)

    def visit(path: str, command: click.Command) -> None:
        for name in command.list_commands(context) if isinstance(command, click.Group) else ():
            inner = command.get_command(context, name)
            assert inner is not None
            visit(f"{path} {name}", inner)
        for param in command.params:
            means_one = param.name in ("key", "member", "old") or (path, param.name) == (" transfer-leader", "name")
            if means_one and param._custom_shell_complete is None:
                missing.append(f"{path} {param.name}")

    visit("", cli)
    assert missing == []
