"""What the four tables share: a page of panels for reading, and the columns of the CSV.

A `Page` says what stands where; `ccs.tables.render` makes Markdown and HTML of it. Notes are Markdown: they may hold
**bold** and `code`, and what comes from labels and data is put into them by `plain`. Cells, titles and headings are
taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ccs.scores import Scores
from ccs.tables.measurements import PAPER, Measurement, TestSplit, flat, number, seeds_in_words

# as the paper writes it; the published files of Kinetics go on from ImageNet, and those of Charades from Kinetics
PRETRAIN = {
    "none": "none",
    "imagenet": "ImageNet",
    "kinetics": "ImageNet+Kinetics",
    "charades": "ImageNet+Kinetics+Charades",
}
NOTHING = "-"  # as the paper prints it


class Column(NamedTuple):
    """A column's title, the spanner above it ("" for none), and whether it holds words rather than numbers."""

    title: str
    spanner: str = ""
    words: bool = False


class Cell(NamedTuple):
    """A cell as printed, with the number that competes for the best of its column, if any."""

    text: str
    value: float | None = None

    @classmethod
    def measured(cls, measurement: Measurement | None) -> Cell:
        return cls(NOTHING) if measurement is None else cls(str(measurement), measurement.mean)

    @classmethod
    def printed(cls, text: str) -> Cell:
        return cls(text, number(text))


@dataclass(frozen=True)
class PageTable:
    """One table of a page: rows by the name of their group ("" where there is but one group), and notes below it."""

    heading: str
    columns: Sequence[Column]
    groups: Mapping[str, Sequence[Sequence[Cell]]]
    notes: Sequence[str] = ()
    legend: str = ""  # what the notes are

    def best(self, rows: Sequence[Sequence[Cell]]) -> set[tuple[int, int]]:
        """(row, column) of the best of each column of a group, ties included; none where there is no choice."""
        found = set()
        for j in range(len(self.columns)):
            known = {i: f"{row[j].value:.1f}" for i, row in enumerate(rows) if row[j].value is not None}
            if len(known) > 1:
                best = max(known.values(), key=float)
                found |= {(i, j) for i, text in known.items() if text == best}
        return found


@dataclass(frozen=True)
class Page:
    """A table for reading: what was measured, how to read it, and the paper's own table, if it has one of this kind."""

    title: str
    measured: Sequence[PageTable]
    reading: Sequence[str]
    paper: PageTable | None = None


class Table(NamedTuple):
    """A finished table: `csv` for programs and `page` for people."""

    csv: pd.DataFrame
    page: Page


# what Markdown would take for markup: an underscore within a word (two_stream) is none, and stays readable; a bracket
# is one only where a link could begin behind it (not in "[5]"), an ampersand only of an entity
_MARKUP = re.compile(r"[\\`*<>|~]|(?<![^\W_])_|_(?![^\W_])|\](?=[\[(:])|&(?=#?\w+;)")


# -- for people --------------------------------------------------------------------------------------------------------
def plain(text: str) -> str:
    """`text` as Markdown that shows it as it is."""
    return _MARKUP.sub(r"\\\g<0>", text)


def heading(test: TestSplit) -> str:
    """E.g. "Measured here: UCF-101, split 1, 3,783 test videos of 101 classes, 3 seeds"."""
    return f"Measured here: {test.name}, split {test.split}, {test.size}, {seeds_in_words([test])}"


def paper_heading(table: int, beside: bool, on: str) -> str:
    """Heading of the paper's own table; `beside`: measured rows stand above the published ones; `on`: on what data."""
    name = f"Table {table} of {PAPER}"
    return f"Measured here beside {name}, {on}" if beside else f"Published: {name}, {on}"


def test_notes(test: TestSplit, benchmarks: Collection[str] | None) -> list[str]:
    """What to know about the test videos; `benchmarks`: the data of the published rows, None where there are none."""
    notes = []
    if test.quarantine_note:
        notes.append(f"**{test.quarantine_note}** (why: `data/{test.dataset}/quarantine.csv`).")
    reason = test.not_comparable(benchmarks)
    return notes + ([f"{reason[0].upper()}{reason[1:]}."] if reason else [])


def seeds_column(test: TestSplit) -> list[Column]:
    """A column for the number of seeds where it is not the same for all runs."""
    return [Column("Seeds")] if len({len(seeds) for seeds in test.runs.values()}) > 1 else []


def spread_and_best(tests: Sequence[TestSplit], best_of: str = "a column") -> str:
    """What the numbers after ± are, and what is bold."""
    several = any(len(seeds) > 1 for test in tests for seeds in test.runs.values())
    spread = "Mean ± sample standard deviation over the seeds." if several else "One seed: no standard deviation."
    if all(len(test.runs) == 1 for test in tests):
        return spread
    return f"{spread} The best {'mean' if several else 'number'} of {best_of} is bold."


