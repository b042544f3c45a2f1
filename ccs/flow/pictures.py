"""Pictures of flow, and films of them beside their frames: `ccs flow --visualize`.

The colours are those of Baker et al., "A Database and Evaluation Methodology for Optical Flow", International Journal
of Computer Vision 92 (2011), and vision.middlebury.edu/flow: the hue is the direction, with red to the right, and no
motion is white.

A film has one scale, by which a colour is the same velocity in all of it: that of the video's own motion. It is known
when the last pair is, so that meanwhile the pairs wait in a temporary file without a name, beside the film; not as flow
but as two bytes a pixel, hue and speed, compressed.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg

from ccs.frames.film import Ffmpeg
from ccs.frames.film_writer import FilmWriter

SLOWEST = 1 / 64  # px: a speed below it is none
LEVELS_PER_OCTAVE = 16  # of speeds: 4 % from one to the next, and 940 px the fastest
MIN_SCALE = 0.5  # px: what moves less at its fastest is pale, so that noise of a still video is not taken for motion


def _wheel() -> np.ndarray:
    """The 55 colours of the wheel (55, 3), from red by yellow, green, cyan, blue and magenta: 0 to 255, whole."""
    corners = np.array([(255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255)])
    ramps = []
    for begin, end, length in zip(corners, np.roll(corners, -1, axis=0), (15, 6, 4, 11, 13, 6), strict=True):
        ramps.append(begin + np.sign(end - begin) * (255 * np.arange(length) // length)[:, None])
    return np.concatenate(ramps)


WHEEL = _wheel()


def colours(motion: np.ndarray) -> np.ndarray:
    """Pictures, uint8 RGB (n, H, W, 3), of `motion` (n, 2, H, W), x and y, at most 1 long, which has full colour."""
    x, y = motion[:, 0], motion[:, 1]
    place = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (len(WHEEL) - 1)
    before = place.astype(np.intp)
    share = (place - before)[..., None]
    full = (1 - share) * WHEEL[before] + share * WHEEL[(before + 1) % len(WHEEL)]
    return (255 - np.minimum(np.hypot(x, y), 1)[..., None] * (255 - full)).astype(np.uint8)


class Drawn(NamedTuple):
    """What a film needs of a pair."""

    codes: bytes  # compressed: uint8 (2, H, W), hue and speed
    fastest: float  # px, a few outliers aside
    jpeg: bytes  # its first frame


def draw(flow: np.ndarray, jpegs: Sequence[bytes]) -> list[Drawn]:
    """Of flow (pairs, 2, H, W) in pixels and its frames."""
    speed = np.hypot(flow[:, 0], flow[:, 1])
    hue = np.rint(np.arctan2(flow[:, 1], flow[:, 0]) / (2 * np.pi) * 256).astype(np.int64).astype(np.uint8)
    level = np.rint(LEVELS_PER_OCTAVE * np.log2(np.maximum(speed, SLOWEST) / SLOWEST)) + 1
    level = np.where(speed < SLOWEST, 0, np.minimum(level, 255)).astype(np.uint8)
    codes = np.stack([np.where(level, hue, 0).astype(np.uint8), level], axis=1)
    fastest = np.percentile(speed, 99, axis=(1, 2))
    # the last frames have no pair here
    return [
        Drawn(zlib.compress(code, 1), fast, jpeg)
        for code, fast, jpeg in zip(codes, fastest.tolist(), jpegs, strict=False)
    ]


class FlowFilm:
    """A film that is being made at `part`: frames to the left, their flow to the right.

    Attributes:
        scale: when it is finished, the speed in pixels that has full colour.
    """

    def __init__(self, part: Path, height: int, width: int, fps: float, tool: Ffmpeg) -> None:
        self.height, self.width, self.scale = height, width, 0.0
        self._waiting = tempfile.TemporaryFile(dir=part.parent)  # noqa: SIM115 - closed by `close`
        self._sizes: list[tuple[int, int]] = []
        self._fastest: list[float] = []
        self._times: list[np.ndarray] = []
        self._film = FilmWriter(part, height, 2 * width, fps, tool)

    def add(self, drawn: Sequence[Drawn], times: np.ndarray) -> None:
        """The next pairs, shown from `times` on: seconds, NaN where that is unknown."""
        for codes, fastest, jpeg in drawn:
            self._waiting.write(codes + jpeg)
            self._sizes.append((len(codes), len(jpeg)))
            self._fastest.append(fastest)
        self._times.append(times)

    def finish(self) -> None:
        """Write the film. As `add`, raises `OSError` where the disk is full."""
        # of the livelier pairs, but not of the few that a cut, a flash or a fall makes
        self.scale = max(float(np.percentile(self._fastest, 75)), MIN_SCALE)
        palette = _palette(self.scale)
        self._waiting.seek(0)
        for (num_codes, num_jpeg), time in zip(self._sizes, np.concatenate(self._times), strict=True):
            codes = np.frombuffer(zlib.decompress(self._waiting.read(num_codes)), np.uint8)
            hue, level = codes.reshape(2, self.height, self.width)
            frame = simplejpeg.decode_jpeg(self._waiting.read(num_jpeg))
            self._film.write(np.concatenate([frame, palette[hue, level]], axis=1)[None], np.array([time]))
        self._film.finish()

    def close(self) -> None:
        """Let go of everything; a film that is not finished is given up."""
        with suppress(OSError):  # a full disk has been reported
            self._waiting.close()
        self._film.close()


def _palette(scale: float) -> np.ndarray:
    """The colours, uint8 (256, 256, 3), of hues and levels of speed as `draw` has them."""
    hue = np.arange(256)[:, None] * (2 * np.pi / 256)
    speed = np.where(np.arange(256) > 0, SLOWEST * 2 ** ((np.arange(256) - 1) / LEVELS_PER_OCTAVE), 0)
    # the square root lets slow motion show beside fast one
    length = np.sqrt(np.minimum(speed / scale, 1))
    return colours(np.stack([length * np.cos(hue), length * np.sin(hue)])[None])[0]
