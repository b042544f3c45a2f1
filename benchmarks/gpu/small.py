"""A small frame for compute-sanitizer and ncu; every phase, both medians."""

import sys

import common
import numpy as np

gpu = common.engine()
from ccs.flow.settings import Parameters

rng = np.random.default_rng(0)
size = (3, 48, 72) if len(sys.argv) < 2 else tuple(map(int, sys.argv[1].split("x")))
video = rng.integers(0, 255, size, np.uint8)
few = dict(scales=2, warps=2, inner_iterations=6, outer_iterations=2)
for window in (5, 3, 1) if len(sys.argv) < 2 else (5,):
    (flow,) = gpu.estimate_videos([video], Parameters(median_filtering=window, **few), 1 << 30)
    print(window, float(np.abs(flow).mean()), bool(np.isfinite(flow).all()))
