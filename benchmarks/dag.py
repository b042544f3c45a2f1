"""How long Snakemake takes before the first job: dry runs and runs with nothing to do, over made-up data sets.

    python benchmarks/dag.py                 # UCF-101 (13,320 videos) and something-something-v2 (220,847)
    python benchmarks/dag.py --videos 13320

Videos are empty files under published names, in lists of the published form; no stage runs. There are about 1,000
videos a shard. Prints, per data set: jobs, seconds of `snakemake -n -p` when nothing has been done, and seconds of
`snakemake` when all has been.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SIZES = (13320, 220847)
VIDEOS_PER_SHARD = 1000


def main() -> None:
    """Make each data set, time both runs, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=SIZES, help="videos of each made-up data set")
    print(f"{'videos':>8} {'shards':>6} {'jobs':>6} {'dry run':>9} {'nothing to do':>14}")
    for num_videos in parser.parse_args().videos:
        with tempfile.TemporaryDirectory() as folder:
            num_shards = -(-num_videos // VIDEOS_PER_SHARD)
            make(Path(folder), num_videos, num_shards)
            dry, printed = timed(folder, "--dry-run", "-p")
            jobs = int(re.search(r"^total +(\d+)", printed, re.MULTILINE)[1])
            finish(Path(folder), printed)
            nothing, printed = timed(folder)
            assert "Nothing to be done" in printed, printed
        print(f"{num_videos:>8} {num_shards:>6} {jobs:>6} {dry:>7.1f} s {nothing:>12.1f} s", flush=True)


def timed(folder: str, *arguments: str) -> tuple[float, str]:
    """Seconds of a snakemake call in `folder`, and what it printed."""
    snakemake = Path(sys.executable).with_name("snakemake")
    command = [snakemake, "-s", ROOT / "Snakefile", "-d", folder, "--configfile", f"{folder}/config.yaml"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--cores", "2", "--nocolor", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout)
    return seconds, done.stdout


def make(folder: Path, num_videos: int, num_shards: int) -> None:
    """A data set and its configuration: UCF-101 with three splits where it is small, else something-something-v2."""
    if num_videos <= 20000:
        make_ucf101(folder, num_videos)
        block = {"adapter": "ucf101", "splits": [1, 2, 3]}
    else:
        make_something_v2(folder, num_videos)
        block = {"adapter": "something_v2"}
    block |= {"root": f"{folder}/videos", "lists": f"{folder}/lists", "shards": num_shards}
    (folder / "config.yaml").write_text(yaml.safe_dump({"datasets": {"made_up": block}, "runs": {"ccs": {}}}))


def make_ucf101(folder: Path, num_videos: int) -> None:
    """101 classes of 25 groups; each split tests other groups."""
    (folder / "lists").mkdir()
    # the classes of Figure 6 must be there
    classes = ["ApplyEyeMakeup", "Archery", "BlowDryHair", *(f"Class{number:03d}" for number in range(3, 101))]
    for name in classes:
        (folder / "videos" / name).mkdir(parents=True)
    (folder / "lists/classInd.txt").write_text("".join(f"{n} {name}\r\n" for n, name in enumerate(classes, 1)))
    names = []
    lists = {f"{part}list{split:02d}": [] for part in ("train", "test") for split in (1, 2, 3)}
    for number in range(num_videos):
        label, clip = number % 101, number // 101
        group = clip % 25 + 1
        name = f"{classes[label]}/v_{classes[label]}_g{group:02d}_c{clip // 25 + 1:02d}.avi"
        names.append(name)
        for split in (1, 2, 3):
            if (group - 1) // 7 + 1 == split:
                lists[f"testlist{split:02d}"].append(name)
            else:
                lists[f"trainlist{split:02d}"].append(f"{name} {label + 1}")
    make_videos(folder / "videos", names)
    for name, lines in lists.items():
        (folder / f"lists/{name}.txt").write_text("".join(f"{line}\r\n" for line in lines))


def make_hmdb51(folder: Path, num_videos: int) -> None:
    """51 classes with 70 training and 30 test videos each, the others unused, in one split."""
    (folder / "lists").mkdir()
    classes = [f"class_{number:02d}" for number in range(51)]
    names: dict[str, list[str]] = {name: [] for name in classes}
    for number in range(num_videos):
        name = classes[number % 51]
        names[name].append(f"film{number // 51 // 3:03d}_{name}_f_cm_np1_fr_med_{number // 51 % 3}.avi")
    for name, videos in names.items():
        (folder / "videos" / name).mkdir(parents=True)
        parts = ["1"] * 70 + ["2"] * 30 + ["0"] * (len(videos) - 100)
        lines = [f"{video} {part} \n" for video, part in zip(videos, parts, strict=True)]
        (folder / f"lists/{name}_test_split1.txt").write_text("".join(lines))
    make_videos(folder / "videos", [f"{name}/{video}" for name, videos in names.items() for video in videos])


def make_something_v2(folder: Path, num_videos: int) -> None:
    """174 classes; train, validation and test in the published proportions."""
    (folder / "lists").mkdir()
    (folder / "videos").mkdir()
    templates = [f"Doing [something] to thing {number}" for number in range(174)]
    entries = []
    for number in range(num_videos):
        template = templates[number % 174]
        entries.append({"id": str(number + 1), "label": template.replace("[something]", "a cup"), "template": template})
    make_videos(folder / "videos", [f"{number + 1}.webm" for number in range(num_videos)])
    train, validation = int(num_videos * 0.765), int(num_videos * 0.877)
    contents = {
        "labels": {template.replace("[", "").replace("]", ""): str(n) for n, template in enumerate(templates)},
        "train": entries[:train],
        "validation": entries[train:validation],
        "test": [{"id": entry["id"]} for entry in entries[validation:]],
    }
    for name, content in contents.items():
        (folder / f"lists/something-something-v2-{name}.json").write_text(json.dumps(content))


def make_videos(folder: Path, names: list[str]) -> None:
    """Empty files; links to a few of them, which are made faster."""
    for number, name in enumerate(names):
        if number % 10000 == 0:
            first = folder / name
            first.touch()
        else:
            os.link(first, f"{folder}/{name}")


def finish(folder: Path, dry_run: str) -> None:
    """Make every output that the dry run lists, and have Snakemake take them as done."""
    for line in re.findall(r"^    output: (.*)$", dry_run, re.MULTILINE):
        for output in line.split(", "):
            (folder / output).parent.mkdir(parents=True, exist_ok=True)
            (folder / output).touch()
    timed(str(folder), "--touch")


if __name__ == "__main__":
    main()
