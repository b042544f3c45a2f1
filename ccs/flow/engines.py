"""TV-L1 optical flow: grey frames of one video in, one flow field per pair of neighbouring frames out.

`estimate` is the whole interface; `python -m ccs.flow` (rule `flow`) calls it for every pair of a shard. The engines
behind it are the rows of `BACKENDS`; those of our own take long to import, and are so when they are used.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import NamedTuple

import cv2
import numpy as np

import ccs
from ccs.flow import compiled, opencv
from ccs.flow.quantise import check_bound, quantise_counting
from ccs.flow.settings import GpuSettings, Parameters
from ccs.stage import CcsError

MIN_SIDE = 3  # below it OpenCV reads beyond its buffers and gives values that change from call to call


class Backend(NamedTuple):
    """One engine: a row of `BACKENDS`."""

    available: Callable[[], str | None]  # None, or why it cannot be used here and how to get it
    estimate: Callable[[Sequence[np.ndarray], Parameters, int], list[np.ndarray]]  # videos already checked
    version: Callable[[], str]  # of the library whose arithmetic it is
    num_processes: Callable[[int], int]  # from the worker count asked for
    set_up: Callable[[int], None]  # called once in each worker process with its index; picklable by name
    pairs_per_task: int  # how many neighbouring pairs a worker takes at a time
    first_pairs: int  # how many the very first task has: on a CPU one, so that something is soon seen
    tasks_at_once: int  # how many tasks a worker computes at the same time, in threads
    illumination: bool  # whether there is an illumination term, for gamma above 0
    # as `estimate`, quantised to a bound where the flow is: uint8, and how many values were clipped
    quantised: Callable[[Sequence[np.ndarray], Parameters, float, int], list[tuple[np.ndarray, int]]] | None = None
    prepare: Callable[[], None] = lambda: None  # called once before any work: compiles for all processes, and says so


def _one_by_one(estimate: Callable[[np.ndarray, Parameters], np.ndarray]) -> Callable:
    return lambda videos, parameters, memory: [estimate(frames, parameters) for frames in videos]


def _gpu():
    from ccs.flow import gpu

    return gpu


def _native():
    from ccs.flow import native

    return native


def _missing_driver() -> OSError | None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return error
    return None


def _gpu_available() -> str | None:
    if error := _missing_driver():
        return (
            f"there is no CUDA driver: {error}. Check nvidia-smi and that this library can be found, or set the flow "
            "backend to native or auto."
        )
    return _gpu().available()


def _gpu_is_there() -> bool:
    """Whether the machine has a GPU of NVIDIA that CUDA_VISIBLE_DEVICES does not hide, whatever state it is in."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return os.path.exists("/dev/nvidiactl") or (_missing_driver() is None and _gpu().num_devices() > 0)


def _gpu_set_up(index: int) -> None:
    _gpu().set_up(index)


def _native_set_up(index: int) -> None:
    _native().set_up(index)


def _native_version() -> str:
    """Of everything whose arithmetic is in the flow."""
    return f"{ccs.__version__} (numba {metadata.version('numba')}, opencv {cv2.__version__})"


# `auto` takes the first that is available
BACKENDS = {
    "native-cuda": Backend(
        available=_gpu_available,
        estimate=lambda videos, parameters, memory: _gpu().estimate_videos(videos, parameters, memory),
        version=lambda: _gpu().version(),
        num_processes=lambda num_workers: _gpu().num_devices(),
        set_up=_gpu_set_up,
        pairs_per_task=64,
        first_pairs=64,
        tasks_at_once=8,  # with more pairs in all than a GPU has under way, and some of them being decoded or stored
        illumination=False,
        quantised=lambda videos, parameters, bound, memory: _gpu().estimate_quantised(
            videos, parameters, bound, memory
        ),
    ),
    "native": Backend(
        available=lambda: None,  # it runs wherever the package does
        estimate=lambda videos, parameters, memory: _native().estimate_videos(videos, parameters, memory),
        version=_native_version,
        num_processes=lambda num_workers: num_workers,
        set_up=_native_set_up,
        pairs_per_task=16,
        first_pairs=1,
        tasks_at_once=1,
        illumination=False,
        prepare=lambda: compiled.compile_once(lambda: _native().compile_all()),
    ),
    "opencv-cuda": Backend(
        available=opencv.cuda_available,
        estimate=_one_by_one(opencv.cuda_estimate),
        version=opencv.version,
        num_processes=lambda num_workers: opencv.num_devices(),
        set_up=opencv.cuda_set_up,
        pairs_per_task=32,
        first_pairs=32,
        tasks_at_once=1,
        illumination=True,
    ),
    "opencv": Backend(
        available=opencv.cpu_available,
        estimate=_one_by_one(opencv.cpu_estimate),
        version=opencv.version,
        num_processes=lambda num_workers: num_workers,
        set_up=opencv.cpu_set_up,
        pairs_per_task=4,
        first_pairs=1,
        tasks_at_once=1,
        illumination=True,
    ),
}


