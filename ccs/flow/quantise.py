"""Flow in pixels to 8 bits and back: value = 128 + flow * 127 / bound, so that 128 is no motion, exactly.

Used by the stage `flow` when it writes; readers of training shards see the 8-bit values.
"""

from __future__ import annotations

import math

import numpy as np

from ccs.stage import CcsError

ZERO = 128  # the value of no motion
STEPS = 127  # from no motion to the bound, on either side: 1 and 255 are the bounds, 0 is not used


def quantise(flow: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
    """8-bit values of `flow`, and the share of it that was clipped.

    Args:
        flow: floating, any shape, in pixels; finite.
        bound: largest displacement kept, in pixels, > 0.

    Returns:
        uint8 in 1..255 of the same shape, off by at most bound / 254 px where |flow| <= bound;
        the share (0..1) of elements with |flow| > bound (as float32), 0 for an empty array.

    Raises:
        CcsError: the bound is not a positive number or the flow is not finite.
    """
    values, num_clipped = quantise_counting(flow, bound)
    return values, num_clipped / flow.size if flow.size else 0.0


def quantise_counting(flow: np.ndarray, bound: float) -> tuple[np.ndarray, int]:
    """`quantise`, with the number of elements that were clipped."""
    check_bound(bound)
    check_finite(np.isfinite(flow).all())
    values = np.rint(flow * np.float32(STEPS / bound))
    np.clip(values, -STEPS, STEPS, out=values)
    return (values + ZERO).astype(np.uint8), int(np.count_nonzero(np.abs(flow) > bound))


def dequantise(values: np.ndarray, bound: float) -> np.ndarray:
    """float32 flow in pixels, within [-bound, bound], from the uint8 `values` of `quantise`, of the same shape."""
    check_bound(bound)
    return (values.astype(np.float32) - ZERO) * np.float32(bound) / np.float32(STEPS)


def check_bound(bound: float) -> None:
    """`CcsError` unless `bound` is a positive number of pixels."""
    if not (math.isfinite(bound) and bound > 0):
        raise CcsError(f"flow bound: expected a number of pixels above 0, found {bound}")


def check_finite(is_finite: bool | np.bool) -> None:
    """`CcsError` for flow that is not."""
    if not is_finite:
        raise CcsError("flow: expected finite displacements, found NaN or infinity; check the flow settings")
