"""The CPU engine's inner loops: TV-L1's iterations and warps as explicit vector code, compiled by Numba.

Plain loops over the ten arrays of the state are at the mercy of LLVM's vectoriser, which gives up on some of them and
guards the others with aliasing checks. Here each operation on a row is an instruction on vectors of `LANES` pixels, so
that nothing is left to chance, not even the rounding: every result is rounded as OpenCV rounds it (no sum reordered,
no product fused with a sum unless OpenCV fuses it), because the algorithm amplifies one bit to hundredths of a pixel.

Everything compiled is in this one file: Numba notices an edit of a cached function's own file alone.

Layout. One level's state is a flat float32 array of rows of `SLOTS` planes, `pitch` elements apart, so that a row of
all planes is contiguous. Before each plane's row lie `PAD` elements, of which the last is the pixel left of the image
and the first the one right of the row before; rows are filled up to `width_up`, a multiple of `LANES`. Row 0 is the
zeros above the image. The `FIELDS` that iterations change are there twice, as sides 0 and 1: see `iterate`.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, config, types
from numba.extending import intrinsic, models, register_model

from ccs.flow.compiled import folder


def _has_avx512() -> bool:
    needed = "avx512f", "avx512dq"  # the latter for `vrangeps`
    if config.CPU_FEATURES is not None:  # NUMBA_CPU_FEATURES, for which Numba compiles then
        return {f"+{name}" for name in needed} <= set(config.CPU_FEATURES.split(","))
    features = llvmlite.binding.get_host_cpu_features()
    return all(features.get(name, False) for name in needed)


LANES = 16 if _has_avx512() else 8
# AMD's processors compare integers in twice as many units as floats, Intel's in half as many where vectors are of 16
SORTS_INTEGERS = (config.CPU_NAME or llvmlite.binding.get_host_cpu_name()).startswith("znver")
PAD = 16
LINE = 16  # elements of a cache line
TOGETHER = LANES == 16  # flow and dual fields in one loop over a row: too much for 16 vector registers
FIRST = 4  # iterations of the first pass
# planes of the state: flow and dual fields of its two components, on either side; warped gradient, constant part of
# rho, |gradient|^2
U1, U2, P11, P12, P21, P22 = range(6)
FIELDS = 6
GX, GY, RHO, G = range(2 * FIELDS, 2 * FIELDS + 4)
SLOTS = 2 * FIELDS + 4
BORDER = 4  # pixels of zeros around a source image, as many as a sample's taps reach

ZERO, ONE, TWO, THREE = np.float32(0), np.float32(1), np.float32(2), np.float32(3)
TINY = np.float32(1e-30)  # see `hypot`
CUBIC = np.float32(-0.75)  # A of OpenCV's bicubic kernel
FLAT = np.float32(np.finfo(np.float32).eps)  # |gradient|^2 below which the data term does not move a pixel


def _jit(function, **further):
    """Numba's compiler, which keeps what it compiles where that can be written, and else compiles in every process."""
    options = {"nogil": True, "error_model": "numpy", **further}
    kept = folder()
    if kept is None:
        return njit(**options)(function)
    previous, config.CACHE_DIR = config.CACHE_DIR, kept
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # Numba has found no folder to write to
        return njit(**options)(function)
    finally:
        config.CACHE_DIR = previous


def _inline(function):
    """Compiled into its callers: LLVM calls what is this long, and passes vectors through memory then."""
    return _jit(function, forceinline=True)


_FLOAT, _INT = ir.FloatType(), ir.IntType(32)


# -- vectors: a Numba type, and one function for each machine operation on it


