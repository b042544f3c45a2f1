"""Jester (20BN, V1) as published: folders root/ID/00001.jpg, and the lists that `ccs.datasets.twentybn` tells of."""

from __future__ import annotations

from ccs.datasets.manifests import Manifest
from ccs.datasets.twentybn import FramesSettings, of_lists
from ccs.settings import settings

MIRRORED_LABELS = True  # swiping left and swiping right
PAGE = "https://www.qualcomm.com/developer/software/jester-dataset"


@settings
class Settings(FramesSettings):
    """Jester as published."""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of the only split, 1; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    return of_lists(dataset, settings, split, "jester-v1")
