"""The command line for people: `ccs STAGE [flags]` runs one stage by itself, `ccs --help` lists them."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ccs import __version__
from ccs.stage import CcsError, open_closed_streams, run


def _figures() -> dict[str, tuple[str, str]]:
    """The packages of ccs.figures, told by their own first lines; none is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("figures/*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        found[path.parent.name] = (f"ccs.figures.{path.parent.name}.__main__", " ".join(text.split()).rstrip("."))
    return found


# name: module, what goes in and what comes out; in the pipeline's order
STAGES = {
    "demo": ("ccs.datasets.demo", "render the demo's videos"),
    "datasets": ("ccs.datasets.__main__", "videos and their lists -> manifest.csv"),
    "frames": ("ccs.frames.__main__", "videos of one shard -> RGB frames"),
    "quarantine": ("ccs.quarantine", "the bad videos of all shards -> quarantine.csv"),
    "lookalikes": ("ccs.lookalikes", "training shards -> test videos that look like a training video"),
    "flow": ("ccs.flow.tool", "frames, or any videos -> TV-L1 optical flow"),
    "shards": ("ccs.shards.__main__", "frames and flow -> training shard"),
    "train": ("ccs.train.__main__", "training shards -> checkpoint.pt"),
    "evaluate": ("ccs.evaluate.__main__", "checkpoint and shards -> scores.h5"),
    "tables": ("ccs.tables.__main__", "scores -> a table of the paper with our numbers in it"),
    **_figures(),
    "curves": ("ccs.figures.curves", "histories of a run -> its training curves"),
    "details": ("ccs.tables.details", "scores -> what a table or figure was made with"),
    "submission": ("ccs.submission", "scores of unlabelled videos -> a file for the benchmark's server"),
    "predict": ("ccs.predict", "any videos and a checkpoint -> classes with probabilities"),
}

HELP = "\n".join(
    [
        "usage: ccs STAGE [flags]",
        "",
        "Runs one stage by itself; `snakemake --cores all` runs them all.",
        "",
        *(f"  {name:<12}{text}" for name, (_, text) in STAGES.items()),
        "",
        "ccs STAGE --help lists a stage's flags; ccs --version prints the version.",
    ]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage that the first argument names with the arguments after it; only its modules are imported."""
    open_closed_streams()  # what is imported may print, too
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in STAGES:
        stage = importlib.import_module(STAGES[name][0])  # before `run`, so that Ctrl-C ends it as `ccs` has it
        run(stage.main, rest)
    else:
        run(_tell, [name])


def _tell(argv: Sequence[str] | None) -> None:
    name = (argv or [""])[0]
    if name in ("-h", "--help"):
        print(HELP)
    elif name == "--version":
        print(f"ccs {__version__}")
    else:
        raise CcsError(f"no stage {name!r}; there are {', '.join(STAGES)}")


if __name__ == "__main__":
    main()