class Vector(types.Type):
    """float32 x lanes as a value that compiled functions pass around."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        self.float32, self.int32 = ir.VectorType(_FLOAT, lanes), ir.VectorType(_INT, lanes)
        self.float64 = ir.VectorType(ir.DoubleType(), lanes)
        super().__init__(name=f"float32x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.float32)


WIDE, QUAD = Vector(LANES), Vector(4)


@intrinsic
def _pointer(typing, array):
    # to an array's first element: functions that take it in place of the array count no references
    def generate(context, builder, signature, args):
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


def _address(context, builder, array_type, array, index, pointee):
    data = array
    if not isinstance(array_type, types.CPointer):
        data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _load_of(vector):
    @intrinsic
    def load(typing, array, index):
        def generate(context, builder, signature, args: tuple[Any, Any]):
            return builder.load(_address(context, builder, signature.args[0], *args, vector.float32), align=4)

        return vector(array, types.intp), generate

    return load


def _store_of(vector):
    @intrinsic
    def store(typing, array, index, value):
        def generate(context, builder, signature, args: tuple[Any, Any, Any]):
            address = _address(context, builder, signature.args[0], *args[:2], vector.float32)
            builder.store(args[2], address, align=4)
            return context.get_dummy_value()

        return types.void(array, types.intp, vector), generate

    return store


def _splat_of(vector):
    @intrinsic
    def splat(typing, value):
        def generate(context, builder, signature, args):
            undefined = ir.Constant(vector.float32, ir.Undefined)
            one = builder.insert_element(undefined, args[0], ir.Constant(_INT, 0))
            return builder.shuffle_vector(one, undefined, ir.Constant(vector.int32, [0] * vector.lanes))

        return vector(types.float32), generate

    return splat


load, store, splat = _load_of(WIDE), _store_of(WIDE), _splat_of(WIDE)
load4, store4, splat4 = _load_of(QUAD), _store_of(QUAD), _splat_of(QUAD)


def _call(builder, name, result, args, suffix, **options):
    signature = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, f"{name}.{suffix}"), args, **options)


def _unary(emit):
    @intrinsic
    def operation(typing, a):
        return a(a), lambda context, builder, signature, args: emit(builder, a, *args)

    return operation


def _binary(emit):
    @intrinsic
    def operation(typing, a, b):
        return a(a, b), lambda context, builder, signature, args: emit(builder, a, *args)

    return operation


def _ternary(emit):
    @intrinsic
    def operation(typing, a, b, c):
        return a(a, b, c), lambda context, builder, signature, args: emit(builder, a, *args)

    return operation


@_unary
def _ordered(builder, vector, a):
    # floats to integers of the same order, as bits, and back
    if not SORTS_INTEGERS:
        return a
    a = builder.bitcast(a, vector.int32)
    sign, rest = (ir.Constant(vector.int32, [value] * vector.lanes) for value in (31, 2**31 - 1))
    return builder.bitcast(builder.xor(a, builder.and_(builder.ashr(a, sign), rest)), vector.float32)


def _of_ordered(comparison):
    @_binary
    def operation(builder, vector, a, b):
        if not SORTS_INTEGERS:
            return builder.select(builder.fcmp_ordered(comparison, a, b), a, b)
        first, second = builder.bitcast(a, vector.int32), builder.bitcast(b, vector.int32)
        chosen = builder.select(builder.icmp_signed(comparison, first, second), first, second)
        return builder.bitcast(chosen, vector.float32)

    return operation


_least, _most = _of_ordered("<"), _of_ordered(">")


@intrinsic
def _prefetch(typing, array, index):
    # into L2, the cache line of an element
    def generate(context, builder, signature, args: tuple[Any, Any]):
        address = _address(context, builder, signature.args[0], *args, ir.IntType(8))
        options = [ir.Constant(_INT, option) for option in (0, 2, 1)]
        signature = ir.FunctionType(ir.VoidType(), [address.type, _INT, _INT, _INT])
        builder.call(cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0"), [address, *options])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


add = _binary(lambda builder, vector, a, b: builder.fadd(a, b))
sub = _binary(lambda builder, vector, a, b: builder.fsub(a, b))
mul = _binary(lambda builder, vector, a, b: builder.fmul(a, b))
div = _binary(lambda builder, vector, a, b: builder.fdiv(a, b))
neg = _unary(lambda builder, vector, a: builder.fneg(a))
minimum = _binary(lambda builder, vector, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
maximum = _binary(lambda builder, vector, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
floor = _unary(lambda builder, vector, a: _call(builder, "llvm.floor", vector.float32, (a,), f"v{vector.lanes}f32"))
# a * b + c, rounded once
fma = _ternary(
    lambda builder, vector, a, b, c: _call(builder, "llvm.fma", vector.float32, (a, b, c), f"v{vector.lanes}f32")
)


@_unary
def _inverse_root(builder, vector, a):
    # 1 / sqrt(a) to within 2^-14: the processor's estimate, with a Newton step where LLVM finds it too rough
    if vector.lanes == 16:
        everywhere = ir.Constant(ir.IntType(16), -1)
        zero = ir.Constant(vector.float32, [0.0] * 16)
        return _call(builder, "llvm.x86.avx512.rsqrt14", vector.float32, (a, zero, everywhere), "ps.512")
    root = _call(builder, "llvm.sqrt", vector.float32, (a,), f"v{vector.lanes}f32", fastmath=("fast",))
    return builder.fdiv(ir.Constant(vector.float32, [1.0] * vector.lanes), root, flags=("fast",))


def _range(larger):
    @_binary
    def operation(builder, vector, a, b):
        if vector.lanes == 16:
            args = a, b, ir.Constant(_INT, 10 + larger), a, ir.Constant(ir.IntType(16), -1), ir.Constant(_INT, 4)
            return _call(builder, "llvm.x86.avx512.mask.range", vector.float32, args, "ps.512")
        a, b = (_call(builder, "llvm.fabs", vector.float32, (one,), f"v{vector.lanes}f32") for one in (a, b))
        return builder.select(builder.fcmp_ordered(">" if larger else "<", a, b), a, b)

    return operation


_larger, _smaller = _range(True), _range(False)


@_binary
def _hypot64(builder, vector, a, b):
    # by way of float64, where the squares are exact: the correctly rounded float32, but once in some 10^8
    a, b, suffix = builder.fpext(a, vector.float64), builder.fpext(b, vector.float64), f"v{vector.lanes}f64"
    square = _call(builder, "llvm.fma", vector.float64, (a, a, builder.fmul(b, b)), suffix)
    return builder.fptrunc(_call(builder, "llvm.sqrt", vector.float64, (square,), suffix), vector.float32)


@intrinsic
def _differ(typing, a, b, c, d):
    # whether any lane of a and b does, or of c and d
    def generate(context, builder, signature, args):
        a, b, c, d = args
        unequal = builder.or_(builder.fcmp_unordered("!=", a, b), builder.fcmp_unordered("!=", c, d))
        lanes = ir.IntType(WIDE.lanes)
        any_ = builder.icmp_unsigned("!=", builder.bitcast(unequal, lanes), ir.Constant(lanes, 0))
        return _call(builder, "llvm.expect", any_.type, (any_, ir.Constant(any_.type, 0)), "i1")

    return types.boolean(WIDE, WIDE, WIDE, WIDE), generate


@_ternary
def _step(builder, vector, rho, g, lt):
    # TV-L1's thresholding: d such that v = u + d * gradient; -rho / g where that stays within [-lt, lt]
    suffix, down = f"v{vector.lanes}f32", builder.fneg(rho)
    exact = builder.select(
        builder.fcmp_ordered(">", g, ir.Constant(vector.float32, [float(FLAT)] * vector.lanes)),
        builder.fdiv(down, g),
        ir.Constant(vector.float32, [0.0] * vector.lanes),
    )
    far = builder.fcmp_ordered(">", _call(builder, "llvm.fabs", vector.float32, (rho,), suffix), builder.fmul(lt, g))
    return builder.select(far, _call(builder, "llvm.copysign", vector.float32, (lt, down), suffix), exact)


def _half_and(units):
    @_unary
    def operation(builder, vector, a):
        # an addition to the bits, for which more of a processor's units are free than for a product
        bits = ir.Constant(vector.int32, [units - 2**23] * vector.lanes)
        return builder.bitcast(builder.add(builder.bitcast(a, vector.int32), bits), vector.float32)

    return operation


# half of a number, less or more by 1280 units in its last place, 2^-13.7 to 2^-12.7 of it
_half_less, _half_more = _half_and(-1280), _half_and(1280)


@_binary
def _where(builder, vector, condition, a):
    # a where the condition is not 0, else 0, whatever a is there
    zero = ir.Constant(vector.float32, [0.0] * vector.lanes)
    return builder.select(builder.fcmp_unordered("!=", condition, zero), a, zero)


@_binary
def _first_lane(builder, vector, a, b):
    # b with its first lane from a
    return builder.shuffle_vector(a, b, ir.Constant(vector.int32, [0, *range(vector.lanes + 1, 2 * vector.lanes)]))


@intrinsic
def total(typing, a):
    """The sum of a vector's lanes, in an order of the compiler's choice that is the same in every call."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_FLOAT, 0.0)
        return _call(
            builder, "llvm.vector.reduce.fadd", _FLOAT, (zero, args[0]), f"v{a.lanes}f32", fastmath=("reassoc",)
        )

    return types.float32(a), generate


