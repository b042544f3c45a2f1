"""UCF-101 as published: `root/CLASS/v_Class_gNN_cNN.avi`, and the lists of the recognition task.

Lists: classInd.txt ("1 ApplyEyeMakeup"; labels here start at 0), trainlist01.txt ("CLASS/FILE.avi 1") and
testlist01.txt ("CLASS/FILE.avi"), for splits 1 to 3. A video's id is CLASS/FILE without the extension. The videos of
one class and one gNN show the same people and place: `val` is taken from `train` by such groups.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from ccs.datasets.disk import Listed, assemble, class_folders, directory, lines, nfc, stem
from ccs.datasets.manifests import Manifest
from ccs.datasets.settings import SplitSettings
from ccs.settings import settings
from ccs.stage import CcsError

PAGE = "https://www.crcv.ucf.edu/data/UCF101.php"
_CLASS = re.compile(r"(\d{1,9})\s+(\S.*)")
_VIDEO = re.compile(r"([^/]+)/([^/]+?\.\w+)(?:\s+(\d{1,9}))?")
_GROUP = re.compile(r"(.*_g\d+)_c\d+", re.IGNORECASE)


@settings
class Settings(SplitSettings):
    """UCF-101 as published."""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of split 1, 2 or 3; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    if split not in (1, 2, 3):
        raise CcsError(f"dataset {dataset}: split {split} of UCF-101 does not exist: choose among 1, 2 and 3")
    root = directory(dataset, "root", settings.root, "the UCF-101 videos, CLASS/v_CLASS_g01_c01.avi")
    lists = directory(dataset, "lists", settings.lists, "the UCF-101 split lists, classInd.txt and trainlist01.txt")
    labels = _classes(os.path.join(lists, "classInd.txt"))
    listed = [
        *_videos(os.path.join(lists, f"trainlist{split:02d}.txt"), "train", labels),
        *_videos(os.path.join(lists, f"testlist{split:02d}.txt"), "test", labels),
    ]
    return assemble(dataset, settings, root, list(labels), listed, class_folders(dataset, root))


def group_of(video: str) -> str:
    """What the videos of one class and one gNN have in common, by a video's id; the id where its name is another."""
    group = _GROUP.fullmatch(video)
    return group[1] if group else video


def _classes(path: str) -> dict[str, int]:
    """Label by class name, in label order."""
    labels: dict[str, int] = {}
    for source, text in lines(path, "the UCF-101 class list"):
        match = _CLASS.fullmatch(nfc(text))
        if not match or int(match[1]) != len(labels) + 1 or match[2] in labels:
            raise CcsError(f"{source}: expected '{len(labels) + 1} CLASS' with a new class, found {text!r}")
        labels[match[2]] = len(labels)
    return labels


def _videos(path: str, split: str, labels: Mapping[str, int]) -> Iterator[Listed]:
    form = "CLASS/FILE.avi LABEL" if split == "train" else "CLASS/FILE.avi"
    for source, text in lines(path, f"the UCF-101 {split} list"):
        match = _VIDEO.fullmatch(nfc(text))
        if not match or (split == "train" and match[3] is None):
            raise CcsError(f"{source}: expected '{form}', found {text!r}")
        class_name, name, number = match.groups()
        if class_name not in labels:
            raise CcsError(
                f"{source}: unknown class {class_name!r}: classInd.txt has {len(labels)} others; correct one"
            )
        label = labels[class_name]
        if number is not None and int(number) != label + 1:
            raise CcsError(f"{source}: expected label {label + 1} of {class_name} in classInd.txt, found {number}")
        video = f"{class_name}/{stem(name)}"
        yield Listed(video, class_name, name, label, split, group_of(video), source)
