"""How the demo's people, things and rooms are drawn: a canvas in scene units, and one function per thing.

In: joints, colours and sizes from `demo_scene`. Out: pixels. Nothing here draws a random number.
Scene units: 1 is the height of the frame, x = 0 its middle, y = 0 its top edge; angles in radians.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]
Disc = tuple[float, float, float]  # x, y, radius

_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24, False)), np.sin(np.linspace(0, 2 * np.pi, 24, False))], 1)
_FRACTION_BITS = 4
_OUTLINE = 0.007


class Figure(NamedTuple):
    """One person. `fabric` is the pattern of the shirt; `build` widens the body; `head` is the head's radius."""

    skin: Colour
    hair: Colour
    hair_style: str  # short, long, bun, curly, cap
    beard: bool
    glasses: bool
    shirt: Colour
    accent: Colour
    fabric: str  # plain, hoops, checks, badge, pinstripes, dots, sash, yoke
    long_sleeves: bool
    trousers: Colour
    shoes: Colour
    build: float
    head: float


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor below 1) or lighter (above 1)."""
    return tuple(int(min(255, max(0, channel * factor))) for channel in colour)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` (0..1) of `second`."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


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

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self.polygon(_CIRCLE * radius + centre, colour)

    def solid(self, parts: Sequence[Sequence[Disc]], colour: Colour, outline: bool = True) -> None:
        """Draw one body of several parts, each the hull of its discs, outlined together and lit from one side."""
        if outline:
            for discs in parts:
                self.polygon(hull(discs, grow=_OUTLINE), shade(colour, 0.35))
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


def local(centre: Point, angle: float = 0.0, size: float = 1.0) -> Callable[[Sequence[Point]], np.ndarray]:
    """A function from points about `centre`, turned by `angle` and `size` times as large, to figure units."""
    turn = size * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return lambda points: np.asarray(points, np.float64) @ turn + centre


def arc(x: float, y: float, start: float, end: float, count: int = 14) -> list[Point]:
    """Points on the ellipse of half axes (x, y), from angle `start` to `end`."""
    return [(x * float(np.cos(a)), y * float(np.sin(a))) for a in np.linspace(start, end, count)]


def oval(centre: Point, x: float, y: float) -> np.ndarray:
    """Points (n, 2) on the ellipse of half axes (x, y)."""
    return _CIRCLE * (x, y) + centre


# People ------------------------------------------------------------------------------------------------------------


def shirt(canvas: Canvas, figure: Figure, discs: Sequence[Disc], neck: Point, hip: Point, width: float) -> None:
    """The torso, the hull of `discs`, with its pattern laid out along the line from neck to hip."""
    canvas.solid([discs], figure.shirt)
    length = float(np.hypot(hip[0] - neck[0], hip[1] - neck[1]))
    # in the pattern's frame y runs from the neck (0) to the hip (length) and x across
    place = local(neck, float(np.arctan2(hip[1] - neck[1], hip[0] - neck[0])) - np.pi / 2)

    def box(x: float, y: float, w: float, h: float) -> np.ndarray:
        return place([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])

    step = width / 4
    rows = np.arange(-1, int(length / step) + 3)
    across = np.arange(-4, 5)
    shapes = {
        "plain": [],
        "hoops": [box(-width, (k + 0.2) * step * 1.5, 2 * width, step * 0.7) for k in rows],
        "pinstripes": [box((k - 0.2) * step * 1.1, -width, step * 0.4, length + 2 * width) for k in across],
        "dots": [
            place(_CIRCLE * step * 0.26 + ((i + 0.5 * (j % 2)) * step, j * step * 0.9)) for i in across for j in rows
        ],
        "badge": [place(_CIRCLE * width * 0.26 + (0, length * 0.45))],
        "sash": [place([(-width, 0), (-width * 0.5, 0), (width, length * 1.1), (width * 0.4, length * 1.1)])],
        "yoke": [box(-width, -width, 2 * width, width + length * 0.33)],
        "checks": [box((k - 0.3) * step * 1.3, -width, step * 0.6, length + 2 * width) for k in across],
    }[figure.fabric]
    strength = 0.55 if figure.fabric == "checks" else 0.9
    canvas.printed(discs, shapes, figure.accent, strength)
    if figure.fabric == "checks":
        canvas.printed(
            discs, [box(-width, (k - 0.3) * step * 1.3, 2 * width, step * 0.6) for k in rows], figure.accent, strength
        )


def arm(canvas: Canvas, figure: Figure, shoulder: Point, elbow: Point, wrist: Point, size: float, dim: float) -> None:
    """An arm in its sleeve, without the hand; `dim` below 1 for the arm on the far side."""
    top, middle, end = (*shoulder, 0.30 * size), (*elbow, 0.235 * size), (*wrist, 0.17 * size)
    cloth, skin = shade(figure.shirt, dim), shade(figure.skin, dim)
    if figure.long_sleeves:
        canvas.chain([top, middle, end], cloth)
        return
    canvas.chain([top, middle, end], skin)
    cut = 0.72
    cuff = tuple(a + cut * (b - a) for a, b in zip(top, middle, strict=True))
    canvas.chain([(*top[:2], top[2] * 1.06), (*cuff[:2], cuff[2] * 1.12)], cloth)


def hand(canvas: Canvas, figure: Figure, centre: Point, size: float, dim: float = 1.0) -> None:
    """A closed hand."""
    canvas.solid([[(*centre, 0.24 * size)]], shade(figure.skin, dim))


def fingers(canvas: Canvas, figure: Figure, centre: Point, angle: float, size: float) -> None:
    """Four fingers closed around what the hand holds; `angle` is the direction of the held thing's axis."""
    place = local(centre, angle, size)
    for along in (-0.19, -0.065, 0.06, 0.185):
        ends = place([(along, -0.13), (along, 0.15)])
        canvas.chain([(*ends[0], 0.066 * size), (*ends[1], 0.058 * size)], figure.skin)


