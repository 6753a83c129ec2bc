"""A transaction as people write it: three sections, one comparison or operation a line.

::

    # one apple for order 7
    when:
      value(stock/apples) = 5
      mod(users/1) < 100            # also create(KEY), version(KEY); relations = != < >
      absent(orders/7)              # or exists(KEY)
      absent(--prefix locks/)       # of a range: there is none
    then:
      put stock/apples 4
      put orders/7 "one apple"
      get --prefix orders/ --limit 5
    else:
      get stock/apples

Words are quoted as in a shell: 'as it is', "with \\n \\t \\" \\\\ \\x00 in it", or a backslash before one character. In
comparisons ( ) = ! < > have to be quoted too. What is not text is written base64:AAEC, without quotes; in quotes that
is just text. ``#`` begins a comment where a word could begin. Every error names file, line and column, what was
expected and what is there.
"""

from __future__ import annotations

import base64
import binascii
import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from lattice_cli.errors import did_you_mean
from lattice_cli.render.text import printable
from lattice_core.client import Comparison, Subject, TxnOp, delete, delete_range, get, get_range, key, keys, put
from lattice_core.errors import InvalidRequest
from lattice_core.kv.commands import prefix_range

HINT = "lattice txn --help"

MAX_FILE_BYTES = 4 << 20
"""Twice what a transaction may have, for quotes and base64."""

SECTIONS = {"when:": "when", "then:": "then", "else:": "otherwise"}

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", '"': '"', "\\": "\\"}
_RELATIONS = ("=", "==", "!=", "<", ">")
_PUNCTUATION = "()=!<>"


