"""Lists of 20BN's data sets as published: NAME-labels.csv (a class a line), NAME-train.csv and NAME-validation.csv
("ID;CLASS" a line), NAME-test.csv ("ID" a line); and a folder ID of frames, 00001.jpg and so on, for each video.

The labels of the official test videos are not published: the validation videos are `test` here, those of the test list
are unlabelled, as of something-something-v2. (Forms: mmaction2, tools/data/parse_file_list.py.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ccs.datasets.disk import Folder, Listed, assemble, check_split, directory, lines, nfc
from ccs.datasets.manifests import Manifest
from ccs.datasets.rawframes import folders_in
from ccs.datasets.settings import ImportSettings, ListedSettings
from ccs.settings import settings
from ccs.stage import CcsError


@settings
class FramesSettings(ListedSettings, ImportSettings):
    """A data set that is published as folders of frames."""


def of_lists(dataset: str, settings: FramesSettings, split: int, name: str) -> Manifest:
    """The manifest of split 1 of the data set whose lists are called NAME-train.csv and so on."""
    check_split(dataset, split, name)
    root = directory(dataset, "root", settings.root, f"the folders of {name}, ID/00001.jpg")
    lists = directory(dataset, "lists", settings.lists, f"the lists {name}-labels.csv and so on")
    classes = [nfc(text) for _, text in lines(os.path.join(lists, f"{name}-labels.csv"), "the list of classes")]
    labels = {text: label for label, text in enumerate(classes)}
    if len(labels) < len(classes):
        raise CcsError(f"{os.path.join(lists, name)}-labels.csv: expected each class once: download it again")
    listed = [
        *_videos(os.path.join(lists, f"{name}-train.csv"), "train", labels),
        *_videos(os.path.join(lists, f"{name}-validation.csv"), "test", labels),
        *_videos(os.path.join(lists, f"{name}-test.csv"), "unlabelled", {"": -1}),
    ]
    folder = Folder()
    folder.add(root, folders_in(dataset, root))
    return assemble(dataset, settings, root, classes, listed, {"": folder})


def _videos(path: str, part: str, labels: Mapping[str, int]) -> Iterator[Listed]:
    """The lines of a list; a test list has no labels, or some that are not the videos'."""
    for where, text in lines(path, f"the {part} list"):
        video, _, label = (each.strip() for each in nfc(text).partition(";"))
        label = "" if part == "unlabelled" else label
        if label not in labels:
            raise CcsError(f"{where}: expected 'ID;CLASS' with a class of the list of classes, found {text!r}")
        yield Listed(video, "", video, labels[label], part, video, where)
