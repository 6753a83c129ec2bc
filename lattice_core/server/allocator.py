"""Few arenas for the C library's allocator.

glibc gives each of the first threads an arena of its own, up to eight for each core, so that they need not wait for one
another. gRPC has a dozen threads, and what one of them allocates another frees: streams and channels that come and go
leave holes in every arena, and what comes next is in another one, or does not fit. Under faults a member's resident
memory grew so by some ten MiB in which nothing was (docs/torture.md, Soak). Nearly everything here happens under one
lock anyway, the interpreter's: two arenas are enough.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

ARENAS = 2
M_ARENA_MAX = -8
"""malloc.h of glibc."""


def limit_arenas(environ: Mapping[str, str] = os.environ) -> bool:
    """Before there are threads. Whether it was done: there is nothing to do elsewhere than on glibc, and who has set
    a number by the environment is left that."""
    if "MALLOC_ARENA_MAX" in environ or "glibc.malloc.arena_max" in environ.get("GLIBC_TUNABLES", ""):
        return False
    import ctypes

    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - other libraries' numbers mean other things
        return bool(libc.mallopt(M_ARENA_MAX, ARENAS))
    except (OSError, AttributeError, TypeError):
        return False
