"""Clips against a slow and plain account of the same: every snippet read, cut, mirrored and resized by itself."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from ccs.clips import transforms
from ccs.clips.dataset import ClipSettings, TestClips, TrainClips
from ccs.clips.sampling import frame_indices, pair_indices, segment_starts
from ccs.datasets.manifests import Video
from ccs.models.snippet import Snippet

SNIPPETS = [Snippet(5), Snippet(4, all_frames=True), Snippet(2)]
# height, width, settings: the demo's; halved, where OpenCV takes another way; enlarged; of the size that the network
# sees, which is not resized (as are the test crops of 64 px); upright
CASES = [
    (64, 86, ClipSettings(segments=3, input_size=64)),
    (96, 120, ClipSettings(segments=2, input_size=48, scales=(1.0, 0.5), test_scale=1.0)),
    (35, 47, ClipSettings(segments=3, input_size=41, test_scale=0.7)),
    (48, 64, ClipSettings(segments=2, input_size=48, scales=(1.0,), test_scale=1.0)),
    (131, 77, ClipSettings(segments=1, input_size=37, flip=False)),
]


class InMemory:
    """What clips want of a `ShardReader`, of made-up videos of 2 to 40 frames."""

    def __init__(self, height: int, width: int) -> None:
        rng = np.random.default_rng([height, width])
        self.num_frames = {f"{n} frames": n for n in (2, 5, 9, 16, 40)}
        self.all_frames = {v: rng.integers(0, 256, (n, height, width, 3), np.uint8) for v, n in self.num_frames.items()}
        self.pairs = {v: rng.integers(1, 256, (n - 1, 2, height, width), np.uint8) for v, n in self.num_frames.items()}

    def frames(self, video: str, indices: Sequence[int]) -> np.ndarray:
        return self.all_frames[video][list(indices)]

    def flow(self, video: str, indices: Sequence[int]) -> np.ndarray:
        return self.pairs[video][list(indices)]


def plain_image(image: np.ndarray, crop: transforms.Crop, size: int) -> np.ndarray:
    """Crop, flip and resize (H, W, C) by one call each."""
    cut = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    cut = np.ascontiguousarray(cut[:, ::-1] if crop.flip else cut)
    return cut if cut.shape[:2] == (size, size) else cv2.resize(cut, (size, size), interpolation=cv2.INTER_LINEAR)


def plain_clip(
    reader: InMemory, video: str, starts: np.ndarray, snippet: Snippet, crop: transforms.Crop, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The clip of snippets at `starts`; a mirrored scene moves the other way."""
    num_frames = reader.num_frames[video]
    rgb, flow = [], []
    for frames in frame_indices(starts, snippet=snippet, num_frames=num_frames):
        rgb.append([plain_image(reader.all_frames[video][t], crop, size).transpose(2, 0, 1) for t in frames])
    for pairs in pair_indices(starts, snippet=snippet, num_frames=num_frames):
        stack = np.concatenate([reader.pairs[video][t] for t in pairs]).transpose(1, 2, 0)  # (H, W, 2L)
        values = plain_image(stack, crop, size).transpose(2, 0, 1).reshape(len(pairs), 2, size, size).astype(int)
        if crop.flip:
            values[:, 0] = 256 - values[:, 0]
        flow.append(values)
    return np.array(rgb), np.array(flow)


def plain_crop(height: int, width: int, settings: ClipSettings, rng: np.random.Generator) -> transforms.Crop:
    """TSN's random crop; the order of the draws is part of what makes runs repeatable."""
    sides = [round(min(height, width) * scale) for scale in settings.scales]
    sizes = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    h, w = sizes[rng.integers(len(sizes))]
    fourths = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)]
    y, x = fourths[rng.integers(13)]
    flip = settings.flip and bool(rng.integers(2))
    return transforms.Crop(int(y * ((height - h) / 4)), int(x * ((width - w) / 4)), h, w, flip)


@pytest.mark.parametrize("snippet", SNIPPETS)
@pytest.mark.parametrize(("height", "width", "settings"), CASES)
def test_training_clips_are_the_plain_ones_to_the_bit(height, width, settings, snippet):
    reader = InMemory(height, width)
    videos = [Video(video, "", label, str(label), "train") for label, video in enumerate(reader.num_frames)]
    clips = TrainClips(reader, videos, settings, snippet=snippet, seed=7)
    crops = set()
    for index, video in enumerate(reader.num_frames):
        for epoch in range(8):
            rgb, flow, label = clips[index, epoch, 1]
            name = int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], "little")
            rng = np.random.default_rng([7, epoch, 1, name])
            starts = segment_starts(reader.num_frames[video], segments=settings.segments, snippet=snippet, rng=rng)
            crops.add(crop := plain_crop(height, width, settings, rng))
            expected = plain_clip(reader, video, starts, snippet, crop, settings.input_size)
            np.testing.assert_array_equal(rgb, expected[0])
            np.testing.assert_array_equal(flow, expected[1])
            assert rgb.is_contiguous()
            assert flow.is_contiguous()
            assert label == index
    assert {crop.flip for crop in crops} == {settings.flip, False}
    assert len(crops) >= 10 or len(settings.scales) == 1  # crops that are all the same would say little


@pytest.mark.parametrize("snippet", SNIPPETS)
@pytest.mark.parametrize(("height", "width", "settings"), CASES)
def test_test_clips_are_the_plain_ones_to_the_bit(height, width, settings, snippet):
    reader = InMemory(height, width)
    videos = [Video(video, "", label, str(label), "test") for label, video in enumerate(reader.num_frames)]
    for num_crops in (1, 10):
        clips = TestClips(reader, videos, settings, snippet=snippet, segments=4, crops=num_crops)
        crops = transforms.test_crops(height, width, dataclasses.replace(settings, flip=True), crops=num_crops)
        crops = [crop for crop in crops if settings.flip or not crop.flip]
        for index, video in enumerate(reader.num_frames):
            rgb, flow, _ = clips[index]
            starts = segment_starts(reader.num_frames[video], segments=4, snippet=snippet)
            assert len(rgb) == len(flow) == (5 if num_crops == 10 and not settings.flip else num_crops)
            for found_rgb, found_flow, crop in zip(rgb, flow, crops, strict=True):
                expected = plain_clip(reader, video, starts, snippet, crop, settings.input_size)
                np.testing.assert_array_equal(found_rgb, expected[0])
                np.testing.assert_array_equal(found_flow, expected[1])
