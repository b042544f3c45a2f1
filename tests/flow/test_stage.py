"""The stage `flow`: frames shard to flow shard, whole or absent, whatever happens to its processes."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest

import ccs
from ccs.flow import shard
from ccs.flow.__main__ import main
from ccs.flow.engines import estimate
from ccs.flow.quantise import dequantise
from ccs.pool import ordered_map
from ccs.stage import CcsError, run


def moving(num_frames: int, height: int, width: int, step: int = 1) -> np.ndarray:
    """BGR frames (T, H, W, 3) of a coloured pattern that moves `step` px to the right a frame."""
    rng = np.random.default_rng(width)
    pattern = rng.integers(0, 256, (height, width + step * num_frames, 3), dtype=np.uint8)
    pattern = cv2.GaussianBlur(pattern, (0, 0), 1.5)
    starts = [step * (num_frames - t) for t in range(num_frames)]
    return np.stack([pattern[:, start : start + width] for start in starts])


def jpegs_of(frames: np.ndarray) -> list[np.ndarray]:
    return [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1] for frame in frames]


def grey(frames: np.ndarray) -> np.ndarray:
    """Grey by way of colour, another path than the stage's."""
    colour = [cv2.imdecode(jpeg, cv2.IMREAD_COLOR) for jpeg in jpegs_of(frames)]
    return np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in colour])


