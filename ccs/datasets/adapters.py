"""Adapters: a directory of videos and its split lists in, one `Manifest` out.

Each adapter is a module of this package with its `Settings` and `manifest(dataset, settings, split) -> Manifest`; the
configuration's key `adapter` chooses one. Everything that can be wrong with the videos' names and lists is found here,
before any work starts; no video is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

from ccs.datasets import (
    demo,
    diving48,
    folder,
    hmdb51,
    jester,
    kinetics,
    listed,
    rawframes,
    something_v1,
    something_v2,
    ucf101,
)
from ccs.datasets.disk import UNSAFE
from ccs.datasets.manifests import Manifest
from ccs.datasets.settings import DatasetSettings
from ccs.settings import from_names
from ccs.stage import CcsError


class Adapter(Protocol):
    """A module that knows one layout; it may also say MIRRORED_LABELS, and PAGE, where its authors give it out."""

    @property
    def Settings(self) -> type[DatasetSettings]: ...

    def manifest(self, dataset: str, settings: Any, split: int) -> Manifest: ...  # settings: its own `Settings`


ADAPTERS: dict[str, Adapter] = {
    "demo": demo,
    "diving48": diving48,
    "folder": folder,
    "hmdb51": hmdb51,
    "jester": jester,
    "kinetics": kinetics,
    "list": listed,
    "rawframes": rawframes,
    "something_v1": something_v1,
    "something_v2": something_v2,
    "ucf101": ucf101,
}


OWN = ("folder", "list", "rawframes")  # of the user's own videos, divided by the user


def load(dataset: str, settings: Mapping, split: int = 1) -> Manifest:
    """The manifest of `dataset`, from its block of the configuration, under split number `split`.

    Raises `CcsError` for a missing root or list, absent videos beyond `max_absent_fraction`, unknown classes, ids
    that occur twice, malformed lists, or no videos at all. Notes that are no errors go to standard error.
    """
    adapter = settings.get("adapter")
    if adapter not in ADAPTERS:
        raise CcsError(f"dataset {dataset}: adapter is {adapter!r}: choose one of {', '.join(ADAPTERS)}")
    try:
        given = {name: value for name, value in settings.items() if name != "adapter"}
        typed = from_names(ADAPTERS[adapter].Settings, given)
    except CcsError as error:
        raise CcsError(f"dataset {dataset}: {error}") from None
    manifest = ADAPTERS[adapter].manifest(dataset, typed, split)
    _check(manifest)
    return replace(manifest, rendered=True) if adapter == "demo" else manifest


def splits(settings: Mapping) -> tuple[int, ...]:
    """The configured split numbers of a checked block; 1 where the data set has but one."""
    if folds := settings.get("folds"):
        return tuple(range(1, folds + 1))
    return tuple(settings.get("splits", (1,)))


def mirrored_labels(adapter: str) -> bool:
    """Whether left and right are labels there, so that no clip should be mirrored."""
    return getattr(ADAPTERS[adapter], "MIRRORED_LABELS", False)


def _check(manifest: Manifest) -> None:
    """What must hold whatever the adapter."""
    where = f"dataset {manifest.dataset}"
    if not manifest.videos:
        raise CcsError(f"{where}: no videos at all")
    ids = [video.video for video in manifest.videos]
    if any(a >= b for a, b in pairwise(ids)):
        raise CcsError(f"{where}: video ids are not unique and sorted")
    if UNSAFE.search("".join(ids)) or UNSAFE.search("".join(video.path for video in manifest.videos)):
        bad = next(video.path for video in manifest.videos if UNSAFE.search(video.video + video.path))
        raise CcsError(
            f"{where}: the path {bad!r} has a control character or is not UTF-8, which tables cannot hold: rename it"
        )
