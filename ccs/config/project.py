"""A project is a directory: its configuration, its data and its results. Another's data sets do not replace its own.

`data/datasets.json` says from which data sets what is there was made, and which configuration file asked for it. One
configuration may change as it likes, and have more data sets or fewer; a second one must not redefine those of the
first, or have none of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccs.stage import CcsError, atomic

RECORD = Path("data/datasets.json")
NOTES = (Path(".snakemake/metadata"), Path(".snakemake/incomplete"))  # of what was made, and of what was begun


def check(config: Mapping[str, Any], source: str) -> None:
    """Before anything is written in the working directory.

    Args:
        config: complete.
        source: its file, or files, for messages.

    Raises:
        CcsError: what is there was made with another configuration file's data sets.
    """
    if problem := _replaced(config, source):
        raise CcsError(problem)


def check_notes() -> None:
    """Before Snakemake looks at what there is.

    Raises:
        CcsError: its notes of how the results were made are gone, so that it would take all of them for current.
    """
    if problem := _forgotten():
        raise CcsError(problem)


def warn(config: Mapping[str, Any], source: str) -> None:
    """Both on standard error, where nothing will be written."""
    for problem in filter(None, (_replaced(config, source), _forgotten())):
        print(f"ccs: warning: {problem}", file=sys.stderr)


def write(config: Mapping[str, Any], source: str) -> None:
    """Note what the outputs in the working directory are made from."""
    with atomic(RECORD) as part:
        part.write_text(json.dumps({"configuration": source, "datasets": config["datasets"]}, indent=1) + "\n")


def _replaced(config: Mapping[str, Any], source: str) -> str:
    """What would be, or ""."""
    before = _read()
    if not before or before["configuration"] == source or not _has_results():
        return ""
    here, there = config["datasets"], before["datasets"]
    lost = [name for name in there if name in here and here[name] != there[name]]
    lost += list(there) if not there.keys() & here.keys() else []
    if not lost:
        return ""
    other = "other settings of it" if lost[0] in here else "no such data set"
    return (
        f"{os.getcwd()}: data/ and results/ were made with {before['configuration']} and its data set {lost[0]}; "
        f"{source} has {other} and would replace shards, tables and figures here. Give each project a directory "
        "of its own, with its configuration in it: `mkdir DIR`, `cp FILE DIR/config.yaml`, then `snakemake "
        f"--directory DIR ...`. To give up what is here, remove {RECORD}"
    )


def _forgotten() -> str:
    """What is not known any more, or ""."""
    if not _read() or not _has_results() or any(path for folder in NOTES for path in folder.glob("*")):
        return ""
    return (
        f"{os.getcwd()}: there are results, but {NOTES[0]} is empty, where Snakemake notes the settings and the code "
        "that made them: it would take all of them for current, whatever has changed since. Bring the folder "
        ".snakemake back with the results, or remove data/ and results/ to make them anew. To trust them as they "
        f"are, remove {RECORD}"
    )


def _read() -> dict[str, Any]:
    try:
        found = json.loads(RECORD.read_text(encoding="utf-8"))
        return found if {"configuration", "datasets"} <= found.keys() and isinstance(found["datasets"], dict) else {}
    except (OSError, ValueError, RecursionError, AttributeError):  # none, or not ours to judge
        return {}


def _has_results() -> bool:
    patterns = ("results/*", "results/runs/*/*/*/*/*", "data/*/frames/*.h5", "data/*/flow/*.h5", "data/*/shards/*.h5")
    return any(path.is_file() for pattern in patterns for path in Path().glob(pattern))
