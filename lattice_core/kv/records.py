"""What the store keeps of a key: bare tuples, half the size of objects, soon left alone by the garbage collector."""

from __future__ import annotations

from typing import Final, TypeAlias

Record: TypeAlias = tuple[bytes, int, int, int, int, int]
"""A key's present: value, create_revision, mod_revision, version, lease_id, digest."""

VALUE: Final = 0
CREATE_REVISION: Final = 1
MOD_REVISION: Final = 2
VERSION: Final = 3
LEASE_ID: Final = 4
DIGEST: Final = 5

RestoredItem: TypeAlias = tuple[bytes, bytes, int, int, int, int]
"""What a snapshot holds of a key: key, value, create_revision, mod_revision, version, lease_id."""

Change: TypeAlias = "tuple[int, bytes, Record | None, Record | None]"
"""One key changed: revision, key, record before, record after (None: absent)."""
