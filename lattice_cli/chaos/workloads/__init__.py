"""What clients do to a cluster under attack. Each has an invariant of its own that no fault may break.

========== ======================================================== ===========================================
register   put, get, delete and compare-and-set on a few keys       the record is linearizable (lattice verify)
set        each element is put once, under a key of its own         none lost, none twice, none made up
list       elements are appended to one value by compare-and-set    reads are prefixes, none lost, none twice
bank       transfers between accounts                               the total stays, nothing is overdrawn
counter    one caller each counts up, under its session             every step exactly once, never back
========== ======================================================== ===========================================
"""

from __future__ import annotations

from collections.abc import Callable

from lattice_cli.chaos.workloads.bank import Bank
from lattice_cli.chaos.workloads.base import Arena, Tally, Workload
from lattice_cli.chaos.workloads.counter import Counter
from lattice_cli.chaos.workloads.register import Register
from lattice_cli.chaos.workloads.sets import AppendList, UniqueSet

WORKLOADS: dict[str, Callable[[Arena], Workload]] = {
    "register": Register,
    "set": UniqueSet,
    "list": AppendList,
    "bank": Bank,
    "counter": Counter,
}
"""By the names that users know them by."""

__all__ = ["WORKLOADS", "Arena", "Tally", "Workload"]
