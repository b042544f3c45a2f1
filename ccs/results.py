"""What a run got right: its accuracy, that of each class, and the verdicts on each test video, as CSV.

    ccs results results/runs/demo/split1/ccs                 # accuracy.csv, classes.csv, videos.csv beside its seeds
    ccs results results/runs/demo/split1/ccs/seed0 --output DIR
    ccs results results/runs/demo/split1/ccs --mistakes mistakes.html     # a page of `ccs.mistakes`, too

accuracy.csv, rows of each seed and of the mean over them: seed, over, and rgb, flow and fused, the percentage that each
stream alone and both together have right, over "all videos" and as the "mean of classes", in which each class counts
alike, however many test videos it has. classes.csv, a row a class: class, videos (test videos of it), and the same
three of them, mean over the seeds. videos.csv, a row a seed and video: seed, video, label, quarantined (yes or no), and
for each of rgb, flow and fused its best class, the probability that it gives to it and to the label (softmax of the
logits). A quarantined video counts as an error; so its row has no verdicts. Labels that are not public are empty.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ccs import mistakes, scores
from ccs.scores import STREAMS, Scores
from ccs.settings import Flags, check_counts
from ccs.shards.reader import ShardReader
from ccs.stage import CcsError, atomic, run

METRICS = {"all videos": scores.accuracy, "mean of classes": scores.mean_class_accuracy}
ACCURACY = ("seed", "over", *STREAMS)
CLASSES = ("class", "videos", *STREAMS)
_VERDICT = ("", "_probability", "_probability_of_label")
VIDEOS = ("seed", "video", "label", "quarantined", *(stream + part for stream in STREAMS for part in _VERDICT))


def main(argv: Sequence[str] | None = None) -> None:
    """Write the tables and print the accuracies; raises `CcsError` where there are no scores, or not of one run."""
    parser = Flags(
        prog="ccs results", description="What a run got right: accuracy of each class, verdicts on each video."
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, of one of its seeds, or a scores.h5")
    parser.add_argument("-o", "--output", metavar="DIR", help="where the tables go (default: RUN)")
    parser.add_argument(
        "--mistakes", metavar="FILE.html", help="also write a page of the surest mistakes, with frames and flow"
    )
    parser.add_argument("--number", type=int, metavar="N", help=f"of them (default: {mistakes.NUMBER})")
    parser.add_argument(
        "--shards",
        nargs="+",
        metavar="H5",
        help="training shards with the pictures (default: data/DATASET/shards/*.h5 of the run's project)",
    )
    args = parser.parse_args(argv)
    if not args.mistakes and (args.shards or args.number is not None):
        raise CcsError("--number and --shards are about the page of mistakes: add --mistakes FILE.html")
    check_counts(args, "number")
    found = of_run(Path(args.run))
    output = Path(args.output or (args.run if Path(args.run).is_dir() else Path(args.run).parent))
    labelled = all((np.asarray(each.label) >= 0).all() for each in found)
    tables = {"videos.csv": [VIDEOS, *(row for each in found for row in videos(each))]}
    if labelled:
        tables["classes.csv"] = [CLASSES, *classes(found)]
        tables["accuracy.csv"] = [ACCURACY, *accuracies(found)]
    for name, rows in tables.items():
        with atomic(output / name) as part, open(part, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    print(f"ccs: wrote {', '.join(str(output / name) for name in tables)}", file=sys.stderr)
    if labelled:
        print(report(found))
    if args.mistakes:
        shards = args.shards or shards_of(Path(args.run), found[0].dataset)
        mistakes.write(args.mistakes, found, ShardReader(shards), args.number or mistakes.NUMBER)


def of_run(path: Path) -> list[Scores]:
    """The scores of all seeds at `path`, a file, a seed's folder or a run's; `CcsError` where there are none."""
    files = [path] if path.is_file() else scores.files_of_run(path, "scores.h5")
    if not files:
        raise CcsError(
            f"{path}: expected the folder of a run, such as results/runs/demo/split1/ccs, or of a seed of it, found "
            f"{'no scores.h5 in it' if path.is_dir() else 'nothing there'}: correct the path, or evaluate the run first"
        )
    found = [scores.read(file) for file in files]
    scores.check_same_videos(found)
    return found


def shards_of(path: Path, dataset: str) -> list[Path]:
    """The training shards of a data set in the project that a run is in; `CcsError` where there are none."""
    folders = [folder / "data" / dataset / "shards" for folder in path.resolve().parents]
    found = next((shards for folder in folders if (shards := sorted(folder.glob("*.h5")))), None)
    if found is None:
        raise CcsError(
            f"{path}: expected the training shards data/{dataset}/shards/*.h5 in a folder above it, found none: name "
            "them with --shards, or make them first"
        )
    return found


def accuracies(found: Sequence[Scores]) -> Iterator[tuple[str, ...]]:
    """Rows of accuracy.csv: each seed's by each of `METRICS`, then their means over the seeds."""
    values = np.array([[[metric(each, s) for s in STREAMS] for metric in METRICS.values()] for each in found])
    seeds = [*(str(each.seed) for each in found), "mean"]
    for seed, of_seed in zip(seeds, [*values, values.mean(axis=0)], strict=True):
        for title, row in zip(METRICS, of_seed, strict=True):
            yield seed, title, *(f"{share:.2f}" for share in row)


