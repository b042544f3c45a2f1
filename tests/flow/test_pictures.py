"""Pictures of flow: the colours of Baker et al., and a film's palette."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torchvision.utils import flow_to_image

from ccs.flow.pictures import MIN_SCALE, _palette, colours, draw


def random_flow() -> np.ndarray:
    flow = np.random.default_rng(0).normal(size=(3, 2, 40, 50)).astype(np.float32)
    flow[0, :, 0] = 0
    flow[1, :, 0] = [[-1], [0]]  # where the wheel closes
    return flow


def test_colours_are_those_of_torchvision():
    flow = random_flow()
    expected = flow_to_image(torch.from_numpy(flow)).permute(0, 2, 3, 1).numpy()
    found = colours(flow / np.hypot(flow[:, 0], flow[:, 1]).max())
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1  # they are rounded down
    assert (found == expected).mean() > 0.99


def test_what_waits_for_the_scale_has_the_colours_of_the_flow():
    flow = random_flow() * 3
    drawn = draw(flow, [b"a", b"b", b"c", b"of no pair"])
    assert [each.jpeg for each in drawn] == [b"a", b"b", b"c"]
    for scale in (MIN_SCALE, 2.5, 40.0):
        for pair, each in zip(flow, drawn, strict=True):
            hue, level = np.frombuffer(zlib.decompress(each.codes), np.uint8).reshape(2, 40, 50)
            speed = np.hypot(*pair)
            expected = colours((pair / np.maximum(speed, 1e-9) * np.sqrt(np.minimum(speed / scale, 1)))[None])[0]
            away = np.abs(_palette(scale)[hue, level].astype(int) - expected)
            assert np.percentile(away, 99) < 12  # the wheel leaps where it closes
            assert away.mean() < 1
    speeds = np.hypot(flow[:, 0], flow[:, 1]).reshape(3, -1)
    for speed, each in zip(speeds, drawn, strict=True):
        assert 0.005 < (speed > each.fastest).mean() < 0.015
