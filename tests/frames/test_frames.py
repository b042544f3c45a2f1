"""The frames stage against videos of known content, made with ffmpeg, and against ffmpeg's and OpenCV's counts."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from ccs.datasets import manifests
from ccs.datasets.manifests import Video
from ccs.frames import __main__ as frames
from ccs.frames.film import check_ffmpeg, find_ffmpeg
from ccs.frames.settings import FramesSettings
from ccs.stage import CcsError

FFMPEG = find_ffmpeg()
LOSSLESS = ("-c:v", "libx264", "-qp", "0", "-preset", "ultrafast")


def planes(num_frames: int, width: int, height: int) -> bytes:
    """Raw yuv420p frames; frame t is grey 16 + 4t, but for a white top left ninth."""
    chroma = np.full(2 * ((height + 1) // 2) * ((width + 1) // 2), 128, np.uint8).tobytes()
    luma = np.zeros((height, width), np.uint8)
    made = []
    for t in range(num_frames):
        luma[:] = 16 + 4 * t
        luma[: height // 3, : width // 3] = 235
        made.append(luma.tobytes() + chroma)
    return b"".join(made)


def make(path: Path, *output: str, num_frames: int = 12, size: tuple[int, int] = (64, 48), before: tuple = ()) -> Path:
    """Encode `planes` into `path` with ffmpeg's options `output`."""
    line = [FFMPEG, "-v", "error", "-y", *before, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{size[0]}x{size[1]}"]
    line += ["-r", "25", "-i", "pipe:", *(output or LOSSLESS), str(path)]
    subprocess.run(line, input=planes(num_frames, *size), check=True)
    return path


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([FFMPEG, "-v", "error", "-y", "-nostdin", *map(str, arguments)], check=True)


def run_stage(folder: Path, videos: list[Path], *flags: str, name: str = "0007") -> tuple[Path, list[dict]]:
    """Run the stage on these files (ids: their names); the shard and the rows of its quarantine."""
    manifest = folder / "manifest.csv"
    with open(manifest, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "path", "label", "class_name", "shard", "split1", "dataset", "classes"])
        rows.writerows([path.name, path, 0, "a", "0007", "train", "made", '["a"]'] for path in sorted(videos))
        rows.writerow(["of another shard", "nowhere.mp4", 0, "a", "0008", "train", "made", ""])
    output, quarantine = folder / f"{name}.h5", folder / f"{name}.quarantine.csv"
    arguments = ["--manifest", manifest, "--shard", "0007", "--output", output, "--quarantine", quarantine]
    frames.main([str(part) for part in [*arguments, *flags]])
    with open(quarantine, encoding="utf-8", newline="") as file:
        return output, list(csv.DictReader(file))


def images(shard: Path, video: str) -> np.ndarray:
    """The decoded frames of a video, BGR (T, H, W, 3)."""
    with h5py.File(shard) as file:
        index = list(file["video"].asstr()).index(video)
        entry = file[f"frames/{index:06d}"]
        jpeg, offset = entry["jpeg"][:], entry["offset"][:]
        assert jpeg.dtype == np.uint8
        assert offset.dtype == np.int64
        assert (offset[0], offset[-1]) == (0, len(jpeg))
        decoded = [cv2.imdecode(jpeg[a:b], cv2.IMREAD_COLOR) for a, b in pairwise(offset)]
        assert entry.attrs["video"] == video
        assert decoded[0].shape == (entry.attrs["height"], entry.attrs["width"], 3)
    return np.stack(decoded)


def one(folder: Path, path: Path, *flags: str) -> np.ndarray:
    """The frames of one good video."""
    shard, bad = run_stage(folder, [path], *flags)
    assert bad == []
    return images(shard, path.name)


def assert_in_order(decoded: np.ndarray, num_frames: int = 12) -> None:
    """Every frame once, in order, with the grey it was made with (limited range to full)."""
    assert len(decoded) == num_frames
    height, width = decoded.shape[1:3]
    grey = decoded[:, 3 * height // 5 :, 3 * width // 5 :].reshape(num_frames, -1)
    expected = 4 * np.arange(num_frames) * 255 / 219
    np.testing.assert_allclose(grey.mean(1), expected, atol=2)  # the next frame's differs by 4.7
    assert grey.std(1).max() < 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", LOSSLESS),
        ("ten bits.mkv", (*LOSSLESS, "-pix_fmt", "yuv420p10le")),
        ("b-frames.avi", ("-c:v", "mpeg4", "-bf", "2", "-q:v", "2")),
        ("full range 444.mkv", ("-vf", "scale=out_range=pc", "-pix_fmt", "yuvj444p", "-c:v", "ffv1")),
        ("rgb.mkv", ("-pix_fmt", "bgr0", "-c:v", "ffv1")),
    ],
)
def test_every_frame_once_and_in_order(tmp_path, name, options):
    decoded = one(tmp_path, make(tmp_path / name, *options), "--short-side", "48")
    assert decoded.shape[1:] == (48, 64, 3)
    assert_in_order(decoded)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi"])
