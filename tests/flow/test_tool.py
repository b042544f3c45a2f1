"""The tool `ccs flow`: any videos in, flow in four formats out, whole or absent, and nothing computed twice."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest

import ccs
from ccs import cli
from ccs.flow import jobs
from ccs.flow.engines import estimate
from ccs.flow.formats import written
from ccs.flow.quantise import dequantise
from ccs.flow.sources import find
from ccs.flow.streams import AS_SHOWN, PairCount, Reading, chunks, read_ahead
from ccs.flow.tool import main, select_gpus
from ccs.frames import __main__ as frames
from ccs.frames.film import check_ffmpeg, find_ffmpeg, shorter_side
from ccs.provenance import modules
from ccs.shards import __main__ as shards
from ccs.stage import CcsError

FFMPEG = find_ffmpeg()
FAST = {"scales": 2, "warps": 2, "outer_iterations": 2, "inner_iterations": 10}
FLAGS = ["--backend", "opencv", "--workers", "1"]
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
    main([*map(str, arguments), *FLAGS])


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
    assert not {"ccs.flow.gpu", "numba.cuda", "torch"} & imported

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
        cli.main(["flow", str(tmp_path / "videos"), "--output", str(tmp_path / "flow"), "--step", "3", *FLAGS])
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
    """What moves to the right is red, the more so the faster; the scale is the same in every frame."""
    slow, fast = texture(5, 35, 48, step=1), texture(5, 35, 48, step=4)
    for name, images in (("slow", slow), ("fast", fast)):
        encode(tmp_path / "videos" / f"{name}.mkv", images)
    arguments = [tmp_path / "videos", "--output", tmp_path / "flow", "--visualize", "--bound", "4", "--scales", "3"]
    main([*map(str, arguments), "--backend", "opencv", "--workers", "1", "--warps", "4"])
    colours = {}
    for name in ("slow", "fast"):
        film = tmp_path / "flow" / f"{name}.mp4"
        assert decoded_frames(film) == 4
        capture = cv2.VideoCapture(str(film))
        images = np.stack([capture.read()[1] for _ in range(4)])
        assert images.shape[1:3] == (36, 48)  # a row more: the codec wants even sides
        hsv = np.stack([cv2.cvtColor(image[10:-10, 12:-12], cv2.COLOR_BGR2HSV_FULL) for image in images])
        hue, saturation = hsv[..., 0].astype(int), hsv[..., 1] / 255
        assert np.median(np.minimum(hue, 256 - hue)) < 12  # of 256 around the circle: red
        colours[name] = np.median(saturation, axis=(1, 2))
    np.testing.assert_allclose(colours["slow"], 0.5, atol=0.1)  # the root of 1 px in 4
    np.testing.assert_allclose(colours["fast"], 1, atol=0.1)

    capsys.readouterr()
    (tmp_path / "flow" / "slow.mp4").unlink()
    monkeypatch.setattr(jobs.Work, "do", lambda work, waiting: None)
    main([*map(str, arguments), "--backend", "opencv", "--workers", "1", "--warps", "4"])
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
    assert os.listdir("v1.mp4") == ["two.h5"]


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
