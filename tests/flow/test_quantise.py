"""Quantisation against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ccs.flow.quantise import dequantise, quantise
from ccs.stage import CcsError


def exact(displacement: np.float32, bound: float) -> set[int]:
    """The values that clip(round(128 + u * 127 / bound), 1, 255) may take, both where u is at a rounding edge."""
    value = 128 + Fraction(float(displacement)) * 127 / Fraction(bound)
    edge = Fraction(1, 10_000)
    return {min(max(round(value + shift), 1), 255) for shift in (-edge, 0, edge)}


@pytest.mark.parametrize("bound", [20, 15.0, 0.3, 1000])
def test_values_are_those_of_exact_arithmetic(bound):
    rng = np.random.default_rng(0)
    edges = np.array([0, -0.0, bound, -bound, bound * 1.01, -bound * 5, 1e-30, bound / 254], np.float32)
    flow = np.concatenate([rng.uniform(-1.5 * bound, 1.5 * bound, 2000).astype(np.float32), edges])
    values, clipped = quantise(flow, bound)
    assert values.dtype == np.uint8
    assert all(int(value) in exact(u, bound) for value, u in zip(values, flow, strict=True))
    assert clipped == sum(abs(u) > np.float32(bound) for u in flow) / len(flow)


@pytest.mark.parametrize("bound", [20, 15.0, 0.3, 1000])
def test_back_again_within_half_a_step(bound):
    flow = np.linspace(-bound, bound, 4001, dtype=np.float32).reshape(1, 1, -1)
    back = dequantise(quantise(flow, bound)[0], bound)
    assert back.dtype == np.float32
    assert back.shape == flow.shape
    assert np.abs(back - flow).max() <= bound / 254 * 1.0001
    assert np.abs(back).max() == np.float32(bound)


def test_no_motion_and_every_value_survive_the_round_trip():
    assert quantise(np.zeros((1, 2, 3, 4), np.float32), 20)[0].tolist() == np.full((1, 2, 3, 4), 128).tolist()
    assert dequantise(np.array([128], np.uint8), 17.3)[0] == 0.0
    every = np.arange(1, 256, dtype=np.uint8)
    for bound in (20, 0.7, 33.3):
        again, _ = quantise(dequantise(every, bound), bound)
        assert again.tolist() == every.tolist()


def test_empty_flow_has_nothing_clipped():
    values, clipped = quantise(np.zeros((0, 2, 3, 4), np.float32), 20)
    assert values.shape == (0, 2, 3, 4)
    assert clipped == 0


def test_unusable_input_is_refused():
    with pytest.raises(CcsError, match="NaN"):
        quantise(np.array([0, np.nan], np.float32), 20)
    for bound in (0, -1, float("nan"), float("inf")):
        with pytest.raises(CcsError, match="bound"):
            quantise(np.zeros(3, np.float32), bound)
