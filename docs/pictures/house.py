"""The house in one picture: which command of `ccs` makes what from what, and what lies in files between them."""

from __future__ import annotations

from typing import NamedTuple

import files
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, FancyArrowPatch, Polygon, Rectangle

from ccs.figures import style


class Room(NamedTuple):
    """A command or a package, what it does, and the files that it leaves."""

    name: str
    does: str
    leaves: str = ""


STAGES = (
    Room("datasets", "lists and\nfolders: what\nis there", "manifest.csv"),
    Room("frames", "ffmpeg\ndecodes and\nscales", "frames/*.h5"),
    Room("flow", "TV-L1 between\nneighbouring\nframes", "flow/*.h5"),
    Room("shards", "both, laid out\nto be read in\nany order", "shards/*.h5"),
    Room("clips, train", "what is seen\nof a video;\nbatches, steps", "checkpoint.pt"),
    Room("evaluate", "both streams'\nlogits of each\ntest video", "scores.h5"),
    Room("tables, figures", "numbers beside\nthe paper's,\nintervals", "table1.csv, …"),
)
COMMANDS = (
    Room("ccs flow", "flow of any videos"),
    Room("ccs predict", "what a video shows"),
    Room("ccs features", "of windows in time"),
    Room("ccs export", "ONNX, torch.export"),
    Room("ccs results", "accuracy by class"),
    Room("import ccs", "all this in Python"),
)
CELLAR = (
    Room("models", "streams, connection block, losses"),
    Room("hdf5, scores, settings, pool, stage, signals", "files, numbers, processes, errors"),
)
LEFT, RIGHT = 1.05, 11.4  # the walls
FLOORS = 0.45, 1.65, 2.55, 4.35, 5.1  # where roof, commands, stages and cellar begin, and the ground


def draw() -> None:
    """Write house.png."""
    figure = style.new_figure(12.5, 5.25)
    axes = style.place(figure, 0, 0, 12.5, 5.25)
    axes.set(xlim=(0, 12.5), ylim=(5.25, 0))
    axes.set_axis_off()
    _roof(axes)
    for number, room in enumerate(COMMANDS):
        x, width = _share(number, len(COMMANDS))
        _wall(axes, x, FLOORS[1], width, FLOORS[2] - FLOORS[1], "sky blue", 0.28)
        _text(axes, x + width / 2, FLOORS[1] + 0.28, room.name, weight="bold")
        _text(axes, x + width / 2, FLOORS[1] + 0.62, room.does, size=10.8)
    for number, room in enumerate(STAGES):
        x, width = _share(number, len(STAGES))
        _wall(axes, x, FLOORS[2], width, FLOORS[3] - FLOORS[2], "yellow", 0.3)
        _text(axes, x + width / 2, FLOORS[2] + 0.25, room.name, weight="bold")
        _text(axes, x + width / 2, FLOORS[2] + 0.81, room.does, size=10.8)
        axes.add_patch(
            Rectangle((x + 0.1, FLOORS[3] - 0.48), width - 0.2, 0.34, facecolor="white", edgecolor=style.FAINT, lw=0.8)
        )
        _text(axes, x + width / 2, FLOORS[3] - 0.31, room.leaves, size=10.5)
        if number:
            _arrow(axes, x - 0.14, x + 0.14)
    for number, room in enumerate(CELLAR):
        x, width = ((LEFT, 4.2), (LEFT + 4.2, RIGHT - LEFT - 4.2))[number]
        _wall(axes, x, FLOORS[3], width, FLOORS[4] - FLOORS[3], "black", 0.12)
        _text(axes, x + width / 2, FLOORS[3] + 0.22, room.name, weight="bold")
        _text(axes, x + width / 2, FLOORS[3] + 0.5, room.does, size=10.8)
    axes.plot([0.1, 12.4], [FLOORS[3]] * 2, color=style.INK, linewidth=2, zorder=0)
    _text(axes, 0.46, FLOORS[3] - 0.31, "videos", weight="bold")
    _arrow(axes, 0.82, LEFT + 0.14)
    _text(axes, 12.0, FLOORS[3] - 0.31, "report", weight="bold")
    _arrow(axes, RIGHT - 0.14, 11.7)
    files.save(figure, "house.png")


def _roof(axes: Axes) -> None:
    middle, eaves = (LEFT + RIGHT) / 2, FLOORS[1]
    axes.add_patch(Rectangle((9.3, 0.3), 0.45, 0.9, facecolor=_tint("black", 0.35), edgecolor=style.INK))
    for x, y, radius in ((9.62, 0.19, 0.08), (9.83, 0.17, 0.11), (10.12, 0.12, 0.09)):
        axes.add_patch(Circle((x, y), radius, facecolor=_tint("black", 0.12), edgecolor="none"))
    corners = [(LEFT - 0.35, eaves), (middle - 2.6, FLOORS[0]), (middle + 2.6, FLOORS[0]), (RIGHT + 0.35, eaves)]
    axes.add_patch(Polygon(corners, facecolor=_tint("vermillion", 0.35), edgecolor=style.INK))
    _text(axes, middle, 0.72, "snakemake", size=14, weight="bold")
    _text(axes, middle, 1.06, "config.yaml says what is to be made; only what has changed runs again", size=11)
    _text(axes, middle, 1.38, "workflow/, config, provenance, launch, cli", size=10.8)


def _share(number: int, num: int) -> tuple[float, float]:
    """Left and width of a room on a floor of so many."""
    width = (RIGHT - LEFT) / num
    return LEFT + number * width, width


def _wall(axes: Axes, x: float, y: float, width: float, height: float, colour: str, strength: float) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=_tint(colour, strength), edgecolor=style.INK))


def _arrow(axes: Axes, start: float, end: float) -> None:
    height = FLOORS[3] - 0.31
    looks = {"arrowstyle": "-|>", "mutation_scale": 14, "color": style.PALETTE["blue"], "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch((start, height), (end, height), linewidth=2, zorder=5, **looks))


def _tint(colour: str, strength: float) -> tuple[float, ...]:
    return tuple(1 - strength * (1 - part) for part in to_rgb(style.PALETTE[colour]))


def _text(axes: Axes, x: float, y: float, text: str, *, size: float = 11.5, weight: str = "normal") -> None:
    """Text with its middle at (x, y), its lines as high as those beside it whatever their letters."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        middle = y + (number - (len(lines) - 1) / 2) * style.line_height(size)
        axes.text(x, middle + 0.36 * size / 72, line, ha="center", va="baseline", fontsize=size, fontweight=weight)
