"""Quarantine: the bad videos of every shard in, the dataset's quarantine.csv out; too many of them end the run.

    python -m ccs.quarantine --manifest data/D/manifest.csv --parts data/D/frames/*.quarantine.csv \
        --max-bad-fraction 0.01 --output data/D/quarantine.csv

Both sides have the columns video, path, stage (which found it bad) and reason. Evaluation counts a quarantined test
video as an error, so a dataset that silently lost videos would silently change what its accuracy means.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from ccs.datasets import bad_videos, manifests
from ccs.datasets.bad_videos import Bad
from ccs.settings import Flags, Ge, Le, Number, add_settings, settings, settings_from
from ccs.stage import CcsError, atomic, run


@settings
class QuarantineSettings:
    """How many videos may be lost."""

    max_bad_fraction: Annotated[Number, Ge(0), Le(1)] = 0.01
    """share of a data set's videos that may be set aside as unreadable before the run stops"""


def check(bad: Sequence[Bad], num_videos: int, max_bad_fraction: float, where: str) -> None:
    """Raise `CcsError` where more than `max_bad_fraction` (0 to 1) of `num_videos` are bad."""
    if len(bad) <= max_bad_fraction * num_videos + 1e-9:  # 0.29 * 100 is a little less than 29
        return
    first = "\n".join(f"  {video.path} ({video.stage}): {video.reason}" for video in bad[:5])
    raise CcsError(
        f"{where}: {len(bad)} of {num_videos} videos are bad, a share of {len(bad) / num_videos:.3g}; "
        f"max_bad_fraction allows {max_bad_fraction:g}. The first:\n{first}\n"
        "Repair, replace or remove these files (and their lines in the lists), or raise max_bad_fraction in the "
        "configuration; bad videos of the test split count as errors"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's docstring. Raises `CcsError`."""
    parser = Flags(prog="ccs quarantine", description=__doc__.split("\n\n")[0])
    parser.add_argument("--manifest", required=True, help="the dataset's manifest.csv")
    parser.add_argument("--parts", required=True, nargs="*", help="the shards' quarantine tables")
    add_settings(parser, QuarantineSettings)
    parser.add_argument("--output", required=True, help="the dataset's quarantine.csv, sorted by id")
    args = parser.parse_args(argv)
    allowed = settings_from(args, QuarantineSettings).max_bad_fraction
    known = manifests.read_ids(args.manifest)
    bad: dict[str, Bad] = {}
    for part in args.parts:
        for found in bad_videos.read(part, remedy="run the shard's frames stage again"):
            if found.video not in known:
                raise CcsError(
                    f"{part}: {found.video} is not in {args.manifest}: the manifest has changed since; run the shard's "
                    "frames stage again"
                )
            bad.setdefault(found.video, found)
    ordered = [bad[video] for video in sorted(bad)]
    for video in ordered:
        print(f"ccs: quarantine: {video.video} ({video.path}), {video.stage}: {video.reason}", file=sys.stderr)
    check(ordered, len(known), allowed, args.output)
    with atomic(args.output) as path:
        bad_videos.write(path, ordered)
    print(f"ccs: quarantine: {len(ordered)} of {len(known)} videos are bad", file=sys.stderr)


if __name__ == "__main__":
    run(main)
