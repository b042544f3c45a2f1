"""Pictures of what was counted: confusion, training curves, Table 3, each from the files of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import files
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ccs import scores
from ccs.figures import histories, style
from ccs.figures.curves import FLOW, FUSED, RGB
from ccs.tables.measurements import STREAMS, TestSplit, group, measure
from ccs.tables.significance import Difference, accuracy_interval, compare

# the four methods in the words of README.md, by the runs of config.yaml
METHODS = {
    "two_stream": "two streams,\ntrained separately",
    "cs": "with shared classifier\nand ranking losses",
    "cb": "with the\nconnection block",
    "ccs": "with all of it\n(CCS)",
}
MOTIONS = {  # the classes by how they move: flow tells these groups apart, and frames what is held
    "hand to mouth": ("drink", "eat", "sing", "smoke"),
    "up": ("raise_crate", "raise_present"),
    "down": ("lower_crate", "lower_present"),
}
CLASSES = tuple(name for names in MOTIONS.values() for name in names)
STREAM_COLOURS = dict(zip(STREAMS, (RGB, FLOW, FUSED), strict=True))
MARKS = dict(zip(STREAMS, "os^", strict=True))


def said(name: str) -> str:
    """A class in words."""
    return name.replace("_", " a ")


def tested(project: Path) -> TestSplit:
    """Scores of all seeds of the four methods."""
    (test,) = group(sorted(project.glob("results/runs/demo/split1/*/seed*/scores.h5")), METHODS, ignore_unlisted=True)
    return test


def two_confusions(figure: Figure, project: Path, *, left: float, top: float, side: float) -> None:
    """What separate streams say, added up, and what CCS says, side by side: squares of `side` inches."""
    test = tested(project)
    titles = {"two_stream": "two separate streams,\nadded up", "ccs": "CCS, where they\ncooperate"}
    for column, (run, title) in enumerate(titles.items()):
        seeds = test.runs[run]
        accuracy = measure(seeds, "fused").mean
        axes = style.place(figure, left + column * (side + 0.12), top, side, side)
        _confusion(axes, _percent(seeds), f"{title}: {accuracy:.0f} % right")
        if column == 0:
            axes.set_yticks(range(len(CLASSES)), [said(name) for name in CLASSES], fontsize=11.5)


def _percent(seeds: Sequence[scores.Scores]) -> np.ndarray:
    """Percent of each true class (rows, in the order of CLASSES) that is taken for each (columns), over all seeds."""
    names = seeds[0].classes
    counts = np.zeros((len(names), len(names)))
    for each in seeds:
        np.add.at(counts, (each.label, scores.logits(each, "fused").argmax(axis=1)), 1)
    order = [names.index(name) for name in CLASSES]
    return (100 * counts / counts.sum(axis=1, keepdims=True))[np.ix_(order, order)]


def _confusion(axes: Axes, percent: np.ndarray, title: str) -> None:
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=style.GRID)
    axes.set_title(title, fontsize=13)
    start = 0
    for motion, names in MOTIONS.items():
        axes.text(start + len(names) / 2 - 0.5, len(CLASSES) - 0.2, motion, ha="center", va="top", fontsize=11)
        start += len(names)
        if start < len(CLASSES):
            axes.axhline(start - 0.5, color=style.FAINT, linewidth=0.8)
            axes.axvline(start - 0.5, color=style.FAINT, linewidth=0.8)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5:
            colour = style.ink_on("#08306b" if value > 55 else "white")
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=10, color=colour)


def draw_curves(project: Path) -> None:
    """curves.png: accuracy of both streams while they are trained, separately and as CCS, and on test videos."""
    test = tested(project)
    figure = style.new_figure(9.3, 3.75)
    for column, run in enumerate(("two_stream", "ccs")):
        paths = sorted(project.glob(f"results/runs/demo/split1/{run}/seed*/history.csv"))
        (found,) = histories.group(histories.read(path, run) for path in paths)
        axes = style.place(figure, 0.75 + column * 4.5, 0.85, 3.9, 2.4)
        for name, column_name in (("RGB", "train_rgb"), ("Flow", "train_flow")):
            colour = STREAM_COLOURS[name]
            for history in found.seeds:
                axes.plot(history.epochs.index, history.epochs[column_name], color=colour, linewidth=0.6, alpha=0.45)
            axes.plot(found.mean.index, found.mean[column_name], color=colour, linewidth=2.2)
        last = len(found.mean)
        for place, (name, stream) in enumerate(STREAMS.items()):
            mean, low, high = accuracy_interval([test.runs[run]])[stream]
            axes.plot([last + 4 + 3.2 * place] * 2, [low, high], color=STREAM_COLOURS[name], linewidth=2.2)
            axes.plot(last + 4 + 3.2 * place, mean, color=STREAM_COLOURS[name], marker=MARKS[name], markersize=8)
        axes.axvline(last + 1.8, color=style.FAINT, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, last + 13)
        axes.set_ylim(0, 100)
        axes.set_xticks([1, 10, 20, 30, 40, 50, last + 7.2], ["1", "10", "20", "30", "40", "50", "test"], fontsize=11)
        axes.set_yticks(range(0, 101, 25), [f"{tick} %" for tick in range(0, 101, 25)], fontsize=11)
        axes.grid(axis="y")
        axes.set_xlabel("epoch", fontsize=12)
        title = {"two_stream": "Two streams, trained separately", "ccs": "CCS: they cooperate"}[run]
        axes.set_title(title, fontsize=13, fontweight="bold", loc="left")
    figure.legend(handles=_handles(), loc="upper right", ncols=3, fontsize=12, bbox_to_anchor=(0.995, 1.0))
    style.write(figure, 0.12, 0.1, "Training videos named right, by epoch; then test videos", fontsize=12)
    files.save(figure, "curves.png")


def draw_table(project: Path) -> None:
    """table1.png: accuracy of the four methods, and how far RGB+Flow is above the first, with 95 % intervals."""
    test = tested(project)
    figure = style.new_figure(9.6, 3.85)
    left = style.place(figure, 2.1, 0.65, 4.1, 2.45)
    right = style.place(figure, 6.75, 0.65, 2.6, 2.45)
    for row, run in enumerate(METHODS):
        found = accuracy_interval([test.runs[run]])
        for place, (name, stream) in enumerate(STREAMS.items()):
            _interval(left, row + 0.24 * (place - 1), found[stream], STREAM_COLOURS[name], MARKS[name])
        if row:
            difference = compare(test.runs[run], test.runs["two_stream"])["fused"]
            _interval(right, row, difference, FUSED, MARKS["RGB+Flow"])
            right.text(difference.high + 1.2, row, f"{difference.points:+.1f}", va="center", fontsize=12, color=FUSED)
    guess = 100 / len(test.some.classes)
    left.axvline(guess, color=style.FAINT, linewidth=1, linestyle=":")
    right.axvline(0, color=style.FAINT, linewidth=1)
    for axes in (left, right):
        axes.set_ylim(len(METHODS) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    left.set_yticks(range(len(METHODS)), METHODS.values(), fontsize=12)
    right.set_yticks([])
    left.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)], fontsize=11)
    left.set_xlim(0, 100)
    right.set_xticks([0, 10, 20, 30], ["0", "+10", "+20", "+30"], fontsize=11)
    right.set_xlim(-6, 38)
    left.text(guess + 1, len(METHODS) - 0.52, "guessing", fontsize=10.5, color=style.FAINT, va="bottom")
    left.set_title("Test videos that are named right", fontsize=13, fontweight="bold", loc="left", pad=26)
    right.set_title("RGB+Flow, points gained", fontsize=13, fontweight="bold", loc="left", pad=26)
    left.legend(
        handles=_handles(), loc="lower left", bbox_to_anchor=(-0.01, 0.985), ncols=3, fontsize=11.5, borderaxespad=0
    )
    right.text(0, 1.035, "over separate training", transform=right.transAxes, fontsize=11.5, color=style.INK)
    num = len(test.runs["ccs"])
    note = f"Mean of {num} trainings, {test.size}; 95 % intervals over trainings and videos."
    style.write(figure, 0.12, 3.52, note, fontsize=10.5, color=style.FAINT)
    files.save(figure, "table1.png")


def _handles() -> list[Line2D]:
    """A legend of the streams."""
    return [
        Line2D([], [], color=colour, marker=MARKS[name], linewidth=2.2, markersize=8, label=name)
        for name, colour in STREAM_COLOURS.items()
    ]


def _interval(axes: Axes, height: float, found: Difference, colour: str, mark: str) -> None:
    axes.plot([found.low, found.high], [height, height], color=colour, linewidth=2.2, solid_capstyle="round")
    axes.plot([found.points], [height], color=colour, marker=mark, markersize=8)
