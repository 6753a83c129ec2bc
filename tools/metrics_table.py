"""The table of metrics in docs/observability.md, from the code: ``python tools/metrics_table.py [--check]``.

Rewrites what stands between the two marks of the page. ``--check`` writes nothing and exits 1 where the page is out
of step; a test does the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lattice_core.server.families import FAMILIES  # noqa: E402

PAGE = ROOT / "docs" / "observability.md"
BEGIN = "<!-- metrics: made by tools/metrics_table.py -->\n"
END = "<!-- end of metrics -->\n"


def table() -> str:
    rows = ["| metric | kind | what it says |", "|---|---|---|"]
    for family in FAMILIES:
        labels = f"{{{', '.join(family.labels)}}}" if family.labels else ""
        rows.append(f"| `{family.name}{labels}` | {family.kind} | {family.help} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    wanted = before + BEGIN + table() + END + rest.split(END)[1]
    if "--check" in sys.argv[1:]:
        if page != wanted:
            print("docs/observability.md is out of step with the metrics; run: python tools/metrics_table.py")
            return 1
        return 0
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
