"""How test videos are scored: the settings of the stage `evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

from ccs.settings import Ge, Integer, NoBoolean, NotAllZero, Number, settings

Weight = Annotated[Number, Ge(0)]


@settings
class EvaluateSettings:
    """TSN's testing as default (sec. 4.2): 25 segments; fusion weights are fixed beforehand, never tuned on test."""

    segments: Annotated[Integer, Ge(1)] = 25
    """snippets per video, at the centres of so many segments"""
    crops: Annotated[Literal[1, 10], NoBoolean] = 1
    """1 (centre) or 10 (corners and centre, mirrored too; where train.flip is false these 5 alone)"""
    fusion: Annotated[tuple[Weight, Weight], NotAllZero()] = (1.0, 1.5)
    """weights of the RGB and the flow logits in RGB+Flow, fixed beforehand; not both 0"""
