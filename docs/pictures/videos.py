"""Pictures of the demo's videos: their frames, their flow, and what the network's verdict relies on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import files
import numpy as np
import plots
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ccs
from ccs import scores
from ccs.datasets import manifests
from ccs.figures import cam, style
from ccs.figures.figure6.__main__ import choose
from ccs.flow.pictures import colours
from ccs.frames import decode
from ccs.frames.film import check_ffmpeg, find_ffmpeg
from ccs.frames.settings import FramesSettings
from ccs.prediction import Classifier, VideoReader
from ccs.shards.reader import decode_jpeg

OVERVIEW = ("smoke", "raise_crate", "raise_present", "lower_crate")
FILMS = ("raise_crate", "smoke")
NOISE = 0.25  # px: what moves less is left white
SEGMENTS = 0, 2, 4, 6, 7  # of the 8 of a film
STRIP = 1, 5, 9, 13  # of the classes
WHY = """\
Motion tells up from down, looks tell crates from presents.
Which of the two it is that moves is told only by streams
that cooperate."""
PATCH, STEP = 16, 4  # px of the network's 64 x 64: what is covered, and how far it moves


class Video(NamedTuple):
    """A test video. frames: uint8 (T, H, W, 3) as it was filmed; motion: (T-1, 2, H, W) px, without the camera's."""

    frames: np.ndarray
    motion: np.ndarray
    path: str


def read(project: Path, video: str) -> Video:
    """A video of the demo at its own size, with its TV-L1 flow less what the camera does."""
    path = str(next((project / "data/demo/videos").rglob(f"{Path(video).name}.*")))
    decoded = _decoded(path, FramesSettings(short_side=144))
    spans = zip(decoded.offset[:-1], decoded.offset[1:], strict=True)
    frames = np.stack([decode_jpeg(decoded.jpeg[start:stop], decoded) for start, stop in spans])
    flow = ccs.flow.estimate(frames)
    return Video(frames, flow - np.stack([_of_camera(pair) for pair in flow]), path)


def _of_camera(flow: np.ndarray) -> np.ndarray:
    """The shift, turn and zoom that most of a pair's flow (2, H, W) follows, as flow."""
    places = np.stack(np.meshgrid(*map(np.arange, flow.shape[:0:-1])), axis=-1).astype(np.float32)  # x, y
    some = (slice(None, None, 4),) * 2
    before, after = places[some].reshape(-1, 2), (places + np.moveaxis(flow, 0, -1))[some].reshape(-1, 2)
    matrix, _ = cv2.estimateAffinePartial2D(before, after, method=cv2.RANSAC, ransacReprojThreshold=0.25)
    return np.moveaxis(places @ matrix[:, :2].T + matrix[:, 2] - places, -1, 0)


def _decoded(path: str, settings: FramesSettings) -> decode.DecodedVideo:
    ((_, decoded),) = decode.extract([manifests.VideoFile(path, path)], settings, check_ffmpeg(find_ffmpeg()))
    return decoded


def painted(motion: np.ndarray) -> np.ndarray:
    """Flow (n, 2, H, W) in colours, uint8 (n, H, W, 3): one scale, that of the fastest thing in them."""
    speed = np.hypot(motion[:, 0], motion[:, 1])
    share = np.clip((speed - NOISE) / (np.percentile(speed, 99.7) - NOISE), 0, 1) ** 0.75
    return colours(motion / np.maximum(speed, 1e-6)[:, None] * share[:, None])


def busiest(video: Video) -> int:
    """The pair in which something moves most."""
    speed = np.hypot(video.motion[:, 0], video.motion[:, 1])
    return int(np.percentile(speed, 97, axis=(1, 2)).argmax())


def surest(result: scores.Scores, name: str) -> str:
    """Of the class's test videos that of which the run is surest, and right."""
    return result.video[choose(result, result.classes.index(name))]


