r"""Is a run better than another one by more than chance explains? Bootstrap over training seeds and test videos.

With h_is(v) in {0, 1} whether seed s of run v gets test video i right (`ccs.scores.hits`), S_v its number of seeds,
N the test videos, quarantined ones included, and a_s(v) the accuracy of a seed, the difference of a variant v to its
baseline b is, in points,

    D = 100 / N * sum_i d_i,      d_i = mean_s h_is(v) - mean_s h_is(b),

the difference of the two mean accuracies. Each of 10,000 draws takes N of the videos, S_v of the seeds of v and S_b of
those of b, each with replacement and independently of the others:

    D* = D + 100 / N * t_N / z * sum_i (w_i - 1) (d_i - D / 100)
           + 100 k * ( mean_s (w_s(v) - 1) a_s(v)  -  mean_s (w_s(b) - 1) a_s(b) ),

and the interval is from the 2.5 % to the 97.5 % quantile of D* over the draws. A video is drawn for both runs, all
seeds and all streams at once, which is what "paired" means. Seeds are not paired: two runs of one seed share the order
of batches and the backbones' first weights, but no other weights and nothing that is learnt. If their accuracies were
akin for all that, an interval of pairs would be narrower.

Seeds and videos are crossed, as every seed is tested on every video: what a seed gets right on one video beyond what
seed and video explain, the dice, is in a_s and in d_i. Weighing h_is by w_i w_s (the product bootstrap: Owen and
Eckles, Bootstrapping data arrays of arbitrary order, 2012) counts its variance three times, which makes intervals up to
sqrt(3) times too wide. So k leaves it to the videos and lets the seeds count for what they add:

    k^2 = max(0, 1 - I / V) * (t_S / z)^2
    V = sum_v 1 / S_v * var_s(a_s(v)),      I = sum_v 1 / (S_v N^2) * sum_i var_s(h_is(v) - a_s(v)),

with unbiased variances. t and z are the 97.5 % quantiles of Student's and of the normal distribution, t_N with N - 1
degrees of freedom and t_S with sum_v (S_v - 1): the variance of three seeds, or of nine groups, is itself uncertain,
which quantiles of their draws do not show. Of n things a bootstrap's variance is (n - 1) / n of an unbiased estimate's,
for 3 seeds a third too little: a thing that was drawn c times weighs w = 1 + sqrt(n / (n - 1)) (c - 1) in place of c.

`python benchmarks/intervals.py` makes trainings up and counts how often the interval holds the truth: 92 to 98
% of the time with 3 or 5 seeds, 90 to 97 % with 2, 94 to 97 % by 9 groups of videos; of two sets of seeds of one run, 0
just as often. One seed says nothing about others: then the interval covers the videos alone, and holds the truth in 52
to 96 %, the less the more seeds differ.

Where videos come in `groups`, such as clips cut from one recording, groups are drawn in place of videos, and d_i, D
and h_is - a_s summed over the videos of each. Several test sets, such as the folds of a cross-validation, are joined: N
counts the videos of all of them, seeds are drawn for each set, as they are trainings of its own (V and I sum over
sets), and videos or groups from all sets together. Without groups videos are taken as independent, which clips of one
recording are not.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from ccs.scores import STREAMS, Scores, Stream, check_same_videos, hits
from ccs.stage import CcsError

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 190810136  # fixed: the same scores give the same interval
_BATCH_CELLS = 400_000  # weights of videos held at a time: few enough for a cache

Seeds = Sequence[Scores]  # of one run on one test set


class Difference(NamedTuple):
    """Accuracy, or accuracy of a run minus its baseline's, and the ends of its 95 % interval, in points."""

    points: float
    low: float
    high: float


def compare(variant: Seeds, baseline: Seeds, groups: Mapping[str, str] | None = None) -> Mapping[Stream, Difference]:
    """The difference of two runs, each given by its seeds, with its interval, for RGB, flow and RGB+Flow.

    groups: the group of each video, by its id; without them each video is drawn on its own. The numbers of seeds may
    differ. Raises `CcsError` where a seed has other test videos or labels than the others, or a video has no group.
    """
    return compare_folds([variant], [baseline], groups)


def compare_folds(
    variant: Sequence[Seeds], baseline: Sequence[Seeds], groups: Mapping[str, str] | None = None
) -> Mapping[Stream, Difference]:
    """`compare` over several test sets: for each the seeds that were trained for it, in the same order in both runs.

    No group may have videos in two sets.
    """
    for of_variant, of_baseline in zip(variant, baseline, strict=True):
        check_same_videos([*of_baseline, *of_variant])
    return _difference([(1, variant), (-1, baseline)], groups)


def accuracy_interval(folds: Sequence[Seeds], groups: Mapping[str, str] | None = None) -> Mapping[Stream, Difference]:
    """One run's mean accuracy over all videos of its test sets in percent, with its interval; as `compare_folds`."""
    for seeds in folds:
        check_same_videos(seeds)
    return _difference([(1, folds)], groups)


