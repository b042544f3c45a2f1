"""Training shards against the frames and flow files that they were packed from, read with plain h5py."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import hdf5plugin
import numpy as np
import pytest

from ccs import hdf5
from ccs.shards.__main__ import ShardReader, main, pack
from ccs.stage import CcsError

BLOSC = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.NOSHUFFLE)
VIDEOS = {  # id: T, H, W
    "Dive/v g01": (150, 24, 40),
    "a (1)": (2, 32, 24),
    "b": (9, 24, 40),
    "ça": (70, 33, 25),
}


class Sources(NamedTuple):
    frames: Path
    flow: Path


def write_sources(folder: Path, videos: Mapping[str, tuple[int, int, int]], bound: float = 20.0) -> Sources:
    """A frames and a flow shard of the given videos: moving gradients under noise, all frames and pairs different."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = Sources(folder / "frames.h5", folder / "flow.h5")
    rng = np.random.default_rng(len(videos))
    with h5py.File(sources.frames, "w") as frames, h5py.File(sources.flow, "w") as flow:
        frames.attrs.update(ccs="0", dataset="made-up", settings=json.dumps({"quality": 95}))
        flow.attrs.update(
            ccs="0", settings=json.dumps({"tau": 0.25}), backend="opencv", backend_version="5", bound=bound
        )
        for file in (frames, flow):
            file.create_dataset("video", data=list(videos), shape=(len(videos),), dtype=h5py.string_dtype())
        for row, (video, (num_frames, height, width)) in enumerate(videos.items()):
            y, x, t = np.ogrid[:height, :width, :num_frames]
            grey = (3 * y + 2 * x + 11 * t).transpose(2, 0, 1)[..., None] + np.array([0, 40, 90])
            images = (grey + rng.integers(0, 30, grey.shape)).astype(np.uint8)
            jpegs = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1] for image in images]
            group = frames.create_group(f"frames/{row:06d}")
            group.attrs.update(video=video, height=height, width=width, fps=25.0)
            group["jpeg"], group["offset"] = np.concatenate(jpegs), np.cumsum([0, *map(len, jpegs)])
            values = rng.integers(1, 256, (num_frames - 1, 2, height, width), np.uint8)
            pairs = flow.create_dataset(f"flow/{row:06d}", data=values, chunks=(1, *values.shape[1:]), **BLOSC)
            pairs.attrs["clipped"] = row / 8
    return sources


def expected(sources: Sources) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Frames (T, H, W, 3) RGB and flow (T-1, 2, H, W) of each video, the slow and plain way."""
    with h5py.File(sources.frames) as frames, h5py.File(sources.flow) as flow:
        found = {}
        for row, video in enumerate(frames["video"].asstr()[:]):
            group = frames[f"frames/{row:06d}"]
            parts = np.split(group["jpeg"][:], group["offset"][1:-1])
            images = [cv2.imdecode(part, cv2.IMREAD_COLOR)[..., ::-1] for part in parts]
            found[video] = np.stack(images), flow[f"flow/{row:06d}"][:]
        return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Sources:
    return write_sources(tmp_path_factory.mktemp("sources"), VIDEOS)


@pytest.fixture(scope="module")
def shard(sources) -> Path:
    path = sources.frames.parent / "shard.h5"
    main(["--frames", str(sources.frames), "--flow", str(sources.flow), "--output", str(path)])
    return path


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> tuple[list[Path], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Five shards, one of them empty, and what is in them."""
    folder, paths, content = tmp_path_factory.mktemp("several"), [], {}
    for number in range(5):
        videos = {f"{number}-{k}": (5 + number + k, 16 + 8 * (k % 2), 24) for k in range(0 if number == 2 else 4)}
        sources = write_sources(folder / str(number), videos)
        paths.append(folder / f"{number:04d}.h5")
        pack(sources.frames, sources.flow, paths[-1])
        content |= expected(sources)
    return paths, content


