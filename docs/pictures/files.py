"""Where pictures go, and how they get small."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).parent
DPI = 130  # a README is some 840 px wide: the fonts of a figure of 12 inches have half their size there
COLOURS = 255  # of a PNG beside white, which is then a third as large


def save(figure: Figure, name: str, dpi: int = DPI) -> None:
    """Write the figure as a PNG with a white ground, for pages of any colour."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=dpi, facecolor="white")
    write(Image.open(whole), name)


def write(picture: Image.Image, name: str) -> None:
    """Write a picture as a PNG of few colours, and say its size."""
    path = FOLDER / name
    colour = picture.convert("RGB")
    few = colour.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    white = (np.asarray(colour) == 255).all(axis=2)  # which is to be the page's, not nearly so
    small = Image.fromarray(np.where(white, COLOURS, np.asarray(few)).astype(np.uint8), "P")
    palette = (few.getpalette() or [])[: 3 * COLOURS]
    small.putpalette([*palette, *[255] * (3 * (COLOURS + 1) - len(palette))])
    small.save(path, optimize=True)
    print(f"{path}: {small.width} x {small.height} px, {path.stat().st_size / 1000:.0f} kB")
