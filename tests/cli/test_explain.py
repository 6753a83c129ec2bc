"""--explain: the answer on stdout as ever, the explanation beside it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest


def test_put_explained_prints_the_revision_alone_on_stdout(client: Any, lattice: Any) -> None:
    code, out, err = lattice("put", "k", "v", "--explain")
    assert (code, out) == (0, "8\n")
    lines = err.splitlines()
    assert lines[0].startswith("asked 127.0.0.1:7402 in vain")
    assert [line.split("  ")[0] for line in lines[1:4]] == ["connect to n1", "network, there and back", "n1: queue"]
    assert "not yet" in next(line for line in lines if line.startswith("n3: "))
    assert lines[-1] == "10 ms in all, 3.3 ms of it in n1 (leader); entry 42, shared with 2 other requests"
    # What goes on at the same time begins in the same column, and what follows begins no earlier.
    begins = {
        line.split(":")[1].strip().split("  ")[0]: line.index("█") for line in lines if "█" in line and ":" in line
    }
    assert begins["write and fsync"] == begins["sent, written, acknowledged"] == begins["a majority has it"]
    assert begins["apply"] > begins["write and fsync"]


@pytest.mark.parametrize(("flags", "revision"), [([], None), (["--if-absent"], 0), (["--if-revision", "7"], 7)])
def test_put_explained_keeps_its_conditions(client: Any, lattice: Any, flags: list[str], revision: int | None) -> None:
    client.condition_holds = not flags
    code, out, err = lattice("put", "k", "v", "--explain", *flags)
    assert [call[2] for call in client.calls if call[0] == "put_explained"] == [{"if_revision": revision}]
    assert (code, out) == ((1, "") if flags else (0, "8\n"))
    assert ("error: put k: the key is at revision 8" in err) == bool(flags)


def test_get_explained_prints_the_value_alone_on_stdout(client: Any, lattice: Any) -> None:
    client.add(b"k", b"\xff")
    code, _, err = lattice("get", "k", "--explain", "--consistency", "stale", "--max-stale", "3")
    assert code == 0
    assert "in all" in err
    assert client.calls[-1][2] == {"revision": None, "consistency": "stale", "max_stale": 3.0}
    code, out, err = lattice("get", "none", "--explain")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: get none: not found")


def test_the_document_carries_the_explanation(client: Any, lattice: Any) -> None:
    for arguments in (("put", "k", "v"), ("get", "k")):
        client.add(b"k", b"v")
        code, out, err = lattice(*arguments, "--explain", "-o", "json")
        assert (code, err) == (0, "")
        found = json.loads(out)["explain"]
        assert (found["member"], found["server_ms"], found["connect_ms"], found["network_ms"]) == ("n1", 3.3, 2.0, 1.0)
        assert found["steps"][3] == {"step": "follower", "member": "n3", "began_ms": 0.1, "ended_ms": None}
        assert found["attempts"] == [{"address": "127.0.0.1:7402", "ms": 4.0, "why": "n2 does not lead"}]


def test_a_range_is_not_explained(client: Any, lattice: Any) -> None:
    code, _, err = lattice("get", "k", "--prefix", "--explain")
    assert code == 2
    assert "--explain is for one key" in err


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_the_bars_fit_the_terminal(client: Any, lattice: Any, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    err = lattice("put", "k", "v", "--explain")[2]
    err = re.sub(r"\x1b\[[0-9;]*m", "", err)
    assert max(map(len, err.splitlines())) <= columns
    assert "of it in n1 (leader); entry 42, shared with 2 other requests" in " ".join(err.split())
    assert "…" not in err
