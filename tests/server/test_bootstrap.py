"""The same ids on every node, and a directory that knows who it is (SAFETY 22)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
from server_harness import configs

from lattice_core.errors import StorageDamaged
from lattice_core.server.bootstrap import OpenedNode, cluster_id_of, first_configuration, node_id_of, open_node
from lattice_core.server.incarnations import Incarnations
from lattice_core.storage.filesystem import RealFileSystem

FS = RealFileSystem()
MEMBERS = {"n1": "a:1", "n2": "b:2", "n3": "c:3"}


def test_ids_do_not_depend_on_the_order_of_the_option() -> None:
    names = list(MEMBERS)
    expected = cluster_id_of(MEMBERS)
    for _ in range(5):
        random.shuffle(names)
        shuffled = {name: MEMBERS[name] for name in names}
        assert cluster_id_of(shuffled) == expected
        assert first_configuration(shuffled, expected) == first_configuration(MEMBERS, expected)


def test_ids_differ_between_clusters_and_members_and_never_change() -> None:
    cluster = cluster_id_of(MEMBERS)
    assert cluster != cluster_id_of({**MEMBERS, "n3": "c:4"})
    assert len({node_id_of(cluster, name) for name in MEMBERS}) == 3
    # Written down: directories on disk hold these.
    assert (cluster, node_id_of(cluster, "n1")) == (0x18988CDB34CBF371, 0xB8C6F0BD28A84179)


def opened_again(first: OpenedNode, tmp_path: Path, name: str = "n1") -> OpenedNode:
    first.close()
    identity = first.identity
    config = replace(configs(tmp_path, 1)[0], name=name, peer_addr=identity.peer_addr, data_dir=str(tmp_path / name))
    return open_node(config, FS)


def test_two_clusters_of_one_never_have_the_same_id(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    one = open_node(config, FS)
    two = open_node(replace(config, data_dir=str(tmp_path / "other")), FS)
    assert one.identity.cluster_id != two.identity.cluster_id
    one.close()
    two.close()


def test_a_restart_takes_identity_incarnation_and_configuration_from_the_directory(tmp_path: Path) -> None:
    config = configs(tmp_path, 3)[0]
    first = open_node(config, FS)
    assert first.fresh
    again = opened_again(first, tmp_path)
    assert again.identity == first.identity
    assert again.incarnations.own == first.incarnations.own
    assert again.recovered.snapshot == first.recovered.snapshot
    assert again.fresh, "it has not spoken yet: it will introduce itself"
    again.close()


def test_bindings_of_incarnations_are_durable_and_the_first_one_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        book = Incarnations.create(FS, str(tmp_path))
        await book.bind({1: 10, 2: 20})
        await asyncio.gather(book.bind({2: 99, 3: 30}), book.bind({3: 77, 4: 40}))
        found = Incarnations.load(FS, str(tmp_path))
        assert found is not None
        assert found.own == book.own
        assert dict(found.known()) == dict(book.known())
        assert (found.known()[1], found.known()[2], found.known()[4]) == (10, 20, 40)

    asyncio.run(scenario())


def test_a_damaged_or_missing_book_stops_a_member_that_has_spoken(tmp_path: Path) -> None:
    Incarnations.create(FS, str(tmp_path))
    path = tmp_path / "peers"
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(StorageDamaged):
        Incarnations.load(FS, str(tmp_path))
    path.write_bytes(b"\x00\x01")
    with pytest.raises(StorageDamaged):
        Incarnations.load(FS, str(tmp_path))
