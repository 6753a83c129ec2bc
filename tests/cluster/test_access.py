"""Access control as its operator meets it: commands, files, exit codes, a server that joins, the way back in."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from processes import Finished, LocalCluster, lattice

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240, method="signal")]

PASSWORD = b"correct horse battery"


def said(endpoints: str, *command: str, code: int = 0, token: Path | None = None, stdin: bytes = b"") -> Finished:
    more = () if token is None else ("--token-file", str(token))
    done = lattice("--endpoints", endpoints, "--timeout", "20", *command, *more, stdin=stdin)
    assert done.code == code, (command, done)
    return done


def document(endpoints: str, *command: str, token: Path | None = None) -> Any:
    return json.loads(said(endpoints, "-o", "json", *command, token=token).out)


def files_below(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_from_the_first_administrator_to_the_way_back_in(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "cluster", 1) as cluster:
        at = cluster.endpoints
        root, app, ann, rescue = (tmp_path / name for name in ("root", "app", "ann", "rescue"))
        assert document(at, "access", "status") == {
            "enabled": False, "user": None, "roles": [], "users": 0, "has_admin": False
        }  # fmt: skip
        said(at, "user", "add", "root", "--role", "admin")
        said(at, "token", "create", "root", "--out", str(root))
        assert stat.S_IMODE(root.stat().st_mode) == 0o600
        assert "exists already" in said(at, "token", "create", "root", "--out", str(root), code=2).the_error()
        assert "lattice access enable --token-file" in said(at, "access", "enable", code=4).the_error()
        said(at, "access", "enable", token=root)

        for command in (("put", "a", "1"), ("get", "a"), ("cluster", "status"), ("user", "list"), ("access", "status")):
            refused = said(at, *command, code=4).the_error()
            assert "access control is enabled here, and the call brought no token. try: lattice login" in refused

        said(at, "role", "grant", "app", "write", "app/", token=root)
        said(at, "user", "add", "app", "--role", "app", token=root)
        said(at, "token", "create", "app", "--ttl", "1h", "--out", str(app), token=root)
        said(at, "put", "app/a", "1", token=app)
        assert said(at, "get", "app/a", token=app).out == b"1"
        refused = said(at, "put", "other", "1", code=4, token=app).the_error()
        assert "app may not write the key 'other'. try: an administrator can grant that" in refused
        assert "Traceback" not in said(at, "snapshot", "take", code=4, token=app).err
        benched = document(at, "bench", "--seconds", "0.3", "--callers", "8", token=root)
        assert benched["errors"] == 0

        said(at, "user", "add", "ann", "--password-file", "-", token=root, stdin=PASSWORD + b"\n")
        said(at, "login", "ann", "--password-file", "-", "--out", str(ann), stdin=PASSWORD)
        assert document(at, "access", "status", token=ann)["user"] == "ann"
        wrong = said(at, "login", "ann", "--password-file", "-", stdin=b"wrong", code=4).the_error()
        assert "login: the name or the password is wrong" in wrong
        assert [user["name"] for user in document(at, "user", "list", token=root)["users"]] == ["ann", "app", "root"]
        (kind,) = [
            each["id"] for each in document(at, "token", "list", token=root)["tokens"] if each["kind"] == "login"
        ]
        said(at, "token", "revoke", kind, token=root)
        assert "the token is not valid" in said(at, "get", "a", code=4, token=ann).the_error()

        # A server joins with an administrator's token, and not without.
        cluster.newcomer("n2")
        cluster.spawn("n2")
        assert cluster.until_ended("n2") == 4
        assert "the same command with --token-file FILE" in cluster["n2"].log()
        cluster["n2"].arguments += ["--token-file", str(root)]
        cluster.start("n2")
        said(cluster["n2"].client_addr, "put", "app/b", "2", token=app)

        # Every administrator's secret is lost.
        leader = document(at, "cluster", "status", token=root)["leader"]
        said(at, "access", "rescue", str(tmp_path), code=2)
        said(at, "access", "rescue", str(cluster[leader].data_dir), "--out", str(rescue))
        said(cluster[leader].client_addr, "access", "disable", token=rescue)
        said(at, "get", "app/b")
        cluster.same_state()

        secrets = [PASSWORD, *(file.read_bytes().strip().rpartition(b"_")[2] for file in (root, app, ann, rescue))]
        logs = [node.log_path.read_bytes() for node in cluster.nodes.values()]
        assert b"refused" in logs[0]
        for data in (*logs, *files_below(tmp_path / "cluster").values()):
            assert not any(secret in data for secret in secrets)


def test_what_is_restored_from_a_backup_asks_for_the_same_tokens_and_has_the_same_way_back_in(tmp_path: Path) -> None:
    root, rescue, backup = (tmp_path / name for name in ("root", "rescue", "backup.snap"))
    with LocalCluster(tmp_path / "old", 1) as cluster:
        at = cluster.endpoints
        said(at, "put", "a", "1")
        said(at, "user", "add", "root", "--role", "admin")
        said(at, "token", "create", "root", "--out", str(root))
        said(at, "access", "enable", token=root)
        said(at, "snapshot", "save", str(backup), code=4)
        said(at, "snapshot", "save", str(backup), token=root)
    restored = LocalCluster(tmp_path / "new", 1)
    node = restored["n1"]
    arguments = ("--data-dir", str(node.data_dir), "--client-addr", node.client_addr, "--peer-addr", node.peer_addr)
    assert lattice("snapshot", "restore", str(backup), "--name", "n1", *arguments).code == 0
    at = node.arguments.index("--initial-cluster")
    del node.arguments[at : at + 2]
    with restored:
        where = restored.endpoints
        said(where, "get", "a", code=4)
        assert said(where, "get", "a", token=root).out == b"1"
        said(where, "access", "rescue", str(node.data_dir), "--out", str(rescue))
        said(where, "user", "passwd", "root", "--password-file", "-", token=rescue, stdin=PASSWORD)
        said(where, "login", "root", "--password-file", "-", "--out", str(root), stdin=PASSWORD)
        assert said(where, "get", "a", token=root).out == b"1"
