"""One look for every figure: fonts, colours, placement in inches, footnotes, and files that are the same bytes twice.

    with style.applied():
        figure = style.new_figure(width, height)
        axes = style.place(figure, left, top, width, height)
        ...
        style.save(figure, "f.svg", "f.png", title="what is seen, for those who cannot see it")

All lengths are inches from the figure's top left corner, all text sizes points. Nothing uses pyplot's global state.
"""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findSystemFonts, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.typing import ColorType

from ccs.stage import CcsError, atomic

# Okabe and Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/: told apart with any colour vision
PALETTE = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "bluish green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "reddish purple": "#CC79A7",
}
INK, FAINT, GRID = "#1A1A1A", "#6B6B6B", "#DDDDDD"  # FAINT has a contrast of 5.3 on white (WCAG asks for 4.5)
FONT = "DejaVu Sans"  # comes with matplotlib, so that the layout is the same on every machine
SIZE, SMALL, HEADING = 9.0, 8.0, 10.0
LINE = 1.3  # line height as a multiple of the size
DPI = 200
MAX_SIDE, MAX_PIXELS = 30_000, 60_000_000  # of a PNG; a larger figure has fewer dots per inch

_RC = {
    "font.family": "sans-serif",
    # an SVG keeps text as text: where DejaVu is not installed, a narrower font takes its place and the layout holds
    "font.sans-serif": [FONT, "Verdana", "Arial", "Helvetica", "sans-serif"],
    "font.size": SIZE,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $1
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": SIZE,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "ccs",
}


@contextmanager
def applied() -> Generator[None]:
    """Draw in this style and no other: what a user's matplotlibrc says does not count."""
    with matplotlib.style.context(["default", _RC]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height))


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the figure's top left corner."""
    whole_width, whole_height = figure.get_size_inches()
    bottom = (whole_height - top - height) / whole_height
    return figure.add_axes((left / whole_width, bottom, width / whole_width, height / whole_height))


def write(figure: Figure, left: float, top: float, text: str, **properties: Any) -> None:
    """Text whose upper left corner is at a place in inches from the figure's top left corner."""
    width, height = figure.get_size_inches()
    looks: dict[str, Any] = {"ha": "left", "va": "top", **properties}
    figure.text(left / width, 1 - top / height, text, **looks)


def footnote(sentences: Sequence[str], width: float) -> list[str]:
    """The lines of a footnote of this width in inches: each sentence starts a line of its own."""
    return [line for sentence in sentences for line in wrap(sentence, width, SMALL)]


def line_height(size: float = SMALL) -> float:
    """Inches from one line of text to the next."""
    return LINE * size / 72


def block_height(num_lines: int, size: float = SMALL) -> float:
    """Inches that so many lines of text take."""
    return num_lines * line_height(size)


def write_lines(figure: Figure, left: float, top: float, lines: Sequence[str], **properties: Any) -> None:
    """Lines of small text, one below the other, from a place in inches."""
    for number, line in enumerate(lines):
        write(figure, left, top + block_height(number), line, **{"fontsize": SMALL, "color": FAINT, **properties})


@cache
def text_width(text: str, size: float = SMALL) -> float:
    """Inches that one line of text takes in the style's font."""
    if not text.strip():
        return 0.0
    with known_boxes():
        path = TextPath((0, 0), text, size=size, prop=FontProperties(family=[FONT, *fallbacks(text)[0]]), usetex=False)
    return path.get_extents().width / 72


@cache
def fallbacks(text: str) -> tuple[tuple[str, ...], str]:
    """Installed fonts that have what the style's font lacks of `text`, and the letters that none has."""
    missing = {letter for letter in text if not letter.isspace()} - _letters(fontManager.findfont(FONT))
    if not missing:  # else many font files are opened
        return (), ""
    _learn_new_fonts()
    # those of matplotlib itself are for formulas, or hold boxes
    own = (font for font in fontManager.ttflist if not font.fname.startswith(matplotlib.get_data_path()))
    families = []
    for font in sorted(own, key=lambda font: (font.style != "normal", font.weight != 400, font.name, font.fname)):
        found = missing & _letters(font.fname)
        if found:
            families.append(font.name)
            missing -= found
    return tuple(families), "".join(sorted(missing))


