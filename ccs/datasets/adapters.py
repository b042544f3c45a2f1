"""Adapters: a directory of videos and its split lists in, one `Manifest` out.

Each adapter is a module of this package with `manifest(dataset, settings, split) -> Manifest`, chosen by
`settings["adapter"]`. Everything that can be wrong with the videos' names and lists is found here, before any work
starts; no video is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from ccs.datasets import demo, folder, hmdb51, something_v2, ucf101
from ccs.datasets.manifests import Manifest
from ccs.stage import CcsError

ADAPTERS = {"demo": demo, "folder": folder, "hmdb51": hmdb51, "something_v2": something_v2, "ucf101": ucf101}
_UNSAFE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are not UTF-8


def load(dataset: str, settings: Mapping, split: int = 1) -> Manifest:
    """The manifest of `dataset`, from its block of the configuration, under split number `split`.

    Raises `CcsError` for a missing root or list, absent videos beyond `max_absent_fraction`, unknown classes, ids
    that occur twice, malformed lists, or no videos at all. Notes that are no errors go to standard error.
    """
    adapter = settings.get("adapter")
    if adapter not in ADAPTERS:
        raise CcsError(f"dataset {dataset}: adapter is {adapter!r}: choose one of {', '.join(ADAPTERS)}")
    _check_fractions(dataset, settings)
    manifest = ADAPTERS[adapter].manifest(dataset, settings, split)
    _check(manifest)
    return replace(manifest, rendered=True) if adapter == "demo" else manifest


def splits(settings: Mapping) -> tuple[int, ...]:
    """The configured split numbers, `(1,)` unless `settings["splits"]` says otherwise."""
    numbers = settings.get("splits", (1,))
    if (
        not isinstance(numbers, (list, tuple))
        or not numbers
        or not all(isinstance(number, int) and number >= 1 for number in numbers)
        or len(set(numbers)) < len(numbers)
    ):
        raise CcsError(f"splits is {numbers!r}: give a list of different split numbers, such as [1] or [1, 2, 3]")
    return tuple(numbers)


def _check_fractions(dataset: str, settings: Mapping) -> None:
    for name in ("val_fraction", "test_fraction", "max_absent_fraction"):
        value = settings.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise CcsError(f"dataset {dataset}: {name} is {value!r}: expected a number from 0 to 1")


def _check(manifest: Manifest) -> None:
    """What must hold whatever the adapter."""
    where = f"dataset {manifest.dataset}"
    if not manifest.videos:
        raise CcsError(f"{where}: no videos at all")
    ids = [video.video for video in manifest.videos]
    if any(a >= b for a, b in pairwise(ids)):
        raise CcsError(f"{where}: video ids are not unique and sorted")
    if _UNSAFE.search("".join(ids)) or _UNSAFE.search("".join(video.path for video in manifest.videos)):
        bad = next(video.path for video in manifest.videos if _UNSAFE.search(video.video + video.path))
        raise CcsError(
            f"{where}: the path {bad!r} has a control character or is not UTF-8, which tables cannot hold: rename it"
        )
