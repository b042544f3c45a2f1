"""Which videos to hold out of training, and folds for cross-validation: by group, by class, by seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable


def hold_out(videos: Iterable[tuple[str, int]], fraction: float, seed: int, at_least: int = 0) -> set[str]:
    """The groups to hold out, given (group, label) of each video: about `fraction` of every class.

    Groups are ranked by a hash of seed and group, whatever their order, and walked in that order; one is taken if
    that brings the numbers of videos held out nearer to `fraction` of every class (in the sum of squares), and no
    class is then left without a video. A group is never divided, even where it spans classes. For a class of several
    groups, `at_least` videos are aimed at however small the fraction.

    One more video moves no other, or those at the edge of its own class: where each video is a group, one at most.
    """
    if not fraction:
        return set()
    sizes: dict[str, dict[int, int]] = defaultdict(dict)
    totals: Counter[int] = Counter()
    num_groups: Counter[int] = Counter()
    for group, label in videos:
        size = sizes[group]
        num_groups[label] += label not in size
        size[label] = size.get(label, 0) + 1
        totals[label] += 1
    targets = {
        label: max(fraction * total, at_least if num_groups[label] > 1 else 0) for label, total in totals.items()
    }
    taken = dict.fromkeys(totals, 0)
    held = set()
    for group in _ranked(sizes, seed):
        gain = 0.0
        for label, num in sizes[group].items():
            if taken[label] + num == totals[label]:
                break
            gain += (taken[label] - targets[label]) ** 2 - (taken[label] + num - targets[label]) ** 2
        else:
            if gain > 0:
                held.add(group)
                for label, num in sizes[group].items():
                    taken[label] += num
    return held


def folds(videos: Iterable[tuple[str, int]], number: int, seed: int) -> dict[str, int]:
    """The fold, 1 to `number`, of each group, given (group, label) of each video: every class alike in all, about.

    The largest groups come first, those of one size by a hash of seed and group; each goes to the fold that then is
    nearest to its share of every class (in the sum of squares), of several to the one of fewest videos. A group is
    never divided; where there are fewer groups than folds, some folds are empty.
    """
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for group, label in videos:
        sizes[group][label] += 1
    filled = [Counter[int]() for _ in range(number)]
    found = {}
    for group in sorted(_ranked(sizes, seed), key=lambda group: -sizes[group].total()):
        # what is added to the squares of the folds' sizes, as the sum of all sizes does not change
        costs = [
            (sum(num * (num + 2 * fold[label]) for label, num in sizes[group].items()), fold.total()) for fold in filled
        ]
        best = costs.index(min(costs))
        filled[best] += sizes[group]
        found[group] = best + 1
    return found


def _ranked(groups: Iterable[str], seed: int) -> list[str]:
    """Groups in the order of a hash of seed and group."""
    return sorted(groups, key=lambda group: hashlib.sha256(f"{seed} {group}".encode(errors="surrogateescape")).digest())
