"""Aggregation of the segments of a video (the consensus of TSN; Fig. 5a): (B, T, C) -> (B, C)."""

from __future__ import annotations

from torch import Tensor


def mean(x_BTC: Tensor) -> Tensor:
    """Element-wise average over segments, the paper's best."""
    return x_BTC.mean(dim=1)


def maximum(x_BTC: Tensor) -> Tensor:
    """Element-wise maximum over segments."""
    return x_BTC.amax(dim=1)


FUNCTIONS = {"mean": mean, "max": maximum}
