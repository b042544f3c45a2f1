"""Figure 5 (a): how the segments' features are aggregated. Scores of one run for each function in, a bar chart out.

The paper draws its bars without numbers. What it prints elsewhere for `average` on HMDB-51 is in
`ccs/published/figure5a.csv`; it stands in the chart beside the run that is CCS by its settings (`inputs.method`) and
whose `aggregation` is `mean`, where its test videos are those measured, and in the footnote in any case.

    python -m ccs.figures.figure5a --scores results/runs/hmdb51/split1/*/seed*/scores.h5 \
        --rows '{"ccs": "average", "ccs_max": "maximum"}' \
        --svg results/figures/figure5a.svg --png results/figures/figure5a.png --csv results/figures/figure5a.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import pandas as pd

from ccs.figures import bars, inputs, style
from ccs.scores import Scores
from ccs.settings import Flags
from ccs.stage import run
from ccs.tables.measurements import STREAMS, TestSplit, group, published
from ccs.tables.rows import flat_rows


def kind(scores: Scores) -> dict[str, str]:
    """What a published row must say to be of this kind of run: its group and its aggregation of segments."""
    return {"group": inputs.method(scores), "aggregation": str(inputs.network(scores, "aggregation") or "")}


def chart(test: TestSplit, rows: Mapping[str, str], paper: pd.DataFrame) -> bars.BarChart:
    """The bars of one test split: a group for each run in the order of `rows`, a bar for each stream."""

    def bar(name: str, number: int, title: str) -> bars.Bar:
        seeds = test.runs[name]
        value = inputs.published_value(test, paper, stream=title, **kind(seeds[0]))
        return bars.Bar(number, inputs.accuracies(seeds, STREAMS[title]), value)

    groups = (
        bars.Group(label, tuple(bar(name, number, title) for number, title in enumerate(STREAMS)))
        for name, label in rows.items()
    )
    return bars.BarChart(inputs.heading(test), tuple(groups))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The figure's flags."""
    inputs.add_arguments(parser, 'JSON object of run to label, in order, e.g. \'{"ccs": "average"}\'')


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figure as SVG, PNG and CSV."""
    parser = Flags(prog="python -m ccs.figures.figure5a", description=__doc__.split("\n\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    rows, paper = inputs.distinct(flat_rows(args.rows)), published("figure5a")
    tests = group(args.scores, rows)
    inputs.check_complete(tests, list(rows))

    with style.applied():
        panels = [chart(test, rows, paper) for test in tests[: inputs.MAX_TESTS]]
        figure = bars.draw(panels, list(STREAMS), inputs.bar_notes(tests, paper, "top-1 accuracy", kind))
    measured = [
        inputs.record(test, name, label, stream) for test in tests for name, label in rows.items() for stream in STREAMS
    ]
    title = f"Bar chart of top-1 accuracy by aggregation function: {', '.join(rows.values())}"
    inputs.write_outputs(args, figure, inputs.table(measured, paper), title)


if __name__ == "__main__":
    run(main)
