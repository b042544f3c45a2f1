"""Table 2: published numbers against the paper typed anew, top-k against sorting."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from ccs.tables.measurements import published

from .made_up import Html, parse_markdown, random_scores

# typed from the paper's Table 2: val top-1, val top-5, test top-1, test top-5
PAPER = {
    "Baseline": "51.3 80.6 - -",
    "MultiScale TRN": "48.8 77.6 50.9 79.3",
    "two-stream + TRN": "55.5 83.1 56.2 83.2",
    "CCS + two-stream + TRN": "61.2 89.3 60.5 87.9",
}
COLUMNS = ["val top-1", "val top-5", "test top-1", "test top-5"]
ROWS = {"two_stream": "two-stream", "ccs": "CCS"}


def slow_top_k(scores, stream: str, k: int) -> float:
    right = 0
    for i, label in enumerate(scores.label):
        rgb, flow = scores.rgb[i].astype(float), scores.flow[i].astype(float)
        score = {"RGB": rgb, "Flow": flow, "RGB+Flow": scores.fusion[0] * rgb + scores.fusion[1] * flow}[stream]
        right += label in sorted(range(len(score)), key=lambda c: -score[c])[:k]
    return 100 * right / len(scores.label)


def test_published_rows_are_the_papers(build):
    rows = published("table2")
    assert dict(zip(rows["method"], rows[COLUMNS].agg(" ".join, axis=1), strict=True)) == PAPER
    assert rows["note"].tolist()[:3] == ["", "", ""]
    assert "61.1" in rows["note"][3]
    csv, markdown, _ = build("table2", random_scores(), rows={"ccs": "CCS"})
    shown = parse_markdown(markdown, "Published: Table 2 of arXiv 1908.10136, something-something-v2")
    in_csv = csv[csv["source"] == "published"].to_dict("records")
    for (method, cells), line, row in zip(PAPER.items(), shown, in_csv, strict=True):
        assert [cell.strip("*") for cell in line.values()][1:] == cells.split()
        assert row["method"] == method
        for column, cell in zip(COLUMNS, cells.split(), strict=True):
            value = row[f"something-something-v2 {column}"]
            assert np.isnan(value) if cell == "-" else value == float(cell)
    assert "(a) The text says 61.1 where the table has 61.2" in markdown


def test_top_k_of_the_streams_and_of_both(build):
    seeds = [random_scores(seed=s) for s in range(3)]
    two = [random_scores(seed=s, skill=0.5, run="two_stream") for s in range(2)]
    csv, markdown, html = build("table2", *seeds, *two, rows=ROWS)
    row = csv[csv["method"] == "CCS"].iloc[0]
    (line,) = [r for r in parse_markdown(markdown, "Measured here: demo") if r["Method"] == "CCS"]
    cells = [cell for row in Html(html).rows for cell in row]
    for stream in ("RGB", "Flow", "RGB+Flow"):
        for k in (1, 5):
            percent = [slow_top_k(scores, stream, k) for scores in seeds]
            mean, std = statistics.mean(percent), statistics.stdev(percent)
            column = f"demo test top-{k}" if stream == "RGB+Flow" else f"demo test {stream} top-{k}"
            assert row[column] == pytest.approx(mean, abs=1e-4)
            assert row[f"{column} std"] == pytest.approx(std, abs=1e-4)
            assert line[f"{stream} top-{k}"].strip("*") == f"{row[column]:.1f} ± {row[f'{column} std']:.1f}"
            assert line[f"{stream} top-{k}"].strip("*") in cells
    assert csv["demo seeds"].tolist()[:2] == [2, 3]
    assert csv["demo test videos"].tolist()[:2] == [40, 40]


def test_validation_videos_stand_beside_the_papers(build):
    logits = np.zeros((24777, 6), np.float32)
    logits[:12000, 0] = 1
    logits[12000:20000, 1:4] = 1  # the label's class, 0, is fourth
    logits[20000:] = np.arange(6)  # sixth
    label = np.zeros(24777, np.int64)
    scores = random_scores(24777, 6, dataset="something_v2", rgb=logits, flow=logits, label=label)
    csv, markdown, _ = build("table2", scores, rows={"ccs": "CCS"})
    measured = csv.iloc[0]
    assert measured["something-something-v2 val top-1"] == pytest.approx(100 * 12000 / 24777, abs=1e-4)
    assert measured["something-something-v2 val top-5"] == pytest.approx(100 * 20000 / 24777, abs=1e-4)
    assert np.isnan(measured["something-something-v2 test top-1"])
    assert not isinstance(measured["note"], str)
    assert "These are the official validation videos" in markdown
    beside = markdown[markdown.index("## Measured here beside Table 2") :]
    (line,) = parse_markdown(beside, "Measured here\n")
    assert list(line.values()) == ["CCS", "48.4", "80.7", "-", "-"]


@pytest.mark.parametrize(("num_classes", "shown"), [(5, False), (6, True)])
def test_top_5_of_five_classes_says_nothing_and_is_not_printed(build, num_classes, shown):
    csv, markdown, html = build("table2", random_scores(num_classes=num_classes), rows={"ccs": "CCS"})
    assert np.isfinite(csv["demo test top-5"][0]) == shown
    assert ("RGB top-5" in markdown) == shown
    for text in (markdown, html):
        assert ("No top-5: with 5 classes it is 100 whatever the network says." in text) != shown
    assert np.isfinite(csv["demo test top-1"][0])
