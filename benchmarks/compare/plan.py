"""How long each thing is measured, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    """Of A B: each round gives every system one turn, each turn a fresh cluster."""
    seconds: float
    """Of each measurement of a number of callers."""
    warm_up_seconds: float
    load_keys: int
    kills: int
    """Of the leader, for each system."""
    saturation_seconds: float
    """Under 256 writing callers, while elections are counted."""
    command_runs: int
    """Of ``lattice get`` as a process, and of what it is compared with."""
    growth: bool
    """Whether the cost of a write is compared between 10,000 and 1,000,000 keys."""
    growth_seconds: float
    """Long enough for a snapshot of the million: what it costs is part of what a write costs."""


FULL = Plan(
    rounds=3,
    seconds=10.0,
    warm_up_seconds=2.0,
    load_keys=300_000,
    kills=20,
    saturation_seconds=60.0,
    command_runs=15,
    growth=False,
    growth_seconds=60.0,
)

QUICK = Plan(
    rounds=1,
    seconds=2.5,
    warm_up_seconds=0.5,
    load_keys=60_000,
    kills=2,
    saturation_seconds=5.0,
    command_runs=5,
    growth=False,
    growth_seconds=10.0,
)
