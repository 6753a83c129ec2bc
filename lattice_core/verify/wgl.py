"""Is there an order in which one register could have done all this? The search of Wing, Gong and Lowe.

Theory. A history of one key is linearizable if every completed operation can be given a single instant
between its call and its return so that, taken in the order of those instants, each returns what a plain
register would have returned. Wing and Gong search for the order depth first: an operation may come next
if no other operation, still to be placed, returned before it was called. Lowe ("Testing for
linearizability", 2017) keeps the operations still to be placed in a doubly linked list in call order,
from which one is lifted and to which it is given back on backtracking, and remembers every
configuration (what is placed, the state) so that none is entered twice.

A configuration here is ``(r, mask, state, used)``. Completed operations are ranked by return; ``r`` is the
first rank not yet placed. Everything ranked before it is placed, nothing called after its return can
be, so what is placed is told by one bit for each operation pending at that return: bits are handed out
at calls and reused after returns, like registers by a compiler. The key therefore has the size of the
concurrency, not of the history, and a sequential stretch costs a constant for each operation.

An *open* operation has an unknown outcome: it may take effect at any time after its call, or never.
``used`` has a bit for each open operation that took effect.

The cuts of the search, each with the reason why it cannot change the verdict. "A completion" is a valid
order for all that is still to be placed.

1. Reading operations (gets, failed compare-and-sets, deletes that found nothing) which could come next
   and agree with the state are placed at once, without alternatives. In any completion such a read can
   be moved to the front: it changes no state, and it is already called.
2. Open operations are placed only in a chain directly before a completed operation that does not agree
   with the state before the chain and agrees with the state after it. In any completion look at the last
   open operation that stands elsewhere. If what follows it is nothing, or writes blindly, or is an open
   operation that does not depend on the state, drop it: open operations need not happen. If what follows
   agreed already with the state before: should it read only, exchange the two (an open operation has no
   latest time); else it leaves the same state either way, drop the chain. Each step drops an open
   operation or moves it later, so this ends. Unknown writes that nobody observed are therefore never
   even considered.
3. Of open operations that do the same, the one called first is used first: exchanging the two in a
   completion breaks nothing, as they have no latest time. Of completed operations that do the same and
   could both come next, the one that returns first goes first, by the same exchange.
4. A configuration is dropped if one with the same ``(r, mask, state)`` and a subset of its ``used`` was
   entered before: whatever completes this one completes that one.
5. The state is not left while operations that need its value remain and nothing remains to write it
   again. With distinct values this alone makes the search almost free of backtracking.
6. Values that no operation can tell from each other (in no result, in no expected) are made one value.
7. A completed blind write is *moot* if no operation to be placed can tell that it happened: nothing needs
   its value, no open compare-and-set expects it, and no operation of the key merely needs the value to
   differ from something. In a completion it can be moved to directly before the first blind write that
   comes after its call. So all moot writes that could come next are placed together with the first
   blind write that is; and among moot writes alone the order does not matter.

The search is iterative, counts its steps and watches the clock: out of budget it says so (None), and
never a verdict it has not proved.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from lattice_core.verify.history import Operation

_ANY = -1  # wants: no particular value; refuses: nothing
_KEEPS = -1  # leaves: the state as it was
_ABSENT = 0  # the value of a key that is not there
_CLOCK_EVERY_STEPS = 1024
# Ways through unknown compare-and-sets to one value, from one configuration. Real histories stay below a
# dozen. The number is exponential in the worst case: the rest is then not tried, and a search which finds
# no order says that it does not know.
_MAX_CHAIN_EXPANSIONS = 10_000


class Meter:
    """What a check may still spend: steps (deterministic) and time."""

    __slots__ = ("_clock", "_deadline", "exhausted", "steps_left", "steps_spent")

    def __init__(
        self, *, steps: int | None, seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.steps_left = steps
        self.steps_spent = 0
        self.exhausted = False
        self._clock = clock
        self._deadline = None if seconds is None else clock() + seconds

    def grant(self) -> int:
        """How many steps may be made before asking again; 0 when the budget is gone."""
        if self._deadline is not None and self._clock() >= self._deadline:
            self.exhausted = True
            return 0
        if self.steps_left is None:
            return _CLOCK_EVERY_STEPS
        if self.steps_left <= 0:
            self.exhausted = True
            return 0
        return min(self.steps_left, _CLOCK_EVERY_STEPS)

    def spend(self, steps: int) -> None:
        self.steps_spent += steps
        if self.steps_left is not None:
            self.steps_left -= steps


class Problem:
    """The operations of one key as arrays of small integers, ready to search.

    Completed operations are numbered by call (0..n-1); ``rank`` is their place by return. ``wants`` is the
    value that an operation needs to find, ``refuses`` the one that it must not find, ``leaves`` the value
    after it. Dropped on the way in: failed operations (they did not happen) and open reads.
    """

    __slots__ = (
        "bit",
        "by_rank",
        "classes",
        "closed",
        "demand",
        "incomplete",
        "leaves",
        "limit",
        "open_leaves",
        "open_limit",
        "open_wanted",
        "open_wants",
        "opens",
        "producers",
        "rank",
        "refuses",
        "supply",
        "wants",
    )

    def __init__(self, operations: Sequence[Operation]) -> None:
        ids = _number_values(operations)
        other = len(ids)
        calls, returns = _event_keys(operations)
        # By call. Both lists hold indices into ``operations``.
        self.closed = sorted((i for i, op in enumerate(operations) if op.outcome == "ok"), key=calls.__getitem__)
        self.opens = sorted(
            (i for i, op in enumerate(operations) if op.outcome == "unknown" and op.op != "get"),
            key=calls.__getitem__,
        )
        self.wants: list[int] = []
        self.refuses: list[int] = []
        self.leaves: list[int] = []
        for index in self.closed:
            wants, refuses, leaves = _meaning(operations[index], ids, other)
            self.wants.append(wants)
            self.refuses.append(refuses)
            self.leaves.append(leaves)
        self.open_wants: list[int] = []
        self.open_leaves: list[int] = []
        for index in self.opens:
            wants, _, leaves = _meaning(operations[index], ids, other)
            self.open_wants.append(wants)
            self.open_leaves.append(leaves)

        n = len(self.closed)
        self.by_rank = sorted(range(n), key=lambda i: returns[self.closed[i]])
        self.rank = [0] * n
        # limit[r]: the completed operations below it were called before the r-th return; open_limit alike.
        self.limit = [0] * (n + 1)
        self.open_limit = [0] * (n + 1)
        self.bit = [0] * n
        free: list[int] = []
        slots = called = open_called = 0
        for r, number in enumerate(self.by_rank):
            self.rank[number] = r
            returned = returns[self.closed[number]]
            while called < n and calls[self.closed[called]] < returned:
                if not free:
                    free.append(1 << slots)
                    slots += 1
                self.bit[called] = free.pop()
                called += 1
            while open_called < len(self.opens) and calls[self.opens[open_called]] < returned:
                open_called += 1
            self.limit[r] = called
            self.open_limit[r] = open_called
            free.append(self.bit[number])
        self.limit[n] = n
        self.open_limit[n] = len(self.opens)

        # demand[v]: completed operations that need v; supply[v]: operations, open ones too, that write v.
        self.demand = [0] * (other + 1)
        self.supply = [0] * (other + 1)
        self.open_wanted = [False] * (other + 1)
        for wants in self.wants:
            if wants >= 0:
                self.demand[wants] += 1
        for leaves in self.leaves + self.open_leaves:
            if leaves >= 0:
                self.supply[leaves] += 1
        for wants in self.open_wants:
            if wants >= 0:
                self.open_wanted[wants] = True
        self.incomplete = False  # set when not every alternative could be tried
        # Open operations that do the same, by call; and the classes by the value that they write.
        classes: dict[tuple[int, int], list[int]] = {}
        for number, (wants, leaves) in enumerate(zip(self.open_wants, self.open_leaves, strict=True)):
            if leaves != _KEEPS:
                classes.setdefault((wants, leaves), []).append(number)
        self.classes = list(classes.values())
        self.producers: dict[int, list[list[int]]] = {}
        for (_, leaves), members in classes.items():
            self.producers.setdefault(leaves, []).append(members)

    def open_available(self, members: list[int], r: int, used: int) -> int:
        """The first unused operation of a class that has been called by the r-th return, or -1."""
        for number in members:
            if not used >> number & 1:
                return number if number < self.open_limit[r] else -1
        return -1

    def chains(self, blocked: list[int], r: int, state: int, used: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Chains of open operations that let a blocked completed one come next (cut 2), short ones first."""
        # Each is built backwards from the wanted value, through compare-and-sets, to the state or to a blind
        # write. A chain that passes a value twice could be shorter.
        pending: deque[tuple[int, int, tuple[int, ...], frozenset[int]]] = deque()
        for number in blocked:
            if self.wants[number] >= 0:
                pending.append((number, self.wants[number], (), frozenset((self.wants[number],))))
                continue
            # It refuses the state: any one operation that leaves another value will do, and none but the
            # first of a longer chain is needed.
            for members in self.classes:
                first = members[0]
                if self.open_leaves[first] != state and self.open_wants[first] in (_ANY, state):
                    found = self.open_available(members, r, used)
                    if found >= 0:
                        yield number, (found,)
        expanded = 0
        while pending:
            expanded += 1
            if expanded > _MAX_CHAIN_EXPANSIONS:
                self.incomplete = True
                return
            number, value, tail, passed = pending.popleft()
            for members in self.producers.get(value, ()):
                found = self.open_available(members, r, used)
                if found < 0:
                    continue
                needs = self.open_wants[found]
                if needs in (_ANY, state):
                    yield number, (found, *tail)
                elif needs not in passed:
                    pending.append((number, needs, (found, *tail), passed | {needs}))


