"""Access control on real nodes: what takes effect when, on open streams, across members; and that no secret is left."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from access_harness import WRITES, Guarded, guarded_node, set_up, verdict
from server_harness import cluster, configs, eventually, read_request, run, write_request

from lattice_core import tokens
from lattice_core.errors import NoLeader
from lattice_core.kv import ClientBatch
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import access_pb2, cluster_pb2, kv_pb2
from lattice_core.server import access
from lattice_core.tokens import RESCUE_FILE, RESCUE_SECONDS

C = access_pb2.ChangeAccessRequest
KEY = f"{WRITES}a".encode()
DENIED, NO = kv_pb2.ERROR_CODE_PERMISSION_DENIED, kv_pb2.ERROR_CODE_UNAUTHENTICATED
EXPIRED = kv_pb2.ERROR_CODE_SESSION_EXPIRED


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SCRYPT_LOG2_N", 10)


class Stream:
    """A session stream of one user's, asked one thing at a time."""

    def __init__(self, guarded: Guarded, who: str, channel: grpc.aio.Channel | None = None) -> None:
        stub = (channel or guarded.channel).stream_stream(
            "/lattice.v1.KV/Session",
            request_serializer=kv_pb2.SessionRequest.SerializeToString,
            response_deserializer=kv_pb2.SessionResponse.FromString,
        )
        self._call: Any = stub(metadata=guarded.metadata(who))

    async def ask(self, request: kv_pb2.SessionRequest) -> kv_pb2.SessionResponse:
        await self._call.write(request)
        async with asyncio.timeout(10):
            answer: kv_pb2.SessionResponse = await self._call.read()
        return answer

    async def error_of(self, request: kv_pb2.SessionRequest) -> int:
        """0: it was done."""
        return (await self.ask(request)).error.code

    async def open(self) -> int:
        return (await self.ask(kv_pb2.SessionRequest(request_id=1, open=kv_pb2.OpenSessionRequest()))).open.session_id

    def close(self) -> None:
        self._call.cancel()


def put_request(key: bytes = KEY, **session: int) -> kv_pb2.SessionRequest:
    return write_request(7, [[1, key, b"v"]], **session)


def get_request(key: bytes = KEY, consistency: int = 0) -> kv_pb2.SessionRequest:
    return read_request(8, [[1, key, None]], consistency)


def test_what_is_taken_away_is_gone_from_streams_that_are_open_with_the_next_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            stream = Stream(guarded, "writer")
            assert await stream.error_of(put_request()) == 0
            assert await stream.error_of(get_request()) == 0
            unassign = C.Assign(user="writer", role="writers")
            await guarded.change("root", unassign=unassign)
            assert await stream.error_of(put_request()) == DENIED
            assert await stream.error_of(get_request()) == DENIED
            await guarded.change("root", assign=unassign)
            assert await stream.error_of(put_request()) == 0
            await guarded.change("root", grant=C.Grant(role="writers", prefix=WRITES.encode(), level=1))  # type: ignore[arg-type]
            assert await stream.error_of(put_request()) == DENIED
            assert await stream.error_of(get_request()) == 0
            await guarded.change("root", remove_user=C.RemoveUser(name="writer"))
            assert await stream.error_of(put_request()) == NO
            assert await stream.error_of(get_request(consistency=kv_pb2.CONSISTENCY_STALE)) == NO
            stream.close()

    run(scenario())


def test_a_stream_that_was_opened_before_access_control_has_to_prove_itself_once_it_is_enabled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            await guarded.change("root", disable=C.Disable())
            anonymous, writer = Stream(guarded, "none"), Stream(guarded, "writer")
            session = await anonymous.open()
            assert await anonymous.error_of(put_request(session=session, sequence=1)) == 0
            assert await anonymous.error_of(get_request()) == 0
            await guarded.change("root", enable=C.Enable())
            assert await anonymous.error_of(put_request(session=session, sequence=2)) == NO
            assert await anonymous.error_of(get_request()) == NO
            assert await writer.error_of(put_request(session=session, sequence=1)) == EXPIRED, "it was nobody's"
            anonymous.close()
            writer.close()

    run(scenario())


