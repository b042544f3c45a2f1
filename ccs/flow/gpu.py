"""TV-L1 on CUDA devices by Numba: many videos in, the flow of all their pairs out; the CPU engines' algorithm.

The arithmetic is that of `cv2.optflow.DualTVL1OpticalFlow` of OpenCV 5 and of `ccs.flow.native`, rounding for rounding:
only the sums of the stop test are added up in another order. Pairs of one size, of however many videos, are computed
together; see `gpu_kernels` for how. A pair's flow is the same to the bit whatever it is computed with, and from run to
run.

The host prepares and stores while the device computes: the pyramids of the next batch, which OpenCV makes as it does
for the CPU, go up and flow of the last one comes down on streams of their own, through page-locked memory.

numba-cuda is imported when first needed, so that machines without it can import this module.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata, util
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

import ccs
from ccs.flow.native import level_sizes, pyramid
from ccs.stage import CcsError

if TYPE_CHECKING:
    from ccs.flow.gpu_kernels import Tile
    from ccs.flow.settings import Parameters

PYRAMID_THREADS = 4  # that make a batch's pyramids
MIN_CAPABILITY = (7, 5)  # of devices; CUDA 13 compiles for no older ones
ALIGNMENT = 256  # bytes, of arrays in device memory
MAX_PIXELS, MAX_PAIRS = 1 << 24, 4096  # of a batch: enough to fill any GPU, and bounds page-locked memory
STEPS_PER_LOOK = 16  # steps of the device between two looks at whether all pairs are done
PIECES = 12  # a batch's flow is stored in so many pieces, one between two looks

# kept from call to call
_device_memory = None
_host_memory: dict[str, np.ndarray] = {}  # page-locked, by what it is for
_tile: Tile | None = None  # other than the default, for small simulated devices


def version() -> str:
    """Of everything whose arithmetic is in the flow."""
    return f"{ccs.__version__} (numba-cuda {metadata.version('numba-cuda')}, opencv {cv2.__version__})"


def available() -> str | None:
    """None, or why `estimate_videos` cannot be used here and what to do about it."""
    advice = "or set the flow backend to native or auto."
    if util.find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed. Install it with pip install 'ccs[gpu]', {advice}"
    try:
        from numba import cuda
        from numba.core import config
        from numba.cuda.cudadrv.driver import driver

        if config.ENABLE_CUDASIM:
            return f"Numba simulates CUDA, which is slow. Unset NUMBA_ENABLE_CUDASIM, {advice}"
        if not cuda.is_available():
            reason = " ".join(str(cuda.cuda_error() or "libnvvm is missing").split())
            return f"numba-cuda finds no usable GPU: {reason} Check nvidia-smi and CUDA_VISIBLE_DEVICES, {advice}"
        devices = cuda.list_devices()
        if len(devices) == 0:
            return f"the CUDA driver lists no GPU. Check nvidia-smi and CUDA_VISIBLE_DEVICES, {advice}"
        needed, found = cuda.runtime.get_version(), driver.get_version()
        if found[0] < needed[0]:
            return (
                f"the driver supports CUDA {found[0]}.{found[1]}, the installed libraries are of CUDA {needed[0]}. "
                f"Update the driver, install numba-cuda[cu{found[0]}], {advice}"
            )
        for index, device in enumerate(devices):
            if tuple(device.compute_capability) < MIN_CAPABILITY:
                return (
                    f"GPU {index} has compute capability {'.'.join(map(str, device.compute_capability))}; "
                    f"{'.'.join(map(str, MIN_CAPABILITY))} is needed. Leave it out of CUDA_VISIBLE_DEVICES, {advice}"
                )
    except Exception as error:  # whatever is wrong with an installation, the other engines work
        return f"numba-cuda fails: {' '.join(str(error).split()) or type(error).__name__} Install it again, {advice}"
    return None


def num_devices() -> int:
    """CUDA devices of those visible (CUDA_VISIBLE_DEVICES); 0 where there is no driver."""
    try:
        from numba import cuda

        return len(cuda.list_devices())
    except Exception:
        return 0


def set_up(index: int) -> None:
    """Take device `index` in this process."""
    from numba import cuda

    with _advice():
        cuda.select_device(index)


def estimate_videos(videos: Sequence[np.ndarray], parameters: Parameters, memory: int) -> list[np.ndarray]:
    """TV-L1 flow between neighbouring frames of each video.

    Args:
        videos: uint8 grey (T, H, W), T >= 1, of any sizes.
        parameters: as for the CPU; gamma is not used.
        memory: bytes of device memory for arrays, at most; CUDA itself takes a few hundred megabytes more.

    Returns:
        float32 (T-1, 2, H, W) for each video, as `ccs.flow.engines.estimate`.

    Raises:
        CcsError: a pair does not fit into `memory`, or the device failed.
    """
    flows = [np.empty((len(video) - 1, 2, *video.shape[1:]), np.float32) for video in videos]
    sizes = sorted({video.shape[1:] for video in videos if len(video) > 1})
    with _advice(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size")  # Numba's, for few pairs
        for height, width in sizes:
            plan = _plan(height, width, parameters)
            pairs = [
                (video, t)
                for video, frames in enumerate(videos)
                if frames.shape[1:] == (height, width)
                for t in range(len(frames) - 1)
            ]
            _estimate_pairs(videos, flows, plan, _batches(pairs, plan, memory), parameters, memory)
    return flows


class _Plan(NamedTuple):
    """How frames of one size are computed."""

    height: int
    width: int
    levels: np.ndarray  # (L, 8) int32, see `gpu_kernels`
    thresholds: np.ndarray  # (L) float32
    pyramid_size: int  # pixels of all levels of a frame
    tile: Tile

    def arrays(self, num_pairs: int, num_frames: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of the arrays in device memory; those with a digit are for every other batch."""
        from ccs.flow.gpu_kernels import NUM_FIELDS, NUM_PLANES, PITCH, TILES_X, TILES_Y

        plane_size = int(self.levels[0, PITCH]) * self.height
        num_tiles = int((self.levels[:, TILES_X] * self.levels[:, TILES_Y]).max())
        images = (num_frames, self.pyramid_size), np.float32
        flow = (num_pairs, 2, self.height, self.width), np.float32
        return {
            "levels": (self.levels.shape, np.int32),
            "thresholds": (self.thresholds.shape, np.float32),
            "control": ((2, num_pairs, NUM_FIELDS), np.int32),
            "arrivals": ((num_pairs + 1,), np.int32),
            "pairs": ((num_pairs, 2), np.int32),
            "planes": ((num_pairs, NUM_PLANES, plane_size), np.float32),
            # each pair's in cache lines of its own
            "partials": ((num_pairs, self.tile.group, _round_up(num_tiles, 32)), np.float32),
            "images0": images,
            "images1": images,
            "flow0": flow,
            "flow1": flow,
        }

    def num_bytes(self, num_pairs: int, num_frames: int) -> int:
        """Device memory for a batch."""
        return sum(_num_bytes(*array) for array in self.arrays(num_pairs, num_frames).values())


