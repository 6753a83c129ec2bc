"""lattice sim: what it prints, saves and replays, with members that come and go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Lattice = Callable[..., tuple[int, str, str]]
QUICK = ("sim", "--seed", "3", "--hours", "0.005")


def test_json_has_what_the_contract_says_and_what_became_of_each_change(lattice: Lattice) -> None:
    code, out, _ = lattice(*QUICK, "--membership", "journey", "-o", "json")
    found = json.loads(out)
    assert code == 0
    assert {
        *("seed", "trace_hash", "events", "simulated_seconds", "wall_seconds", "elections"),
        *("acknowledged_writes", "faults", "violations"),
    } <= found.keys()
    assert found["changes"]["transfer: done"] == 5
    assert found["joined"] >= 4


def test_the_table_names_the_changes_and_the_servers_that_joined(lattice: Lattice) -> None:
    code, out, _ = lattice(*QUICK, "--membership", "journey", "-o", "table")
    assert code == 0
    assert "joined later" in out
    assert "add: done 2" in out.replace("\n", " ")
    code, out, _ = lattice(*QUICK, "--membership", "off", "-o", "table")
    assert "membership" not in out


def test_a_campaign_counts_changes(lattice: Lattice) -> None:
    code, out, _ = lattice(*QUICK, "--seeds", "2", "--membership", "journey", "-o", "table")
    assert code == 0
    assert "22 changes done, 0 refused or given up" in out


def test_a_saved_plan_with_changes_is_replayed_to_the_same_end(lattice: Lattice, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    _, first, _ = lattice(*QUICK, "--membership", "random", "--save", str(path), "-o", "json")
    assert json.loads(path.read_text())["changes"]
    code, again, _ = lattice("sim", "--replay", str(path), "-o", "json")
    assert code == 0
    assert json.loads(again)["trace_hash"] == json.loads(first)["trace_hash"]


def test_a_page_of_servers_that_come_and_go(lattice: Lattice, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    code, _, _ = lattice(*QUICK, "--membership", "journey", "--html", str(path))
    assert code == 0
    assert "3 nodes and 4 more" in path.read_text()


def test_what_a_plan_decides_cannot_be_asked_for_beside_it(lattice: Lattice) -> None:
    code, _, err = lattice("sim", "--replay", "plan.json", "--membership", "off")
    assert code == 2
    assert "it excludes --seed, --seeds, --nodes and --membership" in err
    code, _, err = lattice("sim", "--membership", "sometimes")
    assert code == 2
    assert "sometimes" in err


def test_the_planted_bugs_of_membership_are_listed(lattice: Lattice) -> None:
    code, out, _ = lattice("sim", "--plant", "list", "-o", "json")
    assert code == 0
    assert {"membership-on-apply", "lease-kept-in-transfer", "learner-counted"} <= json.loads(out)["planted"].keys()
