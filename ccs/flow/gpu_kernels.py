"""The CUDA kernels of `ccs.flow.gpu`: TV-L1 of many pairs at once, without a word from the host between iterations.

`step` is the heart. A launch of it advances every pair of the batch by one phase of its own: one pair may enlarge its
flow to the next level while another iterates. What comes next is decided on the device, pair by pair, in `control`.

Phases: START (the flow of a level, from the coarser one or zero) -> WARP (with the median before the first pass)
-> ITERATE, up to `group` iterations in one go, again and again -> MEDIAN before each further pass -> ITERATE ...
-> WARP `warps` times -> START of the next level or, after the last, STORE -> DONE.

Iterations. A block of threads holds a tile of `width` x (`strips` x `rows`) pixels for up to `group` iterations: a
thread keeps `rows` pixels of one column in registers and shows its neighbours, in shared memory, only what they need.
Each iteration spoils one more pixel along the tile's inner edges, so tiles overlap by 2 x `group` and a block writes
only what it owns. Per iteration the tile's sum of squared changes goes to `partials`; the block that ends last adds
them up, always in the same order, and applies the stop rule. If that says that the flow was finished before the group's
last iteration, the group is thrown away and made again, shorter: both sides of all fields are kept for that.

Sizes, for an H200 (sm_90: 64 K registers and 227 KB of shared memory a multiprocessor). An iteration needs nine values
of a pixel. Were they in shared memory, it would be read or written 22 times a pixel, which takes longer than the
arithmetic; with registers it is 10 times. Four pixels a thread fit into 64 registers, so that two blocks of 512 threads
fill a multiprocessor and one can load while the other computes. A tile of 64x32 pixels takes 45 KB of shared memory;
more than 48 would need a special request. With four iterations in one go device memory moves 15 bytes a pixel and
iteration instead of 60, and tiles begin at multiples of 32 bytes.

Shapes: N pairs, F frames, L levels, S pixels of the largest level's plane, rows padded to a multiple of 8 pixels
    control (2, N, 8) int32     what each pair does in this launch (side `parity`) and in the next (the other)
    arrivals (N+1) int32        blocks that have ended, per pair; the last entry counts the pairs that are done
    levels (L, 8) int32         geometry of each level, fields below; level 0 is the full size
    thresholds (L) float32      epsilon^2 x pixels, below which the sum of squared changes ends the iterations
    pairs (N, 2) int32          indices of the first and the second frame
    images (F, sum of S over levels) float32    pyramids of all frames
    planes (N, 15, S) float32   flow and dual fields (two sides each) and the warped data, at the pair's own level
    partials (N, group, T) float32    sums of squared changes, T >= tiles
    flow (N, 2, H, W) float32   the results
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numba import cuda, float32, int32, uint32
from numba.core import config

from ccs.flow.gpu_arithmetic import (
    FIRST,
    HALF,
    ONE,
    ZERO,
    cubic,
    device,
    fma,
    hypot,
    mul,
    mul64,
    quotient,
    reciprocal,
    resized,
)
from ccs.flow.gpu_median import median3, median5

# phases of a pair
START, WARP, MEDIAN, ITERATE, STORE, DONE = range(6)
# fields of `control`; SIDE_*: which of the two sides holds the present values; REDO: iterations to make again, or 0
NUM_FIELDS = 8
PHASE, LEVEL, WARPS, OUTER, INNER, SIDE_U, SIDE_P, REDO = range(NUM_FIELDS)
# fields of `levels`; OFFSET is that of the level in a pyramid; tiles overlap (ITERATE), blocks do not (other phases)
WIDTH, HEIGHT, PITCH, OFFSET, TILES_X, TILES_Y, BLOCKS_X, BLOCKS_Y = range(8)
# planes of a pair: u1, u2 of side 0, of side 1; p11, p12, p21, p22 of side 0, of side 1; I1wx, I1wy, rc
U, P, DATA = 0, 4, 12
NUM_PLANES = 15

EPSILON = np.float32(np.finfo(np.float32).eps)  # gradients below it count as none


class Tile(NamedTuple):
    """How iterations are laid out over threads; the defaults are the sizes argued for above."""

    width: int = 64  # pixels and threads
    strips: int = 8  # threads above each other; width x strips is a power of two
    rows: int = 4  # pixels of a thread, an even number
    group: int = 4  # iterations in one go, and half the overlap of tiles

    @property
    def height(self) -> int:
        """Pixels."""
        return self.strips * self.rows

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.width * self.strips

    def counts(self, width: int, height: int) -> tuple[int, int, int, int]:
        """TILES_X, TILES_Y, BLOCKS_X, BLOCKS_Y of an image: the outermost tiles need no overlap at its border."""
        tiles_x, tiles_y = (
            max(1, -(-(pixels - 2 * self.group) // (side - 2 * self.group)))
            for pixels, side in ((width, self.width), (height, self.height))
        )
        return tiles_x, tiles_y, -(-width // self.width), -(-height // self.height)


class Kernel(Protocol):
    """What `cuda.jit` makes of a function."""

    def __getitem__(self, launch: tuple[object, ...]) -> Callable[..., None]:
        """The function, to be launched so: blocks, threads of a block, stream."""
        ...


def _kernel(**options):
    """`cuda.jit`; the simulator knows fewer options."""
    return cuda.jit(**({} if config.ENABLE_CUDASIM else options))


@device
def _start(levels, level, upscale, planes, pair, side_u, side_p, x, y, rows):
    """Phase START at `rows` pixels: flow from the next coarser level, or zero at the coarsest; dual fields zero."""
    width, height, pitch = levels[level, WIDTH], levels[level, HEIGHT], levels[level, PITCH]
    from_width, from_height, from_pitch = width, height, pitch
    coarser = level + 1 < len(levels)
    if coarser:
        from_width, from_height = levels[level + 1, WIDTH], levels[level + 1, HEIGHT]
        from_pitch = levels[level + 1, PITCH]
    # float64, and the reciprocal of a quotient, as in OpenCV
    from_x = mul64(x + 0.5, 1.0 / (width / from_width)) - 0.5
    scale_y = 1.0 / (height / from_height)
    for r in range(rows):
        if x < width and y + r < height:
            i = (y + r) * pitch + x
            from_y = mul64(y + r + 0.5, scale_y) - 0.5
            for component in range(2):
                value = ZERO
                if coarser:
                    source = planes[pair, U + 2 * side_u + component]
                    value = resized(source, from_pitch, from_width, from_height, from_x, from_y)
                    value = np.float32(upscale * np.float64(value))
                planes[pair, U + 2 * (1 - side_u) + component, i] = value
            for component in range(4):
                planes[pair, P + 4 * side_p + component, i] = ZERO


@device
def _row(offset, pitch, height, y):
    """Index of row y, or of the image's first or last row."""
    return np.uint32(offset + min(max(np.int32(y), FIRST), np.int32(height - 1)) * pitch)