class _Batch(NamedTuple):
    """Pairs that are computed together."""

    frames: list[tuple[int, int]]  # video and number of each frame
    pairs: list[tuple[int, int]]  # of each pair the indices in `frames`; the first frame's number is the pair's


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _num_bytes(shape: tuple[int, ...], dtype: type) -> int:
    return _round_up(math.prod(shape) * np.dtype(dtype).itemsize, ALIGNMENT)


def _plan(height: int, width: int, parameters: Parameters) -> _Plan:
    from ccs.flow import gpu_kernels

    tile = _tile or gpu_kernels.Tile()
    levels, offset = [], 0
    for level_height, level_width in level_sizes(height, width, parameters):
        pitch = _round_up(level_width, 8)
        levels.append((level_width, level_height, pitch, offset, *tile.counts(level_width, level_height)))
        offset += pitch * level_height
    levels = np.array(levels, np.int32)
    thresholds = (parameters.epsilon * parameters.epsilon * levels[:, 0] * levels[:, 1]).astype(np.float32)
    return _Plan(height, width, levels, thresholds, offset, tile)


def _write_pyramid(frame: np.ndarray, plan: _Plan, scale_step: float, out: np.ndarray) -> None:
    """A frame's levels into `out` (S,)."""
    places = plan.levels[:, :4].tolist()
    for level, (width, height, pitch, offset) in zip(pyramid(frame, len(places), scale_step), places, strict=True):
        out[offset : offset + height * pitch].reshape(height, pitch)[:, :width] = level