def leg(canvas: Canvas, figure: Figure, hip: Point, knee: Point, ankle: Point, size: float, dim: float) -> None:
    """A leg in its trouser leg, without the shoe."""
    joints = [(*hip, 0.36 * size), (*knee, 0.27 * size), (*ankle, 0.17 * size)]
    canvas.chain(joints, shade(figure.trousers, dim))


def shoe(canvas: Canvas, figure: Figure, ankle: Point, length: float, size: float, dim: float) -> None:
    """A shoe that points along x; from the front `length` is 0."""
    x, y = ankle
    discs = [(x - 0.03 * size, y + 0.1 * size, 0.17 * size), (x + length, y + 0.15 * size, 0.12 * size)]
    canvas.solid([discs], shade(figure.shoes, dim))


def hair_behind(canvas: Canvas, figure: Figure, centre: Point, tilt: float) -> None:
    """The hair that falls behind the shoulders, seen from the front."""
    place = local(centre, tilt, figure.head)
    if figure.hair_style == "long":
        discs = [
            (*place([(x, y)])[0], r * figure.head)
            for x, y, r in ((0, -0.15, 0.97), (-0.5, 0.95, 0.5), (0.5, 0.95, 0.5))
        ]
        canvas.solid([discs], shade(figure.hair, 0.8))
    elif figure.hair_style == "bun":
        canvas.solid([[(*place([(0, -1.12)])[0], 0.36 * figure.head)]], figure.hair)
    elif figure.hair_style == "curly":
        for angle in np.linspace(np.pi * 0.9, np.pi * 2.1, 9):
            x, y = place([(0.85 * np.cos(angle), 0.9 * np.sin(angle) - 0.1)])[0]
            canvas.solid([[(x, y, 0.36 * figure.head)]], figure.hair)


