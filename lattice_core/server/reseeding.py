"""A member whose data is damaged, or not like the others', comes back as a new one: ``lattice start --reseed H:P``.

It must not come back as itself. What it had promised (a vote, an entry that counted for a majority) may be in what was
damaged, so the member id is given up, and the server joins under another one, as a learner which is promoted when it
has caught up (SAFETY 17, 22). One command does it, and it may be repeated until it succeeds:

1. In ``DATA/recovery.new`` a new member's parts are begun, with a fresh incarnation.
2. The leader is asked to let this server in *in place of* the member with its name and address. It looks at that
   address first, and finds this very server there, waiting, with that incarnation: so the old member does not run any
   more. Then it removes the old member and adds the new one, by two changes (membership_requests.py).
3. The new parts take the place of the old ones, which are kept within the directory (storage/making.py).

A crash before 3 leaves the old directory, which is refused as before; and asking again with another incarnation has
the half-made member replaced like the one before it. A directory that is empty takes the usual way of joining. One
that is whole is started as it is: so the option may stay where it is.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError, Fatal
from lattice_core.server.bootstrap import Admission, create_joined
from lattice_core.server.incarnations import Incarnations
from lattice_core.storage.filesystem import OfflineFileSystem, join
from lattice_core.storage.identity import LOCK, DataDirectory, Identity, read_identity
from lattice_core.storage.making import (
    NEW_PARTS,
    archive_for,
    begin_new_parts,
    change_over,
    discard_new_parts,
    finish_change,
    is_changing,
)

log = logging.getLogger("lattice.join")

_NEEDED_TO_JOIN = ("tls_cert", "tls_key", "tls_client_ca", "peer_tls_cert", "peer_tls_key", "peer_tls_ca", "token_file")
"""Settings without which the command would be another one; and ``tls_ca``, which may have to be found."""

Admit = Callable[[int], Awaitable[Admission]]
"""Have the cluster let in the server with this incarnation."""


def way_back(config: NodeConfig) -> str:
    """The command that brings this node back, to be completed with an address.

    With all that it needs, also what only who joins needs, and a member's usual command has not: the authority of the
    members' client ports, where these have TLS, and an administrator's token. Whether access control is on stands in
    the state, which may be what is damaged.
    """
    command = [
        *("lattice", "start", "--name", config.name, "--data-dir", config.data_dir),
        *("--client-addr", config.client_addr, "--peer-addr", config.peer_addr),
    ]
    for setting in _NEEDED_TO_JOIN:
        if value := getattr(config, setting):
            command += [f"--{setting.replace('_', '-')}", value]
    explained = "H:P: a healthy member's client address"
    if config.tls_cert or config.tls_ca:
        authority = config.tls_ca or _authority_of(config)
        command += ["--tls-ca", authority or "FILE"]
        if not authority:
            explained += "; FILE: of the authority that certifies members' client ports"
    command += ["--reseed", "H:P"]
    if not config.token_file:
        explained += "; where access control is on, also --token-file FILE, an administrator's"
    return f"{shlex.join(command)} ({explained}; what is here is kept aside)"


def _authority_of(config: NodeConfig) -> str:
    """Which of this node's files has the authority of its own certificate for clients: it is the others' too.

    Empty: none of them. For errors only: it reads files.
    """
    from lattice_core.certificates import issued_by  # slow to import

    for path in (config.tls_client_ca, config.peer_tls_ca):
        with contextlib.suppress(OSError, ConfigurationError):
            if path and issued_by(Path(config.tls_cert).read_bytes(), Path(path).read_bytes()):
                return path
    return ""


def tidy(fs: OfflineFileSystem, path: str) -> None:
    """Finish a change-over that was cut short, or clear away what was begun before one. Raises DirectoryInUse."""
    begun = fs.exists(join(path, NEW_PARTS))
    if not begun and not is_changing(fs, path):
        return
    lock = fs.lock(join(path, LOCK))
    try:
        if is_changing(fs, path):
            finish_change(fs, path)
        else:
            discard_new_parts(fs, path)
    finally:
        lock.release()


async def reseed(config: NodeConfig, fs: OfflineFileSystem, admit: Admit) -> None:
    """Put a new member's data directory in the place of one that cannot be used any more.

    Raises what ``admit`` raises, and then the directory is as it was; DirectoryInUse, StorageFailed.
    """
    path = config.data_dir
    lock = fs.lock(join(path, LOCK))
    try:
        former = _former(fs, path)
        new = DataDirectory(fs, begin_new_parts(fs, path), lock, None)
        try:
            incarnations = Incarnations.create(fs, new.path)
            admission = await admit(incarnations.own)
            first = former.initial_cluster if former is not None else None
            create_joined(new, config, fs, incarnations, admission, initial_cluster=first).wal.close()
            fs.make_dirs(new.snapshots_path)  # empty, and the old one goes
            fs.sync_dir(new.path)
        except BaseException:
            discard_new_parts(fs, path)
            raise
        archive = archive_for(fs, path, admission.cluster_id)
        change_over(fs, path, archive)
        log.warning("what was in %s is kept in %s, for you to look at or remove", path, archive)
    finally:
        lock.release()


def former_cluster_id(fs: OfflineFileSystem, path: str) -> int | None:
    """Of what is in the data directory, where that can be read."""
    former = _former(fs, path)
    return former.cluster_id if former is not None else None


def _former(fs: OfflineFileSystem, path: str) -> Identity | None:
    try:
        return read_identity(fs, path)
    except Fatal:
        return None