def choose(backend: str = "auto", gamma: float = 0.0) -> str:
    """The row of `BACKENDS` that `backend` means on this machine; `CcsError` if it cannot be used, or not for gamma."""
    if backend != "auto" and backend not in BACKENDS:
        raise CcsError(f"flow: unknown backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    reasons = {}
    for name in BACKENDS if backend == "auto" else [backend]:
        reasons[name] = BACKENDS[name].available()
        if name == "native-cuda" and backend == "auto" and reasons[name] and _gpu_is_there():
            _say(f"auto takes the CPU though there is a GPU: {reasons[name]}")
        if gamma and not BACKENDS[name].illumination:
            reasons[name] = (
                f"gamma is {gamma:g}, but it has no illumination term. Set gamma to 0 or the backend to auto."
            )
        if reasons[name] is None:
            return name
    raise CcsError("\n".join(f"flow backend {name} cannot be used here: {reason}" for name, reason in reasons.items()))


@cache
def _say(text: str) -> None:
    """Once in a process."""
    print(f"ccs: flow: {text}", file=sys.stderr)


def estimate(frames: np.ndarray, backend: str = "auto", **parameters: object) -> np.ndarray:
    """TV-L1 flow between neighbouring frames of one video.

    Args:
        frames: uint8, grey (T, H, W) or R, G, B (T, H, W, 3), of which the grey is taken; T >= 1, sides of at least
            3 px.
        backend: a name in `BACKENDS`, or "auto". native and native-cuda give opencv's flow to the bit (on x86
            with FMA), save for rare pairs that stop an iteration sooner or later; opencv-cuda differs by a few
            hundredths of a pixel.
        parameters: fields of `Parameters`; `lambda` may be written either way.

    Returns:
        float32 (T-1, 2, H, W) in pixels, x (to the right) then y (down). Pair t is between frames t and t+1:
        what is at (x, y) in frame t is at (x, y) + flow[t, :, y, x] in frame t+1.

    Raises:
        CcsError: frames, backend or parameters are not as above, or the backend failed.
    """
    if isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames] if frames.size else frames[..., 0]
        frames = np.asarray(grey)
    return estimate_videos([frames], backend, GpuSettings.gpu_memory, **parameters)[0]


def estimate_videos(
    videos: Sequence[np.ndarray], backend: str = "auto", memory: int = GpuSettings.gpu_memory, **parameters: object
) -> list[np.ndarray]:
    """`estimate` for several videos at once, of any sizes, so that a GPU has enough to do; nothing else changes.

    memory: bytes that native-cuda may use on a GPU; the others have no such bound.
    """
    engine, settings = _checked(videos, backend, parameters)
    return engine.estimate(videos, settings, memory)


def estimate_quantised(
    videos: Sequence[np.ndarray],
    bound: float,
    backend: str = "auto",
    memory: int = GpuSettings.gpu_memory,
    **parameters: object,
) -> list[tuple[np.ndarray, int]]:
    """`estimate_videos` in 8 bits, as `ccs.flow.quantise.quantise` has it: uint8, and how many values were clipped.

    native-cuda makes the 8 bits where it makes the flow; the bits are the same.
    """
    check_bound(bound)
    engine, settings = _checked(videos, backend, parameters)
    if engine.quantised:
        return engine.quantised(videos, settings, bound, memory)
    return [quantise_counting(flow, bound) for flow in engine.estimate(videos, settings, memory)]


def _checked(
    videos: Sequence[np.ndarray], backend: str, parameters: Mapping[str, object]
) -> tuple[Backend, Parameters]:
    settings = Parameters.from_names(parameters)
    for frames in videos:
        _check(frames)
    return BACKENDS[choose(backend, settings.gamma)], settings


def _check(frames: np.ndarray) -> None:
    if not isinstance(frames, np.ndarray) or frames.ndim != 3 or frames.dtype != np.uint8:
        found = f"{frames.dtype} of shape {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise CcsError(f"flow: expected frames, a uint8 array, grey (T, H, W) or RGB (T, H, W, 3); found {found}")
    num_frames, height, width = frames.shape
    if num_frames < 1 or min(height, width) < MIN_SIDE:
        raise CcsError(
            f"flow: expected at least one frame with sides of {MIN_SIDE} px or more; "
            f"found {num_frames} frames of {width}x{height}"
        )
