"""Table 3, the ablation: for each base model its variants, the first one being the baseline of the others.

Beside the accuracies stand the paper's, where the data is the paper's, and how far each variant is from its baseline
with a 95 % interval (`ccs.tables.significance`), which the paper does not give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ccs.datasets import hmdb51, ucf101
from ccs.scores import Stream
from ccs.settings import settings
from ccs.tables import layout as to
from ccs.tables.layout import Cell, Column, Page, PageTable, Table
from ccs.tables.measurements import BENCHMARKS, STREAMS, TestSplit, number, published
from ccs.tables.rows import run_labels
from ccs.tables.shown import Groups
from ccs.tables.significance import NUM_RESAMPLES, Difference, compare
from ccs.tables.table1 import by_stream

CAPTION = (
    "The ablation: without connection and shared block (Baseline), with the connection block (CB), with the shared "
    "block and its losses (CS), with all (All); differences to the baseline with bootstrap intervals over seeds and "
    "test videos. Beside it the published Table 3."
)


@settings
class Shown(Groups):
    """Table 3 of the paper, the ablation; the first run of a base is what its others are compared with."""


ON = ("ucf101", "hmdb51")
_ACCURACIES = [f"{BENCHMARKS[dataset].name} {stream}" for dataset in ON for stream in STREAMS]
_GROUP_OF = {"ucf101": ucf101.group_of, "hmdb51": hmdb51.group_of}  # videos of one recording, by their ids
_DIFFERENCE = ("minus baseline", "interval low", "interval high")

Compared = Mapping[tuple[str, str, str], Mapping[Stream, Difference]]  # by column of the test split, base and run


def table(tests: Sequence[TestSplit], groups: Mapping[str, Mapping[str, str]]) -> Table:
    """Table 3 from scores by test split; groups: base model -> run name -> row label, the baseline first.

    CSV columns: source, base, method, pretrain; three accuracies for UCF-101, HMDB-51 and each other measured dataset;
    for each measured one their standard deviations, each stream's difference to the baseline in points with the ends
    of its 95 % interval, and the counts; note. A published row stands beside the measured one that has its base and
    its label.
    """
    paper = published("table3")
    compared = {
        (test.column, base, run): compare(test.runs[run], test.runs[baseline], _recordings(test))
        for test in tests
        for base, (baseline, *others) in groups.items()
        if baseline in test.runs
        for run in others
        if run in test.runs
    }
    records = [
        {**_record(base, run, tests, compared), "method": label}
        for base, rows in groups.items()
        for run, label in rows.items()
    ]
    for row in paper.to_dict("records"):
        record = {"source": "published", "base": row["base"], "method": row["method"], "note": row["note"]}
        records.append(record | {column: number(row[column]) for column in _ACCURACIES})
    csv = to.csv_frame(
        records,
        tests,
        lead=["base", "method", "pretrain"],
        published=_ACCURACIES,
        titles=lambda test: list(STREAMS),
        extra=lambda test: [f"{stream} {what}" for stream in STREAMS for what in _DIFFERENCE],
    )
    reading = [
        to.spread_and_best(tests, "each base model"),
        *_alone_notes(tests, groups),
        *(_interval_notes(tests) if compared else []),
        to.fusion_note(tests, run_labels(groups)),
        *to.versions_notes(tests),
    ]
    measured = [_measured(test, groups, compared, paper) for test in tests]
    title = "Table 3: ablation, top-1 video accuracy in percent"
    return Table(csv, Page(title, measured, reading, _paper(paper)))


def _alone(test: TestSplit, run: str) -> bool:
    """Whether a run's streams share nothing, so that each is what it would be without the other."""
    network = test.runs[run][0].settings.get("network", {}) if run in test.runs else {}
    return (network.get("connection"), network.get("shared")) == ("none", False)


