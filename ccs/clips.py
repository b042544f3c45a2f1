"""From a video in a training shard to the clip that the network sees: uint8 arrays of both streams.

Everything random is a function of (seed, epoch, video), so that the number of loader workers changes nothing.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ccs import transforms
from ccs.datasets import Manifest, Video
from ccs.sampling import Snippet, frame_indices, pair_indices, segment_starts
from ccs.shard_reader import ShardReader
from ccs.stage import CcsError


@dataclass(frozen=True)
class ClipSettings:
    """How clips are cut from videos; TSN's values as defaults."""

    segments: int = dataclasses.field(default=3, metadata={"help": "snippets per video in training (K)"})
    input_size: int = dataclasses.field(default=224, metadata={"help": "side of the square that the network sees"})
    scales: tuple[float, ...] = dataclasses.field(
        default=(1.0, 0.875, 0.75),
        metadata={
            "help": "sides of training crops as shares of the short side (TSN's for flow, as the streams share crops)"
        },
    )
    test_scale: float = dataclasses.field(
        default=0.875, metadata={"help": "side of test crops as a share of the short side (224 of 256)"}
    )
    flip: bool = dataclasses.field(
        default=True, metadata={"help": "mirror half of the training clips; not where left and right are labels"}
    )

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 1 for scale in (*self.scales, self.test_scale)):
            raise CcsError(f"train.scales, train.test_scale: expected shares in (0, 1], found {list(self.scales)}")
        if self.segments < 1 or self.input_size < 32:
            raise CcsError(
                f"train.segments, train.input_size: expected at least 1, 32; found {self.segments}, {self.input_size}"
            )


def usable_videos(manifest: Manifest, part: str, reader: ShardReader, quarantine: str | Path) -> list[Video]:
    """The videos of `part` (train, val or test) that are in the shards, in the manifest's order.

    Raises:
        CcsError: videos that are neither in a shard nor in the quarantine list have been lost on the way.
    """
    if not Path(quarantine).is_file():
        raise CcsError(f"{quarantine}: no such list of bad videos; `ccs quarantine` writes it")
    with open(quarantine, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if "video" not in (rows.fieldnames or ()):
            raise CcsError(
                f"{quarantine}: expected a column video, found {rows.fieldnames}; `ccs quarantine` writes it"
            )
        bad = {row["video"] for row in rows}
    wanted = [video for video in manifest.videos if video.split == part]
    lost = [video.video for video in wanted if video.video not in reader and video.video not in bad]
    if lost:
        raise CcsError(
            f"{len(lost)} of {len(wanted)} {part} videos of {manifest.dataset} are neither in the shards nor in "
            f"{quarantine}, for instance {', '.join(lost[:3])}. Give all shards of the data set, or make them again"
        )
    return [video for video in wanted if video.video in reader]


class TrainClips(Dataset):
    """Random clips, indexed by the (video index, epoch, draw) of `BalancedBatches`.

    An item is (rgb (K, F, 3, S, S), flow (K, L, 2, S, S), label): uint8 tensors and an int.
    """

    def __init__(
        self, reader: ShardReader, videos: Sequence[Video], settings: ClipSettings, *, snippet: Snippet, seed: int
    ) -> None:
        self.reader, self.videos, self.settings = reader, videos, settings
        self.snippet, self.seed = snippet, seed

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        index, epoch, draw = key
        video = self.videos[index]
        name = int.from_bytes(hashlib.sha256(video.video.encode()).digest()[:8], "little")
        rng = np.random.default_rng([self.seed, epoch, draw, name])
        starts = segment_starts(
            self.reader.num_frames[video.video],
            segments=self.settings.segments,
            snippet=self.snippet,
            rng=rng,
        )
        frames, flow = _read(self.reader, video.video, starts, self.snippet)
        height, width = frames.shape[2:4]
        crop = transforms.random_crop(height, width, scales=self.settings.scales, flip=self.settings.flip, rng=rng)
        return *_crop(frames, flow, crop, self.settings.input_size), video.label


class TestClips(Dataset):
    """The clips of every video at `segments` segment centres, with 1 or 10 crops.

    An item is (rgb (crops, segments, F, 3, S, S), flow (crops, segments, L, 2, S, S), label): uint8 tensors, an int.
    """

    __test__ = False  # not a test, whatever pytest makes of its name

    def __init__(
        self,
        reader: ShardReader,
        videos: Sequence[Video],
        settings: ClipSettings,
        *,
        snippet: Snippet,
        segments: int,
        crops: int,
    ) -> None:
        self.reader, self.videos, self.settings = reader, videos, settings
        self.snippet, self.segments, self.crops = snippet, segments, crops

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        video = self.videos[index]
        starts = segment_starts(self.reader.num_frames[video.video], segments=self.segments, snippet=self.snippet)
        frames, flow = _read(self.reader, video.video, starts, self.snippet)
        height, width = frames.shape[2:4]
        crops = transforms.test_crops(height, width, scale=self.settings.test_scale, crops=self.crops)
        pairs = [_crop(frames, flow, crop, self.settings.input_size) for crop in crops]
        return torch.stack([rgb for rgb, _ in pairs]), torch.stack([flow for _, flow in pairs]), video.label


def _read(reader: ShardReader, video: str, starts: np.ndarray, snippet: Snippet) -> tuple[np.ndarray, np.ndarray]:
    """Frames (K, F, H, W, 3) and flow (K, L, 2, H, W)."""
    num_frames = reader.num_frames[video]
    pairs = pair_indices(starts, snippet=snippet, num_frames=num_frames)
    flow = reader.flow(video, pairs.ravel())  # snippets of a short video overlap: the reader reads each pair once
    wanted = frame_indices(starts, snippet=snippet, num_frames=num_frames)
    frames = reader.frames(video, wanted.ravel())
    return frames.reshape(*wanted.shape, *frames.shape[1:]), flow.reshape(*pairs.shape, *flow.shape[1:])


def _crop(frames: np.ndarray, flow: np.ndarray, crop: transforms.Crop, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    rgb = transforms.apply_rgb(frames.reshape(-1, *frames.shape[2:]), crop, size)
    rgb = rgb.reshape(*frames.shape[:2], *rgb.shape[1:])
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in (rgb, transforms.apply_flow(flow, crop, size)))
