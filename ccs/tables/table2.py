"""Table 2: top-1 and top-5 video accuracy, in the paper on something-something-v2.

The labels of that data set's test videos are not public: what is measured here are its official validation videos, the
paper's columns "val".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ccs.scores import Scores, Stream, top_k
from ccs.settings import settings
from ccs.tables import layout as to
from ccs.tables.layout import Cell, Column, Page, PageTable, Table
from ccs.tables.measurements import BENCHMARKS, STREAMS, Measurement, TestSplit, measure, number, published
from ccs.tables.shown import Rows

CAPTION = (
    "Top-1 and top-5 accuracy, measured here, beside the published rows of Table 2, which are on "
    "something-something-v2."
)


@settings
class Shown(Rows):
    """Table 2 of the paper, top-1 and top-5."""


ON = ("something_v2",)
RANKS = (1, 5)
_PRINTED = [f"{part} top-{k}" for part in ("val", "test") for k in RANKS]
_NAME = BENCHMARKS["something_v2"].name


def table(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> Table:
    """Table 2 from scores by test split; rows: run name -> row label.

    CSV columns: source, method, pretrain; the paper's four accuracies; for each measured dataset top-1 and top-5 of
    RGB+Flow, RGB and Flow, their standard deviations and the counts; note. The part of the dataset is in the column's
    name: val for something-something-v2, test for others. Top-5 of fewer than 6 classes is left empty: it is 100 for
    any network.
    """
    paper = published("table2")
    accuracies = [f"{_NAME} {column}" for column in _PRINTED]
    records = [{**to.measured_record(name, tests, ON, _by_rank), "method": label} for name, label in rows.items()]
    for row in paper.to_dict("records"):
        record = {"source": "published", "method": row["method"], "note": row["note"]}
        records.append(record | {f"{_NAME} {column}": number(row[column]) for column in _PRINTED})
    csv = to.csv_frame(records, tests, lead=["method", "pretrain"], published=accuracies, titles=_titles)

    marked, notes = to.explained(list(paper["method"]), list(paper["note"]))
    printed = [
        [Cell(method), *(Cell.printed(row[column]) for column in _PRINTED)]
        for method, row in zip(marked, paper.to_dict("records"), strict=True)
    ]
    beside = [
        [Cell(rows[name]), *(Cell.measured(_fused(test, name).get(column)) for column in _PRINTED)]
        for test in tests
        if test.not_comparable(ON) is None
        for name in test.runs
    ]
    panel = PageTable(
        to.paper_heading(2, bool(beside), _NAME),
        [Column("Method", words=True), *(Column(f"top-{k}", part) for part in ("val", "test") for k in RANKS)],
        {"Measured here": beside, "Published": printed} if beside else {"": printed},
        notes,
        "Known slips of the paper:",
    )
    reading = [to.spread_and_best(tests), to.fusion_note(tests, rows), *to.versions_notes(tests)]
    measured = [_measured(test, rows) for test in tests]
    return Table(csv, Page("Table 2: top-1 and top-5 video accuracy in percent", measured, reading, panel))


def _part(test: TestSplit) -> str:
    """What the test videos are called where the data set comes from."""
    return "val" if test.dataset in ON else "test"


def _ranks(test: TestSplit) -> list[int]:
    """The k whose top-k says anything: fewer than the classes."""
    return [k for k in RANKS if k == 1 or k < len(test.some.classes)]


def _titles(test: TestSplit) -> list[str]:
    streams = ("RGB+Flow", "RGB", "Flow")
    return [_title(test, stream, k) for stream in streams for k in RANKS]


def _title(test: TestSplit, stream: str, k: int) -> str:
    """E.g. "val top-5" for RGB+Flow, as the paper has it, and "val RGB top-5" for a stream."""
    return f"{_part(test)} top-{k}" if stream == "RGB+Flow" else f"{_part(test)} {stream} top-{k}"


def _measure(test: TestSplit, run: str, stream: Stream, k: int) -> Measurement | None:
    def metric(scores: Scores, stream: Stream) -> float:
        return top_k(scores, stream, k)

    return measure(test.runs[run], stream, metric) if k in _ranks(test) else None


def _by_rank(test: TestSplit, run: str) -> dict[str, Measurement | None]:
    return {_title(test, title, k): _measure(test, run, stream, k) for title, stream in STREAMS.items() for k in RANKS}


def _fused(test: TestSplit, run: str) -> dict[str, Measurement | None]:
    return {_title(test, "RGB+Flow", k): _measure(test, run, "fused", k) for k in RANKS}


def _measured(test: TestSplit, rows: Mapping[str, str]) -> PageTable:
    """One test split's rows: top-1 and top-5 of each stream and of both."""
    seeds, ranks = to.seeds_column(test), _ranks(test)
    lines = []
    for name, scores in test.runs.items():
        found = [Cell.measured(_measure(test, name, stream, k)) for stream in STREAMS.values() for k in ranks]
        line = [Cell(rows[name]), Cell(to.pretrain(scores[0])), *found]
        lines.append([*line, *(Cell(str(len(scores))) for _ in seeds)])
    columns = [Column("Method", words=True), Column("Pre-train", words=True)]
    columns += [*(Column(f"top-{k}", stream) for stream in STREAMS for k in ranks), *seeds]
    notes = to.test_notes(test, ON)
    if test.dataset in ON:
        notes.append("These are the official validation videos: the labels of the test videos are not public.")
    missing = [f"top-{k}" for k in RANKS if k not in ranks]
    if missing:
        num = len(test.some.classes)
        notes.append(f"No {' or '.join(missing)}: with {num} classes it is 100 whatever the network says.")
    return PageTable(to.heading(test), columns, {"": lines}, notes)