def _batches(pairs: Sequence[tuple[int, int]], plan: _Plan, memory: int) -> list[_Batch]:
    """Cut pairs (video, t) into batches that fit into `memory`; neighbouring pairs share a frame."""
    if plan.num_bytes(1, 2) > memory:
        raise CcsError(
            f"flow: a pair of {plan.width}x{plan.height} frames needs {plan.num_bytes(1, 2)} bytes of device memory, "
            f"{memory} are allowed: allow more, or set the flow backend to native or opencv"
        )
    most = min(MAX_PAIRS, max(1, MAX_PIXELS // (plan.height * plan.width)))
    most = -(-len(pairs) // -(-len(pairs) // most))  # a full batch and a small one take longer than two alike
    batches = []
    batch = _Batch([], [])
    for video, t in pairs:
        shared = batch.frames[-1:] == [(video, t)]
        num_frames = len(batch.frames) + (1 if shared else 2)
        if len(batch.pairs) == most or plan.num_bytes(len(batch.pairs) + 1, num_frames) > memory:
            batches.append(batch)
            batch, shared = _Batch([], []), False
        if not shared:
            batch.frames.append((video, t))
        batch.frames.append((video, t + 1))
        batch.pairs.append((len(batch.frames) - 2, len(batch.frames) - 1))
    return [*batches, batch]


def _allocate(plan: _Plan, num_pairs: int, num_frames: int, memory: int) -> dict:
    """The device arrays of batches of this size at most, in one piece of memory."""
    from numba import cuda

    global _device_memory
    if _device_memory is None or not plan.num_bytes(num_pairs, num_frames) <= _device_memory.size <= memory:
        if _device_memory is not None:
            _device_memory = None
            # Numba frees late, and both together could be more than allowed
            with contextlib.suppress(AttributeError):  # the simulator has no such list
                cuda.current_context().memory_manager.deallocations.clear()
        _device_memory = cuda.device_array(plan.num_bytes(num_pairs, num_frames), np.uint8)
    arrays, offset = {}, 0
    for name, (shape, dtype) in plan.arrays(num_pairs, num_frames).items():
        used = math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = _device_memory[offset : offset + used].view(dtype).reshape(*shape)
        offset += _num_bytes(shape, dtype)
    return arrays


def _page_locked(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A host array that the device can copy from and to by itself; its memory is that of the last one of this name."""
    from numba import cuda

    used = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in _host_memory or _host_memory[name].size < used:
        _host_memory.pop(name, None)
        _host_memory[name] = cuda.pinned_array(used, np.uint8)
    return _host_memory[name][:used].view(dtype).reshape(shape)


def _estimate_pairs(
    videos: Sequence[np.ndarray],
    flows: Sequence[np.ndarray],
    plan: _Plan,
    batches: Sequence[_Batch],
    parameters: Parameters,
    memory: int,
) -> None:
    """Write the flow of all pairs of batches to `flows`."""
    from numba import cuda

    num_pairs = max(len(batch.pairs) for batch in batches)
    num_frames = max(len(batch.frames) for batch in batches)
    arrays = _allocate(plan, num_pairs, num_frames, memory)
    slots = min(2, len(batches))
    size = plan.height, plan.width
    host_images = [_page_locked(f"images{slot}", (num_frames, plan.pyramid_size), np.float32) for slot in range(slots)]
    host_flow = [_page_locked(f"flow{slot}", (num_pairs, 2, *size), np.float32) for slot in range(slots)]
    compute, up, down = cuda.stream(), cuda.stream(), cuda.stream()
    uploaded, computed, downloaded = ([cuda.event() for _ in range(slots)] for _ in range(3))

    def upload(number: int) -> None:
        batch, slot = batches[number], number % 2

        def write(place: int) -> None:
            video, t = batch.frames[place]
            _write_pyramid(videos[video][t], plan, parameters.scale_step, host_images[slot][place])

        count = len(batch.frames)
        with ThreadPoolExecutor(PYRAMID_THREADS) as threads:
            list(threads.map(write, range(count)))
        arrays[f"images{slot}"][:count].copy_to_device(host_images[slot][:count], stream=up)
        uploaded[slot].record(up)

    def download(number: int) -> None:
        slot, count = number % 2, len(batches[number].pairs)
        computed[slot].record(compute)
        computed[slot].wait(down)
        arrays[f"flow{slot}"][:count].copy_to_host(host_flow[slot][:count], stream=down)
        downloaded[slot].record(down)

    def store(number: int, first: int, end: int) -> None:
        batch, slot = batches[number], number % 2
        downloaded[slot].synchronize()
        for pair in range(first, min(end, len(batch.pairs))):
            video, t = batch.frames[batch.pairs[pair][0]]
            flows[video][t] = host_flow[slot][pair]

    def store_pieces(number: int) -> Iterator[Callable[[], None]]:
        piece = -(-len(batches[number].pairs) // PIECES)
        for first in range(0, len(batches[number].pairs), piece):
            yield partial(store, number, first, first + piece)

    arrays["levels"].copy_to_device(plan.levels, stream=compute)
    arrays["thresholds"].copy_to_device(plan.thresholds, stream=compute)
    upload(0)
    chores: deque[Callable[[], None]] = deque()  # for the host while the device computes
    for number, batch in enumerate(batches):
        slot = number % 2
        if number + 1 < len(batches):
            chores.append(partial(upload, number + 1))
        if number > 0:
            chores.extend(store_pieces(number - 1))
        uploaded[slot].wait(compute)
        _compute(arrays, slot, batch, plan, parameters, compute, chores)
        download(number)
        while chores:
            chores.popleft()()
    for chore in store_pieces(len(batches) - 1):
        chore()
    # the last steps, which do nothing any more, must not meet the next call's arrays in the same memory
    compute.synchronize()


def _compute(
    arrays: dict,
    slot: int,
    batch: _Batch,
    plan: _Plan,
    parameters: Parameters,
    stream: object,
    chores: deque[Callable[[], None]],
) -> None:
    """From arrays["images{slot}"] to arrays["flow{slot}"], doing chores in between."""
    from numba import cuda

    from ccs.flow import gpu_kernels
    from ccs.flow.gpu_kernels import LEVEL, NUM_FIELDS, TILES_X

    levels, coarsest = arrays["levels"], len(plan.levels) - 1
    num_pairs, images = len(batch.pairs), arrays[f"images{slot}"][: len(batch.frames)]
    control = (
        arrays["control"]
        .reshape(arrays["control"].size)[: 2 * num_pairs * NUM_FIELDS]
        .reshape(2, num_pairs, NUM_FIELDS)
    )
    arrivals, pairs = arrays["arrivals"][: num_pairs + 1], arrays["pairs"][:num_pairs]
    start = np.zeros(control.shape, np.int32)
    start[:, :, LEVEL] = coarsest
    control.copy_to_device(start, stream=stream)
    arrivals.copy_to_device(np.zeros(num_pairs + 1, np.int32), stream=stream)
    pairs.copy_to_device(np.array(batch.pairs, np.int32), stream=stream)

    counts = plan.levels[:, TILES_X:]
    num_blocks = int(max((counts[:, 0] * counts[:, 1]).max(), (counts[:, 2] * counts[:, 3]).max()))
    step = gpu_kernels.build(plan.tile)[(num_blocks, num_pairs), (plan.tile.width, plan.tile.strips), stream]
    settings = (
        parameters.median_filtering,
        parameters.warps,
        parameters.inner_iterations,
        parameters.outer_iterations,
        1 / parameters.scale_step,
        np.float32(parameters.lambda_ * parameters.theta),
        np.float32(parameters.tau / parameters.theta),
        np.float32(parameters.theta),
    )
    # the device is asked for the pairs that are done, and the answer read one look later, so that it never waits
    done = _page_locked("done", (2,), np.int32)
    looks = cuda.event(), cuda.event()
    for look in range(_most_steps(plan, parameters) // STEPS_PER_LOOK + 3):
        for number in range(look * STEPS_PER_LOOK, (look + 1) * STEPS_PER_LOOK):
            step(
                control,
                arrivals,
                levels,
                arrays["thresholds"],
                pairs,
                images,
                arrays["planes"],
                arrays["partials"],
                arrays[f"flow{slot}"],
                number % 2,
                *settings,
            )
        arrivals[num_pairs:].copy_to_host(done[look % 2 : look % 2 + 1], stream=stream)
        looks[look % 2].record(stream)
        if chores:
            chores.popleft()()
        if look > 0:
            looks[(look - 1) % 2].synchronize()
            if done[(look - 1) % 2] == num_pairs:
                return
    raise RuntimeError(f"the flow of {num_pairs} pairs did not end")


def _most_steps(plan: _Plan, parameters: Parameters) -> int:
    """Steps that a pair takes at most."""
    groups = -(-parameters.inner_iterations // plan.tile.group)
    steps_per_warp = 1 + parameters.outer_iterations * (groups + 1) + 1
    return len(plan.levels) * (1 + parameters.warps * steps_per_warp) + 1


@contextlib.contextmanager
def _advice():
    """Turn errors of CUDA and Numba into `CcsError`."""
    global _device_memory
    try:
        yield
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("numba", "cuda"):
            raise
        _device_memory = None
        _host_memory.clear()
        text = " ".join(str(error).split())
        if "OUT_OF_MEMORY" in text.upper().replace(" ", "_"):
            raise CcsError(
                f"flow: the GPU has too little free memory ({text}): allow the flow less, end what else uses the GPU, "
                "or set the flow backend to native"
            ) from error
        raise CcsError(
            f"flow: CUDA failed: {text}. Check nvidia-smi, or set the flow backend to native or opencv"
        ) from error
