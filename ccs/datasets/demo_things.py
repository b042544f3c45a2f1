"""The demo's things: what a hand brings to the mouth, and what is raised and lowered.

In: places, sizes and colours in figure units. Out: shapes on a `Canvas`.
Every held thing is drawn in a frame whose x runs from the hand (0) to the mouth (about 1). All have about the same
outline, a bar from -1 to 1 of half width 1/3, so that they differ in the picture and little in the flow.
"""

from __future__ import annotations

from ccs.datasets.demo_drawing import OUTLINE, Canvas, Colour, Local, Point, mix, shade

_WHITE = (255, 255, 255)


def held(canvas: Canvas, kind: str, colour: Colour, hand_at: Point, angle: float, size: float) -> None:
    """What the hand brings to the mouth; `angle` points from the hand to the mouth, `size` is their distance."""
    _HELD[kind](canvas, Local(hand_at, angle, size), colour)


def _bar(start: float, half_start: float, end: float, half_end: float) -> list[Point]:
    """Corners of a bar along x from `start` to `end`, with its half widths at the two."""
    return [(start, -half_start), (end, -half_end), (end, half_end), (start, half_start)]


def _glass(canvas: Canvas, at: Local, colour: Colour) -> None:
    canvas.polygon(at.points(_bar(-0.84, 0.32, 1.0, 0.4)), (60, 75, 90))
    canvas.polygon(at.points(_bar(-0.8, 0.28, 0.97, 0.36)), (214, 232, 240))
    canvas.polygon(at.points(_bar(-0.74, 0.26, 0.7, 0.32)), colour)
    canvas.polygon(at.points(_bar(0.7, 0.32, 0.78, 0.33)), mix(colour, _WHITE, 0.6))
    canvas.polygon(at.points([(-0.6, -0.16), (0.92, -0.26), (0.92, -0.16), (-0.6, -0.08)]), mix(colour, _WHITE, 0.8))


def _bottle(canvas: Canvas, at: Local, colour: Colour) -> None:
    body = at.discs((-0.62, -0.14, 0.2), (-0.62, 0.14, 0.2), (0.5, -0.14, 0.2), (0.5, 0.14, 0.2))
    canvas.solid([body, at.discs((0.5, 0, 0.33), (0.85, 0, 0.2)), at.discs((0.8, 0, 0.2), (0.98, 0, 0.2))], colour)
    canvas.polygon(at.points(_bar(-0.5, 0.33, 0.1, 0.33)), (240, 236, 220))
    canvas.polygon(at.points(_bar(-0.35, 0.33, -0.05, 0.33)), shade(colour, 0.7))
    shine = [(0.15, -0.24), (0.75, -0.13), (0.75, -0.05), (0.15, -0.14)]
    canvas.polygon(at.points(shine), mix(colour, _WHITE, 0.7))


def _banana(canvas: Canvas, at: Local, colour: Colour) -> None:
    canvas.chain(at.discs((0.1, 0, 0.29), (0.7, 0.02, 0.29), (0.88, 0.06, 0.24)), (252, 243, 205))
    canvas.chain(at.discs((-0.84, 0.08, 0.22), (-0.5, 0.02, 0.32), (0.1, 0, 0.35), (0.3, 0, 0.34)), colour)
    for across in (-0.24, 0, 0.24):  # the peel, turned down over the flesh
        canvas.polygon(at.points([(0.25, across - 0.12), (0.62, across), (0.25, across + 0.12)]), shade(colour, 0.92))


def _ice_cream(canvas: Canvas, at: Local, colour: Colour) -> None:
    canvas.solid([at.discs((-0.8, 0, 0.2), (0.25, 0, 0.34))], (222, 166, 92))
    for k in (-0.25, 0, 0.25):
        canvas.line(at.points([(-0.5, 0.6 * k - 0.1), (0.25, k + 0.1)]), (168, 112, 56), 0.05 * at.size)
        canvas.line(at.points([(-0.5, 0.6 * k + 0.1), (0.25, k - 0.1)]), (168, 112, 56), 0.05 * at.size)
    for x, half, radius in ((0.36, 0.19, 0.18), (0.58, 0.16, 0.17), (0.78, 0.1, 0.16), (0.92, 0.0, 0.13)):  # whipped
        canvas.solid([at.discs((x, -half, radius), (x + 0.06, half, radius))], colour)


def _cigarette(canvas: Canvas, at: Local, colour: Colour) -> None:
    canvas.solid([at.discs((-0.78, 0, 0.3), (0.8, 0, 0.3))], colour)
    canvas.polygon(at.points(_bar(0.42, 0.31, 1.05, 0.29)), (205, 150, 84))
    canvas.solid([at.discs((-0.84, 0, 0.32), (-0.62, 0, 0.3))], (255, 60, 10))
    canvas.spot(at.disc((-0.84, 0, 0.18)), (255, 224, 110))


def _microphone(canvas: Canvas, at: Local, colour: Colour) -> None:
    canvas.solid([at.discs((-0.78, 0, 0.26), (0.36, 0, 0.31))], colour)
    canvas.polygon(at.points(_bar(0.24, 0.33, 0.42, 0.35)), (235, 235, 240))
    canvas.solid([at.discs((0.62, 0, 0.38))], (186, 190, 198))
    for k in (-0.21, 0, 0.21):
        end = 0.31 - 0.4 * abs(k)
        canvas.line(at.points([(0.62 + k, -end), (0.62 + k, end)]), (80, 82, 90), 0.06 * at.size)
        canvas.line(at.points([(0.62 - end, k), (0.62 + end, k)]), (80, 82, 90), 0.06 * at.size)
    canvas.spot(at.disc((0.74, -0.17, 0.08)), (235, 238, 245))


_HELD = {
    "glass": _glass,
    "bottle": _bottle,
    "ice cream": _ice_cream,
    "banana": _banana,
    "cigarette": _cigarette,
    "microphone": _microphone,
}


def box(canvas: Canvas, corner: Point, width: float, height: float, colour: Colour, style: str) -> None:
    """A box seen from the front, its top left corner at `corner`: a wooden crate or a present."""
    x, y = corner

    def inset(left: float, top: float, right: float, bottom: float) -> list[Point]:
        return [(x + left, y + top), (x + right, y + top), (x + right, y + bottom), (x + left, y + bottom)]

    edge = OUTLINE
    canvas.polygon(inset(-edge, -edge, width + edge, height + edge), shade(colour, 0.35))
    canvas.polygon(inset(0, 0, width, height), colour)
    if style == "present":
        ribbon = (250, 236, 150)
        canvas.polygon(inset(width * 0.42, 0, width * 0.58, height), ribbon)
        canvas.polygon(inset(0, height * 0.4, width, height * 0.6), ribbon)
        for side in (-1, 1):  # the bow lies within the outline, so that both boxes move alike in the flow
            loop = [(0.5, 0.5), (0.5 + side * 0.24, 0.2), (0.5 + side * 0.3, 0.55)]
            points = [(x + width * a, y + height * b) for a, b in loop]
            canvas.polygon(points, shade(ribbon, 0.92))
            canvas.line([*points, points[0]], shade(ribbon, 0.6), 0.006)
        canvas.spot((x + width / 2, y + height / 2, 0.1 * width), ribbon)
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
