"""How videos are decoded: the settings of the stage `frames`."""

from __future__ import annotations

from typing import Annotated

from ccs.settings import Field, Ge, Integer, Le, Number, Text, settings


@settings
class FfmpegSettings:
    """Which program decodes; it changes no result that counts."""

    ffmpeg: Text | None = None
    """path of the ffmpeg to use; without it the one on the PATH, or else the one that imageio-ffmpeg brings"""


@settings
class DamageSettings:
    """Which damaged videos are kept."""

    max_missing_fraction: Annotated[Number, Ge(0), Le(1)] = 0.0
    """share of the frames of a damaged video that may be missing; with more it is set aside, with 1 never for that"""


@settings
class PictureSettings:
    """How large the pictures are, and how they are kept."""

    short_side: Annotated[Integer, Ge(3), Le(9999)] | None = 256
    """pixels of a frame's shorter side, the other in proportion; size wins over it"""
    size: Annotated[Text, Field(pattern=r"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$")] | None = None
    """exact WIDTHxHEIGHT such as 340x256 instead of short_side"""
    quality: Annotated[Integer, Ge(1), Le(100)] = 95
    """of the JPEGs"""

    def __post_init__(self) -> None:
        if self.size is None and self.short_side is None:
            raise ValueError("short_side: expected pixels, as size is not given either; found none")


@settings
class FramesSettings(DamageSettings, PictureSettings):
    """What the frames depend on."""