def _number_values(operations: Sequence[Operation]) -> dict[bytes | None, int]:
    """Numbers for the values that some operation can tell apart; all others share one (cut 6)."""
    ids: dict[bytes | None, int] = {None: _ABSENT}
    for op in operations:
        if op.outcome == "fail":
            continue
        if op.op == "get":
            if op.outcome == "ok":
                ids.setdefault(op.result, len(ids))
        elif op.op == "cas":
            ids.setdefault(op.expected, len(ids))
    return ids


def _meaning(op: Operation, ids: dict[bytes | None, int], other: int) -> tuple[int, int, int]:
    """(wants, refuses, leaves) of a register operation."""
    if op.op == "get":
        return ids[op.result], _ANY, _KEEPS
    if op.op == "put":
        return _ANY, _ANY, ids.get(op.value, other)
    if op.op == "cas":
        expected = ids[op.expected]
        if op.swapped is False and op.outcome == "ok":
            return _ANY, expected, _KEEPS
        leaves = ids.get(op.value, other)
        return expected, _ANY, _KEEPS if leaves == expected else leaves
    if op.deleted is None or op.outcome != "ok":
        return _ANY, _ANY, _ABSENT
    return (_ANY, _ABSENT, _ABSENT) if op.deleted else (_ABSENT, _ANY, _KEEPS)


