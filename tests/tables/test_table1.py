"""Table 1: published numbers against the paper typed anew, measured ones against `statistics`, Markdown read back."""

from __future__ import annotations

import re
import statistics

import numpy as np
import pandas as pd
import pytest

from ccs.tables.measurements import published

from .made_up import Html, parse_markdown, scores_with

# typed from the paper's Table 1: method with its reference, pre-training, UCF-101 and HMDB-51 RGB, Flow, RGB+Flow
PAPER = """
ConvNets+LSTM [5] | ImageNet | 68.2 - - - - -
Two-stream Network [24] | ImageNet | 73.0 83.7 88.0 40.5 54.6 59.4
ConvNet fusion [7] | ImageNet | 82.6 86.2.7 90.6 47.0 55.2 58.2
ST-resNet [6] | ImageNet | 82.3 79.1 93.4 43.2 55.5 66.4
DTPP [47] | ImageNet | 89.7 89.1 94.9 61.5 66.3 75.0
TLE+Two-stream [4] | ImageNet | - - 95.6 - - 71.1
ActionVLAD [8] | ImageNet | - - 92.7 49.8 59.1 66.9
C3D [30] | sports-1M | 82.3 - - 51.6 - -
C3D [31] | sports-1M | 85.8 - - 54.9 - -
R(2+1)D [32] | sports-1M | 93.6 93.3 95.0 66.6 70.1 72.7
TSN [38] | ImageNet | 85.7 87.9 93.5 - - 68.5
I3D [2] | ImageNet | 84.5 90.6 93.4 49.8 61.9 66.4
R(2+1)D [32] | ImageNet+Kinetics | 96.8 95.5 97.3 74.5 76.4 78.7
TSN [38] | ImageNet+Kinetics | 91.1 95.2 97.0 - - -
CCS + TSN | ImageNet | 87.2 87.4 95.3 60.5 62.1 77.2
CCS + TSN | ImageNet+Kinetics | 94.2 95.0 97.4 69.4 71.2 81.9
CCS + I3D | ImageNet | 86.7 87.1 93.8 60.1 62.3 68.2
"""
PAPER_ROWS = [[m, p, *cells.split()] for m, p, cells in (line.split(" | ") for line in PAPER.strip().splitlines())]
PAPER_COLUMNS = [f"{data} {stream}" for data in ("UCF-101", "HMDB-51") for stream in ("RGB", "Flow", "RGB+Flow")]
ROWS = {"two_stream": "TSN, streams trained separately", "ccs": "CCS | TSN"}


def test_published_rows_are_the_papers():
    rows = published("table1")
    assert len(rows) == len(PAPER_ROWS) == 17
    for (_, row), expected in zip(rows.iterrows(), PAPER_ROWS, strict=True):
        method = f"{row['method']} {row['reference']}".strip()
        assert [method, row["pretrain"], *row[PAPER_COLUMNS]] == expected
        for cell in expected[2:]:
            # whatever is printed and is no number is explained
            assert cell == "-" or cell.count(".") == 1 or cell in row["note"]
    notes = "\n".join(rows["note"])
    for slip in ("86.2.7", "Table 3's row CB", "97.4 - 85.8 = 11.6", "97.4 - 88.0 = 9.4", "81.9 - 59.4 = 22.5"):
        assert slip in notes


