"""A member whose data is damaged or lost comes back as a new one, by one command (SAFETY 17, 22)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from membership_harness import member_ids, until_voters, voters
from server_harness import Cluster, cluster, configs, get, put, run
from test_install import fill, same_state

from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError, NotAllowed, StorageDamaged
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server import bootstrap, reseeding
from lattice_core.server import run as run_module
from lattice_core.server.run import RunningNode
from lattice_core.storage import making
from lattice_core.storage.filesystem import RealFileSystem
from lattice_core.storage.segments import decode_header, scan_segment


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def damage_log(data_dir: Path) -> None:
    """In an entry that was acknowledged long ago."""
    path = min((data_dir / "wal").iterdir())
    data = path.read_bytes()
    entry = scan_segment(data, decode_header(data)).frames[3].records[-1]
    flip(path, entry.offset + entry.size_bytes - 1)


def damage_identity(data_dir: Path) -> None:
    flip(data_dir / "identity", 40)


def lose_identity(data_dir: Path) -> None:
    (data_dir / "identity").unlink()


def lose_everything(data_dir: Path) -> None:
    shutil.rmtree(data_dir)


def mark(data_dir: Path) -> None:
    bootstrap.mark_diverged(RealFileSystem(), str(data_dir), "at index 7 it was another")


def there(data_dir: str | Path, pattern: str = "*") -> list[Path]:
    return sorted(Path(data_dir).glob(pattern))


async def killed_follower(running: Cluster) -> NodeConfig:
    leader = await running.leader()
    await fill(leader.config.client_addr, range(30))
    config = running.followers()[0].config
    await running.kill(config.name)
    return config


def seeds(running: Cluster, config: NodeConfig) -> str:
    """The other members, a follower first: it has to say who leads."""
    others = sorted(running.nodes.values(), key=lambda each: each.node.core.is_leader)
    return ",".join(each.config.client_addr for each in others if each.config.name != config.name)


@pytest.mark.parametrize("hurt", [damage_log, damage_identity, lose_identity, lose_everything, mark])
def test_safety_17_22_a_damaged_or_lost_member_comes_back_as_a_new_one_with_the_leaders_state(
    tmp_path: Path, hurt: Callable[[Path], None]
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            config = await killed_follower(running)
            name, data_dir = config.name, Path(config.data_dir)
            leader = await running.leader()
            former = member_ids(leader)[name]
            hurt(data_dir)
            if there(data_dir):
                with pytest.raises(StorageDamaged) as caught:
                    await RunningNode(config).start()
                hint = caught.value.hint or ""
                assert f"lattice start --name {name} --data-dir {data_dir} " in hint
                assert f"--peer-addr {config.peer_addr} --reseed H:P" in hint
            # The same options as ever, and one more.
            running.configs[name] = replace(config, reseed=seeds(running, config))
            await running.start(name)
            assert voters(running.nodes[name]) in ([], ["n1", "n2", "n3"], sorted({"n1", "n2", "n3"} - {name}))
            await until_voters(running, "n1", "n2", "n3")
            back = running.nodes[name].node
            assert back.core.id == member_ids(leader)[name] != former
            await same_state(running)
            archives = there(data_dir, "before-recovery-*")
            assert len(archives) == (0 if hurt is lose_everything else 1)
            if hurt is damage_log:
                assert {path.name for path in there(archives[0])} >= {"wal", "identity", "peers"}
            # From now on without it: the options of the old member fit the new one.
            await running.stop(name)
            running.configs[name] = config
            await running.start(name)
            await put((await running.leader()).config.client_addr, b"after", b"all")
            await same_state(running)

    run(scenario())


def test_a_whole_directory_is_started_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            config = await killed_follower(running)
            before = member_ids(await running.leader())
            running.configs[config.name] = replace(config, reseed=seeds(running, config))
            await running.start(config.name)
            assert running.nodes[config.name].node.core.id == before[config.name]
            await same_state(running)
            assert member_ids(await running.leader()) == before

    run(scenario())


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (making, "clear"),
        (run_module, "ask_to_join"),
        (reseeding, "create_joined"),
        (reseeding, "change_over"),
        (making, "finish_change"),
        (RealFileSystem, "rename"),
        (RealFileSystem, "remove_dir"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cut_short_anywhere_it_is_done_by_the_same_command_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, what: str
) -> None:
    class Killed(BaseException):
        pass

    done = getattr(where, what)
    calls = 0

    def die(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        if where is RealFileSystem and not arguments[1].startswith(wanting.data_dir):
            return done(*arguments, **options)  # another member's
        calls += 1
        if calls < at:
            return done(*arguments, **options)
        raise Killed

    async def scenario() -> None:
        nonlocal at, calls, wanting
        async with cluster(configs(tmp_path, 3)) as running:
            config = await killed_follower(running)
            damage_log(Path(config.data_dir))
            wanting = replace(config, reseed=seeds(running, config))
            while True:
                calls = 0
                with monkeypatch.context() as patch:
                    patch.setattr(where, what, die)
                    node = RunningNode(wanting)
                    try:
                        await node.start()
                    except Killed:
                        at += 1
                        # Without the option it does not start as if nothing had been: damaged, or between the two.
                        if at == 2:
                            patch.setattr(where, what, done)
                            with pytest.raises((StorageDamaged, ConfigurationError)):
                                await RunningNode(config).start()
                    else:
                        running.nodes[config.name] = node
                        break
            await until_voters(running, "n1", "n2", "n3")
            await same_state(running)
            archives = there(config.data_dir, "before-recovery-*")
            assert any((archive / "wal").exists() for archive in archives), "the damaged data was kept"
        assert at > 1, "it was never cut short there"

    at = 1
    wanting = NodeConfig()
    run(scenario())


def test_nobody_is_removed_whose_address_another_holds_or_whose_cluster_is_another(tmp_path: Path) -> None:
    """A mistaken command must not cost a cluster a member that is well."""

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running, cluster(configs(tmp_path / "b", 3)) as others:
            leader = await running.leader()
            await fill(leader.config.client_addr, range(30))
            config, before = running.followers()[0].config, member_ids(leader)
            # With the name of a member that runs, and an empty directory, at another address.
            (stray, *_) = configs(tmp_path / "stray", 1)
            stray = replace(stray, name=config.name, reseed=seeds(running, config))
            with pytest.raises(NotAllowed, match=f"{config.name} is a member at {config.peer_addr}"):
                await RunningNode(stray).start()
            # At its own address: that is taken.
            taken = replace(config, data_dir=str(tmp_path / "other"), reseed=seeds(running, config))
            with pytest.raises(ConfigurationError, match="address already in use"):
                await RunningNode(taken).start()
            # Damaged, and led to another cluster which has a member of that name.
            await running.kill(config.name)
            damage_log(Path(config.data_dir))
            elsewhere = (await others.leader()).config.client_addr
            with pytest.raises(NotAllowed, match="belonged to cluster"):
                await RunningNode(replace(config, reseed=elsewhere)).start()
            assert member_ids(await running.leader()) == before
            assert len(member_ids(await others.leader())) == 3
            assert not there(config.data_dir, "recovery.new")

    run(scenario())


def test_without_a_quorum_nothing_is_changed_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lattice_core.errors import Unavailable
    from lattice_core.server import joining

    monkeypatch.setattr(joining, "PATIENCE_SECONDS", 1.0)

    async def scenario() -> None:
        async with cluster(configs(tmp_path, 2)) as running:
            config = await killed_follower(running)
            damage_log(Path(config.data_dir))
            before = there(config.data_dir)
            with pytest.raises(Unavailable, match="could not join within 1 s"):
                await RunningNode(replace(config, reseed=seeds(running, config))).start()
            assert there(config.data_dir) == before
            (left,) = running.nodes.values()
            assert len(left.node.core.configuration.voters) == 2
            assert await get(left.config.client_addr, b"key000001", kv_pb2.CONSISTENCY_STALE) == b"v" * 200

    run(scenario())