@intrinsic
def count_from(typing, start):
    """start, start + 1, ... for whole numbers below 2^24."""

    def generate(context, builder, signature, args):
        undefined = ir.Constant(WIDE.float32, ir.Undefined)
        one = builder.insert_element(undefined, args[0], ir.Constant(_INT, 0))
        starts = builder.shuffle_vector(one, undefined, ir.Constant(WIDE.int32, [0] * LANES))
        return builder.fadd(starts, ir.Constant(WIDE.float32, [float(lane) for lane in range(LANES)]))

    return WIDE(types.float32), generate


@intrinsic
def store_int(typing, array, index, value):
    """Store whole numbers into an int32 array."""

    def generate(context, builder, signature, args: tuple[Any, Any, Any]):
        address = _address(context, builder, signature.args[0], *args[:2], WIDE.int32)
        builder.store(builder.fptosi(args[2], WIDE.int32), address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, WIDE), generate


@intrinsic
def _store_quads(typing, array, index, a, b, c):
    # a0 b0 c0 0 a1 b1 c1 0 ...
    def generate(context, builder, signature, args: tuple[Any, Any, Any, Any, Any]):
        four, eight = ir.VectorType(_FLOAT, 4 * LANES), ir.VectorType(_INT, 2 * LANES)
        both = ir.Constant(eight, list(range(2 * LANES)))
        ab = builder.shuffle_vector(args[2], args[3], both)
        c0 = builder.shuffle_vector(args[4], ir.Constant(WIDE.float32, [0.0] * LANES), both)
        lanes = [lane + part * LANES for lane in range(LANES) for part in range(4)]
        quads = builder.shuffle_vector(ab, c0, ir.Constant(ir.VectorType(_INT, 4 * LANES), lanes))
        builder.store(quads, _address(context, builder, signature.args[0], *args[:2], four), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, WIDE, WIDE, WIDE), generate


