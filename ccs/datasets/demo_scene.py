"""What happens in a demo video: who acts where (`draw_scene`), the moments of the video (`moments`), its frames.

In: seed, split, class and index of a video. Out: RGB frames (T, H, W, 3) uint8, from nothing else.
A frame is a pure function of the scene and one `Moment`, so that a video played backwards is `moments` reversed: so
`lower`, `pull` and `stand` are made from `raise`, `push` and `sit`, with draws of their own. No distribution of
single frames can tell the two of a pair apart. `drink`, `eat`, `smoke` and `sing` draw everything from the same
distributions but the thing in the hand.
"""

from __future__ import annotations

import colorsys
import zlib
from typing import NamedTuple

import cv2
import numpy as np

from ccs.datasets import demo_figures as body
from ccs.datasets import demo_things as things
from ccs.datasets.demo_drawing import Canvas, Colour, Point, mix, shade, toward
from ccs.datasets.demo_figures import Figure
from ccs.datasets.demo_rooms import FAMILIES, Place, texture

BACKWARDS = {"lower": "raise", "pull": "push", "stand": "sit"}  # class -> the class whose videos it plays backwards
THINGS = {
    "drink": ("glass", "bottle"),
    "eat": ("banana", "ice cream"),
    "smoke": ("cigarette",),
    "sing": ("microphone",),
    "raise": ("barbell", "crate", "parcel"),
    "push": ("crate", "parcel"),
    "sit": ("padded", "wooden"),  # chairs
}
_THING_COLOURS = {  # hue from and to, saturation, value
    "glass": (0.55, 0.62, 0.9, 1.0),
    "bottle": (0.55, 0.62, 0.85, 0.9),
    "ice cream": (0.13, 0.15, 0.7, 1.0),
    "banana": (0.13, 0.15, 0.85, 1.0),
    "cigarette": (0.1, 0.15, 0.02, 1.15),
    "microphone": (0.6, 1.0, 0.3, 0.25),
    "barbell": (0.0, 1.0, 0.75, 0.9),
    "crate": (0.06, 0.11, 0.55, 0.65),
    "parcel": (0.06, 0.11, 0.5, 0.75),
    "padded": (0.0, 1.0, 0.45, 0.75),
    "wooden": (0.05, 0.11, 0.6, 0.85),
}
TO_MOUTH = ("drink", "eat", "smoke", "sing")
FABRICS = {"train": ("plain", "hoops", "checks", "badge"), "test": ("pinstripes", "dots", "sash", "yoke")}
SUPERSAMPLING = 2
_MARGIN = 0.12  # of the background beyond each edge of the frame, in frame heights


class Scene(NamedTuple):
    """All that a video is made of, times and distances in whole videos and frame heights."""

    action: str  # the class whose motion is shown, before any reversal
    figure: Figure
    place: Place
    mirror: int  # 1: acts with the hand on the image's right, faces right; -1: the other way round
    thing: str  # what is held or moved, or the style of the chair
    thing_colour: Colour
    thing_size: float
    zoom: float
    at: Point  # of the figure
    floor: float
    light: float  # side of the light, -1..1
    gain: Colour  # of the three channels, in percent
    start: float  # of the motion
    end: float
    ease: float  # 0: even speed; 1: starts and stops softly
    extent: float  # of the motion, about 1
    drift: Point  # of the background over the video
    shake: tuple[Point, ...]  # of the camera, frame by frame
    sway: float  # phase of the body's small movements


class Moment(NamedTuple):
    """One frame's share of what changes: the motion's progress (0..1), the background's and the camera's offset."""

    progress: float
    drift: Point
    shake: Point


def _stream(seed: int, *names: str | int) -> np.random.Generator:
    """A random stream of its own for every combination of names."""
    return np.random.default_rng([seed, *(n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names)])


def _colour(hue: float, saturation: float, value: float) -> Colour:
    channels = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    red, green, blue = (min(255, round(255 * channel)) for channel in channels)
    return red, green, blue


