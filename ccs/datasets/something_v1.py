"""Something-something-v1 as published: root/ID/00001.jpg, and the lists that `ccs.datasets.twentybn` tells of."""

from __future__ import annotations

from ccs.datasets.manifests import Manifest
from ccs.datasets.twentybn import FramesSettings, of_lists
from ccs.settings import settings

MIRRORED_LABELS = True  # some classes differ in left and right alone
PAGE = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset (of version 2, by the same people)"


@settings
class Settings(FramesSettings):
    """Something-something-v1 as published."""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of the only split, 1; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    return of_lists(dataset, settings, split, "something-something-v1")
