"""From chunks of decoded frames to what a network is shown of them: computed in worker processes, without PyTorch.

Frame i and the flow from it to frame i+1 have the same index, and both are prepared once, in however many windows they
are. `OfI3D` prepares them as I3D was trained, `OfTrained` as a checkpoint of `ccs train` was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ccs.clips import transforms
from ccs.clips.settings import ClipSettings
from ccs.flow import engines, shard
from ccs.flow.quantise import check_bound, check_finite
from ccs.flow.settings import GpuSettings, Parameters
from ccs.flow.streams import Chunk, End, Reading
from ccs.frames.commands import shorter_side
from ccs.frames.decode import scaled_size
from ccs.shards.reader import decode_jpeg
from ccs.stage import CcsError
from ccs.trained import Preparation

STREAMS = ("rgb", "flow")
NICENESS = 5  # of workers


class Piece(NamedTuple):
    """A chunk of a video for a worker, and its result's way back."""

    job: int
    path: str
    chunk: Chunk


class Prepared(NamedTuple):
    """What there is of the pairs of a piece.

    `streams` has rgb, uint8 (pairs, 3, S, S), those pairs' first frames, and flow, (pairs, 2, S, S), as far as they
    are wanted. `times` are the seconds at which the first frames are shown, and in the end the last frame.
    """

    job: int
    streams: dict[str, np.ndarray]
    num_pairs: int
    fps: float
    times: np.ndarray
    end: End | None


class _Size(NamedTuple):
    height: int
    width: int


@dataclass(frozen=True)
class OfI3D:
    """The published preprocessing: flow of the scaled frames, both streams' centre squares.

    RGB is left as uint8. Flow is clipped at `bound` and scaled so that 128 is none and 0.5 and 255.5 are the bounds:
    what the network makes [-1, 1] of.
    """

    streams: tuple[str, ...]
    short_side: int = 256  # px
    crop: int = 224  # px
    bound: float = 20.0  # px
    parameters: Parameters = Parameters()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        if not 3 <= self.short_side <= 9999:
            raise CcsError(f"--short-side: expected 3 to 9999 pixels, found {self.short_side}")
        if not 3 <= self.crop <= self.short_side:
            raise CcsError(f"--crop: expected 3 pixels to --short-side, which is {self.short_side}, found {self.crop}")
        check_bound(self.bound)

    def reading(self, **options: Any) -> Reading:
        """How the videos are read; `options` are other fields of `Reading`."""
        square = self.crop if "rgb" in self.streams else None
        return Reading(size=shorter_side(self.short_side), square=square, **options)

    def of(self, pieces: list[Piece], backend: str, memory: int) -> list[dict[str, np.ndarray]]:
        """Of each piece the flow: RGB needs no worker."""
        videos = [piece.chunk.frames for piece in pieces]
        made = []
        for flow in engines.estimate_videos(videos, backend, memory, **self.parameters.to_names()):
            top, left = ((side - self.crop) // 2 for side in flow.shape[2:])
            cut = flow[:, :, top : top + self.crop, left : left + self.crop]
            check_finite(np.isfinite(cut).all())
            made.append({"flow": 128 + np.clip(cut, -self.bound, self.bound) * np.float32(127.5 / self.bound)})
        return made

    def settings(self) -> Mapping[str, Any]:
        """For records."""
        of_flow = {"bound": self.bound, **self.parameters.to_names()} if "flow" in self.streams else {}
        return {"short_side": self.short_side, "crop": self.crop, **of_flow}


@dataclass(frozen=True)
class OfTrained:
    """As in the stages of the pipeline: JPEG frames, their flow in 8 bits, the centre crop of both; uint8."""

    preparation: Preparation
    clips: ClipSettings
    flow_length: int
    streams: tuple[str, ...] = STREAMS

    @property
    def parameters(self) -> Parameters:
        """Of the flow."""
        return self.preparation.parameters

    def reading(self, **options: Any) -> Reading:
        """How the videos are read; `options` are other fields of `Reading`."""
        frames = self.preparation.frames
        return Reading(size=scaled_size(frames), quality=frames.quality, **options)

    def of(self, pieces: list[Piece], backend: str, memory: int) -> list[dict[str, np.ndarray]]:
        """The streams of each piece."""
        tasks = [shard.Piece(self._video(piece), piece.chunk.first, piece.chunk.jpegs) for piece in pieces]
        bound = self.preparation.bound
        flows = shard.compute(tasks, backend=backend, parameters=self.parameters, bound=bound, memory=memory)
        return [self._cropped(piece.chunk, pairs.values) for piece, pairs in zip(pieces, flows, strict=True)]

    @staticmethod
    def _video(piece: Piece) -> shard.VideoFrames:
        frames = piece.chunk.frames
        return shard.VideoFrames(str(piece.job), piece.path, len(frames), *frames.shape[1:3])

    def _cropped(self, chunk: Chunk, flow: np.ndarray) -> dict[str, np.ndarray]:
        size = _Size(*chunk.frames.shape[1:3])
        (crop,) = transforms.test_crops(*size, self.clips, crops=1)
        side = self.clips.input_size
        frames = np.stack([decode_jpeg(np.frombuffer(jpeg, np.uint8), size) for jpeg in chunk.jpegs[: len(flow)]])
        return {
            "rgb": transforms.apply_rgb(frames, crop, side),
            "flow": transforms.apply_flow(flow, crop, side, flow_length=self.flow_length),
        }

    def settings(self) -> Mapping[str, Any]:
        """For records: the checkpoint says it all."""
        return {}


def prepare(
    task: list[Piece], *, how: OfI3D | OfTrained, backend: str, memory: int = GpuSettings.gpu_memory
) -> list[Prepared]:
    """In a worker: a few chunks."""
    try:
        made = how.of(task, backend, memory)
    except CcsError as error:
        raise CcsError(f"{', '.join(piece.path for piece in task)}: {error}") from error
    return [prepared(piece, streams) for piece, streams in zip(task, made, strict=True)]


def prepared(piece: Piece, streams: dict[str, np.ndarray]) -> Prepared:
    """What there is of a piece, with the streams that are made of it."""
    chunk = piece.chunk
    num_pairs = len(chunk.frames) - 1
    times = chunk.times if chunk.end else chunk.times[:num_pairs]
    return Prepared(piece.job, streams, num_pairs, chunk.fps, times, chunk.end)


def set_up(index: int, *, backend: str) -> None:
    """Of a worker: it gives way to the network, which waits for workers when it has nothing to do."""
    if "cuda" not in backend:
        os.nice(NICENESS)
    engines.BACKENDS[backend].set_up(index)