def write_frames(path: Path, videos: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("video", data=sorted(videos), shape=(len(videos),), dtype=h5py.string_dtype())
        for index, video in enumerate(sorted(videos)):
            jpegs = jpegs_of(videos[video])
            group = file.create_group(f"frames/{index:06d}")
            group["jpeg"] = np.concatenate(jpegs)
            group["offset"] = np.cumsum([0] + [len(jpeg) for jpeg in jpegs])
            group.attrs.update(video=video, height=videos[video].shape[1], width=videos[video].shape[2])
    return path


def flow_stage(frames: Path, output: Path, *flags: str) -> None:
    main(["--frames", str(frames), "--output", str(output), "--backend", "opencv", *flags])


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


VIDEOS = {"b/run (1)": moving(7, 24, 32), "a/öl": moving(2, 17, 23), "c": moving(3, 20, 20, step=3)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with frames.h5 and its flow.h5."""
    folder = tmp_path_factory.mktemp("made")
    write_frames(folder / "frames.h5", VIDEOS)
    flow_stage(folder / "frames.h5", folder / "flow.h5", "--workers", "2", "--bound", "2", "--lambda", "0.2")
    return folder


def test_every_video_comes_out_as_estimate_gives_it(made):
    with h5py.File(made / "flow.h5") as file:
        assert list(file["video"].asstr()) == ["a/öl", "b/run (1)", "c"]
        assert list(file["flow"]) == ["000000", "000001", "000002"]
        for dataset, video in zip(file["flow"].values(), sorted(VIDEOS), strict=True):
            num_frames, height, width, _ = VIDEOS[video].shape
            assert (dataset.shape, dataset.dtype) == ((num_frames - 1, 2, height, width), np.uint8)
            assert dataset.chunks == (1, 2, height, width)
            flow = estimate(grey(VIDEOS[video]), "opencv", **{"lambda": 0.2})
            error = np.abs(dequantise(dataset[:], 2) - np.clip(flow, -2, 2))
            # the two ways to grey differ by a level here and there
            assert np.median(error) <= 2 / 254
            assert error.mean() < 0.03
            assert dataset.attrs["clipped"] == pytest.approx((np.abs(flow) > 2).mean(), abs=0.01)
        assert 0.3 < file["flow/000002"].attrs["clipped"] <= 0.5  # x, 3 px, and not y


def test_attributes_say_how_it_was_made(made):
    with h5py.File(made / "flow.h5") as file:
        attributes = dict(file.attrs)
    settings = json.loads(attributes.pop("settings"))
    assert attributes == {"ccs": ccs.__version__, "backend": "opencv", "backend_version": cv2.__version__, "bound": 2.0}
    assert settings["backend"] == "opencv"
    assert settings["lambda"] == 0.2
    assert set(settings) >= {"bound", "tau", "theta", "scales", "scale_step", "warps", "epsilon", "median_filtering"}


def test_workers_and_time_of_day_do_not_change_a_byte(made, tmp_path):
    flow_stage(made / "frames.h5", tmp_path / "flow.h5", "--workers", "1", "--bound", "2", "--lambda", "0.2")
    assert (tmp_path / "flow.h5").read_bytes() == (made / "flow.h5").read_bytes()


def test_pair_t_is_between_frames_t_and_t_plus_1(tmp_path):
    before, after = moving(2, 24, 32, step=2)
    jump = 5  # the second pair of the second task
    frames = np.stack([before] * (jump + 1) + [after] * 3)
    flow_stage(write_frames(tmp_path / "frames.h5", {"jump": frames}), tmp_path / "flow.h5", "--workers", "2")
    with h5py.File(tmp_path / "flow.h5") as file:
        values = file["flow/000000"][:]
    assert [pair for pair in range(len(values)) if (values[pair] != 128).any()] == [jump]
    x, y = dequantise(values[jump], 20)[:, 6:-6, 6:-6]
    assert abs(x.mean() - 2) < 0.2
    assert abs(y.mean()) < 0.2


def test_a_real_clip(real_data, tmp_path):
    clip = cv2.VideoCapture(str(next((real_data / "ucf101" / "videos" / "Biking").glob("*.avi"))))
    frames = np.stack([cv2.resize(clip.read()[1], (80, 60), interpolation=cv2.INTER_AREA) for _ in range(6)])
    flow_stage(write_frames(tmp_path / "frames.h5", {"biking": frames}), tmp_path / "flow.h5")
    with h5py.File(tmp_path / "flow.h5") as file:
        flow = dequantise(file["flow/000000"][:], file.attrs["bound"])
    y, x = np.mgrid[:60, :80].astype(np.float32)
    pictures = grey(frames).astype(np.float32)
    warped = [cv2.remap(pictures[t + 1], x + flow[t, 0], y + flow[t, 1], cv2.INTER_LINEAR) for t in range(5)]
    inside = np.s_[:, 6:-6, 6:-6]
    still, moved = (np.abs(images - pictures[:-1])[inside].mean() for images in (pictures[1:], np.stack(warped)))
    assert moved < 0.5 * still


def test_a_shard_without_good_videos(tmp_path, capsys):
    flow_stage(write_frames(tmp_path / "frames.h5", {}), tmp_path / "flow.h5", "--workers", "2")
    with h5py.File(tmp_path / "flow.h5") as file:
        assert file["video"].shape == (0,)
        assert h5py.check_string_dtype(file["video"].dtype)
        assert len(file["flow"]) == 0
        assert file.attrs["bound"] == 20
    assert "0 pairs of 0 videos" in capsys.readouterr().err


def test_the_log_has_the_rate_and_the_clipped_share(made, tmp_path, capsys):
    flow_stage(made / "frames.h5", tmp_path / "flow.h5", "--bound", "0.01")
    log = capsys.readouterr().err
    assert " 1/9 " in log.splitlines()[2], "the first pair is shown as soon as it is there"
    assert "9/9" in log
    assert "pair/s" in log or "s/pair" in log
    with h5py.File(tmp_path / "flow.h5") as file:
        clipped = sum(dataset.attrs["clipped"] * dataset.size for dataset in file["flow"].values())
        share = clipped / sum(dataset.size for dataset in file["flow"].values())
    assert share > 0.5
    assert f"9 pairs of 3 videos by opencv {cv2.__version__}, {share:.3%} of the values clipped at 0.01 px" in log


def _missing(path):
    path.unlink()


def _not_hdf5(path):
    path.write_bytes(b"not HDF5")


def _other_layout(path):
    with h5py.File(path, "w") as file:
        file["other"] = [1]


def _damaged_jpeg(path):
    with h5py.File(path, "r+") as file:
        offset = file["frames/000001/offset"][:]
        file["frames/000001/jpeg"][offset[5] : offset[6]] = 0


def _cut_jpegs(path):
    with h5py.File(path, "r+") as file:
        jpeg = file["frames/000001/jpeg"][:-1]
        del file["frames/000001/jpeg"]
        file["frames/000001/jpeg"] = jpeg


def _wrong_size(path):
    with h5py.File(path, "r+") as file:
        file["frames/000000"].attrs["width"] = 24


def _replaced(name, **created):
    """A dataset of the first video, or of the shard, made anew; what lies about its size takes no room."""

    def spoil(path):
        with h5py.File(path, "r+") as file:
            group = file if name == "video" else file["frames/000000"]
            del group[name]
            group.create_dataset(name, **created)

    return spoil


def _linked(link):
    def spoil(path):
        shutil.copy(path, path.with_name("other.h5"))
        with h5py.File(path, "r+") as file:
            del file["frames/000000"]
            file["frames/000000"] = link

    return spoil


def _one_frame(path):
    write_frames(path, {"short": moving(1, 20, 20)})


def _tiny(path):
    write_frames(path, {"tiny": moving(2, 2, 20)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, r"frames.h5: expected a frames shard \(HDF5\), found none"),
        (_not_hdf5, r"frames.h5: expected a whole frames shard \(HDF5\)"),
        (_other_layout, r"frames.h5: its layout of a frames shard .*'video'"),
        (_damaged_jpeg, r"video b/run \(1\), frame 5: expected a JPEG of 32x24, found no image"),
        (_cut_jpegs, r"frames.h5: b/run \(1\) cannot be read \(the offsets"),
        (_wrong_size, r"video a/öl, frame 0: expected a JPEG of 24x17, found 23x17"),
        (_replaced("jpeg", shape=(2**45,), dtype="u1", chunks=(2**20,)), r"frames.h5: a/öl .* not all was written"),
        (_replaced("offset", shape=(2**45,), dtype="i8", chunks=(2**20,)), r"frames.h5: a/öl .* not all was written"),
        (_replaced("offset", shape=(2**45,), dtype="i8"), r"frames.h5: a/öl .* not all was written"),
        (_replaced("video", shape=(2**40,), dtype=h5py.string_dtype(), chunks=(1024,)), r"frames.h5: .* not all was"),
        (_replaced("video", data=np.arange(3)), r"frames.h5: its layout of a frames shard .* cannot be read"),
        (
            _replaced("jpeg", shape=(60,), dtype="u1", external=[(__file__, 0, 60)]),
            r"frames.h5: a/öl .*jpeg is in another file, which is not read",
        ),
        (_linked(h5py.ExternalLink("other.h5", "/frames/000000")), r"frames.h5: .*frames/000000 is in another file"),
        (_linked(h5py.SoftLink("/frames/000000")), r"frames.h5: a/öl cannot be read .*too many links"),
        *(
            (_replaced("offset", data=offset), r"frames.h5: a/öl cannot be read")
            for offset in (
                np.array([b"x"] * 9),
                np.arange(9.0) * 90 + 0.5,
                np.arange(9)[None] * 90,
                np.array([], int),
                np.array([-5, 600]),
                np.array([0, 2**63 - 1, 900]),
                np.array([0, 2**64 - 1, 900], np.uint64),
            )
        ),
        (_one_frame, r"frames.h5: expected two frames or more of every video, found 1 of short"),
        (_tiny, r"video tiny.*: flow: .*3 px or more; found 2 frames of 20x2"),
    ],
)
def test_an_unusable_frames_shard_is_named_and_nothing_written(tmp_path, spoil, message):
    spoil(write_frames(tmp_path / "frames.h5", VIDEOS))
    before = only(tmp_path)
    with pytest.raises(CcsError, match=message):
        flow_stage(tmp_path / "frames.h5", tmp_path / "flow.h5")
    assert only(tmp_path) == before


def test_unusable_flags_are_refused(made, tmp_path, capsys):
    for flags, message in [
        (["--workers", "0"], "--workers: expected 1 or more, found 0"),
        (["--bound", "-2"], "bound: expected a number of pixels above 0, found -2"),
        (["--tau", "0.5"], "tau: expected a number in (0, 0.25], found 0.5"),
    ]:
        with pytest.raises(SystemExit) as stop:
            run(main, ["--frames", str(made / "frames.h5"), "--output", str(tmp_path / "flow.h5"), *flags])
        assert stop.value.code == 1
        assert message in capsys.readouterr().err
    assert only(tmp_path) == []


def test_missing_pairs_are_found_before_the_file_gets_its_name(made, tmp_path):
    with h5py.File(made / "frames.h5") as frames:
        found = shard.videos(frames, made / "frames.h5")
    for spoil in ("pair", "video"):
        path = tmp_path / f"{spoil}.h5"
        values = [np.zeros(video.shape, np.uint8) for video in found]
        results = [shard.Pairs(video, 0, value, 0.0) for video, value in zip(found, values, strict=True)]
        if spoil == "pair":
            results[1] = results[1]._replace(values=values[1][:-1])
        else:
            del results[1]
        shard.write(path, found, [results], {}, lambda pairs: None)
        with pytest.raises(CcsError, match=r"expected 6 pairs of 32x24 for b/run \(1\), found"):
            shard.verify(path, found)


def children(pid: int) -> list[int]:
    """The worker processes of `pid`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("victim", "number", "status", "message"),
    [
        ("worker", signal.SIGKILL, 1, "a worker process was killed before its task was done. Most often memory"),
        ("worker", signal.SIGSEGV, 1, "a worker process died of SIGSEGV"),
        ("stage", signal.SIGTERM, 143, ""),
        ("stage", signal.SIGINT, 130, ""),
    ],
)
def test_a_killed_process_ends_the_stage_and_leaves_nothing(tmp_path, victim, number, status, message):
    write_frames(tmp_path / "frames.h5", {"long": moving(200, 64, 64)})
    command = [sys.executable, "-m", "ccs.flow", "--frames", "frames.h5", "--output", "flow.h5", "--workers", "2"]
    stage = subprocess.Popen(
        [*command, "--epsilon", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(ccs.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background, Ctrl-C is ignored and would be inherited so
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        while len(workers := children(stage.pid)) < 2:
            assert stage.poll() is None, stage.stderr.read()
            time.sleep(0.05)
        time.sleep(1)  # into the first task, most likely; the outcome is the same before
        os.kill(workers[0] if victim == "worker" else stage.pid, number)
        _, log = stage.communicate(timeout=60)
    finally:
        stage.kill()
    assert stage.returncode == status
    assert message in log
    assert "Traceback" not in log
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert only(tmp_path) == ["frames.h5"]


def test_pool_keeps_the_order_and_reads_only_a_little_ahead():
    asked = []

    def numbers():
        for number in range(40):
            asked.append(number)
            yield number

    with closing(ordered_map(operator.neg, numbers(), 2, abs)) as results:
        assert next(results) == 0
        assert len(asked) < 20
        assert list(results) == [-number for number in range(1, 40)]


def die_while_it_sends(task):
    """All but the last byte of its result."""

    def half(connection, message):
        os.write(connection.fileno(), message[:-1])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = half
    return task


def test_pool_reports_what_its_workers_raise_and_how_they_die():
    with pytest.raises(RuntimeError, match=r"(?s)worker process:.*invalid literal"):
        list(ordered_map(int, ["7", "x"], 1, abs))
    with pytest.raises(CcsError, match="ended with status 3"):
        list(ordered_map(os._exit, [3], 1, abs))
    with pytest.raises(CcsError, match="was killed before its task was done"):
        list(ordered_map(die_while_it_sends, [3], 1, abs))
    assert list(ordered_map(int, [], 0, abs)) == []
