"""Top-1 video accuracy of RGB, Flow and RGB+Flow on videos of one's own: Table 1 without what the paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ccs.settings import settings
from ccs.tables import layout as to
from ccs.tables.layout import Page, Table
from ccs.tables.measurements import STREAMS, TestSplit
from ccs.tables.shown import Rows
from ccs.tables.table1 import EXTRA, how_to_read, measured_panel, measured_records

CAPTION = "Top-1 video accuracy of RGB, flow and RGB+Flow on the test videos."


@settings
class Shown(Rows):
    """Accuracy of RGB, flow and RGB+Flow, without published rows: for videos of your own."""


def table(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> Table:
    """Accuracy from scores by test split; rows: run name -> row label.

    CSV columns: those of Table 1 but for `source` and for data sets that are not measured.
    """
    csv = to.csv_frame(
        measured_records(tests, rows, None),
        tests,
        lead=["method", "pretrain"],
        published=(),
        titles=lambda test: list(STREAMS),
        extra=lambda test: EXTRA,
    ).drop(columns="source")
    measured = [measured_panel(test, rows, None) for test in tests]
    return Table(csv, Page("Top-1 video accuracy in percent", measured, how_to_read(tests, rows)))
