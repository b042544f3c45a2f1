"""Figure 1: what the streams confuse. Scores of one run in, confusion matrices of RGB, Flow and RGB+Flow out.

Shown are a few classes, chosen by the data and not by hand. With rate_s(a, b) the share of class a's test videos that
stream s takes for b (mean over seeds), two classes are confused by

    confused(a, b) = sum over s in {RGB, Flow} of rate_s(a, b) + rate_s(b, a)

The first two classes are the pair with the highest value; then comes, again and again, the class with the highest sum
over those chosen. Equal values are decided by the order of the classes. RGB+Flow has no say in the choice, so that it
shows what fusing makes of the confusion of the single streams.

    python -m ccs.figures.figure1 --scores results/runs/demo/split1/two_stream/seed*/scores.h5 \
        --rows '{"two_stream": "TSN, streams trained separately"}' \
        --svg results/figures/figure1.svg --png results/figures/figure1.png --csv results/figures/figure1.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ccs.figures import inputs, matrices, style
from ccs.figures.figure1 import Shown
from ccs.scores import Scores, Stream, logits
from ccs.settings import Flags
from ccs.stage import CcsError, run
from ccs.tables.measurements import STREAMS, TestSplit, count, group, seeds_in_words
from ccs.tables.rows import flat_rows


class Confusion(NamedTuple):
    """Confusion of K chosen classes on one test split.

    chosen: their K indices, in the order of the figure. names: theirs, then that of the last column. num_videos: test
    videos of each. percent: by stream title, (K, K + 1) per cent of the true class's videos; the last column is for
    all other predictions and for quarantined videos. num_tested: classes that have a test video.
    """

    test: TestSplit
    chosen: tuple[int, ...]
    names: tuple[str, ...]
    num_videos: tuple[int, ...]
    percent: dict[str, np.ndarray]
    num_tested: int

    @property
    def by_rule(self) -> bool:
        """Whether the rule has chosen, or all classes with test videos are shown."""
        return len(self.chosen) < self.num_tested


def confusion(seeds: Sequence[Scores], stream: Stream) -> np.ndarray:
    """What the videos of each class are taken for, in per cent: (C, C + 1), mean over seeds.

    Row: true class. Column: the class with the highest logit (the first of equal ones); the last one is quarantined
    videos. A row adds up to 100; it is NaN for a class that has no test video. All labels must be known, as `group`
    makes sure.
    """
    num_classes = len(seeds[0].classes)
    counts = np.zeros((num_classes, num_classes + 1), np.int64)
    for scores in seeds:
        score_NC = np.where(scores.quarantined[:, None], 0.0, logits(scores, stream))
        predicted = np.where(scores.quarantined, num_classes, score_NC.argmax(axis=1))
        np.add.at(counts, (scores.label, predicted), 1)
    videos = counts.sum(axis=1, keepdims=True)
    return np.divide(100.0 * counts, videos, out=np.full(counts.shape, np.nan), where=videos > 0)


def most_confused(rates: Sequence[np.ndarray], num_classes: int) -> list[int]:
    """The classes that are confused most, by the module's rule.

    Args:
        rates: of each stream (C, C) per cent, row true, column predicted; rows of NaN are never chosen.
        num_classes: how many. Where there are not more, all are given in their order.
    """
    total = sum(rates[1:], start=rates[0])
    tested = [c for c in range(len(total)) if not np.isnan(total[c]).any()]
    if num_classes >= len(tested):
        return tested
    # rounded: sums that are equal must not differ by the order of their terms
    confused = np.round(np.nan_to_num(total + total.T), 6)
    _, chosen = max((confused[a, b], (-a, -b)) for a in tested for b in tested if a < b)
    chosen = [-c for c in chosen]
    while len(chosen) < num_classes:
        left = [c for c in tested if c not in chosen]
        chosen.append(max(left, key=lambda c: (round(float(confused[c, chosen].sum()), 6), -c)))
    return chosen


def chosen_confusion(test: TestSplit, num_classes: int | None) -> Confusion:
    """The confusion of the only run of `test` among its `num_classes` most confused classes, or all (None)."""
    seeds = next(iter(test.runs.values()))
    full = {title: confusion(seeds, stream) for title, stream in STREAMS.items()}
    classes = seeds[0].classes
    chosen = most_confused([full["RGB"][:, :-1], full["Flow"][:, :-1]], num_classes or len(classes))
    rest = [c for c in range(len(classes) + 1) if c not in chosen]
    percent = {
        title: np.column_stack([rate[np.ix_(chosen, chosen)], rate[np.ix_(chosen, rest)].sum(axis=1)])
        for title, rate in full.items()
    }
    videos = np.bincount(seeds[0].label, minlength=len(classes))
    names = (*(classes[c] for c in chosen), "other" if "other" not in classes else "any other class")
    return Confusion(test, tuple(chosen), names, tuple(videos[chosen].tolist()), percent, int((videos > 0).sum()))


def table(panels: Sequence[Confusion]) -> pd.DataFrame:
    """Every cell of every matrix, one a row, per cent with four decimals."""
    records = []
    for each in panels:
        (name, seeds), *_ = each.test.runs.items()
        for stream, percent in each.percent.items():
            for row, column in np.ndindex(percent.shape):
                records.append(
                    {
                        "dataset": each.test.dataset,
                        "split": each.test.split,
                        "run": name,
                        "stream": stream,
                        "true class": each.names[row],
                        "predicted class": each.names[column],
                        "percent": round(float(percent[row, column]), 4),
                        "test videos": each.num_videos[row],
                        "seeds": len(seeds),
                        "classes shown": "most confused" if each.by_rule else "all",
                    }
                )
    return pd.DataFrame(records)


def matrix_row(each: Confusion) -> matrices.Row:
    """The panel as it is drawn: without the last column where all classes are shown and nothing is in it."""
    needed = each.by_rule or any(percent[:, -1].any() for percent in each.percent.values())
    num_columns = len(each.names) if needed else len(each.chosen)
    percent = {title: cells[:, :num_columns] for title, cells in each.percent.items()}
    return matrices.Row(inputs.heading(each.test), each.names[:-1], each.names[:num_columns], percent)


def _notes(panels: Sequence[Confusion], label: str) -> list[str]:
    seeds = seeds_in_words(each.test for each in panels)
    text = f"{label}, {'one seed' if seeds == '1 seed' else f'mean over {seeds}'}. "
    if any(len(each.chosen) < len(each.test.some.classes) for each in panels):
        text += f'"{panels[0].names[-1]}" is any class that is not shown. '
    notes = [text + "Rows: the true class; they add up to 100% but for rounding."]
    for each in panels:
        other = f'"{each.names[-1]}" of'
        if quarantined := each.test.quarantined_as(f"{other} its true class", f"{other} their true class"):
            notes.append(f"{each.test.place}: {quarantined}.")
        untested = len(each.test.some.classes) - each.num_tested
        if untested:
            verb = "is" if untested == 1 else "are"
            notes.append(
                f"{each.test.place}: {count(untested, 'class', 'classes')} without test videos {verb} not shown."
            )
    if any(each.by_rule for each in panels):
        notes += [
            "Classes: the most confused pair, then again and again the class most confused with those chosen.",
            "Confusion of a and b: share of a taken for b plus share of b taken for a, added over RGB and Flow.",
        ]
    return notes


def _num_classes(text: str) -> int | None:
    if text in ("0", "all"):
        return None
    if not text.isdecimal() or int(text) < 2:
        raise CcsError(f"--num-classes: expected 2 or more, or all; found {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The figure's flags."""
    inputs.add_arguments(parser, 'JSON object of the one run to its label, e.g. \'{"two_stream": "TSN"}\'')
    parser.add_argument(
        "--num-classes",
        default=str(Shown.num_classes),
        help="classes shown; 0 or all for every class (default: %(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figure as SVG, PNG and CSV."""
    parser = Flags(prog="python -m ccs.figures.figure1", description=__doc__.split("\n\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    num_classes = _num_classes(args.num_classes)
    rows = flat_rows(args.rows)
    if len(rows) != 1:
        found = f"{len(rows)} ({', '.join(rows)})" if rows else "none"
        raise CcsError(f"--rows: expected one run, found {found}; keep the one to look into")
    tests = group(args.scores, rows)
    panels = [chosen_confusion(test, num_classes) for test in tests]
    label = next(iter(rows.values()))
    with style.applied():
        drawn = panels[: inputs.MAX_TESTS]
        notes = [*_notes(drawn, label), *inputs.not_drawn([test.place for test in tests])]
        figure = matrices.draw([matrix_row(each) for each in drawn], notes, "% of the true class's test videos")
    title = f"Confusion matrices of RGB, Flow and RGB+Flow: {label} on {', '.join(test.place for test in tests)}"
    inputs.write_outputs(args, figure, table(panels), title)


if __name__ == "__main__":
    run(main)
