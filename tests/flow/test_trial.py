"""The trial kit of benchmarks/gpu where there is no GPU: packed, and every part of it that needs only CUDA is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = "^(parity|versions|small|speed: (host|threads|flow|sizes|CPU).*)$"
FIGURES = {
    "host to host",
    "threads",
    "empty round",
    "flow stage",
    "flow stage, but for its start",
    "CPU engine, one core",
}


def write_clip(path: Path, num_frames: int, shift: int) -> None:
    """A texture that moves by `shift` px a frame, 40x32."""
    texture = cv2.GaussianBlur(np.random.default_rng(shift).integers(0, 256, (48, 80, 3), np.uint8), (0, 0), 1.5)
    path.parent.mkdir(parents=True)
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (40, 32))
    assert film.isOpened()
    for t in range(num_frames):
        film.write(np.ascontiguousarray(texture[8:40, 4 + shift * t : 44 + shift * t]))
    film.release()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What is copied to a machine with a GPU, as `pack` leaves it; of two small clips."""
    folder = tmp_path_factory.mktemp("trial")
    for number, name in enumerate(("left", "right"), 1):
        write_clip(folder / "data" / "ucf101" / "videos" / name / f"{name}.avi", 4, number)
    repo = folder / "repo"
    repo.mkdir()
    for name in ("ccs", "benchmarks", "tests", "pyproject.toml"):
        (repo / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    line = [sys.executable, str(ROOT / "benchmarks/gpu/pack"), str(repo), "--data", str(folder / "data"), "--no-wheels"]
    packed = subprocess.run(line, env=os.environ | {"CCS_TRIAL_SMALL": "1"}, capture_output=True, text=True)
    assert packed.returncode == 0, packed.stdout + packed.stderr
    return repo


@pytest.mark.slow
def test_every_part_runs(checkout, cuda_on_cpu, tmp_path):
    environment = {"CCS_TRIAL_SMALL": "1", "OUT": str(tmp_path), "PYTHON": sys.executable, "PYTHONWARNINGS": "default"}
    line = ["bash", ".gpu/trial", "300", STEPS]
    done = subprocess.run(
        line, cwd=checkout, env=os.environ | cuda_on_cpu | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text()
    states = [row.split()[0] for row in (tmp_path / "summary.txt").read_text().splitlines()]
    assert states == ["ok"] * 8, done.stdout
    rows = [json.loads(row) for row in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {row["figure"] for row in rows if row["step"] == "speed"} == FIGURES
    assert all(row["pairs_per_s"] > 0 and row["device_mib"] > 0 for row in rows if row.get("figure") == "host to host")
    (checks,) = [row for row in rows if row["step"] == "parity" and "repeatable" in row]
    assert checks["pairs"] == 8
    for row in rows:
        if row["step"] == "parity" and "size" in row:
            assert row["identical_to_cpu"] == row["pairs"] == 4
    assert {row["kernel"] for row in rows if row["step"] == "kernel"} >= {"iterate", "warp", "median", "schedule"}
    assert [row["window"] for row in rows if row["step"] == "small"] == [5, 3, 1]
    assert next(row for row in rows if row["step"] == "imports")["failing"] == {}
