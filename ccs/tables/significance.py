r"""Is a run better than another one by more than chance explains? Bootstrap over training seeds and test videos.

With h_is(v) in {0, 1} whether seed s of run v gets test video i right (`ccs.scores.hits`), S_v its number of seeds and
N the test videos, quarantined ones included, the difference of a variant v to its baseline b is, in points,

    D = 100 / N * sum_i ( sum_s w_s(v) h_is(v) - sum_s w_s(b) h_is(b) ),      w_s(v) = 1 / S_v,

the difference of the two mean accuracies. Seeds and videos are crossed: every seed is tested on every video. So each of
10,000 draws takes S_v of the seeds of v, S_b of those of b and N of the videos, each with replacement and independently
of the others (the product bootstrap: Owen and Eckles, Bootstrapping data arrays of arbitrary order, 2012), and the
interval is from the 2.5 % to the 97.5 % quantile of D over the draws. Each draw takes a video for both runs, all seeds
and all streams at once, which is what "paired" means. Seeds are not paired: one seed of two runs shares the order of
the batches, but not what is learnt from them.

Of n things the bootstrap's variance is (n - 1) / n of an unbiased estimate's, which for 3 seeds is a third too little.
So a thing that was drawn c times weighs 1 + sqrt(n / (n - 1)) (c - 1) in place of c. In the simulation of the tests (3
and 5 seeds whose accuracies differ) the intervals then hold the truth in 88 to 99 % of the cases; with quantiles of so
few seeds it cannot be exact. One seed says nothing about others: then the interval covers the videos alone.

Where videos come in `groups`, such as clips cut from one recording, groups are drawn in place of videos. Several test
sets, such as the folds of a cross-validation, are joined: N counts the videos of all of them, seeds are drawn for each
set, as they are trainings of its own, and videos or groups from all sets together. Without groups videos are taken as
independent, which clips of one recording are not.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ccs.scores import STREAMS, Scores, Stream, hits
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


def compare(variant: Seeds, baseline: Seeds) -> Mapping[Stream, Difference]:
    """The difference of two runs, each given by its seeds, with its interval, for RGB, flow and RGB+Flow.

    The numbers of seeds may differ. Raises `CcsError` where a seed has other test videos or labels than the others.
    """
    return compare_folds([variant], [baseline])


def compare_folds(
    variant: Sequence[Seeds], baseline: Sequence[Seeds], groups: Mapping[str, str] | None = None
) -> Mapping[Stream, Difference]:
    """`compare` over several test sets: for each the seeds that were trained for it, in the same order in both runs.

    groups: the group of each video, by its id; without them each video is drawn on its own.
    """
    for of_variant, of_baseline in zip(variant, baseline, strict=True):
        _check_same_videos([*of_baseline, *of_variant])
    return _difference([(1, variant), (-1, baseline)], groups)


def accuracy_interval(folds: Sequence[Seeds], groups: Mapping[str, str] | None = None) -> Mapping[Stream, Difference]:
    """One run's mean accuracy over all videos of its test sets in percent, with its interval; as `compare_folds`."""
    for seeds in folds:
        _check_same_videos(seeds)
    return _difference([(1, folds)], groups)


def _difference(
    runs: Sequence[tuple[int, Sequence[Seeds]]], groups: Mapping[str, str] | None
) -> Mapping[Stream, Difference]:
    """Runs with their sign, summed."""
    unit_of, num_units = _units(runs[0][1], groups)
    rng = np.random.default_rng(_SEED)
    batch = max(1, _BATCH_CELLS // num_units)
    sizes = np.bincount(unit_of, minlength=num_units).astype(float)
    parts = [_Part(sign, seeds, number, unit_of, num_units) for sign, folds in runs for number, seeds in _placed(folds)]
    drawn = []
    for start in range(0, NUM_RESAMPLES, batch):
        weights_DU = _weights(rng, min(batch, NUM_RESAMPLES - start), num_units)
        total_D = weights_DU @ sizes
        drawn.append(sum(part.draw(weights_DU) for part in parts) / total_D)
    low_S, high_S = np.quantile(np.concatenate(drawn, axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    mean_S = sum(part.sum() for part in parts) / sizes.sum()
    least = -100.0 if len(runs) > 1 else 0.0
    ends_Sx = np.clip(100 * np.stack([low_S, high_S], axis=1), least, 100.0)
    return {
        stream: Difference(float(mean), *(float(end) for end in ends))
        for stream, mean, ends in zip(STREAMS, 100 * mean_S, np.round(ends_Sx, 9), strict=True)
    }


def _placed(folds: Sequence[Seeds]) -> list[tuple[int, Seeds]]:
    """Each test set's seeds with the place of its first video among the videos of all sets."""
    starts = np.cumsum([0, *(len(seeds[0].video) for seeds in folds)])
    return [(int(start), seeds) for start, seeds in zip(starts, folds, strict=False)]


class _Part:
    """One run's seeds on one test set: how many videos each gets right in each unit."""

    def __init__(self, sign: int, seeds: Seeds, start: int, unit_of: np.ndarray, num_units: int) -> None:
        units = unit_of[start : start + len(seeds[0].video)]
        self.sign = sign
        self.right_SsU = np.array(  # streams, seeds, units
            [[np.bincount(units, hits(scores, stream), minlength=num_units) for scores in seeds] for stream in STREAMS]
        )
        # of its own, of this test set alone, and the same whichever run is compared with it
        name = f"{seeds[0].run} {start} {[scores.seed for scores in seeds]}"
        self.rng = np.random.default_rng([_SEED, zlib.crc32(name.encode())])

    def draw(self, weights_DU: np.ndarray) -> np.ndarray:
        """Videos that are right, (streams, draws), by units' weights and a draw of the seeds."""
        num_seeds = self.right_SsU.shape[1]
        weights_Ds = _weights(self.rng, len(weights_DU), num_seeds) / num_seeds
        return self.sign * np.einsum("ds,xsd->xd", weights_Ds, self.right_SsU @ weights_DU.T)

    def sum(self) -> np.ndarray:
        """Videos that are right, (streams), by all seeds' mean."""
        return self.sign * self.right_SsU.mean(axis=1).sum(axis=1)


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


def _check_same_videos(seeds: Seeds) -> None:
    first = seeds[0]
    for scores in seeds[1:]:
        for what, same in (
            ("test videos", scores.video == first.video),
            ("labels", np.array_equal(scores.label, first.label)),
        ):
            if not same:
                raise CcsError(
                    f"run {scores.run!r}, seed {scores.seed}, on {scores.dataset!r} split {scores.split}: expected the "
                    f"{what} of run {first.run!r}, seed {first.seed}, found others, so that no video can be paired; "
                    "evaluate the older one again"
                )