def _channel_of(channel):
    @intrinsic
    def load_channel(typing, array, index):
        def generate(context, builder, signature, args: tuple[Any, Any]):
            four = ir.VectorType(_FLOAT, 4 * LANES)
            quads = builder.load(_address(context, builder, signature.args[0], *args, four), align=4)
            lanes = ir.Constant(WIDE.int32, [4 * lane + channel for lane in range(LANES)])
            return builder.shuffle_vector(quads, ir.Constant(four, ir.Undefined), lanes)

        return WIDE(array, types.intp), generate

    return load_channel


_image_of, _gx_of, _gy_of = _channel_of(0), _channel_of(1), _channel_of(2)


# -- iterations


def _flow_of(first_column):
    @_inline
    def flow(state, old, new, row, data, pitch, lt, theta):
        # u' = v + theta * div p on LANES pixels; returns it, p12 and p22 of those above, and (u' - u)^2
        u1, u2 = load(state, old + U1 * pitch), load(state, old + U2 * pitch)
        gx, gy, g = load(state, data + GX * pitch), load(state, data + GY * pitch), load(state, data + G * pitch)
        rho = add(load(state, data + RHO * pitch), add(mul(gx, u1), mul(gy, u2)))
        d = _step(rho, g, lt)
        p11, p12, p12_above = (
            load(state, old + P11 * pitch),
            load(state, old + P12 * pitch),
            load(state, old - row + P12 * pitch),
        )
        p21, p22, p22_above = (
            load(state, old + P21 * pitch),
            load(state, old + P22 * pitch),
            load(state, old - row + P22 * pitch),
        )
        div1 = add(sub(p11, load(state, old + P11 * pitch - 1)), sub(p12, p12_above))
        div2 = add(sub(p21, load(state, old + P21 * pitch - 1)), sub(p22, p22_above))
        if first_column:  # which OpenCV sums in another order
            div1 = _first_lane(sub(add(p11, p12), p12_above), div1)
            div2 = _first_lane(sub(add(p21, p22), p22_above), div2)
        new1 = add(add(u1, mul(d, gx)), mul(theta, div1))
        new2 = add(add(u2, mul(d, gy)), mul(theta, div2))
        store(state, new + U1 * pitch, new1)
        store(state, new + U2 * pitch, new2)
        change1, change2 = sub(new1, u1), sub(new2, u2)
        return new1, new2, p12_above, p22_above, fma(change1, change1, mul(change2, change2))

    return flow


