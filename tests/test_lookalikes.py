"""Test videos that look like training videos, on made-up shards of real JPEGs."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from ccs import lookalikes
from ccs.datasets.manifests import Manifest, Video, write
from ccs.shards.__main__ import pack
from ccs.stage import CcsError

HEIGHT, WIDTH = 96, 120


def place(seed: int) -> np.ndarray:
    """A picture that is like no other."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.uniform(0, 255, (9, 12)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def clip(seed: int, of: int) -> list[np.ndarray]:
    """Six frames of someone who walks through a place, in light of their own."""
    rng = np.random.default_rng(seed)
    light = rng.uniform(0.7, 0.9)
    frames = [
        np.clip(light * place(of) + rng.normal(0, 10, (HEIGHT, WIDTH)), 0, 255).astype(np.uint8) for _ in range(6)
    ]
    for t, frame in enumerate(frames):
        frame[30:80, 15 * t : 15 * t + 15] = rng.integers(256)
    return frames


def shard(path: Path, videos: dict[str, list[np.ndarray]]) -> str:
    sources = path.with_suffix(".frames.h5"), path.with_suffix(".flow.h5")
    with h5py.File(sources[0], "w") as file, h5py.File(sources[1], "w") as flow:
        flow.attrs["bound"] = 20.0
        for each in (file, flow):
            each.create_dataset("video", data=list(videos), dtype=h5py.string_dtype())
        for number, frames in enumerate(videos.values()):
            jpegs = [cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))[1].ravel() for frame in frames]
            group = file.create_group(f"frames/{number:06d}")
            group.attrs.update(height=HEIGHT, width=WIDTH)
            group["jpeg"] = np.concatenate(jpegs)
            group["offset"] = np.cumsum([0, *map(len, jpegs)])
            pairs = flow.create_dataset(f"flow/{number:06d}", data=np.full((5, 2, HEIGHT, WIDTH), 128, np.uint8))
            pairs.attrs["clipped"] = 0.0
    pack(*sources, path)
    return str(path)


@pytest.fixture
def made(tmp_path) -> list[str]:
    """Flags for two splits: in the first a and b, of one place, are apart; in the second together. c is elsewhere."""
    videos = {"jump/a": clip(1, of=1), "jump/b": clip(2, of=1), "run/c": clip(3, of=2), "run/d": clip(4, of=3)}
    videos["run/black"] = [np.zeros((HEIGHT, WIDTH), np.uint8)] * 6
    sides = {
        1: {"jump/a": "test", "jump/b": "train", "run/black": "test", "run/c": "test", "run/d": "train"},
        2: {"jump/a": "test", "jump/b": "test", "run/black": "train", "run/c": "train", "run/d": "val"},
    }
    rows = {
        number: tuple(Video(each, f"{each}.mp4", "jr".index(each[0]), each.split("/")[0], of[each]) for each in of)
        for number, of in sides.items()
    }
    write(tmp_path / "manifest.csv", {n: Manifest("mine", ("jump", "run"), each) for n, each in rows.items()}, 2)
    halves = list(videos)[:2], list(videos)[2:]
    files = [shard(tmp_path / f"{n}.h5", {each: videos[each] for each in half}) for n, half in enumerate(halves)]
    return ["--manifest", str(tmp_path / "manifest.csv"), "--shards", *files, "--output", str(tmp_path / "found.csv")]


def test_clips_of_one_recording_on_both_sides_are_told_and_listed_and_no_others(made, capsys):
    lookalikes.main([*made, "--splits", "1", "2"])
    with open(made[-1], encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["split"], row["video"], row["train_video"]) == ("1", "jump/a", "jump/b")
    # against the frames themselves, four of each made small and averaged here
    clips = [[clip(n, of=1)[t] for t in (0, 2, 3, 5)] for n in (1, 2)]
    small = [np.mean([cv2.resize(f, (16, 12), interpolation=cv2.INTER_AREA) for f in each], 0) for each in clips]
    assert float(row["correlation"]) == pytest.approx(np.corrcoef(*map(np.ravel, small))[0, 1], abs=0.02)
    told = capsys.readouterr().out
    assert told.count("warning") == 1
    for part in ("mine, split 1: 1 of 3 test videos", "jump/a like jump/b", made[-1], "datasets.mine.group"):
        assert part in told
    lookalikes.main([*made, "--splits", "2"])
    assert capsys.readouterr().out == ""


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    scenes = rng.uniform(0, 255, (40, 12, 16))
    of = {f"{n:03d}": (scenes[n % 40] + rng.normal(0, 20, (12, 16))).astype(np.float32) for n in range(160)}
    test, train = sorted(of)[:60], sorted(of)[60:]
    found = lookalikes.most_alike(of, test, train)
    every = np.corrcoef([of[name].ravel() for name in (*test, *train)])[:60, 60:]
    assert [pair.video for pair in found] == [test[i] for i in np.flatnonzero(every.max(axis=1) > 0.9)]
    assert [pair.train_video for pair in found] == [train[every[test.index(pair.video)].argmax()] for pair in found]
    monkeypatch.setattr(lookalikes, "BLOCK", 7)
    again = lookalikes.most_alike(of, test, train)
    assert [pair[:2] for pair in again] == [pair[:2] for pair in found]
    assert 40 < len(found) <= 60


def test_a_damaged_shard_is_named(made):
    with h5py.File(made[3], "a") as file:
        file["jpeg"][:] = 7
    with pytest.raises(CcsError, match=r"0\.h5: jump/a cannot be read"):
        lookalikes.main([*made, "--splits", "1"])
