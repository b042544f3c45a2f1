"""Kinetics-400, 600 or 700: the published CSV lists, and clips named by video and times, ID_000010_000020.mp4.

Lists: train.csv and val.csv (or validate.csv, and with anything before these names, as kinetics_train.csv), with the
columns label, youtube_id, time_start and time_end (DeepMind's; the Common Visual Data Foundation hosts lists and clips,
github.com/cvdfoundation/kinetics-dataset; times in names have six digits, as ActivityNet's crawler writes them). Clips
may be in directories of classes or parts, or in none. Results are reported on the validation list, which is `test`
here; the test list is not read. Classes are the training list's, sorted; an id is the clip's name without the
extension, and `val` is taken from `train` by whole YouTube videos.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ccs.datasets.disk import Folder, Listed, assemble, check_split, directory, listing, nfc, read_text
from ccs.datasets.lists import table
from ccs.datasets.manifests import Manifest
from ccs.datasets.settings import ListedSettings
from ccs.settings import settings
from ccs.stage import CcsError

PAGE = "https://github.com/cvdfoundation/kinetics-dataset"
_DEPTH = 2  # directories between root and a clip: part and class


@settings
class Settings(ListedSettings):
    """Kinetics-400, 600 or 700 as published, with clips ID_000010_000020.mp4."""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of the only split, 1; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    check_split(dataset, split, "Kinetics")
    root = directory(dataset, "root", settings.root, "the Kinetics clips, ID_000010_000020.mp4")
    lists = directory(dataset, "lists", settings.lists, "the lists train.csv and val.csv")
    rows = [(part, *row) for part, name in (("train", "train"), ("test", "val(idate)?")) for row in _rows(lists, name)]
    classes = sorted({label for part, _, _, label, _ in rows if part == "train"})
    labels = {name: label for label, name in enumerate(classes)}
    for _, where, _, label, _ in rows:
        if label not in labels:
            raise CcsError(f"{where}: unknown class {label!r}: no video of it is for training; correct it")
    listed = [Listed(clip, "", f"{clip}.mp4", labels[label], part, of, where) for part, where, clip, label, of in rows]
    folder = Folder()
    _add(dataset, folder, root, _DEPTH)
    return assemble(dataset, settings, root, classes, listed, {"": folder})


def _rows(lists: str, part: str) -> Iterator[tuple[str, str, str, str]]:
    """Where it is, the clip's name, the label and the YouTube video of each line of a part's list."""
    names = [name for name in os.listdir(lists) if re.fullmatch(rf"(.*[_-])?{part}\.csv", name, re.IGNORECASE)]
    if len(names) != 1:
        raise CcsError(
            f"{lists}: expected one list {part.replace('(idate)?', '')}.csv, found "
            f"{', '.join(sorted(names)) or 'none'}: put the published one there ({PAGE})"
        )
    path = os.path.join(lists, names[0])
    columns = ("label", "youtube_id", "time_start", "time_end")
    for where, row in table(read_text(path, "a list of Kinetics"), path, columns):
        try:
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
        except ValueError:
            raise CcsError(f"{where}: expected times in seconds, found {row}: download the list again") from None
        yield where, f"{row['youtube_id']}_{start:06d}_{end:06d}", nfc(row["label"]), row["youtube_id"]


def _add(dataset: str, folder: Folder, path: str, depth: int) -> None:
    found = listing(dataset, path)
    folder.add(path, found)
    for name in sorted(found.folders) if depth else ():
        _add(dataset, folder, os.path.join(path, name), depth - 1)
