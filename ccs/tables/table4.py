"""Table 4: the margins alpha1, alpha2 and alpha3 of the ranking losses, read from each run's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ccs.scores import Scores
from ccs.settings import settings
from ccs.stage import CcsError
from ccs.tables import layout as to
from ccs.tables.layout import Cell, Column, Page, PageTable, Table
from ccs.tables.measurements import STREAMS, TestSplit, measure, number, published
from ccs.tables.shown import Rows
from ccs.tables.table1 import by_stream

CAPTION = (
    "RGB+Flow accuracy under five settings of the margins alpha of the ranking losses, beside the published Table 4."
)


@settings
class Shown(Rows):
    """Table 4 of the paper, the margins alpha."""


ON = ("ucf101",)
ALPHAS = ("alpha1", "alpha2", "alpha3")
_ACCURACY = "UCF-101 RGB+Flow"


def table(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> Table:
    """Table 4 from scores by test split; rows: run name -> row label.

    CSV columns: source, method, alpha1, alpha2, alpha3, pretrain; top-1 of RGB+Flow on UCF-101; for each measured
    dataset all three accuracies, their standard deviations and the counts; note. A published row stands beside the
    measured one whose alphas agree. Raises `CcsError` for a run without alphas, or one that did not use them.
    """
    paper = published("table4")
    alphas = {name: _alphas_of(name, label, tests) for name, label in rows.items()}
    records = [
        to.measured_record(name, tests, ON, by_stream)
        | {"method": label}
        | dict(zip(ALPHAS, alphas[name], strict=True))
        for name, label in rows.items()
    ]
    for row in paper.to_dict("records"):
        record = {"source": "published", "method": "CCS", **{name: float(row[name]) for name in ALPHAS}}
        records.append(record | {_ACCURACY: number(row[_ACCURACY]), "note": row["note"]})
    csv = to.csv_frame(
        records,
        tests,
        lead=["method", *ALPHAS, "pretrain"],
        published=[_ACCURACY],
        titles=lambda test: ["RGB+Flow", "RGB", "Flow"],
    )

    marked, notes = to.explained([row[_ACCURACY] for row in paper.to_dict("records")], list(paper["note"]))
    printed = [
        [*(Cell(row[name]) for name in ALPHAS), Cell(text, number(row[_ACCURACY]))]
        for text, row in zip(marked, paper.to_dict("records"), strict=True)
    ]
    columns = [*map(Column, ALPHAS), Column("RGB+Flow", "UCF-101")]
    heading, legend = to.paper_heading(4, False, "split 1"), "Notes on the paper's numbers:"
    panel = PageTable(heading, columns, {"": printed}, notes, legend)
    reading = [
        to.spread_and_best(tests),
        "alpha1: margin between the streams (Eq. 4); alpha2 and alpha3: margins within and between classes (Eq. 5).",
        to.fusion_note(tests, rows),
        *to.versions_notes(tests),
    ]
    measured = [_measured(test, rows, alphas, paper) for test in tests]
    title = "Table 4: top-1 video accuracy in percent under different margins"
    return Table(csv, Page(title, measured, reading, panel))


def _measured(
    test: TestSplit, rows: Mapping[str, str], alphas: Mapping[str, tuple[float, ...]], paper: pd.DataFrame
) -> PageTable:
    """One test split's rows."""
    comparable, seeds = test.not_comparable(ON) is None, to.seeds_column(test)
    printed = {tuple(float(row[name]) for name in ALPHAS): row[_ACCURACY] for row in paper.to_dict("records")}
    lines = []
    for name, scores in test.runs.items():
        line = [Cell(rows[name]), *(Cell(str(alpha)) for alpha in alphas[name])]
        line.append(Cell.measured(measure(scores, STREAMS["RGB+Flow"])))
        if comparable:
            line.append(Cell.printed(printed.get(alphas[name], to.NOTHING)))
        lines.append([*line, *(Cell(str(len(scores))) for _ in seeds)])
    columns = [Column("Method", words=True), *map(Column, ALPHAS), Column("RGB+Flow", "Measured")]
    columns += [Column("RGB+Flow", "Published")] if comparable else []
    return PageTable(to.heading(test), [*columns, *seeds], {"": lines}, to.test_notes(test, ON))


def _alphas_of(run: str, label: str, tests: Sequence[TestSplit]) -> tuple[float, ...]:
    """The run's margins, which must be the same wherever it was measured."""
    found = {(test.column, _alphas(test.runs[run][0], label)) for test in tests if run in test.runs}
    if len({alphas for _, alphas in found}) > 1:
        listed = "; ".join(f"{column}: {' '.join(map(str, alphas))}" for column, alphas in sorted(found))
        raise CcsError(
            f"row {label!r}: expected run {run!r} with the same alphas everywhere, found {listed}; train anew"
        )
    return next(iter(found))[1]


def _alphas(scores: Scores, label: str) -> tuple[float, ...]:
    where = f"row {label!r}: run {scores.run!r} on {scores.dataset!r} split {scores.split}, seed {scores.seed}"
    losses = scores.settings.get("losses", {})
    values = losses.get("alphas") if isinstance(losses, Mapping) else None
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(isinstance(a, float | int) for a in values):
        raise CcsError(
            f"{where}: expected three numbers losses.alphas in its settings, found {values!r}; evaluate again"
        )
    if losses.get("ranking") is False:
        raise CcsError(
            f"{where}: expected a run with the ranking losses, found ranking: false, under which the alphas change "
            "nothing; take the run out of this table"
        )
    return tuple(round(float(alpha), 6) for alpha in values)