def test_clips_are_the_frames_that_are_shown_in_their_time(tmp_path, name):
    """25 frames a second, so that frame t is shown from t / 25 s on; a key frame every 4 is no limit."""
    path = make(tmp_path / name, *LOSSLESS, "-g", "4", num_frames=50)
    clips = {"a": (0.2, 0.6), "b": (None, 0.4), "c": (1.6, None), "d": (1.4, 99), "e": (5, 6)}
    manifest = tmp_path / "manifest.csv"
    videos = [Video(video, str(path), 0, "a", "train", *clip) for video, clip in clips.items()]
    manifests.write(manifest, {1: manifests.Manifest("made", ("a",), tuple(videos))}, 1)
    output, quarantine = tmp_path / "0000.h5", tmp_path / "bad.csv"
    arguments = ["--manifest", manifest, "--shard", "0000", "--output", output, "--quarantine", quarantine]
    frames.main([str(part) for part in [*arguments, "--short-side", "48"]])
    for video, expected in {"a": (5, 15), "b": (0, 10), "c": (40, 50), "d": (35, 50)}.items():
        decoded = images(output, video)
        grey = decoded[:, 30:, 40:].reshape(len(decoded), -1).mean(1)
        np.testing.assert_allclose(grey, 4 * np.arange(*expected) * 255 / 219, atol=2)
    assert "0 frames decoded in the clip from 5 s to 6 s, at least 2 are needed" in quarantine.read_text()


def test_a_variable_frame_rate_neither_drops_nor_repeats(tmp_path):
    # a pause of four seconds, then frames a tenth of a millisecond apart
    times = "setpts='(if(lt(N,6),N/25,4+N/25)-gt(N,9)*(N-9)*0.0399)/TB'"
    video = make(tmp_path / "vfr.mkv", "-vf", f"settb=1/90000,{times}", "-fps_mode", "passthrough",
                 "-enc_time_base", "1/90000", *LOSSLESS)  # fmt: skip
    assert_in_order(one(tmp_path, video, "--short-side", "48"))


