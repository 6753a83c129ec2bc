"""Growing, shrinking and replacing real processes while they are written to, and killing them in the middle of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from load import Load
from processes import Finished, LocalCluster, eventually, free_addr, lattice

from lattice_core.client import Client
from lattice_core.errors import LatticeError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180, method="signal")]


def operate(cluster: LocalCluster, *command: str, timeout: float = 30) -> Any:
    """One command of an operator's; its document."""
    done = lattice("--endpoints", cluster.endpoints, "--timeout", str(timeout), "-o", "json", *command)
    assert done.code == 0, done
    return json.loads(done.out)


def members(cluster: LocalCluster) -> dict[str, str]:
    """Name to kind, as the leader says."""
    with Client(cluster.endpoints, timeout=20) as client:
        status = client.cluster_status()
    assert not status.joint
    return {each.name: "voter" if each.voter else "learner" for each in status.members}


def until_members(cluster: LocalCluster, **kinds: str) -> None:
    eventually(lambda: members(cluster) == kinds, f"the members are {kinds}")


def voters(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "voter")


def test_a_cluster_grows_is_replaced_bit_by_bit_and_shrinks_while_it_is_written_to(
    cluster: LocalCluster, figure: Callable[[str], None]
) -> None:
    """Three, five, two of them replaced, the leader moved five times and then removed, three: SAFETY 32-38, 42, 46."""
    with Load(cluster.endpoints) as load:
        load.progress(50)
        with load.gap() as gap:
            for name in ("n4", "n5"):
                cluster.newcomer(name)
                cluster.spawn(name)
            for name in ("n4", "n5"):
                cluster.until_ready(name)
            until_members(cluster, **voters("n1", "n2", "n3", "n4", "n5"))
            for old, new in (("n2", "n6"), ("n3", "n7")):
                cluster.newcomer(new, "--learner")
                cluster.spawn(new)
                cluster.until_ready(new)
                changed = operate(cluster, "cluster", "replace-server", old, new, cluster[new].peer_addr)
                assert (changed["voter"], changed["after"]["quorum"]) == (True, 3)
                assert cluster.left(old) == 4
            assert members(cluster) == voters("n1", "n4", "n5", "n6", "n7")
            with Client(cluster.endpoints, timeout=30) as client:
                for _ in range(5):
                    moved = client.transfer_leader()
                    assert moved.old_leader != moved.new_leader
                    load.progress(10)
            leader = cluster.leader()
            operate(cluster, "cluster", "remove-server", leader)
            assert cluster.left(leader) == 4
            other = sorted(cluster.nodes)[0]
            operate(cluster, "cluster", "remove-server", other)
            assert cluster.left(other) == 4
            assert members(cluster) == voters(*cluster.nodes)
            assert len(cluster.nodes) == 3
    figure(f"the longest that writers stood still: {gap.seconds * 1000:.0f} ms")
    assert not load.unknown
    assert not load.not_applied
    load.account(cluster.endpoints)
    cluster.same_state()


def test_a_client_that_knew_only_members_who_left_goes_on(cluster: LocalCluster) -> None:
    with Client(cluster.endpoints, timeout=30) as client:
        client.put(b"before", b"1")
        for number, old in enumerate(["n1", "n2", "n3"]):
            new = f"m{number}"
            cluster.newcomer(new, "--learner")
            cluster.start(new)
            operate(cluster, "cluster", "replace-server", old, new, cluster[new].peer_addr)
            cluster.left(old)
            client.put(b"after %d" % number, b"1")
        # The leader dies too, and none that the client was told of at the start exists any more. What a client knows
        # of members is a few seconds old at most: within that time it cannot be asked to find them.
        now = {cluster[name].client_addr for name in ("m0", "m1", "m2")}
        eventually(lambda: now <= client._async._book._learned.keys(), "the client knows the members")
        cluster.kill(cluster.leader())
        client.put(b"at last", b"1")
        assert client.get(b"before") is not None


@pytest.mark.parametrize(
    "moment",
    ["directory", "incarnation", "identity", "ready"],
)
def test_a_joiner_that_is_killed_anywhere_joins_once_by_the_same_command(shared: LocalCluster, moment: str) -> None:
    before = members(shared)
    name = f"joiner-{moment}"
    node = shared.newcomer(name)
    signs = {
        "directory": node.data_dir.exists,
        "incarnation": (node.data_dir / "peers").exists,
        "identity": (node.data_dir / "identity").exists,
        "ready": lambda: "\nready " in node.log(),
    }
    for _ in range(2):
        shared.spawn(name)
        deadline = time.monotonic() + 30
        while not signs[moment]() and time.monotonic() < deadline:
            time.sleep(0.001)
        shared.kill(name)
    shared.start(name)
    until_members(shared, **before, **voters(name))
    assert shared.healed()
    operate(shared, "cluster", "remove-server", name)
    assert shared.left(name) == 4
    assert members(shared) == before


