"""Confusion matrices side by side: percentages and names in, a figure out (figure 1).

Few classes have their numbers in the cells and the right answers framed. Many have small cells without numbers, whose
colours rise with the square root of the percentage, or else the few per cent that matter would be white; the colour bar
shows which it is. From so many classes on that three matrices would be too wide for a page, they stand one below the
other. All lengths are inches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from ccs.figures import style

MAX_NUMBERS = 12  # rows up to which cells have their numbers
MAX_BESIDE = 30  # rows up to which the matrices stand side by side
# 20 steps; few enough that matplotlib draws the colour bar as vectors
COLOURS = matplotlib.colormaps["Blues"].resampled(20)
EDGE, GAP, HEAD, TITLE, AXIS = 0.15, 0.3, 0.34, 0.28, 0.3
OTHER_GAP = 0.2  # before a column that belongs to no row, in cells


@dataclass(frozen=True)
class Row:
    """One row of the figure: the same cells for each stream.

    heading: stands above. rows: names of K true classes. columns: names of the K or K + 1 predicted ones; the last may
    belong to no row. percent: by title (K, columns) from 0 to 100.
    """

    heading: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    percent: Mapping[str, np.ndarray]

    @property
    def dense(self) -> bool:
        """Whether its cells are too small for numbers."""
        return len(self.rows) > MAX_NUMBERS

    @property
    def beside(self) -> bool:
        """Whether its matrices stand side by side."""
        return len(self.rows) <= MAX_BESIDE

    @property
    def size(self) -> float:
        """Type size of names, in points."""
        return 6.5 if self.dense else style.SMALL

    @property
    def cell(self) -> float:
        """Side of a cell."""
        return 0.115 if self.dense else 0.52 if len(self.rows) <= 6 else 0.44

    @property
    def lefts(self) -> list[float]:
        """Where each column begins, in cells."""
        return [j + (OTHER_GAP if j >= len(self.rows) else 0) for j in range(len(self.columns))]

    @property
    def side(self) -> tuple[float, float]:
        """Width and height of a matrix."""
        return (self.lefts[-1] + 1) * self.cell, len(self.rows) * self.cell

    @cached_property
    def row_names(self) -> list[str]:
        """Names of the rows in as many lines as a cell has room for."""
        return ["\n".join(style.wrap(name, 1.6, self.size, 1 if self.dense else 3)) for name in self.rows]

    @cached_property
    def column_names(self) -> list[str]:
        """Names of the columns, which stand upright, or at 45 degrees where a cell has room for it."""
        width, lines = (1.6, 1) if self.dense else (1.3, 2)
        return ["\n".join(style.wrap(name, width, self.size, lines)) for name in self.columns]

    @property
    def margin(self) -> float:
        """What the rows' names take, with the axis label."""
        return EDGE + 0.35 + self._widest(self.row_names)

    @property
    def foot(self) -> float:
        """What the columns' names take."""
        widest = self._widest(self.column_names)
        return 0.08 + (widest + 0.06 if self.dense else 0.7071 * (widest + style.block_height(2, self.size)))

    @property
    def width(self) -> float:
        """From the first matrix's left to the last one's right."""
        return 3 * self.side[0] + 2 * GAP if self.beside else self.side[0]

    @property
    def step(self) -> float:
        """From one matrix's top to the next one's below."""
        return TITLE + self.side[1] + self.foot + AXIS

    @property
    def height(self) -> float:
        """Of the row, heading included."""
        return HEAD + self.step * (1 if self.beside else len(self.percent))

    def _widest(self, names: Sequence[str]) -> float:
        return max(style.text_width(line, self.size) for name in names for line in name.split("\n"))


