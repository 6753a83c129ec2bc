"""The client library and access control: a refusal reaches the caller whom it concerns, at once, and nobody else."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from access_harness import WRITES, guarded_node
from server_harness import run

from lattice_core.client import AsyncClient, StatusWatch, get, put
from lattice_core.errors import NotAllowed, PermissionDenied, Unauthenticated
from lattice_core.rpc.pb import access_pb2

C = access_pb2.ChangeAccessRequest


def test_a_token_makes_the_client_somebody_and_a_refusal_does_not_wait_for_the_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            addr = guarded.node.config.client_addr
            async with AsyncClient(addr, timeout=20, token=guarded.tokens["writer"]) as client:
                assert await client.put(f"{WRITES}a", b"1")
                assert (await client.cluster_status()).leader is not None
            for token in (None, guarded.tokens["wrong"], guarded.tokens["revoked"], "nonsense"):
                async with AsyncClient(addr, timeout=20, token=token) as client:
                    began = time.monotonic()
                    asked = [client.put(f"{WRITES}{number}", b"1") for number in range(50)]
                    asked += [client.get(f"{WRITES}{number}") for number in range(50)]  # type: ignore[misc]
                    found = await asyncio.gather(*asked, client.cluster_status(), return_exceptions=True)
                    assert {type(each) for each in found} == {Unauthenticated}
                    assert str(found[0]).startswith("put: ")
                    assert str(found[50]).startswith("get: ")
                    assert time.monotonic() - began < 10

    run(scenario())


def test_of_operations_that_travel_together_only_the_forbidden_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            addr = guarded.node.config.client_addr
            async with AsyncClient(addr, timeout=20, token=guarded.tokens["writer"]) as client:
                keys = [f"{WRITES}{number}" if number % 10 else f"else/{number}" for number in range(100)]
                stored = await asyncio.gather(*(client.put(key, b"v") for key in keys), return_exceptions=True)
                for key, each in zip(keys, stored, strict=True):
                    assert isinstance(each, int if key.startswith(WRITES) else PermissionDenied), key
                read = await asyncio.gather(*(client.get(key) for key in keys), return_exceptions=True)
                for key, answer in zip(keys, read, strict=True):
                    assert isinstance(answer, PermissionDenied) is not key.startswith(WRITES), key
                with pytest.raises(PermissionDenied, match="writer may not read the key 'else/0'"):
                    await client.txn(then=[put(f"{WRITES}x", b"1"), get("else/0")])
                assert await client.get(f"{WRITES}x") is None, "nothing of it was done"

    run(scenario())


def test_a_client_that_loses_its_right_while_it_works_hears_of_it_and_works_again_when_it_is_given_back(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            addr = guarded.node.config.client_addr
            async with (
                AsyncClient(addr, token=guarded.tokens["writer"]) as client,
                AsyncClient(addr, token=guarded.tokens["root"]) as root,
            ):
                await client.put(f"{WRITES}a", b"1")
                await root.access.unassign("writer", "writers")
                with pytest.raises(PermissionDenied):
                    await client.put(f"{WRITES}a", b"2")
                await root.access.assign("writer", "writers")
                await client.put(f"{WRITES}a", b"3")
                await root.access.disable()
                async with AsyncClient(addr) as anybody:
                    await anybody.put("else", b"1")
                    await root.access.enable()
                    with pytest.raises(Unauthenticated):
                        await anybody.put("else", b"2")
                await client.put(f"{WRITES}a", b"4")

    run(scenario())


def test_the_library_administers_and_says_why_a_change_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            addr = guarded.node.config.client_addr
            async with AsyncClient(addr, token=guarded.tokens["root"]) as root:
                status = await root.access.status()
                assert (status.enabled, status.user, status.roles) == (True, "root", ("admin",))
                await root.access.grant("both", "read", b"x/")
                await root.access.grant("both", "write", "y/")
                await root.access.revoke("both", "x/")
                await root.access.add_user("ann", roles=["both"])
                fresh = await root.access.create_token("ann", ttl_seconds=60)
                assert fresh.token not in repr(fresh)
                info = await root.access.info()
                both = info.roles[0]
                assert (both.name, [(each.level, each.prefix) for each in both.grants]) == ("both", [("write", b"y/")])
                assert {each.id: each.user for each in info.tokens}[fresh.id] == "ann"
                assert fresh.token.rpartition("_")[2] not in repr(info)
                for change, why in (
                    (root.access.add_user("ann"), "there is a user 'ann' already"),
                    (root.access.remove_user("bob"), "there is no user 'bob'"),
                    (root.access.assign("ann", "none"), "there is no role 'none'"),
                    (root.access.unassign("ann", "admin"), "'ann' does not have the role 'admin'"),
                    (root.access.revoke("both", "z"), "the role 'both' has nothing on b'z'"),
                    (root.access.remove_role("admin"), "is built in"),
                    (root.access.revoke_token("0000"), "there is no token '0000'"),
                    (root.access.create_token("bob"), "there is no user 'bob'"),
                    (root.access.unassign("root", "admin"), "then nobody could administer it"),
                ):
                    with pytest.raises(NotAllowed, match=why):
                        await change
                await root.access.remove_user("ann")
                async with StatusWatch(addr, token=guarded.tokens["reader"]) as watch:
                    assert (await watch.ask()).leader_id is not None
                async with AsyncClient(addr, token=fresh.token) as ann:
                    with pytest.raises(Unauthenticated):
                        await ann.access.status()

    run(scenario())
