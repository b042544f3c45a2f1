"""Made-up scores, and figures drawn of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from ccs.scores import Scores, write


class Drawn(NamedTuple):
    """What a figure wrote."""

    svg: Path
    png: Path
    csv: pd.DataFrame

    @property
    def texts(self) -> list[str]:
        """Every line of text in the SVG, in the order of drawing."""
        tree = ElementTree.parse(self.svg)
        return ["".join(text.itertext()).strip() for text in tree.iter("{http://www.w3.org/2000/svg}text")]

    @property
    def note(self) -> str:
        return " ".join(self.texts)

    def ids(self, name: str) -> int:
        return len(re.findall(f'id="{name}', self.svg.read_text()))


@pytest.fixture
def make_scores():
    """Scores of random logits; `settings` and all other fields can be given."""

    def make(num_classes: int = 5, per_class: int = 6, num_quarantined: int = 0, seed: int = 0, **changes) -> Scores:
        label = np.tile(np.arange(num_classes), per_class)
        random = np.random.default_rng([seed, num_classes, per_class])
        streams = random.normal(size=(2, len(label), num_classes)).astype(np.float32)
        streams[:, np.arange(len(label)), label] += 1
        streams[:, :num_quarantined] = np.nan
        fields = {
            "video": tuple(f"v{i:04d}" for i in range(len(label))),
            "label": label,
            "rgb": streams[0],
            "flow": streams[1],
            "quarantined": np.arange(len(label)) < num_quarantined,
            "dataset": "demo",
            "split": 1,
            "run": "two_stream",
            "seed": seed,
            "classes": tuple(f"class {i}" for i in range(num_classes)),
            "settings": {"network": {"aggregation": "mean", "backbone": "resnet18"}},
            "fusion": (1.0, 1.5),
            "versions": {},
        }
        return Scores(**(fields | changes))

    return make


@pytest.fixture
def draw(tmp_path):
    """Write the scores, call a figure's `main` on them, and give what it wrote."""

    def call(figure: ModuleType, scores: list[Scores], rows: object, *flags: str, name: str = "figure") -> Drawn:
        paths = [str(tmp_path / f"{index}.h5") for index in range(len(scores))]
        for path, one in zip(paths, scores, strict=True):
            write(path, one)
        out = {kind: tmp_path / "out" / f"{name}.{kind}" for kind in ("svg", "png", "csv")}
        outputs = [word for kind, path in out.items() for word in (f"--{kind}", str(path))]
        rows = rows if isinstance(rows, str) else json.dumps(rows)
        figure.main(["--scores", *paths, "--rows", rows, *outputs, *flags])
        return Drawn(out["svg"], out["png"], pd.read_csv(out["csv"], dtype=str, keep_default_na=False))

    return call
