"""Write a dataset's manifest.csv, or say what is there of one before any work.

python -m ccs.datasets --dataset NAME --settings JSON --output FILE      the workflow's call
ccs datasets ADAPTER --root DIR --lists DIR                              what is missing, by the published lists
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence

from ccs.datasets import manifests
from ccs.datasets.adapters import ADAPTERS, load, splits
from ccs.settings import Flags, add_settings, by_name, nearest, settings_from
from ccs.stage import CcsError, atomic, run

_CHECKED = [name for name in ADAPTERS if name != "demo"]
_SHOWN = 20  # absent videos on the terminal


def main(argv: Sequence[str] | None = None) -> None:
    """Load every configured split of one dataset and write the manifest, or check it; `CcsError` for what is amiss."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given and not given[0].startswith("-"):
        _check(given)
    else:
        _write(given)


def _write(argv: Sequence[str]) -> None:
    """The stage."""
    parser = Flags(
        prog="ccs datasets",
        usage="ccs datasets ADAPTER [flags]\n       ccs datasets --dataset NAME --settings JSON --output FILE",
        description="What is there of a data set and what is missing, by its lists; or, as the workflow's stage, its "
        "manifest. `ccs datasets ADAPTER --help` lists the flags of the first.",
        epilog="\n".join(["adapters:", *(f"  {name:<14}{_first_line(name)}" for name in _CHECKED)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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


def _first_line(adapter: str) -> str:
    """What an adapter says of itself."""
    return (ADAPTERS[adapter].__doc__ or "").splitlines()[0]


def _check(argv: Sequence[str]) -> None:
    """Print how many listed videos are there and which are not; raises `CcsError` where some are not."""
    name, *rest = argv
    if name not in _CHECKED:
        raise CcsError(f"ccs datasets {name}: expected an adapter, found none of this name{nearest(name, _CHECKED)}")
    page = getattr(ADAPTERS[name], "PAGE", None)
    parser = Flags(
        prog=f"ccs datasets {name}",
        description=f"Compare what is there with the lists. {_first_line(name)}",
        epilog=f"Given out at {page}" if page else None,
    )
    add_settings(parser, ADAPTERS[name].Settings)
    parser.add_argument("--missing", metavar="FILE", help="write all that are absent there, a line each")
    args = parser.parse_args(rest)
    settings = by_name(settings_from(args, ADAPTERS[name].Settings))
    allowed = settings.get("max_absent_fraction", 0.0)
    absent: dict[str, None] = {}
    found: set[str] = set()
    try:
        everything = {"max_absent_fraction": 1.0} if "max_absent_fraction" in settings else {}
        for number in splits(settings):
            manifest = load(name, {"adapter": name, **settings, **everything}, number)
            counts = Counter(video.split for video in manifest.videos)
            shares = ", ".join(f"{counts[part]} {part}" for part in manifests.SPLITS if counts[part])
            print(f"{name}: split {number}: {len(manifest.classes)} classes; there are {shares}")
            absent.update(dict.fromkeys(manifest.absent))
            found.update(video.video for video in manifest.videos)
    except CcsError as error:
        raise CcsError(f"{error}{f'. {name} is given out at {page}' if page else ''}") from None
    if args.missing:
        with atomic(args.missing) as part:
            part.write_text("".join(f"{each}\n" for each in absent), encoding="utf-8")
    for each in list(absent)[:_SHOWN]:
        print(f"  absent: {each}")
    if len(absent) > _SHOWN and not args.missing:
        print(f"  and {len(absent) - _SHOWN} more: --missing FILE writes them all")
    if absent and len(absent) > allowed * (len(absent) + len(found)):
        where = f", given out at {page}" if page else ""
        raise CcsError(f"{name}: {len(absent)} of {len(absent) + len(found)} listed videos are absent{where}")
    print(f"{name}: {len(found)} videos are there, {len(absent)} of those in the lists are absent")


if __name__ == "__main__":
    run(main)
