"""Predictions for videos whose labels are not public, in the form that something-something-v2's server took.

    python -m ccs.submission --scores unlabelled.h5 --output predictions.csv

A line per video, without a header: its id and the labels (numbers of labels.json) of the five highest RGB+Flow scores,
the highest first, separated by semicolons: 74225;12;3;171;40;0. (The form is that of the files which the code of TSM,
Lin et al. 2019, writes for that server.) Quarantined videos have no scores; their lines say the first five labels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from ccs.scores import Scores, fuse, read
from ccs.settings import Flags
from ccs.stage import CcsError, atomic, run

NUM_LABELS = 5


def lines(scores: Scores) -> list[str]:
    """A line per video, in the order of the scores; equal scores by rising label."""
    fused = np.where(np.isnan(fuse(scores)), -np.inf, fuse(scores))
    best = np.argsort(-fused, axis=1, kind="stable")[:, :NUM_LABELS]
    return [";".join([video, *map(str, labels)]) for video, labels in zip(scores.video, best, strict=True)]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file of one run."""
    parser = Flags(prog="ccs submission", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scores", required=True, help="scores of `ccs evaluate --part unlabelled`")
    parser.add_argument("--output", required=True, help="the file for the server")
    args = parser.parse_args(argv)
    scores = read(args.scores)
    if len(scores.classes) < NUM_LABELS:
        raise CcsError(f"{args.scores}: expected {NUM_LABELS} classes or more, found {len(scores.classes)}")
    with atomic(args.output) as part:
        part.write_text("".join(f"{line}\n" for line in lines(scores)))
    count = int(scores.quarantined.sum())
    print(f"ccs: wrote {len(scores.video)} predictions, {count} of them for quarantined videos", file=sys.stderr)


if __name__ == "__main__":
    run(main)