class Reliance:
    """What a network's verdict on a video relies on: how far it falls when a square of both its inputs is covered.

    A frame is covered by its mean colour, flow by no motion. (Maps of a class, `ccs predict --cam`, are of the
    network's last positions, of which the demo's small network has 2 by 2.)
    """

    def __init__(self, network: Classifier, path: str) -> None:
        self.network, preparation = network, network.preparation()
        self.reader = VideoReader(path, _decoded(path, preparation.frames), preparation)
        rgb, flow = (crops[0] for crops in network.clip(self.reader, network.settings.segments))
        side = rgb.shape[-1]
        corners = range(STEP - PATCH, side, STEP)
        self.size = len(corners)
        colour = rgb.float().mean(dim=(-1, -2), keepdim=True).round().to(rgb.dtype)
        pictures, motions = [rgb], [flow]
        for top in corners:
            for left in corners:
                square = (..., slice(max(top, 0), top + PATCH), slice(max(left, 0), left + PATCH))
                pictures.append(rgb.clone())
                pictures[-1][square] = colour.expand_as(rgb)[square]
                motions.append(flow.clone())
                motions[-1][square] = 128  # no motion
        self.rgb, self.flow = torch.stack(pictures), torch.stack(motions)

    def falls(self, label: int, covered: Sequence[str] = ("rgb", "flow"), segment: int | None = None) -> np.ndarray:
        """By how much the class's logit of RGB+Flow falls, (n, n): a square a cell.

        covered: the inputs in which the square is. segment: of the video, the only one in which it is; None: all.
        """
        which = slice(None) if segment is None else slice(segment, segment + 1)
        found = []
        with torch.inference_mode():
            for start in range(0, len(self.rgb), 64):
                clips = []
                for name, every in (("rgb", self.rgb), ("flow", self.flow)):
                    some = every[start : start + 64]
                    clip = every[:1].repeat(len(some), *[1] * (every.ndim - 1))
                    if name in covered:
                        clip[:, which] = some[:, which]
                    clips.append(clip)
                logits = self.network.model(*clips)
                found.append(logits.rgb[:, label] + logits.flow[:, label])
        whole, *others = torch.cat(found).tolist()
        return (whole - np.array(others)).reshape(self.size, self.size)


def lit(frame: np.ndarray, falls: np.ndarray, top: float) -> np.ndarray:
    """The frame, dark where nothing falls and as it is where the verdict falls by `top`."""
    height, width = frame.shape[:2]
    # cell i is the square whose middle is at (i + 1) STEP - PATCH / 2, from outside the frame to outside it
    side = (len(falls) + 1) * STEP - PATCH
    middle = (np.arange(len(falls)) + 1) * STEP - PATCH / 2
    across = (np.arange(width) + 0.5) / width * side
    down = (np.arange(height) + 0.5) / height * side
    share = np.clip(falls / top, 0, 1)
    rows = np.stack([np.interp(across, middle, line) for line in share])
    share = np.stack([np.interp(down, middle, column) for column in rows.T], axis=1)[..., None]
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) * 0.38
    return np.rint((1 - share) * grey + share * frame).astype(np.uint8)


def _picture(figure: Figure, left: float, top: float, width: float, picture: np.ndarray) -> Axes:
    axes = style.place(figure, left, top, width, width * picture.shape[0] / picture.shape[1])
    axes.imshow(picture, interpolation="lanczos", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=style.GRID)
    return axes


def _beside(figure: Figure, left: float, middle: float, text: str) -> None:
    style.write(figure, left, middle, text, fontsize=14, rotation=90, va="center", ha="center", linespacing=1.2)


def draw_overview(project: Path) -> None:
    """overview.png: four videos, their flow, what CCS relies on, and what it and separate streams say."""
    run = project / "results/runs/demo/split1/ccs"
    network, result = ccs.load(run / "seed0"), scores.read(run / "seed0/scores.h5")
    width, height, gap, left, top = 1.6, 1.2, 0.06, 0.6, 0.4
    figure = style.new_figure(13.0, 4.22)
    for column, name in enumerate(OVERVIEW):
        video = read(project, surest(result, name))
        moment = busiest(video)
        falls = Reliance(network, video.path).falls(result.classes.index(name))
        frame = video.frames[moment]
        x = left + column * (width + gap)
        style.write(figure, x + width / 2, 0.12, plots.said(name), fontsize=14.5, ha="center")
        pictures = frame, painted(video.motion[moment : moment + 1])[0], lit(frame, falls, np.percentile(falls, 98))
        for row, picture in enumerate(pictures):
            _picture(figure, x, top + row * (height + gap), width, picture)
    for row, text in enumerate(("frame", "motion", "what CCS\nrelies on")):
        _beside(figure, 0.3, top + row * (height + gap) + height / 2, text)
    plots.two_confusions(figure, project, left=8.6, top=0.66, side=2.1)
    style.write(figure, 7.5, 3.26, WHY, fontsize=13, linespacing=1.4)
    files.save(figure, "overview.png")


