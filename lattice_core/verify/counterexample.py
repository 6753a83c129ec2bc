"""What shows that a key is not linearizable: a few operations, and one sentence that says why.

``shrink`` finds the operations. The sentence is a proof in words where one of the usual arguments applies
(a value never written, a value replaced for good, a swap too many, a refusal without reason), and else says
only that no order exists, and which values the key may have held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lattice_core.verify.history import Operation, display, encode_bytes, encode_optional
from lattice_core.verify.shrink import (
    culprit_of,
    cut_at,
    fails,
    order_without,
    preference,
    replaced_by,
    shortest_failing_prefix,
    shrink,
    usual_suspects,
    value_refused,
    value_shown,
    value_wanted,
    value_written,
)
from lattice_core.verify.wgl import Meter, search

# Finding the shortest explanation is a courtesy: it stops here with the best one so far.
_SHRINK_SECONDS = 10.0
_SHRINK_STEPS = 3_000_000
_MAX_VALUES_TRIED = 40
# A person reads so many lines; the JSON has them all.
_MAX_LINES = 40


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Operations of one key that no order explains, in the order of their calls.

    ``operations[culprit]`` is the one by whose return no order is left; without it, ``order`` (indices into
    ``operations``) is a possible one. ``simplified`` are the indices of writes shown as a plain put or
    delete, because what they found does not matter. ``possible_values`` are what the key may have held when
    the culprit looked, as far as all operations of the key up to then tell; None if that was not worked out.
    """

    key: bytes
    operations: tuple[Operation, ...]
    culprit: int
    explanation: str
    order: tuple[int, ...]
    possible_values: tuple[bytes | None, ...] | None
    simplified: frozenset[int]
    key_operations: int
    start_ns: int

    def lines(self) -> list[str]:
        """For a person: the operations, an arrow at the culprit, the sentence."""
        rows = [
            (
                "->" if index == self.culprit else "  ",
                f"process {op.process}",
                describe(op) + (" *" if index in self.simplified else ""),
                milliseconds(op.call_ns - self.start_ns),
                "?" if op.return_ns is None or op.outcome == "unknown" else milliseconds(op.return_ns - self.start_ns),
                op.outcome,
            )
            for index, op in enumerate(self.operations)
        ]
        wide = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            f"key {display(self.key)}: {_count(len(self.operations), 'operation')} of {self.key_operations} show it "
            "(milliseconds from the start of the history)"
        ]
        first = 0
        if len(rows) > _MAX_LINES:
            first = min(self.culprit, len(rows) - _MAX_LINES)
            lines.append(f"     ... {first} operations before these")
        lines += [
            f"  {mark} {process:<{wide[1]}}  {what:<{wide[2]}}  {call:>{wide[3]}} .. {back:>{wide[4]}}  {outcome}"
            for mark, process, what, call, back, outcome in rows[first : first + _MAX_LINES]
        ]
        if self.simplified:
            lines.append("  * what it found before does not matter here")
        lines.append(self.explanation)
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "key": encode_bytes(self.key),
            "operations": [op.to_json() for op in self.operations],
            "culprit": self.culprit,
            "explanation": self.explanation,
            "possible_order": list(self.order),
            "possible_values": None
            if self.possible_values is None
            else [encode_optional(value) for value in self.possible_values],
            "key_operations": self.key_operations,
        }


def describe(op: Operation) -> str:
    """An operation in a few words: ``get -> A``, ``cas A => B swapped``."""
    if op.op == "get":
        return f"get -> {display(op.result)}" if op.outcome == "ok" else "get"
    if op.op == "put":
        return f"put {display(op.value)}"
    if op.op == "delete":
        found = "" if op.outcome != "ok" or op.deleted is None else (" found it" if op.deleted else " found nothing")
        return f"delete{found}"
    found = "" if op.outcome != "ok" else (" swapped" if op.swapped else " refused")
    return f"cas {display(op.expected)} => {display(op.value)}{found}"


def explain(operations: Sequence[Operation], *, start_ns: int) -> Counterexample | None:
    """The counterexample of one key's history; None if (against expectation) none can be proved in time."""
    meter = Meter(steps=_SHRINK_STEPS, seconds=_SHRINK_SECONDS)
    happened = [op for op in operations if op.outcome != "fail"]
    until = shortest_failing_prefix(happened, meter)
    if until is None:
        return None
    culprit, happened = culprit_of(happened, until, meter)
    if culprit is None:
        return None
    prefix = cut_at(happened, until)

    failed = [op for op in operations if op.outcome == "fail"]
    kept, simplified = usual_suspects([*happened, *failed], culprit)
    if not kept or not fails((op for op in kept if op.outcome != "fail"), until, meter):
        kept, simplified = shrink(happened, culprit, until, meter)
    order = order_without(kept, culprit, until, meter)
    values = _possible_values(prefix, culprit, meter)
    kept_index = {id(op): index for index, op in enumerate(kept)}
    return Counterexample(
        key=culprit.key,
        operations=tuple(kept),
        culprit=kept_index[id(culprit)],
        explanation=_in_words([*happened, *failed], kept, culprit, values, start_ns),
        order=tuple(order),
        possible_values=values,
        simplified=frozenset(kept_index[id(op)] for op in kept if id(op) in simplified),
        key_operations=len(operations),
        start_ns=start_ns,
    )


# --- saying it ------------------------------------------------------------------------------------


