"""Fuzz for long: ``make fuzz SECONDS=600 [TARGETS="wal plan"] [SEED=7]``. Keeps what it finds in tests/fuzz/corpus."""

from __future__ import annotations

import argparse
import hashlib
import random
import secrets
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
for directory in (HERE, HERE.parent / "storage", HERE.parent / "raft"):
    sys.path.insert(0, str(directory))

from mutate import mutated  # noqa: E402
from running import CORPUS, MEMORY_BYTES, attempt, corpus, memory_of  # noqa: E402
from targets import TARGETS, clean_up  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all, without any")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}")
    names = arguments.targets or list(TARGETS)
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.seconds:g} s for {len(names)} targets", flush=True)
    findings = 0
    for name in names:
        draw = random.Random(f"{seed}/{name}")
        examples = [*TARGETS[name].examples, *(file.read_bytes() for file in corpus(name))]
        seen: set[str] = set()
        count = 0
        deadline = time.monotonic() + arguments.seconds / len(names)
        while time.monotonic() < deadline:
            data = mutated(draw, examples)
            count += 1
            found = attempt(name, data)
            if found is None and count % 100 == 0 and (held := memory_of(name, data)) > MEMORY_BYTES:
                found = f"held {held} bytes"
            if found is None or found[:60] in seen:
                continue
            seen.add(found[:60])
            findings += 1
            file = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            print(f"{name}: {found}\n  kept as {file}", flush=True)
        print(f"{name}: {count} inputs", flush=True)
    print(f"{findings} findings")
    return 1 if findings else 0


def clean() -> int:
    try:
        return main()
    finally:
        clean_up()


if __name__ == "__main__":
    sys.exit(clean())