def head_front(canvas: Canvas, figure: Figure, centre: Point, tilt: float, mouth: float) -> None:
    """A head seen from the front; `mouth` in 0..1 is how far the mouth is open."""
    size = figure.head
    place = local(centre, tilt, size)

    def discs(*items: Disc) -> list[Disc]:
        return [(*place([(x, y)])[0], r * size) for x, y, r in items]

    canvas.solid([discs((-0.82, 0.08, 0.2)), discs((0.82, 0.08, 0.2))], figure.skin)
    canvas.solid([discs((0, -0.2, 0.82), (-0.2, 0.3, 0.6), (0.2, 0.3, 0.6), (0, 0.62, 0.38))], figure.skin)
    if figure.beard:
        jaw = [(-0.76, 0.1), (-0.62, 0.72), (0, 1.03), (0.62, 0.72), (0.76, 0.1), (0.5, 0.32), (0, 0.3), (-0.5, 0.32)]
        canvas.polygon(place(jaw), figure.hair)
    dark = shade(figure.skin, 0.6)
    for side in (-1, 1):
        canvas.polygon(place(oval((side * 0.34, -0.05), 0.19, 0.13)), (245, 245, 240))
        canvas.disc(tuple(place([(side * 0.32, -0.04)])[0]), 0.095 * size, (35, 25, 20))
        canvas.line(place([(side * 0.16, -0.3), (side * 0.54, -0.31)]), shade(figure.hair, 0.7), 0.09 * size)
        if figure.glasses:
            canvas.line(place(oval((side * 0.35, -0.03), 0.27, 0.24)), (30, 30, 35), 0.07 * size)
    canvas.polygon(place([(0, -0.02), (0.13, 0.28), (-0.1, 0.28)]), shade(figure.skin, 0.82))
    opening = oval((0, 0.54), 0.27 - 0.08 * mouth, 0.05 + 0.17 * mouth)
    canvas.polygon(place(opening), mix((150, 50, 55), (70, 15, 20), mouth) if not figure.beard else (90, 25, 30))
    canvas.line(place([(-0.12, 0.78), (0.12, 0.78)]), dark, 0.04 * size)
    top = arc(0.93, 1.12, np.pi * 0.98, np.pi * 2.02)
    if figure.hair_style == "cap":
        canvas.polygon(place([(x, y - 0.22) for x, y in top]), figure.accent)
        canvas.polygon(place([(-1.0, -0.32), (1.0, -0.32), (0.8, -0.5), (-0.8, -0.5)]), shade(figure.accent, 0.6))
        return
    fringe = {
        "short": [(0.8, -0.3), (0.5, -0.62), (-0.1, -0.5), (-0.55, -0.62), (-0.8, -0.3)],
        "long": [(0.86, 0.35), (0.72, -0.35), (0.15, -0.7), (-0.72, -0.35), (-0.86, 0.35)],
        "bun": [(0.78, -0.25), (0.45, -0.68), (0, -0.76), (-0.45, -0.68), (-0.78, -0.25)],
        "curly": [(0.8, -0.2), (0.55, -0.5), (0.2, -0.42), (-0.2, -0.52), (-0.55, -0.45), (-0.8, -0.2)],
    }[figure.hair_style]
    canvas.polygon(place([(x * 1.03, y - 0.06) for x, y in top] + fringe), shade(figure.hair, 0.62))
    canvas.polygon(place([(x, y - 0.03) for x, y in top] + fringe), figure.hair)
    shine = arc(0.66, 0.84, np.pi * 1.2, np.pi * 1.5, 6) + arc(0.6, 0.7, np.pi * 1.5, np.pi * 1.2, 6)
    canvas.polygon(place([(x, y - 0.04) for x, y in shine]), shade(mix(figure.hair, (255, 255, 255), 0.12), 1.15))


