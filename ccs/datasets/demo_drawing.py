"""What the demo draws with: colours, points, and a canvas that takes shapes in units of the scene.

In: shapes from `demo_figures` and `demo_things`. Out: pixels. Nothing here is random.
Scene units: 1 is the height of the frame, x = 0 its middle, y = 0 its top edge; angles in radians.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]
Disc = tuple[float, float, float]  # x, y, radius

_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24, False)), np.sin(np.linspace(0, 2 * np.pi, 24, False))], 1)
_FRACTION_BITS = 4
OUTLINE = 0.007


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor below 1) or lighter (above 1)."""
    red, green, blue = (int(min(255, max(0, channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` (0..1) of `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def toward(start: Point, angle: float, length: float) -> Point:
    """The point `length` from `start`; angle 0 points along x, pi/2 down."""
    return start[0] + length * float(np.cos(angle)), start[1] + length * float(np.sin(angle))


class Canvas:
    """An RGB image (H, W, 3) uint8 that takes shapes in figure units.

    A figure unit is `zoom` scene units; the figure's origin lies at `origin` in the scene; `mirror` -1 turns the
    figure to the left. `light` in -1..1 is the side that the light comes from.
    """

    def __init__(self, image: np.ndarray, origin: Point, zoom: float, mirror: int, light: float):
        self.image = image
        height, width = image.shape[:2]
        self._scale = np.array([mirror * zoom * height, zoom * height])
        self._shift = np.array([width / 2 + origin[0] * height, origin[1] * height])
        self._light = np.array([light * mirror * 0.25, -0.18])

    def _pixels(self, points: Sequence[Point] | np.ndarray) -> np.ndarray:
        scaled = np.asarray(points, np.float64) * self._scale + self._shift
        return np.round(scaled * (1 << _FRACTION_BITS)).astype(np.int32)

    def polygon(self, points: Sequence[Point] | np.ndarray, colour: Colour) -> None:
        """Fill a polygon."""
        cv2.fillPoly(self.image, [self._pixels(points)], colour, cv2.LINE_AA, _FRACTION_BITS)

    def shadow(self, x: float, reach: float) -> None:
        """Darken the floor (y = 0) from x - reach to x + reach."""
        mask = np.zeros(self.image.shape[:2], np.uint8)
        floor = self._pixels(oval((x, 0.005), reach, 0.035))
        cv2.fillPoly(mask, [floor], 1, cv2.LINE_AA, _FRACTION_BITS)
        self.image[mask > 0] = (self.image[mask > 0] * 0.68).astype(np.uint8)

    def line(self, points: Sequence[Point] | np.ndarray, colour: Colour, width: float) -> None:
        """Draw an open line of the stated width."""
        thickness = max(1, round(width * abs(self._scale[1])))
        cv2.polylines(self.image, [self._pixels(points)], False, colour, thickness, cv2.LINE_AA, _FRACTION_BITS)

    def spot(self, disc: Disc, colour: Colour) -> None:
        """Fill a circle without an outline."""
        self.polygon(hull([disc]), colour)

    def solid(self, parts: Sequence[Sequence[Disc]], colour: Colour, outline: bool = True) -> None:
        """Draw one body of several parts, each the hull of its discs, outlined together and lit from one side."""
        if outline:
            for discs in parts:
                self.polygon(hull(discs, grow=OUTLINE), shade(colour, 0.35))
        for discs in parts:
            self.polygon(hull(discs), shade(colour, 0.76))
        for discs in parts:
            lit = [(x + self._light[0] * r, y + self._light[1] * r, 0.78 * r) for x, y, r in discs]
            self.polygon(hull(lit), colour)

    def chain(self, joints: Sequence[Disc], colour: Colour, outline: bool = True) -> None:
        """Draw a limb: tapering capsules from joint to joint."""
        self.solid([joints[i : i + 2] for i in range(len(joints) - 1)], colour, outline)

    def printed(self, discs: Sequence[Disc], shapes: Sequence[np.ndarray], colour: Colour, strength: float) -> None:
        """Print polygons of `colour` onto the hull of `discs`, and nowhere else."""
        outer = self._pixels(hull(discs))
        (left, top), (right, bottom) = outer.min(0) >> _FRACTION_BITS, (outer.max(0) >> _FRACTION_BITS) + 2
        height, width = self.image.shape[:2]
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if left >= right or top >= bottom:
            return
        offset = np.array([left, top]) << _FRACTION_BITS
        masks = np.zeros((2, bottom - top, right - left), np.uint8)
        cv2.fillPoly(masks[0], [(outer - offset).astype(np.int32)], 255, cv2.LINE_AA, _FRACTION_BITS)
        for shape in shapes:
            points = (self._pixels(shape) - offset).astype(np.int32)
            cv2.fillPoly(masks[1], [points], 255, cv2.LINE_AA, _FRACTION_BITS)
        alpha = (masks[0] / 255.0 * masks[1] / 255.0 * strength)[..., None]
        region = self.image[top:bottom, left:right]
        region[:] = np.round(region * (1 - alpha) + np.array(colour) * alpha).astype(np.uint8)


def hull(discs: Sequence[Disc], grow: float = 0.0) -> np.ndarray:
    """Corners (n, 2) of the convex hull of some discs: two give a tapering capsule."""
    points = np.concatenate([_CIRCLE * (r + grow) + (x, y) for x, y, r in discs]).astype(np.float32)
    return cv2.convexHull(points)[:, 0]


class Local(NamedTuple):
    """A frame of reference about `centre`, turned by `angle` and `size` times as large as figure units."""

    centre: Point
    angle: float = 0.0
    size: float = 1.0

    def points(self, points: Sequence[Point] | np.ndarray) -> np.ndarray:
        """Points (n, 2) of this frame in figure units."""
        cos, sin = self.size * np.cos(self.angle), self.size * np.sin(self.angle)
        return np.asarray(points, np.float64) @ np.array([[cos, sin], [-sin, cos]]) + self.centre

    def disc(self, disc: Disc) -> Disc:
        """A disc of this frame in figure units."""
        return self.discs(disc)[0]

    def discs(self, *discs: Disc) -> list[Disc]:
        """Discs of this frame in figure units."""
        centres = self.points([disc[:2] for disc in discs])
        return [(float(x), float(y), disc[2] * self.size) for (x, y), disc in zip(centres, discs, strict=True)]


def arc(x: float, y: float, start: float, end: float, count: int = 14) -> list[Point]:
    """Points on the ellipse of half axes (x, y), from angle `start` to `end`."""
    return [(x * float(np.cos(a)), y * float(np.sin(a))) for a in np.linspace(start, end, count)]


def oval(centre: Point, x: float, y: float) -> np.ndarray:
    """Points (n, 2) on the ellipse of half axes (x, y)."""
    return _CIRCLE * (x, y) + centre
