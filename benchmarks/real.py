"""Table 3's four variants on small real data sets: cross-validation by group, with intervals over seeds and groups.

    python benchmarks/real.py DIR --weights DIR/weights/mobilenet_v2_features.pth [--folder FOLDER]
    python benchmarks/real.py DIR --weights none --sets weizmann --folds 1 --seeds 0 --runs baseline ccs

DIR has a folder per set with list.csv (path, label, group) and the videos that it names. All goes through the workflow,
with the settings of workflow/configs/folder.yaml: links to the videos by class, named after their groups; frames, flow,
shards; a training and its scores for each fold, seed and run. In a FOLDER that is kept the same command goes on where
it stopped, and more folds or seeds only add to what is there. Each video is a test video of one fold.

For each set a Markdown table: mean accuracy over seeds of all folds' test videos together, and the difference to the
baseline with its 95 % interval over seeds and groups of videos (`ccs.tables.significance.compare_folds`). The
baseline's streams share nothing, so that they are what RGB and flow know alone: rows of their own say so.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml
from machine import processor

from ccs import scores
from ccs.stage import CcsError
from ccs.tables.measurements import STREAMS
from ccs.tables.significance import Difference, accuracy_interval, compare_folds

ROOT = Path(__file__).resolve().parent.parent
SETS = ("ut_interaction", "weizmann")
FOLDS = 5
APART = "--"  # between a group and the rest of a file's name
TITLES = {"baseline": "Baseline", "cb": "CB", "cs": "CS", "ccs": "All"}
RUNS = {
    "baseline": {"connection": "none", "shared": False, "ranking": False},
    "cb": {"shared": False, "ranking": False},
    "cs": {"connection": "none"},
    "ccs": {},
}


class Plan(NamedTuple):
    """What is to be trained: everything with everything."""

    sets: list[str]
    folds: list[int]
    seeds: list[int]
    runs: list[str]

    def scores(self) -> list[str]:
        """The files that the workflow is to make."""
        return [
            self.path(name, fold, run, seed)
            for name in self.sets
            for fold in self.folds
            for seed in self.seeds
            for run in self.runs
        ]

    @staticmethod
    def path(name: str, fold: int, run: str, seed: int) -> str:
        return f"results/runs/{name}/split{fold}/{run}/seed{seed}/scores.h5"


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="the folder of the sets")
    parser.add_argument("--weights", default="imagenet", help="of the backbone: none, imagenet or a path")
    parser.add_argument("--folder", help="where to run, kept; without it a temporary folder")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--folds", nargs="+", type=int, choices=range(1, FOLDS + 1), default=range(1, FOLDS + 1))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--cores", default="all", help="for Snakemake (default: %(default)s)")
    args = parser.parse_args(argv)
    plan = Plan(args.sets, [*args.folds], args.seeds, args.runs)
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(args.folder or temporary)
        for name in plan.sets:
            link(args.data / name, where / "videos" / name)
        (where / "config.yaml").write_text(yaml.safe_dump(configuration(args.weights, plan.sets), sort_keys=False))
        command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", where]
        command += ["--cores", args.cores, "--rerun-incomplete"]
        subprocess.run([*command, "--", *plan.scores()], check=True)
        for name in plan.sets:
            print("\n".join(table(name, plan, where)))


def link(data: Path, videos: Path) -> None:
    """Links videos/CLASS/GROUP--NAME to the videos of data/list.csv, as the adapter `folder` wants them."""
    if not (data / "list.csv").is_file():
        raise CcsError(f"{data / 'list.csv'}: expected the list of the set, found none: correct DIR, or give --sets")
    with open(data / "list.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = videos / row["label"] / f"{row['group']}{APART}{row['path'].replace('/', '_')}"
            path.parent.mkdir(parents=True, exist_ok=True)
            video = (data / row["path"]).resolve()
            if not path.is_symlink() or path.readlink() != video:
                path.unlink(missing_ok=True)
                path.symlink_to(video)


def configuration(weights: str, sets: Sequence[str]) -> dict:
    """folder.yaml with the sets, folds by group and the four runs."""
    config = yaml.safe_load((ROOT / "workflow" / "configs" / "folder.yaml").read_text())
    (block,) = config["datasets"].values()
    # a few videos for validation, which nothing here looks at, would be a tenth less to train on
    block |= {"group": f"(.*?){APART}.*", "folds": FOLDS, "val_fraction": 0, "shards": 2}
    del block["test_fraction"]
    if os.path.exists(weights):
        weights = os.path.abspath(weights)
    return {
        "datasets": {name: block | {"root": f"videos/{name}"} for name in sets},
        "frames": config["frames"],
        "train": config["train"] | {"weights": weights},
        "evaluate": config["evaluate"],
        "seeds": [0],
        "runs": RUNS,
    }


def table(name: str, plan: Plan, where: Path) -> Iterator[str]:
    """Lines of Markdown for one set."""
    of_run = {
        run: [[scores.read(where / plan.path(name, fold, run, seed)) for seed in plan.seeds] for fold in plan.folds]
        for run in plan.runs
    }
    folds = next(iter(of_run.values()))
    videos = [video for seeds in folds for video in seeds[0].video]
    groups = {video: video.partition("/")[2].partition(APART)[0] for video in videos}
    yield (
        f"\n**{name}**: {len(videos)} videos of {len({*groups.values()})} groups in {len(folds)} of {FOLDS} folds, "
        f"{len(plan.seeds)} seeds{'' if len(plan.seeds) > 1 else ', what others would give is in no interval'}, "
        f"{psutil.cpu_count()} cores of {processor()}\n"
    )
    yield "| | " + " | ".join(STREAMS) + " | " + " | ".join(f"{stream} - baseline" for stream in STREAMS) + " |"
    yield "|---" * (1 + 2 * len(STREAMS)) + "|"
    for run, found in of_run.items():
        accuracy = accuracy_interval(found, groups)
        if run == "baseline":  # its streams share nothing
            yield f"| RGB alone | {shown(accuracy['rgb'], '')} |" + " |" * (2 * len(STREAMS) - 1)
            yield f"| Flow alone | | {shown(accuracy['flow'], '')} |" + " |" * (2 * len(STREAMS) - 2)
        cells = [shown(accuracy[stream], "") for stream in STREAMS.values()]
        if run == "baseline" or "baseline" not in of_run:
            cells += [""] * len(STREAMS)
        else:
            difference = compare_folds(found, of_run["baseline"], groups)
            cells += [shown(difference[stream], "+") for stream in STREAMS.values()]
        yield f"| {TITLES[run]} | {' | '.join(cells)} |"


def shown(value: Difference, sign: str) -> str:
    """Points with their interval."""
    points, low, high = (f"{each:{sign}.1f}" for each in value)
    return f"{points} [{low}, {high}]"


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except CcsError as error:
        sys.exit(f"benchmarks/real.py: {error}")
