"""The log against a plain list, through power cuts, kills, torn sectors and a disk that fills up.

The model keeps the state that was last synced and every state written since. After a power cut the log
must come back as one of those, in this order and never older than the synced one: nothing acknowledged
is lost (SAFETY 24), nothing is half there, nothing comes back that was truncated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from crashfs import CrashFS, Died
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from logs import CLUSTER, CONFIG, DIR, NODE, Batch

from lattice_core.raft.types import Entry, HardState, RecoveredState, SnapshotMeta
from lattice_core.storage.errors import DiskFull
from lattice_core.storage.wal import Wal

SEGMENT = 4096


@dataclass(frozen=True)
class Model:
    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta | None = None
    entries: tuple[Entry, ...] = ()
    commit: int = 0

    @property
    def first(self) -> int:
        return (self.snapshot.last_included_index if self.snapshot else 0) + 1

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1

    def is_state(self, state: RecoveredState) -> bool:
        return (self.hard_state, self.snapshot, self.entries) == (
            state.hard_state,
            state.snapshot,
            state.entries,
        ) and state.commit_hint <= max(self.commit, self.first - 1)


class WalMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.fs = CrashFS()
        self.wal = Wal.create(self.fs, DIR, CLUSTER, NODE, segment_bytes=SEGMENT)
        self.synced = Model()
        self.written: list[Model] = []

    @property
    def now(self) -> Model:
        return self.written[-1] if self.written else self.synced

    def write(self, *steps: tuple[Batch, Model]) -> None:
        try:
            self.wal.write([batch for batch, _ in steps])
        except DiskFull:
            return
        self.written.append(steps[-1][1])

    def sync(self) -> None:
        self.wal.sync()
        self.synced, self.written = self.now, []

    # ---- batches ------------------------------------------------------------------------------------

    def appended(self, model: Model, sizes: list[int], zeros: bool) -> tuple[Batch, Model]:
        term = model.hard_state.term
        new = tuple(
            Entry(model.last + 1 + n, term, bytes(size) if zeros else bytes([1 + (model.last + n) % 255]) * size)
            for n, size in enumerate(sizes)
        )
        model = replace(model, entries=model.entries + new)
        return Batch(entries=new), model

    @rule(
        groups=st.lists(
            st.lists(st.sampled_from([0, 1, 90, 700, 2500]), min_size=1, max_size=3), min_size=1, max_size=3
        ),
        zeros=st.booleans(),
    )
    def append(self, groups, zeros):
        steps, model = [], self.now
        for sizes in groups:
            batch, model = self.appended(model, sizes, zeros)
            steps.append((batch, model))
        self.write(*steps)

    @rule(step=st.integers(1, 2), vote=st.sampled_from([None, 1, 2]))
    def new_term(self, step, vote):
        state = HardState(self.now.hard_state.term + step, vote)
        self.write((Batch(hard_state=state), replace(self.now, hard_state=state)))

    @rule(back=st.integers(1, 4), sizes=st.lists(st.sampled_from([5, 300]), max_size=3))
    def conflict(self, back, sizes):
        model = self.now
        start = max(model.first, model.commit + 1, model.last + 1 - back)
        if start > model.last:
            return
        state = HardState(model.hard_state.term + 1)
        model = replace(model, hard_state=state, entries=model.entries[: start - model.first])
        batch, model = self.appended(model, sizes, zeros=False)
        self.write((replace(batch, hard_state=state, truncate_from=start), model))

    @rule(ahead=st.integers(0, 3))
    def commit(self, ahead):
        index = min(self.now.last, self.now.commit + ahead)
        self.write((Batch(commit_hint=index), replace(self.now, commit=index)))

    @rule(back=st.integers(0, 5))
    def take_snapshot(self, back):
        model = self.now
        index = max(model.first, model.last - back)
        if index > model.last:
            return
        meta = SnapshotMeta(index, model.entries[index - model.first].term, CONFIG)
        after = replace(
            model,
            snapshot=meta,
            entries=model.entries[index + 1 - model.first :],
            commit=max(model.commit, index),
        )
        self.write((Batch(snapshot=meta), after))

    @rule(ahead=st.integers(1, 6))
    def install_snapshot(self, ahead):
        model = self.now
        meta = SnapshotMeta(model.last + ahead, model.hard_state.term, CONFIG)
        after = Model(model.hard_state, meta, (), meta.last_included_index)
        self.write((Batch(snapshot=meta), after))

    # ---- what else happens --------------------------------------------------------------------------

    @rule()
    def make_durable(self):
        self.sync()

    @rule(back=st.integers(0, 10))
    def compact(self, back):
        self.wal.compact(max(0, self.now.last - back))

    @rule(full=st.booleans())
    def disk(self, full):
        self.fs.room = 0 if full else 1 << 30

    @rule(clean=st.booleans())
    def restart(self, clean):
        """The process ends, the machine stays up: everything written is found."""
        if clean:
            self.wal.close()
        self.come_back([self.now])
        assert self.recovery.torn is None

    @rule(seed=st.integers(0, 2**32 - 1))
    def power_cut(self, seed):
        self.fs = self.fs.crash(random.Random(seed))
        self.come_back([self.synced, *self.written])

    @rule(
        seed=st.integers(0, 2**32 - 1),
        steps=st.integers(0, 9),
        sizes=st.lists(st.sampled_from([90, 700, 1500]), min_size=1, max_size=4),
    )
    def power_cut_while_writing(self, seed, steps, sizes):
        batch, after = self.appended(self.now, sizes, zeros=False)
        self.fs.die_after = steps
        possible = [self.synced, *self.written, after]
        try:
            self.wal.write([batch])
            self.wal.sync()
            possible = [after]
        except Died:
            pass
        except DiskFull:
            possible = possible[:-1]
        self.fs = self.fs.crash(random.Random(seed))
        self.come_back(possible)

    @rule(seed=st.integers(0, 2**32 - 1), steps=st.integers(0, 5))
    def power_cut_while_recovering(self, seed, steps):
        possible = [self.synced, *self.written]
        self.fs = self.fs.crash(random.Random(seed))
        self.fs.die_after = steps
        try:
            Wal.open(self.fs, DIR, CLUSTER, NODE, segment_bytes=SEGMENT)
        except Died:
            pass
        self.fs = self.fs.crash(random.Random(seed + 1))
        self.come_back(possible)

    def come_back(self, possible: list[Model]) -> None:
        self.wal, self.recovery = Wal.open(self.fs, DIR, CLUSTER, NODE, segment_bytes=SEGMENT)
        state = self.recovery.state
        matching = [model for model in possible if model.is_state(state)]
        assert matching, f"{state} is none of {possible}"
        # The hint may lag behind what the core knew; Raft then learns the commit index again.
        self.synced, self.written = matching[0], []

    @precondition(lambda self: hasattr(self, "wal"))
    @invariant()
    def the_log_knows_its_end(self):
        assert self.wal.last_index == self.now.last


TestWalAgainstAList = WalMachine.TestCase
TestWalAgainstAList.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