def test_every_frame_and_pair_is_that_of_the_sources(sources, shard):
    reader, content = ShardReader([shard]), expected(sources)
    assert reader.num_frames == {video: size[0] for video, size in VIDEOS.items()}
    assert reader.bound == 20
    assert "b" in reader
    assert "c" not in reader
    for video, (frames, flow) in content.items():
        np.testing.assert_array_equal(reader.frames(video, range(len(frames))), frames)
        np.testing.assert_array_equal(reader.flow(video, range(len(flow))), flow)


def test_any_indices_in_any_order_are_those_of_reading_in_sequence(several):
    paths, content = several
    for max_open in (1, 2, 256):
        reader, rng = ShardReader(paths, max_open=max_open), random.Random(0)
        for video in rng.choices(sorted(content), k=40):
            frames, flow = content[video]
            for read, whole in ((reader.frames, frames), (reader.flow, flow)):
                n = rng.randrange(8)
                indices = rng.choices(range(len(whole)), k=n)
                for wanted in (indices, np.array(sorted(indices), np.int64), [len(whole) - 1] * n):
                    found = read(video, wanted)
                    assert found.dtype == np.uint8
                    assert found.flags.c_contiguous
                    np.testing.assert_array_equal(found, whole[np.asarray(wanted, int)])


def test_same_sources_same_bytes(sources, shard, tmp_path):
    pack(sources.frames, sources.flow, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == shard.read_bytes()


def test_a_shard_says_how_its_content_was_made(shard):
    with h5py.File(shard) as file:
        assert json.loads(file.attrs["frames.settings"]) == {"quality": 95}
        assert json.loads(file.attrs["flow.settings"]) == {"tau": 0.25}
        assert (file.attrs["flow.backend"], file.attrs["flow.bound"], file.attrs["bound"]) == ("opencv", 20, 20)
        assert file["clipped"][:].tolist() == [0, 1 / 8, 2 / 8, 3 / 8]


def test_a_shard_without_videos_is_valid(tmp_path):
    sources = write_sources(tmp_path, {})
    pack(sources.frames, sources.flow, tmp_path / "shard.h5")
    reader = ShardReader([tmp_path / "shard.h5"])
    assert (reader.num_frames, reader.bound) == ({}, 20)


def read_some(reader: ShardReader, videos: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(reader.frames(video, [0, 1, 3]), reader.flow(video, [3, 2])) for video in videos]


def check_some(found: list[tuple[np.ndarray, np.ndarray]], videos: list[str], content: Mapping) -> None:
    for video, (frames, flow) in zip(videos, found, strict=True):
        np.testing.assert_array_equal(frames, content[video][0][[0, 1, 3]])
        np.testing.assert_array_equal(flow, content[video][1][[3, 2]])


def shuffled(videos: Mapping, seed: int) -> list[str]:
    return random.Random(seed).choices(sorted(videos), k=60)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_read_at_the_same_time(several, start):
    paths, content = several
    reader = ShardReader(paths, max_open=2)
    read_some(reader, sorted(content))  # leaves files open in the parent
    with ProcessPoolExecutor(3, multiprocessing.get_context(start)) as pool:
        futures = {seed: pool.submit(read_some, reader, shuffled(content, seed)) for seed in range(6)}
        check_some(read_some(reader, sorted(content)), sorted(content), content)
        for seed, future in futures.items():
            check_some(future.result(timeout=60), shuffled(content, seed), content)


def test_a_forked_process_and_its_parent_read_on_with_the_inherited_reader(several):
    paths, content = several
    reader = ShardReader(paths)
    read_some(reader, sorted(content))
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (9, 9), 2)  # leaves threads of OpenCV, which a fork loses

    def work(seed: int) -> None:
        for _ in range(3):
            check_some(read_some(reader, shuffled(content, seed)), shuffled(content, seed), content)

    processes = [multiprocessing.get_context("fork").Process(target=work, args=(seed,)) for seed in range(3)]
    for process in processes:
        process.start()
    work(3)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    work(4)


def test_a_pickled_reader_reads(several):
    paths, content = several
    reader = ShardReader(paths)
    before = len(pickle.dumps(reader))
    check_some(read_some(reader, sorted(content)), sorted(content), content)
    data = pickle.dumps(reader)
    assert len(data) == before  # nothing of what was read travels
    check_some(read_some(pickle.loads(data), sorted(content)), sorted(content), content)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc/self/fd, which is not here")