_flow, _first_flow = _flow_of(False), _flow_of(True)


@_inline
def hypot(a, b, tiny):
    """sqrt(a^2 + b^2) for vectors, twice: where both are the same, it is correctly rounded as C's hypot is.

    Below 1e-15 less exact, which 1 + taut * hypot does not see. `tiny` is TINY, which the caller splats once.
    """
    a, b = _larger(a, b), _smaller(a, b)
    # the sum of squares and what its rounding left out
    square = mul(a, a)
    both = fma(b, b, square)
    rest = add(fma(a, a, neg(square)), fma(b, b, sub(square, both)))
    both = maximum(both, tiny)
    # two Newton steps from an estimated root, the second with the remainder of its square taken exactly, by the least
    # and the most that half the inverse root can be: now and then too far apart to tell up from down
    inverse = _inverse_root(both)
    root, least, most = mul(both, inverse), _half_less(inverse), _half_more(inverse)
    root = fma(fma(neg(root), root, both), least, root)
    rest = add(fma(neg(root), root, both), rest)
    return fma(rest, least, root), fma(rest, most, root)


@_inline
def _dual(state, old, new, below1, below2, p12, p22, pitch, taut, one, tiny):
    # p' = (p + taut * grad u) / (1 + taut * |grad u|) on LANES pixels, of which those below have the flow `below`
    u1, u2 = load(state, new + U1 * pitch), load(state, new + U2 * pitch)
    u1x, u1y = sub(load(state, new + U1 * pitch + 1), u1), sub(below1, u1)
    u2x, u2y = sub(load(state, new + U2 * pitch + 1), u2), sub(below2, u2)
    size1, other1 = hypot(u1x, u1y, tiny)
    size2, other2 = hypot(u2x, u2y, tiny)
    if _differ(size1, other1, size2, other2):
        size1, size2 = _hypot64(u1x, u1y), _hypot64(u2x, u2y)
    n1, n2 = add(one, mul(taut, size1)), add(one, mul(taut, size2))
    store(state, new + P11 * pitch, div(add(load(state, old + P11 * pitch), mul(taut, u1x)), n1))
    store(state, new + P12 * pitch, div(add(p12, mul(taut, u1y)), n1))
    store(state, new + P21 * pitch, div(add(load(state, old + P21 * pitch), mul(taut, u2x)), n2))
    store(state, new + P22 * pitch, div(add(p22, mul(taut, u2y)), n2))


@_jit
def _dual_row(state, old, new, below, pitch, width_up, tauts):
    # the dual fields of a row; of the image's last one with itself below: no difference across the edge
    taut, one, tiny = splat(tauts), splat(ONE), splat(TINY)
    for x in range(0, width_up, LANES):
        below1, below2 = load(state, below + x + U1 * pitch), load(state, below + x + U2 * pitch)
        p12, p22 = load(state, old + x + P12 * pitch), load(state, old + x + P22 * pitch)
        _dual(state, old + x, new + x, below1, below2, p12, p22, pitch, taut, one, tiny)


@_inline
def _row(state, old, new, row, data, pitch, width, width_up, inside, lts, thetas, tauts):
    # The flow of a row, and the dual fields of the row above, a vector behind: what waits within one vector's chain of
    # operations is filled by another's.
    lt, theta, taut = splat(lts), splat(thetas), splat(tauts)
    one, tiny = splat(ONE), splat(TINY)
    last = width_up - LANES
    old_above, new_above = old - row, new - row
    u1, u2, p12, p22, change = _first_flow(state, old, new, row, data, pitch, lt, theta)
    if last == 0:
        change = _where(load(inside, 0), change)
    for x in range(LANES, width_up, LANES):
        next1, next2, next12, next22, more = _flow(state, old + x, new + x, row, data + x, pitch, lt, theta)
        if x == last:
            more = _where(load(inside, 0), more)
        change = add(change, more)
        if TOGETHER:
            at = x - LANES
            _dual(state, old_above + at, new_above + at, u1, u2, p12, p22, pitch, taut, one, tiny)
            u1, u2, p12, p22 = next1, next2, next12, next22
    if TOGETHER:
        _dual(state, old_above + last, new_above + last, u1, u2, p12, p22, pitch, taut, one, tiny)
    else:
        _dual_row(state, old_above, new_above, new, pitch, width_up, tauts)
    # right of the image as at its edge: no difference across it
    state[new + U1 * pitch + width] = state[new + U1 * pitch + width - 1]
    state[new + U2 * pitch + width] = state[new + U2 * pitch + width - 1]
    return total(change)


