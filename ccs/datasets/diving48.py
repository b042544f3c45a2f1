"""Diving48 as published: `root/VIDEO.mp4`, and the JSON lists of its second version (svcl.ucsd.edu/projects/resound).

Diving48_V2_train.json and Diving48_V2_test.json are lists of {"vid_name", "label", ...}, Diving48_vocab.json has the
four parts of each class's name in label order. A video is VIDEO_NNNNN, a dive cut out of one YouTube video: `val` is
taken from `train` by these. An id is vid_name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ccs.datasets.disk import Folder, Listed, assemble, check_split, directory, listing, nfc, read_json
from ccs.datasets.manifests import Manifest
from ccs.datasets.settings import ListedSettings
from ccs.settings import settings
from ccs.stage import CcsError

PAGE = "http://www.svcl.ucsd.edu/projects/resound/dataset.html"


@settings
class Settings(ListedSettings):
    """Diving48 as published, version 2 of its lists."""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of the only split, 1; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    check_split(dataset, split, "Diving48")
    root = directory(dataset, "root", settings.root, "the Diving48 videos, VIDEO_00000.mp4")
    lists = directory(dataset, "lists", settings.lists, "the lists Diving48_V2_train.json and so on")
    vocabulary = read_json(os.path.join(lists, "Diving48_vocab.json"), list, "the classes of Diving48")
    classes = [nfc(" ".join(map(str, parts)) if isinstance(parts, list) else str(parts)) for parts in vocabulary]
    listed = [
        *_videos(os.path.join(lists, "Diving48_V2_train.json"), "train", len(classes)),
        *_videos(os.path.join(lists, "Diving48_V2_test.json"), "test", len(classes)),
    ]
    folder = Folder()
    folder.add(root, listing(dataset, root))
    return assemble(dataset, settings, root, classes, listed, {"": folder})


def _videos(path: str, part: str, num_classes: int) -> Iterator[Listed]:
    for number, entry in enumerate(read_json(path, list, "a list of Diving48"), start=1):
        try:
            video, label = nfc(str(entry["vid_name"])), int(entry["label"])
        except (TypeError, KeyError, ValueError):
            raise CcsError(
                f"{path}, entry {number}: expected an object with vid_name and label, found {entry!r}"
            ) from None
        if not 0 <= label < num_classes:
            raise CcsError(
                f"{path}, entry {number}: unknown class {label}: Diving48_vocab.json has {num_classes}, numbered from 0"
            )
        yield Listed(video, "", f"{video}.mp4", label, part, video.rpartition("_")[0], f"{path}, entry {number}")
