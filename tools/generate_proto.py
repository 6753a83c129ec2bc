"""Generate lattice_core/rpc/pb from proto/: ``python tools/generate_proto.py [--check]``.

protoc names Python modules after the proto path (``lattice.v1.kv_pb2``); we keep the path, which is the
contract other languages see, and rewrite the imports so that the modules live in ``lattice_core.rpc.pb``.
``--check`` writes nothing and exits 1 where the tree is out of step.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "lattice_core" / "rpc" / "pb"


def generate() -> dict[str, str]:
    """The generated files by name."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
        code = protoc.main(
            [
                "protoc",
                f"-I{ROOT / 'proto'}",
                f"--python_out={scratch}",
                f"--pyi_out={scratch}",
                f"--grpc_python_out={scratch}",
                *sources,
            ]
        )
        if code != 0:
            raise SystemExit(f"protoc failed with {code}")
        files = {}
        for path in sorted(Path(scratch, "lattice", "v1").iterdir()):
            text = path.read_text()
            text = re.sub(r"from lattice\.v1 import", "from lattice_core.rpc.pb import", text)
            files[path.name] = text
        return files


def main() -> int:
    files = generate()
    if "--check" in sys.argv[1:]:
        stale = [name for name, text in files.items() if not (OUT / name).exists() or (OUT / name).read_text() != text]
        if stale:
            print(f"out of step with proto/: {', '.join(stale)}; run: make proto")
            return 1
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (OUT / name).write_text(text)
    print(f"wrote {len(files)} files")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
