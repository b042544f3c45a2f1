"""Score the test videos of a split with a trained network: checkpoint and shards in, scores.h5 out; rule `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

from ccs import scores
from ccs.datasets import manifests
from ccs.evaluate.scoring import check_same_task, evaluate
from ccs.settings import Flags, add_settings, settings_from
from ccs.shards.reader import ShardReader
from ccs.stage import CcsError, run
from ccs.train import checkpoint
from ccs.train.settings import EvaluateSettings


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = Flags(prog="ccs evaluate", description="Score a split's test videos with a checkpoint.")
    parser.add_argument("--checkpoint", required=True, help="checkpoint.pt of ccs train")
    parser.add_argument("--manifest", required=True, help="manifest.csv of the dataset that it was trained on")
    parser.add_argument("--split", type=int, default=1, help="split of the manifest (default: 1)")
    parser.add_argument("--shards", nargs="+", required=True, help="training shards (.h5)")
    parser.add_argument("--quarantine", required=True, help="quarantine.csv: bad videos, which count as errors")
    parser.add_argument(
        "--part",
        choices=("test", "unlabelled"),
        default="test",
        help="test videos, or those whose labels are not public (default: test)",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that load clips; they change no result")
    parser.add_argument("--output", required=True, help="output: scores.h5")
    add_settings(parser, EvaluateSettings)
    args = parser.parse_args(argv)
    if args.workers < 0:
        raise CcsError(f"--workers: expected 0 or more, found {args.workers}")
    manifest = manifests.read(args.manifest, args.split)
    reader = ShardReader(args.shards)
    state = checkpoint.read(args.checkpoint)
    check_same_task(state, manifest, args.split, reader.bound, path=args.checkpoint)
    result = evaluate(
        state,
        manifest,
        reader,
        settings_from(args, EvaluateSettings),
        quarantine=args.quarantine,
        part=args.part,
        workers=args.workers,
    )
    scores.write(args.output, result)


if __name__ == "__main__":
    run(main)
