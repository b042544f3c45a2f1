"""The embedded demo from nothing, timed: what its targets cost, and what its Table 1 shows.

    python benchmarks/demo.py [--folder DIR] [--config FILE] [--target results/table1.csv]
    python benchmarks/demo.py --target all

Prints the wall-clock time, processor time by rule, for each configured table and figure the processor time of the runs
that it shows, and the gain of RGB+Flow over the better single stream of each row of Table 1. Ends with status 1 where
CCS + TSN gains less than 10 points, which the demo was built to show.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
import psutil
import yaml

from ccs.config.configuration import runs_of

ROOT = Path(__file__).resolve().parent.parent
BAR = 10.0
PREPARATION = ("datasets.demo", "frames", "quarantine", "flow", "shards")

Busy = dict[tuple[str, str], float]  # processor seconds by stage and run


def main() -> None:
    """Run the demo, print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where to run, kept; without it a temporary folder")
    parser.add_argument("--config", default=ROOT / "config.yaml", help="another configuration with the data set demo")
    parser.add_argument("--target", default="results/table1.csv", help="what to make (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(args.folder or temporary)
        where.mkdir(parents=True, exist_ok=True)
        command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", where]
        command += ["--configfile", args.config, "--cores", "all", "--", args.target]
        start = time.perf_counter()
        process = subprocess.Popen(command)
        busy = watch(process.pid)
        if process.wait():
            sys.exit(process.returncode)
        seconds = time.perf_counter() - start
        table = pd.read_csv(where / "results" / "table1.csv")
    print(f"{args.target} in {seconds / 60:.1f} minutes on {psutil.cpu_count()} cores")
    report(busy, yaml.safe_load(Path(args.config).read_text()))
    measured = table[table["source"] == "measured"].set_index("method")
    gain = measured["demo RGB+Flow"] - measured[["demo RGB", "demo Flow"]].max(axis=1)
    print(gain.round(1).to_string())
    ccs = gain[[name for name in gain.index if name == "CCS + TSN"]]
    if ccs.empty or (ccs < BAR).any():
        sys.exit(f"CCS: RGB+Flow gains less than {BAR:g} points over the better single stream")


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
    print(f"frames, flow and shards: {preparation / 60:.1f} minutes of a core; then, for the runs that are shown:")
    for section in ("tables", "figures"):
        for name, block in config[section].items():
            runs = runs_of(block)
            if all(run in by_run for run in runs):
                seconds = sum(by_run[run] for run in runs)
                print(f"  {name:<10} {len(runs):>2} runs {seconds / 60:6.1f} minutes of a core")


if __name__ == "__main__":
    main()
