from __future__ import annotations

import random
from collections import Counter

import pytest

from ccs.datasets.holdout import folds, hold_out


def singles(num: int, label: int = 0) -> list[tuple[str, int]]:
    return [(f"{label}/{i}", label) for i in range(num)]


@pytest.mark.parametrize(
    ("num", "fraction", "held"), [(100, 0.1, 10), (7, 0.3, 2), (1, 0.9, 0), (3, 1.0, 2), (9, 0, 0)]
)
def test_the_share_is_right_and_something_always_stays(num, fraction, held):
    assert len(hold_out(singles(num), fraction, 0)) == held


def test_at_least_one_of_a_class_of_several():
    videos = singles(2, 0) + singles(1, 1) + singles(50, 2)
    assert Counter(group[0] for group in hold_out(videos, 0.02, 0, at_least=1)) == {"0": 1, "2": 1}


def test_order_does_not_matter_and_the_seed_does():
    videos = singles(50)
    held = hold_out(videos, 0.2, 1)
    assert hold_out(random.Random(0).sample(videos, 50), 0.2, 1) == held
    assert hold_out(videos, 0.2, 2) != held


def test_one_more_video_moves_one_other_at_most():
    rng = random.Random(0)
    for trial in range(200):
        videos = singles(rng.randrange(2, 60))
        fraction = rng.uniform(0.05, 0.6)
        before, after = hold_out(videos, fraction, trial), hold_out([*videos, ("new", 0)], fraction, trial)
        assert len((before ^ after) - {"new"}) <= 1


def test_groups_that_span_classes_are_whole_and_each_class_has_its_share():
    rng = random.Random(1)
    videos = [(f"film{rng.randrange(400)}", label) for label in range(10) for _ in range(200)]
    held = hold_out(videos, 0.15, 0)
    counts = Counter(label for group, label in videos if group in held)
    assert all(22 <= counts[label] <= 38 for label in range(10)), counts


def test_folds_take_each_group_once_and_every_class_alike():
    rng = random.Random(2)
    films = [
        (f"film{i}", label) for i in range(60) for label in rng.sample(range(5), 3) for _ in range(rng.choice((1, 4)))
    ]
    of = folds(films, 5, 0)
    assert set(of) == {film for film, _ in films}
    assert folds(rng.sample(films, len(films)), 5, 0) == of != folds(films, 5, 1)
    for label in range(5):
        counts = Counter(of[film] for film, each in films if each == label)
        share = sum(counts.values()) / 5
        assert all(abs(counts[fold] - share) <= 4 for fold in range(1, 6)), (label, counts)  # a group is at most 4


def test_folds_of_videos_without_groups_are_equal():
    for num in (5, 7, 23):
        counts = Counter(folds(singles(num), 5, 0).values())
        assert {*counts.values()} <= {num // 5, num // 5 + 1}
        assert len(counts) == 5
