"""Lists of bad videos, as the frames stage writes one for each shard and `ccs quarantine` one for the dataset."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from typing import NamedTuple

from ccs.stage import CcsError

COLUMNS = ("video", "path", "stage", "reason")


class Bad(NamedTuple):
    """A video that was set aside, by which stage and why."""

    video: str
    path: str
    stage: str
    reason: str


def write(path: str | os.PathLike[str], bad: Iterable[Bad]) -> None:
    """Write a list as CSV, in the order given."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(bad)


def read(path: str | os.PathLike[str], *, remedy: str) -> list[Bad]:
    """The videos of a list; raises `CcsError` with `remedy` where it is missing or is no such list."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if absent := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise ValueError(f"no column {absent[0]}")
            return [Bad(*(row[name] or "" for name in COLUMNS)) for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise CcsError(
            f"{path}: expected a list of bad videos, with the columns {', '.join(COLUMNS)}: {error}: {remedy}"
        ) from error