def test_open_files_are_bounded_and_opened_late(several):
    paths, content = several

    def open_shards() -> int:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return sum(os.path.realpath(link) in map(str, paths) for link in links)

    before = open_shards()  # of readers of other tests
    reader = ShardReader(paths, max_open=2)
    assert open_shards() == before
    read_some(reader, sorted(content))
    assert open_shards() == before + 2
    reader.close()
    assert open_shards() == before
    check_some(read_some(reader, sorted(content)), sorted(content), content)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_shard_cut_short_is_refused(shard, tmp_path, share):
    data = shard.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CcsError, match=r"cut\.h5: .*(cut short|damaged)"):
        ShardReader([path])


def test_a_shard_that_its_writer_never_closed_is_refused(shard, tmp_path):
    part, path = tmp_path / "part.h5", tmp_path / "shard.h5"
    shutil.copy(shard, part)
    with h5py.File(part, "r+") as file:
        file.flush()
        shutil.copy(part, path)  # what a killed process leaves: every byte there, but never closed
    with pytest.raises(CcsError, match=r"shard\.h5: expected a whole HDF5 file"):
        ShardReader([path])
    ShardReader([part])


def test_errors_of_opening(sources, shard, several, tmp_path):
    text, other, bound = (tmp_path / name for name in ("text.h5", "format.h5", "bound.h5"))
    text.write_text("not an HDF5 file")
    shutil.copy(shard, other)
    with h5py.File(other, "r+") as file:
        file.attrs["format"] = 2
    coarse = write_sources(tmp_path, {"z": (3, 16, 16)}, bound=15)
    pack(coarse.frames, coarse.flow, bound)
    cases = {
        "found none": [],
        "absent.h5: expected an HDF5 file, found none": [tmp_path / "absent.h5"],
        "text.h5: expected a whole HDF5 file": [text],
        "flow.h5: expected a training shard of format 1, found no training shard": [sources.flow],
        "format.h5: expected a training shard of format 1, found format 2": [shard, other],
        f"expected every video once, found Dive/v g01 also in {shard}": [*several[0], shard, shard],
        f"bound.h5: expected flow bound 20.0 as in {shard}, found 15.0": [shard, bound],
    }
    for message, paths in cases.items():
        with pytest.raises(CcsError) as caught:
            ShardReader(paths)
        assert message in str(caught.value)


def test_errors_of_reading(shard):
    reader = ShardReader([shard])
    cases = [
        (reader.frames, "c", [0], "c: expected a video of the 1 training shard"),
        (reader.frames, "b", [0, 9], "b: expected indices of frames in 0..8, found 9"),
        (reader.flow, "b", [8], "b: expected indices of flow pairs in 0..7, found 8"),
        (reader.flow, "b", [-1, 0], "b: expected indices of flow pairs in 0..7, found -1"),
        (reader.frames, "b", [0.5], "whole numbers"),
    ]
    for read, video, indices, message in cases:
        with pytest.raises(CcsError) as caught:
            read(video, indices)
        assert message in str(caught.value)


def test_damage_inside_and_replacement_are_noticed(sources, shard, tmp_path):
    path = tmp_path / "shard.h5"
    shutil.copy(shard, path)
    with h5py.File(path, "r+") as file:
        file["jpeg"][:] = 0
        chunk = file["flow/24x40"].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    reader = ShardReader([path])
    for read in (reader.frames, reader.flow):
        with pytest.raises(CcsError, match=r"shard\.h5: Dive/v g01 cannot be read .*damaged"):
            read("Dive/v g01", [0])
    reader = ShardReader([path])
    shutil.copy(shard, path)
    with pytest.raises(CcsError, match=r"shard\.h5: .*another written since"):
        reader.frames("b", [0])


