"""Frames and flow of other tools through the stages: what they wrote is what the shards hold."""

from __future__ import annotations

import csv
import json
import subprocess
from itertools import pairwise
from pathlib import Path

import cv2
import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest

from ccs.datasets import adapters, manifests
from ccs.flow import tool
from ccs.flow.__main__ import main as flow_stage
from ccs.flow.quantise import dequantise
from ccs.frames.__main__ import main as frames_stage
from ccs.frames.film import find_ffmpeg
from ccs.shards.__main__ import pack
from ccs.stage import CcsError

BOUND = 16.0


def load(root: Path, split: int = 1, **settings):
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    return adapters.load("mine", {"adapter": "rawframes", "root": str(root), **settings}, split)


def pattern(num_frames: int, height: int, width: int, step: int = 2) -> np.ndarray:
    """Colour frames (T, H, W, 3) of a pattern that moves `step` px to the right a frame."""
    noise = np.random.default_rng(width).integers(0, 256, (height, width + step * num_frames, 3), dtype=np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.stack([noise[:, step * (num_frames - t) :][:, :width] for t in range(num_frames)])


def write(folder: Path, frames: np.ndarray, flow: np.ndarray | None = None, frame: str = "img_{:05d}.jpg") -> None:
    """TSN's layout; of flow (P, 2, H, W) in pixels its 8 bits, as dense_flow's CAST makes them."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(frames, start=1):
        cv2.imwrite(str(folder / frame.format(number)), picture)
    for number, pair in enumerate(flow if flow is not None else [], start=1):
        for name, plane in zip("xy", pair, strict=True):
            values = np.rint(255 * (np.clip(plane, -BOUND, BOUND) + BOUND) / (2 * BOUND)).astype(np.uint8)
            cv2.imwrite(str(folder / f"flow_{name}_{number:05d}.jpg"), values, [cv2.IMWRITE_JPEG_QUALITY, 100])


def run_stages(folder: Path, manifest: manifests.Manifest, *flags: str, bound: float = BOUND) -> tuple[h5py.File, ...]:
    """The frames, flow and training shard of all its videos, and the rows of the quarantine."""
    paths = {name: folder / f"{name}.h5" for name in ("frames", "flow", "shard")}
    manifests.write(folder / "manifest.csv", {1: manifest}, 1)
    inputs = ["--manifest", folder / "manifest.csv", "--shard", "0000", "--output", paths["frames"]]
    settings = ["--bound", bound, "--quarantine", folder / "bad.csv", *flags]
    frames_stage([str(part) for part in (*inputs, *settings)])
    flow_stage([str(part) for part in ("--frames", paths["frames"], "--output", paths["flow"], "--scales", 3)])
    pack(paths["frames"], paths["flow"], paths["shard"])
    with open(folder / "bad.csv", encoding="utf-8", newline="") as file:
        return *(h5py.File(path) for path in paths.values()), list(csv.DictReader(file))


def smooth(num_pairs: int, height: int, width: int) -> np.ndarray:
    """Flow within the bound that JPEG hardly changes."""
    field = np.random.default_rng(0).normal(size=(num_pairs * 2, height // 8, width // 8)).astype(np.float32)
    planes = [cv2.resize(6 * plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in field]
    return np.clip(np.stack(planes).reshape(num_pairs, 2, height, width), -BOUND, BOUND)


def test_what_other_tools_wrote_goes_into_the_shards(tmp_path, capfd):
    raw = tmp_path / "raw"
    known = smooth(5, 48, 64)
    write(raw / "run" / "a", pattern(6, 48, 64), known)
    even = np.broadcast_to(np.array([4.0, -2.0])[:, None, None], (6, 2, 96, 128))
    write(raw / "run" / "b", pattern(6, 96, 128), even, "frame_{:06d}.png")  # the last repeated
    write(raw / "walk" / "c", pattern(6, 48, 64), frame="{:05d}.jpg")
    write(raw / "walk" / "gap", pattern(6, 48, 64), known)
    (raw / "walk" / "gap" / "img_00003.jpg").unlink()
    write(raw / "walk" / "few", pattern(6, 48, 64), known[:3])
    write(raw / "walk" / "cut", pattern(6, 48, 64))
    cut = raw / "walk" / "cut" / "img_00004.jpg"
    cut.write_bytes(cut.read_bytes()[:-400])
    frames, flow, shard, bad = run_stages(tmp_path, load(raw), "--short-side", "48")
    assert {row["video"]: row["reason"] for row in bad} == {
        "walk/cut": bad[0]["reason"],
        "walk/few": "3 pairs of flow do not fit 6 frames: expected 5, or 6 with the last one repeated",
        "walk/gap": "of its frames 1 to 6 these are not there: 3",
    }
    assert bad[0]["reason"].startswith("img_00004.jpg is no whole JPEG")
    assert list(flow["video"].asstr()) == list(frames["video"].asstr()) == ["run/a", "run/b", "walk/c"]

    # byte for byte where the size is right
    entry = frames["frames/000000"]
    jpegs = [entry["jpeg"][a:b].tobytes() for a, b in pairwise(entry["offset"][:])]
    assert jpegs == [path.read_bytes() for path in sorted((raw / "run" / "a").glob("img_*"))]
    assert entry.attrs["imported"]
    scaled = frames["frames/000001"]
    assert (scaled.attrs["height"], scaled.attrs["width"], len(scaled["offset"])) == (48, 64, 7)
    second = cv2.imdecode(scaled["jpeg"][scaled["offset"][1] : scaled["offset"][2]], cv2.IMREAD_COLOR)
    expected = cv2.resize(pattern(6, 96, 128)[1], (64, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(second.astype(float) - expected).mean() < 4

    # flow within what was stated, and what JPEG lost: the pictures as another decoder reads them
    record = json.loads(flow.attrs["imported"])
    assert (record["videos"], record["bound"]) == (2, [BOUND])
    assert record["rounding_error"] == pytest.approx(BOUND / 255 + 20 / 254)
    given = [[cv2.imread(str(raw / f"run/a/flow_{name}_{i:05d}.jpg"), 0) for name in "xy"] for i in range(1, 6)]
    pictures = np.array(given) * (2 * BOUND / 255) - BOUND
    ours = dequantise(flow["flow/000000"][:], 20.0)
    assert np.abs(ours - pictures).max() <= 20 / 254 + 1e-6
    assert np.abs(ours - known).mean() < record["rounding_error"]
    # smaller pictures have smaller displacements
    assert np.abs(dequantise(flow["flow/000001"][:], 20.0).mean((0, 2, 3)) - [2, -1]).max() < 0.1
    # and what is not there is computed
    found = dequantise(flow["flow/000002"][:], 20.0)
    assert found.shape == (5, 2, 48, 64)
    assert np.abs(np.median(found, (0, 2, 3)) - [2, 0]).max() < 0.2
    assert [dict(flow[f"flow/{i:06d}"].attrs).get("imported_bound") for i in range(3)] == [BOUND, BOUND, None]
    assert shard.attrs["flow.imported"] == flow.attrs["imported"]
    assert "15 pairs of 1 videos by native" in (said := capfd.readouterr().err)
    assert "and 2 videos imported" in said


def test_lists_of_tsn_and_mmaction2_are_checked_against_what_is_there(tmp_path):
    for name, num_frames in (("a", 4), ("b", 5), ("c", 6)):
        write(tmp_path / "raw" / "run" / name, pattern(num_frames, 48, 64), smooth(num_frames - 1, 48, 64))
    tmp_path.joinpath("train.txt").write_text("run/a 4 0\nrun/b 4 0\n")  # of b its pairs, as lists of flow have it
    tmp_path.joinpath("test.txt").write_text("run/c.avi 5 0\nrun/gone 5 0\n")
    lists = {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    manifest = load(tmp_path / "raw", **lists, max_absent_fraction=0.25)
    assert [(v.video, v.split, v.num_frames) for v in manifest.videos] == [
        ("run/a", "train", 4),
        ("run/b", "train", 4),
        ("run/c", "test", 5),
    ]
    tmp_path.joinpath("test.txt").write_text("run/c 7 0\n")
    *_, bad = run_stages(tmp_path, load(tmp_path / "raw", **lists), "--short-side", "48")
    assert [(row["video"], row["reason"]) for row in bad] == [("run/c", "6 frames are there, the list says 7")]
    with pytest.raises(CcsError, match="root: expected the directory of CLASS/VIDEO"):
        adapters.load("mine", {"adapter": "rawframes"})
    with pytest.raises(CcsError, match="group: expected none with lists"):
        load(tmp_path / "raw", **lists, group="(.)")


def test_folders_are_divided_by_group_as_files_are(tmp_path):
    for name in ("a_1", "a_2", "b_1", "c_1"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "walk" / name).mkdir(parents=True)
    folds = [load(tmp_path, split, group="(.)_.", folds=3) for split in (1, 2, 3)]
    tested = [{v.video for v in fold.videos if v.split == "test"} for fold in folds]
    assert sorted(map(sorted, tested)) == [
        ["run/a_1", "run/a_2", "walk/a_1", "walk/a_2"],
        ["run/b_1", "walk/b_1"],
        ["run/c_1", "walk/c_1"],
    ]


def by_way_of_pictures(data: Path, folder: Path, short_side: int) -> tuple[int, int, np.ndarray]:
    """All clips of list.csv through `ccs flow --rgb` and rawframes, beside what the stages make of the clips.

    Returns the numbers of videos and of pairs, and how far their flow is apart, in px, of every value.
    """
    scale = ["--short-side", str(short_side)]
    clips = sorted(str(path) for path in data.glob("*/*.avi"))
    tool.main(
        [*clips, "--root", str(data), "-o", str(folder / "raw"), "--rgb", "--scales", "3", "--format", "jpg", *scale]
    )
    results = []
    for adapter, root in (("list", data), ("rawframes", folder / "raw")):
        settings = {"adapter": adapter, "list": str(data / "list.csv"), "root": str(root), "folds": 5}
        manifest = adapters.load("people", settings, 2)
        (folder / adapter).mkdir()
        results.append((manifest, *run_stages(folder / adapter, manifest, *scale, bound=20.0)))
    (manifest, frames, flow, _, _), (raw_manifest, raw_frames, raw_flow, _, bad) = results
    assert bad == []
    assert [video[2:5] for video in raw_manifest.videos] == [video[2:5] for video in manifest.videos]
    assert list(raw_flow["video"].asstr()) == list(flow["video"].asstr()) == list(frames["video"].asstr())
    differences = []
    for key in flow["flow"]:
        # the same decode and the same encoder: the files of the frames are equal to the byte
        assert np.array_equal(raw_frames[f"frames/{key}/offset"][:], frames[f"frames/{key}/offset"][:])
        assert np.array_equal(raw_frames[f"frames/{key}/jpeg"][:], frames[f"frames/{key}/jpeg"][:])
        assert len(flow[f"flow/{key}"]) == len(frames[f"frames/{key}/offset"]) - 2
        imported, own = (dequantise(file[f"flow/{key}"][:], 20.0) for file in (raw_flow, flow))
        differences.append(np.abs(imported - own))
    return len(differences), sum(map(len, differences)), np.concatenate(differences, axis=None)


@pytest.mark.slow
def test_real_clips_by_way_of_pictures(tmp_path, real_data):
    """The counts are ffmpeg's; the flow differs by two scales of 8 bits and by what JPEG lost of frames and flow."""
    data = real_data / "weizmann"
    num_videos, num_pairs, difference = by_way_of_pictures(data, tmp_path, 36)
    clips = list(data.glob("*/*.avi"))
    line = [find_ffmpeg(), "-v", "error", *(part for clip in clips for part in ("-i", clip))]
    line += [part for i in range(len(clips)) for part in ("-map", f"{i}:V:0")]
    done = subprocess.run([*line, "-fps_mode", "passthrough", "-f", "framehash", "-"], capture_output=True, check=True)
    num_frames = len([row for row in done.stdout.splitlines() if not row.startswith(b"#")])
    assert (num_videos, num_pairs) == (90, num_frames - 90)
    assert difference.mean() < 0.03  # 0.018; half a step of TSN's 8 bits is 0.08 px
    assert np.quantile(difference, 0.99) < 0.2
