"""Bar charts of accuracy: groups of bars with their spread over seeds, and the paper's numbers beside them (figure 5).

Every bar starts at 0 and has its number above it. Bars of a series share colour and hatch, so that colour is never
needed to tell them apart. All lengths are inches; an axis of such a panel runs in inches too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ccs.figures import style
from ccs.tables.measurements import PAPER

BAR, GROUP_GAP, PUBLISHED = 0.46, 0.5, 0.4
LEFT, RIGHT, PLOT = 0.75, 0.2, 2.6
MIN_WIDTH = 6.5


class Look(TypedDict):
    """What tells the bars of a series from the others."""

    facecolor: str
    hatch: str


LOOKS: tuple[Look, ...] = (
    {"facecolor": style.PALETTE["orange"], "hatch": ""},
    {"facecolor": style.PALETTE["sky blue"], "hatch": "////"},
    {"facecolor": style.PALETTE["bluish green"], "hatch": "xxxx"},
    {"facecolor": style.PALETTE["reddish purple"], "hatch": "----"},
)


class _Marker(TypedDict):
    marker: str
    color: str
    linestyle: Literal["none"]
    markersize: float


DIAMOND: _Marker = {"marker": "D", "color": style.INK, "linestyle": "none", "markersize": 5}


class Bar(NamedTuple):
    """One bar. series: its place in the legend. values: per cent, one for each seed; none where nothing was run.

    published: the paper's number in per cent, drawn right of the bar.
    """

    series: int
    values: tuple[float, ...]
    published: float | None = None


class Group(NamedTuple):
    """Bars that stand together above one label."""

    label: str
    bars: tuple[Bar, ...]


class BarChart(NamedTuple):
    """The groups of one test split, under its heading."""

    heading: str
    groups: tuple[Group, ...]


def draw(panels: Sequence[BarChart], series: Sequence[str], notes: Sequence[str]) -> Figure:
    """Panels one below the other, the legend above them, the notes below.

    Args:
        panels: one for each test split.
        series: names of the series for the legend, at most `len(LOOKS)`.
        notes: the footnote's sentences.
    """
    width = max(MIN_WIDTH, LEFT + RIGHT + max(_width(panel.groups) for panel in panels))
    lines = style.footnote(notes, width - 0.3)
    label_lines = [[_label(group) for group in panel.groups] for panel in panels]
    feet = [style.block_height(max(len(lines) for lines in labels)) + 0.25 for labels in label_lines]
    legend, head = 0.4, 0.3
    every = [bar for panel in panels for group in panel.groups for bar in group.bars]
    height = legend + sum(head + PLOT + foot for foot in feet) + style.block_height(len(lines)) + 0.25
    figure = style.new_figure(width, height)
    _legend(figure, series, any(bar.published is not None for bar in every))
    top = legend
    highest = max(max([*_heights(bar), bar.published or 0]) for bar in every)
    for panel, labels, foot in zip(panels, label_lines, feet, strict=True):
        style.write(figure, 0.15, top + 0.02, panel.heading, fontsize=style.SIZE, fontweight="bold")
        axes = style.place(figure, LEFT, top + head, width - LEFT - RIGHT, PLOT)
        _draw_panel(axes, panel, labels, highest, width - LEFT - RIGHT)
        top += head + PLOT + foot
    style.write_lines(figure, 0.15, top + 0.1, lines)
    return figure


def _width(groups: Sequence[Group]) -> float:
    return sum(_group_width(group) + GROUP_GAP for group in groups)


def _group_width(group: Group) -> float:
    return sum(BAR + (PUBLISHED if bar.published is not None else 0) for bar in group.bars)


def _label(group: Group) -> list[str]:
    return style.wrap(group.label, _group_width(group) + GROUP_GAP - 0.1, style.SMALL, max_lines=3)


def _heights(bar: Bar) -> list[float]:
    """All that is drawn of a bar and must stay clear of its number."""
    return [float(np.mean(bar.values)) + (_std(bar) or 0), *bar.values] if bar.values else []


def _std(bar: Bar) -> float | None:
    return float(np.std(bar.values, ddof=1)) if len(bar.values) > 1 else None


def _legend(figure: Figure, series: Sequence[str], with_published: bool) -> None:
    handles: list[object] = [
        Patch(edgecolor=style.INK, linewidth=0.8, label=name, **LOOKS[number]) for number, name in enumerate(series)
    ]
    if with_published:
        handles.append(Line2D([], [], label=f"published ({PAPER})", **DIAMOND))
    corner = 0.1 / figure.get_figwidth(), 1 - 0.05 / figure.get_figheight()
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=len(handles), borderaxespad=0)


def _draw_panel(axes: Axes, panel: BarChart, labels: Sequence[list[str]], highest: float, width: float) -> None:
    # equal gaps, also where the figure is wider than its bars need
    gap = (width - sum(_group_width(group) for group in panel.groups)) / len(panel.groups)
    left, centres = gap / 2, []
    for group in panel.groups:
        centres.append(left + _group_width(group) / 2)
        for bar in group.bars:
            _draw_bar(axes, bar, left + BAR / 2)
            left += BAR
            if bar.published is not None:
                _draw_published(axes, bar.published, left + PUBLISHED / 2)
                left += PUBLISHED
        left += gap
    top = 10 * np.ceil(max(highest, 1) / 10)
    axes.set(xlim=(0, width), ylim=(0, max(top, highest + 0.08 * top)), ylabel="Top-1 accuracy (%)")
    axes.set_yticks(np.arange(0, top + 1, 20 if top > 60 else 10 if top > 20 else 5))
    axes.set_xticks(centres, ["\n".join(lines) for lines in labels])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")


def _draw_bar(axes: Axes, bar: Bar, x: float) -> None:
    if not bar.values:
        axes.text(x, 1, "not run", rotation=90, ha="center", va="bottom", size=style.SMALL, color=style.FAINT)
        return
    mean, std = float(np.mean(bar.values)), _std(bar)
    axes.bar(x, mean, width=BAR - 0.04, edgecolor=style.INK, linewidth=0.8, **LOOKS[bar.series])
    if std is not None:
        axes.errorbar(x, mean, yerr=std, color=style.INK, linewidth=1.2, capsize=4, capthick=1.2, zorder=3)
        places = x + np.linspace(-0.12, 0.12, len(bar.values))
        axes.plot(places, bar.values, "o", markersize=3.5, color="white", markeredgecolor=style.INK, zorder=4)
    _number(axes, x, max(_heights(bar)), mean)


def _draw_published(axes: Axes, value: float, x: float) -> None:
    axes.plot([x], [value], zorder=4, **DIAMOND)
    _number(axes, x, value, value)


def _number(axes: Axes, x: float, y: float, value: float) -> None:
    # the box keeps the grid out of the number
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    text, above = f"{value:.1f}", (0, 5)
    axes.annotate(text, (x, y), above, textcoords="offset points", ha="center", va="bottom", size=style.SMALL, bbox=box)
