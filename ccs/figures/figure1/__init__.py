"""Figure 1 of the paper, confusion of RGB, flow and RGB+Flow."""

from __future__ import annotations

from typing import Annotated

from ccs.settings import Ge, Integer, settings
from ccs.tables.shown import OneRun

CAPTION = (
    "Confusion between classes, the ones that RGB and flow confuse most unless all are shown: rows are true classes, "
    "columns are predictions, in per cent of a class's test videos; RGB, flow and RGB+Flow side by side. What one "
    "stream confuses and RGB+Flow does not, the other stream sees."
)


@settings
class Shown(OneRun):
    """Confusion of RGB, flow and RGB+Flow: Figure 1 of the paper."""

    num_classes: Annotated[Integer, Ge(0)] = 4
    """so many classes that are most confused, 2 or more, or 0 for all"""

    def __post_init__(self) -> None:
        if self.num_classes == 1:
            raise ValueError(
                "num_classes: 1 is not possible here (so many classes that are most confused, 2 or more, or 0 for all)"
            )
