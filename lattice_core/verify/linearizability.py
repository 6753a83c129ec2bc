"""The verdict over a recorded history: is every key a linearizable register?

Linearizability is local: a history is linearizable if and only if it is for each key by itself (Herlihy and
Wing, 1990, Theorem 1), so keys are checked one by one; ``wgl`` has the search and its theory. Failed
operations are dropped, unknown ones may take effect at any time after their call or never.

Limits: a register per key and operations on one key. Transactions, ranges and revisions are not looked at.
The problem is NP-complete: many unknown operations with repeating values on one hot key can exhaust the
budget, and the verdict is then None, never a guess. Distinct values keep the search nearly linear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lattice_core.errors import InvalidRequest
from lattice_core.verify.counterexample import Counterexample, explain
from lattice_core.verify.history import Operation, display, overlap_of, problem_with
from lattice_core.verify.wgl import Meter, search


@dataclass(frozen=True, slots=True)
class Budget:
    """What a check may cost. None is no limit.

    A step remembers a configuration, 100 to 200 bytes: 4,000,000 of them stay below 1 GB, which is given
    back after each key. Steps are the same in every run; seconds are not, so whoever needs the same
    verdict from the same seed sets ``seconds`` to None.
    """

    seconds: float | None = 60.0
    steps_per_key: int | None = 4_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """``linearizable`` None: the budget ended first, and what was checked is linearizable."""

    linearizable: bool | None
    operations: int
    keys: int
    failed_keys: tuple[bytes, ...]
    unknown_keys: tuple[bytes, ...]
    counterexample: Counterexample | None
    steps: int

    def to_json(self) -> dict[str, Any]:
        """The document of ``lattice verify -o json``."""
        return {
            "linearizable": self.linearizable,
            "operations": self.operations,
            "counterexample": None if self.counterexample is None else self.counterexample.to_json(),
            "keys": self.keys,
            "failed_keys": len(self.failed_keys),
            "unknown_keys": len(self.unknown_keys),
        }

    def lines(self) -> list[str]:
        """For a person."""
        scope = f"{self.operations} operations on {self.keys} {'key' if self.keys == 1 else 'keys'}"
        if self.linearizable:
            return [f"linearizable: {scope}"]
        if self.linearizable is None:
            return [
                f"no verdict: {scope}; the budget ended before {_some(self.unknown_keys)} was decided, "
                "everything else is linearizable"
            ]
        lines = [f"NOT linearizable: {scope}; violated for {_some(self.failed_keys)}"]
        if self.counterexample is not None:
            lines += ["", *self.counterexample.lines()]
        return lines


def _some(keys: tuple[bytes, ...]) -> str:
    named = ", ".join(display(key) for key in keys[:3])
    return f"key {named}" if len(keys) == 1 else f"{len(keys)} keys ({named}{', ...' if len(keys) > 3 else ''})"


def check_history(operations: Iterable[Operation], *, budget: Budget | None = None) -> Verdict:
    """Check a history. InvalidRequest if it is not one (impossible times, overlapping operations)."""
    budget = budget or Budget()
    history = list(operations)
    _refuse_impossible(history)
    by_key: dict[bytes, list[Operation]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)

    meter = Meter(steps=None, seconds=budget.seconds)
    failed: list[bytes] = []
    unknown: list[bytes] = []
    # Small ones first: should the time run out, it does so with most of the keys decided.
    for key in sorted(by_key, key=lambda k: (len(by_key[k]), k)):
        meter.steps_left = budget.steps_per_key
        verdict, _ = search(by_key[key], meter)
        if verdict is None:
            unknown.append(key)
        elif not verdict:
            failed.append(key)

    counterexample = None
    start_ns = min((op.call_ns for op in history), default=0)
    for key in failed[:3]:  # a second and third only if the first could not be shown in time
        counterexample = explain(by_key[key], start_ns=start_ns)
        if counterexample is not None:
            break
    return Verdict(
        linearizable=False if failed else None if unknown else True,
        operations=len(history),
        keys=len(by_key),
        failed_keys=tuple(failed),
        unknown_keys=tuple(unknown),
        counterexample=counterexample,
        steps=meter.steps_spent,
    )


def _refuse_impossible(history: list[Operation]) -> None:
    for index, op in enumerate(history):
        wrong = problem_with(op)
        if wrong is not None:
            raise InvalidRequest(f"operation {index} of the history: {wrong}")
    overlap = overlap_of(history)
    if overlap is not None:
        raise InvalidRequest(f"operation {overlap[0]} of the history: {overlap[1]}")
