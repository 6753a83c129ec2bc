"""Writers whose every write can be accounted for afterwards.

Each write puts a key that nobody else ever puts, so the store itself tells what became of it: an acknowledged key
that is missing was lost, one with a version above 1 was applied twice, one that was reported as not applied and is
there is a lie. Beside them one caller counts by compare-and-set, each from the number before: a swap that fails
shows a write that was lost or executed twice, at once.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lattice_core.client import Client, KeyValue
from lattice_core.errors import NotApplied, OutcomeUnknown
from lattice_core.verify.workloads import check_unique_set

_RUNS = itertools.count(1)
PAGE_KEYS = 2000
PATIENCE_SECONDS = 60.0
"""What a writer gives each operation: far more than any failover, so that all end well."""

PACE_SECONDS = 0.002
"""A writer's pause after each write: on two cores, unpaced writers keep nodes from starting."""


@dataclass
class Gap:
    """The longest time without an acknowledgement; ``seconds`` is set when the block that measures it ends."""

    seconds: float = 0.0


class Load:
    """Writers at work while the block runs; then :meth:`account`."""

    def __init__(self, endpoints: str, *, writers: int = 3, patience: float = PATIENCE_SECONDS) -> None:
        run = next(_RUNS)
        self._prefix = b"load/%d/" % run  # its own, in whatever cluster
        self._counter = b"counter/%d" % run
        self._endpoints = endpoints
        self._patience = patience
        self._client = Client(endpoints, timeout=patience)
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._times: list[float] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._write, number), name=f"writer {number}")
            for number in range(writers)
        ]
        self._threads.append(threading.Thread(target=self._guarded, args=(self._count, 0), name="counter"))
        self.acknowledged: dict[bytes, int] = {}
        """Key to revision."""
        self.unknown: set[bytes] = set()
        self.not_applied: set[bytes] = set()
        self.counted = 0
        self.violations: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        try:
            for thread in self._threads:
                thread.join(self._patience + 10)
        finally:
            self._client.close()

    # -- while it runs ------------------------------------------------------------------------------

    def progress(self, count: int = 50, within: float = PATIENCE_SECONDS) -> None:
        """Wait for ``count`` more acknowledgements."""
        with self._changed:
            goal = len(self._times) + count
            if not self._changed.wait_for(lambda: len(self._times) >= goal or self.violations, within):
                raise AssertionError(f"no {count} writes were acknowledged within {within:g} s")

    @contextlib.contextmanager
    def gap(self, writes: int = 50) -> Iterator[Gap]:
        """Measure the longest silence from here until ``writes`` acknowledgements after the block."""
        gap = Gap()
        with self._changed:
            first = max(0, len(self._times) - 1)
        yield gap
        self.progress(writes)
        with self._changed:
            times = self._times[first:]
        gap.seconds = max(after - before for before, after in itertools.pairwise(times))

    # -- afterwards ---------------------------------------------------------------------------------

    def account(self, endpoints: str | None = None) -> None:
        """Read everything back, linearizably, and compare. After the block. ``endpoints``: where members are now."""
        assert not any(thread.is_alive() for thread in self._threads), "a writer is stuck"
        with Client(endpoints or self._endpoints, timeout=PATIENCE_SECONDS) as client:
            found = _everything(client, self._prefix)
            counter = client.get(self._counter)
        violations = [*self.violations]
        violations += check_unique_set(acknowledged=self.acknowledged, unknown=self.unknown, final=list(found))
        twice = sorted(key for key, kv in found.items() if kv.version != 1)
        moved = sorted(
            key for key in self.acknowledged.keys() & found if found[key].mod_revision != self.acknowledged[key]
        )
        count, version = (int(counter.value), counter.version) if counter is not None else (0, 0)
        violations += [f"applied twice: {key!r}" for key in twice[:5]]
        violations += [f"acknowledged at another revision than it has: {key!r}" for key in moved[:5]]
        violations += [f"reported as not applied, but is there: {key!r}" for key in self.not_applied & found.keys()]
        if count != self.counted or version != count:
            violations.append(f"the counter is {count} after {version} writes, and {self.counted} were acknowledged")
        assert not violations, "\n".join(violations)

    # -- the writers --------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            self._violation(f"{threading.current_thread().name} ended: {type(error).__name__}: {error}")

    def _write(self, writer: int) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            key = self._prefix + b"%02d/%07d" % (writer, number)
            try:
                revision = self._client.put(key, b"%d" % number)
            except NotApplied:
                self.not_applied.add(key)
            except OutcomeUnknown:
                self.unknown.add(key)
            else:
                self.acknowledged[key] = revision
                self._acknowledge()

    def _count(self, _: int) -> None:
        """Patience has to suffice here: an unknown outcome ends the counting, as a violation."""
        while not self._stopping.is_set():
            expected = b"%d" % self.counted if self.counted else None
            if not self._client.cas(self._counter, expected, b"%d" % (self.counted + 1)):
                self._violation(f"the counter was not {self.counted}, though only one counts")
                return
            self.counted += 1
            self._acknowledge()

    def _acknowledge(self) -> None:
        with self._changed:
            self._times.append(time.monotonic())
            self._changed.notify_all()
        self._stopping.wait(PACE_SECONDS)

    def _violation(self, text: str) -> None:
        with self._changed:
            self.violations.append(text)
            self._changed.notify_all()


def _everything(client: Client, prefix: bytes) -> dict[bytes, KeyValue]:
    found: dict[bytes, KeyValue] = {}
    start = prefix
    while True:
        page = client.range(start=start, end=prefix + b"\xff", limit=PAGE_KEYS)
        found.update((kv.key, kv) for kv in page.kvs)
        if not page.more:
            return found
        start = page.kvs[-1].key + b"\0"
