"""Which snippets of a video and which videos of a batch: pure functions of a seed, of no file.

Indices: frame t of T, and flow pair t of T - 1 between frames t and t + 1, share the index t. A snippet that starts at
s is the flow pairs s .. s + L - 1 and the RGB frame in their middle, s + L // 2: the flow around the frame (sec. 3.1).
Were it frame s, the last L frames of a video would never be seen, and in a short video what is seen would depend on the
direction of the action: on the demo, frames alone then told raising from lowering.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ccs.models.snippet import Snippet
from ccs.stage import CcsError


def segment_starts(
    num_frames: int, *, segments: int, snippet: Snippet, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Start of one snippet in each of `segments` equal parts of a video (Temporal Segment Networks, sec. 3.1).

    Args:
        num_frames: T, at least 2.
        segments: K.
        snippet: its pairs; a video with fewer has the one start 0.
        rng: draws a position in each segment; None takes the segments' centres, as in testing.

    Returns:
        (K,) int64, ascending, each in 0 .. max(T - 1 - flow_length, 0).
    """
    num_starts = max(num_frames - snippet.flow_length, 1)
    within = np.full(segments, 0.5) if rng is None else rng.random(segments)
    return np.minimum(((np.arange(segments) + within) * num_starts / segments).astype(np.int64), num_starts - 1)


def pair_indices(starts: np.ndarray, *, snippet: Snippet, num_frames: int) -> np.ndarray:
    """The flow pairs (K, flow_length) of snippets that start at `starts`; past the end the last pair repeats."""
    return np.minimum(starts[:, None] + np.arange(snippet.flow_length), num_frames - 2)


def frame_indices(starts: np.ndarray, *, snippet: Snippet, num_frames: int) -> np.ndarray:
    """The RGB frames (K, F) of snippets that start at `starts`; past the end the last frame repeats.

    F is 1, the frame in the middle of the flow pairs, or flow_length: a frame for each pair, with its index.
    """
    offsets = np.arange(snippet.flow_length) if snippet.all_frames else np.array([snippet.flow_length // 2])
    return np.minimum(starts[:, None] + offsets, num_frames - 1)


class BalancedBatches:
    """Batches of `batch_classes` classes with `batch_videos` videos each (sec. 4.1), a function of (seed, epoch).

    Classes come in shuffled rounds, and so do the videos of a class: over an epoch all classes are drawn equally often,
    and no video twice before the others of its class once. An epoch is ceil(videos / batch size) batches.

    Args:
        labels: class of each video.
        batch_classes: N; where there are fewer classes, all of them, with more videos each: as many as N x M has room
            for, and no more than the largest class has.
        batch_videos: M; a class with fewer videos repeats them (with other snippets).
        seed: of the run.
    """

    def __init__(self, labels: Sequence[int], *, batch_classes: int, batch_videos: int, seed: int) -> None:
        self.videos = {c: np.flatnonzero(np.asarray(labels) == c) for c in sorted(set(labels))}
        self.batch_classes = min(batch_classes, len(self.videos))
        room, largest = batch_classes * batch_videos // self.batch_classes, max(map(len, self.videos.values()))
        self.batch_videos = max(batch_videos, min(room, largest))
        self.seed = seed
        self.num_videos = len(labels)

    @property
    def batch_size(self) -> int:
        """Videos of a batch, N x M."""
        return self.batch_classes * self.batch_videos

    def __len__(self) -> int:
        return -(-self.num_videos // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[list[tuple[int, int, int]]]:
        """An epoch's batches: lists of (video index, epoch, draw); `draw` counts the video's uses in the epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        classes = _rounds(list(self.videos), rng)
        videos = {c: _rounds(list(indices), rng) for c, indices in self.videos.items()}
        draws: dict[int, int] = {}
        waiting: list[int] = []
        for _ in range(len(self)):
            batch: list[tuple[int, int, int]] = []
            chosen = [waiting.pop(0) for _ in range(min(len(waiting), self.batch_classes))]
            while len(chosen) < self.batch_classes:
                candidate = next(classes)  # a new round may bring a class that this batch has: the next batch takes it
                (waiting if candidate in chosen else chosen).append(candidate)
            for c in chosen:
                for _ in range(self.batch_videos):
                    index = int(next(videos[c]))
                    draws[index] = draws.get(index, -1) + 1
                    batch.append((index, epoch, draws[index]))
            yield batch


@dataclass
class Course:
    """A rank's part of the batches of all epochs, one after another, for a loader that never stops between epochs.

    Args:
        batches: of the whole training.
        epochs: how many, or at most.
        first: the batch to begin with, counted from the first of the first epoch.
        rank, num_ranks: which part of each batch, of how many; parts are of one size and in the batch's order.

    Raises:
        CcsError: a batch cannot be divided so.
    """

    batches: BalancedBatches
    epochs: int
    first: int = 0
    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if self.batches.batch_size % self.num_ranks:
            raise CcsError(
                f"train.batch_classes x train.batch_videos: expected batches that {self.num_ranks} processes can share "
                f"out evenly, found {self.batches.batch_classes} x {self.batches.batch_videos} (where there are fewer "
                "classes than batch_classes: all of them, with as many videos as there is room for); change them or "
                "the number of GPUs"
            )

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        size = self.batches.batch_size // self.num_ranks
        epoch, skip = divmod(self.first, len(self.batches))
        for number in range(epoch, self.epochs):
            for batch in itertools.islice(self.batches.epoch(number), skip, None):
                yield batch[self.rank * size : (self.rank + 1) * size]
            skip = 0


def _rounds(items: list, rng: np.random.Generator) -> Iterator:
    while True:
        for i in rng.permutation(len(items)):
            yield items[i]
