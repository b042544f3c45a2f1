"""Training curves: the history.csv of one run on all its data sets, splits and seeds in, panels over epochs out.

One test split fills rows of panels: losses and learning rate, accuracies, speed and memory. Several stand beside each
other, a column each, and share their axes, so that a row compares one quantity. Panels of ranking losses and of
validation are there only where the run has them.

    python -m ccs.figures.curves --run ccs --histories results/runs/*/split*/ccs/seed*/history.csv \
        --svg results/figures/curves/ccs.svg --png results/figures/curves/ccs.png --csv results/figures/curves/ccs.csv
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.typing import LineStyleType

from ccs.figures import inputs, style
from ccs.figures.histories import COLUMNS, RANKING, History, SplitHistories, group, has_ranking, read, steps
from ccs.settings import Flags
from ccs.stage import run
from ccs.tables.measurements import count

EDGE, MARGIN = 0.15, 0.45  # inches: left free; for the numbers of an axis
THICK, THIN = 1.6, 0.6  # points: the mean, a seed
BOLD = 1.2  # at most so many times as wide as the letters that `style.wrap` measures
FEW = 10  # epochs, at most, that are marked one by one
SOLID, DASHED = "-", (0, (3, 1.6))
SECOND = style.PALETTE["reddish purple"]
# darker than the bars' orange and sky blue, which as lines have too little contrast
RGB, FLOW, FUSED = (style.PALETTE[name] for name in ("vermillion", "blue", "bluish green"))


class Series(NamedTuple):
    """A line of a panel: a column of the histories, times `factor`. label: in the panel's legend, "" for none."""

    column: str
    label: str = ""
    colour: str = style.INK
    dash: LineStyleType = SOLID
    factor: float = 1.0


class CurvePanel(NamedTuple):
    """One quantity. kind: how its axis runs: from 0 (zero), to 100 too (percent), as all accuracies (accuracy), log."""

    title: str
    series: tuple[Series, ...]
    kind: str = "zero"


# a row each where there is one test split
GROUPS = (
    (
        CurvePanel("Loss", (Series("loss", "total"), Series("loss_cross_entropy", "cross entropy", SECOND, DASHED))),
        CurvePanel(
            "Ranking losses",
            (Series("loss_triplet", "triplet"), Series("loss_embedding", "embedding", SECOND, DASHED)),
        ),
        CurvePanel("Active triplets (%)", (Series("active_triplets", factor=100),), "percent"),
        CurvePanel("Learning rate", (Series("lr"),), "log"),
    ),
    (
        CurvePanel(
            "RGB accuracy (%)",
            (Series("val_rgb", "validation", RGB), Series("train_rgb", "training", RGB, DASHED)),
            "accuracy",
        ),
        CurvePanel(
            "Flow accuracy (%)",
            (Series("val_flow", "validation", FLOW), Series("train_flow", "training", FLOW, DASHED)),
            "accuracy",
        ),
        CurvePanel("RGB+Flow accuracy (%)", (Series("val_fused", "validation", FUSED),), "accuracy"),
    ),
    (
        CurvePanel("Clips per second", (Series("clips_per_second"),)),
        CurvePanel("Waiting for clips (%)", (Series("waiting", factor=100),), "percent"),
        CurvePanel(
            "Memory (GiB)",
            (
                Series("memory_mb", "process", factor=1 / 1024),
                Series("gpu_memory_mb", "GPU", SECOND, DASHED, 1 / 1024),
            ),
        ),
    ),
)


def chosen(groups: Sequence[Sequence[CurvePanel]], histories: Sequence[History]) -> list[list[CurvePanel]]:
    """The panels with the lines that these histories have values for; ranking losses only where they were used."""
    leave_out = set() if any(map(has_ranking, histories)) else {*RANKING, "loss_cross_entropy"}

    def known(series: Series) -> bool:
        return series.column not in leave_out and any(h.epochs[series.column].notna().any() for h in histories)

    panels = [[panel._replace(series=tuple(filter(known, panel.series))) for panel in row] for row in groups]
    if leave_out:
        only = Series("loss", "cross entropy of both streams")
        panels = [[p._replace(series=(only,)) if p.title == "Loss" else p for p in row] for row in panels]
    return [[panel for panel in row if panel.series] for row in panels]


class Layout(NamedTuple):
    """Rows of panels and their sizes in inches.

    together: all panels of a row show one quantity, and with it have one title, one legend and one axis. gap: between
    neighbours. head, foot: above and below each panel. top, bottom: above and below all of them.
    """

    rows: list[list[tuple[CurvePanel, SplitHistories]]]
    together: bool
    width: float
    height: float
    gap: float
    head: float
    foot: float
    top: float
    bottom: float

    @property
    def whole_width(self) -> float:
        columns = max(map(len, self.rows))
        return 2 * EDGE + MARGIN + columns * self.width + (columns - 1) * self.gap

    @property
    def end(self) -> float:
        """Where the notes begin."""
        return self.top_of(len(self.rows)) + self.bottom

    def left_of(self, column: int) -> float:
        return EDGE + MARGIN + column * (self.width + self.gap)

    def top_of(self, row: int) -> float:
        return self.top + row * (self.head + self.height + self.foot)


