r"""Scores of many runs in, the paper's tables out: CSV for programs and Markdown for people.

The last stage of the pipeline. `group` sorts scores files by test split, run and seed and refuses what cannot stand in
one table; `measure` turns the seeds of one run into a mean and a standard deviation; one function for each table lays
out measured and published numbers. Published numbers are data in `ccs/published`, as printed, and share no row with
measured ones.

    python -m ccs.tables table1 --scores results/runs/demo/split1/*/seed*/scores.h5 \
        --rows '{"two_stream": "TSN, streams trained separately", "ccs": "CCS + TSN"}' \
        --output results/table1.csv --markdown results/table1.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ccs.scores import Scores, Stream, accuracy, read
from ccs.stage import CcsError, atomic, run

PAPER = "arXiv 1908.10136"
STREAMS: dict[str, Stream] = {"RGB": "rgb", "Flow": "flow", "RGB+Flow": "fused"}


class Benchmark(NamedTuple):
    """A dataset of the published rows: its name in the paper and the test videos of split 1, which they are on."""

    name: str
    num_test: int


BENCHMARKS = {"ucf101": Benchmark("UCF-101", 3783), "hmdb51": Benchmark("HMDB-51", 1530)}
PRETRAIN = {"none": "none", "imagenet": "ImageNet"}


class Table(NamedTuple):
    """A finished table: `csv` one row for each method, `markdown` the same for reading."""

    csv: pd.DataFrame
    markdown: str


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
    def column(self) -> str:
        """How columns name it. Only split 1 of a benchmark shares columns with the published rows."""
        name = BENCHMARKS[self.dataset].name if self.dataset in BENCHMARKS else self.dataset
        return name if self.split == 1 else f"{name} split {self.split}"

    @property
    def not_comparable(self) -> str | None:
        """Why the published numbers are no yardstick for these, or None where they are."""
        if self.dataset not in BENCHMARKS:
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
        count = self.num_quarantined
        if count == 0:
            return None
        verb, errors = ("counts", "an error") if count == 1 else ("count", "errors")
        return f"{count:,} of {_count(self.num_test, 'test video')} could not be decoded and {verb} as {errors}"


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
    scores, a seed given twice, runs of one dataset whose classes, test videos or quarantined videos differ, and seeds
    of one run whose settings differ.
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
    return tests


def published(name: str) -> pd.DataFrame:
    """A table of the paper as printed: every cell a string, "-" where the paper prints it, "" where it has nothing."""
    with resources.files("ccs").joinpath("published", f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def table1(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> Table:
    """Table 1: top-1 video accuracy of RGB, Flow and RGB+Flow on each dataset, beside the paper's 17 rows.

    CSV columns: source (measured or published), method, pretrain; three accuracies for UCF-101, HMDB-51 and each other
    measured dataset; for each measured one their standard deviations, the seeds, the test videos and how many of them
    are quarantined; note.
    """
    paper = published("table1")
    accuracies = [f"{b.name} {stream}" for b in BENCHMARKS.values() for stream in STREAMS]
    names = [test.column for test in tests]
    reserved = {b.name for b in BENCHMARKS.values()}
    for test in tests:
        if names.count(test.column) > 1 or (test.column in reserved and test.dataset not in BENCHMARKS):
            raise CcsError(f"dataset {test.dataset!r}: other data has the columns {test.column!r}; rename the dataset")
    accuracies += [f"{name} {stream}" for name in names if name not in reserved for stream in STREAMS]
    spreads = [f"{name} {stream} std" for name in names for stream in STREAMS]
    counts = [f"{name} {what}" for name in names for what in ("seeds", "test videos", "quarantined")]

    records = [_measured_record(name, label, tests) for name, label in rows.items()]
    for row in paper.to_dict("records"):
        record = {"source": "published", "method": _method(row), "pretrain": row["pretrain"], "note": row["note"]}
        records.append(record | {column: _number(row[column]) for column in accuracies if column in row})
    columns = ["source", "method", "pretrain", *accuracies, *spreads, *counts, "note"]
    # dtype object keeps counts integers beside empty cells
    csv = pd.DataFrame(records, columns=columns, dtype=object)

    sections = ["# Table 1: top-1 video accuracy in percent"]
    sections += [_measured_section(test, rows) for test in tests]
    sections += [_reading_notes(tests, rows)] if tests else []
    sections.append(_published_section(paper))
    return Table(csv, "\n\n".join(sections) + "\n")


TABLES: dict[str, Callable[[Sequence[TestSplit], Mapping[str, str]], Table]] = {"table1": table1}


def _measured_record(name: str, label: str, tests: Sequence[TestSplit]) -> dict[str, object]:
    record: dict[str, object] = {"source": "measured", "method": label}
    notes, pretrain = [], []
    for test in (test for test in tests if name in test.runs):
        seeds = test.runs[name]
        pretrain.append(_pretrain(seeds[0]))
        for title, stream in STREAMS.items():
            mean, std = measure(seeds, stream)
            record[f"{test.column} {title}"] = round(mean, 4)
            record[f"{test.column} {title} std"] = None if std is None else round(std, 4)
        record[f"{test.column} seeds"] = len(seeds)
        record[f"{test.column} test videos"] = test.num_test
        record[f"{test.column} quarantined"] = test.num_quarantined
        notes += [f"{test.column}: {note}" for note in (test.not_comparable, test.quarantine_note) if note]
    return record | {"pretrain": ", ".join(dict.fromkeys(pretrain)), "note": "; ".join(notes)}


def _measured_section(test: TestSplit, rows: Mapping[str, str]) -> str:
    """One dataset's measured rows with the gain of RGB+Flow over the better single stream, in points."""
    measured = {name: {title: measure(seeds, s) for title, s in STREAMS.items()} for name, seeds in test.runs.items()}
    gains = [row["RGB+Flow"].mean - max(row["RGB"].mean, row["Flow"].mean) for row in measured.values()]
    cells = {"Method": [rows[name] for name in measured], "Pre-train": [_pretrain(s[0]) for s in test.runs.values()]}
    for title in STREAMS:
        column = [row[title] for row in measured.values()]
        cells[title] = _bold_best([str(cell) for cell in column], [cell.mean for cell in column])
    cells["Gain"] = [f"{round(gain, 1) + 0.0:+.1f}" for gain in gains]  # + 0.0: no "-0.0"
    num_seeds = [len(seeds) for seeds in test.runs.values()]
    if len(set(num_seeds)) > 1:
        cells["Seeds"] = [str(count) for count in num_seeds]
    seeds = _count(num_seeds[0], "seed") if len(set(num_seeds)) == 1 else f"{min(num_seeds)} to {max(num_seeds)} seeds"
    benchmark = BENCHMARKS.get(test.dataset)
    heading = (
        f"## Measured here: {benchmark.name if benchmark else test.dataset}, split {test.split}, "
        f"{_count(test.num_test, 'test video')} of {_count(len(test.some.classes), 'class', 'classes')}, {seeds}"
    )
    parts, notes = [heading, _markdown(cells)], []
    if test.quarantine_note:
        notes.append(f"**{test.quarantine_note}** (why: `data/{test.dataset}/quarantine.csv`).")
    if test.not_comparable:
        reason = test.not_comparable
        notes.append(f"{reason[0].upper()}{reason[1:]}.")
    if notes:
        parts.append(_bullets(notes))
    return "\n\n".join(parts)


