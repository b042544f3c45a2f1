"""The demo's people, seen from the front: heads, shirts, limbs and hands.

In: a `Figure` (who it is) and the joints of its pose, in figure units. Out: shapes on a `Canvas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ccs.datasets.demo_drawing import Canvas, Colour, Disc, Local, Point, arc, mix, oval, shade


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


def shirt(canvas: Canvas, figure: Figure, discs: Sequence[Disc], neck: Point, hip: Point, width: float) -> None:
    """The torso, the hull of `discs`, with its pattern laid out along the line from neck to hip."""
    canvas.solid([discs], figure.shirt)
    length = float(np.hypot(hip[0] - neck[0], hip[1] - neck[1]))
    # in the pattern's frame y runs from the neck (0) to the hip (length) and x across
    place = Local(neck, float(np.arctan2(hip[1] - neck[1], hip[0] - neck[0])) - np.pi / 2)

    def box(x: float, y: float, w: float, h: float) -> np.ndarray:
        return place.points([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])

    step = width / 4
    rows = np.arange(-1, int(length / step) + 3)
    across = np.arange(-4, 5)
    shapes = {
        "plain": [],
        "hoops": [box(-width, (k + 0.2) * step * 1.5, 2 * width, step * 0.7) for k in rows],
        "pinstripes": [box((k - 0.2) * step * 1.1, -width, step * 0.4, length + 2 * width) for k in across],
        "dots": [
            place.points(oval(((i + 0.5 * (j % 2)) * step, j * step * 0.9), step * 0.26, step * 0.26))
            for i in across
            for j in rows
        ],
        "badge": [place.points(oval((0, length * 0.45), width * 0.26, width * 0.26))],
        "sash": [place.points([(-width, 0), (-width * 0.5, 0), (width, length * 1.1), (width * 0.4, length * 1.1)])],
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
    x, y, radius = (a + cut * (b - a) for a, b in zip(top, middle, strict=True))
    canvas.chain([(*top[:2], top[2] * 1.06), (x, y, radius * 1.12)], cloth)


def hand(canvas: Canvas, figure: Figure, centre: Point, size: float, dim: float = 1.0) -> None:
    """A closed hand."""
    canvas.solid([[(*centre, 0.24 * size)]], shade(figure.skin, dim))


def fingers(canvas: Canvas, figure: Figure, centre: Point, angle: float, size: float, count: int = 4) -> None:
    """Fingers closed around what the hand holds; `angle` is the direction of the held thing's axis."""
    place = Local(centre, angle, size)
    for along in 0.125 * (np.arange(count) - (count - 1) / 2):
        ends = place.points([(along, -0.13), (along, 0.15)])
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
    place = Local(centre, tilt, figure.head)
    if figure.hair_style == "long":
        discs = [
            (*place.points([(x, y)])[0], r * figure.head)
            for x, y, r in ((0, -0.15, 0.97), (-0.5, 0.95, 0.5), (0.5, 0.95, 0.5))
        ]
        canvas.solid([discs], shade(figure.hair, 0.8))
    elif figure.hair_style == "bun":
        canvas.solid([[(*place.points([(0, -1.12)])[0], 0.36 * figure.head)]], figure.hair)
    elif figure.hair_style == "curly":
        for angle in np.linspace(np.pi * 0.9, np.pi * 2.1, 9):
            x, y = place.points([(0.85 * np.cos(angle), 0.9 * np.sin(angle) - 0.1)])[0]
            canvas.solid([[(x, y, 0.36 * figure.head)]], figure.hair)


def head_front(canvas: Canvas, figure: Figure, centre: Point, tilt: float, mouth: float) -> None:
    """A head seen from the front; `mouth` in 0..1 is how far the mouth is open."""
    size = figure.head
    place = Local(centre, tilt, size)

    canvas.solid([place.discs((-0.82, 0.08, 0.2)), place.discs((0.82, 0.08, 0.2))], figure.skin)
    canvas.solid([place.discs((0, -0.2, 0.82), (-0.2, 0.3, 0.6), (0.2, 0.3, 0.6), (0, 0.62, 0.38))], figure.skin)
    if figure.beard:
        jaw = [(-0.76, 0.1), (-0.62, 0.72), (0, 1.03), (0.62, 0.72), (0.76, 0.1), (0.5, 0.32), (0, 0.3), (-0.5, 0.32)]
        canvas.polygon(place.points(jaw), figure.hair)
    dark = shade(figure.skin, 0.6)
    for side in (-1, 1):
        canvas.polygon(place.points(oval((side * 0.34, -0.05), 0.19, 0.13)), (245, 245, 240))
        canvas.spot(place.disc((side * 0.32, -0.04, 0.095)), (35, 25, 20))
        brow = [(side * x, y) for x, y in ((0.17, -0.29), (0.36, -0.36), (0.55, -0.29))]
        canvas.line(place.points(brow), shade(figure.hair, 0.7), 0.065 * size)
        if figure.glasses:
            canvas.line(place.points(oval((side * 0.35, -0.03), 0.27, 0.24)), (30, 30, 35), 0.045 * size)
    canvas.polygon(place.points([(0, -0.02), (0.13, 0.28), (-0.1, 0.28)]), shade(figure.skin, 0.82))
    # closed it smiles: the upper lip's ends are higher than its middle
    upper, lower = arc(0.29 - 0.08 * mouth, 0.10 - 0.2 * mouth, 0, np.pi), arc(0.29 - 0.08 * mouth, 0.19, np.pi, 0)
    canvas.polygon(place.points([(x, y + 0.46) for x, y in upper + lower]), mix((165, 55, 60), (80, 18, 24), mouth))
    canvas.line(place.points([(-0.12, 0.78), (0.12, 0.78)]), dark, 0.04 * size)
    top = arc(0.93, 1.12, np.pi * 0.98, np.pi * 2.02)
    if figure.hair_style == "cap":
        canvas.polygon(place.points([(x, y - 0.22) for x, y in top]), figure.accent)
        canvas.polygon(
            place.points([(-1.0, -0.32), (1.0, -0.32), (0.8, -0.5), (-0.8, -0.5)]), shade(figure.accent, 0.6)
        )
        return
    fringe = {
        "short": [(0.8, -0.3), (0.5, -0.62), (-0.1, -0.5), (-0.55, -0.62), (-0.8, -0.3)],
        "long": [(0.86, 0.35), (0.72, -0.35), (0.15, -0.7), (-0.72, -0.35), (-0.86, 0.35)],
        "bun": [(0.78, -0.25), (0.45, -0.68), (0, -0.76), (-0.45, -0.68), (-0.78, -0.25)],
        "curly": [(0.8, -0.2), (0.55, -0.5), (0.2, -0.42), (-0.2, -0.52), (-0.55, -0.45), (-0.8, -0.2)],
    }[figure.hair_style]
    canvas.polygon(place.points([(x * 1.03, y - 0.06) for x, y in top] + fringe), shade(figure.hair, 0.62))
    canvas.polygon(place.points([(x, y - 0.03) for x, y in top] + fringe), figure.hair)
    shine = arc(0.66, 0.84, np.pi * 1.2, np.pi * 1.5, 6) + arc(0.6, 0.7, np.pi * 1.5, np.pi * 1.2, 6)
    canvas.polygon(
        place.points([(x, y - 0.04) for x, y in shine]), shade(mix(figure.hair, (255, 255, 255), 0.12), 1.15)
    )
