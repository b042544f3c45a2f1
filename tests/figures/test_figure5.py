"""Bars against `statistics`, published numbers where they belong and nowhere else, the drawing against the CSV."""

from __future__ import annotations

import statistics

import pytest

from ccs.figures.figure5a import __main__ as figure5a
from ccs.figures.figure5b import __main__ as figure5b
from ccs.scores import accuracy
from ccs.stage import CcsError
from ccs.tables.measurements import published

ROWS_A = {"ccs": "average", "ccs_max": "maximum"}
ROWS_B = {"TSN": {"tsn_vgg": "VGG-16", "tsn_bn": "BN-Inception"}, "CCS": {"ccs_bn": "BN-Inception"}}
COOPERATIVE = {"backbone": "resnet18", "connection": "nonlocal", "shared": True}
SEPARATE = {"backbone": "resnet18", "connection": "none", "shared": False}
HMDB51 = {"num_classes": 51, "per_class": 30, "dataset": "hmdb51"}  # 1,530 test videos, as split 1 has
UCF101 = {"num_classes": 97, "per_class": 39, "dataset": "ucf101"}  # 3,783
STREAMS = {"RGB": "rgb", "Flow": "flow", "RGB+Flow": "fused"}


@pytest.fixture
def aggregations(make_scores):
    """Scores of both aggregations."""

    def make(num_seeds=3, per_class=20, **changes):
        settings = {
            name: {"network": {**COOPERATIVE, "aggregation": kind}}
            for name, kind in (("ccs", "mean"), ("ccs_max", "max"))
        }
        return [
            make_scores(per_class=per_class, seed=seed, run=run, settings=settings[run], **changes)
            for run in ROWS_A
            for seed in range(num_seeds)
        ]

    return make


@pytest.fixture
def backbones(make_scores):
    """Scores of the runs of figure 5 (b)."""

    def make(**changes):
        names = {"tsn_vgg": "vgg16", "tsn_bn": "BN-Inception", "ccs_bn": "bninception"}
        networks = {"tsn_vgg": SEPARATE, "tsn_bn": SEPARATE, "ccs_bn": COOPERATIVE}
        return [
            make_scores(seed=seed, run=run, settings={"network": network | {"backbone": names[run]}}, **changes)
            for run, network in networks.items()
            for seed in range(2)
        ]

    return make


def test_means_and_deviations_are_those_of_the_seeds(aggregations, draw):
    scores = aggregations(num_quarantined=3)
    drawn = draw(figure5a, scores, ROWS_A)
    measured = drawn.csv[drawn.csv["source"] == "measured"]
    assert len(measured) == 2 * 3
    for _, row in measured.iterrows():
        values = [accuracy(one, STREAMS[row["stream"]]) for one in scores if one.run == row["run"]]
        assert float(row["accuracy"]) == pytest.approx(statistics.mean(values), abs=1e-4)
        assert float(row["std"]) == pytest.approx(statistics.stdev(values), abs=1e-4)
        assert row["accuracy by seed"] == " ".join(f"{seed}:{value:.4f}" for seed, value in enumerate(values))
        assert (row["label"], row["seeds"], row["quarantined"]) == (ROWS_A[row["run"]], "3", "3")
        assert f"{float(row['accuracy']):.1f}" in drawn.texts
    for text in ("average", "maximum", "RGB", "Flow", "RGB+Flow", "Top-1 accuracy (%)"):
        assert text in drawn.texts
    assert "3 of 100 test videos could not be decoded and count as errors" in drawn.note
    assert "mean over 3 seeds (circles)" in drawn.note


def test_one_seed_has_no_spread(aggregations, draw):
    drawn = draw(figure5a, aggregations(num_seeds=1), ROWS_A)
    assert set(drawn.csv["std"]) == {""}
    assert "no spread is known" in drawn.note
    assert "Whiskers" not in drawn.note


def test_published_average_stands_on_hmdb51_split_1_only(aggregations, draw):
    here = draw(figure5a, aggregations(num_seeds=1, **HMDB51), ROWS_A)
    assert here.texts.count("77.2") == 1
    assert "published (arXiv 1908.10136)" in here.texts
    assert "77.2% on HMDB-51 split 1." in here.note
    changes = (
        {"num_classes": 5},
        HMDB51 | {"split": 2},
        HMDB51 | {"per_class": 29},
    )
    for number, change in enumerate(changes):
        other = draw(figure5a, aggregations(num_seeds=1, **change), ROWS_A, name=f"other{number}")
        assert "77.2" not in other.texts
        assert "published (arXiv 1908.10136)" not in other.texts
        assert "77.2% on HMDB-51 split 1 (other data than drawn here)" in other.note
        assert list(other.csv.loc[other.csv["source"] == "published", "accuracy"]) == ["77.2", "", "", ""]


