"""RAFT by torchvision, where that is installed: RGB frames of one video in, a flow field per pair of neighbours out.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020. On the first GPU that torch can
use, else on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import metadata, util
from typing import TYPE_CHECKING

import numpy as np

from ccs.stage import CcsError, install

if TYPE_CHECKING:
    import torch

SIDE = 128  # pixels that the network needs: its correlations are pooled to an eighth of an eighth
MULTIPLE = 8  # of which sides must be
PAIRS_AT_ONCE = 2
WEIGHTS = "Raft_Large_Weights.C_T_SKHT_V2"


def available() -> str | None:
    """None, or why it cannot be used here."""
    if missing := [name for name in ("torch", "torchvision") if not util.find_spec(name)]:
        found = " and ".join(missing)
        return f"{found}: not installed; {install('train')}"
    return None


def version() -> str:
    """Torchvision's, whose network it is, and torch's, whose arithmetic."""
    return f"{metadata.version('torchvision')} (torch {metadata.version('torch')})"


def settings() -> dict[str, str]:
    """What its flow depends on."""
    return {"weights": WEIGHTS}


def num_processes(num_workers: int) -> int:
    """One on a GPU, as its memory is shared."""
    import torch

    return 1 if torch.cuda.is_available() else num_workers


def set_up(index: int) -> None:
    """One thread a process on a CPU."""
    import torch

    torch.set_num_threads(1)


def prepare() -> None:
    """Download the weights once, for all processes, where they are not there; `CcsError` where that fails."""
    _network()


def estimate_videos(videos: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The flow, float32 (T-1, 2, H, W) in pixels, of videos of RGB frames, uint8 (T, H, W, 3)."""
    return [_estimate(frames) for frames in videos]


def _estimate(frames: np.ndarray) -> np.ndarray:
    import torch
    from torch.nn.functional import pad

    network = _network()
    device = next(network.parameters()).device
    num_frames, height, width, _ = frames.shape
    more_h, more_w = (max(SIDE, -(-side // MULTIPLE) * MULTIPLE) - side for side in (height, width))
    around = more_w // 2, more_w - more_w // 2, more_h // 2, more_h - more_h // 2
    flow = np.empty((num_frames - 1, 2, height, width), np.float32)
    with torch.inference_mode():
        for begin in range(0, num_frames - 1, PAIRS_AT_ONCE):
            end = min(begin + PAIRS_AT_ONCE, num_frames - 1)
            # torchvision wants -1 to 1; the border is repeated where the network needs more
            images = torch.from_numpy(frames[begin : end + 1]).to(device).permute(0, 3, 1, 2) / 127.5 - 1
            images = pad(images, around, mode="replicate")
            found = network(images[:-1], images[1:])[-1]
            flow[begin:end] = found[..., around[2] :, around[0] :][..., :height, :width].cpu().numpy()
    return flow


@cache
def _network() -> torch.nn.Module:
    """The network with its weights, on the device."""
    import torch
    from torchvision.models import optical_flow

    weights = optical_flow.Raft_Large_Weights[WEIGHTS.partition(".")[2]]
    try:
        network = optical_flow.raft_large(weights=weights, progress=False)
    except (OSError, RuntimeError) as error:  # the file's sum is wrong
        raise CcsError(
            f"--method raft: the weights {weights.url} can neither be found nor downloaded ({error}): put this file "
            f"into {torch.hub.get_dir()}/checkpoints"
        ) from error
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