def _event_keys(operations: Sequence[Operation]) -> tuple[list[int], list[int]]:
    """Sort keys of calls and returns. a precedes b if and only if return key of a < call key of b.

    Between different processes a return and a call at the same nanosecond are concurrent: calls first.
    A process however is sequential, so of its own two the return comes first. A single order cannot
    honour that for several processes at one instant (it would order operations of different processes
    too), so it is done for one process an instant: calls of others, its returns, its calls, returns of
    others. Less is known then, never more.
    """
    following = {(op.process, op.call_ns) for op in operations if op.return_ns is None or op.return_ns > op.call_ns}
    chosen: dict[int, int] = {}
    for op in operations:
        returned = op.return_ns
        if returned is not None and op.call_ns < returned and (op.process, returned) in following:
            chosen.setdefault(returned, op.process)
    calls = [op.call_ns * 4 for op in operations]
    returns = [0 if op.return_ns is None else op.return_ns * 4 + 3 for op in operations]
    if chosen:
        for index, op in enumerate(operations):
            returned = op.return_ns
            if (returned is None or op.call_ns < returned) and chosen.get(op.call_ns) == op.process:
                calls[index] += 2
            if returned is not None and op.call_ns < returned and chosen.get(returned) == op.process:
                returns[index] -= 2
    return calls, returns


