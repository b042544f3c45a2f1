"""Scores of many runs in, the paper's tables out: CSV for programs, Markdown and HTML for people.

The last stage of the pipeline. Here: `group` sorts scores files by test split, run and seed and refuses what cannot
stand in one table, and `measure` turns the seeds of one run into a mean and a standard deviation. Each of `table1` to
`table4` lays out measured and published numbers, `significance` compares runs, `render` writes Markdown and HTML.
Published numbers are data in `ccs/published`, as printed, and share no row with measured ones.

    python -m ccs.tables table1 --scores results/runs/demo/split1/*/seed*/scores.h5 \
        --rows '{"two_stream": "TSN, streams trained separately", "ccs": "CCS + TSN"}' \
        --output results/table1.csv --markdown results/table1.md --html results/table1.html
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ccs.scores import Scores, Stream, accuracy, read
from ccs.stage import CcsError

PAPER = "arXiv 1908.10136"
STREAMS: dict[str, Stream] = {"RGB": "rgb", "Flow": "flow", "RGB+Flow": "fused"}


class Benchmark(NamedTuple):
    """A dataset of the published rows: its name in the paper and the test videos of split 1, which they are on."""

    name: str
    num_test: int


# of something-something-v2 the official validation videos, whose labels are public
BENCHMARKS = {
    "ucf101": Benchmark("UCF-101", 3783),
    "hmdb51": Benchmark("HMDB-51", 1530),
    "something_v2": Benchmark("something-something-v2", 24777),
}


class Measurement(NamedTuple):
    """Mean over seeds and sample standard deviation (n - 1; None for one seed), both in percent."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.std is None else f" ± {self.std:.1f}")


@dataclass(frozen=True)
class TestSplit:
    """What was measured on one split of one dataset: `runs` holds the scores of each run, by rising seed."""

    dataset: str
    split: int
    runs: Mapping[str, tuple[Scores, ...]]

    @property
    def some(self) -> Scores:
        """Some run's scores, for what all runs share: videos, labels, classes, quarantined."""
        return next(iter(self.runs.values()))[0]

    @property
    def num_test(self) -> int:
        """Test videos, quarantined ones included."""
        return len(self.some.video)

    @property
    def num_quarantined(self) -> int:
        """Test videos that were set aside and count as errors."""
        return int(self.some.quarantined.sum())

    @property
    def size(self) -> str:
        """E.g. "3,783 test videos of 101 classes"."""
        return f"{count(self.num_test, 'test video')} of {count(len(self.some.classes), 'class', 'classes')}"

    @property
    def name(self) -> str:
        """The dataset as people call it."""
        return data_name(self.dataset)

    @property
    def place(self) -> str:
        """E.g. "UCF-101 split 1"."""
        return f"{self.name} split {self.split}"

    @property
    def column(self) -> str:
        """How columns name it. Only split 1 of a benchmark shares columns with the published rows."""
        return self.name if self.split == 1 else self.place

    def not_comparable(self, benchmarks: Collection[str] | None) -> str | None:
        """Why published rows on split 1 of `benchmarks` are no yardstick for these, or None where they are.

        benchmarks: None where no published rows are shown, which then are no yardstick for anything.
        """
        if benchmarks is None:
            return None
        if self.dataset not in benchmarks:
            return "other data than the published rows, not comparable with them"
        if self.split != 1:
            return "the published rows are on split 1, not comparable with these"
        full = BENCHMARKS[self.dataset].num_test
        if self.num_test != full:
            return f"{self.num_test:,} test videos where split 1 has {full:,}, not comparable with the published rows"
        return None

    @property
    def quarantine_note(self) -> str | None:
        """How many test videos count as errors unseen, or None."""
        return self.quarantined_as("an error", "errors")

    def quarantined_as(self, one: str, many: str) -> str | None:
        """How many test videos could not be decoded and what they count as, one of them or many; None without any."""
        num = self.num_quarantined
        if num == 0:
            return None
        what = f"counts as {one}" if num == 1 else f"count as {many}"
        return f"{num:,} of {count(self.num_test, 'test video')} could not be decoded and {what}"