def head_side(canvas: Canvas, figure: Figure, centre: Point, tilt: float) -> None:
    """A head seen from the side, its face towards +x."""
    size = figure.head
    place = local(centre, tilt, size)

    def discs(*items: Disc) -> list[Disc]:
        return [(*place([(x, y)])[0], r * size) for x, y, r in items]

    if figure.hair_style == "long":
        canvas.solid([discs((-0.3, -0.1, 0.85), (-0.68, 0.95, 0.36))], shade(figure.hair, 0.85))
    elif figure.hair_style == "bun":
        canvas.solid([discs((-0.98, -0.45, 0.34))], figure.hair)
    elif figure.hair_style == "curly":
        for angle in np.linspace(np.pi * 0.75, np.pi * 1.75, 8):
            canvas.solid([discs((0.85 * np.cos(angle) - 0.06, 0.88 * np.sin(angle) - 0.08, 0.36))], figure.hair)
    canvas.solid([discs((-0.02, -0.12, 0.86), (0.28, 0.5, 0.46)), discs((0.6, 0.0, 0.2), (0.9, 0.2, 0.1))], figure.skin)
    if figure.beard:
        canvas.polygon(place([(-0.15, 0.2), (0.1, 0.4), (0.72, 0.4), (0.8, 0.75), (0.4, 1.02), (0, 0.8)]), figure.hair)
    canvas.polygon(place(oval((0.5, -0.1), 0.14, 0.13)), (245, 245, 240))
    canvas.disc(tuple(place([(0.55, -0.09)])[0]), 0.09 * size, (35, 25, 20))
    canvas.line(place([(0.38, -0.34), (0.72, -0.32)]), shade(figure.hair, 0.7), 0.09 * size)
    canvas.line(place([(0.45, 0.56), (0.72, 0.54)]), (130, 45, 50), 0.08 * size)
    if figure.glasses:
        canvas.line(place(oval((0.52, -0.08), 0.22, 0.22)), (30, 30, 35), 0.07 * size)
        canvas.line(place([(-0.1, -0.1), (0.3, -0.1)]), (30, 30, 35), 0.06 * size)
    if figure.hair_style == "cap":
        canvas.polygon(
            place([(x * 1.03, y - 0.2) for x, y in arc(0.9, 0.86, np.pi * 0.95, np.pi * 2.02)]), figure.accent
        )
        canvas.polygon(place([(0.3, -0.42), (1.35, -0.3), (1.3, -0.18), (0.3, -0.2)]), shade(figure.accent, 0.6))
    else:
        outer = arc(0.97, 1.02, np.pi * 0.78, np.pi * 1.82)
        inner = [(0.42, -0.55), (0.12, -0.3), (0.1, 0.05), (-0.22, 0.15), (-0.35, 0.55)]
        canvas.polygon(place([(x * 1.04, y * 1.04 - 0.1) for x, y in outer] + inner), shade(figure.hair, 0.62))
        canvas.polygon(place([(x, y - 0.1) for x, y in outer] + inner), figure.hair)
    canvas.solid([discs((-0.12, 0.12, 0.17))], shade(figure.skin, 0.95))


# Things ------------------------------------------------------------------------------------------------------------


