"""`ccs features` against slow, separate computations, and as a tool: resumed, interrupted, given bad videos."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ccs.datasets.demo import encode
from ccs.features import __main__ as features
from ccs.features import networks
from ccs.features.inputs import Prepared
from ccs.features.outputs import Npy, is_complete, read_record
from ccs.features.windows import Windows
from ccs.flow.formats import GrowingArray
from ccs.flow.streams import End
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
    rgb = [cv2.cvtColor(cv2.merge((y, v, u)), cv2.COLOR_YCrCb2RGB) for y, (u, v) in zip(grey, upscaled, strict=True)]
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
    whole, clip = real_data / "weizmann" / "skip" / "ido_skip.avi", tmp_path / "skip.avi"  # 180x144, 25 a second
    subprocess.run([FFMPEG, "-v", "error", "-i", whole, "-c", "copy", "-frames:v", "17", clip], check=True)
    features.main([str(clip), "--weights", weights, "-o", str(tmp_path / "out")])
    grey, rgb = decode(clip, 256, 320)
    for stream, rows in slow_features(grey, rgb, weights, [0], stack=16, crop=224).items():
        assert_close(np.load(tmp_path / "out" / f"skip_{stream}.npy"), rows)


@pytest.mark.parametrize(("stack", "step"), [(16, 4), (5, 5), (3, 8), (4, 1)])
def test_windows_of_any_length_video_in_chunks_of_any_size(stack, step):
    rng = np.random.default_rng(stack)
    for num_pairs in (*range(stack, stack + 2 * step + 2), 97):
        windows, found, ends = Windows(stack, step, batch=3), [], []
        edges = [0, *sorted(rng.choice(np.arange(1, num_pairs), min(3, num_pairs - 1), replace=False)), num_pairs]
        for begin, stop in pairwise(edges):
            end = End(num_pairs + 1, num_pairs + 1, 0, "") if stop == num_pairs else None
            pairs, times = np.arange(begin, stop), np.arange(begin, stop + bool(end)) / 10
            for batch in windows.add(Prepared(0, {"flow": pairs}, len(pairs), 10.0, times, end)):
                found += [batch.streams["flow"][start : start + stack].tolist() for start in batch.starts]
                ends += batch.times.tolist()
                assert len(batch.starts) <= 3
        begins = range(0, num_pairs - stack + 1, step)
        assert found == [list(range(begin, begin + stack)) for begin in begins]
        np.testing.assert_allclose(ends, [[begin / 10, (begin + stack) / 10] for begin in begins])


class Tool:
    """The command with small frames, RGB alone, on a folder of two videos."""

    def __init__(self, folder: Path, weights: str) -> None:
        self.videos, self.output = folder / "videos", folder / "out"
        for name, num_frames in (("one/a.mp4", 30), ("b.mp4", 40)):
            make_video(self.videos / name, num_frames, 25)
        self.line = [str(self.videos), "--weights", weights, "-o", str(self.output), "--streams", "rgb"]
        self.line += ["--short-side", "32", "--crop", "32"]

    def run(self, *flags: str) -> None:
        features.main([*self.line, *flags])

    def files(self) -> set[str]:
        return {str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file()}


@pytest.fixture
def tool(tmp_path, weights) -> Tool:
    return Tool(tmp_path, weights)


def test_what_is_done_is_kept_and_what_has_changed_is_made_anew(tool, capsys):
    tool.run()
    names = {f"{video}{end}" for video in ("one/a", "b") for end in ("_rgb.npy", "_times.npy", ".json")}
    assert tool.files() == names
    assert np.load(tool.output / "b_rgb.npy").shape == (6, 1024)  # (40 - 1 - 16) // 4 + 1
    record = json.loads((tool.output / "b.json").read_text())
    assert (record["num_windows"], record["num_frames"], record["fps"]) == (6, 40, 25)
    assert "2 videos: 0 kept, 2 made, 0 redone, 0 failed; 10 windows" in capsys.readouterr().err

    def states(*flags: str) -> str:
        tool.run(*flags)
        return re.search(r"videos: (\d kept, \d made, \d redone)", capsys.readouterr().err)[1]

    assert states() == "2 kept, 0 made, 0 redone"
    (tool.output / "b_times.npy").unlink()  # as if killed between the names of two files
    with open(tool.output / "one/a_rgb.npy", "rb+") as file:
        file.truncate(1000)
    assert states() == "0 kept, 0 made, 2 redone"
    make_video(tool.videos / "b.mp4", 41, 25)
    assert states() == "1 kept, 0 made, 1 redone"
    assert states("--step", "8") == "0 kept, 0 made, 2 redone"
    assert np.load(tool.output / "b_rgb.npy").shape == (4, 1024)
    assert tool.files() == names
    tool.line[2] = tool.line[2].split(",")[0].replace("rgb_imagenet", "other") + ","
    torch.save(random_weights(3) | {"Mixed_5c.b0.bn.bias": torch.zeros(384)}, tool.line[2][:-1])
    assert states("--step", "8") == "0 kept, 0 made, 2 redone"


def test_bad_videos_are_named_and_the_others_done(tool, capsys):
    (tool.videos / "bad.mp4").write_bytes(b"no video")
    (tool.videos / "frames").mkdir()
    for number in range(1, 18):
        cv2.imwrite(str(tool.videos / f"frames/img_{number:05d}.jpg"), np.zeros((40, 40, 3), np.uint8))
    make_video(tool.videos / "short.mp4", 16, 25)
    with pytest.raises(CcsError, match=r"3 of 5 videos have no features:\n.*bad.mp4: not a video") as error:
        tool.run()
    assert "short.mp4: 16 frames at 25 a second, a window needs 17: give a smaller --stack" in str(error.value)
    assert "frames: a folder of frames, of which nobody knows the times: --fps own takes them" in str(error.value)
    assert {name for name in tool.files() if name.endswith(".npy")} == {
        *("one/a_rgb.npy", "one/a_times.npy", "b_rgb.npy", "b_times.npy")
    }
    assert f"bad video {tool.videos / 'bad.mp4'}" in capsys.readouterr().err


def test_an_interruption_leaves_whole_outputs_or_none(tool, monkeypatch, capsys):
    original, calls = networks.features, []

    def features_until(network, streams, starts):
        if len(calls) == 2:  # in the second video
            raise KeyboardInterrupt
        calls.append(starts)
        return original(network, streams, starts)

    monkeypatch.setattr(networks, "features", features_until)
    with pytest.raises(KeyboardInterrupt):
        tool.run("--batch", "4")
    assert tool.files() <= {"b_rgb.npy", "b_times.npy", "b.json"}
    monkeypatch.undo()
    tool.run()
    assert re.search(r"[01] kept, [12] made, 0 redone", capsys.readouterr().err)
    assert len(tool.files()) == 6


def test_old_arrays_never_pass_for_those_of_a_new_record(tmp_path, monkeypatch):
    """Of the same shape, when the run ends between the record and the names of the arrays."""
    record = {"features": "", "source": {}, "backend": "", "num_windows": 2, "widths": {"rgb": 3}}

    def make(value: float, step: int) -> None:
        output = Npy(tmp_path / "a", ("rgb",))
        output.write({"rgb": np.full((2, 3), value, np.float32), "times": np.zeros((2, 2))})
        output.finish(record | {"settings": {"format": "npy", "step": step}})

    make(0, step=4)
    assert is_complete(tmp_path / "a", "npy", ("rgb",), read_record(tmp_path / "a", "npy"))

    def killed(array: GrowingArray) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(GrowingArray, "close", killed)
    with pytest.raises(KeyboardInterrupt):
        make(1, step=8)
    found = read_record(tmp_path / "a", "npy")
    assert found is not None  # so that the next run knows what is there for its own
    assert found["settings"]["step"] == 4 or not is_complete(tmp_path / "a", "npy", ("rgb",), found)


def test_files_of_others_are_not_replaced(tool):
    tool.output.mkdir()
    (tool.output / "b_rgb.npy").write_bytes(b"precious")
    with pytest.raises(CcsError, match=r"b_rgb.npy: is there, without a record of this tool"):
        tool.run()
    assert tool.files() == {"b_rgb.npy"}
    assert (tool.output / "b_rgb.npy").read_bytes() == b"precious"
    (tool.output / "b_rgb.npy").unlink()
    (tool.output / "b.json").write_text('{"annotations": []}')
    with pytest.raises(CcsError, match=r"b.json: is there, without"):
        tool.run()
    (tool.output / "b.json").unlink()
    tool.run()
    with pytest.raises(CcsError, match="b: there are features in the format npy"):
        tool.run("--format", "joined")
    (tool.videos / "b.mp4").rename(tool.videos / "c_times.mp4")
    (tool.videos / "one/a.mp4").rename(tool.videos / "c.mp4")
    with pytest.raises(CcsError, match=r"c_times.npy: would be of .*c.mp4 and of .*c_times.mp4"):
        tool.run("--format", "joined")


def test_formats_hold_the_same_numbers(tool, capsys):
    made = {}
    tool.line[0] = str(tool.videos / "b.mp4")
    for name in ("npy", "joined", "h5"):
        tool.output = tool.videos.parent / name
        tool.line[4:7] = [str(tool.output), "--streams", "both"]
        tool.run("--format", name, "--step", "16", "--workers", "1")
        made[name] = tool.output
    rgb, flow = (np.load(made["npy"] / f"b_{stream}.npy") for stream in ("rgb", "flow"))
    times = np.load(made["npy"] / "b_times.npy")
    assert (len(rgb), len(flow), len(times)) == (2, 2, 2)
    np.testing.assert_array_equal(np.load(made["joined"] / "b.npy"), np.hstack([rgb, flow]))
    np.testing.assert_array_equal(np.load(made["joined"] / "b_times.npy"), times)
    with h5py.File(made["h5"] / "b.h5") as file:
        for key, expected in {"rgb": rgb, "flow": flow, "times": times}.items():
            np.testing.assert_array_equal(file[key], expected)
        assert file[key].dtype == np.float64
        assert json.loads(file.attrs["settings"])["stack"] == 16
        assert file.attrs["num_windows"] == 2
    capsys.readouterr()
    tool.run("--format", "h5", "--step", "16")
    assert "1 videos: 1 kept, 0 made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "nowhere.pt,"], "expected the files of I3D as RGB.pt,FLOW.pt, found no file nowhere.pt"),
        (["--weights", "none,none"], "found no file none"),
        (["--weights", "a.pt,b.pt,c.pt"], "as RGB.pt,FLOW.pt, with one comma, found 2"),
        (["--weights", "rgb_imagenet.pt"], "expected i3d, two files of I3D with a comma between them"),
        (["--weights", __file__], "files of I3D are given with a comma, as RGB.pt,FLOW.pt"),
        (["--bound", "0"], "flow bound: expected a number of pixels above 0, found 0"),
        (["--bound", "nan"], "flow bound: expected a number of pixels above 0, found nan"),
        (["-o", "b.npy"], "--output b.npy: expected a directory.* with --output features they are features/VIDEO_rgb"),
        (["--weights", ",flow.pt"], "expected the files of I3D as RGB.pt,FLOW.pt, found none of rgb"),
        (["--crop", "300"], "--crop: expected 3 pixels to --short-side, which is 32, found 300"),
        (["--layer", "z"], "--layer z: I3D has none"),
        (["--step", "0"], "--step: expected 1 or more frames, found 0"),
        (["--fps", "0"], "--fps: expected more than 0 and at most 1000 frames a second, found 0"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(tool, flags, message):
    with pytest.raises(CcsError, match=message):
        tool.run(*flags)
    assert not tool.output.exists()


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path, weights):
    """Two thousand frames more would take 60 KB each where they are held, grey and in colour."""
    script = "import resource, sys; from ccs.features.__main__ import main; main(sys.argv[1:]); "
    script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    peaks = []
    for num_frames in (600, 2600):
        video = tmp_path / f"{num_frames}.mp4"
        source = f"testsrc=size=160x120:rate=25:duration={num_frames / 25}"
        subprocess.run([FFMPEG, "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "mpeg4", video], check=True)
        flags = ["--streams", "rgb", "--short-side", "120", "--crop", "120", "--step", "300", "--batch", "1"]
        line = [sys.executable, "-c", script, str(video), "--weights", weights, "-o", str(tmp_path / "out"), *flags]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=os.environ)
        peaks.append(int(done.stdout) / 1024)  # MiB
        assert len(np.load(tmp_path / "out" / f"{num_frames}_rgb.npy")) == (num_frames - 17) // 300 + 1
    assert peaks[1] - peaks[0] < 40, peaks
