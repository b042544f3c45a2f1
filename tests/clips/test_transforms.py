"""Crops and flips against torchvision and against a scene that is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms import functional, v2

from ccs.clips import transforms
from ccs.clips.settings import ClipSettings
from ccs.clips.transforms import Crop, apply_flow, apply_rgb, random_crop


def test_ten_crops_are_those_of_torchvision():
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 86, 3), dtype=np.uint8)
    settings = ClipSettings(test_scale=0.875, input_size=56)
    crops = transforms.test_crops(64, 86, settings, crops=10)
    ours = [apply_rgb(frames, crop, 56)[0] for crop in crops]
    theirs = v2.TenCrop(56)(torch.from_numpy(frames[0]).permute(2, 0, 1))
    assert sorted(x.tobytes() for x in ours) == sorted(x.numpy().tobytes() for x in theirs)
    where_sides_are_labels = transforms.test_crops(64, 86, dataclasses.replace(settings, flip=False), crops=10)
    five = [apply_rgb(frames, crop, 56)[0] for crop in where_sides_are_labels]
    theirs = v2.FiveCrop(56)(torch.from_numpy(frames[0]).permute(2, 0, 1))
    assert sorted(x.tobytes() for x in five) == sorted(x.numpy().tobytes() for x in theirs)
    (centre,) = transforms.test_crops(64, 86, settings, crops=1)
    expected = functional.center_crop(torch.from_numpy(frames[0]).permute(2, 0, 1), [56, 56])
    assert np.array_equal(apply_rgb(frames, centre, 56)[0], expected.numpy())


@pytest.mark.parametrize(
    ("short_side", "scale", "size", "side"),
    [
        (240, 0.93, 224, 224),  # not 223, which would be enlarged
        (240, 0.94, 224, 224),  # nor 226
        (240, 0.92, 224, 221),  # 1.3 % away
        (240, 0.95, 224, 228),
        (223, 1.0, 224, 223),  # no more than there is
        (64, 0.95, 60, 61),  # a pixel of 60 is 1.7 %
        (256, 0.875, 224, 224),
    ],
)
def test_test_crops_that_are_nearly_of_the_networks_size_are_of_it(short_side, scale, size, side):
    settings = ClipSettings(test_scale=scale, input_size=size)
    for crops in (1, 10):
        found = transforms.test_crops(short_side, short_side + 80, settings, crops=crops)
        assert {(crop.height, crop.width) for crop in found} == {(side, side)}
        assert all(crop.top + side <= short_side and crop.left + side <= short_side + 80 for crop in found)


def test_resize_agrees_with_torchvision():
    smooth = np.linspace(0, 255, 40)[:, None] * np.linspace(0, 1, 50)[None, :]
    frames = np.repeat(smooth[None, :, :, None], 3, axis=3).astype(np.uint8)
    ours = apply_rgb(frames, Crop(4, 2, 32, 40), 64)
    theirs = functional.resized_crop(
        torch.from_numpy(frames).permute(0, 3, 1, 2), 4, 2, 32, 40, [64, 64], antialias=False
    )
    assert np.abs(ours.astype(int) - theirs.numpy()).max() <= 1


def test_flipping_a_scene_flips_its_flow():
    """A dot at column 3 that moves (+5, -2) in every pair: mirrored, it sits at column W-1-3 and moves (-5, -2)."""
    flow = np.full((1, 2, 2, 40, 40), 128, np.uint8)
    flow[0, :, 0, 10, 3] = 128 + 5
    flow[0, :, 1, 10, 3] = 128 - 2
    out = apply_flow(flow, Crop(0, 0, 40, 40, flip=True), 40)
    assert out.shape == (1, 2, 2, 40, 40)
    for pair in range(2):
        x, y = out[0, pair].astype(int) - 128
        assert np.argwhere(x).tolist() == np.argwhere(y).tolist() == [[10, 36]]
        assert (x[10, 36], y[10, 36]) == (-5, -2)
    extreme = np.array([1, 128, 255], np.uint8).reshape(1, 1, 1, 1, 3).repeat(2, axis=2).repeat(3, axis=3)
    assert apply_flow(extreme, Crop(0, 0, 3, 3, flip=True), 3)[0, 0, 0, 0].tolist() == [1, 128, 255]


def test_pairs_and_their_x_and_y_keep_their_order():
    flow = np.arange(1, 7, dtype=np.uint8).reshape(1, 3, 2, 1, 1) * np.ones((1, 1, 1, 40, 32), np.uint8)
    out = apply_flow(flow, Crop(0, 0, 40, 32), 16)
    assert out[0, :, :, 0, 0].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_both_streams_are_cut_at_the_same_place():
    rng = np.random.default_rng(1)
    scene = rng.integers(1, 256, (2, 48, 64), dtype=np.uint8)
    frames = np.repeat(scene[..., None], 3, axis=3)
    flow = np.repeat(scene[:, None, None], 2, axis=2)
    crop = Crop(5, 9, 40, 40)
    assert np.array_equal(apply_rgb(frames, crop, 32)[:, 0], apply_flow(flow, crop, 32)[:, 0, 1])


@pytest.mark.parametrize(("height", "width"), [(256, 340), (240, 320), (64, 48), (33, 90)])
def test_training_crops_are_tsns(height, width):
    """Sides from short side x scales, at most one scale apart, inside the image; all places and flips occur."""
    rng = np.random.default_rng(0)
    crops = {random_crop(height, width, scales=(1.0, 0.875, 0.75), flip=True, rng=rng) for _ in range(4000)}
    sides = [round(min(height, width) * s) for s in (1.0, 0.875, 0.75)]
    allowed = {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}
    assert {(c.height, c.width) for c in crops} == allowed
    assert all(c.top >= 0 and c.left >= 0 and c.top + c.height <= height and c.left + c.width <= width for c in crops)
    for size in allowed:
        places = {(c.top, c.left) for c in crops if (c.height, c.width) == size}
        corners = {(y, x) for y in (0, height - size[0]) for x in (0, width - size[1])}
        assert corners <= places
        assert len(places) <= 13
    assert {c.flip for c in crops} == {True, False}
    assert not any(random_crop(48, 64, scales=(1.0,), flip=False, rng=rng).flip for _ in range(50))