def _possible_values(prefix: Sequence[Operation], culprit: Operation, meter: Meter) -> tuple[bytes | None, ...] | None:
    """What a get in the culprit's place could have returned, given everything up to its return."""
    others = [op for op in prefix if op is not culprit]
    candidates: list[bytes | None] = []
    for value in [None, *(value for writes, value in map(value_written, others) if writes)]:
        if value not in candidates and replaced_by(value, others, culprit) is None:
            candidates.append(value)
            if len(candidates) > _MAX_VALUES_TRIED:
                return None
    possible = []
    for value in candidates:
        look = Operation(
            culprit.process, "get", culprit.key, result=value, call_ns=culprit.call_ns, return_ns=culprit.return_ns
        )
        verdict, _ = search([*others, look], meter)
        if verdict is None:
            return None
        if verdict:
            possible.append(value)
    return tuple(possible)


def _in_words(
    operations: Sequence[Operation],
    kept: Sequence[Operation],
    culprit: Operation,
    values: tuple[bytes | None, ...] | None,
    start_ns: int,
) -> str:
    def at(time_ns: int | None) -> str:
        return f"{milliseconds((time_ns or 0) - start_ns)} ms"

    returned = culprit.return_ns or 0
    others = [op for op in operations if op is not culprit]
    who = f"{culprit.op} by process {culprit.process} at {at(returned)}"
    wants, value = value_wanted(culprit)
    refuses, refused = value_refused(culprit)
    name = display(value)
    if culprit.op == "get":
        said = f"{who} returned {'not found' if value is None else name}"
    elif wants:
        said = f"{who} found {name}" + (f" and swapped it for {display(culprit.value)}" if culprit.op == "cas" else "")
    else:
        said = f"{who} found something other than {display(refused)}"

    if wants:
        why = _why_not_found(others, kept, culprit, value, at)
    else:
        why = _why_not_other(others, culprit, refused, at) if refuses else None
    if why is None:
        why = "no order of these operations allows that" if len(kept) > 1 else "nothing allows that"
    sentence = f"{said}, but {why}."
    if values:
        held = [display(v) for v in values]
        sentence += f" The key held {' or '.join(held) if len(held) < 3 else 'one of ' + ', '.join(held)} then."
    return sentence


def _why_not_found(
    others: Sequence[Operation],
    kept: Sequence[Operation],
    culprit: Operation,
    value: bytes | None,
    at: Callable[[int | None], str],
) -> str | None:
    """A proof in words that the culprit cannot have found ``value``, if one of the usual ones applies."""
    returned = culprit.return_ns or 0
    name = display(value)
    writers = [op for op in others if value_written(op) == (True, value)]
    in_time = [op for op in writers if op.call_ns <= returned]
    if value is not None and not in_time:
        if writers:
            first = min(writers, key=lambda op: op.call_ns)
            return f"{name} was not written before {at(first.call_ns)}"
        if any(op.outcome == "fail" and op.value == value for op in others):
            return f"the only write of {name} failed: it is known not to have happened"
        return f"nothing ever wrote {name}"
    proof = replaced_by(value, others, culprit)
    if proof is not None:
        # Prefer a proof among the operations on display, if they suffice for the same argument.
        on_display = [op for op in kept if op is not culprit and _is_proof(op, value, others, culprit)]
        proof = min(on_display, key=preference, default=proof)
        if value_written(proof)[0]:
            what = "a delete" if proof.op == "delete" else display(proof.value)
            done = f"{what} was already acknowledged at {at(proof.return_ns)}"
        else:
            done = (
                f"process {proof.process} had already found {display(value_wanted(proof)[1])} at {at(proof.return_ns)}"
            )
        later = "nothing deleted it later" if value is None else f"no later write restored {name}"
        return f"{done} and {later}"
    swaps = [
        op
        for op in others
        if op.op == "cas" and op.swapped and op.expected == value != op.value and (op.return_ns or 0) <= returned
    ]
    chances = len(in_time) + (value is None)
    if culprit.op == "cas" and culprit.value != value and len(swaps) + 1 > chances:
        times = "once" if chances == 1 else f"{chances} times"
        there = f"the key was without a value {times} only" if value is None else f"{name} was written {times} only"
        return f"{_count(len(swaps), 'other cas', 'other cas')} had swapped it already, and {there}"
    return None


def _is_proof(op: Operation, value: bytes | None, others: Sequence[Operation], culprit: Operation) -> bool:
    writers = [w for w in others if value_written(w) == (True, value)]
    return replaced_by(value, [*writers, op], culprit) is op


def _why_not_other(
    others: Sequence[Operation], culprit: Operation, refused: bytes | None, at: Callable[[int | None], str]
) -> str | None:
    """A proof in words that the key held ``refused`` all the time that the culprit could look, if there is one."""
    returned = culprit.return_ns or 0
    rivals = [
        op for op in others if value_written(op)[0] and value_written(op)[1] != refused and op.call_ns <= returned
    ]
    if refused is None and not rivals:
        return "nothing had been written"
    for op in sorted((op for op in others if value_shown(op) == (True, refused)), key=lambda op: op.return_ns or 0):
        if (op.return_ns or 0) < culprit.call_ns and all(
            rival.outcome == "ok" and rival.return_ns is not None and rival.return_ns < op.call_ns for rival in rivals
        ):
            what = "the key was gone" if refused is None else f"{display(refused)} was in place"
            return f"{what} since {at(op.return_ns)} and nothing wrote after that"
    return None


def milliseconds(nanoseconds: int) -> str:
    """12.345: to the microsecond."""
    return f"{nanoseconds / 1e6:.3f}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
