"""How test videos are scored: the settings of the stage `evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

from ccs.settings import Ge, Integer, Number, settings

Weight = Annotated[Number, Ge(0)]


@settings
class EvaluateSettings:
    """TSN's testing as default (sec. 4.2): 25 segments; fusion weights are fixed beforehand, never tuned on test."""

    segments: Annotated[Integer, Ge(1)] = 25
    """snippets per video, at the centres of so many segments"""
    crops: Literal[1, 10] = 1
    """1 (centre) or 10 (corners and centre, mirrored too)"""
    fusion: tuple[Weight, Weight] = (1.0, 1.5)
    """weights of the RGB and the flow logits in RGB+Flow, fixed beforehand; not both 0"""

    def __post_init__(self) -> None:
        if not any(self.fusion):
            raise ValueError(
                f"fusion: [{', '.join(f'{weight:g}' for weight in self.fusion)}] does not contain any above 0"
            )