@pytest.mark.parametrize(
    ("name", "created"),
    [
        ("num_frames", {"shape": (2**40,), "dtype": "i8", "chunks": (1024,)}),
        ("num_frames", {"data": np.array([9 + 10**9, 150 - 10**9, 70, 2])}),
        ("height", {"data": np.array([0, 24, 32, 33])}),
        ("video", {"data": np.arange(4)}),
        ("offset", {"data": np.array([b"0"] * 232)}),
        ("jpeg", {"shape": (2**45,), "dtype": "u1"}),
        ("jpeg", {"shape": (900,), "dtype": "u1", "external": [(__file__, 0, 900)]}),
        ("flow/24x40", {"shape": (157, 2, 10**6, 10**6), "dtype": "u1", "chunks": (1, 1, 1000, 1000)}),
        ("flow/24x40", {"shape": (157, 2, 24, 40), "dtype": "u1", "chunks": (1, 2, 24, 40)}),
    ],
)
def test_a_shard_that_lies_about_itself_is_refused_when_it_is_opened(shard, tmp_path, name, created):
    path = tmp_path / "shard.h5"
    shutil.copy(shard, path)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        del file[name]
        file.create_dataset(name, **created)
    with pytest.raises(CcsError, match=r"shard\.h5: its index cannot be read .* delete it"):
        ShardReader([path])


def test_nothing_is_locked(shard, sources, tmp_path):
    """Not every file system has locks."""
    part = tmp_path / "part.h5"
    with hdf5.created(part), open(part, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(shard, "rb") as locked, open(sources.frames, "rb") as also:
        for each in (locked, also):
            fcntl.flock(each, fcntl.LOCK_EX)
        assert "b" in ShardReader([shard])
        pack(*sources, tmp_path / "again.h5")


def test_what_keeps_a_file_from_being_opened_is_not_held_against_it(shard):
    """Nobody is told to delete a good file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(CcsError, match=r"cannot be read now \(Too many open files\)") as caught:
            ShardReader([shard])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "delete" not in str(caught.value)
    assert "damaged" not in str(caught.value)
    with pytest.raises(CcsError, match=r"cannot be read now \(Is a directory\)"):
        ShardReader([shard.parent])


def change(sources: Sources, what: str) -> None:
    """Spoil the sources of the videos b (5 frames) and c."""
    with h5py.File(sources.frames, "r+") as frames, h5py.File(sources.flow, "r+") as flow:
        if what == "ids":
            flow["video"][1] = "d"
        elif what == "pairs":
            values = flow["flow/000001"][1:]
            del flow["flow/000001"]
            flow["flow/000001"] = values
        elif what == "size":
            frames["frames/000000"].attrs["width"] = 23
        elif what == "unwritten":
            del flow["flow/000000"]
            flow.create_dataset("flow/000000", (4, 2, 16, 24), np.uint8, chunks=(1, 2, 16, 24))[:3] = 128
        elif what == "zeros":
            flow["flow/000000"][2] = 0
        elif what == "group":
            del frames["frames/000001"]
        elif what == "offset":
            frames["frames/000000/offset"][2] += 1
        elif what == "bound":
            del flow.attrs["bound"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("ids", r"flow\.h5: expected flow of the 2 videos of .*frames\.h5.*: c, d; run the stage `flow`"),
        (
            "pairs",
            r"flow\.h5: expected uint8 flow \(4, 2, 16, 24\) of c, .* its 5 frames .* found uint8 \(3, 2, 16, 24\)",
        ),
        ("size", r"flow\.h5: expected uint8 flow \(4, 2, 16, 23\) of b"),
        ("unwritten", r"flow\.h5: b cannot be read \(of flow/000000, .* not all was written"),
        ("zeros", r"flow\.h5: b cannot be read \(flow has values 0"),
        ("group", r"frames\.h5: c cannot be read"),
        ("offset", r"frames\.h5: b cannot be read \(a frame is not a JPEG"),
        ("bound", r"flow\.h5: its flow bound cannot be read"),
    ],
)
def test_incomplete_sources_are_refused_and_leave_nothing(tmp_path, what, message):
    sources = write_sources(tmp_path, {"b": (5, 16, 24), "c": (5, 16, 24)})
    change(sources, what)
    with pytest.raises(CcsError, match=message):
        pack(sources.frames, sources.flow, tmp_path / "out" / "shard.h5")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
