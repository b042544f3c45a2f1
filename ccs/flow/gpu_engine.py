"""The CUDA engine's host side: a stream of pairs through the slots of a device.

Callers of any number of threads submit videos; one thread of the engine keeps the device busy. In rounds, of which two
are under way, it writes new frames to page-locked memory, puts pairs into the device's queue, starts some steps of the
device as one CUDA graph, and collects the flow of pairs that are done, which the device has written to page-locked
memory by itself. What happens on the device is in tvl1.cu.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ccs.flow import quantise
from ccs.flow.gpu_device import (
    SCHEDULE_THREADS,
    THREADS,
    Arguments,
    CudaError,
    Device,
    DeviceMemory,
    HostArray,
    call,
    total_bytes,
)
from ccs.flow.pyramid import level_sizes, pyramid
from ccs.flow.settings import Parameters
from ccs.stage import CcsError

# -- as in tvl1.cu

COLUMNS, WARPS, MAX_GROUP, NUM_EXPECTED, NUM_PLANES, NUM_KERNELS = 64, 8, 8, 32, 15, 6
KERNELS = ("start", "warp", "median", "iterate", "iterate_small", "store")  # of one step, after `schedule`
SLOT_BYTES, ITEM_BYTES = 19 * 4, 5 * 4
LEVEL = np.dtype(
    [
        ("width", "i4"),
        ("height", "i4"),
        ("pitch", "i4"),
        ("offset", "i4"),
        ("stop", "f4"),
        ("group", "u1", NUM_EXPECTED),
    ]
)
PAIR = np.dtype([(name, "i4") for name in ("first", "second", "result", "level", "num_levels")])
FRAME = np.dtype([(name, "i4") for name in ("entry", "level", "num_levels")])
RESULT = np.dtype([(name, "i4") for name in ("done", "clipped", "infinite")])
_POINTERS = "frames images planes partials levels slots counts queue taken items num_items results flow"


class _Settings(ctypes.Structure):
    """`Engine` of tvl1.cu."""

    _fields_ = (
        *[(name, ctypes.c_void_p) for name in _POINTERS.split()],
        *[(name, ctypes.c_longlong) for name in ("image_size", "plane_size", "flow_size", "frame_size")],
        *[
            (name, ctypes.c_int)
            for name in ("num_slots", "max_items", "queue_size", "window", "warps", "inner", "outer")
        ],
        *[(name, ctypes.c_float) for name in ("lt", "taut", "theta", "scale", "bound")],
        ("whole_pyramids", ctypes.c_int),
        ("upscale", ctypes.c_double),
    )


# -- sizes

STEPS = 8  # of the device in one round
BUSY_PIXELS = 12 << 20  # in all slots, so that the device is never short of blocks
MAX_SLOTS = SCHEDULE_THREADS
MAX_SIDE = (1 << 15) - 1  # px; a tile's place is kept in 16 bits
MAX_LEVELS = 4096  # of all sizes of frames together
# What work takes, in instructions of a thread (benchmarks/gpu/model.py): an iteration of a pixel, loading and storing
# it for a group of them, how many could be done while it travels to device memory and back, and while a step is
# scheduled, shared by all slots. They decide what is fast, nothing else.
ITERATION, GROUP, TRAVEL, STEP = 114, 60, 300, 1.2e6


def tile_counts(height: int, width: int, rows: int, num: int) -> tuple[int, int]:
    """Tiles (down, across) for a group of `num` iterations at a level, as tvl1.cu lays them out."""

    def along(size: int, tile: int) -> int:
        return 1 if size <= tile else -(-(size - 2 * num) // (tile - 2 * num))

    return along(height, WARPS * rows), along(width, COLUMNS)


@lru_cache(maxsize=4096)
def group_lengths(height: int, width: int, rows: int) -> tuple[int, ...]:
    """By the iterations that are expected, 0 to 31, the length of the first group that takes the least work in all."""
    most = min(MAX_GROUP, WARPS * rows // 4)

    def cost_of(num: int) -> float:
        down, across = tile_counts(height, width, rows, num)
        return down * across * COLUMNS * WARPS * rows * max(num * ITERATION + GROUP, TRAVEL) + STEP

    of_group = [0.0, *map(cost_of, range(1, most + 1))]
    costs, lengths = [0.0], [1]
    for expected in range(1, NUM_EXPECTED):
        cost, length = min((costs[expected - num] + of_group[num], num) for num in range(1, min(most, expected) + 1))
        costs.append(cost)
        lengths.append(length)
    return tuple(lengths)


class Geometry(NamedTuple):
    """How frames of one size are laid out."""

    height: int
    width: int
    levels: np.ndarray  # (L) of LEVEL, the finest first
    plane_size: int  # elements of the largest level
    image_size: int  # elements of a pyramid
    max_items: int  # blocks of any kernel for one pair
    whole_pyramid: bool  # whether the host must make it

    def write_pyramid(self, frame: np.ndarray, scale_step: float, out: np.ndarray) -> None:
        """All levels of a frame into `out` (image_size,)."""
        for level, image in zip(self.levels, pyramid(frame, len(self.levels), scale_step), strict=True):
            pitch, rows = int(level["pitch"]), out[int(level["offset"]) :]
            rows[: len(image) * pitch].reshape(-1, pitch)[:, : level["width"]] = image


@lru_cache(maxsize=4096)
def geometry_of(height: int, width: int, parameters: Parameters, rows: int) -> Geometry:
    """For frames of a size, on a device whose lanes have `rows` rows."""
    if max(height, width) > MAX_SIDE:
        raise CcsError(
            f"flow: expected frames with sides of at most {MAX_SIDE} px on a GPU, found {width}x{height}: scale "
            "them down, or set the flow backend to native or opencv"
        )
    sizes = level_sizes(height, width, parameters)
    levels = np.zeros(len(sizes), LEVEL)
    offset = max_items = 0
    for place, (h, w) in enumerate(sizes):
        pitch, groups = -(-w // 8) * 8, group_lengths(h, w, rows)
        stop = parameters.epsilon * parameters.epsilon * h * w
        levels[place] = w, h, pitch, offset, stop, groups
        offset += h * pitch
        tiles = (tile_counts(h, w, rows, num) for num in range(1, max(groups) + 1))
        max_items = max(max_items, -(-w // 32) * -(-h // WARPS), *(down * across for down, across in tiles))
    whole = not device_pyramid_is_opencvs(height, width, parameters.scales, parameters.scale_step)
    return Geometry(height, width, levels, int(levels[0]["pitch"]) * height, offset, max_items, whole)


@lru_cache(maxsize=4096)
def device_pyramid_is_opencvs(height: int, width: int, scales: int, scale_step: float) -> bool:
    """Whether tvl1.cu's pyramids have the bits of cv2.resize, here and for this size: tried on noise.

    What cv2.resize does depends on its build, on the processor, and on the factor: halving is averaging.
    """
    parameters = Parameters(scales=scales, scale_step=scale_step)
    sizes = level_sizes(height, width, parameters)
    rng = np.random.default_rng(0)
    # one frame shows little: at the coarser levels only the last row or column may tell
    frames = rng.integers(0, 256, (min(12, max(2, (1 << 20) // (height * width))), height, width), np.uint8)
    return all(
        np.array_equal(_shrunk(finer, *size, 1 / scale_step), coarser)
        for levels in (pyramid(frame, len(sizes), scale_step) for frame in frames)
        for (finer, coarser), size in zip(itertools.pairwise(levels), sizes[1:], strict=True)
    )


def _shrunk(image: np.ndarray, height: int, width: int, step: float) -> np.ndarray:
    # `resized` of tvl1.cu; in float64 products are exact, and so nearly always is the rounding of the sum
    def across(rows: np.ndarray, size: int) -> np.ndarray:
        position = (np.arange(size) + 0.5) * step - 0.5
        low = np.floor(position).astype(np.int64)
        weight = (position - low).astype(np.float32)
        weight[low < 0] = 0
        weight[low >= rows.shape[1] - 1] = 1
        low = np.clip(low, 0, rows.shape[1] - 2)
        left, right = rows[:, low], rows[:, low + 1]
        return (np.float64(right - left) * weight + left).astype(np.float32)

    return across(across(image, width).T, height).T


def num_results(num_slots: int) -> int:
    """Pairs on the device or in its queue."""
    return num_slots + max(2, num_slots // 2)


class Room(NamedTuple):
    """What is needed for frames of some sizes: the most of each, in elements but for the last two."""

    plane_size: int
    image_size: int
    max_items: int
    frame_size: int
    whole_pyramids: bool
    num_levels: int  # of all

    @classmethod
    def of(cls, geometries: Sequence[Geometry]) -> Room:
        """For frames of any of these."""
        return cls(
            max(geometry.plane_size for geometry in geometries),
            max(geometry.image_size for geometry in geometries),
            max(geometry.max_items for geometry in geometries),
            max(geometry.height * geometry.width for geometry in geometries),
            any(geometry.whole_pyramid for geometry in geometries),
            sum(len(geometry.levels) for geometry in geometries),
        )

    @property
    def max_levels(self) -> int:
        """Entries of the table of levels: sizes may be added."""
        return max(MAX_LEVELS, self.num_levels)

    def holds(self, other: Room, num_levels: int) -> bool:
        """Whether there is room for `other`, too, beside so many levels."""
        return (
            all(mine >= theirs for mine, theirs in zip(self[:5], other[:5], strict=True))
            and num_levels + other.num_levels <= self.max_levels
        )

    def arrays(self, num_slots: int) -> dict[str, int]:
        """Bytes of each array in device memory."""
        items = num_slots * self.max_items
        return {
            "images": 2 * num_results(num_slots) * self.image_size * 4,
            "planes": num_slots * NUM_PLANES * self.plane_size * 4,
            "partials": items * MAX_GROUP * 4,
            "levels": self.max_levels * LEVEL.itemsize,
            "slots": num_slots * SLOT_BYTES,
            "counts": num_slots * 2 * 4,
            "taken": 2 * 4,
            "items": NUM_KERNELS * items * ITEM_BYTES,
            "num_items": NUM_KERNELS * 4,
        }

    def num_slots(self, memory: int) -> int:
        """As many as keep a device busy and fit into `memory`; 0 where not one does."""
        num = min(MAX_SLOTS, max(2, BUSY_PIXELS // self.frame_size))
        while num > 0 and total_bytes(self.arrays(num)) > memory:
            num -= max(1, num // 16)
        return num


def slots_for(sizes: Iterable[tuple[int, int]], parameters: Parameters, rows: int, memory: int) -> int:
    """How many an engine for these sizes alone has."""
    return Room.of([geometry_of(*size, parameters, rows) for size in sizes]).num_slots(memory)


class Request:
    """One video's pairs on their way through the engine."""

    def __init__(self, frames: np.ndarray, flow: np.ndarray):
        self.frames, self.flow = frames, flow
        self.clipped = self.infinite = 0
        self.waiting = len(flow)  # pairs whose flow is not there yet
        self.cancelled = False
        self.error: BaseException | None = None
        self.over = threading.Event()

    def wait(self) -> None:
        """Until the flow is there; raise what went wrong."""
        self.over.wait()
        if self.error:
            raise self.error