def draw_classes(project: Path) -> None:
    """classes.png: a test video of each class, its frames and its flow at four moments."""
    result = scores.read(project / "results/runs/demo/split1/ccs/seed0/scores.h5")
    width, height, gap, top = 1.32, 0.99, 0.04, 0.62
    block_width, block_height = len(STRIP) * (width + gap) + 0.2, 2 * (height + gap) + 0.38
    figure = style.new_figure(2 * block_width, top + 4 * block_height - 0.02)
    text = "Eight classes: some frames of a video of each, and below them its motion, without the camera's."
    style.write(figure, 0.1, 0.16, text, fontsize=12)
    style.write(figure, 2 * block_width - 0.78, 0.16, "direction:", fontsize=12, ha="right")
    wheel = style.place(figure, 2 * block_width - 0.72, 0.04, 0.6, 0.6)
    wheel.imshow(_wheel(100))
    wheel.set_axis_off()
    for number, name in enumerate(plots.CLASSES):
        video = read(project, surest(result, name))
        row, column = number % 4, number // 4
        left, start = 0.1 + column * block_width, top + row * block_height
        style.write(figure, left, start + 0.08, plots.said(name), fontsize=12, fontweight="bold")
        lines = video.frames[list(STRIP)], painted(video.motion)[list(STRIP)]
        for line, pictures in enumerate(lines):
            for place, picture in enumerate(pictures):
                y = start + 0.33 + line * (height + gap)
                _picture(figure, left + place * (width + gap), y, width, picture)
    files.save(figure, "classes.png", dpi=100)


def _wheel(side: int) -> np.ndarray:
    """The colours of motion by its direction from the middle, uint8 (side, side, 3); white outside."""
    place = (np.arange(side) + 0.5) / side * 2 - 1
    motion = np.stack(np.broadcast_arrays(place[None, :], place[:, None]))
    return colours(np.where(np.hypot(*motion) <= 1, motion, 0)[None])[0]


def draw_film(project: Path) -> None:
    """activation.png: two videos over time, what the verdict relies on in either input, and an activation map."""
    run = project / "results/runs/demo/split1/ccs"
    network, result = ccs.load(run / "seed0"), scores.read(run / "seed0/scores.h5")
    width, height, gap, left, top = 1.14, 0.855, 0.04, 1.62, 0.42
    block = len(SEGMENTS) * (width + gap) + 0.16
    figure = style.new_figure(left + 2 * block - 0.1, top + 5 * (height + gap) + 0.08)
    for column, name in enumerate(FILMS):
        x = left + column * block
        style.write(figure, x, 0.12, plots.said(name), fontsize=12, fontweight="bold")
        for row, pictures in enumerate(_film(network, read(project, surest(result, name)), name)):
            for place, picture in enumerate(pictures):
                _picture(figure, x + place * (width + gap), top + row * (height + gap), width, picture)
    labels = (
        "frame",
        "motion",
        "what is relied on\nin the frames",
        "what is relied on\nin the motion",
        "activation map,\nRGB stream",
    )
    for row, text in enumerate(labels):
        middle = top + row * (height + gap) + height / 2
        style.write(figure, left - 0.12, middle, text, fontsize=12, va="center", ha="right", linespacing=1.2)
    files.save(figure, "activation.png", dpi=110)


def _film(network: Classifier, video: Video, name: str) -> list[np.ndarray]:
    """Rows of pictures at the moments of `SEGMENTS`."""
    label = network.classes.index(name)
    reliance = Reliance(network, video.path)
    of_rgb, times = network.maps(reliance.reader, stream="rgb", label=label)
    chosen, moments = list(SEGMENTS), times[list(SEGMENTS)].astype(int)
    frames = video.frames[moments]
    rows = [frames, painted(video.motion)[moments]]
    for covered in ("rgb", "flow"):
        falls = [reliance.falls(label, (covered,), segment) for segment in SEGMENTS]
        top = np.percentile(falls, 99)
        rows.append(np.stack([lit(frame, fall, top) for frame, fall in zip(frames, falls, strict=True)]))
    return [*rows, cam.overlay(frames, cam.shares(of_rgb)[chosen])]