def _alone_notes(tests: Sequence[TestSplit], groups: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What a reader asks for first: where it stands what a stream knows by itself."""
    labels = run_labels(groups)
    found = {run: test for test in tests for run in labels if _alone(test, run)}
    if not found:
        return []
    rows = to.plain("; ".join(labels[run] for run in found))
    stopped = any(test.runs[run][0].settings.get("train", {}).get("patience") for run, test in found.items())
    return [
        f"RGB alone, Flow alone: RGB and Flow of {rows}. There the streams share nothing, so that neither is trained "
        "on anything of the other" + (", save that RGB+Flow ends the training." if stopped else ".")
    ]


def _recordings(test: TestSplit) -> Mapping[str, str] | None:
    """Which of the videos are cut from one recording, by their ids, where these tell."""
    group_of = _GROUP_OF.get(test.dataset)
    return {video: group_of(video) for video in test.some.video} if group_of else None


def _interval_notes(tests: Sequence[TestSplit]) -> list[str]:
    grouped = dict.fromkeys(test.name for test in tests if test.dataset in _GROUP_OF)
    drawn = f"Of {' and '.join(grouped)} videos of one recording are drawn together. " if grouped else ""
    if any(test.dataset not in _GROUP_OF for test in tests):
        others = "Videos of other data are taken" if grouped else "It takes videos"
        drawn += f"{others} as independent, which clips cut from one recording are not: there it is too narrow. "
    return [
        "Difference: RGB+Flow minus that of the first row of its base model, the baseline, in points; of RGB and of "
        "Flow in the CSV.",
        f"95 % interval: bootstrap, {NUM_RESAMPLES:,} draws of the training seeds of each run and of the test videos, "
        f"these for both runs alike; percentiles, with Student's t for the few seeds. {drawn}"
        "Each interval stands alone: among many, some miss the truth.",
    ]


def _one_seed_notes(test: TestSplit, groups: Mapping[str, Mapping[str, str]], compared: Compared) -> list[str]:
    """Which differences are between runs of which one seed or both are all there is."""
    labels = run_labels(groups)
    found = dict.fromkeys(
        labels[name]
        for base, (baseline, *others) in groups.items()
        for run in others
        if (test.column, base, run) in compared
        for name in (baseline, run)
        if len(test.runs[name]) == 1
    )
    if not found:
        return []
    return [
        f"Of {to.plain('; '.join(found))} there is one seed: intervals of differences to it do not cover what another "
        "seed would give, and are too narrow."
    ]


def _record(base: str, run: str, tests: Sequence[TestSplit], compared: Compared) -> dict[str, object]:
    record = to.measured_record(run, tests, ON, by_stream) | {"base": base}
    alone = (f"{test.column}: RGB and Flow are each stream alone" for test in tests if _alone(test, run))
    record["note"] = "; ".join(note for note in (str(record["note"]), *alone) if note)
    for test in tests:
        for title, stream in STREAMS.items():
            if (test.column, base, run) in compared:
                found = compared[test.column, base, run][stream]
                columns = (f"{test.column} {title} {what}" for what in _DIFFERENCE)
                record |= dict(zip(columns, map(to.rounded, found), strict=True))
    return record


def _measured(
    test: TestSplit, groups: Mapping[str, Mapping[str, str]], compared: Compared, paper: pd.DataFrame
) -> PageTable:
    """One test split's rows by base model."""
    comparable, seeds = test.not_comparable(ON) is None, to.seeds_column(test)
    shown, notes = {}, to.test_notes(test, ON)
    notes += _one_seed_notes(test, groups, compared)
    for base, rows in groups.items():
        lines = []
        for run in (run for run in rows if run in test.runs):
            line = [Cell(rows[run]), *map(Cell.measured, by_stream(test, run).values())]
            if comparable:
                line += _published_beside(test, base, rows[run], paper)
            if compared:
                line += _difference(compared.get((test.column, base, run)))
            lines.append([*line, *(Cell(str(len(test.runs[run]))) for _ in seeds)])
        if lines:
            shown[base] = lines
        baseline = next(iter(rows))
        if lines and baseline not in test.runs:
            name, missing = to.plain(base), to.plain(rows[baseline])
            notes.append(f"Nothing to compare the rows of {name} with, as {missing} was not measured here.")
    columns = [Column("Method", words=True), *(Column(stream, "Measured") for stream in STREAMS)]
    if comparable:
        columns += [Column(stream, "Published") for stream in STREAMS]
    if compared:
        columns += [Column(title, "RGB+Flow, points") for title in ("Difference", "95 % interval")]
    return PageTable(to.heading(test), [*columns, *seeds], shown, notes)


def _published_beside(test: TestSplit, base: str, label: str, paper: pd.DataFrame) -> list[Cell]:
    """The paper's three numbers of the same base and variant."""
    for row in paper.to_dict("records"):
        if (row["base"].lower(), row["method"].lower()) == (base.lower(), label.lower()):
            return [Cell.printed(row[f"{test.column} {stream}"]) for stream in STREAMS]
    return [Cell(to.NOTHING)] * len(STREAMS)


def _difference(found: Mapping[Stream, Difference] | None) -> list[Cell]:
    if found is None:
        return [Cell("")] * 2
    points, low, high = found["fused"]
    return [Cell(to.signed(points)), Cell(f"[{to.signed(low)}, {to.signed(high)}]")]


def _paper(paper: pd.DataFrame) -> PageTable:
    methods, notes = to.explained(list(paper["method"]), list(paper["note"]))
    groups: dict[str, list[list[Cell]]] = {}
    for method, row in zip(methods, paper.to_dict("records"), strict=True):
        cells = [Cell(method), *(Cell.printed(row[column]) for column in _ACCURACIES)]
        groups.setdefault(row["base"], []).append(cells)
    columns = [Column(stream, BENCHMARKS[dataset].name) for dataset in ON for stream in STREAMS]
    heading = to.paper_heading(3, False, "split 1")
    return PageTable(heading, [Column("Method", words=True), *columns], groups, notes, "Notes on the paper's numbers:")