def _reading_notes(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> str:
    several = any(len(seeds) > 1 for test in tests for seeds in test.runs.values())
    spread = "Mean ± sample standard deviation over the seeds. " if several else "One seed: no standard deviation. "
    bold = "The best mean of a column is bold. " if any(len(test.runs) > 1 for test in tests) else ""
    weights: dict[str, list[str]] = {}
    for name, label in rows.items():
        fusions = {" : ".join(f"{w:g}" for w in test.runs[name][0].fusion) for test in tests if name in test.runs}
        for fusion in sorted(fusions):
            weights.setdefault(fusion, []).append(label)
    alone = len(weights) == 1
    fusion = "; ".join(key if alone else f"{key} for {', '.join(labels)}" for key, labels in weights.items())
    return "How to read it:\n\n" + _bullets(
        [
            f"{spread}{bold}Gain: RGB+Flow minus the better single stream, in points.",
            f"RGB+Flow adds the logits of both streams with weights fixed before testing (RGB : flow): {fusion}.",
        ]
    )


def _published_section(paper: pd.DataFrame) -> str:
    """The paper's table with its own bold (the best of each column) and its known slips as notes."""
    methods, notes = [], []
    for row in paper.to_dict("records"):
        mark = ""
        if row["note"]:
            mark = f" ({chr(ord('a') + len(notes))})"
            notes.append(f"{mark.strip()} {row['note']}")
        methods.append(_method(row) + mark)
    cells = {"Method": methods, "Pre-train": list(paper["pretrain"])}
    for column in (f"{b.name} {stream}" for b in BENCHMARKS.values() for stream in STREAMS):
        cells[column] = _bold_best(list(paper[column]), [_number(cell) for cell in paper[column]])
    legend = "Numbers in brackets are the paper's references. Known slips of the paper:"
    return "\n\n".join([f"## Published: Table 1 of {PAPER}, split 1", _markdown(cells), legend, _bullets(notes)])


# what must agree within a dataset (1), a test split of it (2) and the seeds of one run there (3)
_AGREE: tuple[tuple[int, str, Callable[[Scores], Sequence]], ...] = (
    (1, "classes", lambda scores: scores.classes),
    (2, "test videos", lambda scores: scores.video),
    (2, "labels", lambda scores: scores.label.tolist()),
    (2, "quarantined videos", lambda scores: np.array(scores.video)[scores.quarantined].tolist()),
    (3, "fusion weights", lambda scores: scores.fusion),
    (3, "settings", lambda scores: [f"{name}: {value}" for name, value in _flat(scores.settings)]),
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
            number, (one, two) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
            raise CcsError(
                f"{other_path} and {path}: expected the same {what} for {', '.join(where[:depth])}, found {len(other)} "
                f"and {len(found)}, of which number {number} is {one!r} and {two!r}; evaluate the older one again"
            )


def _pretrain(scores: Scores) -> str:
    named = (value for name, value in _flat(scores.settings) if name.split(".")[-1] == "weights")
    weights = str(next(named, "unknown"))
    # of weights of one's own the file's name: where it lies is nobody's concern
    return PRETRAIN.get(weights.lower(), Path(weights).name)


def _flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """("network.weights", "none") and so on, by name."""
    pairs = []
    for name, value in sorted(settings.items()):
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def _method(row: Mapping[str, str]) -> str:
    return f"{row['method']} {row['reference']}".strip()


def _number(printed: str) -> float | None:
    try:
        return float(printed)
    except ValueError:
        return None


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _bold_best(cells: Sequence[str], values: Sequence[float | None]) -> list[str]:
    known = [f"{value:.1f}" for value in values if value is not None]
    if len(known) < 2:
        return list(cells)
    best = max(known, key=float)
    return [f"**{c}**" if v is not None and f"{v:.1f}" == best else c for c, v in zip(cells, values, strict=True)]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown(cells: Mapping[str, Sequence[str]]) -> str:
    frame = pd.DataFrame(cells, dtype=object).map(lambda cell: cell.replace("|", r"\|"))
    text = ("Method", "Pre-train")
    align = ["left" if column in text else "right" for column in frame.columns]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def _rows(text: str) -> dict[str, str]:
    example = """expected a JSON object of run name to row label, e.g. '{"ccs": "CCS + TSN"}'"""
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise CcsError(f"--rows: {example}, found {text!r} ({error})") from error
    if not isinstance(rows, dict) or not all(isinstance(v, str) and v.strip() for v in rows.values()):
        raise CcsError(f"--rows: {example}, found {text}")
    return {name: " ".join(label.split()) for name, label in rows.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Write one table as CSV and Markdown, and print the Markdown on standard output."""
    parser = argparse.ArgumentParser(prog="python -m ccs.tables", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("table", choices=TABLES, help="which table of the paper")
    parser.add_argument("--scores", nargs="+", required=True, metavar="H5", help="scores files written by evaluate")
    parser.add_argument("--rows", required=True, metavar="JSON", help="run name -> row label, in the order of the rows")
    parser.add_argument("--ignore-unlisted", action="store_true", help="skip scores of runs that have no row")
    parser.add_argument("--output", required=True, metavar="CSV", help="the table for programs")
    parser.add_argument("--markdown", required=True, metavar="MD", help="the table for reading")
    args = parser.parse_args(argv)

    rows = _rows(args.rows)
    table = TABLES[args.table](group(args.scores, rows, ignore_unlisted=args.ignore_unlisted), rows)
    with atomic(args.output) as part:
        table.csv.to_csv(part, index=False, lineterminator="\n")
    with atomic(args.markdown) as part:
        part.write_text(table.markdown, encoding="utf-8")
    print(table.markdown, end="")
    print(f"ccs: wrote {args.output} and {args.markdown}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