def fusion_note(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> str:
    """With which weights RGB+Flow adds the streams."""
    weights: dict[str, list[str]] = {}
    for name, label in rows.items():
        for fusion in sorted({fusion_weights(test.runs[name][0]) for test in tests if name in test.runs}):
            weights.setdefault(fusion, []).append(label)
    alone = len(weights) == 1
    listed = "; ".join(key if alone else f"{key} for {plain(', '.join(labels))}" for key, labels in weights.items())
    return f"RGB+Flow adds the logits of both streams with weights fixed before testing (RGB : flow): {listed}."


def versions_notes(tests: Sequence[TestSplit]) -> list[str]:
    """One line of versions for each set of them that the numbers come from."""
    found = [scores.versions for test in tests for seeds in test.runs.values() for scores in seeds]
    lines = ["; ".join(f"{name} {version}" for name, version in sorted(versions.items())) for versions in found]
    return [f"Computed with {plain(line)}." for line in dict.fromkeys(lines) if line]


def fusion_weights(scores: Scores) -> str:
    """The weights of RGB and flow, e.g. "1 : 1.5"."""
    return " : ".join(f"{weight:g}" for weight in scores.fusion)


def pretrain(scores: Scores) -> str:
    """What the backbone was trained on before, as the paper's tables say it."""
    named = (value for name, value in flat(scores.settings) if name.split(".")[-1] == "weights")
    weights = str(next(named, "unknown"))
    # of weights of one's own the file's name: where it lies is nobody's concern
    return PRETRAIN.get(weights.lower(), Path(weights).name)


def explained(names: Sequence[str], notes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names with a letter where they have a note, e.g. "TSN (a)", and the notes with theirs, as Markdown."""
    marked, lettered = [], []
    for name, note in zip(names, notes, strict=True):
        mark = f" ({chr(ord('a') + len(lettered))})" if note else ""
        marked.append(name + mark)
        lettered += [f"{mark.strip()} {plain(note)}"] if note else []
    return marked, lettered


# -- for programs ------------------------------------------------------------------------------------------------------
def measured_record(
    name: str,
    tests: Iterable[TestSplit],
    benchmarks: Collection[str] | None,
    cells: Callable[[TestSplit, str], Mapping[str, Measurement | None]],
) -> dict[str, object]:
    """The CSV row of a run: means, standard deviations and counts for each test split, pre-training and notes.

    cells: the accuracies of a run on a test split, by what follows the data set in the column's name.
    """
    record: dict[str, object] = {"source": "measured"}
    notes, pretrained = [], []
    for test in (test for test in tests if name in test.runs):
        seeds = test.runs[name]
        pretrained.append(pretrain(seeds[0]))
        for title, measurement in cells(test, name).items():
            mean, std = measurement or (None, None)
            record[f"{test.column} {title}"] = rounded(mean)
            record[f"{test.column} {title} std"] = rounded(std)
        record[f"{test.column} seeds"] = len(seeds)
        record[f"{test.column} test videos"] = test.num_test
        record[f"{test.column} quarantined"] = test.num_quarantined
        reasons = (test.not_comparable(benchmarks), test.quarantine_note)
        notes += [f"{test.column}: {note}" for note in reasons if note]
    return record | {"pretrain": ", ".join(dict.fromkeys(pretrained)), "note": "; ".join(notes)}


def csv_frame(
    records: Sequence[Mapping[str, object]],
    tests: Sequence[TestSplit],
    *,
    lead: Sequence[str],
    published: Sequence[str],
    titles: Callable[[TestSplit], Sequence[str]],
    extra: Callable[[TestSplit], Sequence[str]] = lambda test: (),
) -> pd.DataFrame:
    """All rows under one order of columns: `lead`, accuracies (the `published` ones first), spreads, counts, note.

    titles: the accuracies of a test split, by what follows its name in the column's name. extra: further columns.
    """
    accuracies = dict.fromkeys([*published, *(f"{test.column} {title}" for test in tests for title in titles(test))])
    spreads = [f"{test.column} {title} std" for test in tests for title in titles(test)]
    more = [f"{test.column} {title}" for test in tests for title in extra(test)]
    counts = [f"{test.column} {what}" for test in tests for what in ("seeds", "test videos", "quarantined")]
    columns = ["source", *lead, *accuracies, *spreads, *more, *counts, "note"]
    # dtype object keeps counts integers beside empty cells
    return pd.DataFrame(records, columns=columns, dtype=object)


def rounded(value: float | None) -> float | None:
    """For the CSV: four decimals, and no "-0.0"."""
    return None if value is None else round(value, 4) + 0.0


def signed(value: float) -> str:
    """Points with their sign, e.g. "+1.8"; no "-0.0"."""
    return f"{round(value, 1) + 0.0:+.1f}"