@pytest.mark.parametrize(
    ("network", "shown"),
    [
        (COOPERATIVE, True),
        (COOPERATIVE | {"connection": "average"}, True),
        (COOPERATIVE | {"aggregation": "max"}, False),
        (SEPARATE, False),
        (COOPERATIVE | {"shared": False}, False),
        (COOPERATIVE | {"connection": "none"}, False),
        (COOPERATIVE | {"backbone": "i3d"}, False),
        (COOPERATIVE | {"backbone": "i3d_x0_25"}, False),
        ({"backbone": "resnet18"}, False),
    ],
)
def test_published_average_needs_ccs_of_2d_networks_that_averages(make_scores, draw, network, shown):
    scores = make_scores(**HMDB51, run="ccs", settings={"network": {"aggregation": "mean"} | network})
    drawn = draw(figure5a, [scores], {"ccs": "average"})  # the settings count, not the label
    assert ("77.2" in drawn.texts) == shown
    assert ("(no run here is of this kind)" not in drawn.note) == shown
    assert "Published for CCS, average, RGB+Flow: 77.2%" in drawn.note


def test_backbones_stand_in_groups(backbones, draw):
    scores = backbones()
    drawn = draw(figure5b, scores, ROWS_B)
    measured = drawn.csv[drawn.csv["source"] == "measured"].set_index("run")
    assert list(measured.index) == ["tsn_vgg", "tsn_bn", "ccs_bn"]
    for run in measured.index:
        values = [accuracy(one, "fused") for one in scores if one.run == run]
        assert float(measured.loc[run, "accuracy"]) == pytest.approx(statistics.mean(values), abs=1e-4)
    assert list(measured["group"]) == ["TSN", "TSN", "CCS"]
    assert set(measured["stream"]) == {"RGB+Flow"}
    assert drawn.texts.count("BN-Inception") == 1
    assert drawn.texts.count("not run") == 1  # CCS on VGG-16
    assert "published (arXiv 1908.10136)" not in drawn.texts


def test_published_backbone_stands_on_ucf101_split_1(backbones, draw):
    drawn = draw(figure5b, backbones(**UCF101), ROWS_B)
    assert drawn.texts.count("93.5") == drawn.texts.count("95.3") == 1
    assert "(other data than drawn here)" not in drawn.note
    published = drawn.csv[drawn.csv["source"] == "published"]
    assert list(published["accuracy"]) == ["93.5", "95.3", "", "", "", ""]
    assert published["note"].str.contains("arXiv 1908.10136").all()


@pytest.mark.parametrize(
    ("network", "shown"),
    [
        (SEPARATE, {"93.5"}),
        (COOPERATIVE, {"95.3"}),
        (SEPARATE | {"shared": True}, set()),
        (COOPERATIVE | {"shared": False}, set()),
        ({}, set()),
    ],
)
@pytest.mark.parametrize("group", ["TSN", "CCS", "ours"])
def test_settings_say_which_published_number_stands_beside_a_run(make_scores, draw, group, network, shown):
    scores = make_scores(**UCF101, run="mine", settings={"network": network | {"backbone": "bninception"}})
    drawn = draw(figure5b, [scores], {group: {"mine": "BN-Inception"}})
    assert {"93.5", "95.3"} & set(drawn.texts) == shown
    assert drawn.note.count("(no run here is of this kind)") == 2 - len(shown)


def test_data_sets_have_one_name_in_figures_and_tables(aggregations, draw):
    drawn = draw(figure5a, aggregations(num_seeds=1, dataset="something_v2", num_quarantined=1), ROWS_A)
    assert "something-something-v2, split 1: 100 test videos of 5 classes" in drawn.texts
    assert (
        "something-something-v2 split 1: 1 of 100 test videos could not be decoded and counts as an error."
        in drawn.texts
    )


def test_published_numbers_are_those_of_table_1():
    table = published("table1").set_index(["method", "pretrain"])
    a, b = (published(name) for name in ("figure5a", "figure5b"))
    assert a.loc[0, "accuracy"] == table.loc[("CCS + TSN", "ImageNet"), "HMDB-51 RGB+Flow"] == "77.2"
    assert b.loc[0, "accuracy"] == table.loc[("TSN", "ImageNet"), "UCF-101 RGB+Flow"] == "93.5"
    assert b.loc[1, "accuracy"] == table.loc[("CCS + TSN", "ImageNet"), "UCF-101 RGB+Flow"] == "95.3"


def test_errors_say_what_to_do(aggregations, make_scores, draw):
    scores = aggregations(num_seeds=1)
    with pytest.raises(CcsError, match="no scores of run 'ccs_max'; evaluate the run or drop"):
        draw(figure5a, scores[:1], ROWS_A)
    elsewhere = make_scores(run="ccs", dataset="extra")
    with pytest.raises(CcsError, match="'ccs_max': has scores on 'demo' split 1, none on 'extra' split 1; evaluate"):
        draw(figure5a, [*scores, elsewhere], ROWS_A)
    with pytest.raises(CcsError, match="expected different labels, found 'same' 2 times"):
        draw(figure5a, scores, {"ccs": "same", "ccs_max": "same"})
    for rows in ([], {}, {"TSN": "ccs"}):
        with pytest.raises(CcsError, match="--rows"):
            draw(figure5b, scores, rows)
    with pytest.raises(CcsError, match="each run once, found 'ccs' in 2 groups"):
        draw(figure5b, scores, {"TSN": {"ccs": "a"}, "CCS": {"ccs": "a"}})
