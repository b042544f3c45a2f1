"""The methods of `ccs flow videos/ ...`: TV-L1, whose engines are `ccs.flow.engines`, and those that libraries have.

The pipeline computes TV-L1 alone, so that its stage does not import this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ccs.flow import engines, opencv
from ccs.flow.engines import BACKENDS, Backend
from ccs.flow.quantise import quantise_counting
from ccs.flow.settings import Parameters
from ccs.stage import CcsError

METHODS = {
    "tvl1": "TV-L1 (Zach et al. 2007), with the settings below",
    "dis": "dense inverse search (Kroeger et al. 2016), OpenCV's preset medium",
    "farneback": "polynomial expansion (Farnebäck 2003), OpenCV's settings",
    "raft": "RAFT (Teed and Deng 2020), torchvision's large network and its weights, with torch",
}


def _raft():
    from ccs.flow import raft

    return raft


def _raft_set_up(index: int) -> None:
    _raft().set_up(index)


def _opencv(create: Callable[[], Any]) -> Backend:
    """An algorithm of OpenCV that has no settings here; it is there in every build."""
    advice = ": try another --method, or larger frames (--short-side)"
    return BACKENDS["opencv"]._replace(
        available=lambda: None,
        estimate=lambda videos, parameters, memory: [opencv.of_pairs(create(), frames, advice) for frames in videos],
        pairs_per_task=16,
        illumination=False,
    )


# by the method and then by the backend; the first is that of `auto`
_OTHERS: dict[str, dict[str, Backend]] = {
    # pyrefly: ignore [missing-attribute] - OpenCV's types lack it
    "dis": {"opencv": _opencv(lambda: cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM))},
    # pyrefly: ignore [missing-attribute]
    "farneback": {"opencv": _opencv(lambda: cv2.FarnebackOpticalFlow_create())},
    "raft": {
        "torchvision": Backend(
            available=lambda: _raft().available(),
            estimate=lambda videos, parameters, memory: _raft().estimate_videos(videos),
            version=lambda: _raft().version(),
            num_processes=lambda num_workers: _raft().num_processes(num_workers),
            set_up=_raft_set_up,
            pairs_per_task=16,
            first_pairs=1,
            tasks_at_once=1,
            illumination=False,
            prepare=lambda: _raft().prepare(),
        )
    },
}


def min_side(method: str) -> int:
    """Pixels that a side of the frames has at least."""
    return 12 if method == "dis" else engines.MIN_SIDE  # patches of 8 px at half the size


def in_colour(method: str) -> bool:
    """Whether the frames are to be RGB (T, H, W, 3), not grey."""
    return method == "raft"


def choose(method: str, backend: str, gamma: float) -> str:
    """The backend that `backend` means for `method` on this machine; `CcsError` if it cannot be used."""
    if method == "tvl1":
        return engines.choose(backend, gamma)
    known = _OTHERS[method]
    if backend not in ("auto", *known):
        raise CcsError(f"--backend {backend}: computes no {method}: leave it out, {', '.join(known)} does")
    name = next(iter(known))
    if reason := known[name].available():
        raise CcsError(f"--method {method} cannot be used here: {reason}")
    return name


def engine(method: str, backend: str) -> Backend:
    """The engine of a method by the name that `choose` gave."""
    return BACKENDS[backend] if method == "tvl1" else _OTHERS[method][backend]


def settings(method: str, parameters: Parameters) -> Mapping[str, object]:
    """What the flow of a method depends on, for records."""
    if method == "tvl1":
        return parameters.to_names()
    return _raft().settings() if method == "raft" else {}


def estimate(
    videos: Sequence[np.ndarray], method: str, backend: str, parameters: Parameters, memory: int
) -> list[np.ndarray]:
    """Flow, float32 (T-1, 2, H, W), of frames (T, H, W), or (T, H, W, 3) as `in_colour` says."""
    if method == "tvl1":
        return engines.estimate_videos(videos, backend, memory, **parameters.to_names())
    return engine(method, backend).estimate(videos, parameters, memory)


def estimate_quantised(
    videos: Sequence[np.ndarray], bound: float, method: str, backend: str, parameters: Parameters, memory: int
) -> list[tuple[np.ndarray, int]]:
    """`estimate` in 8 bits, and how many values were clipped."""
    if method == "tvl1":
        return engines.estimate_quantised(videos, bound, backend, memory, **parameters.to_names())
    return [quantise_counting(flow, bound) for flow in estimate(videos, method, backend, parameters, memory)]
