"""Nodes that start on restored and recovered directories: they serve, and fool nobody."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from saved_data import save, state_at
from server_harness import cluster, configs, eventually, get, kv_stub, put, read_request, run, write_request

from lattice_core.config import NodeConfig
from lattice_core.errors import IdentityMismatch
from lattice_core.kv.successor import STEP
from lattice_core.rpc.pb import kv_pb2
from lattice_core.server.recover import Order, recover
from lattice_core.server.restore import restore_snapshot
from lattice_core.storage.filesystem import RealFileSystem

FS = RealFileSystem()
SAVED = 40


def restored(tmp_path: Path) -> tuple[str, list[NodeConfig]]:
    file = save(FS, str(tmp_path / "backup"), state_at(SAVED))
    nodes = configs(tmp_path, 3)
    for node in nodes:
        restore_snapshot(FS, file, node)
    return file, nodes


def test_restored_members_elect_serve_and_write_above_everything_old(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, nodes = restored(tmp_path)
        old = state_at(SAVED)
        async with cluster(nodes) as running:
            leader = await running.leader()
            addr = leader.config.client_addr
            assert await get(addr, b"key007") == b"value"
            answer = await put(addr, b"new", b"value")
            assert answer.revision == old.revision + STEP + 1
            await eventually(
                lambda: all(node.node.machine.revision == answer.revision for node in running.nodes.values())
            )
            assert len({node.node.machine.state_hash for node in running.nodes.values()}) == 1

    run(scenario())


def test_43_clients_of_the_old_cluster_are_told_that_their_session_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, nodes = restored(tmp_path)
        old = state_at(SAVED)
        async with cluster(nodes) as running:
            addr = (await running.leader()).config.client_addr
            async with kv_stub(addr) as kv:
                stream = kv.Session()
                retried = write_request(1, [[1, b"key040", b"twice"]], session=1, sequence=SAVED)
                since = write_request(2, [[1, b"since", b""]], session=old.sessions.next_id, sequence=1)
                for request in (retried, since):
                    await stream.write(request)
                    response = await stream.read()
                    assert response.error.code == kv_pb2.ERROR_CODE_SESSION_EXPIRED
                stream.cancel()
                # Whoever read, or watched, at a revision of the old cluster is told that it is gone.
                for revision in (1, old.revision, old.revision + 1, old.revision + STEP - 1):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await kv.Get(kv_pb2.GetRequest(key=b"key007", revision=revision), timeout=5)
                    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
                stream = kv.Session()
                await stream.write(read_request(1, [[1, b"key040", None]]))
                assert b"twice" not in (await stream.read()).read.results
                stream.cancel()

    run(scenario())


def test_22_a_member_that_is_restored_again_after_it_has_served_is_not_let_in(tmp_path: Path) -> None:
    """It has the same ids, and has forgotten what it promised since."""

    async def scenario() -> None:
        file, nodes = restored(tmp_path)
        async with cluster(nodes) as running:
            await running.leader()
            await running.stop("n1")
            await put((await running.leader()).config.client_addr, b"since", b"value")
            await eventually(lambda: all(len(each.node.peers._book.known()) == 3 for each in running.nodes.values()))
            shutil.rmtree(tmp_path / "n1")
            restore_snapshot(FS, file, running.configs["n1"])
            with pytest.raises(IdentityMismatch, match="not the one the cluster knows for n1"):
                await running.start("n1")

    run(scenario())


def test_a_recovered_member_serves_alone_what_it_had(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = configs(tmp_path, 3)
        async with cluster(nodes) as running:
            addr = (await running.leader()).config.client_addr
            revisions = [(await put(addr, b"key%d" % number, b"value")).revision for number in range(20)]
            await eventually(lambda: len({each.node.core.commit_index for each in running.nodes.values()}) == 1)
            for name in list(running.nodes):
                await running.kill(name)
        shutil.rmtree(tmp_path / "n1")
        shutil.rmtree(tmp_path / "n2")
        plan = await asyncio.to_thread(recover, FS, [str(tmp_path / "n3")], Order(), consent=lambda _: True)
        assert plan.keys == 20
        alone = replace(nodes[2], initial_cluster={})
        async with cluster([alone]) as running:
            await running.leader()
            for number in range(20):
                assert await get(alone.client_addr, b"key%d" % number) == b"value"
            answer = await put(alone.client_addr, b"next", b"value")
            assert answer.revision == max(revisions) + STEP + 1

    run(scenario())
