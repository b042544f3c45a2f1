"""Write a dataset's manifest.csv: `python -m ccs.datasets --dataset NAME --settings JSON --output FILE`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence

from ccs.datasets import manifests
from ccs.datasets.adapters import ADAPTERS, load, splits
from ccs.settings import Flags
from ccs.stage import CcsError, run


def main(argv: Sequence[str] | None = None) -> None:
    """Load every configured split of one dataset and write the manifest; raises `CcsError` for anything amiss."""
    parser = Flags(prog="python -m ccs.datasets", description="Write the manifest of a dataset.")
    parser.add_argument("--dataset", required=True, help="its name in the configuration")
    parser.add_argument(
        "--settings", required=True, help=f"its block of the configuration, as JSON; adapters: {', '.join(ADAPTERS)}"
    )
    parser.add_argument("--output", required=True, help="the CSV file to write")
    args = parser.parse_args(argv)
    try:
        settings = json.loads(args.settings)
    except (ValueError, RecursionError) as error:
        raise CcsError(f"--settings is not JSON ({error}): {args.settings}") from None
    if not isinstance(settings, dict):
        raise CcsError(f"--settings: expected a JSON object, found {args.settings}")
    of_splits = {number: load(args.dataset, settings, number) for number in splits(settings)}
    manifests.write(args.output, of_splits, settings.get("shards", 1))
    for number, manifest in of_splits.items():
        counts = Counter(video.split for video in manifest.videos)
        shares = ", ".join(
            f"{counts[part]} {part}" for part in manifests.SPLITS if part != "unlabelled" or counts[part]
        )
        print(f"{args.dataset}: split {number}: {len(manifest.classes)} classes, {shares}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
