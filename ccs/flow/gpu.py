"""TV-L1 on CUDA devices: many videos in, the flow of all their pairs out; the CPU engines' algorithm.

The arithmetic is that of `cv2.optflow.DualTVL1OpticalFlow` of OpenCV 5 and of `ccs.flow.native`, rounding for rounding:
only the sums of the stop test are added up in another order. A pair's flow is the same to the bit whatever it is
computed with, and from run to run. The kernels are tvl1.cu, the host's side is `gpu_engine`, the driver's `gpu_device`.

A process has one engine. Calls of several threads share it, so that the device always has pairs to do; a call with
other settings, or with larger frames, waits until the others are done.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata, util
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

import ccs
from ccs.flow import gpu_device
from ccs.flow.gpu_device import MIN_CAPABILITY, CudaError, Device, call
from ccs.flow.quantise import check_finite
from ccs.stage import CcsError, install

if TYPE_CHECKING:
    from ccs.flow.gpu_engine import Engine
    from ccs.flow.settings import Parameters

num_devices = gpu_device.num_devices


class _Shared:
    """The engine of this process."""

    def __init__(self):
        self.index = 0  # of the device
        self.is_checked = False  # by the process that started this one
        self.device: Device | None = None
        self.engine: Engine | None = None
        self.key: tuple = ()
        self.sizes: set[tuple[int, int]] = set()
        self.num_users = 0
        self.condition = threading.Condition()


_shared = _Shared()


def version() -> str:
    """Of everything whose arithmetic is in the flow."""
    from cuda.bindings import nvrtc

    major, minor = nvrtc.nvrtcVersion()[1:]
    return f"{ccs.__version__} (CUDA C++ by NVRTC {major}.{minor}, opencv {cv2.__version__})"


def available() -> str | None:
    """None, or why the engine cannot be used here and what to do about it: its kernels are compiled and one is run."""
    return None if _shared.is_checked else _reason()


@cache
def _reason() -> str | None:
    advice = "or set the flow backend to native or auto."
    for package in ("cuda-bindings", "nvidia-cuda-nvrtc"):
        if not _installed(package):
            return f"{package} is not installed. Install it with {install('gpu')}, {advice}"
    try:
        from cuda.bindings import driver

        call(driver.cuInit, 0)
        count, found = call(driver.cuDeviceGetCount), call(driver.cuDriverGetVersion)
        if count == 0:
            return f"the CUDA driver lists no GPU. Check nvidia-smi and CUDA_VISIBLE_DEVICES, {advice}"
        needed = int(metadata.version("nvidia-cuda-nvrtc").split(".")[0])
        if found // 1000 < needed:
            return (
                f"the driver supports CUDA {found // 1000}.{found % 1000 // 10}, the installed libraries are of CUDA "
                f"{needed}. Update the driver, {advice}"
            )
        for index in range(count):
            if reason := _unfit(index):
                return f"{reason} Leave GPU {index} out of CUDA_VISIBLE_DEVICES, {advice}"
    except Exception as error:  # whatever is wrong with an installation, the other engines work
        text = " ".join(str(error).split()) or type(error).__name__
        return f"CUDA fails: {text} Check nvidia-smi and CUDA_VISIBLE_DEVICES, {advice}"
    return None


def _installed(package: str) -> bool:
    try:
        return bool(metadata.version(package)) and util.find_spec("cuda.bindings") is not None
    except (metadata.PackageNotFoundError, ImportError):
        return False


def _unfit(index: int) -> str | None:
    """Why a device cannot be used, or None."""
    device = Device(index)
    try:
        if device.capability < MIN_CAPABILITY:
            found, needed = (".".join(map(str, each)) for each in (device.capability, MIN_CAPABILITY))
            return f"GPU {index} ({device.name}) has compute capability {found}; {needed} is needed."
        device.probe()
    except CudaError as error:
        return f"GPU {index} ({device.name}) does not run the engine's kernels: {error}."
    finally:
        device.release()
    return None


def set_up(index: int) -> None:
    """Take device `index` in this process, a worker: the one that started it has seen that devices can be used."""
    _shared.index = index
    _shared.is_checked = True


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
    return [flow for flow, _ in _estimate(videos, parameters, None, memory)]


def estimate_quantised(
    videos: Sequence[np.ndarray], parameters: Parameters, bound: float, memory: int
) -> list[tuple[np.ndarray, int]]:
    """`estimate_videos` as `ccs.flow.quantise.quantise` has it, made on the device: uint8, and how many were clipped.

    Raises:
        CcsError: as there, or the flow is not finite.
    """
    return _estimate(videos, parameters, bound, memory)


def _estimate(
    videos: Sequence[np.ndarray], parameters: Parameters, bound: float | None, memory: int
) -> list[tuple[np.ndarray, int]]:
    dtype = np.float32 if bound is None else np.uint8
    flows = [np.empty((len(video) - 1, 2, *video.shape[1:]), dtype) for video in videos]
    sizes = {video.shape[1:] for video in videos if len(video) > 1}
    if not sizes:
        return [(flow, 0) for flow in flows]
    with _advice(), _engine(parameters, bound, memory, sizes) as engine:
        requests = []
        try:
            for video, flow in zip(videos, flows, strict=True):
                requests.append(engine.submit(video, flow))
            for request in requests:
                request.wait()
        except BaseException:
            for request in requests:
                request.cancelled = True  # pairs that have not begun are dropped
            raise
    check_finite(bound is None or not any(request.infinite for request in requests))
    return [(flow, request.clipped) for flow, request in zip(flows, requests, strict=True)]


@contextmanager
def _engine(parameters: Parameters, bound: float | None, memory: int, sizes: set[tuple[int, int]]) -> Generator[Engine]:
    """The engine of this process, made for these settings; others with the same may use it at the same time."""
    from ccs.flow.gpu_engine import Engine, slots_for

    shared, key = _shared, (parameters, bound, memory, _shared.index)
    with shared.condition:
        while not _suits(shared, key, memory, sizes):
            if shared.num_users:
                shared.condition.wait()
                continue
            _close(shared)
            shared.device = shared.device or Device(shared.index)
            # sizes that have been are likely to come again, unless there would be far fewer pairs at a time for them
            both = sizes | (shared.sizes if shared.key == key else set())
            together, alone = (slots_for(each, parameters, shared.device.rows, memory) for each in (both, sizes))
            shared.sizes = both if 2 * together > alone else sizes
            shared.key = key
            shared.engine = Engine(shared.device, parameters, bound, memory, sorted(shared.sizes))
        shared.num_users += 1
        engine = cast("Engine", shared.engine)
    try:
        yield engine
    finally:
        with shared.condition:
            shared.num_users -= 1
            if engine.failed() and shared.engine is engine:
                shared.engine = None
            if engine.failed() and shared.device is engine.device and not shared.num_users:
                shared.device = None  # its context may be lost; the next call tries with another
                with suppress(CudaError):
                    engine.device.release()
            shared.condition.notify_all()


def _suits(shared: _Shared, key: tuple, memory: int, sizes: set[tuple[int, int]]) -> bool:
    """Whether the engine that is there serves, and is not made for frames so large that it has few slots."""
    engine = shared.engine
    if engine is None or shared.key != key or not engine.reserve(sizes):
        return False
    from ccs.flow.gpu_engine import slots_for

    alone = slots_for(sizes, engine.parameters, engine.device.rows, memory)
    return shared.num_users > 0 or 2 * engine.num_slots > alone


def _close(shared: _Shared) -> None:
    if shared.engine:
        shared.engine.close()
        shared.engine = None
    if shared.device and shared.key and shared.key[-1] != shared.index:
        shared.device.release()
        shared.device = None


@contextmanager
def _advice() -> Generator[None]:
    """Turn errors of CUDA into `CcsError`."""
    try:
        yield
    except CudaError as error:
        text = " ".join(str(error).split())
        if "OUT_OF_MEMORY" in text:
            raise CcsError(
                f"flow: the GPU has too little free memory ({text}): allow the flow less, end what else uses the GPU, "
                "or set the flow backend to native"
            ) from error
        raise CcsError(
            f"flow: CUDA failed: {text}. Check nvidia-smi, or set the flow backend to native or opencv"
        ) from error