class Token(NamedTuple):
    """A word or, in comparisons, a parenthesis or relation."""

    text: str
    column: int
    is_word: bool
    is_quoted: bool
    """Begins with a quote or backslash: no option, no base64."""


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file."""

    file: str
    line: int

    def fail(self, column: int, message: str) -> NoReturn:
        raise InvalidRequest(f"txn: {self.file}, line {self.line}, column {column}: {message}", hint=HINT)


@dataclass(frozen=True, slots=True)
class Target:
    """A key, or a range by its prefix or its end."""

    key: bytes
    prefix: bool = False
    range_end: bytes | None = None

    @property
    def is_range(self) -> bool:
        return self.prefix or self.range_end is not None

    @property
    def bounds(self) -> dict[str, bytes | None]:
        """As arguments of the library."""
        if self.prefix:
            start, end = prefix_range(self.key)
            return {"start": start, "end": end or None}
        return {"start": self.key, "end": self.range_end or None}

    def __str__(self) -> str:
        if self.range_end is not None:
            return f"{printable(self.key)} to {printable(self.range_end)}"
        return printable(self.key) + ("*" if self.prefix else "")


@dataclass(frozen=True, slots=True)
class Condition:
    comparison: Comparison
    line: int
    text: str
    """As it was written."""


@dataclass(frozen=True, slots=True)
class Operation:
    op: TxnOp
    name: str
    """put, get or delete."""
    target: Target
    keys_only: bool = False
    count_only: bool = False


@dataclass(slots=True)
class Transaction:
    when: list[Condition] = field(default_factory=list)
    then: list[Operation] = field(default_factory=list)
    otherwise: list[Operation] = field(default_factory=list)


def parse(data: bytes, file: str) -> Transaction:
    """What the file says; ``file`` is its name in errors. Raises InvalidRequest, TooLarge."""
    transaction = Transaction()
    section: str | None = None
    seen: set[str] = set()
    number = 0
    for number, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        line = raw.decode("utf-8", "surrogateescape").rstrip("\r")
        where = Where(file, number)
        tokens = list(_tokens(line, where, punctuation=section == "when"))
        if not tokens:
            continue
        first = tokens[0]
        name = first.text
        is_section = name in SECTIONS and not first.is_quoted
        if is_section and len(tokens) > 1:
            where.fail(tokens[1].column, f"what belongs to {name} goes below it, each on a line of its own")
        if is_section:
            if name in seen:
                where.fail(first.column, f"there is a section {name} already")
            seen.add(name)
            section = SECTIONS[name]
        elif section is None:
            where.fail(first.column, f"expected when:, then: or else:, not {_shown(first)}")
        elif section == "when":
            transaction.when.append(_condition(_Words(tokens, line, where), line))
        else:
            operations = transaction.then if section == "then" else transaction.otherwise
            operations.append(_operation(_Words(tokens, line, where)))
    if not (transaction.when or transaction.then or transaction.otherwise):
        Where(file, number).fail(1, "the transaction is empty: expected when:, then: or else:")
    return transaction


# -- words ----------------------------------------------------------------------------------------


def _tokens(line: str, where: Where, *, punctuation: bool) -> Iterator[Token]:
    at = 0
    while at < len(line):
        character = line[at]
        if character in " \t":
            at += 1
        elif character == "#":
            return
        elif punctuation and character in _PUNCTUATION:
            text = line[at : at + 2] if line[at : at + 2] in ("==", "!=") else character
            yield Token(text, at + 1, is_word=False, is_quoted=False)
            at += len(text)
        else:
            text, end = _word(line, at, where, _PUNCTUATION if punctuation else "")
            yield Token(text, at + 1, is_word=True, is_quoted=character in "'\"\\")
            at = end


def _word(line: str, begin: int, where: Where, stops: str) -> tuple[str, int]:
    """A word from ``begin`` on, and where it ends."""
    parts: list[str] = []
    at = begin
    if line.startswith("base64:", begin):
        stops = stops.replace("=", "")  # it may end in some
    while at < len(line) and line[at] not in " \t" and line[at] not in stops:
        character = line[at]
        if character == "'":
            end = line.find("'", at + 1)
            if end < 0:
                where.fail(at + 1, "the quote that begins here does not end on this line")
            parts.append(line[at + 1 : end])
            at = end + 1
        elif character == '"':
            text, at = _double_quoted(line, at, where)
            parts.append(text)
        elif character == "\\":
            if at + 1 == len(line):
                where.fail(at + 1, "expected a character after the backslash, not the end of the line")
            parts.append(line[at + 1])
            at += 2
        else:
            parts.append(character)
            at += 1
    return "".join(parts), at


def _double_quoted(line: str, begin: int, where: Where) -> tuple[str, int]:
    parts: list[str] = []
    at = begin + 1
    while True:
        if at == len(line):
            where.fail(begin + 1, "the quote that begins here does not end on this line")
        character = line[at]
        if character == '"':
            return "".join(parts), at + 1
        if character != "\\":
            parts.append(character)
            at += 1
            continue
        escaped = line[at + 1 : at + 2]
        if escaped == "x":
            digits = line[at + 2 : at + 4]
            try:
                byte = bytes.fromhex(digits)
            except ValueError:
                byte = b""
            if len(byte) != 1:
                where.fail(at + 1, f"expected two hexadecimal digits after \\x, not {digits!r}")
            parts.append(byte.decode("utf-8", "surrogateescape"))
            at += 4
        elif escaped and escaped in _ESCAPES:
            parts.append(_ESCAPES[escaped])
            at += 2
        else:
            where.fail(at + 1, f'\\{escaped} has no meaning in quotes: expected \\n \\t \\r \\0 \\xNN \\" or \\\\')


def _shown(token: Token) -> str:
    return f"{token.text!r}"


class _Words:
    """The tokens of one line, taken from left to right."""

    def __init__(self, tokens: list[Token], line: str, where: Where) -> None:
        self._tokens = tokens
        self._at = 0
        self._end = len(line.rstrip()) + 1
        self.where = where

    def peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def take(self, expected: str) -> Token:
        """The next token, whatever it is."""
        token = self.peek()
        if token is None:
            self.where.fail(self._end, f"expected {expected}, not the end of the line")
        self._at += 1
        return token

    def word(self, expected: str) -> Token:
        token = self.take(expected)
        if not token.is_word:
            self.where.fail(token.column, f"expected {expected}, not {_shown(token)}")
        return token

    def data(self, expected: str) -> bytes:
        """A key or value."""
        token = self.word(expected)
        if token.text.startswith("base64:") and not token.is_quoted:
            try:
                return base64.b64decode(token.text.removeprefix("base64:"), validate=True)
            except binascii.Error:
                self.where.fail(token.column, f"expected base64 after base64:, not {token.text[7:]!r}")
        return token.text.encode("utf-8", "surrogateescape")

    def number(self, expected: str, smallest: int) -> int:
        token = self.word(expected)
        if not (token.text.isascii() and token.text.isdigit()) or int(token.text) < smallest:
            self.where.fail(token.column, f"expected {expected}, not {_shown(token)}")
        return int(token.text)

    def punctuation(self, *texts: str) -> Token:
        expected = f"{', '.join(texts[:-1])} or {texts[-1]}" if len(texts) > 1 else texts[0]
        token = self.take(expected)
        if token.is_word or token.text not in texts:
            self.where.fail(token.column, f"expected {expected}, not {_shown(token)}")
        return token

    def end(self) -> None:
        token = self.peek()
        if token is not None:
            self.where.fail(token.column, f"expected the end of the line, not {_shown(token)}")

    def built(self, column: int, build: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the library makes of it; its errors get their place here."""
        try:
            return build(*args, **kwargs)
        except InvalidRequest as error:
            self.where.fail(column, error.message)

    def target(self, flags: dict[str, bool | int], until: str | None = None) -> Target:
        """``[--prefix] KEY [--range-end END]`` and the options in ``flags``, which are set; up to ``until``."""
        known = ["--prefix", "--range-end", *flags]
        found: bytes | None = None
        prefix, range_end = False, None
        may_be_option = True
        begin = self.peek()
        while (token := self.peek()) is not None and (token.is_word or token.text != until):
            is_option = may_be_option and token.is_word and not token.is_quoted and token.text.startswith("--")
            if not is_option:
                if found is not None:
                    self.where.fail(token.column, f"expected {until or 'the end of the line'}, not {_shown(token)}")
                found = self.data("a key")
                continue
            self._at += 1
            if token.text == "--":
                may_be_option = False
            elif token.text == "--prefix":
                prefix = True
            elif token.text == "--range-end":
                range_end = self.data("the end of the range")
            elif token.text in flags:
                is_number = type(flags[token.text]) is int
                flags[token.text] = self.number("a number from 1", 1) if is_number else True
            else:
                meant = did_you_mean(token.text, known)
                self.where.fail(token.column, f"expected {meant or ' or '.join(known)}, not {_shown(token)}")
        if found is None:
            self.word("a key")
        if prefix and range_end is not None:
            assert begin is not None
            self.where.fail(begin.column, "--prefix and --range-end exclude each other")
        return Target(found or b"", prefix, range_end)


