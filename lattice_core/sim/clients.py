"""Simulated clients: sequential callers with sessions, time-outs, retries and a recorded history.

A client does what :mod:`lattice_core.client` does. It opens a session, numbers its writes, sends a write
again unchanged until its deadline, and then calls the outcome unknown if it was ever sent and not known to
be refused. Values are unique, so that the checker can tell which write a read has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice_core.kv import ClientBatch, cas, decode_results, delete, encode_batch, open_session, put
from lattice_core.raft.config import MILLISECOND_NS
from lattice_core.sim.service import Answer, Request
from lattice_core.verify.history import Operation, OpName

if TYPE_CHECKING:
    from lattice_core.sim.world import World

_OPEN = encode_batch([open_session()])
_RETRY_PAUSE_NS = 20 * MILLISECOND_NS


class SimClient:
    """One caller. ``process`` is its number in the history; it changes when an outcome stays unknown."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.process = number
        self.chance = world.stream(f"client-{number}")
        self.pinned = world.plan.workload.clients <= number < world.plan.callers
        self.stopped = False
        self.busy = False
        self.patience_ms = world.plan.workload.deadline_ms
        self.target = self._anybody()
        self._attempt = 0
        self._session = 0
        self._sequence = 0
        self._values = 0
        self._wanted: tuple[OpName, bytes, bytes | None, bytes | None] | None = None
        self._kind = ""
        self._batch: ClientBatch | None = None
        self._batch_session = 0
        self._may_be_applied = False
        self._called_ns = 0
        self._deadline_ns = 0
        self._last_read: dict[bytes, bytes | None] = {}

    def begin(self) -> None:
        self._pause()

    def _pause(self) -> None:
        self.busy = False
        think_ms = 100 if self.pinned else self.world.plan.workload.think_ms
        think_ns = int(self.chance.expovariate(1 / think_ms) * MILLISECOND_NS)
        self.world.later(think_ns, self._next, None)

    def _next(self, _: None) -> None:
        if self.stopped:
            return
        workload = self.world.plan.workload
        epoch = self.world.now_ns // (workload.epoch_ms * MILLISECOND_NS)
        key = b"k%d-%d" % (self.chance.randrange(workload.keys), epoch)
        names: tuple[OpName, ...] = ("put", "get", "delete", "cas")
        op = self.chance.choices(names, (workload.put, workload.get, workload.delete, workload.cas))[0]
        if self.pinned:
            self.call("get", key, None, None, "lease")
            return
        value = expected = None
        if op in ("put", "cas"):
            self._values += 1
            value = (b"%d.%d" % (self.number, self._values)).ljust(workload.value_bytes, b".")
        if op == "cas":
            expected = self._last_read.get(key)
        kind = "write"
        if op == "get":
            share = self.chance.random()
            kind = "read"
            if share < workload.lease_reads:
                kind = "lease"
            elif share < workload.lease_reads + workload.follower_reads:
                kind = "follower"
                self.target = self._anybody()
        self.call(op, key, value, expected, kind)

    def call(self, op: OpName, key: bytes, value: bytes | None, expected: bytes | None, kind: str) -> None:
        """Begin an operation; the history gets it when it ends."""
        self.busy = True
        self._wanted = (op, key, value, expected)
        self._kind = kind
        self._batch = None
        self._may_be_applied = False
        self._called_ns = self.world.now_ns
        self._deadline_ns = self.world.now_ns + self.patience_ms * MILLISECOND_NS
        self._send()

    # ---- attempts -----------------------------------------------------------------------------------

    def _send(self) -> None:
        """One attempt; its answer or its time-out comes back with the attempt's number."""
        assert self._wanted is not None
        op, key, value, expected = self._wanted
        self._attempt += 1
        if self._kind != "write":
            request = Request(self.number, self._attempt, self._kind, key)
        elif self._session == 0:
            request = Request(self.number, self._attempt, "open", batch=ClientBatch(0, 0, 0, _OPEN))
        else:
            if self._batch is None:
                self._sequence += 1
                if op == "put":
                    assert value is not None
                    command = put(key, value)
                elif op == "delete":
                    command = delete(key)
                else:
                    assert value is not None
                    command = cas(key, expected, value)
                # Sequential, so everything below this one is settled, or given up for good.
                self._batch = ClientBatch(self._session, self._sequence, self._sequence, encode_batch([command]))
            request = Request(self.number, self._attempt, "write", batch=self._batch)
            # From here on it may be applied, until an answer says that it was not.
            self._may_be_applied = True
        self.world.links.submit(self.target, request)
        wait_ns = min(self.world.plan.workload.attempt_ms * MILLISECOND_NS, self._deadline_ns - self.world.now_ns)
        self.world.later(max(wait_ns, 1), self._on_timeout, self._attempt)

    def _on_timeout(self, attempt: int) -> None:
        if attempt == self._attempt and self.busy:
            self._try_elsewhere(None)

    def _try_elsewhere(self, leader: int | None) -> None:
        world = self.world
        self._attempt += 1  # a late answer to the old attempt is not for us
        if self.pinned:
            # A read that fails says nothing; stay where the last leader was, but for a good hint now and then.
            if leader is not None and self.chance.random() < 0.2:
                self.target = leader
            self._finish("fail")
            return
        if world.now_ns + _RETRY_PAUSE_NS >= self._deadline_ns:
            self._finish("unknown" if self._may_be_applied else "fail")
            return
        self.target = leader if leader is not None else self._next_address()
        world.later(_RETRY_PAUSE_NS, self._again, self._attempt)

    def _anybody(self) -> int:
        addresses = self.world.addresses
        return addresses[self.chance.randint(1, len(addresses)) - 1]

    def _next_address(self) -> int:
        """The server after the last one asked; whom it was told of may be gone."""
        addresses = self.world.addresses
        here = addresses.index(self.target) if self.target in addresses else -1
        return addresses[(here + 1) % len(addresses)]

    def _again(self, attempt: int) -> None:
        if attempt == self._attempt and self.busy:
            self._send()

    def on_answer(self, answer: Answer) -> None:
        if answer.attempt != self._attempt or not self.busy:
            return
        if answer.status == "ok":
            if self._kind == "write" and self._session == 0:
                self._session = decode_results(answer.packed)[0][1]
                self._sequence = 0
                self._send()
                return
            self._finish("ok", answer)
        elif answer.status in ("retry", "unknown"):
            # Refused, or lost with the leader. An earlier attempt may still be on its way, so once sent under
            # a session the operation stays possible; the session makes trying again safe.
            self._try_elsewhere(answer.leader)
        elif answer.status == "expired":
            self._session = 0
            # The session is forgotten, and with it whether an earlier attempt was applied.
            self._finish("unknown")
        else:  # stale: the cluster says that it was settled before; what came of it is gone
            self._finish("unknown")

    def _finish(self, outcome: str, answer: Answer | None = None) -> None:
        assert self._wanted is not None
        op, key, value, expected = self._wanted
        result: bytes | None = None
        swapped: bool | None = None
        deleted: bool | None = None
        if outcome == "ok":
            assert answer is not None
            if op == "get":
                result = answer.value
                self._last_read[key] = result
            else:
                returned = decode_results(answer.packed)[0]
                if op == "cas":
                    swapped = returned[1]
                    if swapped:
                        self._last_read[key] = value
                elif op == "delete":
                    deleted = returned[1] > 0
                    self._last_read[key] = None
                else:
                    self._last_read[key] = value
        unknown = outcome == "unknown"
        self.world.record(
            Operation(
                process=self.process,
                op=op,
                key=key,
                value=value,
                expected=expected,
                result=result,
                swapped=swapped,
                call_ns=self._called_ns,
                return_ns=None if unknown else self.world.now_ns,
                outcome=outcome,  # type: ignore[arg-type]
                deleted=deleted,
            )
        )
        if unknown:
            self.process += self.world.plan.callers + 1
        self._wanted = None
        if len(self._last_read) > 64:
            self._last_read.clear()
        self._pause()
