"""The command line for people: `ccs COMMAND [flags]`; `ccs help` lists the commands, tools of their own first.

Each is a module with a `main`, and only that is imported. Stages are also rules of the workflow.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ccs import __version__
from ccs.stage import CcsError, install, open_closed_streams, run


def _figures() -> dict[str, tuple[str, str]]:
    """The packages of ccs.figures, told by their own first lines; none is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("figures/*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        found[path.parent.name] = (f"ccs.figures.{path.parent.name}.__main__", " ".join(text.split()).rstrip("."))
    return found


# name: module, what goes in and what comes out
TOOLS = {
    "flow": ("ccs.flow.tool", "any videos -> optical flow, and their frames"),
    "features": ("ccs.features.__main__", "any videos and I3D or a trained network -> features of windows in time"),
    "predict": ("ccs.prediction", "any videos and a trained network -> classes with probabilities"),
    "export": ("ccs.export", "a trained network -> ONNX or a program of torch.export"),
    "results": ("ccs.results", "a run -> accuracy of each class and verdicts on each video, as CSV"),
    "weights": ("ccs.models.backbones.__main__", "a backbone -> its published weights, fetched and checked"),
    "datasets": ("ccs.datasets.__main__", "a data set's lists and videos -> what is missing"),
    "run": ("ccs.project", "a configuration -> the paper's tables and figures, all stages by Snakemake"),
}
# in the pipeline's order
STAGES = {
    "demo": ("ccs.datasets.demo", "render the demo's videos"),
    "frames": ("ccs.frames.__main__", "videos of one shard -> RGB frames"),
    "quarantine": ("ccs.quarantine", "the bad videos of all shards -> quarantine.csv"),
    "lookalikes": ("ccs.lookalikes", "training shards -> test videos that look like a training video"),
    "shards": ("ccs.shards.__main__", "frames and flow -> training shard"),
    "train": ("ccs.train.__main__", "training shards -> checkpoint.pt"),
    "evaluate": ("ccs.evaluate.__main__", "checkpoint and shards -> scores.h5"),
    "tables": ("ccs.tables.__main__", "scores -> a table of the paper with our numbers in it"),
    **_figures(),
    "curves": ("ccs.figures.curves", "histories of a run -> its training curves"),
    "details": ("ccs.tables.details", "scores -> what a table or figure was made with"),
    "mistakes": ("ccs.mistakes", "scores and training shards -> a page of the surest mistakes, with frames and flow"),
    "submission": ("ccs.submission", "scores of unlabelled videos -> a file for the benchmark's server"),
}
COMMANDS = {**TOOLS, **STAGES}

HELP = "\n".join(
    [
        "usage: ccs COMMAND [flags]",
        "",
        *(f"  {name:<12}{text}" for name, (_, text) in TOOLS.items()),
        "",
        "Stages of the workflow, each by itself (`ccs flow` and `ccs datasets` are stages too):",
        "",
        *(f"  {name:<12}{text}" for name, (_, text) in STAGES.items()),
        "",
        "ccs help COMMAND, or ccs COMMAND --help, lists its flags; ccs version prints the version.",
    ]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names with the arguments after it; only its modules are imported."""
    open_closed_streams()  # what is imported may print, too
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["help"]
    if name in ("help", "-h", "--help") and rest and rest[0] in COMMANDS:
        name, *rest = rest[0], "--help"
    if name in COMMANDS:
        try:
            command = importlib.import_module(COMMANDS[name][0])  # before `run`, so that Ctrl-C ends it as `ccs` has it
        except ModuleNotFoundError as error:
            if (error.name or "ccs").partition(".")[0] == "ccs":
                raise
            run(_tell_of_missing, [name, str(error.name)])
        else:
            run(command.main, rest)
    else:
        run(_tell, [name, *rest])


def _tell(argv: Sequence[str] | None) -> None:
    name, *rest = argv or ["help"]
    if name in ("help", "-h", "--help") and rest:
        name = rest[0]
    if name in ("help", "-h", "--help"):
        print(HELP)
    elif name in ("version", "-v", "-V", "--version"):
        print(f"ccs {__version__}")
    elif close := difflib.get_close_matches(name, COMMANDS, n=1):
        raise CcsError(f"no command {name!r}: did you mean {close[0]}? `ccs help` lists the commands")
    else:
        raise CcsError(f"no command {name!r}; there are {', '.join(COMMANDS)}: `ccs help` says what they do")


def _tell_of_missing(argv: Sequence[str] | None) -> None:
    """Raise what to install for the command `argv[0]`, which lacks the module `argv[1]`."""
    name, module = argv or ("", "")
    package = module.partition(".")[0]
    raise CcsError(f"ccs {name} needs the package {package}, which is not installed: {install(_extra_of(package))}")


def _extra_of(package: str) -> str:
    """The smallest extra of this distribution that brings a package, by the name under which it is imported."""
    names = {*metadata.packages_distributions().get(package, ()), package, f"py{package}"}  # yaml is pyyaml's
    try:
        needed = metadata.requires("ccs-video") or []
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        needed = []
    packages = defaultdict(set)
    for each in needed:
        if found := re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", each):
            packages[found[2]].add(_spelt(found[1]))
    extras = [extra for extra in packages if packages[extra] & set(map(_spelt, names))]
    return min(extras, key=lambda extra: len(packages[extra]), default="all")


def _spelt(name: str) -> str:
    """A distribution's name as the package index has it."""
    return re.sub("[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
