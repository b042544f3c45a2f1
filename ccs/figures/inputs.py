"""What the figures read: command lines, rows as JSON, scores by test split, and published numbers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ccs.figures import style
from ccs.scores import Scores, Stream, accuracy
from ccs.stage import CcsError, atomic
from ccs.tables import TestSplit, measure

PAPER = "arXiv 1908.10136"
STREAMS: dict[str, Stream] = {"RGB": "rgb", "Flow": "flow", "RGB+Flow": "fused"}
MAX_TESTS = 6  # test splits that a figure draws; its CSV has them all
_NAMES = {"ucf101": "UCF-101", "hmdb51": "HMDB-51", "something_v2": "Something-Something V2"}


def add_arguments(parser: argparse.ArgumentParser, rows: str) -> None:
    """The flags that the figures of scores share; `rows` says what --rows holds."""
    parser.add_argument("--scores", nargs="+", required=True, metavar="H5", help="scores files written by evaluate")
    parser.add_argument("--rows", required=True, metavar="JSON", help=rows)
    parser.add_argument("--svg", required=True, help="output: the figure as vector graphics")
    parser.add_argument("--png", required=True, help="output: the figure as an image")
    parser.add_argument("--csv", required=True, help="output: every number that is drawn")


def labels(value: object, flag: str = "--rows") -> dict[str, str]:
    """Run name -> label, from parsed JSON. Raises `CcsError` where it is none, or a label is empty or given twice."""
    example = """expected a JSON object of run name to label, e.g. '{"ccs": "CCS + TSN"}'"""
    if not isinstance(value, dict) or not value or not all(isinstance(v, str) and v.strip() for v in value.values()):
        raise CcsError(f"{flag}: {example}, found {json.dumps(value, ensure_ascii=False)}")
    found = {name: " ".join(label.split()) for name, label in value.items()}
    twice = [label for label in found.values() if list(found.values()).count(label) > 1]
    if twice:
        raise CcsError(f"{flag}: expected different labels, found {twice[0]!r} {len(twice)} times; rename one")
    return found


def parse(text: str, flag: str = "--rows") -> object:
    """The value of a flag that holds JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CcsError(f"{flag}: expected JSON, found {text!r} ({error})") from error


