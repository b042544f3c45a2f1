"""The distribution: what its wheel contains, and that its base runs `ccs flow` where nothing else is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import cv2
import pytest
from packaging.requirements import Requirement

from ccs.datasets import demo

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 700  # MB of an environment with the base package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by the backend that pyproject.toml names, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*line, "--wheel-dir", folder, ROOT], check=True, capture_output=True)
    (built,) = folder.glob("ccs_video-*.whl")
    return built


def base(wheel: Path) -> set[metadata.Distribution]:
    """What the wheel asks for without any extra, and what that asks for in turn, as it is installed here."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (each for each in file.namelist() if each.endswith(".dist-info/METADATA"))
        text = file.read(name).decode()
    waiting = [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)]
    found: dict[str, metadata.Distribution] = {}
    while waiting:
        asked = waiting.pop()
        if (asked.marker is None or asked.marker.evaluate({"extra": ""})) and asked.name not in found:
            found[asked.name] = metadata.distribution(asked.name)
            waiting += map(Requirement, found[asked.name].requires or [])
    return set(found.values())


@pytest.fixture(scope="module")
def empty_environment(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and its base alone: links to what is installed here, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    line = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(line, check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for each in base(wheel):
        for top in {file.parts[0] for file in each.files or [] if file.parts[0] != ".."}:
            if top != "__pycache__" and not (site / top).exists():
                (site / top).symlink_to(Path(each.locate_file(top)))
    return folder


def ccs(environment: Path, *arguments: object, **options) -> subprocess.CompletedProcess:
    """As someone without an ffmpeg and without this checkout calls it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    line = [environment / "bin" / "ccs", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env={**clean, "PATH": "/usr/bin:/bin"}, **options)


def test_the_wheel_has_all_of_the_workflow_and_the_package(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name: file.read(name) for name in file.namelist()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    if not listed[0]:
        pytest.skip("not a checkout: git does not tell what belongs to it")
    for path in filter(None, listed):
        if path.startswith("ccs/"):
            assert names.get(path) == (ROOT / path).read_bytes(), path
        elif path.startswith(("workflow/", "profiles/")) or path in ("Snakefile", "config.yaml"):
            assert names.get(f"ccs/checkout/{path}") == (ROOT / path).read_bytes(), path


def test_the_library_loads_what_is_asked_for_alone(empty_environment):
    """Of the base alone: `import ccs` loads no library at all, and flow is computed without PyTorch."""
    code = """
import sys
import ccs
assert {"Clips", "load", "predict", "flow", "CcsError"} <= set(dir(ccs))
print(*sorted({name.split(".")[0] for name in sys.modules} & {"numpy", "cv2", "h5py", "numba", "torch"}))
import numpy as np
print(ccs.flow.estimate(np.zeros((2, 20, 30), np.uint8)).shape, "torch" in sys.modules)
try:
    ccs.predict
except ModuleNotFoundError as error:
    print(error.name)
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    line = [empty_environment / "bin" / "python", "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, env=clean, check=True)
    assert done.stdout.splitlines() == ["", "(1, 2, 20, 30) False", "torch"]


def test_flow_runs_in_an_environment_with_the_base_alone(empty_environment, tmp_path):
    demo.encode(
        demo.render(demo.Recipe("a", "train", "drink", 0), demo.Settings(width=96, height=72, frames=7)),
        tmp_path / "clip.mp4",
        12,
        demo.find_ffmpeg(),
    )
    done = ccs(empty_environment, "flow", "clip.mp4", "-o", "out", "--workers", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "out" / "clip").glob("flow_x_*.jpg"))
    assert len(found) == 6
    assert cv2.imread(str(found[0]), cv2.IMREAD_GRAYSCALE).shape == (72, 96)
    told = ccs(empty_environment, "predict", "clip.mp4", cwd=tmp_path)
    assert told.returncode == 1
    assert told.stderr == (
        "ccs: error: ccs predict needs the package torch, which is not installed: "
        "pip install '.[train]' in a checkout of ccs\n"
    )
    told = ccs(empty_environment, "flow", "clip.mp4", "--output", "h5", "--format", "h5", cwd=tmp_path)
    assert "pip install '.[h5]' in a checkout" in told.stderr
    assert not (tmp_path / "h5").exists()


def test_the_base_is_small(wheel):
    """Of an environment with nothing else; pip and Python are the user's own."""
    size = sum(
        file.locate().stat().st_size for each in base(wheel) for file in each.files or [] if file.locate().exists()
    )
    assert size / 2**20 < LIMIT
    names = {each.metadata["Name"].lower() for each in base(wheel)}
    assert not names & {"torch", "torchvision", "snakemake", "pandas", "matplotlib"}


def test_the_workflow_runs_from_the_wheel(wheel, tmp_path):
    """As `ccs run` of someone who has no checkout: a dry run of the demo."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.yaml").write_bytes((tmp_path / "site/ccs/checkout/config.yaml").read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    line = [sys.executable, "-m", "ccs", "run", "--dry-run", "--", "results/table1.csv"]
    done = subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^train +6  ", done.stdout, re.MULTILINE)
