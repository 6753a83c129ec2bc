"""One cluster's state as the first state of another: what a restored or a recovered cluster begins with.

The keys stay exactly as they were, values, revisions and versions. What must change is everything that counts on,
because the old cluster may have gone on after the state was saved, and its clients are still about:

* **Revisions** go on a trillion above. The next write has a higher revision than any that the old cluster can have
  given out, so whoever keeps the highest revision he has seen (a cache, a watcher, a fencing token) is never shown
  a second, different history under numbers that he knows. Reading at one in between is answered as compacted, not
  with a guess. At 100,000 writes a second it takes 115 days to give out a trillion; and nine thousand such
  steps fit into the integers that every JSON reader holds exactly (2**53).
* **Sessions** are forgotten, and ids go on a trillion above too. A client of the old cluster that tries again here
  is told that its session has expired: nothing is executed, and it learns that the outcome of what it had sent is
  unknown. Kept, a session would answer as executed what this state does not have; and had its number been given
  out twice, one client would be answered with another's results.

``generation`` counts the clusters begun from one and the same saved state: each begins that many steps above, so
that a second attempt keeps its distance from a first one that has served. Every member of one cluster must be made
with the same.

The log's time, the limits of sessions and the applied index and term are kept.
"""

from __future__ import annotations

from typing import Final

from lattice_core.errors import InvalidRequest
from lattice_core.kv.machine import StateMachine

STEP: Final = 10**12

MAX_GENERATION: Final = 1000
"""A tenth of what fits. Whoever restores one backup a thousand times has another problem."""


def succeed(machine: StateMachine, generation: int = 1) -> None:
    """Turn the state, in place, into that of a new cluster. Raises InvalidRequest for an impossible generation."""
    if not 1 <= generation <= MAX_GENERATION:
        raise InvalidRequest(f"the generation must be 1 to {MAX_GENERATION}, not {generation}")
    machine.store.continue_at(machine.store.revision + generation * STEP)
    machine.sessions.forget_all(machine.sessions.next_id + generation * STEP)