def held(canvas: Canvas, kind: str, colour: Colour, hand_at: Point, angle: float, size: float) -> None:
    """What the hand brings to the mouth; `angle` points from the hand to the mouth.

    Every kind reaches 1.1 `size` from the hand towards the mouth and is about as large: their flow is alike.
    """
    place = local(hand_at, angle, size)

    def discs(*items: Disc) -> list[Disc]:
        return [(*place([(x, y)])[0], r * size) for x, y, r in items]

    def quad(x0: float, w0: float, x1: float, w1: float) -> np.ndarray:
        return place([(x0, -w0), (x1, -w1), (x1, w1), (x0, w0)])

    if kind == "glass":
        canvas.polygon(quad(-0.62, 0.36, 1.14, 0.54), (60, 75, 90))
        canvas.polygon(quad(-0.56, 0.31, 1.10, 0.49), (214, 232, 240))
        canvas.polygon(quad(-0.46, 0.29, 0.62, 0.41), colour)
        canvas.polygon(
            place([(0.62, -0.41), (0.70, -0.2), (0.70, 0.2), (0.62, 0.41)]), mix(colour, (255, 255, 255), 0.5)
        )
        canvas.polygon(place([(-0.4, -0.2), (1.0, -0.33), (1.0, -0.2), (-0.4, -0.1)]), (250, 252, 255))
    elif kind == "bottle":
        body = discs((-0.6, -0.16, 0.22), (-0.6, 0.16, 0.22), (0.35, -0.16, 0.22), (0.35, 0.16, 0.22))
        canvas.solid([body, discs((0.4, 0, 0.3), (0.85, 0, 0.14)), discs((0.8, 0, 0.14), (1.12, 0, 0.14))], colour)
        canvas.polygon(quad(-0.5, 0.37, 0.25, 0.37), (240, 236, 220))
        canvas.polygon(quad(-0.3, 0.37, 0.05, 0.37), shade(colour, 0.7))
        canvas.polygon(
            place([(0.3, -0.24), (0.75, -0.08), (0.75, -0.02), (0.3, -0.14)]), mix(colour, (255, 255, 255), 0.7)
        )
    elif kind == "apple":
        canvas.solid(
            [discs((0.42, -0.24, 0.46), (0.62, -0.2, 0.42)), discs((0.42, 0.24, 0.46), (0.62, 0.2, 0.42))], colour
        )
        canvas.disc(tuple(place([(0.55, -0.3)])[0]), 0.14 * size, mix(colour, (255, 255, 255), 0.6))
        canvas.line(place([(0.5, 0.0), (0.95, 0.06), (1.2, 0.2)]), (90, 55, 25), 0.1 * size)
        canvas.polygon(place([(0.95, 0.06), (1.2, -0.28), (1.4, -0.1)]), (70, 150, 50))
    elif kind == "burger":
        place = local(toward(hand_at, angle, 0.5 * size), angle - np.pi / 2, size)
        canvas.solid([discs((-0.5, 0.36, 0.2), (0.5, 0.36, 0.2))], (214, 150, 75))
        canvas.solid([discs((-0.58, 0.1, 0.15), (0.58, 0.1, 0.15))], (105, 58, 32))
        canvas.polygon(place([(-0.66, -0.08), (0.66, -0.08), (0.3, 0.16), (0, 0.02), (-0.35, 0.14)]), (250, 200, 45))
        canvas.solid([discs((-0.6, -0.12, 0.1), (0.6, -0.12, 0.1))], (95, 175, 60))
        canvas.solid([discs((-0.46, -0.3, 0.22), (0, -0.36, 0.34), (0.46, -0.3, 0.22))], (226, 162, 82))
        for x, y in ((-0.35, -0.45), (0, -0.58), (0.32, -0.42), (0.1, -0.36), (-0.15, -0.4)):
            canvas.disc(tuple(place([(x, y)])[0]), 0.05 * size, (250, 235, 190))
    elif kind == "banana":
        skin = discs((-0.75, 0.2, 0.1), (-0.45, 0.02, 0.24)), discs((-0.45, 0.02, 0.24), (0.1, -0.1, 0.3))
        canvas.solid(
            [discs((0.05, -0.1, 0.24), (0.6, -0.08, 0.24)), discs((0.6, -0.08, 0.24), (1.05, 0.06, 0.17))],
            (252, 243, 205),
        )
        canvas.solid([*skin, discs((0.1, -0.1, 0.3), (0.35, -0.1, 0.26))], colour)
        for side in (-1, 1):
            canvas.chain(
                discs((0.3, side * 0.2 - 0.1, 0.12), (0.12, side * 0.52 - 0.1, 0.1), (-0.2, side * 0.62 - 0.1, 0.04)),
                colour,
            )
    elif kind == "cigarette":
        canvas.solid([discs((-1.0, 0, 0.14), (0.8, 0, 0.14))], (250, 250, 246))
        canvas.solid([discs((0.72, 0, 0.14), (1.1, 0, 0.14))], (214, 160, 84))
        canvas.solid([discs((-1.2, 0, 0.19), (-0.98, 0, 0.17))], (255, 84, 20))
        canvas.disc(tuple(place([(-1.16, 0)])[0]), 0.1 * size, (255, 224, 110))
    elif kind == "microphone":
        canvas.solid([discs((-0.85, 0, 0.2), (0.5, 0, 0.3))], colour)
        canvas.polygon(quad(0.42, 0.36, 0.6, 0.4), (235, 235, 240))
        canvas.solid([discs((0.85, 0, 0.46))], (150, 154, 162))
        for k in (-0.24, 0, 0.24):
            canvas.line(
                place([(0.85 + k, -0.38 + abs(k) * 0.4), (0.85 + k, 0.38 - abs(k) * 0.4)]), (80, 82, 90), 0.06 * size
            )
            canvas.line(place([(0.47 + abs(k) * 0.4, k), (1.23 - abs(k) * 0.4, k)]), (80, 82, 90), 0.06 * size)
        canvas.disc(tuple(place([(0.98, -0.2)])[0]), 0.09 * size, (235, 238, 245))