def layout(tests: Sequence[SplitHistories], groups: Sequence[Sequence[CurvePanel]]) -> Layout:
    """Panels of one test split in a row for each group; of several in a column for each of them."""
    if len(tests) == 1:
        rows = [[(panel, tests[0]) for panel in row] for row in groups]
        gap = MARGIN + 0.15
        return Layout(rows, False, width=1.7, height=1.2, gap=gap, head=0.42, foot=0.4, top=0.38, bottom=0.2)
    rows = [[(panel, test) for test in tests] for row in groups for panel in row]
    width = min(3.2, max(1.3, 8.4 / len(tests)))
    top = 0.45 + style.block_height(max(len(_column_title(test, width)) for test in tests), style.SIZE)
    return Layout(rows, True, width=width, height=0.85, gap=0.18, head=0.25, foot=0.14, top=top, bottom=0.45)


def _column_title(test: SplitHistories, width: float) -> list[str]:
    return style.wrap(test.place, width / BOLD, style.SIZE, max_lines=2)


def draw(tests: Sequence[SplitHistories], run_name: str, notes: Sequence[str]) -> Figure:
    """All panels of a run under its name, with the notes below."""
    histories = [history for test in tests for history in test.seeds]
    groups = chosen(GROUPS, histories)
    plan = layout(tests, groups)
    width = max(6.5, plan.whole_width)
    lines = style.footnote(notes, width - 2 * EDGE)
    figure = style.new_figure(width, plan.end + style.block_height(len(lines)) + 0.15)
    heading = run_name if plan.together else f"{run_name}, {tests[0].place}"
    heading = style.wrap(heading, (width - 2 * EDGE) / BOLD, style.HEADING, max_lines=1)[0]
    style.write(figure, EDGE, 0.12, heading, fontsize=style.HEADING, fontweight="bold")
    for column, test in enumerate(tests if plan.together else []):
        place = "\n".join(_column_title(test, plan.width))
        style.write(figure, plan.left_of(column), 0.38, place, fontweight="bold")
    ceiling = max(_highest(panel, histories) for row in groups for panel in row if panel.kind == "accuracy")
    for number, row in enumerate(plan.rows):
        for column, (panel, test) in enumerate(row):
            left, top = plan.left_of(column), plan.top_of(number)
            first, last = column == 0 or not plan.together, number == len(plan.rows) - 1
            if first:
                _title(figure, panel, left, top, beside=plan.together, marked=_is_short(histories))
            axes = style.place(figure, left, top + plan.head, plan.width, plan.height)
            axes.set_gid(f"{panel.series[0].column}-{column if plan.together else 0}")
            _draw_panel(axes, panel, test, marked=_is_short(histories))
            _scale(axes, panel, ceiling if panel.kind == "accuracy" else _highest(panel, histories), histories)
            axes.set_xlabel("Epoch" if last else "")
            axes.tick_params(labelbottom=last or not plan.together, labelleft=first)
    style.write_lines(figure, EDGE, plan.end, lines)
    return figure


def _is_short(histories: Sequence[History]) -> bool:
    """Whether epochs are marked one by one: one alone would not be seen as a line."""
    return max(len(history.epochs) for history in histories) <= FEW


class _Looks(TypedDict, total=False):
    color: str
    linestyle: LineStyleType
    linewidth: float
    marker: str
    markersize: float
    markerfacecolor: str


def _looks(series: Series, linewidth: float, *, marked: bool) -> _Looks:
    looks: _Looks = {"color": series.colour, "linestyle": series.dash, "linewidth": linewidth}
    if marked:
        looks |= {"marker": "o", "markersize": 2 * linewidth + 0.4}
        looks |= {"markerfacecolor": series.colour if series.dash == SOLID else "white"}
    return looks


def _title(figure: Figure, panel: CurvePanel, left: float, top: float, *, beside: bool, marked: bool) -> None:
    """A panel's title, and its legend beside or below it."""
    style.write(figure, left, top, panel.title)
    handles = [Line2D([], [], label=s.label, **_looks(s, THICK, marked=marked)) for s in panel.series if s.label]
    left, top = (left + style.text_width(panel.title, style.SIZE) + 0.2, top) if beside else (left, top + 0.19)
    corner = left / figure.get_figwidth(), 1 - top / figure.get_figheight()
    spacing = {"borderaxespad": 0, "borderpad": 0, "columnspacing": 1, "handlelength": 2, "handletextpad": 0.5}
    if handles:
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=len(handles), **spacing)