def classes(found: Sequence[Scores]) -> Iterator[tuple[object, ...]]:
    """Rows of classes.csv, in the order of the labels; of a class without test videos no accuracy."""
    label, sizes = np.asarray(found[0].label), scores.class_sizes(found[0])
    right = {stream: np.mean([scores.hits(each, stream) for each in found], axis=0) for stream in STREAMS}
    for number, name in enumerate(found[0].classes):
        shares = (f"{100 * right[stream][label == number].mean():.2f}" if sizes[number] else "" for stream in STREAMS)
        yield name, int(sizes[number]), *shares


def videos(of_seed: Scores) -> Iterator[tuple[object, ...]]:
    """Rows of videos.csv of one seed, in the order of the scores; equal logits by class, as everywhere."""
    probability = {stream: scores.softmax(scores.logits(of_seed, stream)) for stream in STREAMS}
    for index, (video, label, bad) in enumerate(zip(of_seed.video, of_seed.label, of_seed.quarantined, strict=True)):
        cells: list[object] = []
        for stream in STREAMS:
            row = probability[stream][index]
            best = int(np.argmax(scores.logits(of_seed, stream)[index]))
            of_label = f"{row[label]:.6f}" if label >= 0 else ""
            cells += ["", "", ""] if bad else [of_seed.classes[best], f"{row[best]:.6f}", of_label]
        yield of_seed.seed, video, of_seed.classes[label] if label >= 0 else "", "yes" if bad else "no", *cells


def report(found: Sequence[Scores]) -> str:
    """The classes, those that are told worst first, and the mean over classes beside that over videos."""
    rows = sorted(classes(found), key=lambda row: float(str(row[-1] or 101)))
    width = max(map(len, ("class", *METRICS, *found[0].classes)))
    lines = [f"{'class':<{width}}  videos     RGB    Flow  RGB+Flow"]
    lines += [
        f"{name:<{width}}  {number:>6}  {rgb:>6}  {flow:>6}  {fused:>8}" for name, number, rgb, flow, fused in rows
    ]
    numbers = (len(found[0].video), np.count_nonzero(scores.class_sizes(found[0])))
    for number, (_, title, *shares) in zip(numbers, list(accuracies(found))[-len(METRICS) :], strict=True):
        rgb, flow, fused = shares
        lines.append(f"{title:<{width}}  {number:>6}  {rgb:>6}  {flow:>6}  {fused:>8}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
