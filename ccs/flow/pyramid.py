"""Pyramids of frames as `cv2.optflow.DualTVL1OpticalFlow` makes them, for the engines of our own."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from ccs.flow.settings import Parameters

MIN_LEVEL_SIDE = 16  # OpenCV makes no smaller level


def level_sizes(height: int, width: int, parameters: Parameters) -> list[tuple[int, int]]:
    """(height, width) of the pyramid's levels, the finest first, as OpenCV makes them."""
    sizes = [(height, width)]
    while len(sizes) < parameters.scales:
        height, width = (int(np.rint(side * parameters.scale_step)) for side in sizes[-1])
        if min(height, width) < MIN_LEVEL_SIDE:
            break
        sizes.append((height, width))
    return sizes


def pyramid(frame: np.ndarray, num_levels: int, scale_step: float) -> Iterator[np.ndarray]:
    """Yield the float32 levels of a frame, the finest first, each resized from the one before as OpenCV does."""
    level = frame.astype(np.float32)
    yield level
    for _ in range(num_levels - 1):
        level = cv2.resize(level, None, fx=scale_step, fy=scale_step, interpolation=cv2.INTER_LINEAR)
        yield level
