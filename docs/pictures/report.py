"""The report as it opens, by Chromium without a window."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import files
from PIL import Image

WIDTH, HEIGHT = 1280, 800  # of the picture
WINDOW = 1000  # high, as a part of it is the browser's own


def draw(project: Path) -> None:
    """Write report.png, or say why not."""
    page = project.resolve() / "results/report.html"
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not page.is_file() or browser is None:
        print(f"report.png stays as it is: {'no Chromium here' if page.is_file() else f'no {page}'}")
        return
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "report.png")
        flags = ["headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking"]
        flags += [f"window-size={WIDTH},{WINDOW}", "virtual-time-budget=15000", f"user-data-dir={folder}/profile"]
        command = [browser, *(f"--{flag}" for flag in flags), f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        files.write(Image.open(picture).crop((0, 0, WIDTH, HEIGHT)), "report.png")
