"""The workflow, from a checkout or from where pip has put it: `ccs run` is Snakemake on it.

    ccs run -n                      # what would be done in this directory, which has a config.yaml
    ccs run results/table1.csv
    ccs run --cores 4 --directory DIR all

All arguments are Snakemake's. `--cores all` is given where neither cores nor a profile are named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import snakemake  # noqa: F401 - so that its absence is told as that of any other package

from ccs.stage import CcsError, run

PACKAGE = Path(__file__).resolve().parent
CHOICES = ("--cores", "--jobs", "--profile", "--workflow-profile", "--executor", "-c", "-j", "-e", "--help", "-h")


def folder() -> Path:
    """The folder of Snakefile, workflow/, profiles/ and config.yaml: in a wheel below the package, or the checkout."""
    for found in (PACKAGE / "checkout", PACKAGE.parent):
        if (found / "Snakefile").is_file():
            return found
    raise CcsError(
        f"{PACKAGE / 'project'}: expected the workflow's Snakefile, found none: install ccs-video again, or work in a "
        "checkout of it"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Become Snakemake. Raises `CcsError` where the workflow is not there."""
    given = sys.argv[1:] if argv is None else list(argv)
    line = [sys.executable, "-m", "snakemake", "--snakefile", str(folder() / "Snakefile")]
    if not any(each.split("=")[0] in CHOICES or each[:2] in ("-c", "-j") for each in given):
        line += ["--cores", "all"]
    sys.stdout.flush()
    os.execv(sys.executable, [*line, *given])


if __name__ == "__main__":
    run(main)
