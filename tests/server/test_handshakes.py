"""gRPC's lines about handshakes become sentences of the node's log; other native output stays what it is."""

from __future__ import annotations

import logging
import os
import sys

import pytest

from lattice_core.server.handshakes import HandshakeLog, reason_of

BEGINS = b"I1128 18:57:58.013834   20165 ssl_transport_security.cc:2563] "
FAILED = BEGINS + b"Handshake failed with error SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            FAILED + b"PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid certificate verification context",
            "it has shown no certificate, and has to",
        ),
        (FAILED + b"CERTIFICATE_VERIFY_FAILED: certificate has expired", "its certificate has expired"),
        (
            FAILED + b"CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate",
            "its certificate was not issued by an authority that is trusted here",
        ),
        (FAILED + b"WRONG_VERSION_NUMBER: Invalid certificate verification context", "it does not speak TLS"),
        (FAILED + b"NO_SHARED_CIPHER: Invalid certificate verification context", "it does not offer TLS 1.3"),
        (
            BEGINS + b"No match found for server name: n3.member.lattice",
            "it was dialled as n3.member.lattice, and its certificate is for other names",
        ),
        (BEGINS + b"Handshake failed with something new", "Handshake failed with something new"),
        (b"W1128 19:15:33.942887   16314 log.cc:102] Handshake failed, says somebody else", None),
        (b"malloc(): corrupted top size", None),
    ],
)
def test_a_line_of_grpcs_is_understood(line: bytes, reason: str | None) -> None:
    assert reason_of(line) == reason


def test_native_output_comes_to_the_log_or_goes_on_and_pythons_own_goes_past(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    expired = FAILED + b"CERTIFICATE_VERIFY_FAILED: certificate has expired\n"
    lines = [
        expired,
        b"I1128 19:15:33.942887   16314 log.cc:102] chatter of gRPC's\n",
        b"F1128 19:15:33.942887   16314 call.cc:7] Check failed: disaster\n",
        b"malloc(): corrupted top size\n",
        expired,
    ]
    before = sys.stderr
    handshakes = HandshakeLog()
    handshakes.start()
    try:
        print("python's own", file=sys.stderr)
        for line in lines:
            os.write(2, line)
    finally:
        handshakes.stop()
        handshakes.stop()
    assert sys.stderr is before
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "a TLS connection with somebody was not made: its certificate has expired")
    ]
    seen = capfd.readouterr().err.splitlines()
    assert sorted(seen) == sorted(["python's own", lines[2].decode().rstrip(), "malloc(): corrupted top size"])
    os.write(2, b"as before\n")
    assert capfd.readouterr().err == "as before\n"
