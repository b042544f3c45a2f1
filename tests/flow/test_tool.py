"""The tool `ccs flow`: any videos in, flow in four formats out, whole or absent, and nothing computed twice."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

import cv2
import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest

import ccs
from ccs import cli
from ccs.flow import jobs, streams
from ccs.flow.engines import estimate
from ccs.flow.formats import written
from ccs.flow.quantise import dequantise
from ccs.flow.sources import find
from ccs.flow.streams import AS_SHOWN, PairCount, Reading, chunks, read_ahead
from ccs.flow.tool import _seconds, main, select_gpus
from ccs.frames import __main__ as frames
from ccs.frames import imported
from ccs.frames.commands import shorter_side
from ccs.frames.film import Children, check_ffmpeg, find_ffmpeg
from ccs.frames.film import opened as film_opened
from ccs.frames.settings import FramesSettings
from ccs.provenance import modules
from ccs.shards import __main__ as shards
from ccs.stage import CcsError

FFMPEG = find_ffmpeg()
FAST = {"scales": 2, "warps": 2, "outer_iterations": 2, "inner_iterations": 10}
FLAGS = ["--backend", "opencv", "--workers", "1"]
H5 = ["--format", "h5"]
FLAGS += [part for name, value in FAST.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def texture(num_frames: int, height: int, width: int, step: int = 1) -> np.ndarray:
    """Grey frames (T, H, W) of a pattern that moves `step` px to the right a frame."""
    pattern = np.random.default_rng(width).integers(0, 256, (height, width + step * num_frames), dtype=np.uint8)
    pattern = cv2.GaussianBlur(pattern, (0, 0), 2)
    pattern = cv2.normalize(pattern, None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([pattern[:, step * (num_frames - t) :][:, :width] for t in range(num_frames)])


def encode(path: Path, images: np.ndarray, *options: str) -> Path:
    """A video of these frames, grey or BGR; lossless unless `options` say otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = "gray" if images.ndim == 3 else "bgr24"
    line = [FFMPEG, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", layout]
    line += ["-s", f"{images.shape[2]}x{images.shape[1]}", "-r", "25", "-i", "pipe:"]
    line += [*(options or ("-c:v", "ffv1")), str(path)]
    subprocess.run(line, input=images.tobytes(), check=True)
    return path


def decoded_frames(path: Path) -> int:
    """How many frames ffmpeg decodes."""
    line = [FFMPEG, "-nostdin", "-i", path, "-map", "0:v:0", "-f", "null", "-"]
    log = subprocess.run(line, capture_output=True, check=True).stderr.decode(errors="replace")
    return int(re.findall(r"frame=\s*(\d+)", log)[-1])


def flow(*arguments: str | Path) -> None:
    """Of the format h5 where none is given."""
    main([*H5, *map(str, arguments), *FLAGS])


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def changes(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file was written again."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


RIGHT = texture(12, 36, 48, step=2)
NAMES = {"a/run (1)": 12, "größe_日本": 3, "a/b/two": 2}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    encode(folder / "a" / "run (1).mkv", RIGHT)
    encode(folder / "größe_日本.mp4", texture(3, 24, 36), "-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p")
    encode(folder / "a" / "b" / "two.avi", texture(2, 20, 20), "-c:v", "mpeg4")
    (folder / "a" / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def made(videos, tmp_path_factory) -> Path:
    """The flow of `videos` in every format, in a folder each."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("h5", "jpg", "npy", "flo"):
        flow(videos, "--output", folder / name, "--format", name, "--bound", "4")
    return folder


CALL = """
import sys
from ccs.flow import jobs
from ccs.flow.tool import main
def watched(function, tasks, *more):
    print("workers start", flush=True)
    return ordered_map(function, map(seen, tasks), *more)
def seen(task):
    print("pairs", *(len(piece.chunk.frames) - 1 for piece in task))
    return task
jobs.ordered_map, ordered_map = watched, jobs.ordered_map
if __name__ == "__main__":
    main(sys.argv[1:])
    print("the parent has", *sorted({"ccs.flow.gpu", "numba", "torch"} & {*sys.modules}))
"""


def test_a_first_call_compiles_once_and_says_so_and_a_second_one_neither(tmp_path):
    (tmp_path / "call.py").write_text(CALL)
    small = encode(tmp_path / "small.mkv", texture(12, 24, 32))
    large = encode(tmp_path / "large.mkv", texture(3, 256, 340))
    # Numba then tells on standard output what it keeps, and Python on standard error what it imports, in all processes
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "kept"), "NUMBA_DEBUG_CACHE": "1", "PYTHONPROFILEIMPORTTIME": "1"}

    def call(video: Path) -> tuple[str, list[str], set[str]]:
        line = [sys.executable, tmp_path / "call.py", video, "--output", tmp_path / "out", "--backend", "native"]
        line += ["--rgb", "--visualize"]
        done = subprocess.run(
            [*line, "--workers", "2"], env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        lines = [each for each in done.stderr.splitlines() if not each.startswith("import time:")]
        imported = {each.split("|")[2].strip() for each in done.stderr.splitlines() if each.startswith("import time:")}
        return done.stdout, lines, imported

    out, lines, imported = call(small)
    assert lines[0] == "ccs: flow: looking for videos, and for what is done of them"
    assert lines[1] == "ccs: flow: 1 videos to do by native, 0 were done before"
    assert lines[2].startswith("ccs: flow: compiling the flow engine for this processor (")
    assert [re.findall(r" (\d+)(?:/11|pair) ", each) for each in lines[3:5]] == [["0"], ["1"]]
    before, after = out.split("workers start")
    saved = re.findall(r"data saved to '.*kernels\.(\w+)-", before)
    assert [saved.count(name) for name in ("gradients", "warp", "median5", "iterate")] == [1] * 4
    assert "saved" not in after
    assert re.findall("pairs .*", after) == ["pairs 1", "pairs 10"]
    assert "numba" in imported
    assert not {"ccs.flow.gpu", "numba.cuda", "torch", "torchvision", "pandas", "snakemake"} & imported

    out, lines, imported = call(large)  # all is there, whatever the size
    assert "saved" not in out
    assert "numba" in imported
    assert out.splitlines()[-1] == "the parent has"
    assert not any("compiling" in line for line in lines)


def test_all_formats_hold_the_same_flow(videos, made):
    for name, num_frames in NAMES.items():
        assert decoded_frames(next(videos.glob(f"{name}.*"))) == num_frames
        pairs = np.load(made / "npy" / name / "flow.npy", mmap_mode="r")
        assert (pairs.dtype, pairs.ndim, pairs.shape[:2]) == (np.float32, 4, (num_frames - 1, 2))

        files = [made / "flo" / name / f"flow_{t:05d}.flo" for t in range(1, num_frames)]
        assert {*os.listdir(files[0].parent)} == {"flow.json", *(file.name for file in files)}
        for file, pair in zip(files, pairs, strict=True):
            np.testing.assert_array_equal(cv2.readOpticalFlow(str(file)), pair.transpose(1, 2, 0))

        with h5py.File(made / "h5" / f"{name}.h5") as file:
            assert list(file["video"].asstr()) == [name]
            values = file["flow/000000"]
            assert (values.dtype, values.chunks) == (np.uint8, (1, *pairs.shape[1:]))
            assert np.abs(dequantise(values[:], 4) - np.clip(pairs, -4, 4)).max() <= 4 / 254 + 1e-6
            assert values.attrs["clipped"] == pytest.approx((np.abs(pairs) > 4).mean())

        assert len(os.listdir(made / "jpg" / name)) == 2 * (num_frames - 1) + 1
        for t, pair in enumerate(pairs, start=1):
            for axis, plane in zip("xy", pair, strict=True):
                file = made / "jpg" / name / f"flow_{axis}_{t:05d}.jpg"
                expected = np.round((np.clip(plane.astype(float), -4, 4) + 4) * 255 / 8).astype(np.uint8)
                assert file.read_bytes() == cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
                image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
                assert image.shape == plane.shape
                assert np.abs(image.astype(int) - expected).mean() < 2


def test_the_flow_is_that_of_the_frames(made):
    pairs = np.load(made / "npy" / "a/run (1)" / "flow.npy")
    np.testing.assert_array_equal(pairs, estimate(RIGHT, "opencv", **FAST))
    assert abs(np.median(pairs[:, 0]) - 2) < 0.2
    assert abs(np.median(pairs[:, 1])) < 0.2


def test_records_say_what_made_an_output(videos, made):
    source = videos / "a" / "run (1).mkv"
    for name in ("jpg", "npy", "flo"):
        record = json.loads((made / name / "a/run (1)/flow.json").read_text())
        assert (record["num_pairs"], record["num_frames"], record["height"], record["width"]) == (11, 12, 36, 48)
        assert (record["backend"], record["backend_version"], record["fps"]) == ("opencv", cv2.__version__, 25)
        size, mtime = source.stat().st_size, source.stat().st_mtime_ns
        assert record["source"] == {"name": source.name, "size": size, "mtime_ns": mtime}
        assert record["settings"]["format"] == name
        assert record["settings"]["scales"] == 2
        assert record["settings"]["bound"] == (4 if name == "jpg" else None)
        assert record["settings"]["quality"] == (95 if name == "jpg" else None)
    with h5py.File(made / "h5" / "a/run (1).h5") as file:
        assert json.loads(file.attrs["settings"])["bound"] == file.attrs["bound"] == 4
        assert json.loads(file.attrs["source"])["name"] == source.name
        assert file.attrs["clipped"] == file["flow/000000"].attrs["clipped"]


def test_an_hdf5_output_is_a_flow_shard_of_the_pipeline(tmp_path):
    video = encode(tmp_path / "clip.mkv", RIGHT)
    (tmp_path / "manifest.csv").write_text(f"video,path,shard,dataset\nclip,{video},0,made\n")
    flags = ["--manifest", tmp_path / "manifest.csv", "--shard", "0", "--output", tmp_path / "frames.h5"]
    frames.main([*map(str, flags), "--quarantine", str(tmp_path / "q.csv"), "--short-side", "30"])
    flow(video, "--output", tmp_path / "flow", "--short-side", "30")
    shards.pack(tmp_path / "frames.h5", tmp_path / "flow" / "clip.h5", tmp_path / "shard.h5")
    with h5py.File(tmp_path / "shard.h5") as file:
        assert file["flow/30x40"].shape == (11, 2, 30, 40)  # the vectors shrink with the frames
        assert abs(np.median(dequantise(file["flow/30x40"][:, 0], 20)) - 2 * 30 / 36) < 0.25


def test_steps_over_several_frames(tmp_path):
    video = encode(tmp_path / "clip.mkv", RIGHT)
    for step in (2, 7):
        flow(video, "--output", tmp_path / f"step{step}", "--format", "npy", "--step", step)
        pairs = np.load(tmp_path / f"step{step}" / "clip" / "flow.npy")
        assert len(pairs) == 12 - step
        for start in range(min(step, 12 - step)):
            np.testing.assert_array_equal(pairs[start::step], estimate(RIGHT[start::step], "opencv", **FAST))
    flow(video, "--output", tmp_path / "jpg", "--format", "jpg", "--step", 11, "--first-number", 0)
    assert sorted(os.listdir(tmp_path / "jpg" / "clip")) == ["flow.json", "flow_x_00000.jpg", "flow_y_00000.jpg"]


def grey_frames(path: Path, short_side: int | None = None, pairs: int = 5) -> list:
    tool = check_ffmpeg(FFMPEG)
    size = shorter_side(short_side) if short_side else AS_SHOWN

    def decode(video, children):
        return chunks(str(video), Reading(size=size), lambda height, width: pairs, tool, children)

    with read_ahead([path], decode, 2) as items:
        return [item for _, item in items]


def test_grey_is_that_of_opencv(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 60, 80, 3), dtype=np.uint8)
    colours = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in colours])
    lossless = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p")
    colours = cv2.normalize(colours, None, 10, 245, cv2.NORM_MINMAX)
    video = encode(tmp_path / "colour.mp4", colours, *lossless)
    # OpenCV's own decoder would go by way of an RGB that is a level too dark
    line = [FFMPEG, "-v", "error", "-i", video, "-sws_flags", "bicubic+accurate_rnd+full_chroma_int", "-f", "rawvideo"]
    decoded = subprocess.run([*line, "-pix_fmt", "bgr24", "pipe:"], capture_output=True, check=True).stdout
    decoded = np.frombuffer(decoded, np.uint8).reshape(colours.shape)
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in decoded]).astype(int)
    found = grey_frames(video)
    assert [(chunk.first, len(chunk.frames)) for chunk in found] == [(0, 6), (5, 3)]
    assert found[-1].end.num_frames == 8
    grey = np.concatenate([found[0].frames[:5], found[1].frames])
    assert np.ptp(expected) > 100
    assert np.abs(grey - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "short_side", "shape"),
    [((36, 48), None, (36, 48)), ((37, 49), None, (37, 49)), ((36, 48), 72, (72, 96)), ((48, 36), 18, (24, 18))],
)
def test_sizes(tmp_path, size, short_side, shape):
    """The size of the video itself, or the shorter side exactly, up or down."""
    video = encode(tmp_path / "clip.mkv", texture(3, *size))
    assert grey_frames(video, short_side)[0].frames.shape == (3, *shape)


def test_square_pixels(tmp_path):
    video = encode(tmp_path / "wide.mkv", texture(3, 36, 48), "-vf", "setsar=2/1", "-c:v", "ffv1")
    assert grey_frames(video)[0].frames.shape == (3, 36, 96)


def test_what_is_whole_and_the_same_is_not_made_again(videos, made, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(made, tmp_path / "made", copy_function=shutil.copy2)
    before = changes(copy)
    with monkeypatch.context() as nothing:
        nothing.setattr(jobs, "ordered_map", None)  # no worker may start
        for name in ("h5", "jpg", "npy", "flo"):
            flow(videos, "--output", copy / name, "--format", name, "--bound", "4", "--workers", "2")
            assert "3 kept, 0 made, 0 redone, 0 failed" in capsys.readouterr().err
        # settings that a format does not have make no difference
        flow(videos, "--output", copy / "npy", "--format", "npy", "--bound", "9", "--quality", "7")
    assert changes(copy) == before

    def spoil(name: str) -> None:
        if name == "h5":
            path = copy / "h5" / "a/run (1).h5"
            path.write_bytes(path.read_bytes()[:-100])
        elif name == "jpg":
            (copy / "jpg" / "a/run (1)" / "flow_y_00011.jpg").unlink()
            os.truncate(copy / "jpg" / "a/b/two" / "flow_x_00001.jpg", 10)
        elif name == "npy":
            with open(copy / "npy" / "a/run (1)" / "flow.npy", "rb+") as file:
                file.truncate(5000)
        else:
            (copy / "flo" / "a/run (1)" / "flow.json").write_text("{}")

    for name in ("h5", "jpg", "npy", "flo"):
        spoil(name)
        flow(videos, "--output", copy / name, "--format", name, "--bound", "4")
        log = capsys.readouterr().err
        assert ("1 kept, 0 made, 2 redone" if name == "jpg" else "2 kept, 0 made, 1 redone") in log
    assert tree(copy) == tree(made)


def test_other_settings_or_another_file_are_made_again(videos, made, tmp_path, capsys):
    copy = shutil.copytree(made / "jpg", tmp_path / "jpg", copy_function=shutil.copy2)
    source = shutil.copytree(videos, tmp_path / "videos", copy_function=shutil.copy2)
    os.utime(source / "a/b/two.avi")
    (source / "größe_日本.mp4").unlink()
    flow(source, "--output", copy, "--format", "jpg", "--bound", "4")
    assert "2 videos: 1 kept, 0 made, 1 redone" in capsys.readouterr().err
    flow(source / "a", "--root", source, "--output", copy, "--format", "jpg", "--bound", "2", "--backend", "auto")
    assert "2 videos: 0 kept, 0 made, 2 redone" in capsys.readouterr().err
    assert json.loads((copy / "a/b/two/flow.json").read_text())["bound"] == 2
    x = cv2.imread(str(copy / "a/run (1)/flow_x_00005.jpg"), cv2.IMREAD_UNCHANGED)
    assert np.median(x) > 240  # 2 px


def test_bad_videos_do_not_stop_the_others(tmp_path, capfd):
    good = encode(tmp_path / "videos" / "good.mkv", texture(4, 20, 24))
    last = encode(tmp_path / "videos" / "z.mkv", texture(4, 20, 24))
    whole = encode(tmp_path / "whole.mkv", texture(40, 96, 96))
    bad = {
        "empty.mp4": (b"", "the file is empty"),
        "text.mp4": (b"no video\n" * 200, "not a video"),
        "cut.mkv": (whole.read_bytes()[: whole.stat().st_size // 2], "cut short: [1-9]"),
    }
    for name, (data, _) in bad.items():
        (tmp_path / "videos" / name).write_bytes(data)
    encode(tmp_path / "videos" / "one.mkv", texture(1, 20, 24))
    encode(tmp_path / "videos" / "three.mkv", texture(3, 20, 24))
    (tmp_path / "videos" / os.fsdecode(b"latin \xe9.mkv")).write_bytes(good.read_bytes())
    sound = ["-f", "lavfi", "-i", "sine=d=0.2", str(tmp_path / "videos" / "sound.mp4")]
    subprocess.run([FFMPEG, "-v", "error", *sound], check=True)
    reasons = {name: reason for name, (_, reason) in bad.items()}
    reasons |= {"one.mkv": "1 frames decoded", "sound.mp4": "no video stream", "three.mkv": "3 frames decoded.*4 are"}
    with pytest.raises(SystemExit) as stop:
        cli.main(["flow", str(tmp_path / "videos"), "--output", str(tmp_path / "flow"), "--step", "3", *H5, *FLAGS])
    assert stop.value.code == 1
    log = capfd.readouterr().err
    assert "9 videos: 0 kept, 2 made, 0 redone, 7 failed" in log
    assert "7 of 9 videos have no flow" in log
    assert "Traceback" not in log
    for name, reason in reasons.items():
        assert len(re.findall(f"{re.escape(str(tmp_path / 'videos' / name))}: .*{reason}", log)) == 2, name
    assert len(re.findall(r"latin .*\.mkv: its path is not UTF-8: rename it", log)) == 2
    assert sorted(tree(tmp_path / "flow")) == [good.stem + ".h5", last.stem + ".h5"]
    for video in (good, last):
        with h5py.File(tmp_path / "flow" / f"{video.stem}.h5") as file:
            assert file["flow/000000"].shape == (1, 2, 20, 24)


# the tool, which takes its time over each result so that there is time to stop it
SLOWLY = """
import time
from ccs import cli
from ccs.flow.jobs import Job
add = Job.add
Job.add = lambda self, result: (time.sleep(0.1), add(self, result))
cli.main()
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "flow", *arguments, *FLAGS, "--workers", "2"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(ccs.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background, Ctrl-C is ignored and would be inherited so
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_until(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("format", ["jpg", "h5"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_midway_and_started_again(tmp_path, number, format):
    encode(tmp_path / "videos" / "a.mkv", texture(3, 24, 32))
    encode(tmp_path / "videos" / "b.mkv", texture(60, 32, 32))
    arguments = ["videos", "--output", "flow", "--format", format]
    process = start(tmp_path, *arguments)
    first = tmp_path / "flow" / ("a.h5" if format == "h5" else "a")
    with contextlib.closing(process.stderr):
        wait_until(first.exists, process)
        wait_until(lambda: list((tmp_path / "flow").glob(".b.*")), process)
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(30) == {signal.SIGKILL: -9, signal.SIGINT: 130}[number]
        assert time.monotonic() - begun < 5
    there = os.listdir(tmp_path / "flow")
    assert [name for name in there if not name.startswith(".")] == [first.name]
    assert len(there) == (2 if number == signal.SIGKILL else 1)
    if number == signal.SIGINT:
        return
    before = changes(first) if first.is_dir() else first.stat().st_mtime_ns
    flow(tmp_path / "videos", "--output", tmp_path / "flow", "--format", format)
    assert before == (changes(first) if first.is_dir() else first.stat().st_mtime_ns)
    flow(tmp_path / "videos", "--output", tmp_path / "whole", "--format", format)
    assert tree(tmp_path / "flow") == tree(tmp_path / "whole")  # nothing is left over either
    assert len(os.listdir(tmp_path / "flow")) == 2


def test_visualize(tmp_path, monkeypatch, capsys):
    """Frames beside their flow: what moves to the right is red, as much in a slow video as in a fast one."""
    videos = {"slow": texture(5, 35, 48, step=1), "fast": texture(5, 35, 48, step=4)}
    for name, images in videos.items():
        encode(tmp_path / "videos" / f"{name}.mkv", images)
    arguments = [tmp_path / "videos", "--output", tmp_path / "flow", "--visualize", "--scales", "3", "--warps", "4"]
    main([*H5, *map(str, arguments), "--backend", "opencv", "--workers", "1"])
    for name, speed in (("slow", 1), ("fast", 4)):
        film = tmp_path / "flow" / f"{name}.mp4"
        assert decoded_frames(film) == 4
        capture = cv2.VideoCapture(str(film))
        images = np.stack([capture.read()[1] for _ in range(4)])
        assert images.shape[1:3] == (36, 96)  # a row more: the codec wants even sides
        assert np.abs(images[:, :35, :48, 0].astype(int) - videos[name][:4]).mean() < 6
        hsv = np.stack([cv2.cvtColor(image[10:-10, 60:-12], cv2.COLOR_BGR2HSV_FULL) for image in images])
        hue, saturation = hsv[..., 0].astype(int), hsv[..., 1] / 255
        assert np.median(np.minimum(hue, 256 - hue)) < 12  # of 256 around the circle: red
        assert np.median(saturation) > 0.8
        with h5py.File(tmp_path / "flow" / f"{name}.h5") as file:
            assert speed <= file.attrs["film_scale"] < 1.6 * speed
    assert sorted(os.listdir(tmp_path / "flow")) == ["fast.h5", "fast.mp4", "slow.h5", "slow.mp4"]

    capsys.readouterr()
    (tmp_path / "flow" / "slow.mp4").unlink()
    monkeypatch.setattr(jobs.Work, "do", lambda work, waiting: None)
    main([*H5, *map(str, arguments), "--backend", "opencv", "--workers", "1"])
    assert "1 kept, 0 made, 1 redone" in capsys.readouterr().err


def test_the_log_has_the_rate_and_the_true_total(videos, tmp_path, capsys):
    flow(videos, "--output", tmp_path / "flow", "--bound", "0.01")
    log = capsys.readouterr().err
    assert "14/14" in log
    assert "pair/s" in log or "s/pair" in log
    share = float(re.search(r"3 made, .*14 pairs by opencv.*, (.*)% of the values clipped at 0.01 px", log)[1])
    assert share > 50
    assert tmp_path.name not in log.replace(str(tmp_path), "")


def test_stated_counts(videos):
    count = PairCount([str(videos / "a/run (1).mkv"), "absent.mp4"], Reading(), check_ffmpeg(FFMPEG))
    count._thread.join()
    assert count.total() == 22  # 11, and as many for the other
    count.set("absent.mp4", 4)
    assert count.total() == 15


def names(inputs: list, root: str | None = None, output: str = "flow") -> list[str]:
    return [source.name for source in find([str(text) for text in inputs], root, output)]


def test_inputs_and_names_of_outputs(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(videos)
    everything = ["a/b/two", "a/run (1)", "größe_日本"]
    assert sorted(names(["."])) == sorted(names([videos])) == everything
    assert sorted(names(["a"])) == ["b/two", "run (1)"]
    assert names(["a/run (1).mkv", "a"]) == ["run (1)", "b/two"]  # named twice, made once
    assert names(["a/run (1).mkv"], root=".") == ["a/run (1)"]
    listed = tmp_path / "list.txt"
    listed.write_text("\ufeffa/run (1).mkv\r\n\r\ngröße_日本.mp4\n", encoding="utf-8")
    assert names([listed]) == ["a/run (1)", "größe_日本"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{videos}/a/b/two.avi\n".encode())))
    assert names(["-"]) == ["a/b/two"]
    os.symlink(videos, tmp_path / "link")
    assert sorted(names([tmp_path / "link"])) == everything
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "v" / "flow" / "old.mp4", texture(2, 16, 16))
    encode(tmp_path / "v" / "clip.MP4", texture(2, 16, 16))
    os.symlink(tmp_path / "v", tmp_path / "v" / "loop")
    assert names(["v"], output="v/flow") == ["clip"]  # not what an earlier call has drawn
    assert "v/loop: is a link to a directory above it, and is not followed" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["list.txt", "list.LST", "list.list"])
def test_lists_are_read_by_their_byte_order_mark(videos, tmp_path, monkeypatch, name, encoding):
    monkeypatch.chdir(videos)
    text = ("\ufeff" if encoding == "utf-16-be" else "") + "a/run (1).mkv\r\n\r\ngröße_日本.mp4\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert names([tmp_path / name]) == ["a/run (1)", "größe_日本"]


def test_what_is_left_out_below_a_directory_is_counted_and_taken_when_it_is_named(tmp_path, capsys):
    for name in ("a.gif", "x/b.GIF", "x/c.xyz", "x/plain", "d.mp4", "e.m2v", "f.h264", "g.Y4M", "h.divx", "i.nut"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("@eaDir/d.mp4/SYNOPHOTO_FILM_M.mp4", "lost+found/j.mp4", "x/__MACOSX/k.mp4", "x/._b.mp4", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(names([tmp_path])) == ["d", "e", "f", "g", "h", "i"]
    told = "4 files are left out, whose extensions are not those of videos: 2 .gif, 1 .xyz, 1 without extension"
    assert told in capsys.readouterr().err
    assert names([tmp_path / "a.gif", tmp_path / "x/c.xyz"]) == ["a.gif", "c.xyz"]
    assert capsys.readouterr().err == ""


def test_outputs_whose_names_would_look_alike_are_refused(tmp_path):
    for name in ("\u00e9.mp4", "e\u0301.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(CcsError, match=r"would both be written as .* \(they look alike: .*\\xe9\.mp4"):
        names([tmp_path])


def test_outputs_beside_the_videos_are_not_taken_for_videos_by_the_same_call(tmp_path, monkeypatch, capsys):
    encode(tmp_path / "in/a.avi", texture(3, 24, 36))
    encode(tmp_path / "in/deep/b.avi", texture(3, 24, 36))
    monkeypatch.chdir(tmp_path / "in")
    for output in (".", str(tmp_path / "in")):
        flow(tmp_path / "in", "-o", output, "--format", "jpg", "--rgb")
    said = capsys.readouterr().err
    assert re.findall(r"2 videos: (\d) kept, (\d) made", said) == [("0", "2"), ("2", "0")]
    assert "left out" not in said
    with pytest.raises(CcsError, match=r"img_00001.jpg: expected a video.*, found a picture: name the folder"):
        flow("a/img_00001.jpg", "-o", "out")
    with pytest.raises(CcsError, match=r"--output: expected a directory, found an empty text"):
        flow("a.avi", "-o", "")


def test_two_that_cannot_be_told_apart_and_advice_that_helps(tmp_path):
    """A directory above both helps where they are in different ones; a list says one thing of a video."""
    for name in ("a/x.avi", "a/x.mp4", "b/x.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not opened yet")
    with pytest.raises(CcsError, match=r"a/x.avi and .*/a/x.mp4 would both be written as x: rename or leave out one$"):
        find([str(tmp_path / "a")], None, "out")
    apart = [str(tmp_path / "a/x.avi"), str(tmp_path / "b/x.avi")]
    with pytest.raises(CcsError, match=r"written as x: rename or leave out one, or name a directory above both"):
        find(apart, None, "out")
    assert names(apart, str(tmp_path)) == ["a/x", "b/x"]
    (tmp_path / "list.txt").write_text("a/x.avi 0\na/x.avi 1\n")
    with pytest.raises(CcsError, match=r"x.avi: expected one label, found 0 and 1, as it is named twice"):
        find([str(tmp_path / "list.txt")], str(tmp_path), "out")


def test_inputs_that_cannot_be_used_are_named_before_any_work(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "list.txt").write_text(f"{videos}/a/run (1).mkv\ngone.mp4\n")
    (tmp_path / "far.txt").write_text(f"{videos}/a/run (1).mkv\n")
    (tmp_path / "zero.txt").write_bytes(f"{videos}/a/run (1).mkv\n".encode("utf-16-le"))
    (tmp_path / "odd.txt").write_bytes("a.mp4\n".encode("utf-16")[:-1])
    (tmp_path / "list.json").write_text(f'["{videos}/a/run (1).mkv"]')
    for name in ("a.avi", "a.mp4", "x/a.avi"):
        (tmp_path / "two" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "two" / name).touch()
    for inputs, message in [
        (["absent.mp4"], "absent.mp4: expected a video, a directory"),
        (["none"], "none: no video in this directory"),
        (["empty.txt"], "empty.txt: expected the path of a video a line"),
        (["list.txt"], r"1 of 2 listed videos are not there: gone.mp4 \(list.txt, line 2\)"),
        (["far.txt"], r"run \(1\).mkv \(far.txt, line 1\): expected a path below .*--root"),
        (["zero.txt"], "zero.txt: expected lines of text in UTF-8, found zero bytes"),
        (["odd.txt"], "odd.txt: expected text in UTF-16, as its first bytes say"),
        (["list.json"], r"list.json: expected a video, a directory or a list .*, found a \.json file: write the paths"),
        (["two"], "two/a.avi and two/a.mp4 would both be written as a: rename"),
        (["two/a.avi", "two/x"], "two/a.avi and two/x/a.avi would both be written as a"),
    ]:
        with pytest.raises(CcsError, match=message):
            flow(*inputs, "--output", "flow")
    assert not (tmp_path / "flow").exists()


def test_what_others_have_written_is_left_alone(videos, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = shutil.copy(videos / "a/run (1).mkv", tmp_path / "clip.mkv")
    encode(tmp_path / "nested" / "clip.mkv", texture(2, 16, 16))
    encode(tmp_path / "nested" / "clip" / "other.mkv", texture(2, 16, 16))
    for name in ("denseflow", "tsn", "other", "film"):
        (tmp_path / name).mkdir()
    (tmp_path / "denseflow" / "clip").mkdir()
    (tmp_path / "denseflow" / "clip" / "flow_x_00000.jpg").touch()
    shutil.copytree(made / "jpg" / "a/run (1)", tmp_path / "tsn" / "clip")
    (tmp_path / "tsn" / "clip" / "img_00001.jpg").touch()
    with h5py.File(tmp_path / "other" / "clip.h5", "w") as file:
        file["precious"] = [1]
    shutil.copy(video, tmp_path / "film" / "clip.mp4")
    before = tree(tmp_path)
    for arguments, message in [
        (["--output", "denseflow", "--format", "jpg"], "clip: there is .*flow_x_00000.jpg.*flow of another tool"),
        (["--output", "tsn", "--format", "jpg"], "clip: there is a directory with other files, such as img_00001.jpg"),
        (["--output", "other"], "clip.h5: there is an HDF5 file that this tool has not written"),
        (["--output", "film", "--visualize"], "clip.mp4: there is a video that this tool has not written"),
    ]:
        with pytest.raises(CcsError, match=message):
            flow(video, *arguments)
    with pytest.raises(CcsError, match=r"clip.mp4: is one of the videos"):
        flow("film/clip.mp4", "--output", "film", "--visualize")
    with pytest.raises(CcsError, match=r"clip.mp4: would be among the videos"):
        flow("clip.mkv", "--output", ".", "--visualize")
    with pytest.raises(CcsError, match=r"clip/other: is below the output of nested/clip.mkv"):
        flow("nested", "--output", "flow", "--format", "jpg")
    shutil.copytree(made / "npy", tmp_path / "npy")
    with pytest.raises(CcsError, match="two: there is flow in the format npy"):
        flow(videos, "--output", "npy", "--format", "flo")
    shutil.rmtree(tmp_path / "npy")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "--workers: expected 1 or more, found 0"),
        (["--bound", "0"], "bound: expected a number of pixels above 0"),
        (["--step", "0"], "--step: expected 1 or more frames, found 0"),
        (["--quality", "101", "--format", "jpg"], "--quality: expected 1 to 100, found 101"),
        (["--short-side", "1"], "--short-side: expected 3 to 9999 pixels, found 1"),
        (["--gpus", "x"], "--gpus: expected a number, or a list such as 0,2, found 'x'"),
        (["--gpus", "1"], "--gpus: the backend opencv uses none"),
        (["--ffmpeg", "nowhere/ffmpeg"], "nowhere/ffmpeg"),
    ],
)
def test_unusable_flags_are_refused(videos, tmp_path, monkeypatch, flags, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(CcsError, match=message):
        main([str(videos), "--output", str(tmp_path / "flow"), *FLAGS, *flags])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["y.mp4", "flow.h5", "deep/flow_x_00001.JPG", "list.txt", "flow.npy", "there"])
def test_an_output_that_can_only_be_a_file_is_refused_and_told_what_is_meant(videos, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    with pytest.raises(
        CcsError, match=rf"--output {name}: expected a directory, .* found a .*/VIDEO\.h5 .*/VIDEO\.mp4"
    ):
        main([str(videos), "-o", name, *FLAGS])
    assert os.listdir(tmp_path) == ["there"]
    (tmp_path / "v1.mp4").mkdir()  # somebody's own
    main([str(videos / "a/b"), "-o", "v1.mp4", *FLAGS])
    assert os.listdir("v1.mp4") == ["two"]


@pytest.mark.parametrize(
    ("visible", "asked", "expected"),
    [
        (None, "2", "0,1"),
        (None, "0,2", "0,2"),
        (None, "3,", "3"),
        ("4,5,6", "2", "4,5"),
        ("GPU-a,GPU-b", "1,", "GPU-b"),
    ],
)
def test_which_gpus(monkeypatch, visible, asked, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert select_gpus(asked) == expected.count(",") + 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


@pytest.mark.parametrize(("visible", "count"), [("4,5", 2), ("", 0)])
def test_gpus_that_are_not_visible(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(CcsError, match=f"expected at most {count} GPUs"):
        select_gpus("3")


def test_the_pipelines_stage_is_still_there_and_apart(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["flow", "--frames", "absent.h5", "--output", "flow.h5"])
    assert stop.value.code == 1
    assert "absent.h5: expected a frames shard" in capsys.readouterr().err
    stage = modules("ccs.flow")  # what an edit of makes the pipeline compute flow anew
    assert "ccs.flow.shard" in stage
    assert not {"tool", "jobs", "formats", "sources", "streams", "methods", "raft", "pictures"} & {
        name.split(".")[-1] for name in stage
    }
    with pytest.raises(SystemExit):
        cli.main(["flow", "--help"])
    text = capsys.readouterr().out
    assert "--frames SHARD.h5" in text
    assert "VIDEO|DIR|LIST.txt|-" in text


def test_a_file_of_the_same_name_that_is_not_ours_or_in_use_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = encode(tmp_path / "clip.mkv", texture(3, 20, 24))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "clip.h5").write_text("precious")
    with pytest.raises(CcsError, match=r"clip.h5: there is a file that is no HDF5"):
        flow(video, "--output", "text")
    assert (tmp_path / "text" / "clip.h5").read_text() == "precious"
    (tmp_path / "used").mkdir()
    code = "import h5py, sys; file = h5py.File('used/clip.h5', 'w'); file['a'] = 1; file.flush(); "
    code += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        with pytest.raises(CcsError, match=r"clip.h5: there is a"):
            flow(video, "--output", "used")
        writer.stdin.close()
    with h5py.File("used/clip.h5") as file:
        assert file["a"][()] == 1


def test_files_that_others_add_to_an_output_do_not_stop_the_next_call(tmp_path, capsys):
    video = encode(tmp_path / "clip.mkv", texture(3, 20, 24))
    flow(video, "--output", tmp_path / "tsn", "--format", "jpg")
    (tmp_path / "tsn" / "clip" / "img_00001.jpg").touch()
    flow(video, "--output", tmp_path / "tsn", "--format", "jpg")
    assert "1 kept" in capsys.readouterr().err


def test_a_link_to_nothing_is_a_failure(tmp_path, capsys):
    encode(tmp_path / "videos" / "a.mkv", texture(3, 20, 24))
    (tmp_path / "videos" / "gone.avi").symlink_to("nowhere.avi")
    (tmp_path / "videos" / "loop.avi").symlink_to("loop.avi")
    (tmp_path / "videos" / "class").symlink_to("/nowhere/class")
    (tmp_path / "list.txt").write_text(
        "".join(f"{tmp_path}/videos/{name}\n" for name in ("a.mkv", "gone.avi", "loop.avi"))
    )
    told = r"(?s)2 of 3 videos have no flow.*gone\.avi: .*No such file.*loop\.avi: .*Too many levels"
    with pytest.raises(CcsError, match=told):
        flow(tmp_path / "videos", "--output", tmp_path / "flow")
    said = capsys.readouterr().err
    assert "1 made" in said
    assert "videos/class: is a link to '/nowhere/class', where nothing is, and is left out" in said
    with pytest.raises(CcsError, match=told):
        flow(tmp_path / "list.txt", "--root", tmp_path, "--output", tmp_path / "flow2")


@pytest.mark.parametrize("format", ["h5", "jpg", "npy", "flo"])
def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path, on_own_disk, format):
    video = encode(tmp_path / "clip.mkv", texture(6, 200, 300))
    line = ["-m", "ccs.cli", "flow", video, "--output", "flow", "--format", format, "--bound", "2"]
    script = 'head -c 980k /dev/zero > ballast; "$@"; status=$?; find flow -type f; exit $status'
    root = Path(__file__).resolve().parents[2]
    done = on_own_disk(
        ["sh", "-c", script, "sh", sys.executable, *line, *FLAGS], 1, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == 1
    assert re.search(r"ccs: error: flow/clip(\.h5)?: cannot be written: No space left on device; ", done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_name_as_long_as_names_may_be_has_its_flow_and_one_that_gets_too_long_costs_only_itself(tmp_path, capsys):
    long, longer = "m" * 251, "n" * 252
    with written(tmp_path / long, "jpg") as part:  # as of any format that is a directory
        part.joinpath("flow.json").touch()
    assert os.listdir(tmp_path) == [long]
    first = encode(tmp_path / "v" / "a.mkv", texture(3, 20, 24))
    shutil.copy(first, tmp_path / "v" / f"{long}.mkv")
    shutil.copy(first, tmp_path / "v" / f"{longer}.ts")  # whose film would be .mp4
    with pytest.raises(CcsError, match=r"1 of 3 videos have no flow:\n.*its name has 256 bytes, and 255 are allowed"):
        flow(tmp_path / "v", "--output", tmp_path / "flow", "--visualize")
    assert set(os.listdir(tmp_path / "flow")) == {f"{name}.{end}" for name in ("a", long) for end in ("h5", "mp4")}
    flow(tmp_path / "v", "--output", tmp_path / "flow")
    assert "2 kept, 1 made" in capsys.readouterr().err
    assert (tmp_path / "flow" / f"{longer}.h5").exists()


@pytest.fixture(scope="module")
def colourful(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A video in colour, one that does not lose any, and its frames (12, 36, 48, 3) BGR."""
    images = np.stack([RIGHT, 255 - RIGHT, np.full_like(RIGHT, 90)], axis=-1)
    images += (3 * np.arange(12, dtype=np.uint8))[:, None, None, None] * (images < 200)
    return encode(tmp_path_factory.mktemp("colourful") / "clip.mkv", images), images


def test_frames_come_with_the_flow_from_the_same_decode(colourful, tmp_path, monkeypatch, capsys):
    video, images = colourful
    opened = []
    monkeypatch.setattr(streams, "opened", lambda path, *more: opened.append(path) or film_opened(path, *more))
    for name, flags in (("jpg", ["--first-number", 0]), ("npy", []), ("h5", [])):
        flow(video, "-o", tmp_path / name, "--format", name, "--rgb", "--step", 3, *flags)
    assert opened == [str(video)] * 3
    numbers = {"img": range(12), "flow_x": range(9), "flow_y": range(9)}
    assert {*os.listdir(tmp_path / "jpg/clip")} == {
        "flow.json",
        *(f"{kind}_{number:05d}.jpg" for kind, each in numbers.items() for number in each),
    }
    files = [tmp_path / f"npy/clip/img_{number:05d}.jpg" for number in range(1, 13)]
    assert {*os.listdir(files[0].parent)} == {"flow.json", "flow.npy", *(file.name for file in files)}
    frames_of_npy = [file.read_bytes() for file in files]
    assert [(tmp_path / f"jpg/clip/img_{number:05d}.jpg").read_bytes() for number in range(12)] == frames_of_npy
    for index, file in enumerate(files):  # ffmpeg halves the chroma, and JPEG is lossy
        away = [np.abs(cv2.imread(str(file)).astype(int) - image).mean() for image in images]
        assert np.argmin(away) == index
        assert away[index] < 12
    # pair i begins with frame i
    grey = np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files])
    pairs = np.load(tmp_path / "npy/clip/flow.npy")
    of_files = np.empty_like(pairs)
    for start in range(3):
        of_files[start::3] = estimate(grey[start::3], "opencv", **FAST)
    for index, pair in enumerate(pairs):
        away = np.abs(of_files - pair).mean(axis=(1, 2, 3))
        assert np.argmin(away) == index
        assert away[index] < 0.2
    # one file is both of the pipeline's shards, of neighbouring frames
    flow(video, "-o", tmp_path / "h5", "--rgb")
    shards.pack(tmp_path / "h5/clip.h5", tmp_path / "h5/clip.h5", tmp_path / "shard.h5")
    with h5py.File(tmp_path / "h5/clip.h5") as file:
        entry = file["frames/000000"]
        assert entry["jpeg"][:].tobytes() == b"".join(frames_of_npy)
        assert np.diff(entry["offset"]).tolist() == [*map(len, frames_of_npy)]
        assert (entry.attrs["video"], entry.attrs["height"], entry.attrs["width"]) == ("clip", 36, 48)
    capsys.readouterr()

    monkeypatch.setattr(jobs.Work, "do", lambda work, waiting: None)

    def state(*flags: str | int) -> str:
        flow(video, "-o", tmp_path / "jpg", "--format", "jpg", "--step", 3, "--first-number", 0, *flags)
        return re.search("1 (kept|made|redone)", capsys.readouterr().err)[1]

    assert (state("--rgb"), state(), state("--rgb", "--quality", 50)) == ("kept", "kept", "redone")
    (tmp_path / "jpg/clip/img_00011.jpg").unlink()
    assert (state("--rgb"), state()) == ("redone", "redone")
    # frames that somebody else has put there are not replaced
    shutil.copytree(tmp_path / "npy/clip", tmp_path / "own/clip")
    record = json.loads((tmp_path / "own/clip/flow.json").read_text())
    record["settings"]["rgb"] = False
    (tmp_path / "own/clip/flow.json").write_text(json.dumps(record))
    with pytest.raises(CcsError, match=r"clip: there is a directory with other files, such as img_00001\.jpg"):
        flow(video, "-o", tmp_path / "own", "--format", "npy", "--rgb", "--step", 3)


def write_stills(folder: Path, names: list[str], images: np.ndarray = RIGHT) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=False):
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 100])


def test_a_folder_of_frames_is_a_video(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    layouts = {
        "tsn": [f"img_{number:05d}.jpg" for number in range(1, 6)],
        "denseflow 100%d": [f"img_{number:05d}.jpg" for number in range(5)],
        "deep/frames": [f"frame_{number:06d}.png" for number in range(1, 6)],
        "deep/image": [f"image_{number:05d}.jpg" for number in range(99_998, 100_003)],
        "deep/numbers": [f"{number}.png" for number in range(8, 13)],  # 10 comes after 9
        "deep/tsm": [f"{number:06d}.jpg" for number in range(1, 6)],
    }
    for name, files in layouts.items():
        write_stills(Path("in", name), files)
    write_stills(Path("in/tsn"), ["flow_x_00001.jpg", "flow_y_00001.jpg"])
    (Path("in") / "list.txt").write_text("tsn 5 0\ndeep/tsm 5 1\n")
    flow("in", "-o", "flow", "--format", "npy")
    assert "6 videos: 0 kept, 6 made" in capsys.readouterr().err
    expected = estimate(RIGHT[:5], "opencv", **FAST)
    for name, files in layouts.items():
        pairs = np.load(Path("flow", name, "flow.npy"))
        assert len(pairs) == 4, name
        assert np.abs(pairs - expected).mean() < 0.03, name  # ffmpeg's inverse transform of JPEG is its own
        assert json.loads(Path("flow", name, "flow.json").read_text())["source"]["name"] == Path(name).name
        if files[0].endswith(".png"):
            np.testing.assert_array_equal(pairs, expected)
    os.utime("in/tsn/img_00004.jpg")
    flow("in/list.txt", "-o", "flow", "--format", "npy", "--root", "in")
    flow("in/tsn/", "-o", "flow", "--format", "npy")
    assert re.findall(r"videos: (.*), 0 failed", capsys.readouterr().err) == [
        "1 kept, 0 made, 1 redone",
        "1 kept, 0 made, 0 redone",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["img_00001.jpg", "img_00002.jpg", "img_00005.jpg", "img_00007.jpg"], "1 to 7 these are not there: 3 to 4, 6"),
        (["img_00001.jpg", "img_00002.jpg", "frame_00003.jpg"], "several forms: expected img_00003.jpg, found frame_"),
        (["img_00001.jpg", "img_00001.png"], "img_00001.jpg and img_00001.png have the same number"),
        (["img_1.jpg", "img_002.jpg"], "several forms: expected img_001.jpg, found img_1.jpg"),
        (["img_00001.jpg"], "1 frames decoded, at least 2"),
    ],
)
def test_folders_with_frames_that_lack_or_do_not_fit_are_told(tmp_path, names, message):
    write_stills(tmp_path / "in", names)
    with pytest.raises(CcsError, match=message):
        flow(tmp_path / "in", "-o", tmp_path / "flow")
    assert not tree(tmp_path / "flow")


def test_a_folder_of_frames_is_listed_once_when_it_is_found_and_once_when_it_is_taken(tmp_path, monkeypatch):
    write_stills(tmp_path / "in/a", [f"img_{n}.png" for n in range(1, 6)])
    Path(tmp_path, "list.txt").write_text("in/a\n")
    monkeypatch.chdir(tmp_path)
    listed: list[str] = []
    for name in ("listdir", "scandir"):
        ask = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path=".", ask=ask: (listed.append(os.fspath(path)), ask(path))[1])
    flow("in", "-o", "out")
    assert listed.count("in/a") == 2
    flow("list.txt", "-o", "out2")
    assert listed.count("in/a") == 3
    imported.read("in/a", FramesSettings(short_side=48), 20.0, None)
    assert listed.count("in/a") == 4


def test_frames_of_several_sizes_and_times_of_frames_are_told(tmp_path):
    write_stills(tmp_path / "in", ["img_00001.jpg", "img_00002.jpg"])
    with pytest.raises(CcsError, match="a folder of frames, of which nobody knows the times"):
        flow(tmp_path / "in", "-o", tmp_path / "flow", "--fps", 5)
    write_stills(tmp_path / "in", ["img_00003.jpg"], texture(1, 30, 40))
    with pytest.raises(CcsError, match=r"several sizes: img_00001.jpg is 48x36, img_00003.jpg is 40x30"):
        flow(tmp_path / "in", "-o", tmp_path / "flow")
    (tmp_path / "in" / "img_00003.jpg").write_bytes(b"no picture")
    with pytest.raises(CcsError, match=r"its frame img_00003.jpg is no JPEG or PNG"):
        flow(tmp_path / "in", "-o", tmp_path / "flow")


def by_ffmpeg(video: Path, filters: str) -> np.ndarray:
    """Grey frames (T, 16, 24) after these filters."""
    line = [FFMPEG, "-v", "error", "-i", video, "-vf", filters, "-fps_mode", "passthrough", "-f", "rawvideo"]
    frames = subprocess.run([*line, "-pix_fmt", "gray", "pipe:"], capture_output=True, check=True).stdout
    return np.frombuffer(frames, np.uint8).reshape(-1, 16, 24)


@pytest.mark.parametrize("fps", [3, 10, 25, 40])
@pytest.mark.parametrize("rate", ["25", "variable"])
def test_other_rates_are_by_time(tmp_path, fps, rate):
    """The frames that ffmpeg's filter fps takes, whose rule is told in the help."""
    images = np.repeat(4 * np.arange(50, dtype=np.uint8), 16 * 24).reshape(-1, 16, 24)
    times = [] if rate == "25" else ["-vf", "setpts='(N+N*N/30)/25/TB'", "-fps_mode", "passthrough"]
    video = encode(tmp_path / "clip.mkv", images, *times, "-c:v", "ffv1")
    expected = by_ffmpeg(video, f"fps={fps}:round=up")
    reading = Reading(fps=fps)
    children = Children()
    found = list(chunks(str(video), reading, lambda height, width: 7, check_ffmpeg(FFMPEG), children))
    frames = np.concatenate([chunk.frames[:7] if not chunk.end else chunk.frames for chunk in found])
    num = len(expected)
    assert 5 < num <= len(frames)
    np.testing.assert_array_equal(frames[:num, 8, 8], expected[:, 8, 8])
    assert (frames[num:] == frames[-1]).all()  # which is shown as long as the one before it, not one 25th
    assert len(frames) - num <= (1 if rate == "25" else math.ceil(0.17 * fps))
    assert found[-1].end.num_decoded == 50
    times = np.concatenate([chunk.times[:7] if not chunk.end else chunk.times for chunk in found])
    np.testing.assert_allclose(np.diff(times), 1 / fps, atol=1e-6)


def test_parts_sizes_and_rates_and_what_they_keep(tmp_path, capsys):
    images = np.repeat(4 * np.arange(50, dtype=np.uint8), 16 * 24).reshape(-1, 16, 24)
    video = encode(tmp_path / "clip.mkv", images)
    flags = ["--format", "jpg", "--rgb", "--quality", "100", "--start", "0.4", "--end", "00:00:01.6"]

    def levels(folder: str) -> list[int]:
        files = sorted((tmp_path / folder / "clip").glob("img_*.jpg"))
        assert len(list(files[0].parent.glob("flow_x_*.jpg"))) == len(files) - 1
        pictures = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
        assert {picture.shape for picture in pictures} == {(20, 40) if folder == "size" else (16, 24)}
        return [round(float(picture.mean()) / 4) for picture in pictures]

    flow(video, "-o", tmp_path / "part", *flags)
    expected = (by_ffmpeg(video, "trim=start=0.4:end=1.6").mean(axis=(1, 2)) / 4).round().tolist()
    assert levels("part") == expected == list(range(10, 40))
    for _ in range(2):
        flow(video, "-o", tmp_path / "size", *flags, "--fps", "5", "--size", "40x20")
    assert levels("size") == [10, 15, 20, 25, 30, 35]
    record = json.loads((tmp_path / "size/clip/flow.json").read_text())
    counts = {name: record[name] for name in ("num_frames", "num_decoded", "num_pairs", "fps")}
    assert counts == {"num_frames": 6, "num_decoded": 30, "num_pairs": 5, "fps": 5}
    flow(video, "-o", tmp_path / "size", *flags, "--fps", "6", "--size", "40x20")
    states = re.findall(r"1 (kept|made|redone)", capsys.readouterr().err)
    assert states == ["made", "made", "kept", "redone"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30", 90), ("00:01:30.5", 90.5), ("2:00:00", 7200)])
def test_times(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["1:75", "-1", "1:2:3:4", "1m", ""])
def test_what_is_no_time(text):
    with pytest.raises(ArgumentTypeError, match="expected seconds or hh:mm:ss, found"):
        _seconds(text)


def test_lists_in_the_forms_that_people_have(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(videos)
    for name, text in {
        "labels.txt": "a/run (1).mkv 3\na/b/two.avi 0\n",
        "table.csv": "label,path\nrun,a/run (1).mkv\ntwo,a/b/two.avi\n",
        "table.tsv": "video\tstart\na/run (1).mkv\t1.5\na/b/two.avi\t\n",
    }.items():
        (tmp_path / name).write_text(text)
        found = find([str(tmp_path / name)], None, "flow")
        assert [source.name for source in found] == ["a/run (1)", "a/b/two"], name
        labels = {"labels.txt": ["3", "0"], "table.csv": ["run", "two"], "table.tsv": [None, None]}
        assert [source.label for source in found] == labels[name]
    said = "table.tsv: its column start is not used: whole videos are read, or the part of --start and --end\n"
    assert said in capsys.readouterr().err
    find([str(tmp_path / "table.tsv")], None, "features", "features")  # which has no such flags
    assert capsys.readouterr().err.endswith(": whole videos are read\n")
    (tmp_path / "table.json").touch()
    with pytest.raises(CcsError, match=r"or pipe them into `ccs features -`"):
        find([str(tmp_path / "table.json")], None, "features", "features")
    monkeypatch.chdir(tmp_path)  # where none of them is
    found = find([str(tmp_path / "labels.txt")], str(videos), "flow")
    assert [source.name for source in found] == ["a/run (1)", "a/b/two"]


def test_lists_of_rawframes(tmp_path, monkeypatch):
    """As mmaction2's tool would make them of the same files."""
    monkeypatch.chdir(tmp_path)
    for name, num_frames in (("walk/v2", 4), ("walk/v1", 3), ("run/v3", 5)):
        encode(Path("videos", f"{name}.avi"), texture(num_frames, 20, 24))
    (tmp_path / "videos/run/bad.avi").write_text("no video")
    with pytest.raises(CcsError, match="1 of 4 videos have no flow"):
        flow("videos", "-o", "out", "--format", "jpg", "--rgb", "--lists")
    classes = Path("out/classes.txt").read_text().split()
    assert classes == ["run", "walk"]
    expected = {"rgb": set(), "flow": set()}
    for folder in Path("out").glob("*/*"):
        count = {kind: len(list(folder.glob(f"{prefix}*"))) for kind, prefix in (("rgb", "img_"), ("flow", "flow_x_"))}
        for kind, lines in expected.items():
            lines.add(f"{folder.parent.name}/{folder.name} {count[kind]} {classes.index(folder.parent.name)}")
    for kind, lines in expected.items():
        assert {*Path(f"out/{kind}_list.txt").read_text().splitlines()} == lines
    assert "run/v3 5 0" in expected["rgb"]
    Path("list.txt").write_text("videos/walk/v1.avi 7\nvideos/run/v3.avi 2\n")
    flow("list.txt", "-o", "out2", "--format", "jpg", "--lists", "--root", "videos")
    assert Path("out2/flow_list.txt").read_text() == "walk/v1 2 7\nrun/v3 4 2\n"
    assert not Path("out2/rgb_list.txt").exists()
    encode(Path("flat/a b.avi"), texture(3, 20, 24))
    with pytest.raises(CcsError, match="'a b' has a blank in its name"):
        flow("flat", "-o", "out3", "--format", "jpg", "--lists")
    Path("flat/a b.avi").rename("flat/ab.avi")
    with pytest.raises(CcsError, match=r"ab\.avi: expected a class"):
        flow("flat", "-o", "out3", "--format", "jpg", "--lists")
    assert not Path("out3").exists()


@pytest.mark.slow
def test_real_clips_have_the_names_counts_and_values_that_denseflow_documents(real_data, tmp_path):
    """`denseflow LIST -b=20 -a=tvl1 -s=1 -cf`: CLASS/VIDEO/flow_x_%05d.jpg, a pair fewer than frames, and
    255 * (flow + bound) / (2 * bound), rounded and clipped; `-s=0` adds img_%05d.jpg.
    """
    inputs = [real_data / "ucf101" / "videos", real_data / "hmdb51" / "videos"]
    paths = [path for folder in inputs for path in folder.glob("*/*.avi")]
    assert len(paths) == 22
    flags = ["--short-side", "32", "--end", "2", "--backend", "native", "--workers", "1", "--rgb"]
    for name, more in (("jpg", ["--first-number", "0"]), ("npy", [])):
        main([*map(str, inputs), "-o", str(tmp_path / name), "--format", name, *flags, *more])
    for path in paths:
        clip = f"{path.parent.name}/{path.stem}"
        line = [FFMPEG, "-v", "error", "-i", path, "-vf", "trim=end=2", "-map", "0:v:0", "-f", "framecrc", "pipe:"]
        listed = subprocess.run([*line, "-fps_mode", "passthrough"], capture_output=True, check=True).stdout
        num_frames = sum(not row.startswith(b"#") for row in listed.splitlines())
        assert {*os.listdir(tmp_path / "jpg" / clip)} == {
            "flow.json",
            *(f"img_{number:05d}.jpg" for number in range(num_frames)),
            *(f"flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in range(num_frames - 1)),
        }
        pairs = np.load(tmp_path / "npy" / clip / "flow.npy")
        assert len(pairs) == num_frames - 1
        for number in (0, num_frames // 2):
            for axis, plane in zip("xy", pairs[number], strict=True):
                values = cv2.imread(str(tmp_path / f"jpg/{clip}/flow_{axis}_{number:05d}.jpg"), cv2.IMREAD_UNCHANGED)
                expected = np.clip(255 * (plane + 20) / 40, 0, 255)
                assert np.abs(values - expected).mean() < 1.5  # JPEG's error
