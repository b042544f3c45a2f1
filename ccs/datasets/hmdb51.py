"""HMDB-51 as published: `root/CLASS/*.avi`, and one list a class and split, CLASS_test_split1.txt.

A line is a file name and 0 (unused in this split), 1 (train) or 2 (test). The classes are the lists' names, sorted. A
video's id is CLASS/FILE without the extension. Videos cut from one film share the part of the name before _CLASS_, and
many films have clips of several classes: `val` is taken from `train` by whole films.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ccs.datasets.disk import Listed, assemble, class_folders, directory, lines, listing, nfc, put, stem
from ccs.datasets.manifests import Manifest
from ccs.datasets.settings import SplitSettings
from ccs.settings import settings
from ccs.stage import CcsError

PAGE = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
_LIST = re.compile(r"(.+)_test_split(\d)\.txt")
_VIDEO = re.compile(r"([^/]+?)\s+([012])")
_SPLITS = {"0": "unused", "1": "train", "2": "test"}


@settings
class Settings(SplitSettings):
    """HMDB-51 as published."""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of split 1, 2 or 3; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    if split not in (1, 2, 3):
        raise CcsError(f"dataset {dataset}: split {split} of HMDB-51 does not exist: choose among 1, 2 and 3")
    root = directory(dataset, "root", settings.root, "the HMDB-51 videos, CLASS/*.avi")
    lists = directory(dataset, "lists", settings.lists, "the HMDB-51 split lists, CLASS_test_split1.txt")
    names: dict[str, str] = {}
    for name in listing(dataset, lists).others:
        put(names, nfc(name), os.path.join(lists, name))
    found = [match for name in names if (match := _LIST.fullmatch(name))]
    if not any(match[2] == str(split) for match in found):
        raise CcsError(
            f"{lists}: expected the lists CLASS_test_split{split}.txt, found {len(found)} lists of other splits: "
            f"put them there, or correct `lists` or `splits` of dataset {dataset}"
        )
    # A class is known by its list of any split, so that one list that is missing is missed.
    classes = sorted({match[1] for match in found})
    of_split = [f"{class_name}_test_split{split}.txt" for class_name in classes]
    listed = [
        item
        for label, name in enumerate(of_split)
        for item in _videos(names.get(name, os.path.join(lists, name)), classes[label], label)
    ]
    return assemble(dataset, settings, root, classes, listed, class_folders(dataset, root))


def group_of(video: str) -> str:
    """The film that a video was cut from, by its id; the id where its name is another."""
    class_name, _, name = video.partition("/")
    film, separator, _ = name.rpartition(f"_{class_name}_")
    return film if separator else video


def _videos(path: str, class_name: str, label: int) -> Iterator[Listed]:
    for source, text in lines(path, f"the HMDB-51 list of class {class_name}"):
        match = _VIDEO.fullmatch(nfc(text))
        if not match:
            raise CcsError(f"{source}: expected 'FILE.avi' and 0, 1 or 2, found {text!r}")
        video = f"{class_name}/{stem(match[1])}"
        yield Listed(video, class_name, match[1], label, _SPLITS[match[2]], group_of(video), source)