class _Pair(NamedTuple):
    """One that is on the device, or in its queue."""

    request: Request
    t: int
    frames: tuple[int, int]  # entries


class Engine:
    """TV-L1 of pairs of frames on one device.

    Args:
        device: where.
        parameters: of TV-L1.
        bound: px, for flow in 8 bits as `ccs.flow.quantise` has it; None for float32.
        memory: bytes of device memory for arrays, at most; CUDA itself takes a few hundred megabytes more.
        sizes: (height, width) of the frames that may come, or larger ones.

    Raises:
        CcsError: a pair does not fit into `memory`.
    """

    def __init__(
        self,
        device: Device,
        parameters: Parameters,
        bound: float | None,
        memory: int,
        sizes: Sequence[tuple[int, int]],
    ):
        self.device, self.driver = device, device.driver
        self.parameters, self.bound = parameters, bound
        self.room = Room.of([geometry_of(*size, parameters, device.rows) for size in sizes])
        self.num_slots = self.room.num_slots(memory)
        if not self.num_slots:
            height, width = max(sizes, key=np.prod)
            raise CcsError(
                f"flow: a pair of {width}x{height} frames needs {total_bytes(self.room.arrays(1))} bytes of device "
                f"memory, {memory} are allowed: allow more, or set the flow backend to native or opencv"
            )
        self.num_results = num_results(self.num_slots)
        self.num_frames = 2 * self.num_results
        self._geometries: dict[tuple[int, int], tuple[int, Geometry]] = {}  # with the place of its levels
        self._num_levels = 0
        self._on_device: set[tuple[int, int]] = set()  # sizes whose levels are there
        self._free_frames = list(range(self.num_frames))[::-1]
        self._free_results = list(range(self.num_results))[::-1]
        self._users = [0] * self.num_frames  # pairs that need a frame
        self._pairs: dict[int, _Pair] = {}  # by their result's entry
        self._last: tuple[Request, int, int] | None = None  # the frame that was written last: of which video, and where
        self._num_queued = 0
        self._condition = threading.Condition()
        self._waiting: deque[tuple[Request, int]] = deque()
        self._open: set[Request] = set()  # those whose flow is not all there
        self._error: BaseException | None = None
        self._closed = False
        self._resources = ExitStack()
        with device.current(), ExitStack() as undone:
            undone.callback(self._resources.close)
            self._allocate()
            undone.pop_all()
        self.reserve(sizes)
        self._thread = threading.Thread(target=self._run, name="flow on a GPU", daemon=True)
        self._thread.start()

    # -- set-up

    def _allocate(self) -> None:
        driver, parameters = self.driver, self.parameters
        room, keep = self.room, self._resources.callback
        self.memory = DeviceMemory(self.device, room.arrays(self.num_slots))
        keep(self.memory.free)
        flow_size = 2 * room.frame_size
        frame = (room.image_size, np.float32) if room.whole_pyramids else (room.frame_size, np.uint8)
        self.host = {}
        for name, shape, dtype in (
            ("frames", (self.num_frames, frame[0]), frame[1]),
            ("flow", (self.num_results, flow_size), np.float32 if self.bound is None else np.uint8),
            ("results", (self.num_results,), RESULT),
            ("queue", (self.num_results,), PAIR),
            ("new", (2, self.num_frames), FRAME),
        ):
            self.host[name] = HostArray(self.device, shape, dtype)
            keep(self.host[name].free)
        self.host["results"].array[:] = 0
        pointers = self.memory.addresses | {name: array.address for name, array in self.host.items() if name != "new"}
        self.settings = _Settings(
            **pointers,
            image_size=room.image_size,
            plane_size=room.plane_size,
            flow_size=flow_size,
            frame_size=room.frame_size,
            num_slots=self.num_slots,
            max_items=room.max_items,
            queue_size=self.num_results,
            window=parameters.median_filtering,
            warps=parameters.warps,
            inner=parameters.inner_iterations,
            outer=parameters.outer_iterations,
            lt=parameters.lambda_ * parameters.theta,
            taut=parameters.tau / parameters.theta,
            theta=parameters.theta,
            scale=0 if self.bound is None else quantise.STEPS / self.bound,
            bound=0 if self.bound is None else self.bound,
            whole_pyramids=room.whole_pyramids,
            upscale=1 / parameters.scale_step,
        )
        self.stream = call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        keep(call, driver.cuStreamDestroy, self.stream)
        flags = driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC | driver.CUevent_flags.CU_EVENT_DISABLE_TIMING
        self.events = []  # ends of the last two rounds
        for _ in range(2):
            self.events.append(call(driver.cuEventCreate, int(flags)))
            keep(call, driver.cuEventDestroy, self.events[-1])
        for name, size in room.arrays(self.num_slots).items():
            if name in ("slots", "counts", "taken"):
                call(driver.cuMemsetD8Async, self.memory.addresses[name], 0, size, self.stream)
        self.graph = self._graph()
        keep(call, driver.cuGraphExecDestroy, self.graph)

    def _graph(self) -> Any:
        """STEPS steps: in each the kernels of all phases after `schedule`, beside each other."""
        driver = self.driver
        graph = call(driver.cuGraphCreate, 0)
        values = Arguments(self.settings)
        before: list[Any] = []
        for _ in range(STEPS):
            node = self._node(graph, before, "schedule", 1, SCHEDULE_THREADS, values)
            before = [
                self._node(graph, [node], name, self.device.num_blocks(name), THREADS, values)
                for name in KERNELS
                if name != "median" or self.parameters.median_filtering > 1
            ]
        executable = call(driver.cuGraphInstantiate, graph, 0)
        call(driver.cuGraphDestroy, graph)
        return executable

    def _node(self, graph: Any, before: list, name: str, blocks: int, threads: int, values: Arguments) -> Any:
        node = self.driver.CUDA_KERNEL_NODE_PARAMS()
        node.func = self.device.kernel(name)
        node.gridDimX, node.gridDimY, node.gridDimZ = blocks, 1, 1
        node.blockDimX, node.blockDimY, node.blockDimZ = threads, 1, 1
        node.sharedMemBytes = self.device.shared_bytes(name)
        node.kernelParams = values.address
        return call(self.driver.cuGraphAddKernelNode, graph, before, len(before), node)

    # -- for callers, of any thread

    def reserve(self, sizes: Iterable[tuple[int, int]]) -> bool:
        """Whether frames of these sizes may come; then there is a place for what describes them."""
        new = {size: geometry_of(*size, self.parameters, self.device.rows) for size in {*sizes} - {*self._geometries}}
        geometries = list(new.values())
        if geometries and not self.room.holds(Room.of(geometries), self._num_levels):
            return False
        for size, geometry in new.items():
            self._geometries[size] = self._num_levels, geometry
            self._num_levels += len(geometry.levels)
        return True

    def submit(self, frames: np.ndarray, flow: np.ndarray) -> Request:
        """Have the flow of neighbouring frames, uint8 (T, H, W), written to `flow`, (T-1, 2, H, W) of its dtype."""
        request = Request(frames, flow)
        if not len(flow):
            request.over.set()
            return request
        with self._condition:
            if self._error:
                raise self._error
            self._open.add(request)
            self._waiting.extend((request, t) for t in range(len(flow)))
            self._condition.notify()
        return request

    def failed(self) -> bool:
        """Whether the device has failed: then there is nothing more to expect of this engine."""
        return self._error is not None

    def close(self) -> None:
        """Give everything back, after what is under way."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    # -- the engine's thread

    def _run(self) -> None:
        try:
            self.device.make_current()
            self._serve()
        except BaseException as error:
            self._fail(error)
        finally:
            self._free()

    def _serve(self) -> None:
        round_ = 0
        while True:
            with self._condition:
                while not (self._waiting or self._pairs or self._closed):
                    self._condition.wait()
                if self._closed and not (self._waiting or self._pairs):
                    break
            self._start_round(round_ % 2)
            if round_ > 0:
                call(self.driver.cuEventSynchronize, self.events[1 - round_ % 2])
            self._collect()
            round_ += 1

    def _start_round(self, side: int) -> None:
        new = self.host["new"].array[side]
        num_new = num_levels = num_pairs = pixels = 0
        while self._free_results and len(self._free_frames) >= 2:
            with self._condition:
                if not self._waiting:
                    break
                request, t = self._waiting.popleft()
            if request.cancelled:
                self._done(request)
                continue
            place, geometry = self._geometry(request.frames.shape[1:])
            entries = []
            for number in (t, t + 1):
                entry = self._written(request, number)
                if entry is None:
                    entry = self._free_frames.pop()
                    self._write(geometry, request.frames[number], entry)
                    self._last = request, number, entry
                    new[num_new] = entry, place, len(geometry.levels)
                    num_new += 1
                    num_levels = max(num_levels, len(geometry.levels))
                    pixels = max(pixels, geometry.height * geometry.width)
                self._users[entry] += 1
                entries.append(entry)
            result = self._free_results.pop()
            self._pairs[result] = _Pair(request, t, (entries[0], entries[1]))
            queue = self.host["queue"].array
            queue[(self._num_queued + num_pairs) % len(queue)] = (*entries, result, place, len(geometry.levels))
            num_pairs += 1
        if num_new:
            self._make_pyramids(side, num_new, num_levels, pixels)
        if num_pairs:
            self._num_queued += num_pairs
            number = self.memory.addresses["taken"] + 4
            call(self.driver.cuMemsetD32Async, number, self._num_queued & 0xFFFFFFFF, 1, self.stream)
        call(self.driver.cuGraphLaunch, self.graph, self.stream)
        call(self.driver.cuEventRecord, self.events[side], self.stream)

    def _written(self, request: Request, number: int) -> int | None:
        """Where a frame is on the device already, as the second of the pair before."""
        if self._last and self._last[0] is request and self._last[1] == number and self._users[self._last[2]]:
            return self._last[2]
        return None

    def _geometry(self, size: tuple[int, int]) -> tuple[int, Geometry]:
        place, geometry = self._geometries[size]
        if size not in self._on_device:
            at = self.memory.addresses["levels"] + place * LEVEL.itemsize
            # on the stream: what a plain copy returns from may still be on its way
            call(self.driver.cuMemcpyHtoDAsync, at, geometry.levels.ctypes.data, geometry.levels.nbytes, self.stream)
            self._on_device.add(size)
        return place, geometry

    def _write(self, geometry: Geometry, frame: np.ndarray, entry: int) -> None:
        out = self.host["frames"].array[entry]
        if self.room.whole_pyramids:
            geometry.write_pyramid(frame, self.parameters.scale_step, out)
        else:
            out[: frame.size].reshape(frame.shape)[:] = frame

    def _make_pyramids(self, side: int, num_new: int, num_levels: int, pixels: int) -> None:
        address = self.host["new"].address + side * self.num_frames * FRAME.itemsize
        step = ctypes.c_double(1 / self.parameters.scale_step)
        blocks = max(1, min(pixels // THREADS, 4 * self.device.num_multiprocessors // num_new))
        for number in range(num_levels):
            values = Arguments(self.settings, ctypes.c_void_p(address), ctypes.c_int(number), step)
            size = blocks, num_new, 1, THREADS, 1, 1
            call(self.driver.cuLaunchKernel, self.device.kernel("pyramid"), *size, 0, self.stream, values.address, 0)

    def _collect(self) -> None:
        results = self.host["results"].array
        for entry in np.flatnonzero(results["done"]).tolist():
            pair = self._pairs.pop(entry)
            if not pair.request.cancelled:
                flow = pair.request.flow[pair.t]
                flow[:] = self.host["flow"].array[entry, : flow.size].reshape(flow.shape)
                pair.request.clipped += int(results[entry]["clipped"])
                pair.request.infinite += int(results[entry]["infinite"])
            results[entry]["done"] = 0
            self._free_results.append(entry)
            for frame in pair.frames:
                self._users[frame] -= 1
                if not self._users[frame]:
                    self._free_frames.append(frame)
            self._done(pair.request)

    def _done(self, request: Request) -> None:
        request.waiting -= 1
        if not request.waiting:
            with self._condition:
                self._open.discard(request)
            request.over.set()

    def _fail(self, error: BaseException) -> None:
        with self._condition:
            self._error = error
            requests = list(self._open)
            self._open.clear()
            self._waiting.clear()
        for request in requests:
            request.error = error
            request.over.set()

    def _free(self) -> None:
        if isinstance(self._error, CudaError):  # the context is lost, and with it the memory
            return
        call(self.driver.cuStreamSynchronize, self.stream)
        self._resources.close()