def draw(rows: Sequence[Row], notes: Sequence[str], legend: str) -> Figure:
    """The figure: rows below each other, one colour bar with its `legend`, the notes' sentences below."""
    margin = max(row.margin for row in rows)
    right = margin + max(row.width for row in rows)
    width = max(6.5, right + 0.85)
    lines = style.footnote(notes, width - 2 * EDGE)
    height = sum(row.height for row in rows) + style.block_height(len(lines)) + 0.25
    figure = style.new_figure(width, height)
    norm = PowerNorm(0.5, 0, 100) if any(row.dense for row in rows) else Normalize(0, 100)
    top = 0.0
    for row in rows:
        style.write(figure, EDGE, top + 0.12, row.heading, fontsize=style.SIZE, fontweight="bold")
        for number, (title, percent) in enumerate(row.percent.items()):
            column, line = (number, 0) if row.beside else (0, number)
            left = margin + column * (row.side[0] + GAP)
            _place_matrix(figure, row, norm, title, percent, left, top + HEAD + line * row.step, first=column == 0)
        top += row.height
    bar = style.place(figure, right + 0.12, HEAD + TITLE, 0.16, min(rows[0].side[1], 4.0))
    ticks = [0, 1, 5, 10, 20, 40, 60, 80, 100] if isinstance(norm, PowerNorm) else range(0, 101, 20)
    colours = figure.colorbar(ScalarMappable(norm, COLOURS), cax=bar, ticks=ticks)
    colours.minorticks_off()
    colours.set_label(legend, size=style.SMALL)
    style.write_lines(figure, EDGE, top + 0.1, lines)
    return figure


def _place_matrix(
    figure: Figure, row: Row, norm: Normalize, title: str, percent: np.ndarray, left: float, top: float, *, first: bool
) -> None:
    width, height = row.side
    top += TITLE
    axes = style.place(figure, left, top, width, height)
    _draw_cells(axes, row, norm, percent)
    axes.set_title(title, size=style.SIZE, pad=4)
    style.write(figure, left + width / 2, top + height + row.foot, "Predicted class", ha="center")
    if first:
        axes.set_yticks(np.arange(len(row.rows)) + 0.5, row.row_names, size=row.size, va="center")
        style.write(figure, EDGE, top + height / 2, "True class", rotation=90, va="center")


def _draw_cells(axes: Axes, row: Row, norm: Normalize, percent: np.ndarray) -> None:
    """Cells as polygons (an image would be a raster), row i from i to i + 1."""
    num_rows, lefts = len(percent), row.lefts
    cells = list(np.ndindex(num_rows, len(lefts)))
    corners = {(i, j): [(x, i), (x + 1, i), (x + 1, i + 1), (x, i + 1)] for i, j in cells for x in (lefts[j],)}
    colours = {(i, j): COLOURS(norm(percent[i, j])) for i, j in cells if percent[i, j] > 0}
    axes.add_collection(PolyCollection([corners[c] for c in colours], facecolors=list(colours.values()), linewidths=0))
    spans = [(0, num_rows), *((x, x + 1) for x in lefts[num_rows:])]
    lines = [[(begin, i), (end, i)] for i in range(num_rows + 1) for begin, end in spans]
    lines += [[(x, 0), (x, num_rows)] for x in sorted({*lefts, *(x + 1 for x in lefts)})]
    axes.add_collection(LineCollection(lines, colors=style.GRID, linewidths=0.3 if row.dense else 0.8, zorder=2))
    if not row.dense:
        # right answers are framed: the eye finds them without the colour
        frames = [corners[i, i] for i in range(num_rows)]
        axes.add_collection(PolyCollection(frames, facecolors="none", edgecolors=style.INK, zorder=3))
        for i, j in cells:
            ink = style.ink_on(colours[i, j]) if (i, j) in colours else style.FAINT
            place = lefts[j] + 0.5, i + 0.5
            axes.text(*place, cell_text(percent[i, j]), color=ink, size=style.SMALL, ha="center", va="center")
    axes.set(xlim=(-0.02, lefts[-1] + 1.02), ylim=(num_rows + 0.02, -0.02), yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=3)
    turn, va = (90, "center") if row.dense else (45, "top")
    middles = [x + 0.5 for x in lefts]
    axes.set_xticks(middles, row.column_names, size=row.size, rotation_mode="anchor", ha="right", rotation=turn, va=va)


def cell_text(percent: float) -> str:
    """A cell's number: whole per cent, and never 0 or 100 for what is not."""
    if 0 < percent < 0.5:
        return "<1"
    return ">99" if 99.5 <= percent < 100 - 1e-9 else f"{percent:.0f}"