class _Frame:
    """One configuration on the current path, with what there is left to try from it."""

    __slots__ = ("absorbed", "at", "blocked", "chains", "free", "mask", "moved", "moves", "r", "reads", "state", "used")

    def __init__(
        self,
        reads: list[int],
        moves: list[int],
        free: list[int],
        blocked: list[int],
        r: int,
        mask: int,
        state: int,
        used: int,
    ) -> None:
        self.reads = reads  # placed on arrival (cut 1)
        self.moves = moves  # completed writes to try
        self.free = free  # moot writes which go with any blind one (cut 7)
        self.blocked = blocked  # completed operations that open ones might enable
        self.r, self.mask, self.state, self.used = r, mask, state, used
        self.at = 0
        self.chains: Iterator[tuple[int, tuple[int, ...]]] | None = None
        # The move now being tried: the operation, the open ones and the moot ones directly before it.
        self.moved: tuple[int, tuple[int, ...]] = (-1, ())
        self.absorbed: list[int] = []


def search(operations: Sequence[Operation], meter: Meter) -> tuple[bool | None, list[int]]:
    """Is this history of a single key linearizable? None when the budget is gone.

    With True comes an order: indices into ``operations``, every completed one, and those of the open ones
    that had to take effect.
    """
    return _search(Problem(operations), meter)


