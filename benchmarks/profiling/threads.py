"""What each thread of a process has cost, from /proc: time on a core, time waiting for one, and how often it slept.

Waiting for a core while having something to do ("run queue") is what cores shared by several processes cost; voluntary
switches are wake-ups: each one is a hand-over between threads, or a message. Linux only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one thread, or of several of the same name, added up."""

    cpu_seconds: float
    queued_seconds: float
    voluntary_switches: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.cpu_seconds + other.cpu_seconds,
            self.queued_seconds + other.queued_seconds,
            self.voluntary_switches + other.voluntary_switches,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.cpu_seconds - other.cpu_seconds,
            self.queued_seconds - other.queued_seconds,
            self.voluntary_switches - other.voluntary_switches,
        )


NOTHING = Cost(0.0, 0.0, 0)


def costs(pid: int) -> dict[int, tuple[str, Cost]]:
    """Each thread of a process so far: its name, and what it cost."""
    found: dict[int, tuple[str, Cost]] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            ran, queued, _ = (task / "schedstat").read_text().split()
            status = (task / "status").read_text()
        except OSError:
            continue  # it has ended meanwhile
        switches = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        found[int(task.name)] = name, Cost(int(ran) / 1e9, int(queued) / 1e9, switches)
    return found


def roles(pid: int, before: dict[int, tuple[str, Cost]]) -> dict[str, Cost]:
    """What has been spent since ``before``: by the event loop, gRPC's threads, and the others (storage, workers).

    The main thread runs the loop. gRPC's C core names its threads; Python's take the program's name.
    """
    spent: dict[str, Cost] = {}
    for thread, (name, cost) in costs(pid).items():
        role = "event loop" if thread == pid else "gRPC threads" if _is_grpc(name) else "storage and other threads"
        spent[role] = spent.get(role, NOTHING) + (cost - before.get(thread, ("", NOTHING))[1])
    return spent


def _is_grpc(name: str) -> bool:
    return name.startswith(("event_engine", "grpc", "resolver", "timer_manager"))
