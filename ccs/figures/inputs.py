"""What the figures read: command lines, rows, scores by test split, and which published numbers are comparable."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ccs.figures import style
from ccs.scores import Scores, Stream, accuracy
from ccs.stage import CcsError, atomic
from ccs.tables.measurements import PAPER, STREAMS, TestSplit, data_name, measure, number, seeds_in_words

MAX_TESTS = 6  # test splits that a figure draws; its CSV has them all


def add_arguments(parser: argparse.ArgumentParser, rows: str) -> None:
    """The flags that the figures of scores share; `rows` says what --rows holds."""
    parser.add_argument("--scores", nargs="+", required=True, metavar="H5", help="scores files written by evaluate")
    parser.add_argument("--rows", required=True, metavar="JSON", help=rows)
    parser.add_argument("--svg", required=True, help="output: the figure as vector graphics")
    parser.add_argument("--png", required=True, help="output: the figure as an image")
    parser.add_argument("--csv", required=True, help="output: every number that is drawn")


def distinct(rows: Mapping[str, str], flag: str = "--rows") -> Mapping[str, str]:
    """`rows` (run name -> label); raises `CcsError` where a label is given twice, so that bars could not be told."""
    labels = list(rows.values())
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise CcsError(f"{flag}: expected different labels, found {twice[0]!r} {len(twice)} times; rename one")
    return rows


def network(scores: Scores, name: str) -> object:
    """A setting of the run's network; None where the scores do not name it."""
    return scores.settings.get("network", {}).get(name)


def backbone(scores: Scores) -> str:
    """The run's backbone in small letters and digits, such as bninception or resnet101; "" where it is not named."""
    return re.sub(r"[^a-z0-9]", "", str(network(scores, "backbone") or "").lower())


def method(scores: Scores) -> str:
    """What a run is by its settings, in the paper's words, whatever its label.

    TSN: two streams trained separately, the baseline. CCS: with a connection block and a shared block. "": one of the
    ablation's other variants, an I3D (both names stand for 2-D backbones), or not known.
    """
    connection, shared = network(scores, "connection"), network(scores, "shared")
    if backbone(scores).startswith("i3d") or connection is None or shared is None:
        return ""
    if connection == "none":
        return "" if shared else "TSN"
    return "CCS" if shared else ""


def is_on(test: TestSplit, row: pd.Series) -> bool:
    """Whether a published row is on the same test videos: dataset, split and their number agree."""
    return (test.dataset, str(test.split), str(test.num_test)) == (row["dataset"], row["split"], row["test videos"])


def published_value(test: TestSplit, paper: pd.DataFrame, **where: str) -> float | None:
    """The paper's number in per cent on these test videos, of the row that has these cells; None for no number."""
    for _, row in paper.iterrows():
        if is_on(test, row) and row["accuracy"] and _has(row, where):
            return number(row["accuracy"])
    return None


def _has(row: pd.Series, cells: Mapping[str, str]) -> bool:
    return all(row[column] == cell for column, cell in cells.items())


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
        "note": test.quarantine_note or "",
    }


def table(measured: Sequence[dict[str, object]], paper: pd.DataFrame) -> pd.DataFrame:
    """The CSV: measured rows, then the paper's, each with its `source` (measured or published)."""
    drop = [column for column in paper.columns if column not in (*measured[0], "source")]
    rows = paper.drop(columns=drop).rename(columns={"source": "note"}).to_dict("records")
    # dtype object keeps counts integers beside empty cells
    return pd.DataFrame([*measured, *({"source": "published", **row} for row in rows)], dtype=object)


def bar_notes(
    tests: Sequence[TestSplit], paper: pd.DataFrame, what: str, kind: Callable[[Scores], Mapping[str, str]]
) -> list[str]:
    """The sentences below a bar chart: what bars and whiskers are, what counts as an error, what the paper prints.

    Args:
        tests: what is drawn.
        paper: the figure's published numbers.
        what: what the bars are.
        kind: the cells that a published row must have to stand beside a run.
    """
    seeds = seeds_in_words(tests)
    notes = [f"Bars: {what}, mean over {seeds} (circles). Whiskers: ± one sample standard deviation."]
    if seeds == "1 seed":
        notes = [f"Bars: {what} of one seed, so that no spread is known."]
    notes += [f"{test.place}: {test.quarantine_note}." for test in tests if test.quarantine_note]
    for _, row in paper[paper["accuracy"] != ""].iterrows():
        here = [test for test in tests if is_on(test, row)]
        what = f"{row['group']}, {row['label']}, {row['stream']}"
        kinds = [kind(seeds[0]) for test in here for seeds in test.runs.values()]
        why = "" if any(_has(row, cells) for cells in kinds) else " (no run here is of this kind)"
        why = why if here else " (other data than drawn here)"
        where = f"{data_name(row['dataset'])} split {row['split']}"
        notes.append(f"Published for {what}: {row['accuracy']}% on {where}{why}.")
    notes.append(f"{PAPER} prints no numbers for the other bars of its figure.")
    return [*notes, *not_drawn([test.place for test in tests])]


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


def heading(test: TestSplit) -> str:
    """Which test split it is and how large."""
    return f"{test.name}, split {test.split}: {test.size}"


def not_drawn(places: Sequence[str]) -> list[str]:
    """A sentence on the test splits beyond `MAX_TESTS`, if any; places: all of them, e.g. "UCF-101 split 1"."""
    rest = places[MAX_TESTS:]
    return [f"Not drawn, in the CSV only: {', '.join(rest)}."] if rest else []


def write_outputs(args: argparse.Namespace, figure: Figure, frame: pd.DataFrame, title: str) -> None:
    """Write the SVG, the PNG and the CSV that `add_arguments` names."""
    style.save(figure, args.svg, args.png, title=title)
    with atomic(Path(args.csv)) as part:
        frame.to_csv(part, index=False, lineterminator="\n")
    print(f"ccs: wrote {args.svg}, {args.png} and {args.csv}", file=sys.stderr)
