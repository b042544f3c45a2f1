"""Build the pages as a site: `python docs/site.py [FOLDER]`, then open FOLDER/index.html (site/index.html).

The README and all that it leads to, pages and files of the checkout alike, are laid out as they are here and given to
Zensical (docs/zensical.toml), so that a link that leads somewhere on GitHub leads there in the site too. A folder that
is there is replaced where it is empty or holds a site of ours and nothing else; any other is left as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
WRITTEN = ".written-by-ccs"  # in a site: its files, a line each


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


def files_in(folder: Path) -> set[str]:
    """All that is below, but for folders that hold something."""
    found = {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())}
    return {path.relative_to(folder).as_posix() for path in found}


def check_replaceable(folder: Path) -> None:
    """End, with nothing done, where something would go that is not of a site of ours."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        sys.exit(f"{folder}: expected a folder, or nothing yet: name another")
    written = folder / WRITTEN
    known = set(written.read_text(encoding="utf-8").splitlines()) if written.is_file() else set()
    if others := sorted(files_in(folder) - known - {WRITTEN}):
        sys.exit(
            f"{folder}: expected an empty folder, a site that this has written, or nothing yet; found {others[0]}"
            f"{f' and {len(others) - 1} more' if others[1:] else ''}: name another folder, or remove this one"
        )


def main(folder: Path) -> None:
    """Write the site into `folder`, in place of a former one."""
    check_replaceable(folder)
    if importlib.util.find_spec("zensical") is None:
        sys.exit("the site is built by zensical, which is not installed: `make docs` brings it")
    with tempfile.TemporaryDirectory() as place:
        for page in reached():
            copy = Path(place, "pages", page.relative_to(ROOT))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, copy)
        shutil.copy(ROOT / "docs" / "zensical.toml", place)
        # strict: a link or an anchor that leads nowhere ends it
        built = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=place, check=False)
        if built.returncode:
            sys.exit("no site was written: see above")
        site = Path(place, "site")
        (site / WRITTEN).write_text("".join(f"{name}\n" for name in sorted(files_in(site))), encoding="utf-8")
        check_replaceable(folder)
        if folder.exists():
            shutil.rmtree(folder)
        shutil.move(site, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the pages as a site.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", default=ROOT / "site", help="default: site/")
    main(parser.parse_args().folder.absolute())
