"""The locked environment: exact, hashed, without addresses, and one owner of `cv2`."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "envs" / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\;]+)", LOCK, re.MULTILINE))


def test_every_package_asked_for_is_locked_with_hashes_and_no_address():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = asked["project"], asked["dependency-groups"]
    asked = project["dependencies"] + project["optional-dependencies"]["gpu"] + groups["dev"]
    assert {re.match(r"[A-Za-z0-9_.-]+", each).group() for each in asked} <= LOCKED.keys()
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert "index" not in LOCK.lower()
    assert LOCKED["torch"] != "2.13.0"


def test_every_dependency_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    for section in ("\ndependencies", "\ngpu", "\ndev"):
        lines = text.split(f"{section} = [\n")[1].split("\n]")[0].splitlines()
        assert lines
        assert all(re.search(r'",\s+# \S', line) for line in lines)


def test_one_package_owns_cv2():
    assert packages_distributions()["cv2"] == ["opencv-contrib-python-headless"]
    assert [name for name in LOCKED if name.startswith("opencv")] == ["opencv-contrib-python-headless"]


def test_the_conda_environment_is_that_of_the_lock():
    conda = runpy.run_path(str(ROOT / "envs" / "conda.py"))
    assert (ROOT / "envs" / "ccs.yaml").read_text() == conda["conda_environment"]()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("home", [None, "/nonexistent", "."])
def test_make_gives_snakemake_a_home_that_can_be_written(home, tmp_path):
    """Where there is one it stays."""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    if home:
        environment["HOME"] = str(tmp_path / home)
    command = ["make", "--no-print-directory", "--eval", "show: ; @echo $$HOME", "show"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (str(tmp_path) if home == "." else str(ROOT / ".snakemake"))


def test_figures_need_no_home():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "MPL"))}
    command = [sys.executable, "-c", "import ccs.figures.style"]
    environment |= {"HOME": "/dev/null/none", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