def _hue(rng: np.random.Generator, split: str, turn: int) -> float:
    """A hue of the split's own: train and test alternate in twelve sectors of the colour circle."""
    return (2 * (turn % 6) + (split == "test") + rng.uniform(0.1, 0.9)) / 12


def draw_figure(seed: int, split: str, index: int) -> Figure:
    """The figure of every class's video number `index`: knowing the figure says nothing about the class."""
    rng = _stream(seed, "figure", split, index)
    tone = rng.uniform()
    skin = mix((246, 208, 176), (112, 68, 44), tone)
    hairs = ((38, 28, 24), (72, 46, 30), (120, 76, 40), (196, 152, 82), (150, 70, 36), (150, 148, 150))
    shirt = _hue(rng, split, index)
    bright = rng.uniform(0.55, 0.95)
    return Figure(
        skin=skin,
        hair=shade(hairs[int(rng.integers(len(hairs) - 2 * (tone > 0.6)))], rng.uniform(0.85, 1.1)),
        hair_style=("short", "long", "bun", "curly", "cap")[int(rng.integers(5))],
        beard=rng.uniform() < 0.22,
        glasses=rng.uniform() < 0.25,
        shirt=_colour(shirt, rng.uniform(0.3, 0.6), bright),
        accent=_colour(shirt + 0.5, rng.uniform(0.1, 0.5), 0.97) if bright < 0.8 else _colour(shirt, 0.5, 0.42),
        fabric=FABRICS[split][int(rng.integers(len(FABRICS[split])))],
        long_sleeves=rng.uniform() < 0.5,
        trousers=_colour(_hue(rng, split, int(rng.integers(6))), rng.uniform(0.2, 0.6), rng.uniform(0.28, 0.5)),
        shoes=_colour(_hue(rng, split, int(rng.integers(6))), rng.uniform(0.0, 0.8), rng.uniform(0.2, 0.9)),
        build=rng.uniform(0.9, 1.14),
        head=rng.uniform(0.95, 1.06),
    )


def draw_place(seed: int, split: str, index: int) -> Place:
    """The place of every class's video number `index`, muted so that the figure stands out."""
    rng = _stream(seed, "place", split, index)
    hue, value = rng.uniform(), rng.uniform(0.55, 0.85)
    families = FAMILIES[split]
    return Place(
        family=families[(index + index // len(families)) % len(families)],  # in turn, so that few are balanced too
        wall=_colour(hue, rng.uniform(0.04, 0.18), value),
        second=_colour(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.08, 0.25), value * rng.uniform(0.74, 0.88)),
        floor=_colour(rng.uniform(0.02, 0.14), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.7)),
        grain=rng.uniform(8.0, 14.0),
        seed=int(rng.integers(2**31)),
    )