def published(figure: str) -> pd.DataFrame:
    """The paper's numbers for a figure: all cells strings, "" where it prints none."""
    with resources.files("ccs").joinpath("published", f"{figure}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def is_on(test: TestSplit, row: pd.Series) -> bool:
    """Whether a published row is on the same test videos: dataset, split and their number agree."""
    return (test.dataset, str(test.split), str(test.num_test)) == (row["dataset"], row["split"], row["test videos"])


def published_value(test: TestSplit, paper: pd.DataFrame, **where: str) -> float | None:
    """The paper's number in per cent on these test videos, of the row that has these cells; None for no number."""
    for _, row in paper.iterrows():
        if is_on(test, row) and row["accuracy"] and all(row[column] == cell for column, cell in where.items()):
            return float(row["accuracy"])
    return None


def accuracies(seeds: Sequence[Scores], stream: Stream) -> tuple[float, ...]:
    """Top-1 accuracy of each seed in per cent."""
    return tuple(accuracy(scores, stream) for scores in seeds)


def record(test: TestSplit, name: str, label: str, stream: str, **more: str) -> dict[str, object]:
    """A measured bar as a row of the CSV: mean, sample standard deviation (n - 1) and each seed, in per cent."""
    seeds = test.runs[name]
    mean, std = measure(seeds, STREAMS[stream])
    return {
        "source": "measured",
        "dataset": test.dataset,
        "split": test.split,
        "run": name,
        **more,
        "label": label,
        "stream": stream,
        "accuracy": round(mean, 4),
        "std": None if std is None else round(std, 4),
        "seeds": len(seeds),
        "accuracy by seed": " ".join(
            f"{scores.seed}:{value:.4f}"
            for scores, value in zip(seeds, accuracies(seeds, STREAMS[stream]), strict=True)
        ),
        "test videos": test.num_test,
        "quarantined": test.num_quarantined,
        "note": "" if test.num_quarantined == 0 else "quarantined videos count as errors",
    }


def table(measured: Sequence[dict[str, object]], paper: pd.DataFrame) -> pd.DataFrame:
    """The CSV: measured rows, then the paper's, each with its `source` (measured or published)."""
    drop = [column for column in paper.columns if column not in (*measured[0], "source")]
    rows = paper.drop(columns=drop).rename(columns={"source": "note"}).to_dict("records")
    # dtype object keeps counts integers beside empty cells
    return pd.DataFrame([*measured, *({"source": "published", **row} for row in rows)], dtype=object)


def bar_notes(
    tests: Sequence[TestSplit], paper: pd.DataFrame, what: str, matched: Callable[[TestSplit, pd.Series], bool]
) -> list[str]:
    """The sentences below a bar chart: what bars and whiskers are, what counts as an error, what the paper prints.

    Args:
        tests: what is drawn.
        paper: the figure's published numbers.
        what: what the bars are.
        matched: whether a measured run stands beside a published row on these test videos.
    """
    seeds = num_seeds(tests)
    notes = [f"Bars: {what}, mean over {seeds} (circles). Whiskers: ± one sample standard deviation."]
    if seeds == "1 seed":
        notes = [f"Bars: {what} of one seed, so that no spread is known."]
    for test in tests:
        if test.num_quarantined:
            where, all_videos = f"{data_name(test.dataset)} split {test.split}", count(test.num_test, "test video")
            verb = "counts as an error" if test.num_quarantined == 1 else "count as errors"
            notes.append(f"{where}: {test.num_quarantined:,} of {all_videos} could not be decoded and {verb}.")
    for _, row in paper[paper["accuracy"] != ""].iterrows():
        here = [test for test in tests if is_on(test, row)]
        what = ", ".join([*([row["group"]] if "group" in row else []), row["label"], row["stream"]])
        why = "" if any(matched(test, row) for test in here) else " (no run here is of this kind)"
        why = why if here else " (other data than drawn here)"
        where = f"{data_name(row['dataset'])} split {row['split']}"
        notes.append(f"Published for {what}: {row['accuracy']}% on {where}{why}.")
    notes.append(f"{PAPER} prints no numbers for the other bars of its figure.")
    return [*notes, *not_drawn(tests)]


def check_complete(tests: Sequence[TestSplit], rows: Sequence[str]) -> None:
    """Raise `CcsError` where a run has scores on one test split and not on another: its bars would be missing."""
    for test in tests:
        for name in rows:
            if name not in test.runs:
                others = ", ".join(f"{t.dataset!r} split {t.split}" for t in tests if name in t.runs)
                raise CcsError(
                    f"run {name!r}: has scores on {others}, none on {test.dataset!r} split {test.split}; evaluate it "
                    f"there, leave the scores of {test.dataset!r} split {test.split} out, or drop the run from --rows"
                )


def data_name(dataset: str) -> str:
    """A data set as people call it."""
    return _NAMES.get(dataset, dataset)


def heading(test: TestSplit) -> str:
    """Which test split it is and how large."""
    videos, classes = count(test.num_test, "test video"), count(len(test.some.classes), "class", "classes")
    return f"{data_name(test.dataset)}, split {test.split}: {videos} of {classes}"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def num_seeds(tests: Sequence[TestSplit]) -> str:
    """The seeds of each run in words, such as "3 seeds" or "1 to 3 seeds"."""
    counts = {len(seeds) for test in tests for seeds in test.runs.values()}
    return count(max(counts), "seed") if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"


def not_drawn(tests: Sequence[TestSplit]) -> list[str]:
    """A sentence on the test splits beyond `MAX_TESTS`, if any."""
    rest = tests[MAX_TESTS:]
    listed = ", ".join(f"{data_name(test.dataset)} split {test.split}" for test in rest)
    return [f"Not drawn, in the CSV only: {listed}."] if rest else []


def write_outputs(args: argparse.Namespace, figure: Figure, frame: pd.DataFrame, title: str) -> None:
    """Write the SVG, the PNG and the CSV that `add_arguments` names."""
    style.save(figure, args.svg, args.png, title=title)
    with atomic(Path(args.csv)) as part:
        frame.to_csv(part, index=False, lineterminator="\n")
    print(f"ccs: wrote {args.svg}, {args.png} and {args.csv}", file=sys.stderr)
