"""How many connections wait at a port until they are accepted: few, so that a crowd does not hold up members' streams.

gRPC accepts until nobody waits any more, on the one thread that also reads every other socket of the process, those
between members included; and it has the kernel keep as many waiting as the system allows, 4,096. At 45 us each that is
a fifth of a second on a machine with nothing else to do. Where a dozen others wanted the processor too it took 1.5 s,
in which no heartbeat left and no answer came in: 10,000 connections at once cost an election every time (SAFETY 49).

What does not fit is not lost: the kernel does not answer its SYN, and the other side's kernel repeats it a second
later, again and again, until its ``connect`` gives up. So a short queue is a brake on whoever opens connections faster
than they are accepted, and on nobody else; between two fillings the thread reads what members sent.

gRPC has no setting for it. But ``listen`` may be called again on a socket that listens, to give it another length, and
through a duplicate of the descriptor too, which we find among our own.

Limits: Linux, macOS and the BSDs; elsewhere the queue stays as gRPC makes it. One who opens them without waiting for
any may refill the queue while it is emptied; that lasts as long as they can keep it up on another processor.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Final

OWN_DESCRIPTORS: Final = ("/proc/self/fd", "/dev/fd")


def shorten_backlog(port: int, backlog: int) -> int:
    """Have at most about ``backlog`` connections wait at this TCP port of ours; at how many sockets that was done."""
    done = 0
    for listener in _listening_sockets():
        with listener:
            if listener.getsockname()[1] == port:
                listener.listen(backlog)
                done += 1
    return done


def _listening_sockets() -> Iterator[socket.socket]:
    """Duplicates of this process's TCP sockets that listen; whoever takes one closes it."""
    for number in _descriptors():
        try:
            duplicate = os.dup(number)
        except OSError:
            continue  # the one that the directory was read by
        try:
            found = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)  # no socket
            continue
        if _listens(found):
            yield found
        else:
            found.close()


def _listens(found: socket.socket) -> bool:
    if found.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        return found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0
    except (OSError, AttributeError):
        return False


def _descriptors() -> list[int]:
    for directory in OWN_DESCRIPTORS:
        with contextlib.suppress(OSError):
            return [int(name) for name in os.listdir(directory)]
    return []
