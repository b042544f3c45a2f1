"""Shared by the trial's programs and by pack."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
# for a trial of the trial, where kernels run on a CPU: small frames, few pairs, few iterations
SMALL = bool(os.environ.get("CCS_TRIAL_SMALL"))
SIZE = (36, 28) if SMALL else (340, 256)
FEW = {"scales": 2, "warps": 1, "inner_iterations": 4, "outer_iterations": 1} if SMALL else {}
MEMORY = (8 << 20) if SMALL else (4 << 30)  # bytes of the device for arrays; 4 GiB is what users get
BOUND = 0.5 if SMALL else 20  # px, of flow in 8 bits; some is clipped


def grey_frames(path, count, size):
    """The first frames (T, H, W), scaled to `size` (width, height) or as they are; as benchmarks/flow.py has them."""
    video, frames = cv2.VideoCapture(str(path)), []
    while len(frames) < count and (read := video.read())[0]:
        grey = cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)
        frames.append(cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if size else grey)
    return np.stack(frames)


def clip_paths():
    return sorted((HERE / "data" / "videos").rglob("*.avi"))


def digest(array):
    """Of an array's bytes, short."""
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def say(**row):
    """A line of results, and in $OUT."""
    text = json.dumps(row)
    print(text, flush=True)
    if out := os.environ.get("OUT"):
        with open(Path(out) / "results.jsonl", "a") as file:
            file.write(text + "\n")


def engine():
    """ccs.flow.gpu; the end of the program where it cannot be used."""
    from ccs.flow import gpu

    if reason := gpu.available():
        sys.exit(f"native-cuda cannot be used: {reason}")
    return gpu
