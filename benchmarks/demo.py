"""The README's first command, timed: the embedded demo from nothing to results/table1.csv, and what its table shows.

    python benchmarks/demo.py [--folder DIR] [--config FILE]

Prints the wall-clock time, processor time by rule and the gain of RGB+Flow over the better single stream of each
measured run. Ends with status 1 where CCS gains less than 10 points, which the demo was built to show.
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

ROOT = Path(__file__).resolve().parent.parent
BAR = 10.0


def main() -> None:
    """Run the demo, print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where to run, kept; without it a temporary folder")
    parser.add_argument("--config", default=ROOT / "config.yaml", help="another configuration with the data set demo")
    args = parser.parse_args()
    folder = args.folder
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(folder or temporary)
        where.mkdir(parents=True, exist_ok=True)
        seconds, by_rule = run(where, args.config)
        table = pd.read_csv(where / "results" / "table1.csv")
    print(f"results/table1.csv in {seconds / 60:.1f} minutes on {psutil.cpu_count()} cores")
    for rule, busy in sorted(by_rule.items(), key=lambda item: -item[1]):
        print(f"  {rule:<12} {busy:6.0f} s of a core")
    measured = table[table["source"] == "measured"].set_index("method")
    gain = measured["demo RGB+Flow"] - measured[["demo RGB", "demo Flow"]].max(axis=1)
    print(gain.round(1).to_string())
    ccs = gain[[name for name in gain.index if name == "CCS + TSN"]]
    if ccs.empty or (ccs < BAR).any():
        sys.exit(f"CCS: RGB+Flow gains less than {BAR:g} points over the better single stream")


def run(where: Path, config: Path) -> tuple[float, dict[str, float]]:
    """Wall-clock seconds of the workflow in `where`, and processor seconds of the jobs of each rule (sampled)."""
    command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", where]
    command += ["--configfile", config, "--cores", "all", "results/table1.csv"]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    busy: dict[tuple[int, str], float] = {}
    while process.poll() is None:
        time.sleep(0.5)
        for child in psutil.Process(process.pid).children(recursive=True) if psutil.pid_exists(process.pid) else []:
            try:
                rule = _stage(child)
                times = child.cpu_times()
                busy[child.pid, rule] = times.user + times.system
            except psutil.Error:
                continue
    if process.returncode:
        sys.exit(process.returncode)
    by_rule: dict[str, float] = defaultdict(float)
    for (_, rule), seconds in busy.items():
        by_rule[rule] += seconds
    return time.perf_counter() - start, by_rule


def _stage(process: psutil.Process) -> str:
    """The stage that a process belongs to: its own or its nearest ancestor's `python -m ccs.STAGE`."""
    for each in (process, *process.parents()):
        line = each.cmdline()
        stage = next((part.removeprefix("ccs.") for part in line if part.startswith("ccs.")), None)
        if stage and "-m" in line:
            return stage
    return "snakemake"


if __name__ == "__main__":
    main()
