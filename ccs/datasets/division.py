"""How people's own videos are divided: by what is given, else a share of each class or folds, groups always whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

from ccs.datasets.disk import note
from ccs.datasets.holdout import folds, hold_out
from ccs.datasets.manifests import Video
from ccs.datasets.settings import DatasetSettings
from ccs.settings import Ge, Gt, Integer, Le, Lt, Number, settings
from ccs.stage import CcsError


@settings
class DivisionSettings(DatasetSettings):
    """A data set whose division may be made here."""

    test_fraction: Annotated[Number, Gt(0), Lt(1)] = 0.2
    """share of the videos that are for testing, where nothing says which are"""
    folds: Annotated[Integer, Ge(2), Le(99)] | None = None
    """cross-validation: so many splits in place of one, each group (or video) being for testing in one of them; tables
    show each on its own"""


def divide(
    dataset: str,
    settings: DivisionSettings,
    split: int,
    videos: list[Video],
    groups: Mapping[str, str],
    given: Collection[str],
    by: str | None,
) -> list[Video]:
    """The videos with their parts under split number `split`.

    Args:
        videos: those in no given part are in train.
        groups: the group of each, by id.
        given: the parts that videos are in already, such as "test" and "val".
        by: what tells the groups, for messages; None where each video is one.

    Raises:
        CcsError: fewer groups than folds, or a class that would have none to train on in one of them.
    """
    _check_groups(dataset, settings, videos, groups, by)
    if settings.folds:
        fold_of = folds(((groups[video.video], video.label) for video in videos), settings.folds, settings.seed)
        _check_folds(dataset, settings, videos, [fold_of[groups[video.video]] for video in videos], by)
        videos = [v._replace(split="test") if fold_of[groups[v.video]] == split else v for v in videos]
    elif "test" not in given:
        videos = _hold_out(videos, groups, "test", settings.test_fraction, settings.seed, at_least=1)
    if "val" not in given:
        videos = _hold_out(videos, groups, "val", settings.val_fraction, settings.seed)
    return videos


def _check_groups(
    dataset: str, settings: DivisionSettings, videos: list[Video], groups: Mapping[str, str], by: str | None
) -> None:
    """Raise `CcsError` where there are fewer groups than folds; say which are both in test and outside it."""
    num_groups = len({groups[video.video] for video in videos})
    if settings.folds and num_groups < settings.folds:
        raise CcsError(
            f"dataset {dataset}: folds is {settings.folds}, but there are only {num_groups} "
            f"{'groups' if by else 'videos'}: lower folds" + (f", or correct group ({by})" if by else "")
        )
    tested = {groups[video.video] for video in videos if video.split == "test"}
    if both := sorted(tested & {groups[video.video] for video in videos if video.split in ("train", "val")}):
        note(dataset, f"{len(both)} groups are both in test and outside it, such as {both[0]!r}: move their videos")


def _check_folds(
    dataset: str, settings: DivisionSettings, videos: list[Video], fold: list[int], by: str | None
) -> None:
    """Raise `CcsError` for a class all of whose videos are for testing in one fold, with none to train on there."""
    folds_of: dict[str, set[int]] = {}
    for video, number in zip(videos, fold, strict=True):
        folds_of.setdefault(video.class_name, set()).add(number)
    for class_name, numbers in folds_of.items():
        if len(numbers) == 1:
            kind = f"groups by {by}" if by else "videos"
            raise CcsError(
                f"dataset {dataset}: expected {kind} of class {class_name!r} in at least 2 of {settings.folds} folds, "
                f"found them all in fold {min(numbers)}, which would leave none to train on: add videos of others"
                + (", or correct group" if by else "")
            )


def _hold_out(
    videos: list[Video], groups: Mapping[str, str], part: str, fraction: float, seed: int, at_least: int = 0
) -> list[Video]:
    """Move a share of each class's training videos to `part`, by whole groups."""
    train = [(groups[video.video], video.label) for video in videos if video.split == "train"]
    held = hold_out(train, fraction, seed, at_least)
    return [v._replace(split=part) if v.split == "train" and groups[v.video] in held else v for v in videos]