@pytest.mark.parametrize(
    ("size", "flags", "shape"),
    [
        ((320, 240), (), (256, 342)),  # UCF-101: scaled up
        ((240, 320), (), (342, 256)),
        ((427, 241), ("--short-side", "120"), (120, 212)),
        ((65, 49), ("--short-side", "49"), (49, 66)),
        ((64, 48), ("--size", "33x27"), (27, 33)),
        ((64, 48), ("--size", "96x32"), (32, 96)),
    ],
)
def test_sizes(tmp_path, size, flags, shape):
    video = make(tmp_path / "video.mkv", "-pix_fmt", "yuv444p", *LOSSLESS, size=size)
    decoded = one(tmp_path, video, *flags)
    assert decoded.shape[1:3] == shape
    assert_in_order(decoded)
    assert decoded[0, shape[0] // 5, shape[1] // 5].min() > 245


def test_rotation_and_pixel_aspect_are_as_shown(tmp_path):
    upright = make(tmp_path / "upright.mp4")
    ffmpeg("-display_rotation", "-90", "-i", upright, "-c", "copy", tmp_path / "rotated.mp4")
    decoded = one(tmp_path, tmp_path / "rotated.mp4", "--short-side", "48")
    assert decoded.shape[1:3] == (64, 48)
    assert decoded[0, 8, 40].min() > 245  # the white corner, turned clockwise by 90 degrees
    assert decoded[0, 8, 8].max() < 10

    wide = make(tmp_path / "wide.mp4", "-vf", "setsar=2/1", *LOSSLESS)
    assert one(tmp_path, wide, "--short-side", "48").shape[1:3] == (48, 128)
    assert one(tmp_path, wide, "--size", "64x48").shape[1:3] == (48, 64)


def test_colours_follow_the_matrix_of_the_stream(tmp_path):
    rgb = (200, 60, 30)
    for matrix in ("bt709", "bt601"):
        video = tmp_path / f"{matrix}.mkv"
        source = (
            f"color=c=0x{rgb[0]:02x}{rgb[1]:02x}{rgb[2]:02x}:s=64x48:d=0.2,format=gbrp,scale=out_color_matrix={matrix}"
        )
        ffmpeg("-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", *LOSSLESS, video)
        decoded = one(tmp_path, video, "--short-side", "48")
        np.testing.assert_allclose(decoded.reshape(-1, 3).mean(0), rgb[::-1], atol=3)


def test_a_change_of_size_midstream_is_scaled_to_the_first(tmp_path):
    first = make(tmp_path / "a.h264", num_frames=6)
    second = make(tmp_path / "b.h264", num_frames=6, size=(96, 64))
    both = tmp_path / "both.h264"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    decoded = one(tmp_path, both, "--short-side", "48")
    assert decoded.shape == (12, 48, 64, 3)
    np.testing.assert_allclose(decoded[:, -8:, -8:].mean((1, 2, 3)), 4 * np.tile(np.arange(6), 2) * 255 / 219, atol=1.5)


def test_awkward_names(tmp_path):
    names = [
        "with space.mp4",
        "par(en)the[s]is.mp4",
        "quo'te\".mp4",
        "größe_日本.mp4",
        "a:b%03d;c,d=e\\f.mp4",
        "-n.mp4",
    ]
    source = make(tmp_path / "source.mp4", num_frames=3)
    for name in names:
        (tmp_path / name).write_bytes(source.read_bytes())
    shard, bad = run_stage(tmp_path, [tmp_path / name for name in names], "--short-side", "48")
    assert bad == []
    with h5py.File(shard) as file:
        assert list(file["video"].asstr()) == sorted(names)


def test_bad_videos_are_set_aside_with_their_reason(tmp_path, capfd):
    good = make(tmp_path / "good.mp4", num_frames=50)
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:d=2", *LOSSLESS, "-movflags", "+faststart", tmp_path / "whole.mp4")
    for name, options in {"whole.avi": ("-c:v", "mpeg4"), "whole.webm": ("-c:v", "libvpx", "-b:v", "1M")}.items():
        ffmpeg("-i", tmp_path / "whole.mp4", *options, tmp_path / name)
    for name in ("whole.mp4", "whole.avi", "whole.webm"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut {name}").write_bytes(data[: len(data) * 6 // 10])
    (tmp_path / "no moov.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is a text about a video.\n" * 100)
    (tmp_path / "noise.avi").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "folder.mp4").mkdir()
    make(tmp_path / "one frame.mp4", num_frames=1)
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "audio.mp4")
    expected = {
        "cut whole.mp4": "cut short: [1-9]",
        "cut whole.avi": "cut short: [1-9]",
        "cut whole.webm": "cut short: [1-9].*ended prematurely",
        "no moov.mp4": "moov atom not found",
        "empty.mp4": "empty",
        "text.mp4": "^not a video.*0 frames decoded",
        "noise.avi": "Invalid data",
        "folder.mp4": ".",
        "one frame.mp4": "^1 frames decoded, at least 2",
        "audio.mp4": "^no video stream$",
    }
    videos = [good, *(tmp_path / f"whole.{kind}" for kind in ("mp4", "avi", "webm")), *(tmp_path / n for n in expected)]
    shard, bad = run_stage(tmp_path, videos, "--short-side", "48", "--workers", "2", "--max-bad", str(len(expected)))
    log = capfd.readouterr().err
    assert [row["video"] for row in bad] == sorted(expected)
    for row in bad:
        assert row["stage"] == "frames"
        assert row["path"] == str(tmp_path / row["video"])
        assert re.search(expected[row["video"]], row["reason"]), row
        assert " @ 0x" not in row["reason"]  # no addresses: the same file gives the same reason
        assert f"bad video {row['video']}" in log
    with h5py.File(shard) as file:
        assert list(file["video"].asstr()) == ["good.mp4", "whole.avi", "whole.mp4", "whole.webm"]
    assert_in_order(images(shard, "good.mp4"), 50)
    for kind in ("mp4", "avi", "webm"):
        assert len(images(shard, f"whole.{kind}")) == 50

    with pytest.raises(CcsError, match=r"(?s)more than 2 bad videos.*\n.*audio\.mp4: .*max_bad_fraction") as error:
        run_stage(tmp_path, videos, "--max-bad", "2", name="stopped")
    assert "folder.mp4" not in str(error.value)  # stopped as soon as it could
    assert not list(tmp_path.glob("*stopped*"))