def _draw_panel(axes: Axes, panel: CurvePanel, test: SplitHistories, *, marked: bool) -> None:
    for epoch in steps(test.seeds):
        axes.axvline(epoch + 0.5, color=style.FAINT, linewidth=0.9, linestyle=":", zorder=1.5)
    seeds = [history.epochs for history in test.seeds]
    mean = max(seeds, key=len) if panel.kind == "log" else test.mean  # learning rates are the same for all
    thin = seeds if len(seeds) > 1 and panel.kind != "log" else []
    drawstyle = "steps-mid" if panel.kind == "log" else "default"
    for series in panel.series:
        for epochs, linewidth, alpha in [*((each, THIN, 0.55) for each in thin), (mean, THICK, 1.0)]:
            values = (epochs[series.column] * series.factor).dropna()
            looks = _looks(series, linewidth, marked=marked)
            axes.plot(values.index, values, drawstyle=drawstyle, alpha=alpha, zorder=2 + alpha, **looks)
    if not any(epochs[series.column].notna().any() for epochs in seeds for series in panel.series):
        what = "no validation" if panel.kind == "accuracy" else "not measured"
        axes.text(0.5, 0.5, what, transform=axes.transAxes, ha="center", va="center", color=style.FAINT)


def _highest(panel: CurvePanel, histories: Sequence[History]) -> float:
    return float(np.nanmax([each.epochs[s.column].max() * s.factor for each in histories for s in panel.series]))


def _scale(axes: Axes, panel: CurvePanel, highest: float, histories: Sequence[History]) -> None:
    """Axes that all panels of a row share: epochs as far as the longest history, values from 0 but learning rates."""
    last = max(len(history.epochs) for history in histories)
    axes.set_xlim(1 - max(0.5, 0.02 * last), last + max(0.5, 0.02 * last))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axes.grid(axis="y")
    if panel.kind == "log":
        rates = sorted({float(f"{rate:.6g}") for history in histories for rate in history.epochs["lr"]})
        axes.set_yscale("log")
        axes.set_ylim(rates[0] / 2, rates[-1] * 2)
        shown = rates if len(rates) <= 5 else [rates[0], rates[-1]]
        axes.set_yticks(shown, [f"{rate:g}" for rate in shown])
        axes.yaxis.set_minor_locator(NullLocator())
        return
    top = {"percent": 100.0, "accuracy": 10 * math.ceil(max(highest - 0.01, 1) / 10)}.get(panel.kind, highest or 1.0)
    axes.set_ylim(0, 1.04 * top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))


def sentences(tests: Sequence[SplitHistories]) -> list[str]:
    """What is to be known of the lines, for the footnote."""
    histories = [history for test in tests for history in test.seeds]
    seeds = sorted({len(test.seeds) for test in tests})
    notes = ["One seed."]
    if seeds[-1] > 1:
        many = count(seeds[-1], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
        notes = [f"Thick lines: mean over {many}. Thin lines: each seed."]
    lengths = sorted({len(history.epochs) for history in histories})
    if len(lengths) > 1:
        means = "; a mean ends with the first of its seeds" if seeds[-1] > 1 else ""
        notes.append(f"Trainings ended after {lengths[0]} to {lengths[-1]} epochs{means}.")
    falls = steps(histories)
    if falls:
        told = [f"after epoch {epoch} to {rate:g}" for epoch, rate in falls.items()]
        notes.append(f"Dotted lines: the learning rate falls {', '.join(told)}.")
    if any(map(has_ranking, histories)):
        notes.append("The total loss is the cross entropy and the ranking losses times their weights (lambdas).")
    if not any(history.epochs["val_fused"].notna().any() for history in histories):
        notes.append("There are no validation videos.")
    return [*notes, *inputs.not_drawn([test.place for test in tests])]


def table(tests: Sequence[SplitHistories], run_name: str) -> pd.DataFrame:
    """The CSV: a row for each epoch of each seed as in its history, then of their mean, of each test split."""
    blocks = []
    for test in tests:
        lines = [(str(history.seed), history.epochs) for history in test.seeds]
        for seed, epochs in [*lines, ("mean", test.mean)]:
            block = epochs.reset_index()
            blocks.append(block.assign(dataset=test.dataset, split=test.split, run=run_name, seed=seed))
    return pd.concat(blocks)[["dataset", "split", "run", "seed", *COLUMNS]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The figure's flags."""
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--histories", nargs="+", required=True, metavar="CSV", help="its histories, written by train")
    parser.add_argument("--svg", required=True, help="output: the figure as vector graphics")
    parser.add_argument("--png", required=True, help="output: the figure as an image")
    parser.add_argument("--csv", required=True, help="output: every number that is drawn")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figure as SVG, PNG and CSV."""
    parser = Flags(prog="python -m ccs.figures.curves", description=__doc__.split("\n\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    tests = group(read(path, args.run) for path in args.histories)
    with style.applied():
        figure = draw(tests[: inputs.MAX_TESTS], args.run, sentences(tests))
    places = ", ".join(test.place for test in tests)
    title = f"Training curves of the run {args.run} on {places}: losses, accuracies, learning rate and speed by epoch"
    inputs.write_outputs(args, figure, table(tests, args.run), title)


if __name__ == "__main__":
    run(main)
