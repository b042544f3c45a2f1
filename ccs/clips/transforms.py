"""Crops, flips and resizing of one video's snippets: the same crop for every frame and for both streams.

Arrays are uint8; images (n, H, W, C) last, as OpenCV has them. Flow keeps 128 as zero.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import cv2
import numpy as np

from ccs.clips.settings import ClipSettings

cv2.setNumThreads(1)  # a clip is small and there is a process per core: OpenCV's own threads only get in the way


# of a crop in fourths of the room there is: corners, centre, edge centres, quarter points
_PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3))


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
    sizes = _crop_sizes(min(height, width), scales)
    h, w = sizes[rng.integers(len(sizes))]
    step_y, step_x = (height - h) / 4, (width - w) / 4
    y, x = _PLACES[rng.integers(len(_PLACES))]
    return Crop(int(y * step_y), int(x * step_x), h, w, flip and bool(rng.integers(2)))


@functools.lru_cache
def _crop_sizes(short_side: int, scales: tuple[float, ...]) -> list[tuple[int, int]]:
    sides = [round(short_side * scale) for scale in scales]
    return [(h, w) for (i, h), (j, w) in itertools.product(enumerate(sides), repeat=2) if abs(i - j) <= 1]


def test_crops(height: int, width: int, settings: ClipSettings, *, crops: int) -> list[Crop]:
    """The centre crop (`crops` 1), or four corners and the centre, each also mirrored (10), of short side * test_scale.

    A side within 1 % of the network's input_size is that: 0.93 of 240 is meant to be 224, and nothing is resized.
    Without `flip`, where left and right are labels, a mirrored clip is one of another class: 10 are then the five.
    """
    short_side, size = min(height, width), settings.input_size
    side = round(short_side * settings.test_scale)
    if abs(side - size) <= size / 100 and size <= short_side:
        side = size
    y, x = height - side, width - side
    centre = (y // 2, x // 2)
    if crops == 1:
        return [Crop(*centre, side, side)]
    places = [(0, 0), (0, x), (y, 0), (y, x), centre]
    return [
        Crop(top, left, side, side, mirrored) for mirrored in (False, True)[: 1 + settings.flip] for top, left in places
    ]


def apply_rgb(frames: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Crop, flip and resize RGB frames (n, H, W, 3) to (n, 3, size, size)."""
    out = np.empty((len(frames), 3, size, size), np.uint8)
    for frame, planes in zip(frames, out, strict=True):
        cut = _cut(frame, crop)
        if cut.shape[:2] != (size, size):
            cut = cv2.resize(cut, (size, size), interpolation=cv2.INTER_LINEAR)
        cv2.split(cut, list(planes))
    return out


def apply_flow(flow: np.ndarray, crop: Crop, size: int, *, flow_length: int = 5) -> np.ndarray:
    """Crop, flip and resize flow (..., 2, H, W), x and y, 128 = zero, to (..., 2, size, size).

    A mirrored scene moves the other way: flipping also inverts x (v -> 256 - v; v is in 1..255).
    `flow_length` is L, the pairs of a snippet, by which a crop that is exactly halved has always been rounded.
    """
    # OpenCV halves 1, 3 or 4 channels rounding up, others rounding to even; a snippet's stack has 2 L
    to_even = (crop.height, crop.width) == (2 * size, 2 * size) and flow_length != 2
    out = np.empty((*flow.shape[:-2], size, size), np.uint8)
    for pair, targets in zip(flow.reshape(-1, *flow.shape[-3:]), out.reshape(-1, 2, size, size), strict=True):
        cuts = [_cut(plane, crop) for plane in pair]
        if to_even:
            cv2.split(cv2.resize(cv2.merge(cuts), (size, size), interpolation=cv2.INTER_LINEAR), list(targets))
            continue
        for cut, target in zip(cuts, targets, strict=True):  # as channels of one image they take several times as long
            if cut.shape == (size, size):
                np.copyto(target, cut)
            else:
                cv2.resize(cut, (size, size), target, interpolation=cv2.INTER_LINEAR)
    if crop.flip:
        x = out[..., 0, :, :]
        np.negative(x, out=x)  # modulo 256
    return out


def _cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    cut = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return cv2.flip(cut, 1) if crop.flip else cut
