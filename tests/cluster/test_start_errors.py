"""What is wrong is told in one line, with the right exit code, and changes nothing.

Start errors first, then the commands'; the data directory's last, because they need one that is known.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Finished, LocalCluster, free_addr, free_ports, lattice

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120, method="signal")]

_WITHOUT_ROOTS_PRIVILEGE = (
    "import ctypes, os, sys\n"
    "for capability in (1, 2): ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)\n"  # DAC_OVERRIDE, DAC_READ_SEARCH
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)
"""Runs a command that permissions apply to although it is root's."""

A, B, C = "127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """An address where somebody listens."""
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        yield f"127.0.0.1:{somebody.getsockname()[1]}"


def refused(done: Finished, code: int, *words: str) -> str:
    """The one line, having checked it."""
    line = done.the_error()
    assert done.code == code, done
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nmae", "n1"], ["--nmae", "--name"]),
        (["--log-level", "loud"], ["loud"]),
        (["--heartbeat-ms", "soon"], ["soon"]),
        (["extra"], ["extra"]),
        (["--client-addr", "localhost"], ["localhost"]),
        (["--client-addr", "127.0.0.1:seven"], ["127.0.0.1:seven"]),
        (["--peer-addr", "127.0.0.1:70000"], ["127.0.0.1:70000"]),
        (["--peer-addr", "::1:7500"], ["::1:7500"]),
        (["--client-addr", A, "--peer-addr", A], [A]),
        (["--name", "a b"], ["a b"]),
        (["--initial-cluster", "n1"], ["n1"]),
        (["--peer-addr", A, "--initial-cluster", f"n1={B},n2={C}"], [A, B]),
        (["--initial-cluster", f"n2={B},n3={C}"], ["n1", "n2"]),
        (["--initial-cluster", f"n1={A},n1={B}"], ["n1", A, B]),
        (["--initial-cluster", f"n1={A},n2={A}"], [A]),
        (["--election-timeout-min-ms", "900", "--election-timeout-max-ms", "800"], ["900", "800"]),
        (["--config", "absent.toml"], ["absent.toml"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_start_refuses_options_that_cannot_be_meant(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(lattice("start", *arguments, cwd=tmp_path), 2, *words)
    assert not list(tmp_path.iterdir()), "nothing was made"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b'name = "n1"\nclient_addr = \n', 2, ["client_addr"]),
        (b'name = "n1"\n\nclient_adr = "127.0.0.1:7400"\n', 3, ["client_adr", "client_addr"]),
        (b'# the name\nname = "n1"\nheartbeat_ms = "fast"\n', 3, ["heartbeat_ms", "fast"]),
        (b'name = "n1"\nsegment_bytes = 1.5\n', 2, ["segment_bytes", "1.5"]),
        (b'name = "n1"\n[initial_cluster]\nn1 = "nowhere"\n', 2, ["initial_cluster", "nowhere"]),
        (b'name = "n1"\nname = "n2"\n', 2, ["name"]),
        (b'name = "n1"\n# caf\xe9\n', 2, ["UTF-8"]),
    ],
)
def test_a_bad_configuration_file_is_told_with_file_line_and_key(
    tmp_path: Path, text: bytes, line: int, words: list[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(text)
    refused(lattice("start", "--config", str(file), cwd=tmp_path), 2, f"{file}, line {line}", *words)


@pytest.mark.parametrize("option", ["--client-addr", "--peer-addr"])
def test_a_port_that_is_taken_is_told_and_nothing_is_tied_to_the_wrong_address(
    tmp_path: Path, taken: str, option: str
) -> None:
    """A data directory belongs to its peer address for good: a start that never listened there makes none."""
    other = "--peer-addr" if option == "--client-addr" else "--client-addr"
    done = lattice("start", "--data-dir", str(tmp_path / "data"), option, taken, other, free_addr())
    line = refused(done, 2, f"cannot listen on {taken} ({option})")
    assert "in use" in line
    assert not (tmp_path / "data" / "identity").exists()
    assert not (tmp_path / "data" / "wal").exists()


def test_a_bad_variable_names_the_variable(tmp_path: Path) -> None:
    done = lattice("start", env={"LATTICE_HEARTBEAT_MS": "soon"}, cwd=tmp_path)
    refused(done, 2, "LATTICE_HEARTBEAT_MS", "soon")


@pytest.mark.parametrize("what", ["a file", "below a file", "a foreign directory", "unreadable"])
def test_a_directory_that_cannot_be_used_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "data"
    through: tuple[str, ...] = ()
    if what == "a file":
        path.write_text("mine")
    elif what == "below a file":
        path.write_text("mine")
        path = path / "deeper"
    elif what == "a foreign directory":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    else:
        path.mkdir(mode=0o000)
        if os.geteuid() == 0:
            if sys.platform != "linux":
                pytest.skip("nothing is unreadable for root")
            through = (sys.executable, "-c", _WITHOUT_ROOTS_PRIVILEGE)
    addrs = ("--client-addr", free_addr(), "--peer-addr", free_addr())
    done = lattice("start", "--data-dir", str(path), *addrs, through=through)
    refused(done, 2, str(path))
    if what == "a foreign directory":
        assert [entry.name for entry in path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("option", ["--client-addr", "--peer-addr", "--metrics-addr"])
@pytest.mark.parametrize("made", [False, True], ids=["absent", "empty"])
def test_a_start_whose_port_is_taken_leaves_nothing_behind(tmp_path: Path, taken: str, option: str, made: bool) -> None:
    path = tmp_path / "deeper" / "data"
    if made:
        path.mkdir(parents=True)
    addrs = {"--client-addr": free_addr(), "--peer-addr": free_addr(), option: taken}
    done = lattice("start", "--data-dir", str(path), *(part for pair in addrs.items() for part in pair))
    refused(done, 2, taken, option)
    assert list(tmp_path.rglob("*")) == ([path.parent, path] if made else [])


# --- commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-option"], ["--no-such-option"]),
        (["pu", "a", "b"], ["pu", "put"]),
        (["put", "a"], ["VALUE"]),
        (["put", "", "b"], ["key"]),
        (["get", ""], ["key"]),
        (["delete", ""], ["key"]),
        (["cas", "", "a", "b"], ["key"]),
        (["put", "k" * 4097, "b"], ["4097", "4096"]),
        (["get", "a", "--consistency", "eventual"], ["eventual"]),
        (["get", "a", "--revision", "0"], ["0"]),
        (["put", "a", "b", "--if-absent", "--if-revision", "3"], ["--if-absent", "--if-revision"]),
        (["get", "a", "--timeout", "0"], ["0"]),
        (["get", "a", "--endpoints", "nowhere"], ["nowhere"]),
        (["cluster", "stauts"], ["stauts", "status"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_command_that_cannot_be_meant_is_a_usage_error(arguments: list[str], words: list[str]) -> None:
    refused(lattice(*arguments, env={"LATTICE_ENDPOINTS": free_addr()}), 2, *words)


def test_an_oversized_value_is_refused_with_both_sizes(shared: LocalCluster) -> None:
    done = lattice("--endpoints", shared.endpoints, "put", "big", "-", stdin=b"x" * ((1 << 20) + 1))
    refused(done, 2, str(1 << 20), str((1 << 20) + 1))
    assert lattice("--endpoints", shared.endpoints, "put", "big", "-", stdin=b"x" * (1 << 20)).code == 0
    assert lattice("--endpoints", shared.endpoints, "delete", "big").code == 0


@pytest.mark.parametrize("command", [["put", "a", "b"], ["get", "a"], ["delete", "a"], ["cluster", "status"]])
def test_endpoints_that_nobody_serves_end_in_unavailable_within_the_time(command: list[str]) -> None:
    addrs = [f"127.0.0.1:{port}" for port in free_ports(2)]
    done = lattice("--endpoints", ",".join(addrs), "--timeout", "1", *command)
    refused(done, 3, *addrs)
    assert done.seconds < 20


def test_an_endpoint_that_is_something_else_is_told_as_such(shared: LocalCluster, taken: str) -> None:
    """One that accepts and never answers; and the peer port of a member."""
    refused(lattice("--endpoints", taken, "--timeout", "1", "get", "a"), 3, taken)
    refused(lattice("--endpoints", shared["n1"].peer_addr, "--timeout", "1", "get", "a"), 3)


# --- data directories that know who they are --------------------------------------------------------


def test_23_a_second_process_on_one_directory_is_refused_and_told_the_pid_of_the_first(shared: LocalCluster) -> None:
    """SAFETY 23."""
    node = shared["n2"]
    line = refused(lattice("start", *node.arguments), 3, str(node.data_dir), f"process {node.pid}")
    assert "in use" in line
    assert shared["n2"].status().name == "n2", "the first goes on"


def test_what_contradicts_the_directory_is_refused_with_both_values(shared: LocalCluster) -> None:
    node = shared["n1"]
    shared.kill("n1")
    other = free_addr()
    known = {"--name": "n1", "--peer-addr": node.peer_addr, "--initial-cluster": shared.initial_cluster}
    more = f"{shared.initial_cluster},n4={other}"
    for changed, words in (
        ({"--name": "n9", "--initial-cluster": None}, ["n9", "n1"]),
        ({"--peer-addr": other, "--initial-cluster": None}, [other, node.peer_addr]),
        ({"--initial-cluster": more}, [more, shared.initial_cluster.split(",")[0]]),
    ):
        flags = {**known, **changed}
        options = [part for name, value in flags.items() if value is not None for part in (name, value)]
        done = lattice("start", *options, "--data-dir", str(node.data_dir), "--client-addr", node.client_addr)
        refused(done, 2, str(node.data_dir), *words)
    # Another member's directory, as if two had been swapped.
    done = lattice("start", *shared["n2"].arguments[:2], "--data-dir", str(node.data_dir), *shared["n2"].arguments[4:])
    refused(done, 2, "n1", "n2")
    shared.start("n1")
    shared.healed()


def test_22_a_lost_data_directory_does_not_come_back_under_its_old_id(cluster: LocalCluster) -> None:
    """SAFETY 22: name and address as before, and nothing left of what it had promised."""
    leader = cluster.healed()
    victim = cluster.others(leader)[0]
    cluster.kill(victim)
    shutil.rmtree(cluster[victim].data_dir)
    for attempt in ("with a directory made anew", "and again with that one"):
        done = lattice("start", *cluster[victim].arguments)
        assert done.code == 2, (attempt, done)
        assert "Traceback" not in done.err
        (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert f"lattice cluster remove-server {victim}" in line
        assert "ready " not in done.err
    assert lattice("--endpoints", cluster.endpoints, "--timeout", "20", "put", "after", "1").code == 0
