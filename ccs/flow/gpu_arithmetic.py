"""Arithmetic of the CUDA kernels of `ccs.flow.gpu_kernels`, rounded as OpenCV and `ccs.flow.kernels` round it.

TV-L1 amplifies one bit to hundredths of a pixel, so a product that is to be added to something is made by `mul`, which
the compiler does not fuse with the sum, and `fma` stands where OpenCV fuses. `reciprocal` and `rsqrt` are estimates of
the hardware, whose errors are corrected.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda
from numba.core import config

ZERO, HALF, ONE, TWO, THREE = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2), np.float32(3)
CUBIC, TINY, BEYOND = np.float32(-0.75), np.float32(1e-30), np.float32(1 + 2**-16)  # see ccs.flow.kernels
FIRST = np.int32(0)  # index of a row or column; 64-bit integers would take two instructions for one


def device(function):
    """A function for kernels to call; the simulator's own way of calling them takes longer than most of them."""
    return function if config.ENABLE_CUDASIM else cuda.jit(device=True, forceinline=True)(function)


if config.ENABLE_CUDASIM:

    def mul(a, b):
        """a * b, rounded."""
        return a * b

    def fma(a, b, c):
        """a * b + c, rounded once."""
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))

    def reciprocal(a):
        """Nearly 1 / a."""
        return ONE / a

    def rsqrt(a):
        """Nearly 1 / sqrt(a)."""
        return ONE / np.sqrt(a)

    mul64 = mul
else:
    from numba.cuda import libdevice

    mul, fma, mul64, rsqrt = libdevice.fmul_rn, libdevice.fmaf_rn, libdevice.dmul_rn, libdevice.rsqrtf
    reciprocal = device(lambda a: libdevice.fast_fdividef(ONE, a))


@device
def hypot(a, b):
    """sqrt(a^2 + b^2), correctly rounded, as `kernels.hypot`."""
    a, b = abs(a), abs(b)
    a, b = max(a, b), min(a, b)
    square = mul(a, a)
    both = fma(b, b, square)
    rest = fma(a, a, -square) + fma(b, b, square - both)
    both = max(both, TINY)
    inverse = rsqrt(both)
    root = mul(both, inverse)
    correction = mul(fma(-root, root, both) + rest, mul(HALF, inverse))
    result = root + correction
    if fma((root - result) + correction, BEYOND, result) != result:
        a, b = np.float64(a), np.float64(b)
        result = np.float32(math.sqrt(a * a + b * b))
    return result


@device
def quotient(a, n, inverse):
    """a / n, correctly rounded, from the correctly rounded inverse of n (Markstein, 1990)."""
    q = mul(a, inverse)
    return fma(fma(-n, q, a), inverse, q)


@device
def _linear(position, size):
    """Left neighbour, right neighbour and weight of the right one of a float64 position, as `cv2.resize` has them."""
    left = np.int32(math.floor(position))
    weight = np.float32(position - left)
    if left < 0:
        left, weight = FIRST, ZERO
    if left >= size - 1:
        left, weight = np.int32(size - 1), ZERO
    return left, min(np.int32(left + 1), np.int32(size - 1)), weight


@device
def resized(source, pitch, width, height, x, y):
    """Sample of a (height, width) image by its four neighbours; x and y are float64, as in OpenCV."""
    left, right, weight_x = _linear(x, width)
    above, below, weight_y = _linear(y, height)
    above, below = above * pitch, below * pitch
    upper = fma(source[above + right] - source[above + left], weight_x, source[above + left])
    lower = fma(source[below + right] - source[below + left], weight_x, source[below + left])
    return fma(lower - upper, weight_y, upper)


@device
def cubic(t):
    """Weights of the taps at -1, 0, 1 and 2 for a fraction t in [0, 1)."""
    rest = ONE - t
    before = mul(CUBIC, mul(t, mul(rest, rest)))
    at = fma(fma(CUBIC + TWO, t, -(CUBIC + THREE)), mul(t, t), ONE)
    beyond = mul(CUBIC, mul(rest, mul(t, t)))
    return before, at, ((ONE - before) - at) - beyond, beyond
