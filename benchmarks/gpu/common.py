"""Shared by the trial's programs and by pack."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
SIZE = (340, 256)


def grey_frames(path, count, size):
    """The first frames (T, H, W), scaled to `size` (width, height); as benchmarks/flow.py has them."""
    video, frames = cv2.VideoCapture(str(path)), []
    while len(frames) < count and (read := video.read())[0]:
        grey = cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)
        frames.append(cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if size else grey)
    return np.stack(frames)


def clip_paths():
    return sorted((HERE / "data" / "videos").rglob("*.avi"))


def say(**row):
    """A line of results, and in $OUT."""
    text = json.dumps(row)
    print(text, flush=True)
    if out := os.environ.get("OUT"):
        with open(Path(out) / "results.jsonl", "a") as file:
            file.write(text + "\n")


def engine(backend="native-cuda"):
    """(module, backend's name); the simulator's tile and steps are small where CCS_TRIAL_SIMULATED is set."""
    from ccs.flow import gpu

    if os.environ.get("CCS_TRIAL_SIMULATED"):
        from ccs.flow import gpu_kernels

        gpu._tile = gpu_kernels.Tile(width=16, strips=2, rows=10, group=3)
        gpu.STEPS_PER_LOOK = 4
    elif reason := gpu.available():
        sys.exit(f"native-cuda cannot be used: {reason}")
    return gpu
