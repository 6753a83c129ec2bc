"""One put or get, and where its time went: to the member, in it by its own account, and back.

These go as single calls, not on the stream that a client's other operations share: each is alone, so that its time is
its own. A put is sent without a session and never sent again once a leader may have taken it.
"""

# ruff: noqa: ASYNC109 - the time goes to the server too
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from lattice_core.client.channels import AddressBook, ConnectFailed, connect_first, kv_stub, plain_reason
from lattice_core.client.reads import Level
from lattice_core.client.types import KeyValue, PutResult
from lattice_core.errors import LatticeError, NotLeader, OutcomeUnknown, RevisionCompacted, TooStale, Unavailable
from lattice_core.rpc.errors import from_rpc_error
from lattice_core.rpc.pb import kv_pb2

R = TypeVar("R", kv_pb2.PutResponse, kv_pb2.GetResponse)

RETRY_SECONDS = 0.1
"""Between attempts to find a leader: a tenth of an election."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A member that was asked in vain, on the way to the one that answered."""

    address: str
    seconds: float
    """Connecting included."""
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds from the request's arrival at the member that answered, by its clock."""

    name: str
    """queue, fsync, follower, quorum, apply, confirm or answer"""
    member: str
    began: float
    ended: float | None
    """None: it was not waited for, and was still going on when the answer left."""


@dataclass(frozen=True, slots=True)
class Explained:
    """Where the time of one operation went."""

    member: str
    """Who answered."""
    role: str
    address: str
    attempts: tuple[Attempt, ...]
    connect_seconds: float
    call_seconds: float
    """From sending the request to having the answer; ``server_seconds`` of it in the member."""
    server_seconds: float
    steps: tuple[Step, ...]
    index: int | None
    """Of the log's entry that a put became."""
    batches: int
    """How many shared that entry, or that round of a read."""

    @property
    def network_seconds(self) -> float:
        """There and back, both machines' handling of the call included."""
        return max(0.0, self.call_seconds - self.server_seconds)

    @property
    def total_seconds(self) -> float:
        return sum(each.seconds for each in self.attempts) + self.connect_seconds + self.call_seconds


async def put(
    book: AddressBook, key: bytes, value: bytes, if_revision: int | None, timeout: float
) -> tuple[PutResult, Explained]:
    request = kv_pb2.PutRequest(key=key, value=value, if_mod_revision=if_revision, explain=True)

    async def call(stub: Any, seconds: float) -> kv_pb2.PutResponse:
        response: kv_pb2.PutResponse = await stub.Put(request, timeout=seconds)
        return response

    response, explained = await _ask(book, call, timeout, "put")
    return PutResult(response.done, response.revision), explained


async def get(
    book: AddressBook, key: bytes, revision: int | None, level: Level, timeout: float
) -> tuple[KeyValue | None, int, Explained]:
    """What was found, the store's revision, and the explanation."""
    request = kv_pb2.GetRequest(
        key=key,
        consistency=level.consistency,
        revision=revision,
        max_stale_seconds=level.max_stale_seconds,
        explain=True,
    )

    async def call(stub: Any, seconds: float) -> kv_pb2.GetResponse:
        response: kv_pb2.GetResponse = await stub.Get(request, timeout=seconds)
        return response

    response, explained = await _ask(book, call, timeout, "get")
    found = None
    if response.HasField("found"):
        kv = response.found
        lease = kv.lease if kv.HasField("lease") else None
        found = KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, lease)
    return found, response.revision, explained


async def _ask(
    book: AddressBook, call: Callable[[Any, float], Awaitable[R]], timeout: float, what: str
) -> tuple[R, Explained]:
    """Member after member, following hints, until one answers or the time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    attempts: list[Attempt] = []
    hint: str | None = None
    while True:
        began = time.perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                address, channel = await connect_first(book, book.candidates(hint))
            connected = time.perf_counter()
            try:
                response = await call(kv_stub(channel, book.token), max(0.001, deadline - loop.time()))
            finally:
                called = time.perf_counter() - connected
                await channel.close(None)
            return response, _explained(response, address, tuple(attempts), connected - began, called)
        except grpc.aio.AioRpcError as error:
            failure = _failure(error, what)
            if type(failure) is TooStale or not isinstance(failure, Unavailable):
                raise failure from None
        except ConnectFailed as error:
            address = ""
            failure = Unavailable(
                f"{what}: cannot reach {error}", hint="check --endpoints, or start a node: lattice start"
            )
        except TimeoutError:
            address, failure = "", Unavailable(f"{what}: cannot reach any member in time")
        hint = failure.leader_addr if isinstance(failure, NotLeader) else None
        if address and hint != address:
            book.failed(address)
        if loop.time() + (0.0 if hint else RETRY_SECONDS) >= deadline:
            raise failure
        if not hint:
            await asyncio.sleep(RETRY_SECONDS)
        attempts.append(Attempt(address or "nobody", time.perf_counter() - began, failure.message))


def _failure(error: grpc.aio.AioRpcError, what: str) -> LatticeError:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and what == "get":
        return Unavailable("get: no answer in time")
    failure = from_rpc_error(error, may_have_been_applied=what == "put")
    if isinstance(failure, OutcomeUnknown):
        return OutcomeUnknown(f"{what}: {plain_reason(failure.message)}")
    if not isinstance(failure, RevisionCompacted):
        failure.message = f"{what}: {plain_reason(failure.message)}"
        failure.args = (failure.message,)
    return failure


def _explained(
    response: kv_pb2.PutResponse | kv_pb2.GetResponse,
    address: str,
    attempts: tuple[Attempt, ...],
    connect_seconds: float,
    call_seconds: float,
) -> Explained:
    said = response.explanation
    return Explained(
        member=said.member or address,
        role=said.role,
        address=address,
        attempts=attempts,
        connect_seconds=connect_seconds,
        call_seconds=call_seconds,
        server_seconds=said.total_seconds,
        steps=tuple(
            Step(each.name, each.member, each.began, each.ended if each.HasField("ended") else None)
            for each in said.steps
        ),
        index=said.index if said.HasField("index") else None,
        batches=said.batches,
    )