def test_nobody_comes_at_the_stored_results_of_anothers_session(tmp_path: Path) -> None:
    """They answer a retry whatever is in it: who guesses the numbers would read what he must not."""

    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            await guarded.call("root", "KV", "Put", kv_pb2.PutRequest(key=b"secret", value=b"1234"))
            root, writer = Stream(guarded, "root"), Stream(guarded, "writer")
            session = await root.open()
            read = write_request(7, [[6, [], [[64, b"secret"]], []]], session=session, sequence=1)
            first = await root.ask(read)
            assert b"1234" in first.write.results
            assert (await root.ask(read)).write == first.write, "its owner's retry"
            assert await writer.error_of(put_request(session=session, sequence=1)) == EXPIRED
            assert await writer.error_of(put_request(session=session + 1, sequence=1)) == EXPIRED, "not there yet"
            close = kv_pb2.SessionRequest(request_id=9, close=kv_pb2.CloseSessionRequest(session_id=session))
            assert await writer.error_of(close) == EXPIRED
            assert await writer.error_of(write_request(9, [[8, session]])) == EXPIRED, "the same in a batch"
            identity = kv_pb2.RequestIdentity(session_id=session, sequence=1)
            with pytest.raises(grpc.aio.AioRpcError):
                await guarded.call("writer", "KV", "Put", kv_pb2.PutRequest(key=KEY, value=b"", identity=identity))
            assert (await root.ask(read)).write == first.write
            own = await writer.open()
            assert await writer.error_of(put_request(session=own, sequence=1)) == 0
            root.close()
            writer.close()

    run(scenario())


def test_a_batch_that_writes_the_clusters_own_commands_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            for who in ("writer", "root"):
                stream = Stream(guarded, who)
                for op in ([9, [2]], [10, b"root"]):
                    assert await stream.error_of(write_request(7, [op])) == kv_pb2.ERROR_CODE_INVALID
                stream.close()
            assert guarded.node.node.machine.access.enabled

    run(scenario())