@_jit
def _sweep(state, source, target, count, height, width, width_up, pitch, inside, lt, theta, taut, changes):
    # `count` iterations in one pass over the rows, each a row behind the one before, so that a row is used by all of
    # them while it is in the cache. Reads the fields of side `source`, writes those of `target`, and each one's change.
    row = SLOTS * pitch
    share = -(-row // (LINE * count)) * LINE
    for iteration in range(count):
        changes[iteration] = ZERO
    for step in range(1, height + count):
        for iteration in range(max(0, step - height), min(count, step)):
            y = step - iteration
            if step < height:  # the processor does not see by itself which of the many short rows come next
                ahead = (step + 1) * row + iteration * share
                for at in range(ahead, ahead + share, LINE):
                    _prefetch(state, at)
            data = y * row + PAD
            new = data + target * FIELDS * pitch
            old = new if iteration > 0 else data + source * FIELDS * pitch
            changes[iteration] += _row(state, old, new, row, data, pitch, width, width_up, inside, lt, theta, taut)
            if y == 1:  # the row above the image stays zero
                for x in range(0, width_up, LANES):
                    store(state, new - row + P12 * pitch + x, splat(ZERO))
                    store(state, new - row + P22 * pitch + x, splat(ZERO))
            if y == height:
                _dual_row(state, old, new, new, pitch, width_up, taut)


@_jit
def _expected(before, change, stop, done, deep):
    # iterations until the change falls to `stop`, were it to go on falling with the same power of their number; 1 to
    # `deep`
    if not change < before or not stop > 0 or before == np.inf:
        return deep
    power = math.log(np.float64(before) / change) / math.log(done / (done - 1))
    left = done * (math.exp(math.log(np.float64(change) / stop) / power) - 1)
    return math.ceil(min(max(left, 1), deep))


@_jit
def iterate(state, side, height, width, width_up, pitch, inside, lt, theta, taut, stop, most, deep, changes):
    """Up to `most` iterations, until one changes the flow by `stop` or less; the last one's change, and its side.

    side: the fields to begin with, 0 or 1.
    inside: float32 (LANES,), 1 for the pixels of the last vector of a row that lie in the image, else 0.
    lt, theta, taut, stop: float32; lambda * theta, theta, tau / theta, epsilon^2 * pixels.
    deep: at most so many iterations in a pass over the rows.
    changes: float32 (deep,): scratch.

    Which iteration is the last is known after its pass only. So a pass of several writes to the other side, and where
    it went too far it is made again from the side it began with, with as many iterations as it takes. That costs time,
    hence the guess; results do not depend on it.
    """
    state, inside, changes = _pointer(state), _pointer(inside), _pointer(changes)
    before, change, done = np.float32(np.inf), np.float32(np.inf), 0
    while done < most and change > stop:
        count = min(FIRST, deep)
        if done > 1:
            count = _expected(before, change, stop, done, deep)
        count = min(count, most - done)
        target = side if count == 1 else 1 - side
        _sweep(state, side, target, count, height, width, width_up, pitch, inside, lt, theta, taut, changes)
        last = 0
        while last < count - 1 and changes[last] > stop:
            last += 1
        if last < count - 1:
            count, target = last + 1, side
            _sweep(state, side, target, count, height, width, width_up, pitch, inside, lt, theta, taut, changes)
        before = changes[count - 2] if count > 1 else change
        change, side, done = changes[count - 1], target, done + count
    return change, side


# -- warps


@_jit
def _store_weights(t, weights, at, step):
    # OpenCV 5's bicubic weights of the four taps around a position with the fraction t
    a, one = splat(CUBIC), splat(ONE)
    r = sub(one, t)
    w0 = mul(a, mul(t, mul(r, r)))
    w1 = fma(fma(splat(CUBIC + TWO), t, splat(-(CUBIC + THREE))), mul(t, t), one)
    w3 = mul(a, mul(r, mul(t, t)))
    store(weights, at, w0)
    store(weights, at + step, w1)
    store(weights, at + 2 * step, sub(sub(sub(one, w0), w1), w3))
    store(weights, at + 3 * step, w3)


@_jit
def _taps(source, at, w0, w1, w2, w3):
    row = mul(load4(source, at), w0)
    row = fma(load4(source, at + 4), w1, row)
    row = fma(load4(source, at + 8), w2, row)
    return fma(load4(source, at + 12), w3, row)


@_jit
def warp(state, side, source, first, height, width, width_up, pitch, weights, corners, samples):
    """Sample the second image and its gradient at each pixel's flow target, and set GX, GY, RHO and G from them.

    source: float32, `gradients`' output for the second image.
    first: float32 (PAD + height * width_up + PAD,), the first image.
    weights (8 * width_up), samples (4 * width_up) float32, corners (2 * width_up) int32: scratch.
    """
    # a position is clamped to where all its taps are in the border, hence zero; its first tap is one pixel before it
    low, right, bottom = (
        splat(np.float32(-BORDER)),
        splat(np.float32(width + BORDER)),
        splat(np.float32(height + BORDER)),
    )
    zero, before = splat(ZERO), splat(np.float32(BORDER - 1))
    most_x, most_y = splat(np.float32(width + BORDER)), splat(np.float32(height + BORDER))
    n, row_step = width_up, 4 * (width + 2 * BORDER)
    # every pixel reads at ten indices, of which Numba would look at each whether it counts from the array's end
    state, source, first, samples = _pointer(state), _pointer(source), _pointer(first), _pointer(samples)
    weights, corners = _pointer(weights), _pointer(corners)
    for y in range(height):
        here = (y + 1) * SLOTS * pitch + PAD
        flow = here + side * FIELDS * pitch
        row = splat(np.float32(y))
        for x in range(0, n, LANES):
            at_x = minimum(maximum(add(count_from(np.float32(x)), load(state, flow + U1 * pitch + x)), low), right)
            at_y = minimum(maximum(add(row, load(state, flow + U2 * pitch + x)), low), bottom)
            corner_x, corner_y = floor(at_x), floor(at_y)
            _store_weights(sub(at_x, corner_x), weights, x, n)
            _store_weights(sub(at_y, corner_y), weights, x + 4 * n, n)
            store_int(corners, x, minimum(maximum(add(corner_x, before), zero), most_x))
            store_int(corners, x + n, minimum(maximum(add(corner_y, before), zero), most_y))
        for x in range(width):
            at = corners[x + n] * row_step + 4 * corners[x]
            w0, w1 = splat4(weights[x]), splat4(weights[x + n])
            w2, w3 = splat4(weights[x + 2 * n]), splat4(weights[x + 3 * n])
            sample = mul(_taps(source, at, w0, w1, w2, w3), splat4(weights[x + 4 * n]))
            sample = fma(_taps(source, at + row_step, w0, w1, w2, w3), splat4(weights[x + 5 * n]), sample)
            sample = fma(_taps(source, at + 2 * row_step, w0, w1, w2, w3), splat4(weights[x + 6 * n]), sample)
            sample = fma(_taps(source, at + 3 * row_step, w0, w1, w2, w3), splat4(weights[x + 7 * n]), sample)
            store4(samples, 4 * x, sample)
        for x in range(0, n, LANES):
            gx, gy = _gx_of(samples, 4 * x), _gy_of(samples, 4 * x)
            rho = sub(_image_of(samples, 4 * x), mul(gx, load(state, flow + U1 * pitch + x)))
            rho = sub(sub(rho, mul(gy, load(state, flow + U2 * pitch + x))), load(first, PAD + y * n + x))
            store(state, here + GX * pitch + x, gx)
            store(state, here + GY * pitch + x, gy)
            store(state, here + RHO * pitch + x, rho)
            store(state, here + G * pitch + x, add(mul(gx, gx), mul(gy, gy)))


@_jit
def gradients(image, out, height, width, width_up):
    """Interleave an image with its centred differences and a zero, in a border of `BORDER` zeros.

    image: float32 (PAD + height * width_up + PAD,).
    out: float32, at least 4 * (height + 2 * BORDER) * (width + 2 * BORDER) elements.
    """
    half, halves = np.float32(0.5), splat(np.float32(0.5))
    step = 4 * (width + 2 * BORDER)
    out[: BORDER * step] = ZERO
    for y in range(height):
        row, here = (y + BORDER) * step + 4 * BORDER, PAD + y * width_up
        above, below = PAD + max(y - 1, 0) * width_up, PAD + min(y + 1, height - 1) * width_up
        out[row - 4 * BORDER : row] = ZERO
        for x in range(0, width_up, LANES):  # the last vectors pass the row's end; what they spoil is written later
            gx = mul(halves, sub(load(image, here + x + 1), load(image, here + x - 1)))
            gy = mul(halves, sub(load(image, below + x), load(image, above + x)))
            _store_quads(out, row + 4 * x, load(image, here + x), gx, gy)
        last = here + width - 1
        out[row + 1] = half * (image[here + 1] - image[here])
        out[row + 4 * (width - 1) + 1] = half * (image[last] - image[last - 1])
        out[row + 4 * width : row + 4 * (width + BORDER)] = ZERO
    out[(height + BORDER) * step : (height + 2 * BORDER) * step] = ZERO


# -- median


@_jit
def _sort5(a, b, c, d, e):
    a, b = _least(a, b), _most(a, b)
    d, e = _least(d, e), _most(d, e)
    c, e = _least(c, e), _most(c, e)
    c, d = _least(c, d), _most(c, d)
    b, e = _least(b, e), _most(b, e)
    a, d = _least(a, d), _most(a, d)
    a, c = _least(a, c), _most(a, c)
    b, d = _least(b, d), _most(b, d)
    b, c = _least(b, c), _most(b, c)
    return a, b, c, d, e


@_jit
def _sorted_across(columns, at, pitch, rank):
    # the five columns' values of one rank, sorted
    at += rank * pitch
    return _sort5(
        load(columns, at - 2), load(columns, at - 1), load(columns, at), load(columns, at + 1), load(columns, at + 2)
    )


@_jit
def median5(state, plane, height, width, width_up, pitch, rows, columns):
    """The 5x5 median of one plane of the state, in place; beyond the image lies its edge.

    rows, columns (5 * (width_up + 2 * PAD)) float32: scratch.

    The columns of five are sorted once and serve five windows. Sorting a window's values of equal rank across its
    columns leaves rows and columns in order; then counting shows what is above or below the median for certain. On the
    three diagonals that are left, the median of the 25 is that of five: the largest of the first diagonal, the middle
    three of the second, the smallest of the third.
    """
    step = width_up + 2 * PAD
    for y in range(-4, height):
        # the row two below enters, in place of the one that has left
        new = min(max(y + 2, 0), height - 1)
        row, at = (y + 7) % 5 * step + PAD, (new + 1) * SLOTS * pitch + PAD + plane * pitch
        for x in range(0, width_up, LANES):
            store(rows, row + x, _ordered(load(state, at + x)))
        rows[row - 2] = rows[row - 1] = rows[row]
        rows[row + width] = rows[row + width + 1] = rows[row + width - 1]
        if y < 0:
            continue
        for x in range(PAD - LANES, PAD + width_up + LANES, LANES):
            r0, r1, r2, r3, r4 = _sort5(
                load(rows, x),
                load(rows, x + step),
                load(rows, x + 2 * step),
                load(rows, x + 3 * step),
                load(rows, x + 4 * step),
            )
            store(columns, x, r0)
            store(columns, x + step, r1)
            store(columns, x + 2 * step, r2)
            store(columns, x + 3 * step, r3)
            store(columns, x + 4 * step, r4)
        here = (y + 1) * SLOTS * pitch + PAD + plane * pitch
        for x in range(0, width_up, LANES):
            _, _, _, a3, a4 = _sorted_across(columns, PAD + x, step, 0)
            _, _, b2, b3, b4 = _sorted_across(columns, PAD + x, step, 1)
            _, c1, c2, c3, _ = _sorted_across(columns, PAD + x, step, 2)
            d0, d1, d2, _, _ = _sorted_across(columns, PAD + x, step, 3)
            e0, e1, _, _, _ = _sorted_across(columns, PAD + x, step, 4)
            low = _most(_most(a3, b2), _most(c1, d0))
            high = _least(_least(b4, c3), _least(d2, e1))
            _, m1, m2, m3, _ = _sort5(a4, b3, c2, d1, e0)
            low, high = _least(low, high), _most(low, high)
            low, high = _most(m1, low), _least(m3, high)
            low, high = _least(low, high), _most(low, high)
            store(state, here + x, _ordered(_most(low, _least(high, m2))))
