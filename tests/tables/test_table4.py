"""Table 4: published numbers against the paper typed anew, alphas from the runs' own settings."""

from __future__ import annotations

import numpy as np
import pytest

from ccs.stage import CcsError
from ccs.tables.measurements import published

from .made_up import Html, parse_markdown, scores_with

# typed from the paper's Table 4
PAPER = ["0.2 0.3 0.8 96.3", "0.3 0.3 0.8 97.4", "0.3 0.5 1.0 97.1", "0.5 0.5 1.0 95.4", "0.8 0.5 1.2 95.5"]
ROWS = {"ccs": "CCS", "wide": "wider"}


def with_alphas(alphas, correct=(5, 6, 9), num_videos=20, ranking=True, **changes):
    losses = {"ranking": ranking} if alphas is None else {"ranking": ranking, "alphas": alphas}
    return scores_with(correct, num_videos, settings={"losses": losses, "network": {"weights": "imagenet"}}, **changes)


def test_published_rows_are_the_papers(build):
    rows = published("table4")
    assert rows.drop(columns="note").agg(" ".join, axis=1).tolist() == PAPER
    csv, markdown, _ = build("table4", with_alphas([0.3, 0.3, 0.8]), rows={"ccs": "CCS"})
    shown = parse_markdown(markdown, "Published: Table 4 of arXiv 1908.10136")
    in_csv = csv[csv["source"] == "published"][["alpha1", "alpha2", "alpha3", "UCF-101 RGB+Flow"]]
    for expected, line, row in zip(PAPER, shown, in_csv.to_numpy().tolist(), strict=True):
        assert " ".join(line.values()).replace("*", "").removesuffix(" (a)") == expected
        assert row == [float(cell) for cell in expected.split()]
    assert "**97.4 (a)**" in markdown
    assert "ImageNet+Kinetics" in markdown


def test_measured_rows_have_their_own_alphas(build):
    files = [
        with_alphas([0.3, 0.3, 0.8], (5, 6, 9)),
        with_alphas([0.3, 0.3, 0.8], (7, 6, 12), seed=1),
        with_alphas([0.30000000001, 0.5, 1], (8, 8, 8), run="wide"),
    ]
    csv, markdown, html = build("table4", *files, rows=ROWS)
    first, second = csv[csv["source"] == "measured"].to_dict("records")
    assert [first[f"alpha{i}"] for i in (1, 2, 3)] == [0.3, 0.3, 0.8]
    assert [second[f"alpha{i}"] for i in (1, 2, 3)] == [0.3, 0.5, 1.0]
    assert [first[f"demo {s}"] for s in ("RGB", "Flow", "RGB+Flow")] == [30.0, 30.0, 52.5]
    assert first["demo RGB+Flow std"] == pytest.approx(np.std([45, 60], ddof=1), abs=1e-4)
    assert first["demo seeds"] == 2
    lines = parse_markdown(markdown, "Measured here: demo, split 1")
    assert list(lines[0].values()) == ["CCS", "0.3", "0.3", "0.8", "**52.5 ± 10.6**", "2"]
    assert list(lines[1].values()) == ["wider", "0.3", "0.5", "1.0", "40.0", "1"]
    assert ["CCS", "0.3", "0.3", "0.8", "52.5 ± 10.6", "2"] in Html(html).rows


def test_published_numbers_stand_beside_the_same_alphas(build):
    files = [
        with_alphas([0.3, 0.5, 1.0], (1000, 1000, 1000), 3783, dataset="ucf101"),
        with_alphas([0.4, 0.5, 1.0], (1000, 1000, 1000), 3783, dataset="ucf101", run="wide"),
    ]
    _, markdown, _ = build("table4", *files, rows=ROWS)
    lines = parse_markdown(markdown, "Measured here: UCF-101")
    assert [line["Published RGB+Flow"] for line in lines] == ["97.1", "-"]
    assert "ot comparable" not in markdown


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([with_alphas(None)], r"row 'CCS': run 'ccs' on 'demo' split 1, seed 0: expected three numbers losses\.alphas"),
        ([with_alphas([0.3, 0.3])], r"expected three numbers losses\.alphas in its settings, found \[0\.3, 0\.3\]"),
        ([with_alphas([0.3, 0.3, 0.8], ranking=False)], "expected a run with the ranking losses, found ranking: false"),
        (
            [with_alphas([0.3, 0.3, 0.8]), with_alphas([0.3, 0.3, 0.9], dataset="other")],
            r"row 'CCS': expected run 'ccs' with the same alphas everywhere, found demo: 0\.3 0\.3 0\.8; other: 0\.3",
        ),
    ],
)
def test_runs_without_alphas_of_their_own_are_refused(build, files, message):
    with pytest.raises(CcsError, match=message):
        build("table4", *files, rows={"ccs": "CCS"})
