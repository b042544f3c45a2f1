"""What happens in a demo video: who is where (`draw_scene`), the moments of the video (`moments`), its frames.

In: seed, split, class and index of a video. Out: RGB frames (T, H, W, 3) uint8, from nothing else.
A frame is a pure function of the scene and one `Moment`, so that a video played backwards is `moments` reversed: so
what is lowered is made from what is raised, with draws of their own. No distribution of single frames can tell the two
directions apart. Nor can a frame tell who acts: the one who keeps still stands as the acting one does in a frame drawn
from those that snippets of five flow pairs show in their middle in training (`ccs.clips.sampling`). One cue of pose is
left: over several frames the still one has one pose, which even a mean of verdicts that are made frame by frame may
feel, and networks that see several frames at once may see.
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

BACKWARDS = {"lower_crate": "raise_crate", "lower_present": "raise_present"}  # class -> the class played backwards
THINGS = {
    "drink": ("glass", "bottle"),
    "eat": ("banana", "ice cream"),
    "smoke": ("cigarette",),
    "sing": ("microphone",),
    "raise_crate": ("crate",),
    "raise_present": ("present",),
}
_THING_COLOURS = {  # hue from and to, saturation, value
    "glass": (0.55, 0.62, 0.9, 1.0),
    "bottle": (0.55, 0.62, 0.85, 0.9),
    "ice cream": (0.13, 0.15, 0.7, 1.0),
    "banana": (0.13, 0.15, 0.85, 1.0),
    "cigarette": (0.1, 0.15, 0.02, 1.15),
    "microphone": (0.6, 1.0, 0.3, 0.25),
    "crate": (0.06, 0.11, 0.55, 0.65),
    "present": (0.93, 1.0, 0.75, 0.9),
}
TO_MOUTH = ("drink", "eat", "smoke", "sing")
UP = ("raise_crate", "raise_present")
FABRICS = {"train": ("plain", "hoops", "checks", "badge"), "test": ("pinstripes", "dots", "sash", "yoke")}
SUPERSAMPLING = 2
_MARGIN = 0.12  # of the background beyond each edge of the frame, in frame heights
_UNSEEN = (2, 3)  # frames at the beginning and at the end that are in the middle of no snippet of 5 flow pairs
_APART = 0.32  # of each person from the middle, in frame heights


class Person(NamedTuple):
    """One of the two in a video, times and distances in whole videos and frame heights."""

    action: str  # the class whose motion they make or are halted in, before any reversal
    figure: Figure
    mirror: int  # 1: acts with the hand on the image's right; -1: the other way round
    thing: str  # what is held or moved
    thing_colour: Colour
    thing_size: float
    zoom: float
    at: Point
    start: float  # of the motion
    end: float
    ease: float  # 0: even speed; 1: starts and stops softly
    extent: float  # of the motion, about 1
    sway: float  # phase of the body's small movements

    def progress(self, time: float) -> float:
        """How far the motion has come, about 0..1, at `time` (0..1) of the video."""
        if self.action in TO_MOUTH:
            # to the mouth and back once, with a rest at the mouth
            turn = 0.5 - 0.5 * np.cos(2 * np.pi * (time * (1.25 - 0.45 * self.ease) + self.start - 0.05))
            return float(self.extent * (1.25 * turn - 0.25 * turn**2))
        done = float(np.clip((time - self.start) / (self.end - self.start), 0, 1))
        return float(done + self.ease * (done * done * (3 - 2 * done) - done))


class Scene(NamedTuple):
    """All that a video is made of."""

    actor: Person
    other: Person  # keeps still, with another thing of the same kind
    halted: float  # the time of their motion at which the other one stands
    side: int  # of the actor: -1 left, 1 right
    place: Place
    floor: float
    light: float  # side of the light, -1..1
    gain: Colour  # of the three channels, in percent
    drift: Point  # of the background over the video
    shake: tuple[Point, ...]  # of the camera, frame by frame


class Moment(NamedTuple):
    """One frame's share of what changes: how far each has come (0..1), the background's and the camera's offset."""

    progress: float
    still: float
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


def draw_figure(seed: int, split: str, index: int, which: int) -> Figure:
    """Figure 0 or 1 (`which`) of every class's video number `index`: they say nothing about the class."""
    rng = _stream(seed, "figure", split, index, which)
    tone = rng.uniform()
    skin = mix((246, 208, 176), (112, 68, 44), tone)
    hairs = ((38, 28, 24), (72, 46, 30), (120, 76, 40), (196, 152, 82), (150, 70, 36), (150, 148, 150))
    shirt = _hue(rng, split, index + 3 * which)  # of two that stand side by side far apart
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
    alike = TO_MOUTH if action in TO_MOUTH else UP
    others = [name for name in alike if name != action]
    other_action = others[int(rng.integers(len(others)))]
    figures = [draw_figure(seed, split, index, which) for which in rng.permutation(2).tolist()]
    actor, other = (
        _draw_person(rng, name, figure) for name, figure in zip((action, other_action), figures, strict=True)
    )
    first, last = _UNSEEN if num_frames > sum(_UNSEEN) else (0, 0)
    seen = int(rng.integers(first, num_frames - last)) / (num_frames - 1)
    gain, warmth = rng.uniform(88, 108), rng.uniform(-6, 6)
    shake = np.cumsum(rng.normal(0, 0.003, (num_frames, 2)), 0) + rng.normal(0, 0.002, (num_frames, 2))
    shake -= shake.mean(0)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.04)
    return Scene(
        actor=actor,
        other=other,
        halted=1 - seen if class_name in BACKWARDS else seen,
        side=1 if rng.integers(2) else -1,
        place=draw_place(seed, split, index),
        floor=rng.uniform(0.74, 0.82),
        light=rng.uniform(-1, 1),
        gain=(round(gain + warmth), round(gain), round(gain - warmth)),
        drift=(speed * float(np.cos(angle)), 0.4 * speed * float(np.sin(angle))),
        shake=tuple((float(x), float(y)) for x, y in np.clip(shake, -0.03, 0.03)),
    )