# -- lines ----------------------------------------------------------------------------------------

_FIELDS: dict[str, Callable[[Subject], Any]] = {
    "value": lambda subject: subject.value,
    "mod": lambda subject: subject.mod_revision,
    "create": lambda subject: subject.create_revision,
    "version": lambda subject: subject.version,
}
_TESTS: dict[str, Callable[[Subject], Comparison]] = {"exists": Subject.exists, "absent": Subject.absent}


def _condition(words: _Words, line: str) -> Condition:
    expected = "value(KEY), mod(KEY), create(KEY), version(KEY), exists(KEY) or absent(KEY)"
    name = words.word(expected)
    if name.text not in _FIELDS and name.text not in _TESTS:
        meant = did_you_mean(name.text, [*_FIELDS, *_TESTS])
        words.where.fail(name.column, f"expected {f'{meant}(KEY)' if meant else expected}, not {_shown(name)}")
    words.punctuation("(")
    column = (words.peek() or name).column
    target = words.target({}, until=")")
    words.punctuation(")")
    if target.is_range:
        subject: Subject = words.built(column, keys, **target.bounds)
    else:
        subject = words.built(column, key, target.key)
    if name.text in _TESTS:
        comparison = _TESTS[name.text](subject)
    else:
        relation = words.punctuation(*_RELATIONS).text
        operand = words.data("a value") if name.text == "value" else words.number("a number from 0", 0)
        field_ = _FIELDS[name.text](subject)
        made = {
            "=": field_.__eq__,
            "==": field_.__eq__,
            "!=": field_.__ne__,
            "<": field_.__lt__,
            ">": field_.__gt__,
        }
        comparison = made[relation](operand)
    words.end()
    text = " ".join(line.split()).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Condition(comparison, words.where.line, text)


def _operation(words: _Words) -> Operation:
    expected = "put KEY VALUE, get KEY or delete KEY"
    name = words.word(expected)
    if name.text not in ("put", "get", "delete"):
        meant = did_you_mean(name.text, ("put", "get", "delete"))
        words.where.fail(name.column, f"expected {meant or expected}, not {_shown(name)}")
    column = (words.peek() or name).column
    if name.text == "put":
        token = words.peek()
        if token is not None and token.text == "--" and not token.is_quoted:
            words.take("a key")
        name_, value = words.data("a key"), words.data("a value")
        words.end()
        return Operation(words.built(column, put, name_, value), "put", Target(name_))
    if name.text == "delete":
        target = words.target({})
        if target.is_range:
            op = words.built(column, delete_range, **target.bounds)
        else:
            op = words.built(column, delete, target.key)
        return Operation(op, "delete", target)
    return _get(words, column)


def _get(words: _Words, column: int) -> Operation:
    flags: dict[str, bool | int] = {"--limit": 0, "--reverse": False, "--keys-only": False, "--count-only": False}
    target = words.target(flags)
    if not target.is_range:
        given = next((option for option, value in flags.items() if value), None)
        if given is not None:
            words.where.fail(column, f"{given} goes with --prefix or --range-end")
        return Operation(words.built(column, get, target.key), "get", target)
    keys_only, count_only = bool(flags["--keys-only"]), bool(flags["--count-only"])
    op = words.built(
        column,
        get_range,
        **target.bounds,
        limit=flags["--limit"] or None,
        reverse=bool(flags["--reverse"]),
        keys_only=keys_only,
        count_only=count_only,
    )
    return Operation(op, "get", target, keys_only, count_only)
