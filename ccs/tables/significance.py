r"""Is a run better than another one by more than the choice of test videos explains? Paired bootstrap over videos.

With h_is(v) in {0, 1} whether seed s of run v gets test video i right (`ccs.scores.hits`), S_v its number of seeds and
N the test videos, quarantined ones included, the difference of a variant v to its baseline b is, in points,

    d_i = 100 * (1 / S_v * sum_s h_is(v)  -  1 / S_b * sum_s h_is(b)),        D = 1 / N * sum_i d_i

so that D is the difference of the two mean accuracies. The interval is from 10,000 draws of N videos with replacement:
the 2.5 % and 97.5 % quantiles of D over the draws (percentile bootstrap: Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13). Each draw takes a video for both runs and all streams at once, which is what "paired" means.

Percentiles and not BCa: for a mean of this many bounded values BCa's correction is smaller than the draws' own error,
and BCa is undefined where all d_i are equal, as for two runs that agree on every video; there percentiles give [D, D].

The interval covers the choice of test videos, given these trained networks. It does not cover the training seeds,
which were not drawn anew, and it takes videos as independent, which clips cut from one recording are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ccs.scores import STREAMS, Scores, Stream, hits
from ccs.stage import CcsError

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 190810136  # fixed: the same scores give the same interval
_BATCH_CELLS = 2_000_000  # resampled values held at a time


class Difference(NamedTuple):
    """Accuracy of a run minus its baseline's and the ends of its 95 % interval, in points."""

    points: float
    low: float
    high: float


def compare(variant: Sequence[Scores], baseline: Sequence[Scores]) -> Mapping[Stream, Difference]:
    """The difference of two runs, each given by its seeds, with its interval, for RGB, flow and RGB+Flow.

    The numbers of seeds may differ. Raises `CcsError` where a seed has other test videos or labels than the others.
    """
    _check_same_videos([*baseline, *variant])
    d_SN = 100 * np.stack([_mean_hits(variant, stream) - _mean_hits(baseline, stream) for stream in STREAMS])
    low_S, high_S = _interval(d_SN)
    rows = zip(STREAMS, d_SN.mean(axis=1), low_S, high_S, strict=True)
    return {stream: Difference(float(mean), float(low), float(high)) for stream, mean, low, high in rows}


def _mean_hits(seeds: Sequence[Scores], stream: Stream) -> np.ndarray:
    """float64 (N): in which share of the seeds each video is right."""
    return np.mean([hits(scores, stream) for scores in seeds], axis=0)


def _interval(d_SN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends, (S) each, for S rows whose columns are drawn together."""
    num_rows, num_videos = d_SN.shape
    if num_videos == 1:  # every draw is that video; scipy wants two
        return d_SN[:, 0], d_SN[:, 0]
    from scipy.stats import bootstrap  # slow to import, and the configuration imports every table

    interval = bootstrap(
        (d_SN,),
        np.mean,
        axis=-1,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=max(1, _BATCH_CELLS // (num_rows * num_videos)),
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return interval.low, interval.high


def _check_same_videos(seeds: Sequence[Scores]) -> None:
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