def test_a_refusal_says_what_is_needed_and_who_can_give_it_and_nothing_of_what_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            await guarded.call("root", "KV", "Put", kv_pb2.PutRequest(key=b"there", value=b"1"))
            said = []
            for key in (b"there", b"other"):
                for method, request in (
                    ("Get", kv_pb2.GetRequest(key=key)),
                    ("Delete", kv_pb2.DeleteRequest(key=key)),
                    ("CompareAndSwap", kv_pb2.CompareAndSwapRequest(key=key, value=b"")),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await guarded.call("writer", "KV", method, request)
                    error = from_rpc_error(caught.value)
                    assert error.exit_code == 4
                    assert "lattice user grant writer ROLE" in (error.hint or "")
                    said.append(error.message.replace(key.decode(), "KEY"))
            assert said[:3] == said[3:]
            assert said[0] == "writer may not read the key 'KEY'"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await guarded.call("wrong", "KV", "Get", kv_pb2.GetRequest(key=b"there"))
            assert from_rpc_error(caught.value).message == "the token is not valid: unknown, revoked or expired"

    run(scenario())


def test_tokens_expire_by_the_clusters_time_on_open_streams_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            fresh = await guarded.new_token("root", "writer", ttl_seconds=3600)
            guarded.tokens["hour"] = fresh.token
            stream = Stream(guarded, "hour")
            assert await stream.error_of(put_request()) == 0
            clock = guarded.node.node.gate._clock
            clock._base_ms += 3_600_000
            assert await stream.error_of(put_request()) == NO
            assert await stream.error_of(get_request()) == NO
            stream.close()
            await guarded.new_token("root", "writer")
            assert fresh.id.encode() not in guarded.node.node.machine.access.tokens, "dropped when the next was made"

    run(scenario())


def test_a_password_buys_a_token_and_a_new_password_ends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            add = C.AddUser(name="ann", roles=["readers"], password=b"correct horse")
            await guarded.change("root", add_user=add)
            right = access_pb2.LoginRequest(user="ann", password=b"correct horse")
            guarded.tokens["ann"] = (await guarded.call("none", "Access", "Login", right)).token
            get = kv_pb2.GetRequest(key=KEY)
            assert await verdict(guarded.call("ann", "KV", "Get", get)) == "allowed"
            for wrong in (
                access_pb2.LoginRequest(user="ann", password=b"wrong horse"),
                access_pb2.LoginRequest(user="root", password=b""),  # has none
                access_pb2.LoginRequest(user="nobody at all", password=b"correct horse"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await guarded.call("none", "Access", "Login", wrong)
                assert caught.value.details() == "the name or the password is wrong"
            await guarded.change("ann", set_password=C.SetPassword(name="ann", password=b"another horse"))
            assert await verdict(guarded.call("ann", "KV", "Get", get)) == "UNAUTHENTICATED"
            with pytest.raises(grpc.aio.AioRpcError):
                await guarded.call("none", "Access", "Login", right)

    run(scenario())


def test_passwords_are_hashed_one_at_a_time_and_a_crowd_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, hashing, most = threading.Event(), 0, 0

    def slow(password: bytes, verifier: bytes | None) -> bool:
        nonlocal hashing, most
        hashing += 1
        most = max(most, hashing)
        assert go_on.wait(20)
        hashing -= 1
        return False

    monkeypatch.setattr(tokens, "is_password_of", slow)

    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            request = access_pb2.LoginRequest(user="root", password=b"guess")
            tries = [asyncio.ensure_future(guarded.call("none", "Access", "Login", request)) for _ in range(24)]
            await eventually(lambda: sum(each.done() for each in tries) == 8)
            await guarded.call("writer", "KV", "Put", kv_pb2.PutRequest(key=KEY, value=b"v"))
            go_on.set()
            found = await asyncio.gather(*tries, return_exceptions=True)
            codes = [error.code() for error in found if isinstance(error, grpc.aio.AioRpcError)]
            assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 8
            assert codes.count(grpc.StatusCode.UNAUTHENTICATED) == 16
            assert most == 1

    run(scenario())


def test_it_cannot_be_enabled_by_somebody_who_could_not_get_in_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 1)) as running:
            addr = (await running.leader()).config.client_addr
            async with grpc.aio.insecure_channel(addr) as channel:
                guarded = Guarded(running, channel)
                await guarded.change("none", add_user=C.AddUser(name="root", roles=["admin"]))
                await guarded.change("none", add_user=C.AddUser(name="ann"))
                guarded.tokens["ann"] = (await guarded.new_token("none", "ann")).token
                guarded.tokens["root"] = (await guarded.new_token("none", "root", ttl_seconds=60)).token
                for who, why in (
                    ("none", "needs an administrator's token"),
                    ("ann", "ann is none"),
                    ("root", "nobody"),
                ):
                    with pytest.raises(grpc.aio.AioRpcError, match=why):
                        await guarded.change(who, enable=C.Enable())
                guarded.tokens["root"] = (await guarded.new_token("none", "root")).token
                await guarded.change("root", enable=C.Enable())
                assert await verdict(guarded.change("none", disable=C.Disable())) == "UNAUTHENTICATED"

    run(scenario())


def test_a_leader_that_does_not_know_yet_what_the_last_one_acknowledged_does_not_decide(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            node = guarded.node.node
            caller = node.gate.caller(_Context(guarded.metadata("writer")))
            batch = ClientBatch(0, 0, 0, b"")
            node.gate.check_write(caller, batch, ((1, KEY, b"v"),))
            node.machine.applied_term -= 1
            with pytest.raises(NoLeader, match="just been elected"):
                node.gate.check_write(caller, batch, ((1, KEY, b"v"),))
            stream = Stream(guarded, "writer")
            assert await stream.error_of(put_request()) == kv_pb2.ERROR_CODE_NO_LEADER
            assert (await stream.ask(kv_pb2.SessionRequest(open=kv_pb2.OpenSessionRequest()))).error.code == (
                kv_pb2.ERROR_CODE_NO_LEADER
            )
            stream.close()
            with pytest.raises(grpc.aio.AioRpcError, match="just been elected"):
                await guarded.change("root", disable=C.Disable())
            node.machine.applied_term += 1

    run(scenario())


class _Context:
    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return "here"


def test_three_members_agree_and_one_that_is_behind_neither_refuses_the_new_nor_reads_for_the_revoked(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with cluster(configs(tmp_path, 3)) as running:
            leader = await running.leader()
            async with grpc.aio.insecure_channel(leader.config.client_addr) as channel:
                guarded = Guarded(running, channel)
                await set_up(guarded)
                follower = running.followers()[0]
                async with grpc.aio.insecure_channel(follower.config.client_addr) as elsewhere:
                    at_follower = Guarded(running, elsewhere, guarded.tokens)
                    for round_ in range(5):
                        name = f"t{round_}"
                        fresh = await guarded.new_token("root", "reader")
                        guarded.tokens[name] = fresh.token
                        status = cluster_pb2.NodeStatusRequest()
                        assert await verdict(at_follower.call(name, "Cluster", "NodeStatus", status)) == "allowed"
                        fresh = await guarded.new_token("root", "reader")
                        guarded.tokens[name] = fresh.token
                        get = kv_pb2.GetRequest(key=KEY)
                        assert await verdict(at_follower.call(name, "KV", "Get", get)) == "allowed"
                        await guarded.change("root", revoke_token=C.RevokeToken(id=fresh.id))
                        assert await verdict(at_follower.call(name, "KV", "Get", get)) == "UNAUTHENTICATED"
                    put = kv_pb2.PutRequest(key=KEY, value=b"v")
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await at_follower.call("writer", "KV", "Put", put)
                    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "only the leader decides of writes"
                dumps = await eventually(
                    lambda: (
                        found := {str(each.node.machine.access.dump()) for each in running.nodes.values()},
                        len(found) == 1 and found,
                    )[1]
                )
                assert len(dumps) == 1
                await running.kill(leader.config.name)
            successor = await running.leader()
            async with grpc.aio.insecure_channel(successor.config.client_addr) as channel:
                guarded.channel = channel
                assert await verdict(guarded.call("none", "KV", "Put", put)) == "UNAUTHENTICATED"
                assert await verdict(guarded.call("reader", "KV", "Put", put)) == "PERMISSION_DENIED"
                await guarded.call("writer", "KV", "Put", put)

    run(scenario())


def files_in(path: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_no_secret_reaches_the_disk_or_the_log_of_any_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "LOG_LINES_A_SECOND", 1000)

    async def scenario() -> None:
        caplog.set_level(0)
        secrets = [b"correct horse battery", b"wrong horse battery"]
        async with guarded_node(tmp_path) as guarded:
            await guarded.change("root", add_user=C.AddUser(name="ann", password=secrets[0], roles=["readers"]))
            login = access_pb2.LoginRequest(user="ann", password=secrets[0])
            guarded.tokens["ann"] = (await guarded.call("none", "Access", "Login", login)).token
            login.password = secrets[1]
            assert await verdict(guarded.call("none", "Access", "Login", login)) == "UNAUTHENTICATED"
            for who in guarded.tokens:
                await verdict(guarded.call(who, "KV", "Put", kv_pb2.PutRequest(key=b"x", value=b"y")))
                await verdict(guarded.call(who, "Cluster", "TakeSnapshot", cluster_pb2.TakeSnapshotRequest()))
            secrets += [token.rpartition("_")[2].encode() for token in guarded.tokens.values() if token]
            data = files_in(tmp_path)
            assert any(b"scrypt$" in each for path, each in data.items() if path.suffix == ".snap"), "it is looked at"
            assert any(b"scrypt$" in each for path, each in data.items() if path.suffix == ".wal")
            text = caplog.text.encode()
            assert b"refused a write from" in text
            assert b"wrong secret for the token" in text
            assert b"refused a login as 'ann'" in text
            for secret in secrets:
                assert secret not in text
                for path, each in data.items():
                    assert secret not in each, path

    run(scenario())


def test_whoever_can_write_to_the_data_directory_has_a_way_back_in_for_an_hour(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path) as guarded:
            fresh = tokens.token_named("rescue")
            guarded.tokens["rescue"] = fresh.text
            grant = C.Assign(user="nobody", role="admin")
            assert await verdict(guarded.change("rescue", assign=grant)) == "UNAUTHENTICATED", "no file yet"
            path = Path(guarded.node.config.data_dir) / RESCUE_FILE
            path.write_text(tokens.token_named("rescue").digest.hex())
            assert await verdict(guarded.change("rescue", assign=grant)) == "UNAUTHENTICATED", "another's"
            path.write_text(fresh.digest.hex() + "\n")
            await guarded.change("rescue", assign=grant)
            assert await verdict(guarded.call("nobody", "KV", "Get", kv_pb2.GetRequest(key=b"x"))) == "allowed"
            old = time.time() - RESCUE_SECONDS - 1
            os.utime(path, (old, old))
            assert await verdict(guarded.change("rescue", unassign=grant)) == "UNAUTHENTICATED", "too old"

    run(scenario())


def test_a_member_restarted_or_made_from_a_snapshot_goes_by_the_same_rules(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded_node(tmp_path, snapshot_entries=5) as guarded:
            config = guarded.node.config
            await guarded.call("root", "Cluster", "TakeSnapshot", cluster_pb2.TakeSnapshotRequest())
            await guarded.running.stop(config.name)
            await guarded.running.start(config.name)
            async with grpc.aio.insecure_channel(config.client_addr) as channel:
                again = Guarded(guarded.running, channel, guarded.tokens)
                put = kv_pb2.PutRequest(key=KEY, value=b"v")
                found = [await verdict(again.call(who, "KV", "Put", put)) for who in ("none", "reader", "writer")]
                assert found == ["UNAUTHENTICATED", "PERMISSION_DENIED", "allowed"]

    run(scenario())
