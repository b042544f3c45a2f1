"""Figure 5b of the paper, backbones."""

from __future__ import annotations

from ccs.settings import settings
from ccs.tables.shown import Groups

CAPTION = (
    "Backbones: RGB+Flow accuracy of the separately trained two streams (TSN) and of CCS on each. Bars are means over "
    "seeds, whiskers standard deviations, points seeds; of one seed the bars alone."
)


@settings
class Shown(Groups):
    """Figure 5b of the paper, backbones; the rows of both groups have the same labels."""
