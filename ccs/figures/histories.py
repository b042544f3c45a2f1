"""Histories of training, for figures: the history.csv files of one run in, sorted by data set, split and seed.

A history does not say whose it is, so its place does: .../DATASET/splitN/RUN/seedN/history.csv, as rule `train` has it.
What is missing, cut short, or of another run by its place or its numbers is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ccs.stage import CcsError
from ccs.tables.measurements import BENCHMARKS, data_name

MEASURED = ("lr", "loss", "loss_triplet", "loss_embedding", "loss_cross_entropy", "active_triplets")
MEASURED += ("train_rgb", "train_flow")
MAY_BE_EMPTY = ("val_rgb", "val_flow", "val_fused", "clips_per_second", "waiting", "memory_mb", "gpu_memory_mb")
COLUMNS = ("epoch", *MEASURED, *MAY_BE_EMPTY)
RANKING = ("loss_triplet", "loss_embedding", "active_triplets")
PLACE = re.compile(r"([^/]+)/split(\d+)/([^/]+)/seed(\d+)/[^/]+")


class History(NamedTuple):
    """One training. epochs: its rows by epoch, NaN where a cell is empty."""

    path: Path
    dataset: str
    split: int
    seed: int
    epochs: pd.DataFrame


class SplitHistories(NamedTuple):
    """The run on one split of one data set, by rising seed."""

    dataset: str
    split: int
    seeds: tuple[History, ...]

    @property
    def place(self) -> str:
        """E.g. "UCF-101 split 1"."""
        return f"{data_name(self.dataset)} split {self.split}"

    @property
    def mean(self) -> pd.DataFrame:
        """The mean over seeds, of the epochs that all have: where one stopped early, it would jump."""
        last = min(len(history.epochs) for history in self.seeds)
        first, *others = (history.epochs.iloc[:last] for history in self.seeds)
        mean = sum(others, start=first) / len(self.seeds)
        return mean.round(6).assign(lr=self.seeds[0].epochs["lr"])  # which are the same, and may be smaller than that


def read(path: str | Path, run_name: str) -> History:
    """A history of the run `run_name`; raises `CcsError` where it is missing, cut short or of another run."""
    path = Path(path)
    place = PLACE.fullmatch("/".join(path.absolute().parts[-5:]))
    if not place:
        raise CcsError(
            f"{path}: expected a path .../DATASET/splitN/RUN/seedN/history.csv, which says whose history it is; "
            "give the file where training wrote it"
        )
    dataset, split, found, seed = place.groups()
    if found != run_name:
        raise CcsError(f"{path}: expected a history of run {run_name!r}, found that of {found!r}; leave it out")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise CcsError(f"{path}: expected the history of a training, found none ({reason}); train the run") from None
    return History(path, dataset, int(split), int(seed), _parse(path, text))


def _parse(path: Path, text: str) -> pd.DataFrame:
    again = "remove it and train the run again"
    header, *rows = [line.split(",") for line in text.splitlines()] or [[]]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise CcsError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, found none called {', '.join(missing)}; {again}"
        )
    if not rows:
        raise CcsError(f"{path}: expected a line for each epoch, found none; {again}")
    values = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(header) or (number == len(rows) and not text.endswith("\n")):
            raise CcsError(
                f"{path}, line {number + 1}: expected {len(header)} values and the end of the line, found the file cut "
                f"short in {','.join(row)[:80]!r}; {again}"
            )
        cells = dict(zip(header, row, strict=True))
        if cells["epoch"] != str(number):
            raise CcsError(f"{path}, line {number + 1}: expected epoch {number}, found {cells['epoch']!r}; {again}")
        values.append([_number(cells[column], column, f"{path}, line {number + 1}", again) for column in COLUMNS[1:]])
    return pd.DataFrame(values, columns=COLUMNS[1:], index=pd.RangeIndex(1, len(rows) + 1, name="epoch"))


def _number(cell: str, column: str, where: str, again: str) -> float:
    if cell == "" and column in MAY_BE_EMPTY:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (column == "lr" and value == 0):
        least = "above 0" if column == "lr" else "from 0 up"
        raise CcsError(f"{where}: expected for {column} a number {least}, found {cell!r}; {again}")
    return value


def group(histories: Iterable[History]) -> list[SplitHistories]:
    """Histories by data set and split, in the tables' order; raises `CcsError` where they are not of one run."""
    found: dict[tuple[str, int, int], History] = {}
    for history in histories:
        other = found.setdefault((history.dataset, history.split, history.seed), history)
        if other is not history:
            raise CcsError(f"{history.path}: {other.path} is of the same data set, split and seed; give one of them")
    _check_one_run(list(found.values()))
    places = sorted({key[:2] for key in found}, key=lambda place: ([*BENCHMARKS, place[0]].index(place[0]), *place))
    return [SplitHistories(*place, tuple(found[key] for key in sorted(found) if key[:2] == place)) for place in places]


def has_ranking(history: History) -> bool:
    """Whether it was trained with ranking losses; all are 0 otherwise."""
    return bool(history.epochs[list(RANKING)].to_numpy().any())


def _check_one_run(histories: Sequence[History]) -> None:
    """A run has one plan of learning rates and one set of losses, whatever its data and seed."""
    first = max(histories, key=lambda history: len(history.epochs))
    for history in histories:
        rates = history.epochs["lr"]
        same = np.isclose(rates.to_numpy(), first.epochs["lr"].to_numpy()[: len(rates)], rtol=1e-6, atol=0)
        if not same.all():
            epoch = int(np.argmin(same)) + 1
            what = f"the learning rate {first.epochs['lr'][epoch]:g} in epoch {epoch}", f"{rates[epoch]:g}"
        elif has_ranking(history) != has_ranking(first):
            what = (["no ranking losses", "ranking losses"][has_ranking(first)], "the contrary")
        else:
            continue
        raise CcsError(
            f"{history.path}: expected {what[0]} as in {first.path}, found {what[1]}: one of them is of another run or "
            "of other settings; remove it and train the run again"
        )


def steps(histories: Iterable[History]) -> dict[int, float]:
    """The last epoch before each fall of the learning rate, and what the rate falls to."""
    rates = max((history.epochs["lr"] for history in histories), key=len)
    return {epoch: after for epoch, (before, after) in enumerate(pairwise(rates), 1) if after < before}