def draw_scene(seed: int, split: str, class_name: str, index: int, num_frames: int) -> Scene:
    """Everything that is random in a video."""
    rng = _stream(seed, "scene", split, class_name, index)
    action = BACKWARDS.get(class_name, class_name)
    near = action in TO_MOUTH
    kinds = THINGS[action]
    thing = kinds[(index if near else index // 2) % len(kinds)]
    gain, warmth = rng.uniform(88, 108), rng.uniform(-6, 6)
    shake = np.cumsum(rng.normal(0, 0.003, (num_frames, 2)), 0) + rng.normal(0, 0.002, (num_frames, 2))
    shake -= shake.mean(0)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.04)
    return Scene(
        action=action,
        figure=draw_figure(seed, split, index),
        place=draw_place(seed, split, index),
        # in turn, so that few videos a class are balanced too
        mirror=1 if (index + int(rng.integers(2)) * near) % 2 else -1,
        thing=thing,
        thing_colour=_thing_colour(rng, thing),
        thing_size=rng.uniform(0.88, 1.12),
        zoom=rng.uniform(0.94, 1.1) if near else rng.uniform(0.92, 1.04),
        at=(rng.uniform(-0.08, 0.08), rng.uniform(-0.02, 0.02)),
        floor=rng.uniform(0.74, 0.82),
        light=rng.uniform(-1, 1),
        gain=(round(gain + warmth), round(gain), round(gain - warmth)),
        start=rng.uniform(0.0, 0.1),
        end=rng.uniform(0.9, 1.0),
        ease=rng.uniform(0.2, 0.8),
        extent=rng.uniform(0.92, 1.06),
        drift=(speed * float(np.cos(angle)), 0.4 * speed * float(np.sin(angle))),
        shake=tuple((float(x), float(y)) for x, y in np.clip(shake, -0.03, 0.03)),
        sway=rng.uniform(0, 2 * np.pi),
    )


def _thing_colour(rng: np.random.Generator, thing: str) -> Colour:
    low, high, saturation, value = _THING_COLOURS[thing]
    return _colour(rng.uniform(low, high), saturation, value * rng.uniform(0.85, 1.0))


def moments(scene: Scene, class_name: str, num_frames: int) -> list[Moment]:
    """The video's frames in the order in which they are shown."""
    forward = []
    for t in range(num_frames):
        time = t / (num_frames - 1)
        if scene.action in TO_MOUTH:
            # to the mouth and back once, with a rest at the mouth
            turn = 0.5 - 0.5 * np.cos(2 * np.pi * (time * (1.25 - 0.45 * scene.ease) + scene.start - 0.05))
            progress = scene.extent * (1.25 * turn - 0.25 * turn**2)
        else:
            done = float(np.clip((time - scene.start) / (scene.end - scene.start), 0, 1))
            progress = done + scene.ease * (done * done * (3 - 2 * done) - done)
        drift = (scene.drift[0] * (time - 0.5), scene.drift[1] * (time - 0.5))
        forward.append(Moment(float(progress), drift, scene.shake[t]))
    return forward[::-1] if class_name in BACKWARDS else forward


def frames(scene: Scene, shown: list[Moment], height: int, width: int) -> np.ndarray:
    """Draw the moments: (T, H, W, 3) uint8 RGB."""
    tall, wide = height * SUPERSAMPLING, width * SUPERSAMPLING
    margin = round(_MARGIN * tall)
    near = scene.action in TO_MOUTH
    scene = scene._replace(zoom=scene.zoom * min(1.0, 0.75 * width / height))  # a narrower frame shows it smaller
    # the floor's line is a share of the frame's height, whatever the margin
    floor = None if near else (scene.floor * tall + margin) / (tall + 2 * margin)
    wall = texture(scene.place, tall + 2 * margin, wide + 2 * margin, floor)
    light = np.linspace(1 - 0.13 * scene.light, 1 + 0.13 * scene.light, width)[None, :, None]
    light = light[:, ::-1] * np.array(scene.gain) / 100
    drawn = np.empty((len(shown), height, width, 3), np.uint8)
    for t, moment in enumerate(shown):
        offset = np.array(moment.drift) + moment.shake
        matrix = np.array([[1, 0, offset[0] * tall - margin], [0, 1, offset[1] * tall - margin]])
        image = cv2.warpAffine(wall, matrix, (wide, tall), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        at = scene.at[0] + moment.shake[0], scene.at[1] + moment.shake[1]
        _PAINTERS[scene.action](image, scene, moment.progress, at)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        drawn[t] = np.clip(image * light, 0, 255).astype(np.uint8)
    return drawn


def _bend(start: Point, end: Point, first: float, second: float, side: int) -> Point:
    """The joint between two limbs of the stated lengths that reach from `start` to `end`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    distance = min(max(float(np.hypot(dx, dy)), 1e-6), 0.999 * (first + second))
    cosine = (first**2 + distance**2 - second**2) / (2 * first * distance)
    return toward(start, float(np.arctan2(dy, dx)) + side * float(np.arccos(np.clip(cosine, -1, 1))), first)


def _foreshortened(start: Point, end: Point, length: float, out: Point) -> Point:
    """The elbow of an arm that bends towards `out` and towards the camera, so less than its length asks for."""
    span = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    bend = 0.42 * float(np.sqrt(max(0.0, length**2 - span**2)))
    return (start[0] + end[0]) / 2 + out[0] * bend, (start[1] + end[1]) / 2 + out[1] * bend


def _to_mouth(image: np.ndarray, scene: Scene, progress: float, at: Point) -> None:
    """From the waist up, seen from the front: a hand brings a thing to the mouth."""
    canvas = Canvas(image, (at[0], 1.0 + at[1]), scene.zoom, scene.mirror, scene.light)
    figure = scene.figure._replace(head=0.175 * scene.figure.head)
    build, size = figure.build, 0.24
    sway = 0.006 * np.sin(scene.sway + 3 * progress)
    face = (0.0 + sway, -0.64 - 0.012 * progress)
    tilt = 0.06 * np.sin(scene.sway) - 0.05 * progress
    mouth = toward(face, np.pi / 2 + tilt, 0.54 * figure.head)
    neck, hip = (0.0, -0.43), (0.0, 0.12)
    shoulder = 0.235 * build
    body.hair_behind(canvas, figure, face, tilt)
    other = (-shoulder, -0.36)
    body.arm(canvas, figure, other, (-0.32 * build, -0.1), (-0.3 * build, 0.15), size, 0.92)
    canvas.solid([[(0, -0.52, 0.075), (0, -0.38, 0.085)]], shade(figure.skin, 0.9))
    torso = [(-shoulder, -0.35, 0.07), (shoulder, -0.35, 0.07), (-0.11, -0.39, 0.06), (0.11, -0.39, 0.06)]
    torso += [(-0.19 * build, 0.05, 0.08), (0.19 * build, 0.05, 0.08)]
    body.shirt(canvas, figure, torso, neck, hip, 0.36)
    canvas.solid([[(-0.055, -0.425, 0.03), (0.055, -0.425, 0.03), (0, -0.37, 0.03)]], shade(figure.skin, 0.93), False)
    body.head_front(canvas, figure, face, tilt, min(1.0, max(0.0, 2 * progress - 0.9)))
    # the hand's way bulges outwards; the held thing turns from upright to the mouth
    rest, close = (0.37, -0.23), (mouth[0] + 0.145, mouth[1] + 0.14)
    wrist = (
        rest[0] + (close[0] - rest[0]) * progress + 0.05 * np.sin(np.pi * progress),
        rest[1] + (close[1] - rest[1]) * progress,
    )
    upright, aimed = -np.pi * 0.54, float(np.arctan2(mouth[1] - close[1], mouth[0] - close[0]))
    angle = upright + (aimed - upright) * progress
    top = (shoulder, -0.34)
    elbow = _foreshortened(top, wrist, 0.5, (0.55, 0.84))
    body.arm(canvas, figure, top, elbow, wrist, size, 1.0)
    body.hand(canvas, figure, wrist, size * 1.05)
    things.held(canvas, scene.thing, scene.thing_colour, wrist, angle, 0.19 * scene.thing_size)
    body.fingers(canvas, figure, wrist, angle, size, 2 if scene.thing == "cigarette" else 4)


def _raise(image: np.ndarray, scene: Scene, progress: float, at: Point) -> None:
    """The whole figure from the front: both arms take a load from the hips to above the head."""
    canvas = Canvas(image, (at[0], 0.93 + at[1]), scene.zoom, scene.mirror, scene.light)
    figure = scene.figure._replace(head=0.078 * scene.figure.head)
    build, size = figure.build, 0.135
    canvas.shadow(0.0, 0.30)
    dip = 0.018 * np.sin(np.pi * progress)
    hip, chest = -0.36 + dip, -0.565 + dip
    for side in (-1, 1):
        foot = (side * 0.1 * build, -0.045)
        knee = (side * 0.1 * build, -0.2 + 0.4 * dip)
        body.shoe(canvas, figure, foot, side * 0.02, size, 1.0)
        body.leg(canvas, figure, (side * 0.06 * build, hip), knee, foot, size, 0.95)
    canvas.solid([[(0, chest - 0.09, 0.035), (0, chest - 0.02, 0.04)]], shade(figure.skin, 0.9))
    shoulder = 0.115 * build
    face = (0.0, chest - 0.145)
    body.hair_behind(canvas, figure, face, 0.0)
    torso = [
        (-shoulder, chest, 0.035),
        (shoulder, chest, 0.035),
        (-0.075 * build, hip, 0.05),
        (0.075 * build, hip, 0.05),
    ]
    body.shirt(canvas, figure, torso, (0.0, chest - 0.04), (0.0, hip + 0.05), 0.2)
    body.head_front(canvas, figure, face, 0.0, 0.3)
    reach = 0.16 if scene.thing == "barbell" else 0.16 * scene.thing_size
    low, high = hip + 0.02, chest - 0.27
    level = low + (high - low) * (0.02 + 0.94 * scene.extent * progress)
    if scene.thing == "barbell":
        things.barbell(canvas, (0.0, level), 0.40 * scene.thing_size, 0.085, scene.thing_colour)
    else:
        tall = 0.17 * scene.thing_size
        things.box(canvas, (-reach, level - tall * 0.55), 2 * reach, tall, scene.thing_colour, scene.thing)
    for side in (-1, 1):
        top, wrist = (side * shoulder, chest), (side * reach, level)
        elbow = _foreshortened(top, wrist, 0.32, (side * 0.75, 0.66))
        body.arm(canvas, figure, top, elbow, wrist, size, 1.0)
        body.hand(canvas, figure, wrist, size * 1.1)


def _push(image: np.ndarray, scene: Scene, progress: float, at: Point) -> None:
    """From the side: the figure walks behind a crate and straightens its arms."""
    canvas = Canvas(image, (at[0] * 0.5, 0.93 + at[1]), scene.zoom, scene.mirror, scene.light)
    figure = scene.figure._replace(head=0.076 * scene.figure.head)
    size, travel = 0.14, 0.20 * scene.extent
    walked = travel * progress
    x = -0.46 + walked
    canvas.shadow(x + 0.25, 0.42)
    lean = 0.35 + 0.6 * scene.extent * progress  # into the load, which lowers the head
    hip = (x, -0.385)
    chest = (hip[0] + 0.25 * np.sin(lean), hip[1] - 0.25 * np.cos(lean))
    face = toward(chest, 0.9 * lean + 0.1 - np.pi / 2, 0.145)
    grip = (chest[0] + 0.12 + 0.11 * progress, -0.40)
    tall, wide = 0.44, 0.36 * scene.thing_size
    things.box(canvas, (grip[0] + 0.02, -tall), wide, tall, scene.thing_colour, scene.thing)
    feet = _steps(walked, scene.sway)
    for k, dim in ((1, 0.72), (0, 1.0)):
        foot = (x - 0.06 + feet[k][0], -0.045 - feet[k][1])
        knee = _bend(hip, foot, 0.19, 0.185, -1)
        if k == 1:
            _side_arm(canvas, figure, chest, (grip[0], grip[1] - 0.03), size, dim)
        body.shoe(canvas, figure, foot, 0.05, size, dim)
        body.leg(canvas, figure, hip, knee, foot, size, dim)
    build = figure.build
    body.shirt(canvas, figure, [(*chest, 0.062 * build), (*hip, 0.058 * build)], chest, hip, 0.16)
    canvas.solid(
        [[(chest[0] + 0.03, chest[1] - 0.03, 0.036), (face[0] - 0.02, face[1] + 0.04, 0.034)]], figure.skin, False
    )
    body.head_side(canvas, figure, face, 0.3 * lean)
    _side_arm(canvas, figure, chest, (grip[0], grip[1] + 0.03), size, 1.0)


def _steps(walked: float, phase: float) -> tuple[Point, Point]:
    """Where the feet are, relative to the hip, after `walked`: x and height above the floor."""
    stride, feet = 0.42, []
    for half in (0.0, 0.5):
        cycle = (walked / stride + phase / (2 * np.pi) + half) % 1.0
        if cycle < 0.5:  # on the floor while the body passes over it
            feet.append((stride * (0.25 - cycle), 0.0))
        else:
            swing = (cycle - 0.5) * 2
            feet.append((stride * (-0.25 + 0.5 * swing), 0.05 * float(np.sin(np.pi * swing))))
    return feet[0], feet[1]


def _side_arm(canvas: Canvas, figure: Figure, shoulder: Point, wrist: Point, size: float, dim: float) -> None:
    elbow = _bend(shoulder, wrist, 0.145, 0.14, 1)
    body.arm(canvas, figure, shoulder, elbow, wrist, size, dim)
    body.hand(canvas, figure, wrist, size * 1.1, dim)


def _sit(image: np.ndarray, scene: Scene, progress: float, at: Point) -> None:
    """From the side: the figure lets itself down on a chair."""
    canvas = Canvas(image, (at[0] + 0.06 * scene.mirror, 0.95 + at[1]), scene.zoom, scene.mirror, scene.light)
    figure = scene.figure._replace(head=0.085 * scene.figure.head)
    size = 0.15
    canvas.shadow(-0.06, 0.30)
    seat = -0.245
    things.chair(canvas, -0.31, -0.06, seat, 0.0, scene.thing_colour, scene.thing)
    ankle = (0.03, -0.045)
    # stands upright over its feet, sits back on the seat, and leans forward between the two
    hip = (0.015 - 0.20 * progress, -0.43 + (seat + 0.43 - 0.065) * progress)
    lean = 0.05 + 0.62 * np.sin(np.pi * progress) * (1 - 0.2 * progress) - 0.08 * progress
    chest = (hip[0] + 0.235 * np.sin(lean), hip[1] - 0.235 * np.cos(lean))
    face = (chest[0] + 0.11 * np.sin(0.6 * lean) + 0.015, chest[1] - 0.125 * np.cos(0.6 * lean))
    knee = _bend(hip, ankle, 0.205, 0.195, -1)
    wrist = (
        hip[0] + 0.10 + 0.09 * progress + 0.10 * np.sin(np.pi * progress),
        hip[1] - 0.02 - 0.03 * np.sin(np.pi * progress),
    )
    for dim, offset in ((0.72, 0.03), (1.0, 0.0)):
        foot = (ankle[0] + offset, ankle[1] - 0.4 * offset)
        if dim < 1:
            _side_arm(canvas, figure, chest, (wrist[0] + 0.03, wrist[1]), size, dim)
        body.shoe(canvas, figure, foot, 0.055, size, dim)
        body.leg(canvas, figure, hip, (knee[0] + offset, knee[1] - 0.4 * offset), foot, size, dim)
    build = figure.build
    body.shirt(canvas, figure, [(*chest, 0.064 * build), (*hip, 0.062 * build)], chest, hip, 0.17)
    canvas.solid([[(chest[0], chest[1] - 0.03, 0.04), (face[0] - 0.015, face[1] + 0.05, 0.036)]], figure.skin, False)
    body.head_side(canvas, figure, face, 0.3 * lean)
    _side_arm(canvas, figure, chest, wrist, size, 1.0)


_PAINTERS = {**dict.fromkeys(TO_MOUTH, _to_mouth), "raise": _raise, "push": _push, "sit": _sit}
