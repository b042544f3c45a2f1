"""Table 3: published numbers against the paper typed anew, groups, and differences to each group's baseline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ccs.stage import CcsError
from ccs.tables.measurements import published
from ccs.tables.significance import compare

from .made_up import Html, parse_markdown, random_scores, scores_with, scores_with_hits, unescaped

# typed from the paper's Table 3: UCF-101 and HMDB-51 RGB, Flow, RGB+Flow
PAPER = """
TSN Baseline 85.7 87.9 93.5 - - 68.5
TSN CB 86.3 87.2 93.9 60.5 62.1 76.3
TSN CS 84.9 85.1 91.7 54.4 61.6 67.3
TSN All 87.2 87.4 95.3 61.7 65.1 77.2
I3D Baseline 84.5 90.6 93.4 49.8 61.9 66.4
I3D CB 86.1 86.9 92.7 53.0 56.2 67.6
I3D CS 82.4 83.1 91.8 50.9 52.3 64.7
I3D All 86.7 87.1 93.8 60.1 62.3 68.2
"""
PAPER_ROWS = [line.split() for line in PAPER.strip().splitlines()]
BOLD = ["87.9", "87.2", "95.3", "61.7", "65.1", "77.2", "90.6", "86.7", "93.8", "60.1", "62.3", "68.2"]
GROUPS = {"TSN": {"tsn": "Baseline", "tsn_cb": "CB", "ccs": "All"}, "I3D": {"i3d": "Baseline", "i3d_all": "All"}}
RUNS = [run for rows in GROUPS.values() for run in rows]


def made(**changes) -> list:
    skills = {"tsn": 0.5, "tsn_cb": 0.8, "ccs": 1.5, "i3d": 0.6, "i3d_all": 0.7}
    return [
        random_scores(seed=10 * RUNS.index(run) + s, skill=skill, run=run, **changes)
        for run, skill in skills.items()
        for s in range(2 if run == "tsn" else 3)
    ]


def test_published_rows_are_the_papers(build):
    rows = published("table3")
    columns = [column for column in rows.columns if column != "note"]
    assert columns[2:] == [f"{data} {s}" for data in ("UCF-101", "HMDB-51") for s in ("RGB", "Flow", "RGB+Flow")]
    assert rows[columns].to_numpy().tolist() == PAPER_ROWS
    csv, markdown, html = build("table3", random_scores(), rows={"TSN": {"ccs": "All"}})
    in_csv = csv[csv["source"] == "published"]
    paper = markdown[markdown.index("## Published: Table 3 of arXiv 1908.10136, split 1") :]
    shown = [line for base in ("TSN", "I3D") for line in parse_markdown(paper, base)]
    for expected, row, line in zip(PAPER_ROWS, in_csv.to_dict("records"), shown, strict=True):
        assert [row["base"], row["method"]] == expected[:2]
        assert [line["Method"].removesuffix(" (a)"), *(line[c].strip("*") for c in columns[2:])] == expected[1:]
        for column, cell in zip(columns[2:], expected[2:], strict=True):
            assert np.isnan(row[column]) if cell == "-" else row[column] == float(cell)
    assert sorted(Html(html).bold_cells()) == sorted(BOLD)  # as the paper has them
    assert "93.9 - 93.5 and 76.3 - 68.5" in markdown


def test_differences_to_the_baseline_of_the_own_group(build):
    files = made()
    csv, markdown, html = build("table3", *files, rows=GROUPS)
    by_run = {run: [scores for scores in files if scores.run == run] for run in RUNS}
    measured = csv[csv["source"] == "measured"].set_index(["base", "method"])
    assert list(measured.index) == [(base, label) for base, rows in GROUPS.items() for label in rows.values()]
    page = Html(html)
    for base, rows in GROUPS.items():
        baseline, *_ = rows
        lines = {line["Method"]: line for line in parse_markdown(markdown, base)}
        for run, label in rows.items():
            row = measured.loc[(base, label)]
            if run == baseline:
                assert np.isnan(row["demo RGB+Flow minus baseline"])
                assert lines[label]["Difference"] == lines[label]["95 % interval"] == ""
                continue
            for stream, (points, low, high) in zip(
                ("RGB", "Flow", "RGB+Flow"), compare(by_run[run], by_run[baseline]).values(), strict=True
            ):
                # the difference of the printed accuracies
                assert row[f"demo {stream}"] - measured.loc[(base, "Baseline")][f"demo {stream}"] == pytest.approx(
                    row[f"demo {stream} minus baseline"], abs=3e-4
                )
                assert row[f"demo {stream} minus baseline"] == pytest.approx(points, abs=1e-4)
                assert row[f"demo {stream} interval low"] == pytest.approx(low, abs=1e-4)
                assert row[f"demo {stream} interval high"] == pytest.approx(high, abs=1e-4)
            cells = [f"{points:+.1f}", f"[{low:+.1f}, {high:+.1f}]"]  # of RGB+Flow, the last
            assert [lines[label]["Difference"], lines[label]["95 % interval"]] == cells
            line = [label, *(lines[label][s].strip("*") for s in ("RGB", "Flow", "RGB+Flow")), *cells, "3"]
            assert line in page.rows
    assert measured["demo seeds"].tolist() == [2, 3, 3, 3, 3]
    assert "10,000 draws of the training seeds of each run and of the test videos" in markdown
    assert "there is one seed" not in page.text
    assert "RGB alone" not in markdown
    assert "It takes videos as independent" in page.text
    assert page.rows.index(["TSN"]) < page.rows.index(["I3D"])


def test_published_numbers_stand_beside_those_of_the_same_data(build):
    small = scores_with((1000, 1200, 1500), 1530, dataset="hmdb51", run="tsn")
    other = dataclasses.replace(small, run="tsn_cb")
    own = dataclasses.replace(small, run="mine")
    rows = {"tsn": {"tsn": "baseline", "tsn_cb": "CB", "mine": "another"}}
    csv, markdown, html = build("table3", small, other, own, rows=rows)
    lines = parse_markdown(markdown, "tsn\n")
    columns = [f"Published {s}" for s in ("RGB", "Flow", "RGB+Flow")]
    printed = [[line[c].strip("*") for c in columns] for line in lines]
    assert printed == [["-", "-", "68.5"], ["60.5", "62.1", "76.3"], ["-", "-", "-"]]
    assert lines[1]["Measured RGB+Flow"].strip("*") == "98.0"
    assert [lines[1]["Difference"], lines[1]["95 % interval"]] == ["+0.0", "[+0.0, +0.0]"]
    assert not isinstance(csv["note"][0], str)
    assert "Published" in Html(html).text


@pytest.mark.parametrize("patience", [0, 5])
def test_it_says_where_streams_stand_that_never_met(build, patience):
    apart = {"network": {"weights": "none", "connection": "none", "shared": False}, "train": {"patience": patience}}
    files = [random_scores(run="tsn", settings=apart), random_scores(run="cb")]
    csv, markdown, html = build("table3", *files, rows={"TSN": {"tsn": "Base_line", "cb": "CB"}})
    for text in (unescaped(markdown), Html(html).text):
        assert "RGB alone, Flow alone: RGB and Flow of Base_line. There the streams share nothing" in text
        assert ("save that RGB+Flow ends the training" in text) == bool(patience)
    assert ["demo: RGB and Flow are each stream alone" in note for note in csv["note"][:2]] == [True, False]


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "mine"])
def test_clips_of_one_recording_are_drawn_together(build, dataset):
    """Ten clips of each, on which both runs are right or wrong together: intervals are of 8 things, not of 80."""
    name = {
        "ucf101": "Push/v_Push_g{:02d}_c{:02d}",
        "hmdb51": "push/film{:02d}_push_u_nm_np1_fr_med_{:02d}",
        "mine": "p/{}_{}",
    }
    right = np.repeat(np.arange(8) % 2 == 0, 10)
    video = tuple(name[dataset].format(i // 10, i % 10) for i in range(80))
    files = [
        scores_with_hits(each, run=run, video=video, dataset=dataset)
        for run, each in (("a", ~right | right), ("b", right))
    ]
    csv, markdown, _ = build("table3", *files, rows={"TSN": {"b": "Baseline", "a": "All"}})
    (column,) = (column for column in csv if column.endswith("RGB+Flow interval low"))
    low = csv[column][1]
    assert (low < 25) == (dataset != "mine")  # of 8 things 50 ± 35, of 80 50 ± 11
    assert ("videos of one recording are drawn together" in markdown) == (dataset != "mine")
    assert ("It takes videos as independent" in markdown) == (dataset == "mine")


def test_intervals_of_one_seed_say_so(build):
    files = [random_scores(seed=seed, run=run) for run, seed in (("tsn", 0), ("tsn", 1), ("tsn_cb", 0), ("ccs", 0))]
    files += [random_scores(seed=seed, run=run) for run in ("i3d", "i3d_all") for seed in (0, 1)]
    _, markdown, _ = build("table3", *files, rows=GROUPS)
    assert "- Of TSN, CB; TSN, All there is one seed: intervals of differences to it do not cover" in markdown


def test_one_run_is_compared_with_nothing(build):
    csv, markdown, html = build("table3", random_scores(), rows={"TSN": {"ccs": "All"}})
    assert np.isnan(csv["demo RGB+Flow minus baseline"]).all()
    for text in (markdown, html):
        assert "interval" not in text
        assert "Difference" not in text


def test_a_variant_without_its_baseline_says_so(build):
    other = dataclasses.replace(random_scores(run="tsn_cb"), dataset="other")
    files = [random_scores(run="tsn"), random_scores(seed=1, run="tsn_cb"), other]
    csv, markdown, _ = build("table3", *files, rows={"TSN": {"tsn": "Baseline", "tsn_cb": "CB"}})
    assert np.isfinite(csv["demo RGB+Flow minus baseline"][1])
    assert np.isnan(csv["other RGB+Flow minus baseline"]).all()
    assert "Nothing to compare the rows of TSN with, as Baseline was not measured here." in markdown


def test_a_run_that_was_not_scored_is_refused(build):
    with pytest.raises(CcsError, match="row 'TSN, CB': no scores of run 'tsn_cb'"):
        build("table3", *made()[:2], rows={"TSN": {"tsn": "Baseline", "tsn_cb": "CB"}, "I3D": {"i3d": "Baseline"}})


def test_other_videos_than_the_baselines_are_refused(build):
    rows = {"TSN": {"tsn": "Baseline", "tsn_cb": "CB"}}
    moved = random_scores(run="tsn_cb", video=tuple(f"w{i}" for i in range(40)))
    with pytest.raises(CcsError, match=r"expected the same test videos .* number 1 is 'v000' and 'w0'"):
        build("table3", random_scores(run="tsn"), moved, rows=rows)
