"""Sampling against slow loops and counts."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from ccs.clips.sampling import BalancedBatches, frame_indices, pair_indices, segment_starts
from ccs.models.snippet import Snippet


@pytest.mark.parametrize("num_frames", [2, 3, 6, 7, 9, 30, 251])
@pytest.mark.parametrize(("segments", "flow_length"), [(3, 5), (8, 5), (25, 5), (1, 1), (3, 10)])
def test_test_time_snippets_are_segment_centres(num_frames, segments, flow_length):
    """By the definition: the possible starts in K equal parts, and of each part the one at its middle."""
    possible = [t for t in range(num_frames - 1) if t + flow_length <= num_frames - 1] or [0]
    starts = segment_starts(num_frames, segments=segments, snippet=Snippet(flow_length))
    for k, start in enumerate(starts):
        middle = (2 * k + 1) * len(possible) / (2 * segments)
        assert start == possible[int(middle)]


def test_training_snippets_cover_their_segment_evenly_and_nothing_else():
    rng = np.random.default_rng(0)
    starts = np.array([segment_starts(35, segments=3, snippet=Snippet(5), rng=rng) for _ in range(6000)])
    assert [(int(c.min()), int(c.max())) for c in starts.T] == [(0, 9), (10, 19), (20, 29)]  # 30 starts, 10 a segment
    counts = np.array([np.bincount(c - c.min(), minlength=10) for c in starts.T])
    chi_squared = ((counts - 600) ** 2 / 600).sum(axis=1)
    assert (chi_squared < 27.9).all()  # 99.9 % quantile at 9 degrees of freedom


@pytest.mark.parametrize("num_frames", [2, 4, 6, 20])
def test_flow_pairs_surround_the_frame_and_stay_inside(num_frames):
    starts = segment_starts(num_frames, segments=4, snippet=Snippet(5))
    frames = frame_indices(starts, snippet=Snippet(5), num_frames=num_frames)
    for start, frame, pairs in zip(
        starts, frames, pair_indices(starts, snippet=Snippet(5), num_frames=num_frames), strict=True
    ):
        assert list(frame) == [min(pairs[0] + 2, num_frames - 1)]  # pairs t-2 .. t+2 around frame t
        assert pairs.min() >= 0
        assert pairs.max() <= num_frames - 2
        if num_frames >= 6:
            assert list(pairs) == list(range(start, start + 5))
        else:
            assert list(pairs) == [min(start + i, num_frames - 2) for i in range(5)]  # the last pair repeats


@pytest.mark.parametrize("num_frames", [2, 4, 11, 20])
def test_3d_backbones_see_a_frame_for_each_pair(num_frames):
    snippet = Snippet(10, all_frames=True)
    starts = segment_starts(num_frames, segments=3, snippet=snippet)
    frames = frame_indices(starts, snippet=snippet, num_frames=num_frames)
    for start, found in zip(starts, frames, strict=True):
        assert list(found) == [min(start + i, num_frames - 1) for i in range(10)]  # the last frame repeats


def test_frames_and_pairs_tell_nothing_of_the_direction_of_time():
    """Played backwards, a video gives nearly the same frames: at most one frame off the middle on average."""
    rng = np.random.default_rng(0)
    starts = np.concatenate([segment_starts(16, segments=3, snippet=Snippet(5), rng=rng) for _ in range(2000)])
    assert abs(frame_indices(starts, snippet=Snippet(5), num_frames=16).mean() - 7.5) <= 1
    assert abs(pair_indices(starts, snippet=Snippet(5), num_frames=16).mean() - 7) <= 1


def test_batches_are_balanced_and_complete():
    labels = [c for c, n in enumerate([9, 5, 7, 2, 6, 8, 7, 9, 4, 3]) for _ in range(n)]
    batches = BalancedBatches(labels, batch_classes=4, batch_videos=3, seed=1)
    assert len(list(batches.epoch(0))) == len(batches) == 5  # ceil(60 / 12)
    epochs = []
    for epoch in range(40):
        epochs.append(list(batches.epoch(epoch)))
    for batch in itertools.chain(*epochs):
        assert sorted(Counter(labels[index] for index, _, _ in batch).values()) == [3] * 4
    per_class = Counter(labels[index] for batch in itertools.chain(*epochs) for index, _, _ in batch)
    assert max(per_class.values()) - min(per_class.values()) <= 40 * 3  # a round more or less in each epoch
    for epoch, (epoch_batches) in enumerate(epochs):
        keys = [key for batch in epoch_batches for key in batch]
        assert len(set(keys)) == len(keys)  # a video drawn twice gets another crop
        assert {e for _, e, _ in keys} == {epoch}
        uses = Counter(index for index, _, _ in keys)
        for c in set(labels):  # no video twice before the others of its class once
            counts = [uses[i] for i, label in enumerate(labels) if label == c]
            assert max(counts) - min(counts) <= 1


def test_batches_are_a_function_of_seed_and_epoch():
    def draw(seed: int, epoch: int) -> list:
        batches = BalancedBatches([0, 0, 1, 1, 2, 2] * 5, batch_classes=2, batch_videos=2, seed=seed)
        return list(batches.epoch(epoch))

    assert draw(0, 3) == draw(0, 3)
    assert draw(0, 3) != draw(0, 4)
    assert draw(0, 3) != draw(1, 3)


@pytest.mark.parametrize(
    ("classes", "videos", "of_each"),
    [
        (2, 40, 16),  # N x M = 32, as with 8 classes
        (3, 40, 10),  # not more than N x M
        (8, 40, 4),
        (9, 40, 4),
        (2, 6, 6),  # all of them, each once
    ],
)
def test_fewer_classes_give_more_videos_each_so_that_batches_keep_their_size(classes, videos, of_each):
    batches = BalancedBatches(
        [c for c in range(classes) for _ in range(videos)], batch_classes=8, batch_videos=4, seed=0
    )
    assert batches.batch_size == min(classes, 8) * of_each
    for batch in batches.epoch(0):
        assert set(Counter(index // videos for index, _, _ in batch).values()) == {of_each}
        assert len({index for index, _, _ in batch}) == len(batch) or len(batches) > 1


def test_a_small_class_beside_a_large_one_repeats_its_videos_to_have_as_many():
    batches = BalancedBatches([0] * 40 + [1] * 4, batch_classes=8, batch_videos=4, seed=0)
    for batch in batches.epoch(0):
        assert Counter(index for index, _, _ in batch if index >= 40) == dict.fromkeys(range(40, 44), 4)
        assert len(batch) == 32


def test_fewer_classes_or_videos_than_asked():
    batches = BalancedBatches([0, 1, 1], batch_classes=8, batch_videos=4, seed=0)
    (batch,) = batches.epoch(0)
    assert Counter(index for index, _, _ in batch) == {0: 4, 1: 2, 2: 2}
