"""Passwords and tokens: how they are made, kept and checked. Everything here is in plain memory and plain bytes.

Theory
  * A **password** is chosen by a person, so it can be guessed by whoever gets hold of what is kept of it: the log, a
    snapshot, a backup. Hence scrypt, with a salt of its own, which takes a fifth of a second and 32 MiB for each
    guess. That is far too much for each request, so a password is only good for getting a token (Access/Login), in a
    thread, a few at a time.
  * A **token** is 256 bits of chance. Nobody guesses it, hashed however quickly, so it is kept as its SHA-256, and
    checking one costs two microseconds: that may be done for each call, and is done once for each stream and each
    change of who may do what. A token says in front which one it is (``lattice_ID_SECRET``), so that looking it
    up needs no comparison of secrets, and people can name it without showing it.
  * Both are hashed before they come near the log: applying stays quick and deterministic, and neither the log,
    nor a snapshot, nor a follower ever has a secret (kv/access.py).

A verifier names its own parameters, so these can be raised without making the old ones invalid.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lattice_core.errors import ConfigurationError

SCRYPT_LOG2_N: Final = 15
SCRYPT_R: Final = 8
SCRYPT_P: Final = 3
"""OWASP's recommendation for 32 MiB of memory."""

_MAX_MEMORY_BYTES: Final = 256 << 20
"""What a verifier from elsewhere may ask for."""

MIN_PASSWORD_BYTES: Final = 8
MAX_PASSWORD_BYTES: Final = 1024

MAX_TOKEN_CHARACTERS: Final = 200

RESCUE_ID: Final = "rescue"
RESCUE_FILE: Final = "access-rescue"
"""In a member's data directory: what a token with the id ``rescue`` hashes to, in hexadecimal."""
RESCUE_SECONDS: Final = 3600.0
MAX_TOKEN_FILE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class FreshToken:
    """A token just made. ``text`` is the secret, to be shown once; the others are what is kept."""

    id: str
    text: str
    digest: bytes


def new_token() -> FreshToken:
    return token_named(secrets.token_hex(8))


def token_named(token_id: str) -> FreshToken:
    """A new secret under an id that is given."""
    secret = secrets.token_hex(32)
    return FreshToken(token_id, f"lattice_{token_id}_{secret}", digest_of(secret))


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def split_token(text: str) -> tuple[str, str] | None:
    """``(id, secret)``; None for what is no token."""
    parts = text.split("_")
    if len(text) > MAX_TOKEN_CHARACTERS or len(parts) != 3 or parts[0] != "lattice" or not text.isascii():
        return None
    return parts[1], parts[2]


def is_secret_of(secret: str, digest: bytes) -> bool:
    return hmac.compare_digest(digest_of(secret), digest)


def hash_password(password: bytes) -> bytes:
    """What is kept of a password. Takes a fifth of a second, on purpose: not on the event loop."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, SCRYPT_LOG2_N, SCRYPT_R, SCRYPT_P)
    return _verifier(salt, digest)


def is_password_of(password: bytes, verifier: bytes | None) -> bool:
    """Whether it is. Without a verifier it is not, and that takes just as long to find out."""
    try:
        kind, log2_n, r, p, salt, digest = (verifier or _verifier(bytes(16), bytes(32))).decode().split("$")
        if kind != "scrypt":
            return False
        found = _scrypt(password, bytes.fromhex(salt), int(log2_n), int(r), int(p))
        return hmac.compare_digest(found, bytes.fromhex(digest)) and verifier is not None
    except ValueError:
        return False


def _scrypt(password: bytes, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=1 << log2_n, r=r, p=p, maxmem=_MAX_MEMORY_BYTES, dklen=32)


def _verifier(salt: bytes, digest: bytes) -> bytes:
    return f"scrypt${SCRYPT_LOG2_N}${SCRYPT_R}${SCRYPT_P}${salt.hex()}${digest.hex()}".encode()


def read_token_file(path: str) -> str:
    """The token in a file: its first line. Raises ConfigurationError, which never quotes what is in it."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_TOKEN_FILE_BYTES)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the token file {path}: {error.strerror}", hint="lattice login USER --out FILE"
        ) from None
    line = data.split(b"\n", 1)[0].strip()
    text = line.decode("ascii", "replace")
    if split_token(text) is None:
        raise ConfigurationError(
            f"the first line of {path} is no token of Lattice's (lattice_ID_SECRET)",
            hint="lattice login USER --out FILE",
        )
    return text
