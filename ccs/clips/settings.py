"""How clips are cut from videos."""

from __future__ import annotations

from typing import Annotated

from ccs.settings import Boolean, Field, Ge, Gt, Integer, Le, Number, settings

Share = Annotated[Number, Gt(0), Le(1)]


@settings
class ClipSettings:
    """How clips are cut from videos; TSN's values as defaults."""

    segments: Annotated[Integer, Ge(1)] = 3
    """snippets per video in training (K)"""
    input_size: Annotated[Integer, Ge(32), Le(9999)] = 224
    """side of the square that the network sees"""
    scales: Annotated[tuple[Share, ...], Field(min_length=1)] = (1.0, 0.875, 0.75)
    """sides of training crops as shares of the short side (TSN's for flow, as the streams share crops)"""
    test_scale: Share = 0.875
    """side of test crops as a share of the short side (224 of 256); within 1 % of input_size it is input_size, and
    nothing is resized"""
    flip: Boolean = True
    """mirror half of the training clips and of ten test crops; false where left and right are labels"""