def test_means_and_deviations_over_seeds(build):
    ccs = [(10, 8, 14), (11, 12, 15), (9, 13, 18)]
    files = [scores_with(c, run="ccs", seed=s, num_quarantined=2) for s, c in enumerate(ccs)]
    files.append(scores_with((5, 6, 6), run="two_stream", seed=7, num_quarantined=2))
    csv, markdown, _ = build("table1", *files, rows=ROWS)
    measured = csv[csv["source"] == "measured"].set_index("method")
    assert list(measured.index) == list(ROWS.values())
    assert set(csv["source"]) == {"measured", "published"}
    assert len(csv) == 2 + 17
    row = measured.loc[ROWS["ccs"]]
    for i, stream in enumerate(("RGB", "Flow", "RGB+Flow")):
        percent = [100 * c[i] / 20 for c in ccs]  # of all 20 videos, the 2 undecoded ones too
        assert row[f"demo {stream}"] == pytest.approx(statistics.mean(percent), abs=1e-4)
        assert row[f"demo {stream} std"] == pytest.approx(statistics.stdev(percent), abs=1e-4)
        assert np.isnan(measured.loc[ROWS["two_stream"], f"demo {stream} std"])
    counts = measured[["demo seeds", "demo test videos", "demo quarantined"]]
    assert counts.to_numpy().tolist() == [[1, 20, 2], [3, 20, 2]]
    assert "2 of 20 test videos could not be decoded and count as errors" in row["note"]
    assert row["pretrain"] == "none"

    first, second = parse_markdown(markdown, "Measured here: demo, split 1, 20 test videos of 4 classes, 1 to 3 seeds")
    assert first == {
        "Method": ROWS["two_stream"],
        "Pre-train": "none",
        "RGB": "25.0",
        "Flow": "30.0",
        "RGB+Flow": "30.0",
        "Gain": "+0.0",
        "Seeds": "1",
    }
    # RGB 50, 55, 45; flow 40, 60, 65; fused 70, 75, 90
    expected = ["**50.0 ± 5.0**", "**55.0 ± 13.2**", "**78.3 ± 10.4**", "+23.3", "3"]
    assert list(second.values()) == ["CCS | TSN", "none", *expected]
    assert "**2 of 20 test videos could not be decoded and count as errors**" in markdown


def test_mean_class_accuracy_where_classes_are_uneven(build):
    """18 videos of drink and one of eat and of push: 90 % of videos are a third of the classes."""
    label = np.array([0] * 18 + [1, 2])
    logits = np.tile(np.array([2, 1, 0, 0], np.float32), (20, 1))  # drink, whatever it is
    both = scores_with((0, 0, 0), label=label, rgb=logits, flow=logits)
    better = scores_with((0, 0, 0), label=label, rgb=np.eye(4, dtype=np.float32)[label], flow=logits, seed=1)
    csv, markdown, html = build("table1", both, better, rows={"ccs": "CCS"})
    row = csv[csv["source"] == "measured"].iloc[0]
    assert row["demo RGB"] == 95
    assert row["demo RGB mean of classes"] == pytest.approx((100 / 3 + 100) / 2, abs=1e-4)
    assert row["demo Flow mean of classes"] == pytest.approx(100 / 3, abs=1e-4)
    said = "have 1 to 18 test videos each; where classes count alike (mean class accuracy), RGB / Flow / RGB+Flow are:"
    assert f"{said} CCS 66.7 / 33.3 / " in markdown
    assert said in Html(html).text
    even = build("table1", scores_with((5, 6, 6)), rows={"ccs": "CCS"})
    assert "mean class accuracy" not in even.markdown
    assert even.measured["demo RGB mean of classes"].tolist() == [25.0]


def test_of_videos_of_ones_own_the_same_numbers_and_nothing_of_the_paper(build):
    files = [scores_with((5, 6, 7), run="ccs", seed=seed, num_quarantined=1) for seed in range(2)]
    files.append(scores_with((5, 6, 6), run="two_stream", num_quarantined=1))
    own, paper = build("accuracy", *files, rows=ROWS), build("table1", *files, rows=ROWS)
    there = paper.measured.drop(columns=["source", "note", *PAPER_COLUMNS])
    pd.testing.assert_frame_equal(own.csv.drop(columns="note"), there, check_dtype=False)
    assert set(own.csv["note"]) == {"demo: 1 of 20 test videos could not be decoded and counts as an error"}
    heading = "Measured here: demo, split 1, 20 test videos of 4 classes, 1 to 2 seeds"
    assert parse_markdown(own.markdown, heading) == parse_markdown(paper.markdown, heading)
    for text in (own.markdown, own.html):
        assert not re.search(r"Table \d|published|1908|UCF", text, re.IGNORECASE)


def test_published_table_in_both_outputs(build):
    csv, markdown, _ = build("table1", scores_with((1, 1, 1)), rows={"ccs": "CCS"})
    rows = csv[csv["source"] == "published"]
    shown = parse_markdown(markdown, "Published: Table 1 of arXiv 1908.10136, split 1")
    for expected, (_, row), line in zip(PAPER_ROWS, rows.iterrows(), shown, strict=True):
        assert [row["method"], row["pretrain"]] == expected[:2]
        assert re.sub(r" \([a-z]\)$", "", line["Method"]) == expected[0]
        for column, cell in zip(PAPER_COLUMNS, expected[2:], strict=True):
            assert line[column].strip("*") == cell
            assert np.isnan(row[column]) if cell in ("-", "86.2.7") else row[column] == float(cell)
    bold = {(line["Pre-train"], column) for line in shown for column in PAPER_COLUMNS if line[column].startswith("*")}
    assert bold == {("ImageNet+Kinetics", column) for column in PAPER_COLUMNS}  # as the paper has it
    for note in published("table1")["note"]:
        assert note in markdown


