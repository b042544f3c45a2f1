"""Table 1: top-1 video accuracy of RGB, Flow and RGB+Flow on each dataset, beside the paper's 17 rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ccs.scores import class_sizes, mean_class_accuracy
from ccs.settings import settings
from ccs.tables import layout as to
from ccs.tables.layout import Cell, Column, Page, PageTable, Table
from ccs.tables.measurements import BENCHMARKS, STREAMS, Measurement, TestSplit, measure, number, published
from ccs.tables.shown import Rows

CAPTION = (
    "Top-1 video accuracy of RGB, flow and RGB+Flow, measured here, beside the 17 published rows of Table 1 "
    "(arXiv 1908.10136)."
)


@settings
class Shown(Rows):
    """Table 1 of the paper, comparison with the state of the art."""


ON = ("ucf101", "hmdb51")
EXTRA = [f"{stream} mean of classes" for stream in STREAMS]
_ACCURACIES = [f"{BENCHMARKS[dataset].name} {stream}" for dataset in ON for stream in STREAMS]


def table(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> Table:
    """Table 1 from scores by test split; rows: run name -> row label.

    CSV columns: source (measured or published), method, pretrain; three accuracies for UCF-101, HMDB-51 and each other
    measured dataset; for each measured one their standard deviations, the means over classes of each class's own
    accuracy (in which classes count alike), the seeds, the test videos and how many of them are quarantined; note.
    """
    paper = published("table1")
    methods = [f"{row.method} {row.reference}".strip() for row in paper.itertuples()]
    records = measured_records(tests, rows, ON)
    for method, row in zip(methods, paper.to_dict("records"), strict=True):
        record = {"source": "published", "method": method, "pretrain": row["pretrain"], "note": row["note"]}
        records.append(record | {column: number(row[column]) for column in _ACCURACIES})
    csv = to.csv_frame(
        records,
        tests,
        lead=["method", "pretrain"],
        published=_ACCURACIES,
        titles=lambda test: list(STREAMS),
        extra=lambda test: EXTRA,
    )

    marked, notes = to.explained(methods, list(paper["note"]))
    printed = [
        [Cell(method), Cell(row["pretrain"]), *(Cell.printed(row[column]) for column in _ACCURACIES)]
        for method, row in zip(marked, paper.to_dict("records"), strict=True)
    ]
    beside = _beside(tests, rows)
    panel = PageTable(
        to.paper_heading(1, bool(beside), "split 1"),
        [
            Column("Method", words=True),
            Column("Pre-train", words=True),
            *(Column(stream, BENCHMARKS[dataset].name) for dataset in ON for stream in STREAMS),
        ],
        {"Measured here": beside, "Published": printed} if beside else {"": printed},
        notes,
        "Numbers in brackets are the paper's references. Known slips of the paper:",
    )
    measured = [measured_panel(test, rows, ON) for test in tests]
    return Table(csv, Page("Table 1: top-1 video accuracy in percent", measured, how_to_read(tests, rows), panel))


def measured_records(
    tests: Sequence[TestSplit], rows: Mapping[str, str], benchmarks: Collection[str] | None
) -> list[dict[str, object]]:
    """The CSV rows of all runs; benchmarks: the data of the published rows, None where none are shown."""
    return [
        {**to.measured_record(name, tests, benchmarks, by_stream), **_class_means(tests, name), "method": label}
        for name, label in rows.items()
    ]


def how_to_read(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> list[str]:
    """What the numbers of the measured panels are, as notes."""
    return [
        f"{to.spread_and_best(tests)} Gain: RGB+Flow minus the better single stream, in points.",
        to.fusion_note(tests, rows),
        *_uneven_notes(tests, rows),
        *to.versions_notes(tests),
    ]


def by_stream(test: TestSplit, run: str) -> dict[str, Measurement]:
    """Top-1 accuracy of RGB, Flow and RGB+Flow."""
    return {title: measure(test.runs[run], stream) for title, stream in STREAMS.items()}


def _by_class(test: TestSplit, run: str) -> dict[str, Measurement]:
    """Mean class accuracy of RGB, Flow and RGB+Flow."""
    return {title: measure(test.runs[run], stream, mean_class_accuracy) for title, stream in STREAMS.items()}


def _class_means(tests: Sequence[TestSplit], run: str) -> dict[str, float | None]:
    """Further cells of a run's row in the CSV."""
    return {
        f"{test.column} {title} mean of classes": to.rounded(found.mean)
        for test in tests
        if run in test.runs
        for title, found in _by_class(test, run).items()
    }


def _uneven_notes(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> list[str]:
    """A line on each test split whose classes have numbers of videos that differ: accuracy where they count alike."""
    notes = []
    for test in tests:
        sizes = class_sizes(test.some)
        least, most = sizes[sizes > 0].min(), sizes.max()
        if most > least + 1:  # else they are as even as videos can be shared out
            found = [
                f"{to.plain(rows[run])} {' / '.join(f'{each.mean:.1f}' for each in _by_class(test, run).values())}"
                for run in test.runs
            ]
            notes.append(
                f"The classes of {to.plain(test.place)} have {least:,} to {most:,} test videos each; where classes "
                f"count alike (mean class accuracy), RGB / Flow / RGB+Flow are: {'; '.join(found)}."
            )
    return notes


def measured_panel(test: TestSplit, rows: Mapping[str, str], benchmarks: Collection[str] | None) -> PageTable:
    """One test split's rows with the gain of RGB+Flow over the better single stream; benchmarks as above."""
    seeds = to.seeds_column(test)
    lines = []
    for name, scores in test.runs.items():
        found = by_stream(test, name)
        gain = found["RGB+Flow"].mean - max(found["RGB"].mean, found["Flow"].mean)
        line = [Cell(rows[name]), Cell(to.pretrain(scores[0])), *map(Cell.measured, found.values())]
        lines.append([*line, Cell(to.signed(gain)), *(Cell(str(len(scores))) for _ in seeds)])
    columns = [Column("Method", words=True), Column("Pre-train", words=True)]
    columns += [*(Column(stream, test.column) for stream in STREAMS), Column("Gain"), *seeds]
    return PageTable(to.heading(test), columns, {"": lines}, to.test_notes(test, benchmarks))


def _beside(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> list[list[Cell]]:
    """The measured rows of whole benchmark splits, in the columns of the paper's table."""
    whole = {test.dataset: test for test in tests if test.not_comparable(ON) is None}
    lines = []
    for name, label in rows.items():
        own = [whole[dataset] if dataset in whole and name in whole[dataset].runs else None for dataset in ON]
        cells = [
            Cell.measured(measure(test.runs[name], stream) if test else None)
            for test in own
            for stream in STREAMS.values()
        ]
        weights = dict.fromkeys(to.pretrain(test.runs[name][0]) for test in own if test)
        if weights:
            lines.append([Cell(label), Cell(", ".join(weights)), *cells])
    return lines