@device
def _warp(first, second, offset, pitch, width, height, u, data, x, y):
    """Phase WARP at one pixel: I1wx, I1wy and rc, the bicubic samples of the second image and of its gradient images.

    Samples outside are zero, also of the gradients. The gradients are half differences of neighbours, those at borders
    too, where the pixel itself stands in for the one outside; so clamped columns and rows serve both.
    """
    i = y * pitch + x
    flow_x, flow_y = u[0, i], u[1, i]
    # the limits keep wild flow within the range of integers; beyond them all samples are outside anyway
    position_x = min(max(np.float32(x) + flow_x, np.float32(-4)), np.float32(width + 3))
    position_y = min(max(np.float32(y) + flow_y, np.float32(-4)), np.float32(height + 3))
    left, above = np.int32(math.floor(position_x)), np.int32(math.floor(position_y))
    weights_x = cubic(position_x - np.float32(left))
    weights_y = cubic(position_y - np.float32(above))

    # columns -2 to 3 around the sample, of the rows above, at and below the taps' present one
    columns = cuda.local.array(6, uint32)
    upper = cuda.local.array(6, float32)
    middle = cuda.local.array(6, float32)
    lower = cuda.local.array(6, float32)
    for k in range(6):
        columns[k] = np.uint32(min(max(np.int32(left + k - 2), FIRST), np.int32(width - 1)))
    for k in range(6):
        upper[k] = second[_row(offset, pitch, height, above - 2) + columns[k]]
        middle[k] = second[_row(offset, pitch, height, above - 1) + columns[k]]
    sample, gradient_x, gradient_y = ZERO, ZERO, ZERO
    for m in range(4):
        for k in range(6):
            lower[k] = second[_row(offset, pitch, height, above + m) + columns[k]]
        row_inside = 0 <= np.int32(above + m - 1) < height
        row_sample, row_x, row_y = ZERO, ZERO, ZERO
        for k in range(4):
            value, dx, dy = ZERO, ZERO, ZERO
            if row_inside and 0 <= np.int32(left + k - 1) < width:
                value = middle[k + 1]
                dx = mul(HALF, middle[k + 2] - middle[k])
                dy = mul(HALF, lower[k + 1] - upper[k + 1])
            # the first product needs no sum: adding it to zero rounds nothing
            row_sample = fma(value, weights_x[k], row_sample)
            row_x = fma(dx, weights_x[k], row_x)
            row_y = fma(dy, weights_x[k], row_y)
        sample = fma(row_sample, weights_y[m], sample)
        gradient_x = fma(row_x, weights_y[m], gradient_x)
        gradient_y = fma(row_y, weights_y[m], gradient_y)
        for k in range(6):
            upper[k] = middle[k]
            middle[k] = lower[k]
    data[0, i] = gradient_x
    data[1, i] = gradient_y
    data[2, i] = ((sample - mul(gradient_x, flow_x)) - mul(gradient_y, flow_y)) - first[offset + i]


