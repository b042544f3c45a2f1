"""How often the 95 % intervals of `ccs.tables.significance` hold the truth, on made-up trainings.

    python benchmarks/intervals.py [--repeats 1000] [--groups 9]

Videos differ in difficulty, a little more for one run than for the other; seeds of a run differ in accuracy, by 0, 2 or
6 points of standard deviation around one truth; whether one seed gets one video right is a throw of the dice beyond
that. New videos and seeds are thrown for each interval. The truth is that of all seeds and videos there could be. With
--groups videos come in so many, which differ by 10 points for either run, and are drawn by them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from ccs.scores import Scores
from ccs.tables import significance

SPREADS = (0.0, 0.02, 0.06)


def main() -> None:
    """Print a Markdown table of coverages and mean widths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="intervals for each number (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=1000, help="draws for each interval (default: %(default)s)")
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 400], help="(default: %(default)s)")
    parser.add_argument("--groups", type=int, help="of videos (default: each is on its own)")
    args = parser.parse_args()
    significance.NUM_RESAMPLES = args.draws
    print("| seeds | videos | gain |" + "".join(f" seeds ± {100 * spread:g} |" for spread in SPREADS))
    print("|---|---|---|" + "---|" * len(SPREADS), flush=True)
    for num_seeds in (1, 2, 3, 5):
        for num_videos in args.videos:
            for gain in (0.0, 0.15):
                cells = [coverage(num_seeds, num_videos, gain, spread, args.groups, args.repeats) for spread in SPREADS]
                print(f"| {num_seeds} | {num_videos} | {100 * gain:g} | {' | '.join(cells)} |", flush=True)


def coverage(num_seeds: int, num_videos: int, gain: float, spread: float, num_groups: int | None, repeats: int) -> str:
    """The share of intervals that hold the truth, and how wide they are in points, in the mean."""
    found = np.array(list(intervals(num_seeds, num_videos, gain, spread, num_groups, repeats)))
    held = (found[:, 0] <= 100 * gain) & (100 * gain <= found[:, 1])
    return f"{100 * held.mean():.1f} % ({np.mean(found[:, 1] - found[:, 0]):.1f})"


def intervals(
    num_seeds: int, num_videos: int, gain: float, spread: float, num_groups: int | None, repeats: int
) -> Iterator[tuple[float, float]]:
    """Both ends of an interval for each repeat."""
    rng = np.random.default_rng([num_seeds, num_videos, round(1000 * gain), round(1000 * spread)])
    of_group_N = np.arange(num_videos) % (num_groups or num_videos)
    groups = {str(i): str(group) for i, group in enumerate(of_group_N)}
    for repeat in range(repeats):
        difficulty_N = rng.uniform(-0.3, 0.3, num_videos)  # probabilities stay within 0.05 and 0.95, the dice aside
        runs = []
        for run, mean in (("variant", 0.5 + gain / 2), ("baseline", 0.5 - gain / 2)):
            of_run_N = difficulty_N + rng.uniform(-0.075, 0.075, num_videos)
            if num_groups:
                of_run_N += rng.normal(0, 0.1, num_groups)[of_group_N]
            right_sN = rng.uniform(size=(num_seeds, num_videos)) < (
                mean + of_run_N + rng.normal(0, spread, (num_seeds, 1))
            )
            runs.append([made_up(right_N, run, num_seeds * repeat + k) for k, right_N in enumerate(right_sN)])
        yield significance.compare_folds(runs[:1], runs[1:], groups)["rgb"][1:]


def made_up(right_N: np.ndarray, run: str, seed: int) -> Scores:
    """Scores of two classes that are right where `right_N` is true."""
    logits = np.stack([right_N, ~right_N], axis=1).astype(np.float32)
    return Scores(
        video=tuple(map(str, range(len(right_N)))),
        label=np.zeros(len(right_N), np.int64),
        rgb=logits,
        flow=logits,
        quarantined=np.zeros(len(right_N), bool),
        dataset="made up",
        split=1,
        run=run,
        seed=seed,
        classes=("right", "wrong"),
        settings={},
        fusion=(1.0, 1.0),
        versions={},
    )


if __name__ == "__main__":
    main()
