"""A small pair for compute-sanitizer and ncu: small.py [TxHxW]. Every kernel, all medians, floats and 8 bits.

The finest level is larger than a tile of the kernels, the coarsest smaller.
"""

import sys

import common
import numpy as np

gpu = common.engine()
from ccs.flow.settings import Parameters

shape = tuple(map(int, sys.argv[1].split("x"))) if len(sys.argv) > 1 else (2, 36, 68) if common.SMALL else (3, 80, 112)
video = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
few = {"scales": 3, "scale_step": 0.7, "warps": 1, "inner_iterations": 6, "outer_iterations": 2}
for window in (5, 3, 1):
    parameters = Parameters(median_filtering=window, **few)
    (flow,) = gpu.estimate_videos([video], parameters, 16 << 20)
    ((values, clipped),) = gpu.estimate_quantised([video], parameters, common.BOUND, 16 << 20)
    common.say(
        step="small", window=window, mean=float(np.abs(flow).mean()), of_bytes=float(values.mean()), clipped=clipped
    )
    assert np.isfinite(flow).all()
