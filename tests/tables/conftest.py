"""The stage run on made-up scores."""

from __future__ import annotations

import json
from typing import NamedTuple

import pandas as pd
import pytest

from ccs.scores import Scores, write
from ccs.tables.__main__ import main

from .made_up import Html


class Built(NamedTuple):
    """What the stage wrote."""

    csv: pd.DataFrame
    markdown: str
    html: str

    @property
    def measured(self) -> pd.DataFrame:
        return self.csv[self.csv["source"] == "measured"].reset_index(drop=True)

    @property
    def published(self) -> pd.DataFrame:
        return self.csv[self.csv["source"] == "published"].reset_index(drop=True)


@pytest.fixture
def build(tmp_path, capsys):
    """Write scores, run the stage and read its outputs; neither the files' order nor a second run may matter."""

    def run(table: str, *scores: Scores, rows: dict, flags=()) -> Built:
        paths = []
        for index, one in enumerate(scores):
            paths.append(str(tmp_path / f"s{index}.h5"))
            write(paths[-1], one)
        outputs = [tmp_path / name for name in ("t.csv", "t.md", "t.html")]
        flags = [*flags, "--output", str(outputs[0]), "--markdown", str(outputs[1]), "--html", str(outputs[2])]
        written = []
        for order in (paths, paths[::-1]):
            main([table, "--scores", *order, "--rows", json.dumps(rows), *flags])
            written.append([path.read_bytes() for path in outputs])
            assert capsys.readouterr().out == outputs[1].read_text(encoding="utf-8")
        assert written[0] == written[1]
        _, markdown, html = (content.decode() for content in written[0])
        Html(html)
        return Built(pd.read_csv(outputs[0]), markdown, html)

    return run
