"""Certificates that end soon: members', as each tells of its own, and the one that is shown from here. No I/O.

Nothing is noticed before the day, and not always then: connections outlive the certificate that they were made with. It
is the next one that is refused, when a member was started again. ``lattice certs`` makes no certificate that outlives
the authority which issued it, so an authority that ends is seen here as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from lattice_cli.doctor.observed import Finding, Observation, Severity
from lattice_cli.render.text import plural
from lattice_core.client import CertificateDetails

DAY_SECONDS: Final = 86_400.0

SOON_DAYS: Final = 30
"""The time that is usual for a renewal."""
LAST_DAYS: Final = 3
"""A weekend."""

SOON_PART: Final = 1 / 3
LAST_PART: Final = 1 / 10
"""Who lets certificates live for days hears of it when this much of their life is left, as in the members' logs."""


def check(seen: Observation) -> Iterator[Finding]:
    bad = False
    ends: list[tuple[float, float]] = []
    for what, certificate, now, remedy, members in _all(seen):
        left = certificate.not_after_seconds - now
        ends.append((left, certificate.not_after_seconds))
        severity = _severity(certificate, left)
        if severity != "ok":
            bad = True
            yield Finding(
                severity, "certificates", f"{what} {_told(left, certificate.not_after_seconds)}", remedy, members
            )
    if ends and not bad:
        yield Finding("ok", "certificates", f"the one that ends first {_told(*min(ends))}")


def _all(seen: Observation) -> Iterator[tuple[str, CertificateDetails, float, str, tuple[str, ...]]]:
    """Each: what it is, the certificate, the time where it is, the remedy, and whose it is."""
    for node in seen.nodes():
        if node.details is None:
            continue
        ports: dict[CertificateDetails, list[str]] = {}  # one file mostly serves both
        for each in node.details.certificates:
            ports.setdefault(dataclasses.replace(each, port=""), []).append(each.port)
        for certificate, names in ports.items():
            where = f"{' and '.join(names)} port{'s' if len(names) > 1 else ''}"
            yield (
                f"{certificate.path}, of its {where},",
                certificate,
                node.details.wall_clock_seconds,
                f"lattice certs node {node.name} --replace, with the --host that it had; put the files in place of the "
                "old ones, and the member takes them without a restart",
                (node.name,),
            )
    if seen.own_certificate is not None:
        yield (
            f"{seen.own_certificate.path}, which is shown from here,",
            seen.own_certificate,
            seen.now_seconds,
            "lattice certs client NAME --replace, where the authority is",
            (),
        )


def _severity(certificate: CertificateDetails, left_seconds: float) -> Severity:
    life = certificate.not_after_seconds - certificate.not_before_seconds
    if left_seconds <= min(LAST_DAYS * DAY_SECONDS, life * LAST_PART):
        return "problem"
    return "warning" if left_seconds <= min(SOON_DAYS * DAY_SECONDS, life * SOON_PART) else "ok"


def _told(left_seconds: float, ends: float) -> str:
    day = f"{datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
    days = int(abs(left_seconds) // DAY_SECONDS)
    about = f"in {plural(days, 'day')}" if days else "within a day"
    if left_seconds <= 0:
        return f"has expired, on {day}: whoever connects anew is refused"
    return f"ends on {day}, {about}"
