"""What gRPC's C core is told by environment variables, which it reads once, when it is first imported.

Both are defaults: whoever sets the variable has it as they want it.

``GRPC_VERBOSITY``. The core writes lines of its own to stderr ("Got goaway ..."). What matters of it comes back to us
as an error.

``GRPC_EXPERIMENTS``. Since 1.80 the Python package does its reading and writing on threads of an "event engine" rather
than on the thread that waits for results anyway. Each message then passes through one or two more threads. For
messages of a few hundred bytes to and fro over ``grpc.aio`` the old way took 110 us instead of 160 and 60 us of CPU
instead of 110; a whole cluster needs a fifth less CPU for a write (docs/performance.md). gRPC means to remove the
choice some day, and a name that it does not know makes it write to stderr: so this is said only to versions that are
known to know it. Newer ones work as well, and slower.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from importlib.util import find_spec
from typing import Final

WITHOUT_EVENT_ENGINE: Final = "-event_engine_client,-event_engine_listener"
FIRST_WITH_EVENT_ENGINE: Final = (1, 80)
LAST_WITH_A_CHOICE: Final = (1, 85)
"""The newest that was tried."""


def prepare_grpc(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what is not set. No effect once gRPC has been imported."""
    environ.setdefault("GRPC_VERBOSITY", "NONE")
    if "GRPC_EXPERIMENTS" not in environ:
        version = installed_version()
        if version is not None and FIRST_WITH_EVENT_ENGINE <= version <= LAST_WITH_A_CHOICE:
            environ["GRPC_EXPERIMENTS"] = WITHOUT_EVENT_ENGINE


def installed_version() -> tuple[int, int] | None:
    """Major and minor version of the package, without importing it. None: not to be told."""
    spec = find_spec("grpc")
    if spec is None or spec.origin is None:
        return None
    try:
        # Not with pathlib: importing that takes longer than all of this.
        with open(os.path.join(os.path.dirname(spec.origin), "_grpcio_metadata.py"), encoding="utf-8") as file:
            text = file.read(1000)
    except OSError:
        return None
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None
