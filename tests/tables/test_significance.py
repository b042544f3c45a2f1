"""Bootstrap intervals against a slow bootstrap, the normal approximation and simulated truth, and mirrored."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy.stats import t as student

from ccs.scores import STREAMS, accuracy, hits
from ccs.stage import CcsError
from ccs.tables import significance
from ccs.tables.significance import accuracy_interval, compare, compare_folds

from .made_up import random_scores, scores_with_hits

# seeds differ by more than chance, so that their draws are seen
VARIANT = [random_scores(60, seed=s, skill=skill) for s, skill in enumerate((0.8, 1.2, 1.7))]
BASELINE = [random_scores(60, seed=s, skill=skill, run="baseline") for s, skill in ((7, 0.4), (8, 0.9))]


def test_the_difference_is_that_of_the_mean_accuracies():
    found = compare(VARIANT, BASELINE)
    assert list(found) == list(STREAMS)
    for stream in STREAMS:
        means = [sum(accuracy(s, stream) for s in seeds) / len(seeds) for seeds in (VARIANT, BASELINE)]
        assert found[stream].points == pytest.approx(means[0] - means[1])
        assert found[stream].low < found[stream].points < found[stream].high


def slow_interval(folds: list[tuple[list, list]], units: list[list[list[int]]]) -> tuple[float, float]:
    """By loops over draws, test sets, seeds and videos; `units` has the videos of each group for each test set."""
    draw, differences = random.Random(0), []
    right = [[[hits(s, "fused").tolist() for s in seeds] for seeds in fold] for fold in folds]
    num_videos = sum(len(fold[0][0]) for fold in right)

    def weights(num: int) -> list[float]:
        counts = Counter(draw.randrange(num) for _ in range(num))
        return [1 + (math.sqrt(num / (num - 1)) * (counts[i] - 1) if num > 1 else 0) for i in range(num)]

    rates = [[sum(map(sum, seeds)) / len(seeds) for seeds in fold] for fold in right]
    mean = sum(of_variant - of_baseline for of_variant, of_baseline in rates) / num_videos
    far = student.ppf(0.975, len(units) - 1) / 1.959964

    between, dice, degrees = 0.0, 0.0, 0
    for number, fold in enumerate(right):
        of_fold = [unit[number] for unit in units if unit[number]]
        for seeds in fold:
            between += statistics.variance(map(sum, seeds)) / len(seeds)
            degrees += len(seeds) - 1
            for videos in of_fold:
                rest = [sum(seed[i] - sum(seed) / len(seed) for i in videos) for seed in seeds]
                dice += statistics.variance(rest) / len(seeds) * len(of_fold) / (len(of_fold) - 1)
    k = math.sqrt(max(0, 1 - dice / between)) * student.ppf(0.975, degrees) / 1.959964
    assert 0.2 < k < 2  # so that both parts are seen

    for _ in range(3000):
        of_units, of_seeds = 0.0, 0.0
        for unit, weight in zip(units, weights(len(units)), strict=True):
            for number, fold in enumerate(right):
                for i in unit[number]:
                    of_video = [sum(seed[i] for seed in seeds) / len(seeds) for seeds in fold]
                    of_units += (weight - 1) * (of_video[0] - of_video[1] - mean)
        for sign, seeds in (pair for fold in right for pair in zip((1, -1), fold, strict=True)):
            of_seeds += sign * np.dot(np.subtract(weights(len(seeds)), 1), list(map(sum, seeds))) / len(seeds)
        differences.append(100 * (mean + (far * of_units + k * of_seeds) / num_videos))
    low, high = np.quantile(differences, [0.025, 0.975])
    # a quantile of 3,000 normal draws has a standard error of 0.05 of their deviation at 2.5 %
    return pytest.approx(low, abs=0.2 * np.std(differences)), pytest.approx(high, abs=0.2 * np.std(differences))


def test_intervals_equal_a_slow_bootstrap_to_its_sampling_error():
    found = compare(VARIANT, BASELINE)["fused"]
    assert found[1:] == slow_interval([(VARIANT, BASELINE)], [[[i]] for i in range(60)])


def test_joined_folds_draw_groups_of_videos_and_seeds_of_each_fold():
    folds = [
        (
            [random_scores(n, seed=10 * n + s, skill=2 * s, video=names) for s in range(2)],
            [random_scores(n, seed=10 * n + s + 5, skill=s, run="b", video=names) for s in range(3)],
        )
        for n, names in ((12, [f"x{i}" for i in range(12)]), (20, [f"y{i}" for i in range(20)]))
    ]
    groups = {f"x{i}": f"g{i // 5}" for i in range(12)} | {f"y{i}": f"h{i // 4}" for i in range(20)}
    units = [[videos, []] for videos in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11])]
    units += [[[], list(range(4 * k, 4 * k + 4))] for k in range(5)]
    variant, baseline = zip(*folds, strict=True)
    found = compare_folds(variant, baseline, groups)["fused"]
    assert found[1:] == slow_interval(folds, units)
    means = [np.mean([hits(s, "fused") for s in seeds]) for fold in folds for seeds in fold]
    expected = 100 * (12 * (means[0] - means[1]) + 20 * (means[2] - means[3])) / 32
    assert found.points == pytest.approx(expected)
    own = accuracy_interval(variant, groups)["fused"]
    assert own.points == pytest.approx(100 * (12 * means[0] + 20 * means[2]) / 32)
    assert own.low < own.points < own.high
    with pytest.raises(CcsError, match="y0: expected a group for each of 32 test videos, found 12 others"):
        compare_folds(variant, baseline, {name: "g" for name in groups if name.startswith("x")})


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.06])
def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch, num_seeds, spread):
    """Two sets of seeds of one run, whose accuracy differs from seed to seed, on videos of unlike difficulty."""
    monkeypatch.setattr(significance, "NUM_RESAMPLES", 400)
    rng, num_videos, repeats = np.random.default_rng(num_seeds), 150, 250
    found = []
    for repeat in range(repeats):
        difficulty = rng.uniform(-0.3, 0.3, num_videos)

        def trained(run: str, difficulty=difficulty, repeat=repeat):
            of_seeds = 0.5 + rng.normal(0, spread, (num_seeds, 1)) - difficulty
            right = rng.uniform(size=(num_seeds, num_videos)) < of_seeds
            return [scores_with_hits(row, run=run, seed=100 * repeat + k) for k, row in enumerate(right)]

        found.append(compare(trained("v"), trained("b"))["rgb"])
    held = np.mean([low <= 0 <= high for _, low, high in found])
    assert 0.9 < held < 0.985  # 250 intervals tell a share to 0.014
    # and no longer than it takes: 3.92 deviations, and some more as few seeds tell little
    needed = 2 * 1.96 * np.std([points for points, _, _ in found])
    assert 0.95 < np.mean([high - low for _, low, high in found]) / needed < 1.4


def test_another_set_of_seeds_is_covered():
    """Seeds whose accuracies are far apart: the videos alone say that a run is better than itself."""
    right = [np.arange(200) < num for num in (150, 130, 152, 128)]
    seeds = [scores_with_hits(each, seed=k) for k, each in enumerate(right)]
    assert compare(seeds[:1], seeds[1:2])["rgb"].low > 5  # of one seed each there is nothing else
    again = [dataclasses.replace(scores, seed=scores.seed + 4) for scores in seeds]
    assert compare(seeds, again)["rgb"].low < -5


def test_the_dice_of_each_training_are_not_counted_twice():
    """Seeds that differ by chance alone are as good as that many videos more: their spread adds nothing."""
    rng = np.random.default_rng(0)
    right = rng.uniform(size=(6, 4000)) < 0.5
    runs = [
        [scores_with_hits(row, seed=k, run=run) for k, row in enumerate(rows)]
        for run, rows in zip("vb", (right[:3], right[3:]), strict=True)
    ]
    found = compare(*runs)["rgb"]
    sigma = 100 * math.sqrt(2 * 0.25 / 3 / 4000)
    assert (found.high - found.low) / (2 * 1.96 * sigma) == pytest.approx(1, abs=0.15)


def test_few_groups_are_as_uncertain_as_student_says():
    right = np.arange(600) % 100 < np.repeat([30, 45, 50, 62, 71, 77], 100)  # percent in each of six groups
    groups = {f"v{i:03d}": str(i // 100) for i in range(600)}
    found = accuracy_interval([[scores_with_hits(right)]], groups)["rgb"]
    expected = student.ppf(0.975, 5) * statistics.stdev([30, 45, 50, 62, 71, 77]) / math.sqrt(6)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.07)


def test_seeds_are_drawn_anew_for_each_fold():
    """Eight folds of a run whose seeds know all or nothing: by then the mean is known far better than by one fold."""
    folds = [
        [
            scores_with_hits(np.full(10, seed < 2), seed=seed, video=tuple(f"{fold} {i}" for i in range(10)))
            for seed in range(4)
        ]
        for fold in range(8)
    ]
    found = accuracy_interval(folds)["rgb"]
    expected = (
        100 * student.ppf(0.975, 24) * statistics.stdev([1, 1, 0, 0]) / math.sqrt(4 * 8)
    )  # all or nothing are 4 points apart
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.15)


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
