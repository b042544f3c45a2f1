"""TV-L1 on the CPU by an engine of our own: OpenCV's flow, rounding for rounding, many times faster.

What OpenCV does well it still does here: the pyramid, the resizing of the flow between levels and the median filter.
The iterations and the warps are `ccs.flow.kernels`. A frame's pyramid is computed once and serves both pairs that the
frame belongs to; nothing is allocated in the loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from ccs.flow import kernels
from ccs.flow.kernels import BORDER, FIELDS, LANES, PAD, SLOTS, U1, U2
from ccs.flow.pyramid import MIN_LEVEL_SIDE, level_sizes, pyramid
from ccs.flow.settings import Parameters
from ccs.stage import CcsError

# bytes that the rows may take that a pass of several iterations is at: most of a level-2 cache of 1 MiB
CACHE = 3 << 18
DEEPEST = 8  # iterations in such a pass at most: more gain little, and more are in vain where it goes too far


def set_up(index: int) -> None:
    """One thread a process: processes gain more than threads."""
    cv2.setNumThreads(1)


def compile_all() -> None:
    """Compile, or load, everything that any call needs."""
    estimate_videos([np.zeros((2, MIN_LEVEL_SIDE, MIN_LEVEL_SIDE), np.uint8)], Parameters(), 0)


def estimate_videos(videos: Sequence[np.ndarray], parameters: Parameters, memory: int) -> list[np.ndarray]:
    """`ccs.flow.engines.estimate_videos` on the CPU; `memory` has no say here, gamma is not used."""
    flows = []
    for frames in videos:
        num_frames, height, width = frames.shape
        flow = np.empty((num_frames - 1, 2, height, width), np.float32)
        if num_frames > 1:
            engine = _Engine(height, width, parameters)
            pyramids = map(engine.pyramid, frames)
            try:
                for pair, (first, second) in enumerate(itertools.pairwise(pyramids)):
                    engine.estimate(first, second, flow[pair])
            except OSError as error:
                raise CcsError(
                    f"flow: compiled code cannot be kept: {error}. Make room there, or name another folder in the "
                    "environment variable NUMBA_CACHE_DIR"
                ) from error
        flows.append(flow)
    return flows


class _Engine:
    """The working memory for frames of one size, about 90 bytes a pixel; a pyramid is 10 more."""

    def __init__(self, height: int, width: int, parameters: Parameters):
        self.parameters = parameters
        self.sizes = level_sizes(height, width, parameters)
        up = _round_up(width)
        # reads and writes of whole vectors may pass the end of the last row
        self.state = _aligned((height + 1) * SLOTS * _pitch(up) + PAD)
        self.source = _aligned(4 * (height + 2 * BORDER) * (width + 2 * BORDER))
        self.weights, self.samples = _aligned(8 * up), _aligned(4 * up)
        self.rows, self.columns = _aligned(5 * (up + 2 * PAD)), _aligned(5 * (up + 2 * PAD))
        self.corners = np.zeros(2 * up, np.int32)
        self.changes = np.zeros(DEEPEST, np.float32)

    def pyramid(self, frame: np.ndarray) -> list[np.ndarray]:
        """Float32 levels of a frame, the finest first, each as `kernels.gradients` wants it."""
        levels = []
        for level in pyramid(frame, len(self.sizes), self.parameters.scale_step):
            height, width = level.shape
            up = _round_up(width)
            levels.append(_aligned(PAD + height * up + PAD))
            levels[-1][PAD:-PAD].reshape(height, up)[:, :width] = level
        return levels

    def estimate(self, first: list[np.ndarray], second: list[np.ndarray], out: np.ndarray) -> None:
        """Write the flow (2, H, W) between the frames of two pyramids into `out`."""
        flow = None
        for (height, width), level, other in reversed(list(zip(self.sizes, first, second, strict=True))):
            flow = self._level(height, width, level, other, flow)
        out[:] = flow

    def _level(
        self, height: int, width: int, first: np.ndarray, second: np.ndarray, coarser: list[np.ndarray] | None
    ) -> list[np.ndarray]:
        parameters = self.parameters
        up = _round_up(width)
        pitch = _pitch(up)
        planes = self.state[: (height + 1) * SLOTS * pitch].reshape(height + 1, SLOTS, pitch)
        # the rest is written before it is read
        planes[:, :FIELDS] = planes[:, FIELDS : 2 * FIELDS, :PAD] = 0
        flows = [[planes[1:, side * FIELDS + u, PAD : PAD + width] for u in (U1, U2)] for side in (0, 1)]
        if coarser is not None:
            for component, old in zip(flows[0], coarser, strict=True):
                resized = cv2.resize(old, (width, height), interpolation=cv2.INTER_LINEAR)
                # pyrefly: ignore [no-matching-overload] - OpenCV multiplies by a number too; its types know arrays only
                component[:] = cv2.multiply(resized, 1 / parameters.scale_step)
        inside = np.zeros(LANES, np.float32)
        inside[: width - up + LANES] = 1
        lt, theta, taut, stop = (
            np.float32(value)
            for value in (
                parameters.lambda_ * parameters.theta,
                parameters.theta,
                parameters.tau / parameters.theta,
                parameters.epsilon * parameters.epsilon * height * width,
            )
        )
        shape, side = (height, width, up), 0
        deep = max(1, min(CACHE // (4 * (SLOTS - FIELDS) * pitch) - 2, DEEPEST))
        kernels.gradients(second, self.source, *shape)
        for _ in range(parameters.warps):
            kernels.warp(self.state, side, self.source, first, *shape, pitch, self.weights, self.corners, self.samples)
            change = np.inf
            for _ in range(parameters.outer_iterations):
                if not change > stop:
                    break
                if parameters.median_filtering == 5:
                    for u in (U1, U2):
                        kernels.median5(self.state, side * FIELDS + u, *shape, pitch, self.rows, self.columns)
                elif parameters.median_filtering == 3:
                    for component in flows[side]:
                        cv2.medianBlur(component, 3, dst=component)
                change, side = kernels.iterate(
                    self.state,
                    side,
                    *shape,
                    pitch,
                    inside,
                    lt,
                    theta,
                    taut,
                    stop,
                    parameters.inner_iterations,
                    deep,
                    self.changes,
                )
        return [component.copy() for component in flows[side]]


def _round_up(width: int) -> int:
    return -(-width // LANES) * LANES


def _pitch(up: int) -> int:
    # an odd number of cache lines: with an even one, planes would vie for the same few places in the cache
    return PAD * ((-(-up // PAD) + 1) | 1)


def _aligned(size: int) -> np.ndarray:
    # zeros that begin at a cache line
    line = 64 // 4
    buffer = np.zeros(size + line, np.float32)
    return buffer[-(buffer.ctypes.data // 4) % line :][:size]
