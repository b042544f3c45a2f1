"""What a network takes of each segment of a video, told to those who cut clips (`ccs.clips.sampling`)."""

from __future__ import annotations

from typing import NamedTuple


class Snippet(NamedTuple):
    """What a segment shows: `flow_length` pairs L, and as many frames (`all_frames`, 3-D backbones) or the middle one.

    Frames and pairs share their indices.
    """

    flow_length: int
    all_frames: bool = False
