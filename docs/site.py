"""Build the pages as a site: `python docs/site.py [FOLDER]`, then open FOLDER/index.html (site/index.html).

The README and all that it leads to, pages and files of the checkout alike, are laid out as they are here and given to
Zensical (docs/zensical.toml), so that a link that leads somewhere on GitHub leads there in the site too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")


def reached() -> set[Path]:
    """The README and the files that links lead to from it, however far."""
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in found or not page.is_file():
            continue
        found.add(page)
        if page.suffix == ".md":
            links = [link for link in LINK.findall(page.read_text()) if not link.startswith(("http:", "https:"))]
            waiting += [(page.parent / link).resolve() for link in links]
    return found


def main(folder: Path) -> None:
    """Write the site into `folder`, in place of what was there."""
    with tempfile.TemporaryDirectory() as place:
        for page in reached():
            copy = Path(place, "pages", page.relative_to(ROOT))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, copy)
        shutil.copy(ROOT / "docs" / "zensical.toml", place)
        # strict: a link or an anchor that leads nowhere ends it
        subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=place, check=True)
        if folder.exists():
            shutil.rmtree(folder)
        shutil.move(Path(place, "site"), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").absolute())
