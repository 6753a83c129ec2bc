"""``lattice txn``: what a file means, what is printed, and where the mistakes are said to be."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice_cli.txn_file import parse
from lattice_core.client import delete, delete_range, get, get_range, key, keys, put
from lattice_core.errors import InvalidRequest

FILE = """\
# one apple for order 7
when:
  value(stock/apples) = 5          # a comment
  mod(users/1) < 100
  absent( orders/7 )
  absent(--prefix locks/)
then:
  put stock/apples 4
  put orders/7 "one apple"
  delete --prefix carts/7/
  get --prefix orders/ --limit 5

else:
  get stock/apples
"""


def test_a_file_is_read_as_it_is_meant() -> None:
    found = parse(FILE.encode(), "f")
    assert [each.comparison.compare for each in found.when] == [
        (key("stock/apples").value == "5").compare,
        (key("users/1").mod_revision < 100).compare,
        key("orders/7").absent().compare,
        keys(prefix="locks/").absent().compare,
    ]
    assert [each.op for each in found.then] == [
        put("stock/apples", "4"),
        put("orders/7", "one apple"),
        delete_range(prefix="carts/7/"),
        get_range(prefix="orders/", limit=5),
    ]
    assert [each.op for each in found.otherwise] == [get("stock/apples")]
    assert [(each.line, each.text) for each in found.when][:2] == [
        (3, "value(stock/apples) = 5 # a comment"),
        (4, "mod(users/1) < 100"),
    ]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("value(a) = b", key("a").value == "b"),
        ("value(a) == b", key("a").value == "b"),
        ("value(a)!=b", key("a").value != "b"),
        ("value(a)<b", key("a").value < "b"),
        ("value(a) > b", key("a").value > "b"),
        ('value("a (1)") = "b = c"', key("a (1)").value == "b = c"),
        ("value('a)') = ''", key("a)").value == b""),
        (r"value(a\)b) = \#", key("a)b").value == "#"),
        ("value(base64:/wA=) = base64:AAEC", key(b"\xff\x00").value == b"\x00\x01\x02"),
        ("value(k)=base64:AA==", key("k").value == b"\x00"),
        ('value("base64:x") = y', key("base64:x").value == "y"),
        ("mod(a) = 7", key("a").mod_revision == 7),
        ("create(a) > 0", key("a").create_revision > 0),
        ("version(a) != 1", key("a").version != 1),
        ("exists(a)", key("a").exists()),
        ("absent(--prefix '')", keys(prefix="").absent()),
        ("mod(a --range-end b) < 9", keys(start="a", end="b").mod_revision < 9),
        ("mod(--range-end '' a) < 9", keys(start="a").mod_revision < 9),
        ("exists(-- --prefix)", key("--prefix").exists()),
        ("exists('--prefix')", key("--prefix").exists()),
    ],
)
def test_comparisons(line: str, meant: Any) -> None:
    (found,) = parse(f"when:\n\t{line}\r\nthen:\n get x".encode(), "f").when
    assert found.comparison.compare == meant.compare


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("put a b", put("a", "b")),
        ('put "a b" ""', put("a b", "")),
        ("put a b=(c)#d", put("a", "b=(c)#d")),
        ("put -- --a --b", put("--a", "--b")),
        ("put a --b", put("a", "--b")),
        (r'put a "\n\t\r\0\"\\\xff\xc3\xa9"', put("a", b'\n\t\r\0"\\\xff\xc3\xa9')),
        (r"put a 'as \n it is'", put("a", r"as \n it is")),
        (r"put a b\ c'd'" + '"e"', put("a", "b cde")),
        ("put grüße grün", put("grüße", "grün")),
        ("put a base64:", put("a", b"")),
        ("get a", get("a")),
        ("get a --range-end c --reverse", get_range(start="a", end="c", reverse=True)),
        ("get --keys-only --prefix a", get_range(prefix="a", keys_only=True)),
        ("get --count-only '' --prefix", get_range(prefix="", count_only=True)),
        ("delete a", delete("a")),
        ("delete a --range-end ''", delete_range(start="a")),
    ],
)
def test_operations(line: str, meant: Any) -> None:
    found = parse(f"then:\n{line}\nelse:\n{line}".encode(), "f")
    assert [each.op for each in (*found.then, *found.otherwise)] == [meant, meant]


def test_bytes_that_are_no_text_are_taken_as_they_are() -> None:
    (found,) = parse(b"\xef\xbb\xbfthen:\nput \xff \xfe", "f").then
    assert found.op == put(b"\xff", b"\xfe")


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", 1, 1, "the transaction is empty"),
        ("# nothing\n\n", 3, 1, "the transaction is empty"),
        ("put a b", 1, 1, "expected when:, then: or else:, not 'put'"),
        ("when\n", 1, 1, "expected when:, then: or else:, not 'when'"),
        ("then:\nget a\nthen:\n", 3, 1, "there is a section then: already"),
        ("then: get a", 1, 7, "what belongs to then: goes below it, each on a line of its own"),
        ("when: value(a) = 1\nthen:\n  get a", 1, 7, "what belongs to when: goes below it"),
        ("when:\n  valeu(a) = 1", 2, 3, "expected value(KEY), not 'valeu'"),
        ("when:\n  get a", 2, 3, "expected value(KEY), mod(KEY)"),
        ("when:\n  value a", 2, 9, "expected (, not 'a'"),
        ("when:\n  value(a = 1", 2, 11, "expected ), not '='"),
        ("when:\n  value(a b) = 1", 2, 11, "expected ), not 'b'"),
        ("when:\n  value(", 2, 9, "expected a key, not the end of the line"),
        ("when:\n  value() = 1", 2, 9, "expected a key, not ')'"),
        ("when:\n  value(a)", 2, 11, "expected =, ==, !=, < or >, not the end of the line"),
        ("when:\n  value(a) is 1", 2, 12, "expected =, ==, !=, < or >, not 'is'"),
        ("when:\n  value(a) =< 1", 2, 13, "expected a value, not '<'"),
        ("when:\n  value(a) =", 2, 13, "expected a value, not the end of the line"),
        ("when:\n  value(a) = b=c", 2, 15, "expected the end of the line, not '='"),
        ("when:\n  mod(a) = x", 2, 12, "expected a number from 0, not 'x'"),
        ("when:\n  mod(a) = -1", 2, 12, "expected a number from 0, not '-1'"),
        ("when:\n  exists(a) = 1", 2, 13, "expected the end of the line, not '='"),
        ("when:\n  exists('')", 2, 10, "the key is empty"),
        ("when:\n  exists(--perfix a)", 2, 10, "expected --prefix, not '--perfix'"),
        ("when:\n  exists(b --range-end a)", 2, 10, "is not after the start"),
        ("when:\n  exists(--prefix a --range-end b)", 2, 10, "exclude each other"),
        ("then:\n  putt a b", 2, 3, "expected put, not 'putt'"),
        ("then:\n  value(a) = 1", 2, 3, "expected put KEY VALUE, get KEY or delete KEY"),
        ("then:\n  put a", 2, 8, "expected a value, not the end of the line"),
        ("then:\n  put a b c", 2, 11, "expected the end of the line, not 'c'"),
        ("then:\n  put '' b", 2, 7, "the key is empty"),
        ("then:\n  put 'a b", 2, 7, "the quote that begins here does not end"),
        ('then:\n  put a "b', 2, 9, "the quote that begins here does not end"),
        ('then:\n  put a "b\\', 2, 11, "has no meaning in quotes"),
        ('then:\n  put a "b\\q"', 2, 11, r"\q has no meaning in quotes"),
        ('then:\n  put a "\\xg0"', 2, 10, r"expected two hexadecimal digits after \x"),
        ('then:\n  put a "\\x', 2, 10, r"expected two hexadecimal digits after \x"),
        ("then:\n  put a b\\", 2, 10, "expected a character after the backslash"),
        ("then:\n  put a base64:!", 2, 9, "expected base64 after base64:, not '!'"),
        ("then:\n  get a --limit 5", 2, 7, "--limit goes with --prefix or --range-end"),
        ("then:\n  get --prefix a --limit 0", 2, 26, "expected a number from 1, not '0'"),
        ("then:\n  get --prefix a --limit", 2, 25, "expected a number from 1, not the end"),
        ("then:\n  delete --prefix a --limit 5", 2, 21, "expected --prefix or --range-end, not '--limit'"),
        ("then:\n  delete", 2, 9, "expected a key, not the end of the line"),
        ("then:\n  get " + "k" * 4097, 2, 7, "4097 bytes, more than 4096"),
    ],
)
def test_mistakes_are_named_with_line_column_and_what_was_expected(
    text: str, line: int, column: int, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text.encode(), "moves.txn")
    message = str(caught.value)
    assert message.startswith(f"txn: moves.txn, line {line}, column {column}: ")
    assert says in message
    assert caught.value.hint == "lattice txn --help"


@given(st.text(alphabet="when:thls()=\"'\\ \n#-put get!<>xb64", max_size=60) | st.binary(max_size=60).map(repr))
def test_whatever_the_file_says_it_is_a_transaction_or_a_mistake_with_a_place(text: str) -> None:
    try:
        parse(text.encode("utf-8", "surrogateescape"), "f")
    except InvalidRequest as error:
        assert str(error).startswith("txn: f, line ")  # noqa: PT017


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "moves.txn"
    path.write_text(FILE)
    return path


def test_a_transaction_whose_comparisons_hold(client: Any, lattice: Any, file: Path) -> None:
    client.add(b"orders/1", b"pear\ttree")
    client.add(b"orders/2", b"\xff")
    code, out, err = lattice("txn", "-f", str(file))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "true\t12",
        "put\tstock/apples\t12",
        "put\torders/7\t12",
        "delete\tcarts/7/\t1",
        "get\torders/1\tpear\\ttree",
        "get\torders/2\tbase64:/w==",
    ]
    _, out, _ = lattice("txn", "-f", str(file), "-o", "json")
    document = json.loads(out)
    assert (document["succeeded"], document["revision"], "failed" in document) == (True, 12, False)
    put_, _, deleted, found = document["results"]
    assert put_ == {"op": "put", "key": "stock/apples", "revision": 12}
    assert deleted == {"op": "delete", "prefix": "carts/7/", "deleted": 1}
    assert (found["op"], found["prefix"], found["more"], found["count"]) == ("get", "orders/", False, 2)
    assert found["kvs"][0]["value"] == "pear\ttree"
    _, out, _ = lattice("txn", "-f", str(file), "-o", "table")
    assert out.startswith("succeeded, revision 12\n")
    assert "1 key deleted" in out


def test_a_comparison_that_does_not_hold_exits_1_says_which_and_shows_what_was_done(
    client: Any, lattice: Any, file: Path
) -> None:
    client.condition_holds = False
    client.add(b"stock/apples", b"3")
    code, out, err = lattice("txn", "-f", str(file))
    assert (code, out) == (1, "false\t12\nget\tstock/apples\t3\n")
    assert err == (
        f"error: txn: {file}, line 6 does not hold: absent(--prefix locks/); what is under else: was done. "
        "try: lattice get KEY, to see what is there\n"
    )
    code, out, _ = lattice("txn", "-f", str(file), "-o", "json")
    document = json.loads(out)
    assert code == 1
    assert document["failed"] == {"line": 6, "comparison": "absent(--prefix locks/)"}
    assert document["results"][0]["kv"]["value"] == "3"
    code, out, _ = lattice("txn", "-f", str(file), "-o", "table")
    assert code == 1
    assert out.startswith("a comparison did not hold, revision 12\n")


def test_what_is_not_there_is_told_from_what_is_empty(client: Any, lattice: Any, tmp_path: Path) -> None:
    client.add(b"empty", b"")
    path = tmp_path / "f"
    path.write_text("then:\nget empty\nget none\nget --count-only --prefix e\nget --keys-only a --range-end f\n")
    _, out, _ = lattice("txn", "-f", str(path))
    assert out == "true\t12\nget\tempty\t\nget\tnone\nget\te\t1\nget\tempty\n"
    results = json.loads(lattice("txn", "-f", str(path), "-o", "json")[1])["results"]
    assert results[1] == {"op": "get", "key": "none", "kv": None}
    assert (results[3]["key"], results[3]["range_end"], "value" in results[3]["kvs"][0]) == ("a", "f", False)
    assert "not found" in lattice("txn", "-f", str(path), "-o", "table")[1]


@pytest.mark.parametrize("arguments", [[], ["-f", "-"]])
def test_standard_input_is_read_without_a_file(
    client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"then:\nput a b\n")))
    assert lattice("txn", *arguments)[:2] == (0, "true\t12\nput\ta\t12\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"then:\nput a\n")))
    code, _, err = lattice("txn", *arguments)
    assert code == 2
    assert "txn: standard input, line 2, column 6: expected a value" in err


def test_a_file_that_is_not_there_or_far_too_large_is_one_line(client: Any, lattice: Any, tmp_path: Path) -> None:
    code, _, err = lattice("txn", "-f", str(tmp_path / "none"))
    assert (code, "No such file" in err) == (2, True)
    large = tmp_path / "large"
    large.write_bytes(b"#" * ((4 << 20) + 1))
    code, _, err = lattice("txn", "-f", str(large))
    assert code == 2
    assert "more than 4194304 bytes. try: split it" in err


def test_a_key_that_is_written_twice_is_refused_before_anything_is_sent(
    client: Any, lattice: Any, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_text("then:\nput a 1\nput a 2\n")
    code, out, err = lattice("txn", "-f", str(path))
    assert (code, out) == (2, "")
    assert "puts b'a' twice" in err


def test_the_example_in_the_documentation_is_a_transaction() -> None:
    text = (Path(__file__).parents[2] / "docs" / "transactions.md").read_text()
    (example,) = [block for block in text.split("```\n") if block.startswith("when:")]
    found = parse(example.encode(), "docs/transactions.md")
    assert [len(part) for part in (found.when, found.then, found.otherwise)] == [2, 2, 1]
    assert [str(each.comparison) for each in found.when] == [
        "key(b'stock/apples').value == b'5'",
        "key(b'orders/7').version == 0",
    ]
