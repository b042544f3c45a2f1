"""Figure 5 (b): backbones, the separately trained baseline (TSN) against CCS. Scores of the runs in, a bar chart out.

Bars are RGB+Flow. The runs of both groups stand together where their backbones have the same label. The paper draws
its bars without numbers; what it prints elsewhere, on UCF-101, is in `ccs/published/figure5b.csv`. It stands in the
chart beside the run that is TSN or CCS by its settings (`inputs.method`), whatever its group is called, and whose
`backbone` is BN-Inception, where its test videos are those measured, and in the footnote in any case.

    python -m ccs.figures.figure5b --scores results/runs/ucf101/split1/*/seed*/scores.h5 \
        --rows '{"TSN": {"two_stream": "ResNet-101"}, "CCS": {"ccs": "ResNet-101"}}' \
        --svg results/figures/figure5b.svg --png results/figures/figure5b.png --csv results/figures/figure5b.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import pandas as pd

from ccs.figures import bars, inputs, style
from ccs.scores import Scores
from ccs.settings import Flags
from ccs.stage import CcsError, run
from ccs.tables.measurements import STREAMS, TestSplit, group, published
from ccs.tables.rows import Groups, grouped_rows, run_labels

STREAM = "RGB+Flow"


def kind(scores: Scores) -> dict[str, str]:
    """What a published row must say to be of this kind of run: its group and its backbone."""
    return {"group": inputs.method(scores), "backbone": inputs.backbone(scores)}


def parse_rows(text: str) -> Groups:
    """Groups of runs from --rows; raises `CcsError` where they are not groups, or a run is in two of them."""
    rows = grouped_rows(text)
    if len(rows) > len(bars.LOOKS):
        raise CcsError(f"--rows: expected at most {len(bars.LOOKS)} groups, found {len(rows)} ({', '.join(rows)})")
    for name, runs in rows.items():
        inputs.distinct(runs, f"--rows, group {name!r}")
    names = [name for runs in rows.values() for name in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise CcsError(f"--rows: expected each run once, found {twice[0]!r} in {len(twice)} groups; keep one")
    return rows


def chart(test: TestSplit, rows: Groups, paper: pd.DataFrame) -> bars.BarChart:
    """The bars of one test split: backbones in the order of `rows`, in each a bar for each group."""

    def bar(number: int, runs: Mapping[str, str], label: str) -> bars.Bar:
        name = next((name for name, its_label in runs.items() if its_label == label), None)
        if name is None:
            return bars.Bar(number, ())
        seeds = test.runs[name]
        value = inputs.published_value(test, paper, stream=STREAM, **kind(seeds[0]))
        return bars.Bar(number, inputs.accuracies(seeds, STREAMS[STREAM]), value)

    labels = dict.fromkeys(label for runs in rows.values() for label in runs.values())
    groups = (
        bars.Group(label, tuple(bar(number, runs, label) for number, runs in enumerate(rows.values())))
        for label in labels
    )
    return bars.BarChart(inputs.heading(test), tuple(groups))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The figure's flags."""
    inputs.add_arguments(parser, "JSON object of group (TSN, CCS) to an object of run to label of its backbone")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figure as SVG, PNG and CSV."""
    parser = Flags(prog="python -m ccs.figures.figure5b", description=__doc__.split("\n\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    rows, paper = parse_rows(args.rows), published("figure5b")
    every = run_labels(rows)
    tests = group(args.scores, every)
    inputs.check_complete(tests, list(every))

    with style.applied():
        panels = [chart(test, rows, paper) for test in tests[: inputs.MAX_TESTS]]
        notes = inputs.bar_notes(tests, paper, f"top-1 accuracy of {STREAM}", kind)
        figure = bars.draw(panels, list(rows), notes)
    measured = [
        inputs.record(test, name, label, STREAM, group=title)
        for test in tests
        for title, runs in rows.items()
        for name, label in runs.items()
    ]
    title = f"Bar chart of top-1 accuracy of {STREAM} by backbone: {' and '.join(rows)}"
    inputs.write_outputs(args, figure, inputs.table(measured, paper), title)


if __name__ == "__main__":
    run(main)
