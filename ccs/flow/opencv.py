"""TV-L1 by OpenCV, on the CPU and on CUDA.

Both objects lower their own number of scales at the first small image and never restore it, so that one object used
for videos of several sizes gives results that depend on what came before. Here an object serves the frames of one
call, which have one size.

The CUDA class is not the CPU class made faster: it resizes and interpolates differently and has no median filter.
Both are deterministic in everything but CUDA's stop test, whose sum is not ordered.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ccs.stage import CcsError

if TYPE_CHECKING:
    from ccs.flow.settings import Parameters

POOL_BYTES = 64 << 20  # two float32 planes of 8 megapixels; larger images fall back to plain allocation


def version() -> str:
    """OpenCV's version. Its releases differ: 4.x rounds the warp to 1/32 px, 5.0 does not."""
    return cv2.__version__


def cpu_available() -> str | None:
    """None, or why `cpu_estimate` cannot be used."""
    if hasattr(cv2, "optflow") and hasattr(cv2.optflow, "DualTVL1OpticalFlow_create"):
        return None
    return (
        f"the installed OpenCV {cv2.__version__} lacks the optflow module. Install opencv-contrib-python-headless, "
        "and uninstall opencv-python and opencv-python-headless, which overwrite the same cv2."
    )


def cpu_set_up(index: int) -> None:
    """One thread a process: OpenCV's own threads gain less than two on two cores, processes gain two."""
    cv2.setNumThreads(1)


def cpu_estimate(frames: np.ndarray, parameters: Parameters) -> np.ndarray:
    """`ccs.flow.engines.estimate` by `cv2.optflow.DualTVL1OpticalFlow`."""
    # pyrefly: ignore [missing-attribute] - OpenCV's types lack it
    algorithm = cv2.optflow.DualTVL1OpticalFlow_create(
        tau=parameters.tau,
        lambda_=parameters.lambda_,
        theta=parameters.theta,
        nscales=parameters.scales,
        warps=parameters.warps,
        epsilon=parameters.epsilon,
        innnerIterations=parameters.inner_iterations,  # spelled so in OpenCV
        outerIterations=parameters.outer_iterations,
        scaleStep=parameters.scale_step,
        gamma=parameters.gamma,
        medianFiltering=parameters.median_filtering,
        useInitialFlow=False,
    )
    return of_pairs(algorithm, frames)


def of_pairs(algorithm: Any, frames: np.ndarray, advice: str = "") -> np.ndarray:
    """Flow, float32 (T-1, 2, H, W), of grey frames (T, H, W) by an algorithm of OpenCV on the CPU."""
    flow = _empty(frames)
    for pair, (first, second) in enumerate(itertools.pairwise(frames)):
        try:
            flow[pair] = algorithm.calc(first, second, None).transpose(2, 0, 1)
        except cv2.error as error:
            raise CcsError(f"flow: OpenCV failed at pair {pair} of frames {frames.shape}: {error}{advice}") from error
    return flow


def num_devices() -> int:
    """CUDA devices that this OpenCV can use, of those visible (CUDA_VISIBLE_DEVICES); 0 in a build without CUDA."""
    # cv2.cuda exists in builds without CUDA too, and the count is -1 where the driver is too old
    return max(0, cv2.cuda.getCudaEnabledDeviceCount()) if hasattr(cv2, "cuda") else 0


def cuda_available() -> str | None:
    """None, or why `cuda_estimate` cannot be used."""
    if not hasattr(cv2, "cuda") or not hasattr(cv2.cuda, "OpticalFlowDual_TVL1_create"):
        return (
            f"the installed OpenCV {cv2.__version__} is built without CUDA, as is every one on PyPI and conda-forge. "
            "Build one with envs/opencv-cuda.sh, or set the flow backend to auto, which has CUDA code of its own."
        )
    if num_devices() == 0:
        return (
            "OpenCV is built with CUDA but finds no usable device. Check nvidia-smi, the driver's version and "
            "CUDA_VISIBLE_DEVICES, or set the flow backend to auto."
        )
    for device in range(num_devices()):
        if not cv2.cuda.DeviceInfo(device).isCompatible():
            return (
                f"OpenCV is built for other GPUs than device {device}. Build it with envs/opencv-cuda.sh and "
                "this device's compute capability, or set the flow backend to auto."
            )
    return None


def cuda_set_up(index: int) -> None:
    """Take device `index`, with room for large images in the buffer pool."""
    cv2.setNumThreads(1)
    cv2.cuda.setDevice(index)
    cv2.cuda.setBufferPoolUsage(True)
    cv2.cuda.setBufferPoolConfig(index, POOL_BYTES, 1)


def cuda_estimate(frames: np.ndarray, parameters: Parameters) -> np.ndarray:
    """`ccs.flow.engines.estimate` by `cv2.cuda.OpticalFlowDual_TVL1`, on the current device.

    Its iterations are inner_iterations x outer_iterations; `median_filtering` does nothing.
    """
    # by position, since the bindings' spelling of `lambda` is their own affair
    # pyrefly: ignore [missing-attribute] - OpenCV's types are those of a build without CUDA's modules
    algorithm = cv2.cuda.OpticalFlowDual_TVL1_create(
        parameters.tau,
        parameters.lambda_,
        parameters.theta,
        parameters.scales,
        parameters.warps,
        parameters.epsilon,
        parameters.inner_iterations * parameters.outer_iterations,
        parameters.scale_step,
        parameters.gamma,
        False,
    )
    flow = _empty(frames)
    # without the pool two allocations a pair stall the GPU; it must be asked for before the stream is made
    cv2.cuda.setBufferPoolUsage(True)
    # on the default stream every kernel waits for the one before
    stream = cv2.cuda.Stream()
    first, second = cv2.cuda.GpuMat(), cv2.cuda.GpuMat()
    pair = 0
    try:
        first.upload(frames[0], stream)
        for pair, frame in enumerate(frames[1:]):
            second.upload(frame, stream)
            result = algorithm.calc(first, second, None, stream).download(stream)
            stream.waitForCompletion()
            flow[pair] = result.transpose(2, 0, 1)
            first, second = second, first
    except cv2.error as error:
        raise CcsError(f"flow: OpenCV's CUDA failed at pair {pair} of frames {frames.shape}: {error}") from error
    return flow


def _empty(frames: np.ndarray) -> np.ndarray:
    num_frames, height, width = frames.shape
    return np.empty((num_frames - 1, 2, height, width), np.float32)
