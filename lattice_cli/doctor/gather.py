"""Asking around: the addresses given, the cluster they belong to, and every member of it by itself."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

from lattice_cli.doctor.observed import DiskMeasured, Observation
from lattice_core.errors import ConfigurationError, LatticeError, Unavailable

if TYPE_CHECKING:
    from lattice_core.client import CertificateDetails, Client

MAX_WRITES = 300
MAX_WRITE_SECONDS = 2.0
"""A bad disk shows within a dozen; and doctor is not to be waited for."""

WRITE_BYTES = 4096
"""What a few small puts come to in the log."""


def gather(client: Client, endpoints: tuple[str, ...], timeout: float) -> Observation:
    """Whatever can be found out in time; what cannot is part of it. Raises nothing for want of answers."""
    given = client.examine(endpoints, timeout=timeout)
    if all(each.status is None for each in given):
        return Observation(given)
    try:
        cluster = client.cluster_status(timeout=timeout)
    except Unavailable as error:
        return Observation(given, cluster_error=error.message)
    known = {each.address: each for each in given}
    wanted = [member.client_addr for member in cluster.members if member.client_addr]
    more = (
        client.examine([addr for addr in wanted if addr not in known], timeout=timeout)
        if set(wanted) - known.keys()
        else ()
    )
    known.update({each.address: each for each in more})
    members = {member.id: known[member.client_addr] for member in cluster.members if member.client_addr}
    return Observation(given, cluster, None, members)


def own_certificate(path: str) -> CertificateDetails:
    """The certificate in a file of ours. Raises ConfigurationError."""
    from lattice_core.certificates import read
    from lattice_core.client import CertificateDetails

    try:
        with open(path, "rb") as file:
            found = read(file.read())[0]
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    return CertificateDetails("", path, found.not_before.timestamp(), found.not_after.timestamp())


def measure_disk(path: str) -> DiskMeasured:
    """Write and fsync as the log does, in a file of its own in ``path``, and remove it."""
    from lattice_core.storage.filesystem import RealFileSystem

    try:
        about = os.statvfs(path)
        owner_only = not os.stat(path).st_mode & 0o077
    except OSError as error:
        return DiskMeasured(path, (), 0, 0, 0, None, True, error=error.strerror or str(error))
    free, total = about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize
    fsyncs: list[float] = []
    problem: str | None = None
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=path) as scratch:
            file = RealFileSystem().open(os.path.join(scratch, "probe"), create=True, exclusive=True)
            try:
                file.allocate(MAX_WRITES * WRITE_BYTES)
                file.datasync()
                deadline = time.perf_counter() + MAX_WRITE_SECONDS
                data = os.urandom(WRITE_BYTES)
                while len(fsyncs) < MAX_WRITES and time.perf_counter() < deadline:
                    file.write_at(len(fsyncs) * WRITE_BYTES, data)
                    began = time.perf_counter()
                    file.datasync()
                    fsyncs.append(time.perf_counter() - began)
            finally:
                file.close()
    except (OSError, LatticeError) as error:
        problem = (error.strerror or str(error)) if isinstance(error, OSError) else error.message
    return DiskMeasured(
        path, tuple(sorted(fsyncs)), WRITE_BYTES, free, total, _filesystem(path), owner_only, problem, _identity(path)
    )


def _filesystem(path: str) -> str | None:
    """The type of the file system that ``path`` is on: of the mount that is deepest above it (Linux)."""
    best, kind = "", None
    real = os.path.realpath(path)
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, where, this, *_ = line.split(" ")
                where = where.replace("\\040", " ")
                inside = real == where or real.startswith(where.rstrip("/") + "/")
                if inside and len(where) >= len(best):
                    best, kind = where, this
    except (OSError, ValueError):
        return None
    return kind


def _identity(path: str) -> tuple[str, int] | None:
    from lattice_core.storage.filesystem import RealFileSystem
    from lattice_core.storage.identity import read_identity

    try:
        found = read_identity(RealFileSystem(), path)
    except LatticeError:
        return None
    return None if found is None else (found.node_name, found.cluster_id)
