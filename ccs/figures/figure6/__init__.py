"""Figure 6 of the paper, class activation maps of the RGB stream."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from ccs.datasets.disk import nfc
from ccs.settings import Different, Field, Text, settings
from ccs.tables.shown import OneRun

CAPTION = (
    "Class activation maps of the RGB stream for the true class, over the frames that it saw: where brighter, the "
    "features speak more for the class."
)
OF_NETWORKS = True  # it is drawn from checkpoints and shards, of the first seed: maps of three would be three figures


@settings
class Shown(OneRun):
    """Class activation maps of the RGB stream: Figure 6 of the paper."""

    classes: Annotated[tuple[Annotated[Text, AfterValidator(nfc)], ...], Field(min_length=1), Different()] | None = None
    """names of classes; without it the first three of the data set"""
