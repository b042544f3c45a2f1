"""Bootstrap intervals against a slow bootstrap, against the normal approximation, and mirrored."""

from __future__ import annotations

import dataclasses
import math
import random
import warnings

import numpy as np
import pytest

from ccs.scores import STREAMS, accuracy, hits
from ccs.stage import CcsError
from ccs.tables.significance import compare

from .made_up import random_scores, scores_with_hits

VARIANT = [random_scores(60, seed=s, skill=1.2) for s in range(3)]
BASELINE = [random_scores(60, seed=s, skill=0.7, run="baseline") for s in (7, 8)]


def test_the_difference_is_that_of_the_mean_accuracies():
    found = compare(VARIANT, BASELINE)
    assert list(found) == list(STREAMS)
    for stream in STREAMS:
        means = [sum(accuracy(s, stream) for s in seeds) / len(seeds) for seeds in (VARIANT, BASELINE)]
        assert found[stream].points == pytest.approx(means[0] - means[1])
        assert found[stream].low < found[stream].points < found[stream].high


def test_intervals_equal_a_slow_bootstrap_to_its_sampling_error():
    found = compare(VARIANT, BASELINE)["fused"]
    right = {run: [hits(s, "fused").tolist() for s in seeds] for run, seeds in (("v", VARIANT), ("b", BASELINE))}
    draw, differences = random.Random(0), []
    for _ in range(4000):
        videos = [draw.randrange(60) for _ in range(60)]
        means = {run: np.mean([[one[i] for i in videos] for one in seeds]) for run, seeds in right.items()}
        differences.append(100 * (means["v"] - means["b"]))
    # a quantile of 4,000 normal draws has a standard error of 0.04 of their deviation at 2.5 %
    tolerance = 0.2 * np.std(differences)
    assert found.low == pytest.approx(np.quantile(differences, 0.025), abs=tolerance)
    assert found.high == pytest.approx(np.quantile(differences, 0.975), abs=tolerance)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_intervals_of_many_videos_are_those_of_a_binomial_share(p):
    num = 3000
    variant = scores_with_hits(np.arange(num) < p * num)
    found = compare([variant], [scores_with_hits(np.zeros(num, bool), run="baseline")])["rgb"]
    sigma = 100 * math.sqrt(p * (1 - p) / num)
    assert found.points == pytest.approx(100 * p)
    assert found.low == pytest.approx(100 * p - 1.96 * sigma, abs=0.15 * sigma)
    assert found.high == pytest.approx(100 * p + 1.96 * sigma, abs=0.15 * sigma)


def test_videos_are_paired():
    # both are right on half of the videos, nearly the same ones: far tighter than two independent shares would be
    first = np.arange(1000) < 500
    second = first.copy()
    second[:5] = False
    found = compare([scores_with_hits(first)], [scores_with_hits(second, run="baseline")])["fused"]
    assert found.points == pytest.approx(0.5)
    assert 0 < found.low < found.high < 1.2  # independent shares: 0.5 ± 4.4


def test_exchanging_variant_and_baseline_mirrors_the_interval():
    one, other = compare(VARIANT, BASELINE), compare(BASELINE, VARIANT)
    for stream in STREAMS:
        assert other[stream] == pytest.approx((-one[stream].points, -one[stream].high, -one[stream].low))


def test_the_same_scores_give_the_same_interval():
    assert compare(VARIANT, BASELINE) == compare(VARIANT, BASELINE)


@pytest.mark.parametrize("num", [1, 2, 50])
@pytest.mark.parametrize(("one", "two", "points"), [(True, True, 0.0), (False, False, 0.0), (True, False, 100.0)])
def test_runs_that_differ_alike_on_all_videos_give_a_point(num, one, two, points):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(
            [scores_with_hits(np.full(num, one))], [scores_with_hits(np.full(num, two), run="baseline")] * 2
        )
    assert all(difference == (points, points, points) for difference in found.values())


def test_quarantined_videos_are_errors_of_both():
    quarantined = np.arange(60) < 6
    blank = np.where(quarantined[:, None], np.nan, VARIANT[0].rgb).astype(np.float32)
    out = [dataclasses.replace(s, rgb=blank, flow=blank, quarantined=quarantined) for s in (VARIANT[0], BASELINE[0])]
    assert compare([out[0]], [out[1]])["fused"] == (0.0, 0.0, 0.0)
    better = [dataclasses.replace(out[0], rgb=np.where(quarantined[:, None], np.nan, np.eye(8)[out[0].label]))]
    points = compare(better, [out[1]])["rgb"].points
    assert points == pytest.approx(100 * (54 / 60 - np.mean(hits(out[1], "rgb"))))  # of 60 videos, not of 54


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"video": tuple(reversed(BASELINE[0].video))}, "test videos"),
        ({"label": np.zeros(60, np.int64)}, "labels"),
    ],
)
def test_other_videos_cannot_be_paired(changes, what):
    other = dataclasses.replace(BASELINE[1], **changes)
    with pytest.raises(CcsError, match=rf"run 'baseline', seed 8, on 'demo' split 1: expected the {what} of run"):
        compare(VARIANT, [BASELINE[0], other])
