"""One PySyncObj member: ``python -m benchmarks.compare.pysyncobj_node DIR SELF OTHER,OTHER``. Orders come by stdin.

Orders and answers are JSON lines. PySyncObj is a library: its callers live in the member's own process, so the load is
made here, on the leader, in PySyncObj's own thread: each caller's next ``set`` is called by the callback of the last.
No network is between caller and member, which no other system is spared.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict

VALUE_BYTES = 256
LOAD_CALLERS = 1024


class Load:
    """Callers that put until a time is over, or until so many keys are there."""

    def __init__(self, table: ReplDict, callers: int, *, seconds: float = 0.0, warm_up: float = 0.0, keys: int = 0):
        self._table = table
        self._callers = callers
        self._keys = keys
        self._value = os.urandom(VALUE_BYTES - 8)
        self._start = time.perf_counter() + warm_up
        self._end = self._start + seconds
        self._next = 0
        self._under_way = 0
        self._last = self._start
        self._lock = threading.Lock()
        self.done = threading.Event()
        self.latencies: list[float] = []
        self.errors = 0
        self.longest_gap = 0.0

    def run(self) -> float:
        began = time.perf_counter()
        for _ in range(self._callers):
            self._put()
        self.done.wait()
        return time.perf_counter() - began

    def _put(self) -> None:
        with self._lock:
            if (self._next >= self._keys) if self._keys else (time.perf_counter() >= self._end):
                if not self._under_way:
                    self.done.set()
                return
            number = self._next
            self._next += 1
            self._under_way += 1
        key = f"bench/{number if self._keys else number % 10_000:08d}"
        began = time.perf_counter()
        self._table.set(key, b"%08d" % number + self._value, callback=lambda _, error: self._answered(began, error))

    def _answered(self, began: float, error: int) -> None:
        now = time.perf_counter()
        with self._lock:
            self._under_way -= 1
            if self._keys or self._start <= now <= self._end:
                if error == FAIL_REASON.SUCCESS:
                    self.latencies.append(now - began)
                    self.longest_gap = max(self.longest_gap, now - self._last)
                    self._last = now
                else:
                    self.errors += 1
        self._put()


def measure(table: ReplDict, order: dict[str, Any]) -> dict[str, Any]:
    load = Load(table, order["callers"], seconds=order["seconds"], warm_up=order["warm_up"])
    load.run()
    found = sorted(load.latencies)
    count = len(found)
    return {
        "ops": count,
        "ops_per_second": count / order["seconds"],
        "p50_ms": found[count // 2] * 1000 if found else None,
        "p99_ms": found[count * 99 // 100] * 1000 if found else None,
        "errors": load.errors,
        "longest_gap_ms": load.longest_gap * 1000,
    }


def bulk_load(table: ReplDict, keys: int) -> dict[str, Any]:
    load = Load(table, LOAD_CALLERS, keys=keys)
    return {"keys_per_second": keys / load.run(), "errors": load.errors}


def main() -> None:
    directory, own, others = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
    directory.mkdir(parents=True)
    table = ReplDict()
    configuration = SyncObjConf(journalFile=str(directory / "journal"), fullDumpFile=str(directory / "dump"))
    node = SyncObj(own, others, conf=configuration, consumers=[table])
    for line in sys.stdin:
        order = json.loads(line)
        what = order["do"]
        answer: dict[str, Any]
        if what == "status":
            leader = node._getLeader()
            answer = {"leader": None if leader is None else str(leader), "ready": node.isReady()}
        elif what == "put":
            answer = measure(table, order)
        else:
            answer = bulk_load(table, order["keys"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    node.destroy()


if __name__ == "__main__":
    main()
