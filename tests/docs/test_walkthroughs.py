"""Every command of the README and the guides, typed into a real shell against real processes, shows what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import walkthrough  # noqa: E402

PAGES = ["README.md", "docs/tutorial.md", "docs/command-line.md", "docs/operations.md"]


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="a terminal as Linux has it, and bash")
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_shows_what_the_page_says(page: str, tmp_path: Path) -> None:
    walkthrough.walk(ROOT / page, tmp_path)


def test_a_page_that_says_something_else_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for shown in ("revision 1", "one line\nmore", "number 7 of 3", ""):
        page.write_text(f"```console\n$ printf 'revision 2\\n'\n{shown}\n```\n")
        directory = tmp_path / str(abs(hash(shown)))
        directory.mkdir()
        with pytest.raises(walkthrough.Mismatch, match=r"page\.md, line 2: \$ printf"):
            walkthrough.walk(page, directory)


def test_what_may_differ_may_and_nothing_else() -> None:
    def agrees(shown: str, found: str) -> bool:
        return walkthrough.agrees(shown.splitlines(), found.splitlines())

    assert agrees("*  n1  leader  127.0.0.1:7401  3  18", "* n1    leader 127.0.0.1:7401    12 1,234")
    assert not agrees("*  n1  leader  127.0.0.1:7401  3", "*  n2  leader  127.0.0.1:7401  3")
    assert not agrees("*  n1  leader  127.0.0.1:7401  3", "*  n1  leader  127.0.0.1:7402  3")
    assert agrees("cluster 8adf9429c750b23b  term 3", "cluster 0000000000000000  term 4")
    assert agrees("members  ...\n...\nlast", "members  n1\nmore\nlast")
    assert not agrees("revision 3", "revision 4")
    assert not agrees("3", "4")


def test_every_link_of_a_page_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target, fragment in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
            other = (page.parent / target) if target else page
            assert other.exists(), f"{page.name} links to {target}, which is not there"
            if fragment and other.suffix == ".md":
                assert fragment in anchors(other), f"{page.name} links to {target}#{fragment}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_that_a_page_names_exists() -> None:
    roots = [ROOT, *(ROOT / "lattice_core").iterdir(), ROOT / "lattice_core", ROOT / "lattice_cli"]
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`([\w/.-]+\.(?:py|proto))`", page.read_text()):
            assert any((root / name).exists() for root in roots), f"{page.name} names {name}, which is not there"