@cache
def _learn_new_fonts() -> None:
    """Matplotlib keeps its list of fonts from its first call on, and so misses those that were installed since."""
    known = {font.fname for font in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in known:
            try:
                fontManager.addfont(path)
            except (
                Exception
            ):  # a font of a kind, or so broken, that it cannot be read: FreeType's errors are of many types
                continue


@cache
def _letters(path: str) -> frozenset[str]:
    """What a font can draw; nothing where its file is gone or broken."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@contextmanager
def known_boxes() -> Generator[None]:
    """Without matplotlib's warning for each missing letter, at each size anew: `tell_of_boxes` names them once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def wrap(text: str, width: float, size: float = SMALL, max_lines: int | None = None) -> list[str]:
    """`text` in lines no wider than `width` inches, broken at spaces, after _ - / and between camelCase words.

    A piece that is wider than a line is broken anywhere. What does not fit into `max_lines` is cut, with an ellipsis.
    """
    # at a space the break swallows it; elsewhere nothing is lost
    pieces = re.split(r"(?<= )|(?<=[_/-])(?=\w)|(?<=[a-z])(?=[A-Z])", " ".join(printable(text).split()))
    lines = [""]
    for piece in pieces:
        if not lines[-1] or text_width((lines[-1] + piece).rstrip(), size) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
        while text_width(lines[-1].rstrip(), size) > width and len(lines[-1].rstrip()) > 1:
            fits = max(1, len(_fitting(lines[-1], width, size)))
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    lines = [line.strip() for line in lines]
    if max_lines is not None and len(lines) > max_lines:
        lines[max_lines - 1 :] = [_fitting(f"{lines[max_lines - 1]} {lines[max_lines]}", width, size, "…")]
    return lines


def printable(text: str) -> str:
    """`text` with spaces for control characters, which an SVG must not hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _fitting(text: str, width: float, size: float, end: str = "") -> str:
    """The longest beginning of `text` that fits with `end` behind it."""
    while len(text) > 1 and text_width(text.rstrip() + end, size) > width:
        text = text[:-1]
    return text.rstrip() + end if end else text


def luminance(colour: ColorType) -> float:
    """Relative luminance from 0 (black) to 1 (white), WCAG 2.1, https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink_on(colour: ColorType) -> str:
    """The colour of text on this background: black or white, whichever has more contrast (WCAG 2.1)."""
    return "black" if (luminance(colour) + 0.05) / 0.05 >= 1.05 / (luminance(colour) + 0.05) else "white"


def save(figure: Figure, svg: str | os.PathLike[str], png: str | os.PathLike[str], *, title: str) -> None:
    """Write the figure as SVG and as PNG, each whole or not at all; the same figure gives the same bytes.

    Letters that the style's font lacks come from other installed fonts. Those that none has are boxes in the PNG, which
    one line on standard error says; the SVG keeps them, and a viewer with other fonts shows them.

    Args:
        figure: drawn under `applied`.
        svg: vector graphics, its text kept as text.
        png: the same at 200 dots per inch, fewer where it would not fit into memory.
        title: one sentence for screen readers and for what shows no images; the SVG's `title`.

    Raises:
        CcsError: a file does not end as its format does, or cannot be written.
    """
    for path, end in ((svg, ".svg"), (png, ".png")):
        if not os.fspath(path).lower().endswith(end):
            raise CcsError(f"{path}: expected a name that ends in {end}; rename the output")
    title = printable(title)
    width, height = figure.get_size_inches()
    dpi = min(DPI, MAX_SIDE / max(width, height), math.sqrt(MAX_PIXELS / (width * height)))
    boxes = give_fallbacks(figure)
    with applied(), known_boxes():
        with atomic(svg) as part:
            figure.savefig(part, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
        with atomic(png) as part:
            figure.savefig(part, format="png", dpi=dpi, metadata={"Software": None, "Title": title})
    tell_of_boxes(f"{png} (the SVG keeps the text)", boxes)


def tell_of_boxes(where: str, letters: str) -> None:
    """One line on standard error on letters that no font has, if any, and on what to do."""
    if letters:
        print(
            f"ccs: {where}: no installed font has {letters}, drawn as boxes: install one that does, such as Debian's "
            "fonts-noto-cjk for Chinese, Japanese and Korean, and make it again",
            file=sys.stderr,
        )


def give_fallbacks(figure: Figure) -> str:
    """Let the texts of a figure have further fonts where they need them; the letters that are still missing."""
    boxes = set()
    for text in figure.findobj(Text):
        families, missing = fallbacks(text.get_text())
        if families:
            text.set_fontfamily([*text.get_fontfamily(), *families])
        boxes |= set(missing)
    return "".join(sorted(boxes))
