"""The root: global options, unknown words, quick help, and an orderly end whatever happens."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from lattice_cli.commands.completion import SHELLS
from lattice_cli.completing import script
from lattice_cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]


def spawn(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lattice_cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False, **options)


def used(client: Any) -> Any:
    return next(call[1][0] for call in client.calls if call[0] == "client")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--endpoints", "h:1", "--timeout", "2.5", "-o", "json", "--no-color", "put", "k", "v"],
        ["put", "--endpoints", "h:1", "--timeout", "2.5", "-o", "json", "--no-color", "k", "v"],
        ["put", "k", "v", "--endpoints", "h:1", "--timeout", "2.5", "-o", "json", "--no-color"],
        ["--endpoints", "other:1", "-o", "raw", "--timeout", "9", "put", "k", "v", "--endpoints", "h:1",
         "--timeout", "2.5", "-o", "json", "--no-color"],
    ],
)  # fmt: skip
def test_global_options_come_before_or_after_the_command_and_the_nearer_wins(
    client: Any, lattice: Any, arguments: list[str]
) -> None:
    assert lattice(*arguments)[0] == 0
    options = used(client)
    assert (options.endpoints, options.timeout, options.output, options.no_color) == ("h:1", 2.5, "json", True)


def test_global_options_go_between_a_group_and_its_command(client: Any, lattice: Any) -> None:
    assert lattice("cluster", "-o", "json", "status")[1].startswith("{")


def test_flags_win_over_variables_and_variables_over_defaults(
    client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lattice("put", "k", "v")
    assert (used(client).endpoints, used(client).timeout) == ("127.0.0.1:7400", 5.0)
    monkeypatch.setenv("LATTICE_ENDPOINTS", "env:1")
    monkeypatch.setenv("LATTICE_TIMEOUT", "7")
    monkeypatch.setenv("NO_COLOR", "1")
    client.calls.clear()
    lattice("put", "k", "v")
    assert (used(client).endpoints, used(client).timeout, used(client).no_color) == ("env:1", 7.0, True)
    client.calls.clear()
    lattice("--endpoints", "flag:1", "put", "k", "v", "--timeout", "3")
    assert (used(client).endpoints, used(client).timeout) == ("flag:1", 3.0)


@pytest.mark.parametrize("text", ["x", "0", "-1", "inf", "nan"])
def test_a_bad_timeout_variable_is_named(lattice: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LATTICE_TIMEOUT", text)
    code, _, err = lattice("get", "k")
    assert (code, err.startswith("error: LATTICE_TIMEOUT")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pt"], "error: lattice: no such command 'pt'. try: lattice put\n"),
        (["cluster", "statsu"], "error: lattice cluster: no such command 'statsu'. try: lattice cluster status\n"),
        (["put", "k", "v", "--if-absen"], "no such option --if-absen. try: lattice put --if-absent\n"),
        (["put", "k"], "error: lattice put: missing argument 'VALUE'. try: lattice put --help\n"),
        (
            ["get", "k", "--range-end"],
            "error: lattice get: option '--range-end' requires an argument. try: lattice get --help\n",
        ),
        (["cluster", "members", "--endpoints"], "error: lattice cluster members: option '--endpoints' requires"),
        (["get", "k", "--timeout", "0"], "invalid value for '--timeout'"),
        (["get", "k", "--timeout", "abc"], "invalid value for '--timeout': 'abc' is not a number. try: "),
        (["get", "k", "--limit", "x"], "invalid value for '--limit': 'x' is not a whole number. try: "),
        (["get", "k", "-o", "xml"], "'xml' is not one of 'table', 'json', 'raw'"),
        (["get", "k", "--limit", "3"], "--limit goes with --prefix"),
        (["--endpoints", "nonsense", "get", "k"], "endpoint 'nonsense' is not HOST:PORT"),
        (
            ["--endpoints", "http://127.0.0.1:7401", "get", "k"],
            "error: endpoint 'http://127.0.0.1:7401' is not HOST:PORT: leave out http://. try: 127.0.0.1:7401\n",
        ),
        (
            ["--endpoints", "https://db/", "get", "k"],
            "endpoint 'https://db/' is not HOST:PORT: leave out https://, and for TLS --tls-ca FILE. try: db:7400\n",
        ),
        (["--endpoints", "::1:7400", "get", "k"], "write an IPv6 address as [ADDR]:PORT. try: for example [::1]:7400"),
        (["put", "x", "-1"], "no such option -1; values with a dash go after --. try: lattice put -- x -1\n"),
        (["get", "-1", "-o", "raw"], "try: lattice get -o raw -- -1\n"),
        (["cas", "x", "-1", "-2", "--timeout", "3"], "try: lattice cas --timeout 3 -- x -1 -2\n"),
        (["put", "x", "-yes please"], "try: lattice put -- x '-yes please'\n"),
        (["put", "x", "-1" * 500], "try: lattice put -- KEY VALUE\n"),
        (["put", "k", "v", "-1"], "no such option -1. try: lattice put --help\n"),
        (["start", "--client-addr", "h:99999"], "no valid port"),
        (["demo", "--nodes", "2"], "2 is not in the range"),
        (["get", ""], "error: get: the key is empty"),
        (["put", "k" * 5000, "v"], "the key has 5000 bytes, more than 4096"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(lattice: Any, arguments: list[str], expected: str) -> None:
    code, out, err = lattice(*arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


def test_nobody_there_is_one_line_and_exit_code_3(lattice: Any) -> None:
    code, out, err = lattice("--endpoints", "127.0.0.1:1", "--timeout", "0.2", "put", "k", "v")
    assert (code, out) == (3, "")
    assert err.startswith("error: put: cannot reach 127.0.0.1:1: connection refused. try: ")
    assert err.count("\n") == 1


def test_no_command_shows_the_help(lattice: Any) -> None:
    code, out, _ = lattice()
    assert code == 0
    assert all(name in out for name in COMMANDS)
    code, out, err = lattice("cluster")
    assert (code, out) == (2, "")
    assert "members" in err


def test_help_keeps_its_colours_where_they_are_asked_for_and_only_there() -> None:
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    coloured = {**plain, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[" in spawn("get", "--help", env=coloured).stdout
    assert "\x1b[" not in spawn("get", "--help", env=plain).stdout
    # What is drawn for standard output, and goes elsewhere.
    assert "\x1b[" not in spawn("cluster", env=coloured).stderr


def test_every_command_has_help_with_the_global_options(lattice: Any) -> None:
    for name in COMMANDS:
        code, out, _ = lattice(name, "--help")
        assert code == 0
        assert "--endpoints" in out
        assert len(re.findall(r"^\W*--no-color\b", out, re.MULTILINE)) == 1, f"{name}: an option is shown twice"


def test_help_does_not_import_what_is_slow() -> None:
    program = (
        "import sys; from lattice_cli.main import run; code = run(['--help']); "
        "slow = {'grpc', 'google.protobuf', 'msgpack', 'uvloop', 'asyncio'} & sys.modules.keys(); "
        "commands = [each for each in sys.modules if each.startswith('lattice_cli.commands.')]; "
        "print(sorted(slow) + commands, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_reading_a_key_does_not_import_what_draws_help_and_tables() -> None:
    program = (
        "import sys; from lattice_cli.main import run; import lattice_cli.render.console, lattice_cli.render.lines; "
        "code = run(['--endpoints', '127.0.0.1:1', '--timeout', '0.2', 'get', 'k']); "
        "slow = {'rich', 'rich_click', 'json', 'difflib', 'uvloop', 'tomllib'} & sys.modules.keys(); "
        "print(sorted(slow)); sys.exit(code)"
    )
    environment = {**os.environ, "XDG_CONFIG_HOME": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (3, "[]")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_in_the_list_of_commands_is_the_command_s_own(name: str) -> None:
    context = click.Context(cli, info_name="lattice")
    command, summary = cli.get_command(context, name), cli.summary(context, name)
    assert command is not None
    assert command.help is not None
    assert summary is not None
    assert summary.help == " ".join(inspect.cleandoc(command.help).split("\n\n")[0].split())
    assert summary.name == command.name == name
    assert [command.hidden, command.deprecated] == [False, False], "lattice --help would not show that"


def test_every_command_stands_in_a_panel_of_the_help() -> None:
    shown = [name for panel in cli.panels for name in panel.commands]
    assert sorted(shown) == sorted(COMMANDS)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc when the process is reading")
def test_an_interrupt_ends_quietly_with_130() -> None:
    command = [sys.executable, "-m", "lattice_cli", "put", "k", "-"]
    # Whoever runs the tests in the background of a shell has SIGINT ignored, and a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with started as process:
        # It is reading standard input once it waits there; the kernel says when.
        while process.poll() is None and not _is_reading(process.pid):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def _is_reading(pid: int) -> bool:
    """Whether the process waits in read(2) of standard input."""
    words = Path(f"/proc/{pid}/syscall").read_text().split()
    return words[:2] == ["0", "0x0"]


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "lattice_cli", "completion", "bash"],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_version_goes_to_stdout() -> None:
    done = spawn("--version")
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "lattice", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_in_the_tree_are_in_step(shell: str) -> None:
    path = ROOT / "completions" / f"lattice.{shell}"
    assert path.read_text() == script(shell).strip() + "\n", "out of date: make completions"


def test_completion_knows_commands_and_options() -> None:
    environment = {**os.environ, "_LATTICE_COMPLETE": "bash_complete"}
    first = spawn(env={**environment, "COMP_WORDS": "lattice cl", "COMP_CWORD": "1"})
    assert "cluster" in first.stdout
    deep = spawn(env={**environment, "COMP_WORDS": "lattice put --if", "COMP_CWORD": "2"})
    assert "--if-absent" in deep.stdout
