"""Frames, and flow where it is there, that were extracted before: TSN's and mmaction2's "rawframes", a folder a video.

A video is a folder of img_00001.jpg, flow_x_00001.jpg and flow_y_00001.jpg (`ccs.frames.imported` has the other names).
The folders are root/CLASS/VIDEO, divided as in `ccs.datasets.folder`, or those that lists name, as in
`ccs.datasets.listed`; lines of the form `path num_frames label` are checked against what is there. Frames are not
decoded from a video, and flow that is there is not computed: the frames stage takes them in.
"""

from __future__ import annotations

from typing import Annotated

from ccs.datasets import folder, listed
from ccs.datasets.disk import Listing, listing
from ccs.datasets.manifests import Manifest
from ccs.datasets.settings import ImportSettings
from ccs.settings import Field, Text, settings
from ccs.stage import CcsError


@settings
class Settings(listed.Settings, ImportSettings):
    """Frames and flow that were extracted before: root/CLASS/VIDEO/img_00001.jpg, or folders by a list."""

    group: Annotated[Text, Field(min_length=1)] | None = None
    """without lists: regular expression for the whole name of a video's folder, as of the adapter folder"""

    def __post_init__(self) -> None:
        if self.list or self.train or self.val or self.test:
            listed.Settings.__post_init__(self)
            if self.group:
                raise ValueError("group: expected none with lists, whose column group says it: remove one of them")
        elif not self.root:
            raise ValueError("root: expected the directory of CLASS/VIDEO/img_00001.jpg, or lists, found none")


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of split 1, or 1 to `folds`; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    if settings.list or settings.train:
        found = listed.of_lists(dataset, settings, split, folders_in)
    else:
        assert settings.root is not None  # `Settings` wants one of them
        found = folder.of_folders(dataset, settings, settings.root, settings.group, split, folders_in)
    for video in found.videos:
        if (video.start, video.end) != (None, None):
            raise CcsError(
                f"dataset {dataset}: {video.path}: expected no start and end, as frames have no times, found "
                f"{video.start} and {video.end}: remove the columns"
            )
    return found


def folders_in(dataset: str, path: str) -> Listing:
    """What is in a directory whose directories are the videos."""
    found = listing(dataset, path)
    return Listing(found.folders, [], [*found.videos, *found.others], found.lost)
