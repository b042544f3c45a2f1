"""README and docs: what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
MAX_BYTES = 250_000  # of a picture: all of them come with each clone, and with each change of one
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"])


def text(page: Path) -> str:
    """Without blocks of code."""
    return re.sub(r"^```.*?^```|^(?: {4}|\t).*?$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: small letters, blanks as hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in LINK.findall(text(page)):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_pictures_are_told_small_and_opaque():
    shown = set()
    for page in PAGES:
        for alternative, link in IMAGE.findall(text(page)):
            picture = (page.parent / link).resolve()
            assert len(alternative.split()) >= 5, f"{page}: {link} says nothing to those who cannot see it"
            assert picture.stat().st_size <= MAX_BYTES, link
            with Image.open(picture) as opened:
                opened.load()  # the whole file is a picture
                assert not opened.has_transparency_data, f"{link} has no ground of its own on a dark page"
            shown.add(picture)
    assert set(ROOT.glob("docs/pictures/*.png")) == shown


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(text(page))]
        waiting += [target for target in targets if target.suffix == ".md" and target.exists()]
    assert not set(PAGES) - reached


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
