"""What data sets have in common in the configuration; each adapter's own settings stand in its module."""

from __future__ import annotations

from typing import Annotated, Literal

from ccs.settings import Different, Field, Ge, Gt, Integer, Le, Lt, NoBoolean, Number, Text, settings

Directory = Annotated[Text, Field(min_length=1)]


@settings
class DatasetSettings:
    """Of every data set."""

    shards: Annotated[Integer, Ge(1), Le(9999)] = 16
    """parts that are processed on their own; about 100 videos in each is a good size"""
    val_fraction: Annotated[Number, Ge(0), Lt(1)] = 0.0
    """share of the training videos that is kept for validation, by group where there are groups; train.patience needs
    some"""
    seed: Annotated[Integer, Ge(0)] = 0
    """of what is drawn at random, such as the validation videos"""


@settings
class ImportSettings:
    """What is known of frames and flow that were extracted before."""

    bound: Annotated[Number, Gt(0)] = 20.0
    """largest displacement, in pixels, of flow that is there as pictures, whose values are (flow + bound) * 255 / (2 *
    bound)"""


@settings
class AbsentSettings(DatasetSettings):
    """A data set whose videos are listed."""

    max_absent_fraction: Annotated[Number, Ge(0), Le(1)] = 0.0
    """share of the listed videos that may be absent from root"""


@settings
class ListedSettings(AbsentSettings):
    """A data set with published lists."""

    root: Directory = Field(kw_only=True)
    """directory of the videos, relative to the working directory"""
    lists: Directory = Field(kw_only=True)
    """directory of the published lists, relative to the working directory"""


@settings
class SplitSettings(ListedSettings):
    """A data set with three published splits."""

    splits: Annotated[tuple[Annotated[Literal[1, 2, 3], NoBoolean], ...], Field(min_length=1), Different()] = (1,)
    """which of the published splits; tables show each on its own"""