@device
def _copy(now, after):
    for field in range(NUM_FIELDS):
        after[field] = now[field]


@device
def _after_other_phase(now, after, window):
    """What follows START, WARP, MEDIAN, STORE and DONE."""
    _copy(now, after)
    if now[PHASE] == START:
        after[PHASE] = WARP
        after[SIDE_U] = 1 - now[SIDE_U]
    elif now[PHASE] == STORE:
        after[PHASE] = DONE
    elif now[PHASE] != DONE:
        after[PHASE] = ITERATE
        if window > 1:
            after[SIDE_U] = 1 - now[SIDE_U]


@device
def _after_warp(state, warps):
    """What follows the iterations of a warp: another one, or the next level, or the end."""
    state[WARPS] += 1
    state[OUTER] = 0
    state[INNER] = 0
    if state[WARPS] < warps:
        state[PHASE] = WARP
    elif state[LEVEL] > 0:
        state[WARPS] = 0
        state[LEVEL] -= 1
        state[PHASE] = START
    else:
        state[PHASE] = STORE


@functools.lru_cache
def build(tile: Tile = Tile()) -> Kernel:  # noqa: B008 (immutable)
    """`step` for one tile, compiled when first launched; step[(most tiles or blocks, N), (width, strips), stream]."""
    width_t, strips, rows, group = tile  # pixels of a tile: width_t x (strips x rows)
    height_t = strips * rows
    threads = tile.threads
    # a column of zeros at the left of p11 and p21 and a row above p12 and p22 stand for what is beyond the image
    num_u, num_p, num_edge = width_t * height_t, (width_t + 1) * height_t, width_t * (strips + 1)
    num_errors = group * threads
    # unsigned, and constant where they can be: signed indices are tested for negative ones at every access
    u_row, p_row, strip_row = width_t, width_t + 1, np.uint64(width_t)

    @device
    def sum_over_threads(errors, thread):
        """Each of the `group` rows of errors into its first column, in an order that never changes."""
        half = threads // 2
        cuda.syncthreads()
        while half > 0:
            if thread < half:
                for k in range(group):
                    errors[k * threads + thread] += errors[k * threads + thread + half]
            cuda.syncthreads()
            half //= 2

    @device
    def iterate(u, p, data, to_u, to_p, geometry, block, num, lt, taut, theta, errors):
        """Phase ITERATE of a tile: `num` iterations from u and p to to_u and to_p; squared changes to errors."""
        width, height, pitch = geometry[WIDTH], geometry[HEIGHT], geometry[PITCH]
        tile_y, tile_x = divmod(block, geometry[TILES_X])
        shown_u1 = cuda.shared.array(num_u, float32)
        shown_u2 = cuda.shared.array(num_u, float32)
        shown_p11 = cuda.shared.array(num_p, float32)
        shown_p21 = cuda.shared.array(num_p, float32)
        shown_p12 = cuda.shared.array(num_edge, float32)  # the last rows of strips only
        shown_p22 = cuda.shared.array(num_edge, float32)
        # registers, since all indices become constants
        u1 = cuda.local.array(rows, float32)
        u2 = cuda.local.array(rows, float32)
        p11 = cuda.local.array(rows, float32)
        p12 = cuda.local.array(rows, float32)
        p21 = cuda.local.array(rows, float32)
        p22 = cuda.local.array(rows, float32)
        ix = cuda.local.array(rows, float32)
        iy = cuda.local.array(rows, float32)
        rc = cuda.local.array(rows, float32)
        inverse = cuda.local.array(rows, float32)  # 1/g, or 0 where the image is flat

        column, strip = cuda.threadIdx.x, cuda.threadIdx.y
        x0 = tile_x * (width_t - 2 * group)
        y0 = tile_y * (height_t - 2 * group)
        x = x0 + column
        y = y0 + strip * rows
        here_u = np.uint64(strip * rows * u_row + column)
        here_p = np.uint64(strip * rows * p_row + column)
        here = np.uint64(strip * width_t + column)
        for r in range(rows):
            u1[r] = u2[r] = p11[r] = p12[r] = p21[r] = p22[r] = ix[r] = iy[r] = rc[r] = ZERO
            if x < width and y + r < height:
                i = (y + r) * pitch + x
                u1[r] = u[0, i]
                u2[r] = u[1, i]
                p11[r] = p[0, i]
                p12[r] = p[1, i]
                p21[r] = p[2, i]
                p22[r] = p[3, i]
                ix[r] = data[0, i]
                iy[r] = data[1, i]
                rc[r] = data[2, i]
            g = mul(ix[r], ix[r]) + mul(iy[r], iy[r])
            inverse[r] = ZERO
            if g > EPSILON:
                inverse[r] = ONE / g
            shown_p11[here_p + np.uint64(r * p_row + 1)] = p11[r]
            shown_p21[here_p + np.uint64(r * p_row + 1)] = p21[r]
            if column == 0:
                shown_p11[here_p + np.uint64(r * p_row)] = ZERO
                shown_p21[here_p + np.uint64(r * p_row)] = ZERO
        shown_p12[here + strip_row] = p12[rows - 1]
        shown_p22[here + strip_row] = p22[rows - 1]
        if strip == 0:
            shown_p12[here] = ZERO
            shown_p22[here] = ZERO

        # the pixel itself stands in for the one beyond the image, or beyond the tile: no difference
        right_u = here_u
        if x + 1 < width and column + 1 < width_t:
            right_u = here_u + np.uint64(1)
        below_u = here_u + np.uint64((rows - 1) * u_row)
        if y + rows < height and strip + 1 < strips:
            below_u = here_u + np.uint64(rows * u_row)
        rows_above_last = height - 1 - y
        # what the tile owns: not its overlap, where others know better, but the image's border is nobody else's
        first_x, first_y = x0 + group, y0 + group
        if tile_x == 0:
            first_x = 0
        if tile_y == 0:
            first_y = 0
        end_x, end_y = x0 + width_t - group, y0 + height_t - group
        if x0 + width_t >= width:
            end_x = width
        if y0 + height_t >= height:
            end_y = height
        first_row, end_row = first_y - y, end_y - y
        if x < first_x or x >= end_x:
            end_row = 0
        cuda.syncthreads()

        for k in range(num):
            error = ZERO
            above_p12 = shown_p12[here]
            above_p22 = shown_p22[here]
            for r in range(rows):
                rho = rc[r] + (mul(ix[r], u1[r]) + mul(iy[r], u2[r]))
                g = mul(ix[r], ix[r]) + mul(iy[r], iy[r])
                bound = mul(lt, g)
                d = quotient(-rho, g, inverse[r])
                if rho > bound:
                    d = -lt
                if rho < -bound:
                    d = lt
                left_p = here_p + np.uint64(r * p_row)
                div1 = (p11[r] - shown_p11[left_p]) + (p12[r] - above_p12)
                div2 = (p21[r] - shown_p21[left_p]) + (p22[r] - above_p22)
                if x == 0:  # which OpenCV sums in another order
                    div1 = (p11[r] + p12[r]) - above_p12
                    div2 = (p21[r] + p22[r]) - above_p22
                new1 = (u1[r] + mul(d, ix[r])) + mul(theta, div1)
                new2 = (u2[r] + mul(d, iy[r])) + mul(theta, div2)
                change1 = new1 - u1[r]
                change2 = new2 - u2[r]
                if first_row <= r < end_row:
                    error += fma(change1, change1, mul(change2, change2))
                above_p12 = p12[r]
                above_p22 = p22[r]
                u1[r] = new1
                u2[r] = new2
                shown_u1[here_u + np.uint64(r * u_row)] = new1
                shown_u2[here_u + np.uint64(r * u_row)] = new2
            errors[np.uint64(k * threads) + here] = error
            cuda.syncthreads()
            for r in range(rows):
                dx1 = shown_u1[right_u + np.uint64(r * u_row)] - u1[r]
                dx2 = shown_u2[right_u + np.uint64(r * u_row)] - u2[r]
                dy1 = dy2 = ZERO
                if r < rows_above_last:
                    if r + 1 < rows:
                        dy1 = u1[r + 1] - u1[r]
                        dy2 = u2[r + 1] - u2[r]
                    else:
                        dy1 = shown_u1[below_u] - u1[r]
                        dy2 = shown_u2[below_u] - u2[r]
                n1 = ONE + mul(taut, hypot(dx1, dy1))
                n2 = ONE + mul(taut, hypot(dx2, dy2))
                inverse1, inverse2 = reciprocal(n1), reciprocal(n2)
                inverse1 = fma(fma(-n1, inverse1, ONE), inverse1, inverse1)
                inverse2 = fma(fma(-n2, inverse2, ONE), inverse2, inverse2)
                p11[r] = quotient(p11[r] + mul(taut, dx1), n1, inverse1)
                p12[r] = quotient(p12[r] + mul(taut, dy1), n1, inverse1)
                p21[r] = quotient(p21[r] + mul(taut, dx2), n2, inverse2)
                p22[r] = quotient(p22[r] + mul(taut, dy2), n2, inverse2)
                shown_p11[here_p + np.uint64(r * p_row + 1)] = p11[r]
                shown_p21[here_p + np.uint64(r * p_row + 1)] = p21[r]
            shown_p12[here + strip_row] = p12[rows - 1]
            shown_p22[here + strip_row] = p22[rows - 1]
            cuda.syncthreads()

        for r in range(rows):
            if first_row <= r < end_row:
                i = (y + r) * pitch + x
                to_u[0, i] = u1[r]
                to_u[1, i] = u2[r]
                to_p[0, i] = p11[r]
                to_p[1, i] = p12[r]
                to_p[2, i] = p21[r]
                to_p[3, i] = p22[r]

    @device
    def all_tiles_done(partials, arrivals, errors, pair, block, num_tiles, num, thread):
        """Whether this block is the pair's last; if so, the sums of squared changes are in the first column of errors.

        The fences order what the blocks wrote to `partials` before the count that says that all are there.
        """
        is_last = cuda.shared.array(1, int32)
        sum_over_threads(errors, thread)
        if thread == 0:
            for k in range(num):
                partials[pair, k, block] = errors[k * threads]
            cuda.threadfence()
            is_last[0] = cuda.atomic.add(arrivals, pair, 1) == num_tiles - 1
        cuda.syncthreads()
        if is_last[0] == 0:
            return False
        cuda.threadfence()
        for k in range(num):
            error = ZERO
            for tile in range(thread, num_tiles, threads):
                error += partials[pair, k, tile]
            errors[k * threads + thread] = error
        sum_over_threads(errors, thread)
        if thread == 0:
            arrivals[pair] = 0
        return True

    @device
    def judge(state, errors, threshold, num, warps, window, inner, outer):
        """The stop rule, after `num` iterations with these sums of squared changes."""
        made = num
        for k in range(num - 1, -1, -1):
            if not errors[k * threads] > threshold:
                made = k + 1
        if made < num:
            state[REDO] = made
            return
        finished = not errors[(num - 1) * threads] > threshold
        state[SIDE_U] = 1 - state[SIDE_U]
        state[SIDE_P] = 1 - state[SIDE_P]
        state[INNER] += num
        if not finished and state[INNER] == inner:
            state[INNER] = 0
            state[OUTER] += 1
            finished = state[OUTER] == outer
            if window > 1:
                state[PHASE] = MEDIAN
        if finished:
            _after_warp(state, warps)

    @device
    def other_phase(levels, pairs, images, planes, flow, pair, block, state, window, upscale):
        """Phases START, WARP, MEDIAN and STORE of a block's pixels."""
        phase, level, side_u = state[PHASE], state[LEVEL], state[SIDE_U]
        geometry = levels[level]
        width, height, pitch = geometry[WIDTH], geometry[HEIGHT], geometry[PITCH]
        block_y, block_x = divmod(block, geometry[BLOCKS_X])
        x = block_x * width_t + cuda.threadIdx.x
        y = block_y * height_t + cuda.threadIdx.y * rows
        if x >= width:
            return
        if phase == START:
            _start(levels, level, upscale, planes, pair, side_u, state[SIDE_P], x, y, rows)
        if phase == WARP:
            first, second = images[pairs[pair, 0]], images[pairs[pair, 1]]
            u, data = planes[pair, U + 2 * side_u :], planes[pair, DATA:]
            for row in range(y, min(y + rows, height)):
                _warp(first, second, geometry[OFFSET], pitch, width, height, u, data, x, row)
        if phase == STORE:
            for row in range(y, min(y + rows, height)):
                flow[pair, 0, row, x] = planes[pair, U + 2 * side_u, row * pitch + x]
                flow[pair, 1, row, x] = planes[pair, U + 2 * side_u + 1, row * pitch + x]
        if phase in (WARP, MEDIAN) and window > 1:
            for component in range(2):
                source = planes[pair, U + 2 * side_u + component]
                target = planes[pair, U + 2 * (1 - side_u) + component]
                if window == 3:
                    median3(source, target, pitch, width, height, x, y, rows)
                else:
                    median5(source, target, pitch, width, height, x, y, rows)

    @_kernel(launch_bounds=(threads, 2))
    def step(
        control, arrivals, levels, thresholds, pairs, images, planes, partials, flow,
        parity, window, warps, inner, outer, upscale, lt, taut, theta,
    ):  # fmt: skip
        errors = cuda.shared.array(num_errors, float32)
        block, pair = cuda.blockIdx.x, cuda.blockIdx.y
        thread = cuda.threadIdx.y * width_t + cuda.threadIdx.x
        now, after = control[parity, pair], control[1 - parity, pair]
        geometry = levels[now[LEVEL]]
        if now[PHASE] != ITERATE:
            # what comes next depends on no other block; the present state stays readable for those that start late
            if block == 0 and thread == 0:
                _after_other_phase(now, after, window)
                if now[PHASE] == STORE:
                    cuda.atomic.add(arrivals, control.shape[1], 1)
            if now[PHASE] != DONE and block < geometry[BLOCKS_X] * geometry[BLOCKS_Y]:
                other_phase(levels, pairs, images, planes, flow, pair, block, now, window, upscale)
            return
        num_tiles = geometry[TILES_X] * geometry[TILES_Y]
        if block >= num_tiles:
            return
        num = now[REDO] if now[REDO] > 0 else min(group, inner - now[INNER])
        side_u, side_p = now[SIDE_U], now[SIDE_P]
        u, p, data = planes[pair, U + 2 * side_u :], planes[pair, P + 4 * side_p :], planes[pair, DATA:]
        to_u, to_p = planes[pair, U + 2 * (1 - side_u) :], planes[pair, P + 4 * (1 - side_p) :]
        iterate(u, p, data, to_u, to_p, geometry, block, num, lt, taut, theta, errors)
        if now[REDO] > 0:
            if block == 0 and thread == 0:
                _copy(now, after)
                after[REDO] = 0
                after[SIDE_U] = 1 - side_u
                after[SIDE_P] = 1 - side_p
                _after_warp(after, warps)
        elif all_tiles_done(partials, arrivals, errors, pair, block, num_tiles, num, thread) and thread == 0:
            _copy(now, after)
            judge(after, errors, thresholds[now[LEVEL]], num, warps, window, inner, outer)

    return step