def barbell(canvas: Canvas, centre: Point, reach: float, plate: float, colour: Colour) -> None:
    """A barbell seen from the front, as wide as twice `reach`."""
    x, y = centre
    canvas.solid([[(x - reach, y, 0.011), (x + reach, y, 0.011)]], (185, 188, 196))
    for side in (-1, 1):
        for out, size in ((0.62, 1.0), (0.78, 0.72)):
            at = x + side * reach * out * 1.05
            canvas.solid(
                [[(at, y - plate * size, 0.022), (at, y + plate * size, 0.022)]], shade(colour, 0.7 + 0.3 * size)
            )


def box(canvas: Canvas, corner: Point, width: float, height: float, colour: Colour, style: str) -> None:
    """A box seen from the front, its top left corner at `corner`: a wooden crate or a parcel."""
    x, y = corner

    def inset(left: float, top: float, right: float, bottom: float) -> list[Point]:
        return [(x + left, y + top), (x + right, y + top), (x + right, y + bottom), (x + left, y + bottom)]

    edge = _OUTLINE
    canvas.polygon(inset(-edge, -edge, width + edge, height + edge), shade(colour, 0.35))
    canvas.polygon(inset(0, 0, width, height), colour)
    if style == "parcel":
        canvas.polygon(inset(width * 0.42, 0, width * 0.58, height), (226, 205, 160))
        canvas.polygon(inset(0, height * 0.92, width, height), shade(colour, 0.8))
        canvas.polygon(inset(width * 0.66, height * 0.55, width * 0.9, height * 0.8), (240, 240, 235))
        canvas.polygon(inset(width * 0.7, height * 0.6, width * 0.86, height * 0.65), (60, 60, 60))
        return
    bar = min(width, height) * 0.16
    for k in range(1, 5):
        canvas.line([(x, y + height * k / 5), (x + width, y + height * k / 5)], shade(colour, 0.62), 0.006)
    beam = shade(colour, 1.16)
    canvas.polygon([(x, y + height - bar), (x + bar, y + height), (x + width, y + bar), (x + width - bar, y)], beam)
    canvas.line([(x, y + height - bar), (x + width - bar, y)], shade(colour, 0.5), 0.006)
    canvas.line([(x + bar, y + height), (x + width, y + bar)], shade(colour, 0.5), 0.006)
    for frame in (
        inset(0, 0, width, bar),
        inset(0, height - bar, width, height),
        inset(0, 0, bar, height),
        inset(width - bar, 0, width, height),
    ):
        canvas.polygon(frame, beam)
        canvas.line([*frame, frame[0]], shade(colour, 0.5), 0.006)


def chair(canvas: Canvas, back: float, front: float, seat: float, floor: float, colour: Colour, style: str) -> None:
    """A chair seen from the side, its back at x = `back`; the style is the form of the back."""
    dark = shade(colour, 0.7)
    for x in (back + 0.03, front - 0.03):
        canvas.chain([(x, seat, 0.018), (x, floor - 0.012, 0.014)], dark)
    canvas.chain([(back + 0.03, (seat + floor) / 2, 0.01), (front - 0.03, (seat + floor) / 2, 0.01)], dark)
    top = seat - 0.33
    if style == "padded":
        canvas.chain([(back, seat, 0.03), (back - 0.03, top, 0.03)], colour)
    else:
        canvas.chain([(back + 0.01, seat, 0.017), (back - 0.03, top, 0.017)], colour)
        canvas.chain([(back - 0.03, top, 0.027), (back - 0.018, top + 0.09, 0.027)], shade(colour, 1.15))
    canvas.chain([(back, seat, 0.026), (front, seat, 0.026)], colour)