def measure(
    seeds: Sequence[Scores],
    stream: Stream,
    metric: Callable[[Scores, Stream], float] = accuracy,
) -> Measurement:
    """Mean and sample standard deviation of `metric` over the seeds of one run."""
    values = np.array([metric(scores, stream) for scores in seeds])
    return Measurement(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def group(paths: Iterable[str | Path], rows: Mapping[str, str], *, ignore_unlisted: bool = False) -> list[TestSplit]:
    """Read scores files and sort them by dataset and split, run (in the order of `rows`) and seed.

    rows: run name -> row label. Raises `CcsError` for a run without a row (unless `ignore_unlisted`), a row without
    scores, test videos without a label, a seed given twice, runs of one dataset whose classes, test videos or
    quarantined videos differ, and seeds of one run whose settings differ.
    """
    loaded: dict[tuple[str, int, str, int], tuple[Path, Scores]] = {}
    for path in map(Path, paths):
        scores = read(path)
        if scores.run not in rows:
            if ignore_unlisted:
                print(f"ccs: {path}: run {scores.run!r} has no row, ignored", file=sys.stderr)
                continue
            raise CcsError(
                f"{path}: run {scores.run!r} has no row; expected one of {', '.join(rows) or 'no run at all'}. "
                "Give it a row in --rows, leave the file out, or pass --ignore-unlisted"
            )
        if (scores.label < 0).any():
            raise CcsError(
                f"{path}: expected a label for each of {len(scores.label)} test videos, found "
                f"{int((scores.label < 0).sum())} without one, of which no accuracy can be given; evaluate the run on "
                "labelled videos"
            )
        key = scores.dataset, scores.split, scores.run, scores.seed
        if key in loaded:
            raise CcsError(
                f"{path}: seed {scores.seed} of run {scores.run!r} on {scores.dataset!r} split {scores.split} is also "
                f"in {loaded[key][0]}; give each seed once"
            )
        loaded[key] = path, scores
    for name, label in rows.items():
        if not any(key[2] == name for key in loaded):
            raise CcsError(f"row {label!r}: no scores of run {name!r}; evaluate the run or drop its row from --rows")
    _check_agreement(list(loaded.values()))

    def order(test: tuple[str, int]) -> tuple[int, str, int]:
        # the paper's datasets in the paper's order, then the others by name
        return [*BENCHMARKS, test[0]].index(test[0]), *test

    tests = []
    for dataset, split in sorted({key[:2] for key in loaded}, key=order):
        seeds = {name: sorted(key for key in loaded if key[:3] == (dataset, split, name)) for name in rows}
        runs = {name: tuple(loaded[key][1] for key in keys) for name, keys in seeds.items() if keys}
        tests.append(TestSplit(dataset, split, runs))
    _check_columns(tests)
    return tests


def data_name(dataset: str) -> str:
    """A dataset as people call it: the paper's name for the paper's."""
    return BENCHMARKS[dataset].name if dataset in BENCHMARKS else dataset


def published(name: str) -> pd.DataFrame:
    """A table or figure of the paper as printed: all cells strings, "-" where it prints that, "" where nothing."""
    with resources.files("ccs").joinpath("published", f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def number(printed: str) -> float | None:
    """The number in a published cell, None for "-", "" and misprints."""
    try:
        return float(printed)
    except ValueError:
        return None


def count(num: int, one: str, many: str | None = None) -> str:
    """A number with its noun, e.g. "1 seed", "3,783 test videos"."""
    return f"{num:,} {one if num == 1 else many or one + 's'}"


def seeds_in_words(tests: Iterable[TestSplit]) -> str:
    """The seeds of each run, e.g. "3 seeds" or "1 to 3 seeds"."""
    found = {len(seeds) for test in tests for seeds in test.runs.values()}
    return count(max(found), "seed") if len(found) == 1 else f"{min(found)} to {max(found)} seeds"


def flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """("network.weights", "none") and so on, by name."""
    pairs = []
    for name, value in sorted(settings.items()):
        pairs += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


# what must agree within a dataset (1), a test split of it (2) and the seeds of one run there (3)
_AGREE: tuple[tuple[int, str, Callable[[Scores], Sequence]], ...] = (
    (1, "classes", lambda scores: scores.classes),
    (2, "test videos", lambda scores: scores.video),
    (2, "labels", lambda scores: scores.label.tolist()),
    (2, "quarantined videos", lambda scores: np.array(scores.video)[scores.quarantined].tolist()),
    (3, "fusion weights", lambda scores: scores.fusion),
    (3, "settings", lambda scores: [f"{name}: {value}" for name, value in flat(scores.settings)]),
)


def _check_agreement(loaded: Sequence[tuple[Path, Scores]]) -> None:
    first: dict[tuple, tuple[Path, Sequence]] = {}
    for path, scores in loaded:
        where = (f"dataset {scores.dataset!r}", f"split {scores.split}", f"run {scores.run!r}")
        for depth, what, get in _AGREE:
            found = get(scores)
            other_path, other = first.setdefault((where[:depth], what), (path, found))
            if other == found:
                continue
            pairs = enumerate(zip_longest(other, found, fillvalue="nothing"), start=1)
            place, (one, two) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
            raise CcsError(
                f"{other_path} and {path}: expected the same {what} for {', '.join(where[:depth])}, found {len(other)} "
                f"and {len(found)}, of which number {place} is {one!r} and {two!r}; evaluate the older one again"
            )


def _check_columns(tests: Sequence[TestSplit]) -> None:
    names = [test.column for test in tests]
    reserved = {benchmark.name for benchmark in BENCHMARKS.values()}
    for test in tests:
        if names.count(test.column) > 1 or (test.column in reserved and test.dataset not in BENCHMARKS):
            raise CcsError(f"dataset {test.dataset!r}: other data has the columns {test.column!r}; rename the dataset")
