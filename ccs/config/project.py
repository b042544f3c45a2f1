"""A project is a directory: its configuration, its data and its results. What is there is not replaced by another's.

`data/datasets.json` says which data sets what is there was made from, and which configuration file asked for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccs.stage import CcsError, atomic

RECORD = Path("data/datasets.json")
RECORDS_OF_SNAKEMAKE = Path(".snakemake/metadata")


def check(config: Mapping[str, Any], source: str) -> None:
    """`CcsError` where results in the working directory would be replaced by those of another configuration file.

    Args:
        config: complete.
        source: its file, or files.
    """
    before = _read()
    if not before or before["configuration"] == source or not _has_results():
        return
    lost = [name for name, block in before["datasets"].items() if config["datasets"].get(name) != block]
    if not lost:
        return
    how = "other settings of" if lost[0] in config["datasets"] else "no"
    raise CcsError(
        f"{os.getcwd()}: data and results here were made with {before['configuration']}, whose data set {lost[0]} "
        f"is not that of {source}, which has {how} {lost[0]}: tables, figures and shards would be replaced. Give each "
        "project a directory of its own, with its configuration in it: `mkdir DIR`, `cp FILE DIR/config.yaml`, "
        f"`snakemake --directory DIR ...`. To give up what is here, remove {RECORD}"
    )


def check_records() -> None:
    """`CcsError` where there are results and Snakemake's notes are gone: all would pass as new."""
    if _has_results() and RECORD.is_file() and not any(RECORDS_OF_SNAKEMAKE.glob("*")):
        raise CcsError(
            f"{os.getcwd()}: there are results, but {RECORDS_OF_SNAKEMAKE} is empty, in which Snakemake notes the "
            "settings and the code that made them: it would take all of them for current. Bring the folder .snakemake "
            "back with the results, or remove data/ and results/ to make them anew. To trust them as they are, remove "
            f"{RECORD}"
        )


def write(config: Mapping[str, Any], source: str) -> None:
    """Note what the outputs in the working directory are made from."""
    with atomic(RECORD) as part:
        part.write_text(json.dumps({"configuration": source, "datasets": config["datasets"]}, indent=1) + "\n")


def _read() -> dict[str, Any]:
    try:
        found = json.loads(RECORD.read_text(encoding="utf-8"))
        return found if {"configuration", "datasets"} <= found.keys() and isinstance(found["datasets"], dict) else {}
    except (OSError, ValueError, AttributeError):  # none, or not ours to judge
        return {}


def _has_results() -> bool:
    made = (path for folder in ("results", "data") for path in Path(folder).glob("*/*"))
    return any(made) or any(Path("results").glob("*.csv"))
