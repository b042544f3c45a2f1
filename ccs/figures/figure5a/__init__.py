"""Figure 5a of the paper, aggregation of segments."""

from __future__ import annotations

from ccs.settings import settings
from ccs.tables.shown import Rows

CAPTION = (
    "Aggregation of segments: accuracy of the same network with its segments' features put together in several ways. "
    "Bars are means over seeds, whiskers standard deviations, points seeds; of one seed the bars alone."
)


@settings
class Shown(Rows):
    """Figure 5a of the paper, aggregation of segments."""