def _difference(
    runs: Sequence[tuple[int, Sequence[Seeds]]], groups: Mapping[str, str] | None
) -> Mapping[Stream, Difference]:
    """Runs with their sign, summed."""
    unit_of, num_units = _units(runs[0][1], groups)
    sizes_U = np.bincount(unit_of, minlength=num_units).astype(float)
    trainings = [
        _Trainings(sign, seeds, start, unit_of, num_units) for sign, folds in runs for start, seeds in _placed(folds)
    ]
    right_xU = sum(each.sign * each.right_xsU.mean(axis=1) for each in trainings) / sizes_U.sum()
    mean_x1 = right_xU.sum(axis=1, keepdims=True)
    apart_xU = _student(num_units - 1) * (right_xU - mean_x1 * sizes_U / sizes_U.sum())
    factor_x1 = _factor(trainings)[:, None] / sizes_U.sum()
    rng = np.random.default_rng(_SEED)
    batch = max(1, _BATCH_CELLS // num_units)
    drawn = []
    for start in range(0, NUM_RESAMPLES, batch):
        weights_DU = _weights(rng, min(batch, NUM_RESAMPLES - start), num_units)
        drawn.append(
            mean_x1 + apart_xU @ (weights_DU - 1).T + factor_x1 * sum(each.draw(len(weights_DU)) for each in trainings)
        )
    low_x, high_x = np.quantile(np.concatenate(drawn, axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    least = -100.0 if len(runs) > 1 else 0.0
    ends_x2 = np.clip(100 * np.stack([low_x, high_x], axis=1), least, 100.0)
    return {
        stream: Difference(float(mean), *(float(end) for end in ends))
        for stream, mean, ends in zip(STREAMS, 100 * mean_x1[:, 0], np.round(ends_x2, 9), strict=True)
    }


def _student(degrees: int) -> float:
    """How much farther than a normal one's the quantiles of Student's distribution are; 1 where it has none."""
    from scipy.special import stdtrit  # slow to import, and the configuration imports every table

    quantile = (1 + CONFIDENCE) / 2
    return float(stdtrit(degrees, quantile)) / NormalDist().inv_cdf(quantile) if degrees else 1.0


def _placed(folds: Sequence[Seeds]) -> list[tuple[int, Seeds]]:
    """Each test set's seeds with the place of its first video among the videos of all sets."""
    starts = np.cumsum([0, *(len(seeds[0].video) for seeds in folds)])
    return [(int(start), seeds) for start, seeds in zip(starts, folds, strict=False)]


class _Trainings:
    """One run's seeds on one test set: how many videos each gets right, by stream, seed and unit."""

    def __init__(self, sign: int, seeds: Seeds, start: int, unit_of: np.ndarray, num_units: int) -> None:
        units = unit_of[start : start + len(seeds[0].video)]
        self.sign, self.num_seeds = sign, len(seeds)
        self.sizes_U = np.bincount(units, minlength=num_units)
        self.right_xsU = np.array(
            [[np.bincount(units, hits(scores, stream), minlength=num_units) for scores in seeds] for stream in STREAMS]
        )
        # of its own, of this test set alone, and the same whichever run is compared with it
        name = f"{seeds[0].run} {start} {[scores.seed for scores in seeds]}"
        self.rng = np.random.default_rng([_SEED, zlib.crc32(name.encode())])

    def draw(self, num_draws: int) -> np.ndarray:
        """What other seeds change in the number of videos that are right: (streams, draws)."""
        weights_Ds = _weights(self.rng, num_draws, self.num_seeds)
        return self.sign * self.right_xsU.sum(axis=2) @ (weights_Ds - 1).T / self.num_seeds

    def variances(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the mean over seeds of that number: between seeds, and the dice's part of it; by stream, several seeds."""
        total_xs1 = self.right_xsU.sum(axis=2, keepdims=True)
        residual_xsU = self.right_xsU - total_xs1 * (self.sizes_U / self.sizes_U.sum())
        num_units = np.count_nonzero(self.sizes_U)
        unbiased = num_units / max(num_units - 1, 1)
        between_x, dice_x = (x.var(axis=1, ddof=1).sum(axis=1) for x in (total_xs1, residual_xsU))
        return between_x / self.num_seeds, unbiased * dice_x / self.num_seeds


def _factor(trainings: Sequence[_Trainings]) -> np.ndarray:
    """k, by stream: how much of the differences between seeds counts; 0 where no run has several."""
    several = [each for each in trainings if each.num_seeds > 1]
    if not several:
        return np.zeros(len(STREAMS))
    between_x, dice_x = np.sum([each.variances() for each in several], axis=0)
    excess_x = np.clip(between_x - dice_x, 0, None) / np.where(between_x > 0, between_x, 1)
    return np.sqrt(excess_x) * _student(sum(each.num_seeds - 1 for each in several))


def _weights(rng: np.random.Generator, num_draws: int, num: int) -> np.ndarray:
    """How much each of `num` things weighs in each draw, (draws, num); the sum of a draw is `num`."""
    if num == 1:
        return np.ones((num_draws, 1))
    # what rng.multinomial would give, seven times as fast
    drawn_Dn = rng.integers(num, size=(num_draws, num), dtype=np.uint32)
    cells_Dn = drawn_Dn + np.arange(0, num_draws * num, num)[:, None]
    counts = np.bincount(cells_Dn.ravel(), minlength=num_draws * num).reshape(num_draws, num)
    return 1 + math.sqrt(num / (num - 1)) * (counts - 1)


def _units(folds: Sequence[Seeds], groups: Mapping[str, str] | None) -> tuple[np.ndarray, int]:
    """What is drawn together: a number for each video of all test sets, and how many numbers there are."""
    videos = [video for seeds in folds for video in seeds[0].video]
    if groups is None:
        return np.arange(len(videos)), len(videos)
    if unknown := [video for video in videos if video not in groups]:
        raise CcsError(
            f"{unknown[0]}: expected a group for each of {len(videos)} test videos, found {len(groups)} others"
        )
    names, numbers = np.unique([groups[video] for video in videos], return_inverse=True)
    return numbers, len(names)
