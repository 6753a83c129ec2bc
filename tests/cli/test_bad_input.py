"""Every command with everything that can be wrong: one line that says so, the right exit code, in time, no traceback.

What needs a process of its own (pipes that close, Ctrl-C) is in tests/cluster/test_interrupts.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from command_lines import LINES, commands

from lattice_cli.render.paragraphs import blocks
from lattice_core.config import NodeConfig
from lattice_core.server.run import RunningNode

ASKING = [path for path, line in LINES.items() if line.asks]
TIMEOUT_SECONDS = 0.2
GRACE_SECONDS = 4.0
"""Beyond the time-out: closing, and a busy machine."""


def test_the_table_knows_every_command() -> None:
    assert set(LINES) == set(commands()), "put the new command into command_lines.py"


def right(path: str, tmp_path: Path) -> list[str]:
    """The command with arguments that are right, files being new ones."""
    words = path.split()
    for number, each in enumerate(LINES[path].arguments):
        file = tmp_path / f"file{number}"
        if path in ("txn", "login") and each == "FILE":
            file.write_text("then:\n  put k v\n")
        if each == "WORDS":
            file.write_text("a secret that is long enough\n")
        words.append(str(file) if each in ("FILE", "WORDS") else each)
    return words


def one_line(found: tuple[int, str, str], *, codes: set[int]) -> str:
    """What it said on stderr. Fails for anything but one line and an exit code that is meant."""
    code, _, err = found
    assert "Traceback" not in err
    assert "internal error" not in err
    assert code in codes, found
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


# -- arguments ---------------------------------------------------------------------------------------


def wrong_values(param: click.Option) -> list[str]:
    """For an option of this type; text can be anything, and is the business of the table below."""
    kind = param.type
    if param.is_flag:
        return []
    if isinstance(kind, click.Choice):
        return ["nonsense", ""]
    if isinstance(kind, click.types.IntParamType):
        outside = ["-1"] if isinstance(kind, click.IntRange) and (kind.min or 0) >= 0 else []
        return ["x", "1.5", "", *outside]
    if isinstance(kind, click.types.FloatParamType):
        outside = ["-1"] if isinstance(kind, click.FloatRange) and (kind.min or 0) >= 0 else []
        return ["x", "", "nan", "inf", *outside]
    return []


def wrong_lines(path: str, command: click.Command) -> Iterator[list[str]]:
    words = path.split()
    yield [*words, "--nonsense"]
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    if all(param.nargs == 1 for param in arguments):
        yield [*words, *["surplus"] * (len(arguments) + 1)]
    if any(param.required for param in arguments):
        yield words
    for param in command.params:
        if isinstance(param, click.Option):
            name = param.opts[-1]
            for value in wrong_values(param):
                yield [*words, f"{name}={value}" if name.startswith("--") else f"{name}{value}"]
            yield [*words, f"{name}=yes"] if param.is_flag and not param.is_eager else [*words, name]


@pytest.mark.parametrize("path", LINES)
def test_each_wrong_argument_is_usage_and_said_in_one_line(path: str, lattice: Any) -> None:
    command = commands()[path]
    for words in wrong_lines(path, command):
        if words[-1] in ("-h", "--help"):
            continue
        found = lattice(*words)
        line = one_line(found, codes={2})
        assert found[1] == "", words
        assert ". try: " in line, words


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["start", "--client-addr", "nonsense"], 2, "not HOST:PORT"),
        (["start", "--client-addr", "h:1", "--peer-addr", "h:1"], 2, "two listeners need two ports"),
        (["start", "--join", "127.0.0.1:7400"], 2, "is this node's own address"),
        (["start", "--initial-cluster", "n1"], 2, "is not NAME=HOST:PORT"),
        (["start", "--name", "a b"], 2, "not valid"),
        (["start", "--config", "NONE"], 2, "cannot read"),
        (["start", "--data-dir", "/proc/x/y"], 2, "cannot make /proc"),
        (["config", "check", "NONE"], 2, "cannot read"),
        (["config", "show", "DIR"], 2, "cannot read"),
        (["txn", "-f", "NONE"], 2, "NONE"),
        (["txn", "-f", "DIR"], 2, "DIR"),
        (["snapshot", "inspect", "NONE"], 2, "NONE"),
        (["snapshot", "inspect", "DIR"], 2, "DIR"),
        (["snapshot", "inspect", "JUNK"], 2, "JUNK: it is not a Lattice snapshot"),
        (["snapshot", "restore", "NONE", "--data-dir", "NEW"], 2, "NONE"),
        (["snapshot", "restore", "JUNK", "--data-dir", "NEW"], 2, "JUNK: it is not a Lattice snapshot"),
        (["wal", "inspect", "NONE"], 2, "does not exist"),
        (["wal", "inspect", "DIR"], 2, "DIR"),
        (["wal", "inspect", "JUNK"], 2, "JUNK"),
        (["recover", "NONE"], 2, "NONE"),
        (["recover", "DIR"], 2, "DIR"),
        (["verify", "NONE"], 2, "NONE"),
        (["verify", "DIR"], 2, "DIR"),
        (["verify", "JUNK"], 2, "JUNK:1: not text, so no history. try: lattice bench --history FILE"),
        (["sim", "--plant", "nonsense"], 2, "nonsense"),
        (["sim", "--replay", "NONE"], 2, "NONE"),
        (["sim", "--replay", "JUNK"], 2, "JUNK"),
        (["sim", "--hours", "0.0001", "--seed", "1", "--history", "DIR"], 2, "DIR"),
        (["chaos", "--faults", "nonsense"], 2, "nonsense"),
        (["chaos", "--workload", "nonsense"], 2, "nonsense"),
        (["bench", "--history", "DIR"], 2, "DIR"),
        (["bench", "--history", "JUNK"], 2, "JUNK exists already, and is left as it is"),
        (["doctor", "--endpoints", "nonsense"], 2, "not HOST:PORT"),
        (["top", "--endpoints", ","], 2, "no endpoints given"),
        (["context", "use", "none"], 2, "no context 'none'"),
        (["context", "add", "a", "--endpoints", "h:0"], 2, "no valid port"),
        (["cluster", "add-server", "n4", "nonsense"], 2, "nonsense"),
        (["put", "", "v"], 2, "the key is empty"),
        (["get", "k\udcff" * 3000], 2, "more than 4096"),
        (["--context", "none", "get", "k"], 2, "no context 'none'"),
        (["--timeout", "nan", "get", "k"], 2, "timeout"),
        (["--timeout", "inf", "get", "k"], 2, "timeout"),
    ],
)
def test_wrong_names_files_and_addresses_are_named(
    words: list[str], code: int, says: str, lattice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()
    (tmp_path / "JUNK").write_bytes(b"\x00\xff junk {\n" * 100)
    monkeypatch.setenv("LATTICE_ENDPOINTS", f"127.0.0.1:{closed_port()}")
    monkeypatch.setenv("LATTICE_TIMEOUT", str(TIMEOUT_SECONDS))
    assert says in one_line(lattice(*words), codes={code})
    assert not (tmp_path / "NEW").exists()


# -- clusters that are not there ---------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class OtherServer:
    """Somebody else's server: one that talks HTTP, or one that takes connections and says nothing."""

    def __init__(self, kind: str) -> None:
        answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        self._says = answer if kind == "http" else b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._says:
                with contextlib.suppress(OSError), connection:
                    connection.recv(1024)
                    connection.sendall(self._says)
            else:
                self._open.append(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for each in self._open:
            each.close()


@pytest.fixture(scope="module", params=["nobody", "http", "silent"])
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where no member is."""
    if request.param == "nobody":
        yield f"127.0.0.1:{closed_port()}"
        return
    server = OtherServer(request.param)
    yield f"127.0.0.1:{server.port}"
    server.close()


@pytest.mark.parametrize("path", ASKING)
def test_no_cluster_there_is_exit_code_3_in_time(path: str, stranger: str, lattice: Any, tmp_path: Path) -> None:
    words = right(path, tmp_path)
    before = set(tmp_path.iterdir())
    began = time.monotonic()
    found = lattice(*words, "--endpoints", stranger, "--timeout", str(TIMEOUT_SECONDS))
    assert time.monotonic() - began < TIMEOUT_SECONDS + GRACE_SECONDS
    line = one_line(found, codes={3})
    assert ". try: " in line
    assert set(tmp_path.iterdir()) == before, "nothing is left behind"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One member of three: the others are not there, so there is no quorum."""
    logging.getLogger("lattice").handlers.clear()  # some write to what was stderr in another test
    loop = asyncio.new_event_loop()
    ports = [closed_port() for _ in range(4)]
    config = NodeConfig(
        name="n1",
        data_dir=str(tmp_path_factory.mktemp("half") / "n1"),
        client_addr=f"127.0.0.1:{ports[0]}",
        peer_addr=f"127.0.0.1:{ports[1]}",
        initial_cluster={f"n{number}": f"127.0.0.1:{ports[number]}" for number in (1, 2, 3)},
        segment_bytes=1 << 20,
    )
    node: list[RunningNode] = []
    started = threading.Event()

    async def serve() -> None:
        node.append(RunningNode(config))
        await node[0].start()
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(node[0].kill())
        loop.run_until_complete(asyncio.sleep(0.05))

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    yield config.client_addr
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("path", ASKING)
def test_half_a_cluster_tells_what_it_knows_and_does_nothing(
    path: str, half: str, lattice: Any, tmp_path: Path
) -> None:
    began = time.monotonic()
    found = lattice(*right(path, tmp_path), "--endpoints", half, "--timeout", str(TIMEOUT_SECONDS))
    code, out, err = found
    assert time.monotonic() - began < TIMEOUT_SECONDS + GRACE_SECONDS
    if LINES[path].needs_leader:
        one_line(found, codes={3, 4} if path == "access enable" else {3})  # that wants a token first
        assert out == ""
    elif path.startswith("snapshot"):
        # Nothing was ever applied there: there is nothing to take. What it would do later nobody knows.
        one_line(found, codes={3, 5})
    else:
        assert code == (1 if path == "doctor" else 0), found
        assert "Traceback" not in err
        assert out


# -- terminals and bytes -----------------------------------------------------------------------------

WIDTHS = [40, 80]


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("path", LINES)
def test_help_fits_the_terminal(path: str, columns: int, lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = lattice(*path.split(), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= columns
    command = commands()[path]
    for param in command.params:
        if isinstance(param, click.Option):
            assert all(name in out for name in (*param.opts, *param.secondary_opts)), "a name is cut off"


@pytest.mark.parametrize("path", LINES)
def test_examples_and_grammars_keep_their_lines_on_a_terminal(path: str, lattice: Any) -> None:
    shown = [line.rstrip() for line in lattice(*path.split(), "--help")[1].splitlines()]
    for kind, text in blocks(commands()[path].help or "", 76):
        if kind == "code":
            lines = [f"   {line}".rstrip() for line in text.split("\n")]
            at = shown.index(lines[0])
            assert shown[at : at + len(lines)] == lines


TABLES = [
    "put", "get", "delete", "cas", "status", "cluster status", "cluster members", "snapshot take", "config show",
    "context list", "context show",
]  # fmt: skip


@pytest.mark.parametrize("path", TABLES)
def test_tables_fit_a_narrow_terminal(
    path: str, client: Any, lattice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.add(b"k", b"a value that is longer than a narrow terminal is wide")
    lattice("context", "add", "local", "--endpoints", "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403")
    monkeypatch.setenv("COLUMNS", "40")
    code, out, err = lattice(*right(path, tmp_path), "-o", "table")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 40


@pytest.mark.parametrize("output", ["table", "json", "raw"])
@pytest.mark.parametrize("path", ["put", "get", "delete", "cas", "get --prefix"])
def test_keys_and_values_may_be_any_bytes(path: str, output: str, client: Any, lattice: Any) -> None:
    key, value = "k\udcff", "v\udcfe"
    client.add(b"k\xff", b"v\xfe")
    arguments = {"put": [key, value], "cas": [key, value, value]}.get(path, [key])
    code, out, err = lattice(*path.split(), *arguments, "-o", output)
    assert (code, err) == (0, "")
    if output == "json":
        document = json.loads(out)
        named = document["kvs"][0] if "kvs" in document else document
        assert named.get("key", {"base64": "a/8="}) == {"base64": "a/8="}
    elif output == "table" and path.startswith("get"):
        assert "base64:" in out


@pytest.mark.parametrize("path", ["get", "delete", "put", "cas"])
def test_an_error_about_a_key_that_is_no_text_is_one_line(path: str, client: Any, lattice: Any) -> None:
    client.condition_holds = False
    arguments = {"put": ["k\udcff", "v", "--if-absent"], "cas": ["k\udcff", "a", "b"]}.get(path, ["k\udcff"])
    assert "base64:a/8=" in one_line(lattice(path, *arguments), codes={1})