def _search(p: Problem, meter: Meter) -> tuple[bool | None, list[int]]:
    n = len(p.closed)
    if n == 0:
        return True, []
    wants, refuses, leaves, bit, rank, limit, by_rank = p.wants, p.refuses, p.leaves, p.bit, p.rank, p.limit, p.by_rank
    demand, supply, open_leaves = p.demand, p.supply, p.open_leaves
    for value in range(1, len(demand)):
        if demand[value] and not supply[value]:
            return False, []
    has_open = bool(p.classes)
    may_absorb = all(value < 0 for value in refuses)
    open_wanted = p.open_wanted

    # The list of completed operations still to be placed, in call order, around one head.
    head = n + 1
    after = [*range(1, n + 1), head, 0]
    before = [head, *range(n), n]

    seen: set[tuple[int, int, int]] = set()
    seen_used: dict[tuple[int, int, int], list[int]] = {}
    path: list[_Frame] = []
    r = mask = used = 0
    state = _ABSENT
    allowed = steps = 0

    while True:
        # Arrive at a configuration.
        if steps >= allowed:
            meter.spend(steps)
            steps = 0
            allowed = meter.grant()
            if allowed == 0:
                return None, []
        steps += 1
        reads: list[int] = []
        moves: list[int] = []
        blocked: list[int] = []
        stop = limit[r]
        i = after[head]
        while i < stop:
            value = wants[i]
            if value == state or (value < 0 and refuses[i] != state):
                if leaves[i] < 0:
                    before[after[i]] = before[i]
                    after[before[i]] = after[i]
                    if value >= 0:
                        demand[value] -= 1
                    reads.append(i)
                    mask |= bit[i]
                    if rank[i] == r:
                        while r < n and mask & bit[by_rank[r]]:
                            mask ^= bit[by_rank[r]]
                            r += 1
                        stop = limit[r]
                else:
                    moves.append(i)
            elif has_open:
                blocked.append(i)
            i = after[i]
        if r == n:
            meter.spend(steps)
            return True, _order(p, path, reads)

        key = (r, mask, state)
        if key in seen:
            fresh = False
        elif used == 0:
            seen.add(key)
            fresh = True
        else:
            tried = seen_used.setdefault(key, [])
            fresh = all(less & ~used for less in tried)
            if fresh:
                tried[:] = [more for more in tried if used & ~more]
                tried.append(used)
        if fresh:
            free: list[int] = []
            if len(moves) > 1:
                moves, free = _reduce(moves, rank, wants, refuses, leaves, demand, open_wanted, may_absorb)
            path.append(_Frame(reads, moves, free, blocked, r, mask, state, used))
        else:
            for i in reversed(reads):
                before[after[i]] = i
                after[before[i]] = i
                if wants[i] >= 0:
                    demand[wants[i]] += 1

        # Move on: take back what failed until there is something left to try, then place it.
        while path:
            frame = path[-1]
            i, chain = frame.moved
            if i >= 0:
                for j in (i, *reversed(frame.absorbed)):
                    before[after[j]] = j
                    after[before[j]] = j
                    if leaves[j] >= 0:
                        supply[leaves[j]] += 1
                if wants[i] >= 0:
                    demand[wants[i]] += 1
                for u in chain:
                    supply[open_leaves[u]] += 1
                frame.moved = (-1, ())
            state = frame.state
            if frame.at < len(frame.moves):
                i = frame.moves[frame.at]
                chain = ()
                frame.at += 1
            else:
                if frame.chains is None and frame.blocked:
                    frame.chains = p.chains(frame.blocked, frame.r, state, frame.used)
                found = next(frame.chains, None) if frame.chains is not None else None
                if found is None:
                    path.pop()
                    for i in reversed(frame.reads):
                        before[after[i]] = i
                        after[before[i]] = i
                        if wants[i] >= 0:
                            demand[wants[i]] += 1
                    continue
                i, chain = found

            to = leaves[i] if leaves[i] >= 0 else open_leaves[chain[-1]]
            if to != state and demand[state] - (wants[i] == state) > 0 and supply[state] == 0:
                continue  # cut 5
            r, mask, used = frame.r, frame.mask, frame.used
            frame.absorbed = [j for j in frame.free if j != i] if wants[i] < 0 and refuses[i] < 0 else []
            for j in (*frame.absorbed, i):
                before[after[j]] = before[j]
                after[before[j]] = after[j]
                if leaves[j] >= 0:
                    supply[leaves[j]] -= 1
                mask |= bit[j]
            if wants[i] >= 0:
                demand[wants[i]] -= 1
            for u in chain:
                supply[open_leaves[u]] -= 1
                used |= 1 << u
            while r < n and mask & bit[by_rank[r]]:
                mask ^= bit[by_rank[r]]
                r += 1
            frame.moved = (i, chain)
            state = to
            break
        else:
            meter.spend(steps)
            return None if p.incomplete else False, []


def _reduce(
    moves: list[int],
    rank: list[int],
    wants: list[int],
    refuses: list[int],
    leaves: list[int],
    demand: list[int],
    open_wanted: list[bool],
    may_absorb: bool,
) -> tuple[list[int], list[int]]:
    """The moves worth trying (cut 3), and the moot ones that go along (cut 7)."""
    moves.sort(key=rank.__getitem__)
    free: list[int] = []
    worth: list[int] = []
    known: set[tuple[int, int, int]] = set()
    for i in moves:
        if may_absorb and wants[i] < 0 and demand[leaves[i]] == 0 and not open_wanted[leaves[i]]:
            free.append(i)
            continue
        does = (wants[i], refuses[i], leaves[i])
        if does not in known:
            known.add(does)
            worth.append(i)
    if free:
        worth.append(free[0])
    return worth, free


def _order(p: Problem, path: list[_Frame], last_reads: list[int]) -> list[int]:
    order: list[int] = []
    for frame in path:
        order += [p.closed[i] for i in frame.reads]
        i, chain = frame.moved
        order += [p.closed[j] for j in frame.absorbed]
        order += [p.opens[u] for u in chain]
        order.append(p.closed[i])
    return order + [p.closed[i] for i in last_reads]
