"""The demo's backgrounds: textures of walls and views, larger than the frame, so that the camera can wander on them.

In: a `Place` (family, colours and a texture seed). Out: an RGB image (H, W, 3) uint8.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ccs.datasets.demo_drawing import Colour, mix, shade

FAMILIES = {
    "train": ("bricks", "planks", "wallpaper", "park"),
    "test": ("tiles", "shelves", "plaster", "windows"),
}


class Place(NamedTuple):
    """Where a figure acts: the family of texture, three muted colours, its grain (texture units in the frame's
    height) and the seed of its irregularities.
    """

    family: str
    wall: Colour
    second: Colour
    floor: Colour
    grain: float
    seed: int


def texture(place: Place, height: int, width: int, floor: float | None) -> np.ndarray:
    """Paint a wall (H, W, 3) uint8 with a floor below `floor` (share of the height; None for no floor)."""
    rng = np.random.default_rng(place.seed)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = place.wall
    _PAINTERS[place.family](image, place, rng)
    if floor is not None:
        _floor(image, place, rng, round(floor * height))
    cloud = _noise(rng, height, width, 5)[..., None]
    image = image * (1 + 0.07 * cloud)
    # a lens focused on the figure: the wall is a little soft
    return cv2.GaussianBlur(np.clip(image, 0, 255).astype(np.uint8), (0, 0), 0.003 * height)


def _noise(rng: np.random.Generator, height: int, width: int, octaves: int) -> np.ndarray:
    """Smooth noise (H, W) in about -1..1, the sum of octaves of halving size and weight."""
    total = np.zeros((height, width), np.float32)
    for k in range(octaves):
        cells = rng.uniform(-1, 1, (3 * 2**k, 4 * 2**k)).astype(np.float32)
        total += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) * 0.62**k
    return total


def _rectangle(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    cv2.rectangle(image, (round(x0), round(y0)), (round(x1) - 1, round(y1) - 1), colour, -1)


def _blocks(image: np.ndarray, place: Place, rng: np.random.Generator, aspect: float, bond: bool) -> None:
    """Rows of blocks with joints between them, each of its own tone; `bond` offsets every other row."""
    height, width = image.shape[:2]
    high = height / place.grain
    wide = high * aspect
    joint = max(1.0, 0.1 * high)
    for row in range(int(height / high) + 1):
        offset = wide / 2 if bond and row % 2 else 0.0
        for column in range(-1, int(width / wide) + 1):
            tone = mix(place.second, place.wall, rng.uniform(0, 0.45))
            x, y = column * wide + offset, row * high
            _rectangle(image, x, y, x + wide - joint, y + high - joint, shade(tone, rng.uniform(0.92, 1.06)))


def _bricks(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    _blocks(image, place, rng, 2.3, True)


def _tiles(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    _blocks(image, place, rng, 1.0, False)


def _planks(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    wide = height / place.grain * 1.2
    for column in range(int(width / wide) + 1):
        tone = shade(mix(place.wall, place.second, rng.uniform(0, 0.7)), rng.uniform(0.93, 1.06))
        x = column * wide
        _rectangle(image, x, 0, x + wide, height, tone)
        for _ in range(5):
            at, sway = x + rng.uniform(0.1, 0.9) * wide, rng.uniform(-0.12, 0.12) * wide
            ys = np.linspace(0, height, 12)
            line = np.stack([at + sway * np.sin(ys / height * rng.uniform(4, 11)), ys], 1).astype(np.int32)
            cv2.polylines(image, [line], False, shade(tone, 0.88), 1, cv2.LINE_AA)
        _rectangle(image, x, 0, x + max(1, 0.05 * wide), height, shade(tone, 0.7))


def _wallpaper(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    step = height / place.grain * 1.6
    kind = rng.integers(3)
    for column in range(int(width / step) + 2):
        if kind != 2:
            _rectangle(image, column * step, 0, (column + 0.5) * step, height, mix(place.wall, place.second, 0.55))
        for row in range(int(height / step) + 2):
            centre = (round((column + 0.25) * step), round((row + 0.5 * (column % 2)) * step))
            axes = (round(0.16 * step), round((0.16 if kind == 1 else 0.3) * step))
            cv2.ellipse(image, centre, axes, 0, 0, 360, mix(place.second, place.wall, 0.2), -1, cv2.LINE_AA)


def _park(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    sky, leaf = mix(place.wall, (205, 222, 235), 0.6), mix(place.second, (88, 122, 76), 0.65)
    image[:] = sky
    for depth in range(3):
        ridge = height * (0.3 + 0.17 * depth) + height * 0.14 * _noise(rng, 1, width, 4)[0]
        outline = np.concatenate([np.stack([np.arange(width), ridge], 1), [[width, height], [0, height]]])
        cv2.fillPoly(image, [outline.astype(np.int32)], shade(mix(leaf, sky, 0.5 - 0.22 * depth), 1.0))
    for _ in range(4):
        x, size = rng.uniform(0, width), rng.uniform(0.1, 0.2) * height
        _rectangle(image, x - 0.02 * height, height * 0.3, x + 0.02 * height, height, (112, 92, 74))
        for _ in range(9):
            at = (round(x + rng.uniform(-0.9, 0.9) * size), round(height * 0.26 + rng.uniform(-0.9, 0.9) * size))
            cv2.circle(
                image, at, round(size * rng.uniform(0.3, 0.6)), shade(leaf, rng.uniform(0.8, 1.1)), -1, cv2.LINE_AA
            )


def _shelves(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    high = height / place.grain * 2.2
    image[:] = shade(place.wall, 0.62)
    for row in range(int(height / high) + 1):
        bottom, x = (row + 1) * high, 0.0
        while x < width:
            wide, tall = high * rng.uniform(0.12, 0.24), high * rng.uniform(0.6, 0.84)
            tone = mix(mix(place.second, place.floor, rng.uniform(0, 1)), place.wall, rng.uniform(0.1, 0.7))
            if rng.uniform() > 0.07:
                _rectangle(image, x, bottom - tall, x + wide, bottom, shade(tone, rng.uniform(0.8, 1.1)))
                _rectangle(image, x, bottom - 0.8 * tall, x + wide, bottom - 0.7 * tall, shade(tone, 0.7))
            x += wide
        _rectangle(image, 0, bottom - 0.1 * high, width, bottom, shade(place.wall, 1.05))


def _plaster(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    share = np.clip(0.5 + 0.9 * _noise(rng, height, width, 6), 0, 1)[..., None]
    image[:] = np.array(place.wall) * (1 - share) + np.array(place.second) * share


def _windows(image: np.ndarray, place: Place, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    step = height / place.grain * 2.0
    for column in range(int(width / (1.2 * step)) + 1):
        for row in range(int(height / step) + 1):
            x, y = (column + 0.2) * 1.2 * step, (row + 0.2) * step
            glass = mix((150, 172, 190), place.second, rng.uniform(0.2, 0.8))
            _rectangle(
                image, x - 0.08 * step, y - 0.08 * step, x + 0.72 * step, y + 0.72 * step, shade(place.wall, 1.12)
            )
            _rectangle(image, x, y, x + 0.64 * step, y + 0.64 * step, shade(glass, rng.uniform(0.75, 1.05)))
            _rectangle(image, x + 0.29 * step, y, x + 0.35 * step, y + 0.64 * step, shade(place.wall, 1.12))


def _floor(image: np.ndarray, place: Place, rng: np.random.Generator, top: int) -> None:
    height, width = image.shape[:2]
    depth = height - top
    for row in range(depth):
        image[top + row] = shade(place.floor, 0.82 + 0.25 * row / depth)
    middle = width / 2
    for k in range(-14, 15):  # boards that run towards the vanishing point
        ends = (round(middle + k * 0.12 * width), top), (round(middle + k * 0.26 * width), height)
        cv2.line(image, *ends, shade(place.floor, 0.78), 1, cv2.LINE_AA)
    board = max(2, round(0.028 * height))
    _rectangle(image, 0, top - board, width, top, shade(place.wall, 0.72 if rng.uniform() < 0.5 else 1.12))


_PAINTERS = {
    "bricks": _bricks,
    "planks": _planks,
    "wallpaper": _wallpaper,
    "park": _park,
    "tiles": _tiles,
    "shelves": _shelves,
    "plaster": _plaster,
    "windows": _windows,
}