def _draw_person(rng: np.random.Generator, action: str, figure: Figure) -> Person:
    near = action in TO_MOUTH
    thing = THINGS[action][int(rng.integers(len(THINGS[action])))]
    return Person(
        action=action,
        figure=figure,
        mirror=1 if rng.integers(2) else -1,
        thing=thing,
        thing_colour=_thing_colour(rng, thing),
        thing_size=rng.uniform(0.88, 1.12),
        zoom=rng.uniform(0.74, 0.84) if near else rng.uniform(0.86, 0.98),
        at=(rng.uniform(-0.03, 0.03), rng.uniform(-0.02, 0.02)),
        start=rng.uniform(0.0, 0.1),
        end=rng.uniform(0.9, 1.0),
        ease=rng.uniform(0.2, 0.8),
        extent=rng.uniform(0.92, 1.06),
        sway=rng.uniform(0, 2 * np.pi),
    )


def _thing_colour(rng: np.random.Generator, thing: str) -> Colour:
    low, high, saturation, value = _THING_COLOURS[thing]
    return _colour(rng.uniform(low, high), saturation, value * rng.uniform(0.85, 1.0))


def moments(scene: Scene, class_name: str, num_frames: int) -> list[Moment]:
    """The video's frames in the order in which they are shown."""
    forward = []
    still = scene.other.progress(scene.halted)
    for t in range(num_frames):
        time = t / (num_frames - 1)
        drift = (scene.drift[0] * (time - 0.5), scene.drift[1] * (time - 0.5))
        forward.append(Moment(scene.actor.progress(time), still, drift, scene.shake[t]))
    return forward[::-1] if class_name in BACKWARDS else forward


def frames(scene: Scene, shown: list[Moment], height: int, width: int) -> np.ndarray:
    """Draw the moments: (T, H, W, 3) uint8 RGB."""
    tall, wide = height * SUPERSAMPLING, width * SUPERSAMPLING
    margin = round(_MARGIN * tall)
    near = scene.actor.action in TO_MOUTH
    room = min(1.0, 0.75 * width / height)  # a narrower frame shows them smaller
    people = sorted(((scene.side, scene.actor), (-scene.side, scene.other)), key=lambda each: each[0])  # left one first
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
        for side, person in people:
            at = person.at[0] + room * side * _APART + moment.shake[0], person.at[1] + moment.shake[1]
            progress = moment.progress if person is scene.actor else moment.still
            _PAINTERS[person.action](image, person._replace(zoom=room * person.zoom), progress, at, scene.light)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        drawn[t] = np.clip(image * light, 0, 255).astype(np.uint8)
    return drawn


def _foreshortened(start: Point, end: Point, length: float, out: Point) -> Point:
    """The elbow of an arm that bends towards `out` and towards the camera, so less than its length asks for."""
    span = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    bend = 0.42 * float(np.sqrt(max(0.0, length**2 - span**2)))
    return (start[0] + end[0]) / 2 + out[0] * bend, (start[1] + end[1]) / 2 + out[1] * bend


def _to_mouth(image: np.ndarray, person: Person, progress: float, at: Point, light: float) -> None:
    """From the waist up, seen from the front: a hand brings a thing to the mouth."""
    canvas = Canvas(image, (at[0], 1.0 + at[1]), person.zoom, person.mirror, light)
    figure = person.figure._replace(head=0.175 * person.figure.head)
    build, size = figure.build, 0.24
    sway = 0.006 * np.sin(person.sway + 3 * progress)
    face = (0.0 + sway, -0.64 - 0.012 * progress)
    tilt = 0.06 * np.sin(person.sway) - 0.05 * progress
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
    rest, close = (0.29, -0.21), (mouth[0] + 0.145, mouth[1] + 0.14)
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
    things.held(canvas, person.thing, person.thing_colour, wrist, angle, 0.19 * person.thing_size)
    body.fingers(canvas, figure, wrist, angle, size)


def _raise(image: np.ndarray, person: Person, progress: float, at: Point, light: float) -> None:
    """The whole figure from the front: both arms take a load from the hips to above the head."""
    canvas = Canvas(image, (at[0], 0.93 + at[1]), person.zoom, person.mirror, light)
    figure = person.figure._replace(head=0.078 * person.figure.head)
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
    reach = 0.16 * person.thing_size
    low, high = hip + 0.02, chest - 0.27
    level = low + (high - low) * (0.02 + 0.94 * person.extent * progress)
    tall = 0.17 * person.thing_size
    things.box(canvas, (-reach, level - tall * 0.55), 2 * reach, tall, person.thing_colour, person.thing)
    for side in (-1, 1):
        top, wrist = (side * shoulder, chest), (side * reach, level)
        elbow = _foreshortened(top, wrist, 0.32, (side * 0.75, 0.66))
        body.arm(canvas, figure, top, elbow, wrist, size, 1.0)
        body.hand(canvas, figure, wrist, size * 1.1)


_PAINTERS = {**dict.fromkeys(TO_MOUTH, _to_mouth), **dict.fromkeys(UP, _raise)}
