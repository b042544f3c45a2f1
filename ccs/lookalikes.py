"""Test videos that look like a training video: training shards in, the dataset's lookalikes.csv and a warning out.

    python -m ccs.lookalikes --manifest data/D/manifest.csv --splits 1 2 --shards data/D/shards/*.h5 \
        --output data/D/lookalikes.csv

Clips cut from one recording show the same people in the same place. Where one of them is for training and another for
testing, a network may know the recording and nothing of the action, and its accuracy says little of new videos: it is
too high where the two are of one class, and too low where they are of different ones. So each
video is put down as a mean picture, grey and of `WIDTH` x `HEIGHT` pixels, and each test video is compared with all
training videos of its split by their correlation. Where that is above `ALIKE` the two may well be of one recording, or
of one camera that stands still; which, only a person can tell. So nothing fails, and no result changes.

The table has a row for each such test video, with the training video that is most like it: split, video, train_video,
correlation.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ccs.datasets import manifests
from ccs.settings import Flags
from ccs.shards.reader import ShardReader
from ccs.stage import atomic, progress, run

COLUMNS = ("split", "video", "train_video", "correlation")
ALIKE = 0.9
WIDTH, HEIGHT = 16, 12
NUM_FRAMES = 4  # of a video, evenly spread
BLOCK = 1024  # test videos compared at a time


class Pair(NamedTuple):
    """A test video and the training video that is most like it."""

    video: str
    train_video: str
    correlation: float


def pictures(reader: ShardReader) -> Iterator[tuple[str, np.ndarray]]:
    """The id and the mean picture, float32 (HEIGHT, WIDTH) in 0..255, of each video.

    Raises `CcsError` where a shard is damaged.
    """
    for video, num_frames in reader.num_frames.items():
        chosen = ((np.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES * num_frames).astype(int)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in reader.frames(video, chosen.tolist())]
        small = [cv2.resize(each, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for each in grey]
        yield video, np.stack(small).mean(axis=0, dtype=np.float32)


def most_alike(of: Mapping[str, np.ndarray], test: Sequence[str], train: Sequence[str]) -> list[Pair]:
    """Each test video whose most similar training video correlates by more than `ALIKE`, by id; `of`: the pictures."""
    if not train:
        return []
    normed_train, normed_test = _normed(of, train), _normed(of, test)
    found = []
    for first in range(0, len(test), BLOCK):
        correlations = normed_test[first : first + BLOCK] @ normed_train.T
        best = correlations.argmax(axis=1)
        highest = correlations[np.arange(len(best)), best]
        found += [
            Pair(test[first + i], train[best[i]], float(highest[i])) for i in np.flatnonzero(highest > ALIKE).tolist()
        ]
    return sorted(found)


def _normed(of: Mapping[str, np.ndarray], videos: Sequence[str]) -> np.ndarray:
    """float32 (N, pixels) without mean and of length 1; 0 for a picture of one grey, which is like none."""
    flat = np.array([of[video].ravel() for video in videos], np.float32).reshape(len(videos), WIDTH * HEIGHT)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > 1)


def warning(dataset: str, split: int, num_test: int, found: Sequence[Pair], table: str) -> str:
    """What a person should know and can do."""
    first = max(found, key=lambda pair: pair.correlation)
    return (
        f"ccs: warning: {dataset}, split {split}: {len(found)} of {num_test} test videos look like a training video "
        f"({len(found) / num_test:.0%}; correlation above {ALIKE:g}), such as {first.video} like {first.train_video} "
        f"({first.correlation:.2f}); {table} has all. If such clips show the same recording or person, a network may "
        "know it again: the accuracy is then too high where it does the same in training, and too low where it does "
        f"something else. Set datasets.{dataset}.group to what their names have in common, which keeps them on one "
        "side. If one camera just saw different people, all is well"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's docstring. Raises `CcsError`."""
    parser = Flags(prog="ccs lookalikes", description=__doc__.split("\n\n")[0])
    parser.add_argument("--manifest", required=True, help="the dataset's manifest.csv")
    parser.add_argument("--splits", required=True, nargs="+", type=int, help="splits of the manifest")
    parser.add_argument("--shards", required=True, nargs="+", metavar="FILE.h5", help="its training shards")
    parser.add_argument("--output", required=True, metavar="FILE.csv", help="the table to write")
    args = parser.parse_args(argv)
    reader = ShardReader(args.shards)
    of = dict(progress(pictures(reader), total=len(reader.num_frames), desc="lookalikes", unit="video"))
    with atomic(args.output) as part, open(part, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for split in args.splits:
            manifest = manifests.read(args.manifest, split)
            sides = {  # without quarantined videos
                part: [video.video for video in manifest.videos if video.split == part and video.video in of]
                for part in ("test", "train")
            }
            if found := most_alike(of, sides["test"], sides["train"]):
                table.writerows([split, *pair[:2], f"{pair.correlation:.3f}"] for pair in found)
                print(warning(manifest.dataset, split, len(sides["test"]), found, args.output), flush=True)


if __name__ == "__main__":
    run(main)
