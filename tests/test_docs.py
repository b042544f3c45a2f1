"""README and docs: what they point to is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
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


def test_every_page_is_in_the_menu_of_the_site():
    menu = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(re.findall(r"[\w/]+\.md", str(menu))) == sorted(str(page.relative_to(ROOT)) for page in PAGES)


STRUCTURE = ("h1", "h2", "h3", "p", "li", "table", "tr", "pre", "code", "strong", "em", "img")


def test_the_site_has_every_page_as_it_reads_on_github(tmp_path):
    """By another reader of Markdown, of GitHub's kind: the site's own takes, say, a list in a paragraph for text."""
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "site.py", tmp_path / "site"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr  # strict: links and anchors are checked
    github = MarkdownIt("gfm-like", {"linkify": False})
    for page in PAGES:
        shown = tmp_path / "site" / page.relative_to(ROOT).with_suffix(".html")
        if page.name == "README.md":
            shown = shown.with_name("index.html")
        article = re.search(r"<article[^>]*>(.*)</article>", shown.read_text(), re.DOTALL)[1]
        as_on_github = github.render(page.read_text())
        for tag in STRUCTURE:
            wanted, found = (len(re.findall(rf"<{tag}[ >]", html)) for html in (as_on_github, article))
            assert found == wanted, f"{page.name}: {found} {tag} in the site, {wanted} on GitHub"
        elsewhere = re.findall(r'(?:src|<link[^>]*href)="?(https?:[^" >]*)', shown.read_text())
        assert not elsewhere, "the site fetches from elsewhere"

    written = tmp_path / "site" / "index.html"
    made_again = [sys.executable, ROOT / "docs" / "site.py", "site"]  # in the place of the former one
    written.write_text("an older one")
    subprocess.run(made_again, check=True, capture_output=True, cwd=tmp_path)
    assert len(written.read_text()) > 1000
    note = tmp_path / "site" / "docs" / "note.txt"
    note.write_text("of somebody")
    refused = subprocess.run(made_again, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 1
    assert "found docs/note.txt" in refused.stderr
    assert note.read_text() == "of somebody"


def test_the_site_replaces_no_folder_of_another_kind(tmp_path):
    work = tmp_path / "thesis" / "chapter" / "one.tex"
    work.parent.mkdir(parents=True)
    work.write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for folder in ("thesis", "link", "thesis/chapter/one.tex", "."):
        made = subprocess.run(
            [sys.executable, ROOT / "docs" / "site.py", folder],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert made.returncode == 1
        assert "expected" in made.stderr
        assert "Traceback" not in made.stderr
        assert work.read_text() == "years of work"
