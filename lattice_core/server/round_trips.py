"""How long a peer takes to answer, measured on the heartbeats that go back and forth anyway.

A heartbeat carries the number of its round, and its answer echoes it. One is timed per peer at a time: from when
the core hands it out to when its answer is stepped, so the time that either process keeps it waiting counts, as it
does for everything else that is sent. A heartbeat whose answer is missing for :data:`LOST_SECONDS` counts as
lost, and the next is timed instead. Only leaders send heartbeats, so only they measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from lattice_core.histogram import Histogram
from lattice_core.raft.messages import Heartbeat, HeartbeatResponse, Message
from lattice_core.raft.types import NodeId

LOST_SECONDS = 2.0
"""Beyond the longest election timeout that is usual: by then the leader has given up or has been given up."""

_LOST_NS = int(LOST_SECONDS * 1e9)


class RoundTrips:
    """Lives on the loop; notes into the histograms it is given, one for each peer."""

    def __init__(self, seconds: defaultdict[NodeId, Histogram]) -> None:
        self._seconds = seconds
        self._timed: dict[NodeId, tuple[int, int, int]] = {}  # (term, round, when it was sent)

    def sent(self, messages: Sequence[Message], now_ns: int) -> None:
        for message in messages:
            if type(message) is Heartbeat:
                timed = self._timed.get(message.to)
                if timed is None or now_ns - timed[2] > _LOST_NS or timed[0] != message.term:
                    self._timed[message.to] = (message.term, message.round, now_ns)

    def received(self, peer: NodeId, messages: Sequence[Message], now_ns: int) -> None:
        timed = self._timed.get(peer)
        if timed is None:
            return
        for message in messages:
            if type(message) is HeartbeatResponse and (message.term, message.round) == timed[:2]:
                del self._timed[peer]
                self._seconds[peer].note((now_ns - timed[2]) / 1e9)
                return