@pytest.mark.parametrize("change", ["replace-server", "remove-server"])
def test_a_leader_that_is_killed_in_the_middle_of_a_change_leaves_it_to_the_next(
    cluster: LocalCluster, change: str, figure: Callable[[str], None]
) -> None:
    """SAFETY 37: whatever the moment, the members are the old ones or the new ones, and nothing is lost."""
    with Load(cluster.endpoints) as load:
        load.progress(30)
        leader = cluster.leader()
        old = cluster.others(leader)[0]
        cluster.newcomer("n4", "--learner")
        cluster.start("n4")
        log_of_leader = cluster[leader].log
        arguments = [old] if change == "remove-server" else [old, "n4", cluster["n4"].peer_addr]
        with Client(cluster.endpoints, timeout=5) as client:
            if change == "replace-server":
                client.replace_server(*arguments)
                eventually(lambda: "it is to vote" in log_of_leader(), "the replacement begins")
                cluster.kill(leader)
            else:
                sent = lattice_in_background(cluster, "cluster", change, *arguments)
                eventually(lambda: "outgoing" in log_of_leader() or sent.poll() is not None, "the removal begins")
                cluster.kill(leader)
                sent.wait(60)
        cluster.start(leader)
        if change == "replace-server":
            assert cluster.left(old) == 4
            until_members(cluster, **voters(*{"n1", "n2", "n3", "n4"} - {old}))
        else:
            load.progress(30)
            found = eventually(lambda: settled(cluster), "the next leader has finished what it found")
            kept = {"n1", "n2", "n3", "n4"}
            if found != kept:
                assert found == kept - {old}
                assert cluster.left(old) == 4
            figure("the removal was " + ("lost with its leader" if found == kept else "finished by the next leader"))
        load.progress(30)
        cluster.healed()
    load.account(cluster.endpoints)
    cluster.same_state()


def settled(cluster: LocalCluster) -> set[str]:
    """The members' names, as a leader knows them that has committed all it knows; none while that is not so."""
    leading = [node.status() for node in cluster.awake()]
    (leader,) = [status for status in leading if status.role == "leader"]
    configuration = leader.configuration
    if configuration.voters_outgoing or leader.configuration_index > leader.commit_index:
        return set()
    return {member.name for member in configuration.members}


def lattice_in_background(cluster: LocalCluster, *command: str) -> Any:
    import sys

    from processes import spawn

    arguments = [sys.executable, "-m", "lattice_cli", "--endpoints", cluster.endpoints, *command]
    return spawn(arguments, output=cluster.directory / "command.log")


def test_a_removed_server_says_so_once_and_refuses_its_directory_ever_after(cluster: LocalCluster) -> None:
    """SAFETY 35: removed while it ran, and removed while it was down."""
    leader = cluster.leader()
    running, down = cluster.others(leader)
    cluster.newcomer("n4")
    cluster.start("n4")
    until_members(cluster, **voters("n1", "n2", "n3", "n4"))
    cluster.kill(down)
    time.sleep(1.2)
    operate(cluster, "cluster", "remove-server", down)
    cluster.spawn(down)
    node = cluster[down]
    assert cluster.left(down) == 4
    assert node.log().count(f"{down} was removed from its cluster") == 1
    assert "says: " in node.log()
    again = lattice("start", *node.arguments)
    assert again.code == 4
    line = again.the_error()
    assert f"{down} was removed from its cluster, for good" in line
    assert "--join" in line
    operate(cluster, "cluster", "remove-server", running)
    node = cluster[running]
    assert cluster.left(running) == 4
    assert lattice("start", *node.arguments).code == 4
    assert cluster.leader() == leader, "nobody was disturbed"


# --- what cannot be meant ------------------------------------------------------------------------------


def refused(done: Finished, code: int, *words: str) -> None:
    line = done.the_error()
    assert done.code == code, done
    assert ". try: " in line, line
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"


