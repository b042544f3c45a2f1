"""The embedded demo from nothing, timed: what its targets cost, what its tables show, and what each stream knows.

    python benchmarks/demo.py [--folder DIR] [--config FILE] [--target results/table1.csv]
    python benchmarks/demo.py --seeds 5 --target results/table3.csv
    python benchmarks/demo.py --development --target results/table3.csv

Prints the wall-clock time, processor time by rule, for each configured table and figure the processor time of the runs
that it shows, the table itself, and for each run how often the verdict of a stream has the right thing (what is held)
and the right motion (to the mouth, up, down), whether or not both are right, how often each class is right, and how
much is gained over flow alone. What is timed is this call: in a folder that is kept, what it had before costs nothing.
`--development` renders other videos, for training and for testing: on these settings are chosen, so that the demo's own
test videos are read once.

Ends with status 1 where CCS is not clearly above the separately trained streams, which the demo was built to show.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import yaml
from machine import processor

from ccs import scores
from ccs.config.configuration import runs_of
from ccs.datasets.demo import THING_AND_MOTION
from ccs.results import classes
from ccs.tables.measurements import STREAMS
from ccs.tables.significance import compare

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT_SEED = 1
BAR = 10.0  # points in RGB+Flow; with 5 seeds they were 19.2 [12.6, 25.7] and 22.3 [16.2, 28.4]
PREPARATION = ("datasets.demo", "frames", "quarantine", "flow", "shards")

Busy = dict[tuple[str, str], float]  # processor seconds by stage and run


def main() -> None:
    """Run the demo, print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where to run, kept; without it a temporary folder")
    parser.add_argument("--config", default=ROOT / "config.yaml", help="another configuration with the data set demo")
    parser.add_argument("--target", default="results/table1.csv", help="what to make (default: %(default)s)")
    parser.add_argument("--seeds", type=int, help="train each run with so many seeds (default: the configuration's)")
    parser.add_argument("--development", action="store_true", help="on other videos than those that are reported")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(args.folder or temporary).resolve()
        where.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load(Path(args.config).read_text())
        if args.seeds:
            config["seeds"] = list(range(args.seeds))
        if args.development:
            config["datasets"]["demo"]["seed"] = DEVELOPMENT_SEED
        (where / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", where]
        command += ["--cores", "all", "--", args.target]
        start = time.perf_counter()
        process = subprocess.Popen(command)
        busy = watch(process.pid)
        if process.wait():
            sys.exit(process.returncode)
        seconds = time.perf_counter() - start
        print(f"{args.target} in {seconds / 60:.1f} minutes on {psutil.cpu_count()} cores of {processor()}")
        report(busy, config)
        page = (where / args.target).with_suffix(".md")
        print("\n" + page.read_text() if page.is_file() else "")
        runs = where / "results/runs/demo/split1"
        if runs.is_dir():
            print(knowledge(runs, config["seeds"]))
            print("\n" + by_class(runs, config["seeds"]))
            print("\n" + against_flow(runs, config["seeds"]))
        apart = accuracies(runs / "two_stream", config["seeds"])
        for name in ("ccs", "cb"):
            found = accuracies(runs / name, config["seeds"])
            if found and apart and np.mean(found) - np.mean(apart) < BAR:
                mean, of_apart = np.mean(found), np.mean(apart)
                sys.exit(f"{name} has {mean:.1f} %, expected {BAR:g} points above two_stream's {of_apart:.1f} %")


def knowledge(runs: Path, seeds: Sequence[int]) -> str:
    """How often each stream's verdict has the right thing and the right motion: a Markdown table, means over seeds."""
    lines = ["| run | seeds | " + " | ".join(f"{stream}: thing | motion | both" for stream in STREAMS) + " |"]
    lines += ["|---" * (2 + 3 * len(STREAMS)) + "|"]
    for folder in sorted(runs.iterdir()):
        if found := of_seeds(folder, seeds):
            cells = [np.mean([right(each, stream) for each in found], axis=0) for stream in STREAMS.values()]
            shown = " | ".join(f"{share:.1f}" for share in np.concatenate(cells))
            lines.append(f"| {folder.name} | {len(found)} | {shown} |")
    return "\n".join(lines)


def by_class(runs: Path, seeds: Sequence[int]) -> str:
    """Percent of each class's test videos that RGB+Flow has right: a Markdown table, means over seeds."""
    lines = []
    for folder in sorted(runs.iterdir()):
        if found := of_seeds(folder, seeds):
            names = found[0].classes
            lines = lines or [f"| run | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
            lines.append(f"| {folder.name} | {' | '.join(f'{float(row[-1]):.0f}' for row in classes(found))} |")
    return "\n".join(lines)


def against_flow(runs: Path, seeds: Sequence[int]) -> str:
    """RGB+Flow of each run minus the flow of separately trained streams, which may be above their sum: points."""
    flow = [dataclasses.replace(each, fusion=(0.0, 1.0)) for each in of_seeds(runs / "two_stream", seeds)]
    lines = ["| run | RGB+Flow - flow of two_stream | 95 % interval |", "|---|---|---|"]
    for folder in sorted(runs.iterdir()):
        if (found := of_seeds(folder, seeds)) and flow:
            points, low, high = compare(found, flow)["fused"]
            lines.append(f"| {folder.name} | {points:+.1f} | [{low:+.1f}, {high:+.1f}] |")
    return "\n".join(lines)


def accuracies(run: Path, seeds: Sequence[int]) -> list[float]:
    """RGB+Flow of each seed; none of a run that was not asked for."""
    return [scores.accuracy(found, "fused") for found in of_seeds(run, seeds)]


def of_seeds(run: Path, seeds: Sequence[int]) -> list[scores.Scores]:
    """What there is of the run's seeds: a folder that is kept may have others, of another command."""
    paths = [run / f"seed{seed}" / "scores.h5" for seed in seeds]
    return [scores.read(path) for path in paths if path.is_file()]


def right(found: scores.Scores, stream: scores.Stream) -> list[float]:
    """Percent of the test videos with the right thing, the right motion, the right class, by the highest logit."""
    verdict, label = scores.logits(found, stream).argmax(axis=1), np.asarray(found.label)
    known = [THING_AND_MOTION[name] for name in found.classes]
    parts = [np.array([each[part] for each in known]) for part in (0, 1)]
    of_parts = [100 * float(np.mean(names[verdict] == names[label])) for names in parts]
    return [*of_parts, scores.accuracy(found, stream)]


def watch(pid: int) -> Busy:
    """Processor seconds of the stages that run below the process `pid`, sampled until it ends."""
    sampled: dict[int, tuple[tuple[str, str], float]] = {}
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        for child in psutil.Process(pid).children(recursive=True):
            try:
                times = child.cpu_times()
                sampled[child.pid] = stage_of(child), times.user + times.system
            except psutil.Error:
                continue
        time.sleep(0.5)
    busy: Busy = defaultdict(float)
    for key, seconds in sampled.values():
        busy[key] += seconds
    return busy


def stage_of(process: psutil.Process) -> tuple[str, str]:
    """The stage that a process belongs to, its own or its nearest ancestor's `python -m ccs.STAGE`, and its run."""
    for each in (process, *process.parents()):
        line = each.cmdline()
        stage = next((part.removeprefix("ccs.") for part in line if part.startswith("ccs.")), None)
        if stage and "-m" in line:
            paths = [part for part in line if part.startswith("results/runs/")]
            return stage, paths[0].split("/")[4] if stage in ("train", "evaluate") else ""
    return "snakemake", ""


def report(busy: Busy, config: dict) -> None:
    """Print seconds by stage, and the seconds behind each table and figure."""
    by_stage: dict[str, float] = defaultdict(float)
    by_run: dict[str, float] = defaultdict(float)
    for (stage, run), seconds in busy.items():
        by_stage[stage] += seconds
        by_run[run] += seconds
    for stage, seconds in sorted(by_stage.items(), key=lambda item: -item[1]):
        print(f"  {stage:<18} {seconds:6.0f} s of a core")
    preparation = sum(by_stage[stage] for stage in PREPARATION)
    print(f"frames, flow and shards: {preparation / 60:.1f} minutes of a core; then, for the runs that were made:")
    for section in ("tables", "figures"):
        for name, block in config[section].items():
            runs = runs_of(block)
            if all(run in by_run for run in runs):
                seconds = sum(by_run[run] for run in runs)
                print(f"  {name:<10} {len(runs):>2} runs {seconds / 60:6.1f} minutes of a core")


if __name__ == "__main__":
    main()
