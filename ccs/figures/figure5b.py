"""Figure 5 (b): backbones, the separately trained baseline (TSN) against CCS. Scores of the runs in, a bar chart out.

Bars are RGB+Flow. The runs of both groups stand together where their backbones have the same label. The paper draws
its bars without numbers; what it prints elsewhere, on UCF-101, is in `ccs/published/figure5b.csv`. It stands in the
chart beside the run of that group whose setting `backbone` is BN-Inception, where its test videos are those measured,
and in the footnote in any case.

    python -m ccs.figures.figure5b --scores results/runs/ucf101/split1/*/seed*/scores.h5 \
        --rows '{"TSN": {"two_stream": "ResNet-101"}, "CCS": {"ccs": "ResNet-101"}}' \
        --svg results/figures/figure5b.svg --png results/figures/figure5b.png --csv results/figures/figure5b.csv
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from ccs.figures import bars, inputs, style
from ccs.scores import Scores
from ccs.stage import CcsError, run
from ccs.tables import TestSplit, group

STREAM = "RGB+Flow"
Rows = dict[str, dict[str, str]]  # group -> run name -> label of its backbone


def backbone(scores: Scores) -> str:
    """The run's backbone in small letters and digits, such as bninception or resnet101; "" where it is not named."""
    return re.sub(r"[^a-z0-9]", "", str(scores.settings.get("network", {}).get("backbone", "")).lower())


def parse_rows(text: str) -> Rows:
    """Groups of runs from --rows; raises `CcsError` where they are not groups, or a run is in two of them."""
    value = inputs.parse(text)
    if not isinstance(value, dict) or not 1 <= len(value) <= len(bars.LOOKS):
        raise CcsError(
            f"--rows: expected a JSON object of 1 to {len(bars.LOOKS)} groups, e.g. "
            '\'{"TSN": {"two_stream": "ResNet-101"}, "CCS": {"ccs": "ResNet-101"}}\', '
            f"found {json.dumps(value, ensure_ascii=False)}"
        )
    rows = {name: inputs.labels(runs, f"--rows, group {name!r}") for name, runs in value.items()}
    names = [name for runs in rows.values() for name in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise CcsError(f"--rows: expected each run once, found {twice[0]!r} in {len(twice)} groups; keep one")
    return rows


def chart(test: TestSplit, rows: Rows, paper: pd.DataFrame) -> bars.Panel:
    """The bars of one test split: backbones in the order of `rows`, in each a bar for each group."""

    def bar(number: int, title: str, runs: Mapping[str, str], label: str) -> bars.Bar:
        name = next((name for name, its_label in runs.items() if its_label == label), None)
        if name is None:
            return bars.Bar(number, ())
        seeds = test.runs[name]
        value = inputs.published_value(test, paper, stream=STREAM, group=title, backbone=backbone(seeds[0]))
        return bars.Bar(number, inputs.accuracies(seeds, inputs.STREAMS[STREAM]), value)

    labels = dict.fromkeys(label for runs in rows.values() for label in runs.values())
    groups = (
        bars.Group(label, tuple(bar(number, *each, label) for number, each in enumerate(rows.items())))
        for label in labels
    )
    return bars.Panel(inputs.heading(test), tuple(groups))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The figure's flags."""
    inputs.add_arguments(parser, "JSON object of group (TSN, CCS) to an object of run to label of its backbone")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figure as SVG, PNG and CSV."""
    parser = argparse.ArgumentParser(prog="python -m ccs.figures.figure5b", description=__doc__.split("\n\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    rows, paper = parse_rows(args.rows), inputs.published("figure5b")
    every = {name: label for runs in rows.values() for name, label in runs.items()}
    tests = group(args.scores, every)
    inputs.check_complete(tests, list(every))

    def matched(test: TestSplit, row: pd.Series) -> bool:
        return any(backbone(test.runs[name][0]) == row["backbone"] for name in rows.get(row["group"], ()))

    with style.applied():
        panels = [chart(test, rows, paper) for test in tests[: inputs.MAX_TESTS]]
        notes = inputs.bar_notes(tests, paper, f"top-1 accuracy of {STREAM}", matched)
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