def test_a_change_that_cannot_be_meant_is_one_line_the_right_code_and_no_change(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    leader = cluster.leader()
    dead, alive = cluster.others(leader)
    cluster.kill(dead)
    operate(cluster, "cluster", "add-server", "later", free_addr(), "--start-later")
    time.sleep(1.2)
    before = members(cluster)
    addr, taken = free_addr(), cluster[alive].peer_addr
    table: list[tuple[list[str], int, list[str]]] = [
        (["cluster", "add-server", "n1", addr], 4, ["n1 is a member already"]),
        (["cluster", "add-server", "n4", taken], 4, [f"{taken} is the peer address of the member {alive}"]),
        (["cluster", "add-server", "n4", addr], 4, [addr, "connection refused", "--start-later", "lattice start"]),
        (["cluster", "add-server", "n4", cluster[alive].client_addr], 4, ["no peer address of Lattice's"]),
        (["cluster", "add-server", "n4", "nowhere"], 2, ["'nowhere' is not HOST:PORT"]),
        (["cluster", "add-server", "a b", addr], 2, ["'a b'"]),
        (["cluster", "add-server", "n4"], 2, ["PEER_ADDR"]),
        (["cluster", "remove-server", "nix"], 4, ["'nix' is no member"]),
        (["cluster", "remove-server", alive], 4, [f"without {alive}", f"remove-server {dead}", "--force"]),
        (["cluster", "remove-server", leader], 4, [f"without {leader}"]),
        (["cluster", "replace-server", "nix", "n4", addr], 4, ["'nix' is no member"]),
        (["cluster", "replace-server", "later", "n4", addr], 4, ["later is a learner"]),
        (["cluster", "replace-server", dead, alive, taken], 4, [f"{alive} votes already"]),
        (["cluster", "replace-server", dead, "n4", addr], 4, [addr, "connection refused", "--start-later"]),
        (["cluster", "promote", "nix"], 4, ["'nix' is no member"]),
        (["cluster", "promote", alive], 4, [f"{alive} votes already"]),
        (["cluster", "promote", "later"], 4, ["later has never been heard from"]),
        (["transfer-leader", "nix"], 4, ["'nix' is no member"]),
        (["transfer-leader", "later"], 4, ["later is a learner"]),
        (["transfer-leader", leader], 4, [f"{leader} leads already"]),
        (["transfer-leader", dead], 4, [f"{dead} does not answer", f"lattice transfer-leader {alive}"]),
        (["start", "--data-dir", str(tmp_path / "d"), "--name", alive, "--join", cluster.endpoints,
          "--peer-addr", addr, "--client-addr", free_addr()], 4, [f"{alive} is a member already"]),
        (["start", "--data-dir", str(tmp_path / "e"), "--join", cluster[alive].peer_addr,
          "--peer-addr", addr, "--client-addr", free_addr()], 2, ["client address"]),
        (["start", "--data-dir", str(tmp_path / "f"), "--join", "h:1", "--initial-cluster", f"n1={addr}",
          "--peer-addr", addr], 2, ["--join", "--initial-cluster"]),
        (["start", "--data-dir", str(tmp_path / "g"), "--learner"], 2, ["--join"]),
    ]  # fmt: skip
    for command, code, words in table:
        done = lattice(*command, env={"LATTICE_ENDPOINTS": cluster.endpoints})
        if command[0] == "start":
            done = Finished(done.code, done.out, "".join(errors_of(done)), done.seconds)
        refused(done, code, *words)
    assert members(cluster) == before
    assert cluster.leader() == leader
    with Client(cluster.endpoints, timeout=20) as client:
        client.put(b"still", b"written")


def errors_of(done: Finished) -> list[str]:
    """A node's log apart, what it has to say to whoever started it."""
    return [line + "\n" for line in done.err.splitlines() if line.startswith("error: ")]


def test_a_change_sent_to_a_minority_is_unavailable_and_changes_nothing(shared: LocalCluster) -> None:
    leader = shared.leader()
    others = shared.others(leader)
    before = members(shared)
    shared.pause(*others)
    try:
        for name in (leader, others[0]):
            done = lattice(
                *("--endpoints", shared[leader].client_addr, "--timeout", "8", "cluster", "remove-server", name)
            )
            done.the_error()
            assert done.code in (3, 4), done  # refused, while the leader believes that it is one, or nobody leads
    finally:
        shared.resume(*others)
    shared.healed()
    assert members(shared) == before


def test_a_dry_run_says_what_becomes_of_the_quorum(shared: LocalCluster) -> None:
    before = members(shared)
    document = operate(shared, "cluster", "add-server", "n4", "127.0.0.1:1", "--start-later", "--dry-run")
    assert document["dry_run"] is True
    assert (document["before"]["quorum"], document["before"]["tolerates"]) == (2, 1)
    assert (document["after"]["quorum"], document["after"]["tolerates"]) == (3, 1)
    table = lattice("--endpoints", shared.endpoints, "-o", "table", "cluster", "remove-server", "n1", "--dry-run")
    assert table.code == 0
    assert b"2 of 3" in table.out
    assert b"2 of 2" in table.out
    would = lattice("--endpoints", shared.endpoints, "-o", "json", "cluster", "remove-server", "nix", "--dry-run")
    assert would.code == 4
    assert "it would be refused" in would.the_error()
    assert json.loads(would.out)["refused"].startswith("'nix' is no member")
    assert members(shared) == before


def test_sigterm_while_joining_ends_in_good_order(shared: LocalCluster) -> None:
    node = shared.newcomer("n8")
    node.arguments[node.arguments.index("--join") + 1] = free_addr()  # nobody there
    shared.spawn("n8")
    eventually(lambda: "not admitted yet" in node.log(), "it is asking")
    try:
        assert shared.terminate("n8") == 0
        assert os.path.exists(node.data_dir / "peers")
        assert "Traceback" not in node.log()
    finally:
        shared.gone.append(shared.nodes.pop("n8"))


def test_errors_of_the_library_say_what_was_not_done(shared: LocalCluster) -> None:
    with Client(shared.endpoints, timeout=10) as client:
        for call in (
            lambda: client.add_server("n1", "127.0.0.1:1"),
            lambda: client.remove_server("nix"),
            lambda: client.replace_server("nix", "n4", "127.0.0.1:1"),
            lambda: client.promote("n1"),
        ):
            with pytest.raises(LatticeError) as caught:
                call()
            assert type(caught.value).__name__ == "NotAllowed"
            assert caught.value.hint
