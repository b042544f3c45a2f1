"""`ccs features` against slow, separate computations, and as a tool: resumed, interrupted, given bad videos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ccs.datasets.demo import encode
from ccs.features import __main__ as features
from ccs.frames.film import find_ffmpeg
from ccs.stage import CcsError

FFMPEG = find_ffmpeg()

# of piergiaj/pytorch-i3d, pytorch_i3d.py: channels in, then b0, b1a, b1b, b2a, b2b, b3b
MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def random_weights(in_channels: int) -> dict[str, torch.Tensor]:
    """A state dict with the published keys, whose activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(in_channels)
    units = {"Conv3d_1a_7x7": (in_channels, 64, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (64, 192, 3)}
    for name, (channels, b0, b1a, b1b, b2a, b2b, b3b) in MIXED.items():
        for branch, shape in {
            "b0": (channels, b0, 1),
            "b1a": (channels, b1a, 1),
            "b1b": (b1a, b1b, 3),
            "b2a": (channels, b2a, 1),
            "b2b": (b2a, b2b, 3),
            "b3b": (channels, b3b, 1),
        }.items():
            units[f"Mixed_{name}.{branch}"] = shape
    state = {}
    for name, (inside, outside, side) in units.items():
        scale = (2 / (inside * side**3)) ** 0.5
        state[f"{name}.conv3d.weight"] = scale * torch.randn(outside, inside, side, side, side, generator=generator)
        for key, low, high in (("weight", 0.8, 1.2), ("bias", -0.2, 0.2), ("running_mean", -0.1, 0.1)):
            state[f"{name}.bn.{key}"] = low + (high - low) * torch.rand(outside, generator=generator)
        state[f"{name}.bn.running_var"] = 0.5 + torch.rand(outside, generator=generator)
    state["logits.conv3d.weight"] = torch.zeros(400, 1024, 1, 1, 1)
    state["logits.conv3d.bias"] = torch.zeros(400)
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """Files of both streams, as `--weights` takes them."""
    folder = tmp_path_factory.mktemp("weights")
    for name, in_channels in (("rgb", 3), ("flow", 2)):
        torch.save(random_weights(in_channels), folder / f"{name}_imagenet.pt")
    return f"{folder}/rgb_imagenet.pt,{folder}/flow_imagenet.pt"


def i3d(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """I3D's features (1024) of a clip (C, T, H, W) in [-1, 1], from its paper's figure and the published keys."""

    def same(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
        padding: list[int] = []  # TensorFlow's: the excess at the end
        for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
            excess = max((-(-size // s) - 1) * s + k - size, 0)
            padding = [excess // 2, excess - excess // 2, *padding]
        return F.pad(x, padding)

    def unit(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = state[f"{name}.conv3d.weight"]
        x = F.conv3d(same(x, kernel.shape[2:], (stride,) * 3), kernel, stride=stride)
        statistics = (state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, *statistics, eps=1e-3))

    def pool(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
        return F.max_pool3d(same(x, kernel, stride), kernel, stride)

    x = pool(unit(x[None], "Conv3d_1a_7x7", stride=2), (1, 3, 3), (1, 2, 2))
    x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for number in MIXED:
        name = f"Mixed_{number}"
        if number == "4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if number == "5b":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        branches = [unit(x, f"{name}.b0")]
        branches += [unit(unit(x, f"{name}.b{n}a"), f"{name}.b{n}b") for n in (1, 2)]
        branches.append(unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b"))
        x = torch.cat(branches, dim=1)
    # the published average pooling: over two instants, all of height and width; then over time
    return F.avg_pool3d(x, (2, *x.shape[3:]), stride=1).mean(dim=(0, 2, 3, 4))


def decode(path: Path, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """All frames of a video by ffmpeg's own command line, scaled: grey (T, H, W) and RGB (T, H, W, 3)."""
    scale = f"scale={width}:{height}:flags=bicubic+accurate_rnd+bitexact:out_color_matrix=bt601:out_range=pc"
    command = [FFMPEG, "-v", "error", "-i", str(path), "-vf", scale, "-pix_fmt", "yuv420p", "-f", "rawvideo"]
    done = subprocess.run([*command, "-fps_mode", "passthrough", "-"], capture_output=True, check=True)
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height * width * 3 // 2)
    grey = frames[:, : height * width].reshape(-1, height, width)
    chroma = frames[:, height * width :].reshape(-1, 2, height // 2, width // 2)
    # each colour sample is of four pixels; OpenCV rounds in a way of its own, by which a network would tell it
    upscaled = [[cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in two] for two in chroma]
    rgb = [
        cv2.cvtColor(cv2.merge((y, v, u)), cv2.COLOR_YCrCb2RGB) for y, (u, v) in zip(grey, upscaled, strict=True)
    ]
    y, u, v = grey.astype(float), *(np.array(upscaled, float).transpose(1, 0, 2, 3) - 128)
    by_definition = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], axis=-1)  # BT.601
    assert np.abs(rgb - np.clip(by_definition, 0, 255)).max() < 1
    return grey, np.stack(rgb)


def slow_features(
    grey: np.ndarray, rgb: np.ndarray, weights: str, starts: list[int], *, stack: int, crop: int
) -> dict[str, np.ndarray]:
    """Of windows that begin at `starts`, each by itself, step by step as published."""
    states = {stream: torch.load(path) for stream, path in zip(("rgb", "flow"), weights.split(","), strict=True)}
    top, left = ((side - crop) // 2 for side in grey.shape[1:])  # centre crop
    tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
    found: dict[str, list[np.ndarray]] = {"rgb": [], "flow": []}
    for start in starts:
        frames = rgb[start : start + stack].astype(np.float32)
        flow = [tvl1.calc(grey[t], grey[t + 1], None) for t in range(start, start + stack)]  # a pair needs a frame more
        clips = {
            "rgb": frames / 127.5 - 1,  # [0, 255] -> [-1, 1]
            "flow": np.clip(np.stack(flow), -20, 20) / 20,  # px -> [-1, 1]
        }
        for stream, clip in clips.items():
            cut = clip[:, top : top + crop, left : left + crop].astype(np.float32)
            with torch.no_grad():
                found[stream].append(i3d(torch.from_numpy(cut.transpose(3, 0, 1, 2)), states[stream]).numpy())
    return {stream: np.stack(rows) for stream, rows in found.items()}


def make_video(path: Path, num_frames: int, fps: int, height: int = 48, width: int = 60) -> np.ndarray:
    """A coloured texture that moves by up to 3 px a frame, some of it by 30."""
    rng = np.random.default_rng(num_frames)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8), (0, 0), 3)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    t = np.arange(num_frames)
    places = np.stack([120 + 12 * np.sin(t / 5), 180 + 20 * np.cos(t / 7)], axis=1).astype(int)
    frames = np.stack([picture[y : y + height, x : x + width] for y, x in places])
    frames[num_frames // 2 :] = np.roll(frames[num_frames // 2 :], 30, axis=2)
    encode(frames, path, fps, FFMPEG)
    return frames


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_i3d_features_are_those_of_a_slow_computation_from_the_published_description(tmp_path, weights):
    """Video at 50 a second -> frames at 25 -> short side 40 -> TV-L1 -> clip, scale, crop 32 -> windows -> I3D."""
    make_video(tmp_path / "videos" / "a.mp4", 55, 50)
    small = ["--short-side", "40", "--crop", "32", "--workers", "1", "--batch", "2"]
    features.main([str(tmp_path / "videos"), "--weights", weights, "-o", str(tmp_path / "out"), *small])

    grey, rgb = (frames[::2] for frames in decode(tmp_path / "videos" / "a.mp4", 40, 50))
    starts = [0, 4, 8]  # 28 frames have 27 pairs; another window would need the pairs up to number 12 + 15
    expected = slow_features(grey, rgb, weights, starts, stack=16, crop=32)
    for stream, rows in expected.items():
        assert_close(np.load(tmp_path / "out" / f"a_{stream}.npy"), rows)
    times = np.load(tmp_path / "out" / "a_times.npy")
    np.testing.assert_allclose(times, [[s / 25, (s + 16) / 25] for s in starts], atol=1e-6)
    # the windows differ, and by far more than is allowed above
    assert np.abs(expected["rgb"][0] - expected["rgb"][1]).max() > 0.01 * np.abs(expected["rgb"]).max()
    assert np.abs(expected["flow"][0] - expected["flow"][1]).max() > 0.01 * np.abs(expected["flow"]).max()


@pytest.mark.slow
def test_i3d_features_of_a_real_clip_at_the_published_sizes(tmp_path, weights, real_data):
    clip = real_data / "weizmann" / "skip" / "ido_skip.avi"  # 180x144, 25 a second
    features.main([str(clip), "--weights", weights, "-o", str(tmp_path), "--step", "100"])
    grey, rgb = decode(clip, 256, 320)
    for stream, rows in slow_features(grey[:17], rgb[:17], weights, [0], stack=16, crop=224).items():
        assert_close(np.load(tmp_path / f"ido_skip_{stream}.npy"), rows)