def test_concealed_damage_keeps_the_video_and_is_logged(tmp_path, capfd):
    video = tmp_path / "damaged.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:d=2", "-c:v", "mpeg4", "-q:v", "3", "-g", "10", video)
    data = bytearray(video.read_bytes())
    middle = data.index(b"00dc", len(data) // 2)
    data[middle + 500 : middle + 520] = bytes(20)  # within one frame
    video.write_bytes(data)
    assert len(one(tmp_path, video)) == 50
    assert "damaged.avi" in capfd.readouterr().err


def test_the_same_bytes_whatever_the_workers(tmp_path):
    for index in range(6):
        make(tmp_path / f"{index}.mp4", num_frames=3 + 20 * (index % 2))
    (tmp_path / "3.mp4").write_bytes(b"not a video")
    videos = [tmp_path / f"{index}.mp4" for index in range(6)]
    results = [run_stage(tmp_path, videos, "--workers", workers, name=f"w{workers}") for workers in ("1", "2", "4")]
    assert len({shard.read_bytes() for shard, _ in results}) == 1
    assert len({(tmp_path / f"w{workers}.quarantine.csv").read_bytes() for workers in (1, 2, 4)}) == 1
    with h5py.File(results[0][0]) as file:
        assert list(file["video"].asstr()) == [f"{index}.mp4" for index in (0, 1, 2, 4, 5)]
        assert file.attrs["dataset"] == "made"
        assert json.loads(file.attrs["settings"]) == {
            **{"short_side": 256, "size": None, "quality": 95},
            "max_missing_fraction": 0.0,
        }


def test_quality_is_that_of_opencv(tmp_path):
    video = make(tmp_path / "video.mkv", "-c:v", "libx264", "-qp", "0", "-vf", "noise=alls=60:allf=t")
    sizes = {}
    for quality in ("50", "95"):
        shard, _ = run_stage(tmp_path, [video], "--short-side", "48", "--quality", quality)
        with h5py.File(shard) as file:
            offset = file["frames/000000/offset"][:]
            first = file["frames/000000/jpeg"][: offset[1]]
        sizes[quality] = len(first)
        # the quantisation tables that OpenCV writes at this quality
        ours = cv2.imencode(".jpg", cv2.imdecode(first, 1), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        table = slice(ours.tobytes().index(b"\xff\xdb"), ours.tobytes().index(b"\xff\xc0"))
        assert first[table].tobytes() == ours[table].tobytes()
    assert sizes["50"] < sizes["95"] / 2


def test_a_shard_without_good_videos_is_whole_and_one_without_videos_is_an_error(tmp_path):
    (tmp_path / "empty.mp4").touch()
    shard, bad = run_stage(tmp_path, [tmp_path / "empty.mp4"])
    assert [row["video"] for row in bad] == ["empty.mp4"]
    with h5py.File(shard) as file:
        assert len(file["video"]) == len(file["frames"]) == 0
    with pytest.raises(CcsError, match="no video is in shard"):
        run_stage(tmp_path, [])


def test_a_file_that_has_gone_or_may_not_be_read_ends_the_run(tmp_path):
    """The lists were checked before: now it is the disk, the network or the permissions, not the video."""
    with pytest.raises(CcsError, match=r"gone\.mp4: No such file"):
        run_stage(tmp_path, [make(tmp_path / "good.mp4"), tmp_path / "gone.mp4"])


@pytest.mark.parametrize("wrong", [{"size": "340"}, {"size": "0x256"}, {"short_side": None}, {"quality": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(CcsError, match="expected"):
        FramesSettings(**wrong)


def test_which_ffmpeg(tmp_path, monkeypatch):
    mine = tmp_path / "bin" / "ffmpeg"
    mine.parent.mkdir()
    mine.write_text("#!/bin/sh\nexit 1\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(mine.parent))
    assert find_ffmpeg() == str(mine)
    assert find_ffmpeg(FFMPEG) == FFMPEG
    mine.unlink()
    check_ffmpeg(find_ffmpeg())  # what imageio-ffmpeg brings
    with pytest.raises(CcsError, match=r"nowhere/ffmpeg.*imageio-ffmpeg"):
        find_ffmpeg("nowhere/ffmpeg")


def fake_ffmpeg(folder: Path, script: str) -> Path:
    """An ffmpeg that works on the stage's own trial (standard input) and does `script` for a file."""
    path = folder / "fake-ffmpeg"
    path.write_text(f'#!/bin/sh\ncase "$*" in *file:*) {script};; esac\nexec "{FFMPEG}" "$@"\n')
    path.chmod(0o755)
    return path


def test_what_is_wrong_with_the_run_is_no_bad_video(tmp_path):
    video = make(tmp_path / "video.mp4")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho cannot load libx >&2\nexit 127\n")
    broken.chmod(0o755)
    with pytest.raises(CcsError, match=r"(?s)broken.*cannot load libx"):
        run_stage(tmp_path, [video], "--ffmpeg", str(broken))
    killed = fake_ffmpeg(tmp_path, "kill -9 $$")
    with pytest.raises(CcsError, match=r"video\.mp4: ffmpeg was stopped from outside"):
        run_stage(tmp_path, [video], "--ffmpeg", str(killed))
    interrupted = fake_ffmpeg(tmp_path, 'echo "[info] Exiting normally, received signal 2." >&2; exit 255')
    with pytest.raises(CcsError, match="stopped from outside"):
        run_stage(tmp_path, [video], "--ffmpeg", str(interrupted))
    (tmp_path / "file").touch()
    with pytest.raises(CcsError, match="file"):
        run_stage(tmp_path, [video], name="file/below")
    with pytest.raises(CcsError, match=r"absent\.csv: expected a manifest"):
        frames.main(["--manifest", "absent.csv", "--shard", "1", "--output", "o.h5", "--quarantine", "q.csv"])
    assert not list(tmp_path.glob("*.h5"))
    assert not list(tmp_path.glob("*.csv")) or [path.name for path in tmp_path.glob("*.csv")] == ["manifest.csv"]
    assert not list(tmp_path.glob(".*"))


def start_stage(folder: Path, videos: list[Path], before: str = "pass") -> subprocess.Popen:
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["video", "path", "shard", "dataset"], *([path.name, path, "0000", "made"] for path in videos)]
        )
    arguments = ["--manifest", "manifest.csv", "--shard", "0000", "--output", "out/0000.h5"]
    arguments += ["--quarantine", "out/q.csv", "--workers", "2"]
    imports = "import sys; from ccs import stage; from ccs.frames import __main__ as frames"
    code = f"{imports}; {before}; stage.run(frames.main, sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def running(folder: Path) -> list[str]:
    """The command lines of processes that read a file below `folder`."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        if f"file:{folder}" in line:
            lines.append(line)
    return lines


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for child processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_midway_leaves_no_file_and_no_ffmpeg(tmp_path, number):
    short = make(tmp_path / "a.mkv", num_frames=3)
    long = tmp_path / "b.mkv"  # ten minutes
    ffmpeg(
        "-f", "lavfi", "-i", "color=s=64x48:r=25:d=600", "-c:v", "libx264", "-preset", "ultrafast", "-g", "9999", long
    )
    process = start_stage(tmp_path, [short, long])
    # the first video is written, the second is being decoded
    wait_until(lambda: process.poll() is not None or any(f.stat().st_size for f in tmp_path.glob("out/.*.h5")))
    wait_until(lambda: process.poll() is not None or running(tmp_path))
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    process.stderr.close()
    wait_until(lambda: not running(tmp_path))
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert not [name for name in left if not name.startswith(".")]
    assert number == signal.SIGKILL or left == []


def test_a_full_disk_ends_the_run(tmp_path):
    video = make(tmp_path / "video.mkv", "-c:v", "libx264", "-qp", "0", "-vf", "noise=alls=60:allf=t", num_frames=40)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    process = start_stage(tmp_path, [video], limit)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ccs: error: out/0000.h5: cannot be written: File too large; " in log
    assert "Traceback" not in log
    assert list((tmp_path / "out").iterdir()) == []


def test_real_clips_to_the_frame(tmp_path, real_data):
    clips = sorted(path for kind in ("avi", "webm") for path in real_data.glob(f"*/videos/**/*.{kind}"))
    assert len(clips) >= 28
    shard, bad = run_stage(tmp_path, clips, "--workers", "2")
    assert bad == []
    with h5py.File(shard) as file:
        found = {entry.attrs["video"]: len(entry["offset"]) - 1 for entry in file["frames"].values()}
    expected = {}
    for clip in clips:
        line = [FFMPEG, "-nostdin", "-i", clip, "-map", "0:v:0", "-f", "null", "-"]
        log = subprocess.run(line, capture_output=True, check=True).stderr.decode(errors="replace")
        expected[clip.name] = int(re.findall(r"frame=\s*(\d+)", log)[-1])
    assert found == expected

    for clip in (clips[0], clips[-1]):  # OpenCV's decoder and scaler, frame by frame
        capture = cv2.VideoCapture(str(clip))
        decoded = images(shard, clip.name)
        errors = []
        for image in decoded:
            other = cv2.resize(capture.read()[1], image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            errors.append(np.abs(image.astype(np.int16) - other).mean())
        assert max(errors) < 4
        assert not capture.read()[0]
