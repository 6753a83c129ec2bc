"""Why TLS connections are refused, in the node's own log.

gRPC's C core decides over handshakes, and tells Python nothing of those that fail; it writes a line to stderr, in a
format of its own, that only somebody who knows OpenSSL can read. So, in a node with TLS, what native code writes to
stderr comes here first, through a pipe: what is known is logged as a sentence, at most once a minute for each reason,
and what is not gRPC's goes on to stderr as it is. Python's own output goes there directly.

Limits: gRPC says neither who it was nor at which port. Of what native code writes in the very moment in which it ends
the process, the last line may be lost; Python's traceback of that moment is not.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import re
import sys
import threading
import time
from typing import IO, Final

AGAIN_SECONDS: Final = 60.0
MAX_LINE_BYTES: Final = 64 << 10

_LINE: Final = re.compile(rb"^[IWE]\d{4} [^\]]*?ssl_transport_security\w*\.cc:\d+\] (?P<text>.*)$")
_OF_GRPC: Final = re.compile(rb"^[IWE]\d{4} [^\]]*?\w+\.cc:\d+\] ")
"""What is no disaster (F); in a node without TLS gRPC says nothing of it either."""

_REASONS: Final = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "it has shown no certificate, and has to"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet: is a clock wrong?"),
    ("unsuitable certificate purpose", "its certificate is not for this purpose"),
    ("unsupported certificate purpose", "its certificate is not for this purpose"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate was not issued by an authority that is trusted here"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("HTTP_REQUEST", "it does not speak TLS"),
    ("NO_SHARED_CIPHER", "it does not offer TLS 1.3"),
    ("UNSUPPORTED_PROTOCOL", "it does not offer TLS 1.3"),
    ("ALERT_UNKNOWN_CA", "it does not trust the authority that issued the certificate shown here"),
    ("ALERT_CERTIFICATE_EXPIRED", "it says that the certificate shown here has expired"),
    ("ALERT_BAD_CERTIFICATE", "it does not accept the certificate shown here"),
    ("ALERT_CERTIFICATE_UNKNOWN", "it does not accept the certificate shown here"),
)
_DIALLED: Final = "No match found for server name: "

log = logging.getLogger("lattice.tls")


def reason_of(line: bytes) -> str | None:
    """What a line of gRPC's says, for people; None if it says nothing of a handshake."""
    match = _LINE.match(line)
    if match is None:
        return None
    text = match["text"].decode(errors="replace")
    if text.startswith(_DIALLED):
        return f"it was dialled as {text.removeprefix(_DIALLED)}, and its certificate is for other names"
    if "Handshake failed" not in text and "handshake" not in text.lower():
        return None
    for sign, reason in _REASONS:
        if sign in text:
            return reason
    return text


class HandshakeLog:
    """Between :meth:`start` and :meth:`stop` native code's stderr comes here. One in a process."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}
        self._stderr_fd = -1
        self._python: IO[str] | None = None
        self._before: IO[str] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """From now on ``sys.stderr`` is another object: set logging up afterwards."""
        sys.stderr.flush()
        self._stderr_fd = os.dup(2)
        readable, writable = os.pipe()
        os.dup2(writable, 2)
        os.close(writable)
        self._before, self._python = sys.stderr, os.fdopen(self._stderr_fd, "w", 1, errors="replace", closefd=False)
        sys.stderr = self._python
        faulthandler.enable(self._python)
        self._thread = threading.Thread(target=self._read, args=(readable,), name="handshakes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Everything as it was. What was written until now has been dealt with. Safe to repeat."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        faulthandler.disable()
        os.dup2(self._stderr_fd, 2)  # the pipe's last writer: its reader comes to the end
        thread.join()
        assert self._before is not None
        sys.stderr = self._before
        # The descriptor is left open: logging may still write to it.

    def _read(self, readable: int) -> None:
        with os.fdopen(readable, "rb") as pipe:
            while line := pipe.readline(MAX_LINE_BYTES):
                try:
                    self.take(line)
                except Exception:
                    # A pipe that nobody empties would stop the whole process.
                    log.exception("a line of gRPC's could not be dealt with")

    def take(self, line: bytes) -> None:
        """Log it, or pass it on."""
        reason = reason_of(line.rstrip(b"\r\n"))
        if reason is not None:
            self._tell(reason)
        elif not _OF_GRPC.match(line):
            with contextlib.suppress(OSError):
                os.write(self._stderr_fd, line)

    def _tell(self, reason: str) -> None:
        now = time.monotonic()
        at, more = self._told.get(reason, (-AGAIN_SECONDS, 0))
        if now - at < AGAIN_SECONDS:
            self._told[reason] = (at, more + 1)
            return
        if len(self._told) > 64:
            self._told.clear()
        self._told[reason] = (now, 0)
        again = f" ({more} more since this was said last)" if more else ""
        log.warning("a TLS connection with somebody was not made: %s%s", reason, again)