def test_only_a_benchmarks_own_split_shares_columns_with_the_published_rows(build):
    on = [("ucf101", 1), ("ucf101", 2), ("hmdb51", 1), ("demo", 1), ("demo", 2)]
    settings = {"network": {"weights": "/home/someone/tsn_kinetics.pth"}}
    files = [scores_with((5, 5, 5), dataset=name, split=split, settings=settings) for name, split in on]
    csv, markdown, _ = build("table1", *files, rows={"ccs": "CCS"})
    measured, *others = csv.to_dict("records")
    columns = [c.removesuffix(" RGB") for c in csv.columns if c.endswith(" RGB")]
    assert columns == ["UCF-101", "HMDB-51", "UCF-101 split 2", "demo", "demo split 2"]
    assert all(measured[f"{column} Flow"] == 25.0 for column in columns)
    for row in others:
        assert all(np.isnan(row[f"{column} Flow"]) for column in columns[2:])
    for reason in (
        "UCF-101: 20 test videos where split 1 has 3,783, not comparable",
        "HMDB-51: 20 test videos where split 1 has 1,530, not comparable",
        "UCF-101 split 2: the published rows are on split 1, not comparable",
        "demo: other data than the published rows, not comparable",
    ):
        assert reason in measured["note"]
    assert markdown.count("ot comparable with") == 5
    assert measured["pretrain"] == "tsn_kinetics.pth"
    headings = re.findall(r"^## (.*?), \d", markdown, flags=re.M)
    assert headings[0] == "Measured here: UCF-101, split 1"
    assert len(headings) == 5


def test_names_of_weights_are_written_as_the_published_rows_write_them(build):
    for weights in ("imagenet", "kinetics"):
        csv, *_ = build(
            "table1", scores_with((5, 5, 5), settings={"network": {"weights": weights}}), rows={"ccs": "CCS"}
        )
        assert csv["pretrain"][0] in set(published("table1")["pretrain"])
        assert weights in csv["pretrain"][0].lower()


def test_a_whole_benchmark_split_stands_beside_the_published_rows_without_caution(build):
    scores = scores_with((2000, 2500, 3000), 3783, dataset="ucf101", settings={"weights": "imagenet"})
    other = scores_with((5, 6, 6), run="two_stream")
    csv, markdown, html = build("table1", scores, other, rows=ROWS)
    assert not isinstance(csv["note"][1], str)
    assert csv["pretrain"].tolist()[:2] == ["none", "ImageNet"]
    assert markdown.count("ot comparable with") == 1  # demo's
    assert "3,783 test videos" in markdown
    assert "## Measured here beside Table 1 of arXiv 1908.10136, split 1\n\n### Measured here\n" in markdown
    beside = markdown[markdown.index("## Measured here beside") :]
    # the run that was not measured there has no row; HMDB-51 was not measured
    (row,) = parse_markdown(beside, "Measured here\n")
    assert list(row.values()) == ["CCS | TSN", "ImageNet", "52.9", "66.1", "79.3", "-", "-", "-"]
    assert len(parse_markdown(beside, "Published")) == 17
    rows = Html(html).rows
    assert rows.index(["Measured here"]) < rows.index(["CCS | TSN", "ImageNet", "52.9", "66.1", "79.3", "-", "-", "-"])
    assert rows.index(["Published"]) < rows.index(["C3D [30]", "sports-1M", "82.3", "-", "-", "51.6", "-", "-"])


def test_a_row_may_lack_a_dataset(build):
    files = [scores_with((5, 6, 6), run="two_stream"), scores_with((5, 6, 6)), scores_with((7, 8, 9), dataset="other")]
    measured = build("table1", *files, rows=ROWS).measured
    assert measured["demo RGB"].tolist() == [25.0, 25.0]
    assert np.isnan(measured["other RGB"][0])
    assert measured["other RGB"][1] == 35.0
