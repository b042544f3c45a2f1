"""Something-something-v2 as published: `root/ID.webm`, and four JSON lists.

The lists are something-something-v2-{labels,train,validation,test}.json, or labels.json, train.json and so on.
Placeholders are no part of a class: "Putting [something] on [something]" is "Putting something on something". The
labels of the official test videos are not published, so that results are reported on the official validation videos.
Here, therefore:

| official | split | label |
|---|---|---|
| train | train, and `val` at random by `val_fraction` and `seed` | from labels.json |
| validation | test | from labels.json |
| test | unlabelled | -1 |
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ccs.datasets.disk import Folder, Listed, assemble, check_split, directory, listing, nfc, read_json
from ccs.datasets.manifests import Manifest
from ccs.datasets.settings import ListedSettings
from ccs.settings import settings
from ccs.stage import CcsError

MIRRORED_LABELS = True  # some classes differ in left and right alone
PAGE = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
_PREFIX = "something-something-v2-"
_HOLDS = "a list of something-something-v2"


@settings
class Settings(ListedSettings):
    """Something-something-v2 as published."""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of the only split, 1; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    check_split(dataset, split, "something-something-v2")
    root = directory(dataset, "root", settings.root, "the something-something-v2 videos, ID.webm")
    lists = directory(dataset, "lists", settings.lists, f"the lists {_PREFIX}labels.json and so on")
    classes = _classes(_path(lists, "labels"))
    labels = {name: label for label, name in enumerate(classes)}
    listed = [
        *_videos(_path(lists, "train"), "train", labels),
        *_videos(_path(lists, "validation"), "test", labels),
        *_videos(_path(lists, "test"), "unlabelled", None),
    ]
    folder = Folder()
    folder.add(root, listing(dataset, root))
    return assemble(dataset, settings, root, classes, listed, {"": folder})


def _path(lists: str, part: str) -> str:
    short = os.path.join(lists, f"{part}.json")
    return short if os.path.exists(short) else os.path.join(lists, f"{_PREFIX}{part}.json")


def _class_name(template: str) -> str:
    return nfc(template.replace("[", "").replace("]", ""))


def _classes(path: str) -> list[str]:
    """Class names in label order; the file has label numbers, as text, by name."""
    by_label: dict[str, str] = {str(label): _class_name(name) for name, label in read_json(path, dict, _HOLDS).items()}
    classes = [by_label[str(label)] for label in range(len(by_label)) if str(label) in by_label]
    if len(set(classes)) < len(read_json(path, dict, _HOLDS)):
        raise CcsError(f"{path}: expected a class for each label from 0 to {len(by_label) - 1}, each once")
    return classes


def _videos(path: str, split: str, labels: Mapping[str, int] | None) -> Iterator[Listed]:
    """The entries of one list; `labels` is None where the list has ids only."""
    by_template: dict[str | None, int] = {} if labels else {None: -1}
    for number, entry in enumerate(read_json(path, list, _HOLDS), start=1):
        try:
            video = nfc(str(entry["id"]))
            template = entry["template"] if labels else None
        except (TypeError, KeyError):
            keys = "id and template" if labels else "id"
            raise CcsError(f"{path}, entry {number}: expected an object with {keys}, found {entry!r}") from None
        if labels and template not in by_template:
            name = _class_name(str(template))
            if name not in labels:
                raise CcsError(
                    f"{path}, entry {number}: unknown class {template!r}: it is not in labels.json; correct one"
                )
            by_template[template] = labels[name]
        yield Listed(video, "", f"{video}.webm", by_template[template], split, video, f"{path}, entry {number}")
