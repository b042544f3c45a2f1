"""Medians of the CUDA kernels of `ccs.flow.gpu_kernels`: networks of minima and maxima in registers."""

from __future__ import annotations

import numpy as np

from ccs.flow.gpu_arithmetic import device


@device
def _sorted2(a, b):
    return min(a, b), max(a, b)


@device
def _sorted3(a, b, c):
    a, b = _sorted2(a, b)
    b, c = _sorted2(b, c)
    a, b = _sorted2(a, b)
    return a, b, c


@device
def _sorted5(a, b, c, d, e):
    a, d = _sorted2(a, d)
    b, e = _sorted2(b, e)
    a, c = _sorted2(a, c)
    b, d = _sorted2(b, d)
    a, b = _sorted2(a, b)
    c, e = _sorted2(c, e)
    b, c = _sorted2(b, c)
    d, e = _sorted2(d, e)
    c, d = _sorted2(c, d)
    return a, b, c, d, e


@device
def _merged22(a, b):
    """Batcher's odd-even merge of two sorted pairs."""
    first, second = _sorted2(a[0], b[0])
    third, fourth = _sorted2(a[1], b[1])
    second, third = _sorted2(second, third)
    return first, second, third, fourth


@device
def _merged33(a, b):
    even = _merged22((a[0], a[2]), (b[0], b[2]))
    odd = _sorted2(a[1], b[1])
    second, third = _sorted2(odd[0], even[1])
    fourth, fifth = _sorted2(odd[1], even[2])
    return even[0], second, third, fourth, fifth, even[3]


@device
def _merged55(a, b):
    even = _merged33((a[0], a[2], a[4]), (b[0], b[2], b[4]))
    odd = _merged22((a[1], a[3]), (b[1], b[3]))
    second, third = _sorted2(odd[0], even[1])
    fourth, fifth = _sorted2(odd[1], even[2])
    sixth, seventh = _sorted2(odd[2], even[3])
    eighth, ninth = _sorted2(odd[3], even[4])
    return even[0], second, third, fourth, fifth, sixth, seventh, eighth, ninth, even[5]


@device
def _middle6(a, b):
    """The 8th to 13th of two sorted tens, sorted.

    min(a[i], b[9 - i]) are the ten smallest, and rise, then fall; so the five largest of them are the larger ones of
    those five apart. Likewise for the ten largest.
    """
    low = _sorted5(
        max(min(a[0], b[9]), min(a[5], b[4])),
        max(min(a[1], b[8]), min(a[6], b[3])),
        max(min(a[2], b[7]), min(a[7], b[2])),
        max(min(a[3], b[6]), min(a[8], b[1])),
        max(min(a[4], b[5]), min(a[9], b[0])),
    )
    high = _sorted5(
        min(max(a[0], b[9]), max(a[5], b[4])),
        min(max(a[1], b[8]), max(a[6], b[3])),
        min(max(a[2], b[7]), max(a[7], b[2])),
        min(max(a[3], b[6]), max(a[8], b[1])),
        min(max(a[4], b[5]), max(a[9], b[0])),
    )
    return low[2], low[3], low[4], high[0], high[1], high[2]


@device
def _middle11(a, b):
    """The middle one of a sorted six and a sorted five."""
    lower = min(min(a[5], max(a[4], b[0])), max(a[3], b[1]))
    return min(lower, min(min(max(a[2], b[2]), max(a[1], b[3])), max(a[0], b[4])))


@device
def _row3(source, pitch, height, columns, y):
    """Three pixels of row y, sorted; borders repeat."""
    row = np.uint32(min(max(y, 0), height - 1) * pitch)
    return _sorted3(
        source[np.uint32(row + columns[1])], source[np.uint32(row + columns[2])], source[np.uint32(row + columns[3])]
    )


@device
def _row5(source, pitch, height, columns, y):
    """Five pixels of row y, sorted; borders repeat."""
    row = np.uint32(min(max(y, 0), height - 1) * pitch)
    return _sorted5(
        source[np.uint32(row + columns[0])],
        source[np.uint32(row + columns[1])],
        source[np.uint32(row + columns[2])],
        source[np.uint32(row + columns[3])],
        source[np.uint32(row + columns[4])],
    )


@device
def _columns(x, width):
    """x - 2 to x + 2, as indices into a row; borders repeat."""
    return (
        np.uint32(max(x - 2, 0)),
        np.uint32(max(x - 1, 0)),
        np.uint32(x),
        np.uint32(min(x + 1, width - 1)),
        np.uint32(min(x + 2, width - 1)),
    )


@device
def median3(source, target, pitch, width, height, x, y, rows):
    """3x3 median of `rows` pixels from (x, y) downwards."""
    columns = _columns(x, width)
    above = _row3(source, pitch, height, columns, y - 1)
    here = _row3(source, pitch, height, columns, y)
    for r in range(rows):
        below = _row3(source, pitch, height, columns, y + r + 1)
        lows = max(max(above[0], here[0]), below[0])
        middles = _sorted3(above[1], here[1], below[1])
        highs = min(min(above[2], here[2]), below[2])
        if y + r < height:
            target[(y + r) * pitch + x] = _sorted3(lows, middles[1], highs)[1]
        above = here
        here = below


@device
def median5(source, target, pitch, width, height, x, y, rows):
    """5x5 median of `rows` pixels from (x, y) downwards, two at a time.

    Of the four rows that the windows of both share, sorted and merged, only the middle six pixels can be the median of
    either. That takes 74 minima and maxima a pixel; the best network for 25 values alone takes 198.
    """
    columns = _columns(x, width)
    first = _row5(source, pitch, height, columns, y - 2)
    third = _row5(source, pitch, height, columns, y)
    upper = _merged55(_row5(source, pitch, height, columns, y - 1), third)
    fourth = _row5(source, pitch, height, columns, y + 1)
    for row in range(y, y + rows, 2):
        fifth = _row5(source, pitch, height, columns, row + 2)
        lower = _merged55(fourth, fifth)
        middle = _middle6(upper, lower)
        if row < height:
            target[row * pitch + x] = _middle11(middle, first)
        fourth = _row5(source, pitch, height, columns, row + 3)
        if row + 1 < height:
            target[(row + 1) * pitch + x] = _middle11(middle, fourth)
        first = third
        third = fifth
        upper = lower
