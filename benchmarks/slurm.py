"""The demo on a SLURM of this machine, beside a local run: the same table, and what the jobs cost.

    python benchmarks/slurm.py [--target results/table1.csv] [--configfile FILE ...] [--local TABLE]

Starts a SLURM as the tests do (tests/slurm/cluster.py: needs root and SLURM's packages), makes the target through
profiles/slurm in a temporary folder, and locally too, unless --local names the table of a local run with one core for
each training. Prints the time of both and SLURM's own count of jobs by rule and state. Ends with status 1 where the
tables differ.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "slurm"))

from cluster import cluster, missing  # noqa: E402


def main() -> None:
    """Run both, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="results/table1.csv", help="what to make (default: %(default)s)")
    parser.add_argument("--configfile", nargs="+", default=[ROOT / "config.yaml"], help="configuration of the demo")
    parser.add_argument("--local", help="the same table, made locally")
    args = parser.parse_args()
    if reason := missing():
        sys.exit(f"slurm: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        with cluster() as slurm:
            flags = ["--workflow-profile", ROOT / "profiles" / "slurm"]
            flags += ["--slurm-init-seconds-before-status-checks", "3"]
            seconds = make(Path(folder, "slurm"), args, *flags, environment=slurm.environment)
            states = Counter((re.match(r"rule_([a-z]+)", job["Comment"])[1], job["JobState"]) for job in slurm.jobs())
        print(f"SLURM: {seconds / 60:.1f} minutes, {states.total()} jobs")
        for (rule, state), number in sorted(states.items()):
            print(f"{number:>5} {rule:<12} {state}")
        if not args.local:
            print(f"local: {make(Path(folder, 'local'), args, '--cores', 'all') / 60:.1f} minutes")
        tables = [Path(folder, "slurm", args.target), Path(args.local or Path(folder, "local", args.target))]
        same = tables[0].read_bytes() == tables[1].read_bytes()
        print(f"{args.target}: {'the same bytes' if same else 'DIFFERENT'}\n{tables[0].read_text()}")
    sys.exit(not same)


def make(folder: Path, args: argparse.Namespace, *flags: object, environment: dict[str, str] | None = None) -> float:
    """Seconds of a snakemake call in `folder`; one thread for each training, for equal bits."""
    folder.mkdir()
    command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", folder, *flags]
    command += ["--configfile", *(Path(file).resolve() for file in args.configfile)]
    start = time.perf_counter()
    subprocess.run([*command, "--set-threads", "train=1", "evaluate=1", "--", args.target], env=environment, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
