"""Crops, flips and resizing of one video's snippets: the same crop for every frame and for both streams.

Arrays are uint8; images (n, H, W, C) last, as OpenCV has them. Flow keeps 128 as zero.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import cv2
import numpy as np

cv2.setNumThreads(1)  # a clip is small and there is a process per core: OpenCV's own threads only get in the way


class Crop(NamedTuple):
    """A rectangle in pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def random_crop(height: int, width: int, *, scales: tuple[float, ...], flip: bool, rng: np.random.Generator) -> Crop:
    """TSN's multi-scale corner crop: sides from short side * scales, at most one scale apart, at one of 13 places.

    The places are corners, centre, edge centres and quarter points (Wang et al., "Towards Good Practices", 2015). With
    `flip`, half of the crops are mirrored.
    """
    sides = [round(min(height, width) * scale) for scale in scales]
    pairs = [(h, w) for (i, h), (j, w) in itertools.product(enumerate(sides), repeat=2) if abs(i - j) <= 1]
    h, w = pairs[rng.integers(len(pairs))]
    step_y, step_x = (height - h) / 4, (width - w) / 4
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)]
    y, x = places[rng.integers(len(places))]
    return Crop(int(y * step_y), int(x * step_x), h, w, flip and bool(rng.integers(2)))


def test_crops(height: int, width: int, *, scale: float, crops: int) -> list[Crop]:
    """The centre crop (`crops` 1), or four corners and the centre, each also mirrored (10), of short side * `scale`."""
    side = round(min(height, width) * scale)
    y, x = height - side, width - side
    centre = (y // 2, x // 2)
    if crops == 1:
        return [Crop(*centre, side, side)]
    places = [(0, 0), (0, x), (y, 0), (y, x), centre]
    return [Crop(top, left, side, side, flip) for flip in (False, True) for top, left in places]


test_crops.__test__ = False  # not a test, whatever pytest makes of its name


def apply_rgb(frames: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Crop, flip and resize RGB frames (n, H, W, 3) to (n, 3, size, size)."""
    cut = _cut(frames, crop)
    return np.stack([_resize(frame, size) for frame in cut]).transpose(0, 3, 1, 2)


def apply_flow(flow: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Crop, flip and resize flow stacks (n, L, 2, H, W), x and y, 128 = zero, to (n, L, 2, size, size).

    A mirrored scene moves the other way: flipping also inverts x (v -> 256 - v; v is in 1..255).
    """
    n, length = flow.shape[:2]
    stacks = _cut(flow.reshape(n, 2 * length, *flow.shape[3:]).transpose(0, 2, 3, 1), crop)
    out = np.stack([_resize(stack, size) for stack in stacks]).transpose(0, 3, 1, 2)
    if crop.flip:
        out[:, 0::2] = np.minimum(256 - out[:, 0::2].astype(np.int16), 255)
    return out.reshape(n, length, 2, size, size)


def _cut(images: np.ndarray, crop: Crop) -> np.ndarray:
    cut = images[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return cut[:, :, ::-1] if crop.flip else cut


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    return cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=cv2.INTER_LINEAR)
