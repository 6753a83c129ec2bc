"""How far a leader knows one follower to be, and how much it may send it.

Three states (after etcd's ``tracker/progress.go``):

* PROBE: where the logs agree is not known. One AppendEntries at a time, paced by heartbeats when lost.
* REPLICATE: they agree up to ``match_index``; entries are sent ahead of answers (pipelined), within a
  window bounded in messages and bytes, so that a slow or dead peer costs bounded memory (SAFETY 15).
* SNAPSHOT: what the follower needs is compacted; nothing is sent until the snapshot has arrived or failed.

A *flight* is what was sent since the state last changed. When one message of a flight is lost or overtaken,
the follower rejects all that come after it; the first rejection starts a new flight, and the rest, which
carry the old flight's number, must not start others: each would send a whole window again, and the
rejections of those again (found by the simulator: reordering links, one entry a message, and a thousand
appends for each entry).

*Echoes* are timed: how long a follower takes to answer a heartbeat says whom to ask when a quorum is enough. One is
timed at a time, from when it is made to when its answer is stepped, so whatever keeps it waiting in either process
counts, as it does for everything else that is sent.

Invariants: match_index never decreases while this object lives (SAFETY 14); match_index < next_index;
in PROBE and SNAPSHOT the window is empty.
"""

from __future__ import annotations

import enum
from collections import deque

ECHOES_AVERAGED = 4
"""A moving average over about so many: one late answer does not count for much, several in a row do."""


class ProgressState(enum.Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower or learner, as the leader of this term sees it."""

    __slots__ = (
        "_echo_ns",
        "_echo_to_note_ns",
        "_inflight",
        "_timed_ns",
        "_timed_round",
        "acked_round",
        "flight",
        "inflight_bytes",
        "last_ack_ns",
        "last_heard_ns",
        "match_index",
        "next_index",
        "pending_snapshot_index",
        "probe_again_ns",
        "probe_sent",
        "sent_commit",
        "state",
        "wants_commit",
    )

    def __init__(self, next_index: int, now_ns: int) -> None:
        self.state = ProgressState.PROBE
        self.match_index = 0
        self.next_index = next_index
        self.flight = 0
        self.probe_sent = False
        self.probe_again_ns = 0
        self.pending_snapshot_index = 0
        self.acked_round = 0
        self.sent_commit = 0
        # The index of a read that it forwarded, which it cannot answer before it knows that as much is committed.
        self.wants_commit = 0
        # A new leader gives everyone one election timeout to answer before it counts them as gone.
        self.last_heard_ns = now_ns
        self.last_ack_ns = now_ns
        self.inflight_bytes = 0
        self._inflight: deque[tuple[int, int]] = deque()
        self._echo_ns: int | None = None
        self._echo_to_note_ns: int | None = None
        self._timed_round = 0
        self._timed_ns = 0

    @property
    def inflight_count(self) -> int:
        return len(self._inflight)

    def window_is_full(self, max_appends: int, max_bytes: int) -> bool:
        return len(self._inflight) >= max_appends or self.inflight_bytes >= max_bytes

    def sent(self, last_index: int, size_bytes: int, now_ns: int) -> None:
        """Entries up to ``last_index`` are on their way (REPLICATE)."""
        if not self._inflight:
            self.last_ack_ns = now_ns  # the wait for this answer begins now
        self._inflight.append((last_index, size_bytes))
        self.inflight_bytes += size_bytes
        self.next_index = last_index + 1

    def acknowledged(self, match_index: int, now_ns: int) -> bool:
        """The follower has everything up to ``match_index`` durably; True if that is news."""
        self.last_ack_ns = now_ns
        while self._inflight and self._inflight[0][0] <= match_index:
            self.inflight_bytes -= self._inflight.popleft()[1]
        if self.next_index <= match_index:
            self.next_index = match_index + 1
        if match_index <= self.match_index:
            return False
        self.match_index = match_index
        return True

    def heartbeat_sent(self, round_: int, now_ns: int) -> None:
        """Time it, if none is being timed: one that gets lost counts until a later one is answered."""
        if not self._timed_round:
            self._timed_round, self._timed_ns = round_, now_ns

    def heartbeat_answered(self, round_: int, now_ns: int, longest_ns: int) -> None:
        """No echo counts as more than ``longest_ns``: who was away for a minute is as quick as ever when it is back."""
        if self._timed_round and round_ >= self._timed_round:
            waited_ns = now_ns - self._timed_ns
            if round_ == self._timed_round:
                self._echo_to_note_ns = waited_ns  # else the one that was timed got lost
            echo_ns = min(waited_ns, longest_ns)
            known_ns = self._echo_ns
            self._echo_ns = echo_ns if known_ns is None else known_ns + (echo_ns - known_ns) // ECHOES_AVERAGED
            self._timed_round = 0

    def take_echo_ns(self) -> int | None:
        """How long the heartbeat took that was timed and answered last; each is told once. For metrics."""
        echo_ns, self._echo_to_note_ns = self._echo_to_note_ns, None
        return echo_ns

    @property
    def usual_echo_ns(self) -> int:
        """How long an answer to a heartbeat has lately taken; 0: there was none yet."""
        return self._echo_ns or 0

    def promptness(self, now_ns: int) -> tuple[bool, int]:
        """The smallest answers first: who has answered before comes first, then how long an answer takes: as lately,
        or as long as one has been missing, if that is longer."""
        missing_ns = now_ns - self._timed_ns if self._timed_round else 0
        return self._echo_ns is None, max(self.usual_echo_ns, missing_ns)

    def probed(self, again_ns: int) -> None:
        """A probe is on its way (PROBE). It counts as lost when a heartbeat is answered after ``again_ns``, not
        by every answer: reads make heartbeats, many times faster than a slow disk takes a full probe."""
        self.probe_sent = True
        self.probe_again_ns = again_ns

    def become_probe(self, next_index: int) -> None:
        self.state = ProgressState.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self.probe_sent = False
        self.probe_again_ns = 0
        self.pending_snapshot_index = 0
        self._clear_window()

    def become_replicate(self) -> None:
        self.state = ProgressState.REPLICATE
        self.next_index = self.match_index + 1
        self.pending_snapshot_index = 0
        self._clear_window()

    def become_snapshot(self, snapshot_index: int) -> None:
        self.state = ProgressState.SNAPSHOT
        self.pending_snapshot_index = snapshot_index
        self._clear_window()

    def _clear_window(self) -> None:
        self.flight += 1
        self._inflight.clear()
        self.inflight_bytes = 0
