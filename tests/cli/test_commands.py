"""Every command: what it asks of the client, what it prints, and its exit code (CLI.md)."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from lattice_core.errors import (
    InvalidRequest,
    NotAllowed,
    OutcomeUnknown,
    RevisionCompacted,
    Unavailable,
)

MEMBER_FIELDS = {
    "name", "id", "client_addr", "peer_addr", "role", "voter", "reachable", "term", "commit_index",
    "applied_index", "last_index", "snapshot_index", "version",
}  # fmt: skip


def only_call(client: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    calls = [call for call in client.calls if call[0] != "client"]
    assert len(calls) == 1
    call: tuple[str, tuple[Any, ...], dict[str, Any]] = calls[0]
    return call


def test_put_prints_the_revision(client: Any, lattice: Any) -> None:
    assert lattice("put", "k", "v") == (0, "8\n", "")
    assert only_call(client) == ("put", (b"k", b"v"), {})


@pytest.mark.parametrize("command", [["put", "k", "-"], ["cas", "k", "old", "-"]])
def test_a_value_that_is_too_large_is_refused_with_its_size_and_one_without_an_end_is_too(
    command: list[str], client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 2_000_000)))
    code, _, err = lattice(*command)
    assert (code, client.calls) == (2, [])
    assert err.startswith("error: standard input has 2000000 bytes, and a value at most 1048576. try: ")
    with open("/dev/zero") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        code, _, err = lattice(*command)
    assert err.startswith("error: standard input has at least 67108865 bytes, and a value at most 1048576. try: ")


def test_put_json_has_the_promised_fields(client: Any, lattice: Any) -> None:
    code, out, _ = lattice("put", "k", "v", "-o", "json")
    assert (code, json.loads(out)) == (0, {"key": "k", "revision": 8})


def test_put_reads_standard_input_for_a_dash(client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\x00\n")))
    assert lattice("put", "k", "-")[0] == 0
    assert only_call(client)[1] == (b"k", b"\xff\x00\n")


def test_put_takes_arguments_that_are_not_utf8_as_they_are(client: Any, lattice: Any) -> None:
    assert lattice("put", "k\udcff", "v")[0] == 0
    assert only_call(client)[1] == (b"k\xff", b"v")


@pytest.mark.parametrize(("flag", "revision"), [(["--if-absent"], 0), (["--if-revision", "7"], 7)])
def test_a_condition_that_fails_exits_1(client: Any, lattice: Any, flag: list[str], revision: int) -> None:
    client.condition_holds = False
    code, out, err = lattice("put", "k", "v", *flag)
    assert (code, out) == (1, "")
    assert err.startswith("error: put k: the key is at revision 8")
    assert only_call(client)[2] == {"if_revision": revision}


def test_conditions_exclude_each_other(client: Any, lattice: Any) -> None:
    code, _, err = lattice("put", "k", "v", "--if-absent", "--if-revision", "1")
    assert code == 2
    assert "exclude each other" in err


def test_get_prints_exactly_the_value_when_it_is_not_a_terminal(client: Any, lattice: Any) -> None:
    client.add(b"k", b"v")
    assert lattice("get", "k") == (0, "v", "")


def test_get_of_nothing_exits_1_in_every_format(client: Any, lattice: Any) -> None:
    code, out, err = lattice("get", "k")
    assert (code, out) == (1, "")
    assert err == "error: get k: not found. try: lattice get --prefix ''\n"
    code, out, _ = lattice("get", "k", "-o", "json")
    assert (code, json.loads(out)) == (1, {"revision": 77, "kvs": []})


def test_get_json_has_the_promised_fields_and_wraps_what_is_not_text(client: Any, lattice: Any) -> None:
    client.add(b"a", "grüße".encode())
    client.add(b"b\xff", b"\xff\x00")
    _, out, _ = lattice("get", "--prefix", "", "-o", "json")
    assert json.loads(out) == {
        "revision": 77,
        "more": False,
        "count": 2,
        "kvs": [
            {"key": "a", "value": "grüße", "create_revision": 3, "mod_revision": 7, "version": 2, "lease": None},
            {
                "key": {"base64": "Yv8="},
                "value": {"base64": "/wA="},
                "create_revision": 3,
                "mod_revision": 7,
                "version": 2,
                "lease": None,
            },
        ],
    }


def test_get_prefix_prints_a_line_each_and_reads_page_by_page_at_one_revision(
    client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lattice_core.client.pages.PAGE_KEYS", 2)
    for number in range(5):
        client.add(b"k%d" % number, b"v%d" % number)
    code, out, _ = lattice("get", "k", "--prefix")
    assert (code, out) == (0, "".join(f"k{number}\tv{number}\n" for number in range(5)))
    ranges = [call for call in client.calls if call[0] == "range"]
    assert [call[2]["revision"] for call in ranges] == [None, 77, 77]
    assert [call[1][0] for call in ranges] == [b"k", b"k1\0", b"k3\0"]


def test_get_prefix_respects_a_limit_and_finds_nothing_without_complaint(client: Any, lattice: Any) -> None:
    for number in range(5):
        client.add(b"k%d" % number, b"v")
    assert lattice("get", "k", "--prefix", "--limit", "2")[1] == "k0\tv\nk1\tv\n"
    assert lattice("get", "none", "--prefix") == (0, "", "")


def test_get_passes_revision_and_consistency_on(client: Any, lattice: Any) -> None:
    client.add(b"k", b"v")
    lattice("get", "k", "--revision", "5", "--consistency", "stale")
    assert only_call(client)[2] == {
        "revision": 5,
        "consistency": "stale",
        "max_stale": None,
        "keys_only": False,
        "count_only": False,
        "reverse": False,
    }
    lattice("get", "k", "--consistency", "stale", "--max-stale", "2.5")
    assert client.calls[-1][2]["max_stale"] == 2.5


def test_get_of_a_key_does_not_take_one_that_only_begins_like_it(client: Any, lattice: Any) -> None:
    client.add(b"key-and-more", b"v")
    assert lattice("get", "key")[0] == 1
    longest = "k" * 4096
    client.add(longest.encode(), b"v")
    assert lattice("get", longest) == (0, "v", "")


@pytest.fixture
def five(client: Any) -> Any:
    for number in range(5):
        client.add(b"k%d" % number, b"v%d" % number)
    return client


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (["k", "--prefix", "--reverse", "--limit", "2"], "k4\tv4\nk3\tv3\n"),
        (["k", "--prefix", "--keys-only"], "k0\nk1\nk2\nk3\nk4\n"),
        (["k", "--prefix", "--count-only"], "5\n"),
        (["k1", "--range-end", "k3"], "k1\tv1\nk2\tv2\n"),
        (["k3", "--range-end", ""], "k3\tv3\nk4\tv4\n"),
        (["k1", "--range-end", "k9", "--reverse", "--keys-only", "--limit", "1"], "k4\n"),
    ],
)
def test_get_of_a_range_as_lines(five: Any, lattice: Any, options: list[str], printed: str) -> None:
    assert lattice("get", *options) == (0, printed, "")


def test_get_backwards_reads_page_by_page_down_to_the_start(
    five: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lattice_core.client.pages.PAGE_KEYS", 2)
    _, out, _ = lattice("get", "k", "--prefix", "--reverse", "--keys-only")
    assert out == "k4\nk3\nk2\nk1\nk0\n"
    ranges = [call for call in five.calls if call[0] == "range"]
    assert [call[1][:2] for call in ranges] == [(b"k", b"l"), (b"k", b"k3"), (b"k", b"k1")]
    assert [call[2]["revision"] for call in ranges] == [None, 77, 77]


def test_get_json_of_a_range_says_what_was_left_out_and_no_value_where_none_was_asked_for(
    five: Any, lattice: Any
) -> None:
    document = json.loads(lattice("get", "k", "--prefix", "--limit", "2", "--keys-only", "-o", "json")[1])
    assert (document["more"], document["count"]) == (True, 5)
    assert set(document["kvs"][0]) == {"key", "create_revision", "mod_revision", "version", "lease"}
    document = json.loads(lattice("get", "k", "--prefix", "--count-only", "-o", "json")[1])
    assert document == {"revision": 77, "kvs": [], "more": False, "count": 5}


def test_get_of_a_range_as_a_table(five: Any, lattice: Any) -> None:
    assert "v4" in lattice("get", "k", "--prefix", "-o", "table")[1]
    keys = lattice("get", "k", "--prefix", "--keys-only", "-o", "table")[1]
    assert "k4" in keys
    assert "VALUE" not in keys
    assert lattice("get", "k", "--prefix", "--count-only", "-o", "table")[1] == "5 keys\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--limit", "1"], "--limit goes with --prefix or --range-end"),
        (["--reverse"], "--reverse goes with"),
        (["--keys-only"], "--keys-only goes with"),
        (["--count-only"], "--count-only goes with"),
        (["--prefix", "--range-end", "z"], "exclude each other"),
        (["--prefix", "--count-only", "--limit", "1"], "exclude each other"),
        (["--prefix", "--count-only", "--keys-only"], "exclude each other"),
        (["--max-stale", "1"], "--max-stale goes with --consistency stale"),
        (["--range-end", "a"], "the end a is not after k"),
    ],
)
def test_get_options_that_mean_nothing_together_are_usage_errors(
    client: Any, lattice: Any, options: list[str], says: str
) -> None:
    code, out, err = lattice("get", "k", *options)
    assert (code, out) == (2, "")
    assert says in err


def test_a_compacted_revision_exits_1_and_names_the_oldest_that_is_kept(client: Any, lattice: Any) -> None:
    client.error = RevisionCompacted("revision 3 is no longer kept: the oldest is 8", compacted_revision=7)
    code, _, err = lattice("get", "k", "--prefix", "--revision", "3")
    assert code == 1
    assert err == (
        "error: revision 3 is no longer kept: the oldest is 8. "
        "try: read at revision 8 or later, or without --revision\n"
    )


def test_get_as_a_table(client: Any, lattice: Any) -> None:
    client.add(b"k", b"line\nbreak")
    client.add(b"b", b"\xff")
    _, out, _ = lattice("get", "--prefix", "", "-o", "table")
    assert "KEY" in out
    assert "line\\nbreak" in out
    assert "base64:/w==" in out


def test_delete_exits_1_if_there_was_no_such_key(client: Any, lattice: Any) -> None:
    client.add(b"k", b"v")
    assert lattice("delete", "k") == (0, "1\n", "")
    code, out, err = lattice("delete", "none", "-o", "json")
    assert (code, json.loads(out)) == (1, {"deleted": 0, "revision": 9})
    assert err.startswith("error: delete none: not found")
    assert lattice("delete", "none", "--prefix") == (0, "0\n", "")


@pytest.mark.parametrize(
    "words", [["delete", "jobs/", "--prefix"], ["delete", "", "--prefix"], ["cluster", "remove-server", "n2"]]
)
def test_what_destroys_is_asked_for_at_a_terminal_and_done_in_a_script(
    words: list[str], client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    code, out, err = lattice(*words)
    assert (code, out) == (1, "")
    assert "Go on? [y/N]" in err
    assert err.splitlines()[-1].endswith("error: not confirmed, nothing was changed")
    monkeypatch.setattr(sys, "stdin", Terminal(""))  # Ctrl-D
    code, _, err = lattice(*words)
    assert (code, err.splitlines()[-1]) == (1, "error: not confirmed, nothing was changed")
    assert [call for call in client.calls if call[0] != "client"] == []
    for answer, flags in (("y\n", []), ("", ["--yes"])):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        lattice(*words, *flags)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    lattice(*words)
    assert len([call for call in client.calls if call[0] != "client"]) == 3


def test_cas_exits_1_if_the_value_is_another(client: Any, lattice: Any) -> None:
    code, out, _ = lattice("cas", "k", "old", "new", "-o", "json")
    assert (code, json.loads(out)) == (0, {"swapped": True, "revision": 10})
    client.condition_holds = False
    code, out, err = lattice("cas", "k", "old", "new")
    assert (code, out) == (1, "false\n")
    assert "not the one expected" in err


def test_status_names_ids_in_16_hex_digits(client: Any, lattice: Any) -> None:
    _, out, _ = lattice("status", "-o", "json")
    document = json.loads(out)
    assert document["id"] == "0000000000000001"
    assert document["cluster_id"] == "f8721fd7386f22d0"
    assert document["role"] == "leader"
    assert "role\tleader\n" in lattice("status")[1]
    assert "commit index" in lattice("status", "-o", "table")[1]


def test_cluster_status_json_has_the_promised_fields(client: Any, lattice: Any) -> None:
    code, out, _ = lattice("cluster", "status", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert {"cluster_id", "leader", "term", "members"} <= document.keys()
    assert (document["leader"], document["term"]) == ("n1", 3)
    assert all(member.keys() >= MEMBER_FIELDS for member in document["members"])
    away = document["members"][4]
    assert (away["name"], away["reachable"], away["role"], away["term"]) == ("n5", False, None, None)


def test_cluster_status_for_programs_is_one_line_a_member(client: Any, lattice: Any) -> None:
    _, out, _ = lattice("cluster", "status")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [(line[0], line[2]) for line in lines][-2:] == [("n4", "learner"), ("n5", "unreachable")]
    assert {len(line) for line in lines} == {11}


def test_cluster_members(client: Any, lattice: Any) -> None:
    _, out, _ = lattice("cluster", "members", "-o", "json")
    assert json.loads(out)["members"][3] == {
        "name": "n4",
        "id": "0000000000000004",
        "client_addr": "127.0.0.1:7404",
        "peer_addr": "127.0.0.1:7504",
        "voter": False,
        "learner": True,
        "promotes": False,
        "replaces": None,
    }
    assert "n4\t0000000000000004\tlearner\t127.0.0.1:7404\t127.0.0.1:7504\n" in lattice("cluster", "members")[1]


def test_transfer_leader(client: Any, lattice: Any) -> None:
    _, out, _ = lattice("transfer-leader", "n3", "-o", "json")
    assert json.loads(out) == {"from": "n1", "to": "n3", "term": 4, "milliseconds": 12.346}
    assert lattice("transfer-leader")[1] == "n1\tn2\t4\t12.3\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (Unavailable("put: nobody\nanswers."), 3, "error: put: nobody answers. try: lattice cluster status\n"),
        (OutcomeUnknown("put: sent, but no answer"), 5, "lattice get KEY"),
        (NotAllowed("a rule"), 4, "error: a rule. try: lattice cluster status\n"),
        (InvalidRequest("put: the key is empty"), 2, "error: put: the key is empty. try: lattice --help\n"),
        (RevisionCompacted("gone", compacted_revision=6), 1, "read at revision 7 or later"),
        (KeyboardInterrupt(), 130, ""),
        (
            OSError(28, "No space left on device", "file"),
            3,
            "error: cannot write: file: no space left on device. try: df -h, and make room\n",
        ),
        (ZeroDivisionError("oops"), 3, "error: internal error: ZeroDivisionError: oops"),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(
    client: Any, lattice: Any, error: BaseException, code: int, line: str
) -> None:
    client.error = error
    found, out, err = lattice("put", "k", "v")
    assert (found, out) == (code, "")
    assert line in err
    assert err.count("\n") == (1 if line else 0)
    assert "Traceback" not in err
