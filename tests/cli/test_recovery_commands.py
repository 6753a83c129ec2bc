"""``lattice snapshot restore`` and ``lattice recover``: what is said, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_data import MEMBERS, OLD_CLUSTER, SEGMENT_BYTES, leave_member, save, state_at

from lattice_core.kv.successor import STEP
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.identity import read_identity

Lattice = Callable[..., tuple[int, str, str]]
FS = RealFileSystem()
INITIAL = ",".join(f"{name}={addr}" for name, addr in MEMBERS.items())


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATTICE_SEGMENT_BYTES", str(SEGMENT_BYTES))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(save(FS, str(tmp_path / "backup"), state_at(40)))


def options(directory: Path, name: str = "n1") -> list[str]:
    return [
        *("--data-dir", str(directory), "--name", name, "--peer-addr", MEMBERS[name]),
        *("--client-addr", "h:7400", "--initial-cluster", INITIAL),
    ]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def one_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert ". try: " in err
    return err


# --- restore ----------------------------------------------------------------------------------------


def test_restore_says_what_it_made_and_what_to_do_next(lattice: Lattice, file: Path, tmp_path: Path) -> None:
    documents = []
    for name in MEMBERS:
        code, out, err = lattice("snapshot", "restore", str(file), *options(tmp_path / name, name), "-o", "json")
        assert (code, err) == (0, "")
        documents.append(json.loads(out))
    for name, document in zip(MEMBERS, documents, strict=True):
        assert document["name"] == name
        assert document["data_dir"] == str(tmp_path / name)
        assert (document["keys"], document["saved_revision"], document["revision"]) == (39, 39, 39 + STEP)
        assert [member["name"] for member in document["members"]] == list(MEMBERS)
        assert document["saved_cluster_id"] == f"{OLD_CLUSTER:016x}" != document["cluster_id"]
    assert len({document["cluster_id"] for document in documents}) == 1
    assert len({document["state_hash"] for document in documents}) == 1
    code, out, err = lattice("snapshot", "restore", str(file), *options(tmp_path / "again"))
    assert code == 0
    assert "revision\t1000000000039" in out
    words = shlex.split(err.removeprefix("next: "))
    assert words[:4] == ["lattice", "start", "--name", "n1"]
    assert words[words.index("--initial-cluster") + 1] == INITIAL
    code, out, _ = lattice("snapshot", "restore", str(file), *options(tmp_path / "third"), "--generation", "2")
    assert "revision\t2000000000039" in out
    identity = read_identity(FS, str(tmp_path / "third"))
    assert identity is not None
    assert f"{identity.cluster_id:016x}" not in {document["cluster_id"] for document in documents}


def test_restore_takes_settings_as_start_does(
    lattice: Lattice, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATTICE_DATA_DIR", str(tmp_path / "from-environment"))
    settings = tmp_path / "lattice.toml"
    settings.write_text('name = "n2"\npeer_addr = "h:7502"\n')
    assert lattice("snapshot", "restore", str(file), "--config", str(settings))[0] == 0
    identity = read_identity(FS, str(tmp_path / "from-environment"))
    assert identity is not None
    assert (identity.node_name, identity.peer_addr) == ("n2", "h:7502")


def test_restore_refuses_in_one_line_and_touches_nothing(lattice: Lattice, file: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("precious")
    member = Path(leave_member(FS, "n2", 3, data_dir=str(tmp_path / "member")))
    before = contents(tmp_path)
    for arguments, code, said in (
        ([str(file), *options(full)], 2, "holds 'thesis.tex'"),
        ([str(file), *options(member)], 2, "is the data directory of n2"),
        ([str(file), *options(full / "thesis.tex")], 2, "cannot be used as a data directory"),
        ([str(file), *options(tmp_path / "new"), "--name", "n9"], 2, "n9 is not among n1, n2, n3"),
        ([str(file), *options(tmp_path / "new"), "--peer-addr", "h:1"], 2, "peer address h:7501"),
        ([str(file), *options(tmp_path / "new"), "--generation", "0"], 2, "generation"),
        ([str(tmp_path / "none"), *options(tmp_path / "new")], 2, "does not exist"),
        ([str(tmp_path), *options(tmp_path / "new")], 2, "is not a file"),
    ):
        found, out, err = lattice("snapshot", "restore", *arguments)
        assert (found, out) == (code, ""), err
        assert said in one_line(err)
    assert contents(tmp_path) == before


def test_restore_names_a_damaged_file_and_where(lattice: Lattice, file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    at = content.index(b"key030")
    content[at] ^= 1
    file.write_bytes(content)
    code, _, err = lattice("snapshot", "restore", str(file), *options(tmp_path / "new"))
    assert code == 3
    assert f"{file} is damaged at offset " in one_line(err)
    assert not (tmp_path / "new").exists()


def test_restore_shows_its_progress_on_a_terminal(file: Path, tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "lattice_cli", "snapshot", "restore", str(file), *options(tmp_path / "new")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=False)
    os.close(terminal)
    shown = os.read(main, 1 << 16)
    os.close(main)
    assert done.returncode == 0
    assert b"100%" in shown
    assert b"bytes read" in shown
    assert b"39 of 39 keys written" in shown


# --- recover ----------------------------------------------------------------------------------------


def survivors(tmp_path: Path, *names: str, last: int = 30) -> list[Path]:
    return [Path(leave_member(FS, name, last, commit=last - 2, data_dir=str(tmp_path / f"d-{name}"))) for name in names]


def test_recover_shows_everything_and_changes_nothing_without_yes(lattice: Lattice, tmp_path: Path) -> None:
    (path,) = survivors(tmp_path, "n3")
    before = contents(tmp_path)
    code, out, err = lattice("recover", str(path), "-o", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    (survivor,) = document["survivors"]
    assert survivor["name"] == "n3"
    numbers = {key: survivor[key] for key in ("term", "last_index", "last_term", "commit_index", "snapshot_index")}
    assert numbers == {"term": 2, "last_index": 30, "last_term": 1, "commit_index": 28, "snapshot_index": 0}
    assert survivor["entries"] == 30
    assert (document["done"], document["quorum"], document["chosen"]) == (False, False, str(path))
    assert (document["acknowledged_writes_may_be_lost"], document["uncommitted_entries_kept"]) == (True, 2)
    assert [(member["name"], member["found"]) for member in document["members"]] == [
        ("n1", "missing"),
        ("n2", "missing"),
        ("n3", "survivor"),
    ]
    assert (document["keys"], document["revision"], document["result"]["revision"]) == (29, 29, 29 + STEP)
    assert document["result"]["data_dir"] == str(path)
    assert document["result"]["old_data_moves_to"] == f"{path}/before-recovery-{OLD_CLUSTER:016x}"
    for output in ("raw", "table"):
        code, out, err = lattice("recover", str(path), "-o", output)
        assert code == 0
        assert err == f"nothing was changed. to do it: lattice recover {path} --yes\n"
        text = " ".join(out.split())
        assert "acknowledged writes that only n1 and n2 had; whether there are any cannot be known" in text
        assert "2 entries after 28, not known to be committed: kept" in text
        assert "n1 missing, n2 missing, n3 survivor" in text
    assert contents(tmp_path) == before


def test_recover_with_yes_does_it_and_says_how_to_go_on(lattice: Lattice, tmp_path: Path) -> None:
    (path,) = survivors(tmp_path, "n3")
    code, out, err = lattice("recover", str(path), "--yes", "-o", "table")
    assert code == 0
    assert "may be lost" in out, "what was found is said once more"
    start = f"lattice start --name n3 --data-dir {path} --client-addr h:7403 --peer-addr h:7503"
    assert err == f"next: {start}\n"
    identity = read_identity(FS, str(path))
    assert identity is not None
    assert identity.cluster_id != OLD_CLUSTER
    code, _, err = lattice("recover", str(path), "--yes")
    assert code == 4
    assert "are a quorum of their cluster and can go on" in one_line(err)
    code, _, err = lattice("recover", str(path))
    assert (code, "is refused" in err) == (0, True)


def test_recover_elsewhere_for_another_address(lattice: Lattice, tmp_path: Path) -> None:
    paths = survivors(tmp_path, "n2", "n3")
    before = contents(tmp_path)
    into = tmp_path / "into"
    more = ["--into", str(into), "--name", "n9", "--peer-addr", "h:1", "--client-addr", "h:2", "--force"]
    _, _, err = lattice("recover", *map(str, paths), *more)
    assert err.endswith(f"--into {into} --name n9 --client-addr h:2 --peer-addr h:1 --force --yes\n")
    assert contents(tmp_path) == before
    command = shlex.split(err.split("to do it: lattice ")[1])
    code, out, _ = lattice(*command, "-o", "json")
    assert code == 0
    document = json.loads(out)
    assert document["done"] is True
    identity = read_identity(FS, str(into))
    assert identity is not None
    assert f"{identity.cluster_id:016x}" == document["result"]["cluster_id"]
    assert (identity.node_name, identity.peer_addr, identity.client_addr) == ("n9", "h:1", "h:2")
    assert {name: content for name, content in contents(tmp_path).items() if "/into/" not in name} == before


def test_recover_names_damage_and_leaves_that_survivor_out(lattice: Lattice, tmp_path: Path) -> None:
    whole, broken = survivors(tmp_path, "n2", "n3")
    (segment,) = (broken / "wal").iterdir()
    content = bytearray(segment.read_bytes())
    content[content.index(b"key007")] ^= 1
    segment.write_bytes(content)
    code, out, _ = lattice("recover", str(broken), str(whole), "-o", "json")
    assert code == 0
    document = json.loads(out)
    damage = document["survivors"][0]["damage"]
    assert damage["path"] == str(segment)
    assert f"damaged at offset {damage['offset']}" in damage["reason"]
    assert (document["chosen"], document["quorum"]) == (str(whole), False)
    assert [member["found"] for member in document["members"]] == ["missing", "survivor", "damaged"]
    code, out, _ = lattice("recover", str(broken), str(whole), "-o", "table")
    text = " ".join(out.split())
    assert f"! n3 is left out: {segment} is damaged at offset" in text
    assert "Whether it had more than the others cannot be told." in text
    code, out, err = lattice("recover", str(broken))
    assert (code, out) == (3, "")
    assert str(segment) in one_line(err)
    assert "lattice snapshot restore FILE" in err


def test_recover_refuses_what_cannot_be_meant(lattice: Lattice, tmp_path: Path) -> None:
    (path,) = survivors(tmp_path, "n3")
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ([], "missing argument"),
        ([str(tmp_path / "none")], "does not exist"),
        ([str(tmp_path / "empty")], "is not a data directory"),
        ([str(path), str(path)], "the same directory"),
        ([str(path), "--into", str(path)], "is the data directory of n3"),
        ([str(path), "--generation", "0"], "generation"),
    ):
        code, out, err = lattice("recover", *arguments)
        assert (code, out) == (2, ""), err
        assert said in one_line(err).lower() if said == "missing argument" else said in one_line(err)


def test_recover_that_was_cut_short_is_finished_by_the_same_command(lattice: Lattice, tmp_path: Path) -> None:
    """As after a kill -9 in the middle of changing over; every step is in tests/server/test_recover.py."""
    (path,) = survivors(tmp_path, "n3")
    assert lattice("recover", str(path), "--yes")[0] == 0
    archive = path / f"before-recovery-{OLD_CLUSTER:016x}"
    new = path / "recovery.new"
    new.mkdir()
    for part in ("identity", "peers"):
        shutil.move(path / part, new / part)
    (path / "changing").write_text(json.dumps({"archive": archive.name}))
    for arguments in (["recover", str(path)], ["start", "--name", "n3", "--data-dir", str(path)]):
        code, _, err = lattice(*arguments)
        assert code == 2
        assert "is unfinished" in one_line(err)
        assert f"lattice recover {path} --yes" in err
    code, _, err = lattice("snapshot", "restore", str(tmp_path / "any"), *options(path))
    assert (code, "cut short" in one_line(err)) == (2, True)
    code, out, _ = lattice("recover", str(path), "--yes", "-o", "json")
    assert code == 0
    document: dict[str, Any] = json.loads(out)
    assert (document["done"], document["finished"]) == (True, True)
    assert sorted(each.name for each in path.iterdir()) == [
        *(archive.name, "identity", "lock", "peers", "snapshots", "wal"),
    ]
