"""The whole pipeline for real, on tiny rendered videos and on real clips, from videos to the table."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ccs.datasets.manifests import read
from ccs.frames.film import find_ffmpeg
from ccs.shards.__main__ import ShardReader

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = {
    "datasets": {
        "tiny": {
            "adapter": "demo",
            "shards": 2,
            "train_per_class": 2,
            "test_per_class": 1,
            "width": 48,
            "height": 36,
            "frames": 4,
            "val_fraction": 0,
        }
    },
    "frames": {"short_side": 32},
    "flow": {"warps": 1, "scales": 1, "outer_iterations": 1},
    "train": {
        "backbone": "shufflenet_v2_x0_5",
        "weights": "none",
        "input_size": 32,
        "epochs": 1,
        "segments": 1,
        "flow_length": 2,
        "batch_classes": 8,
        "batch_videos": 2,
    },
    "evaluate": {"segments": 1, "fusion": [2, 1]},
    "seeds": [7],
    "tables": {"table1": {"rows": {"ccs": 'It\'s {ours} & "theirs"'}}},  # nothing of it is for the shell or Snakemake
}


@pytest.mark.slow
def test_videos_in_table_out(tmp_path):
    import h5py

    # Another working directory, no activated environment, and a path to no `ccs`.
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    snakemake = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", tmp_path, "--cores", "2"]
    environment = {**os.environ, "PATH": os.defpath, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(snakemake, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'It\'s {ours} & "theirs"' in done.stdout  # the table is printed
    assert "Published" not in done.stdout  # without the rows of other data, which are in the file
    assert "## Published" in (tmp_path / "results/table1.md").read_text()

    manifest = read(tmp_path / "data/tiny/manifest.csv")
    assert len(manifest.videos) == 24
    reader = ShardReader(sorted((tmp_path / "data/tiny/shards").glob("*.h5")))
    assert reader.num_frames == {video.video: 4 for video in manifest.videos}
    assert reader.frames(manifest.videos[0].video, [0, 3]).shape[:2] == (2, 32)
    assert (tmp_path / "data/tiny/quarantine.csv").read_text().splitlines() == ["video,path,stage,reason"]

    results = tmp_path / "results/runs/tiny/split1/ccs/seed7"
    assert len((results / "history.csv").read_text().splitlines()) == 2
    with h5py.File(results / "scores.h5") as scores:
        assert [name.decode() for name in scores["video"]] == [v.video for v in manifest.videos if v.split == "test"]
        assert list(scores.attrs["fusion"]) == [2, 1]
        assert (scores.attrs["run"], scores.attrs["seed"], scores.attrs["split"]) == ("ccs", 7, 1)
        assert json.loads(scores.attrs["classes"]) == list(manifest.classes)
        fused = 2 * scores["rgb"][:] + scores["flow"][:]
        top1 = 100 * np.mean(fused.argmax(1) == scores["label"][:])
    with open(tmp_path / "results/table1.csv", newline="") as file:
        measured = [row for row in csv.DictReader(file) if row["source"] == "measured"]
    assert [(row["method"], float(row["tiny RGB+Flow"])) for row in measured] == [
        ('It\'s {ours} & "theirs"', pytest.approx(top1, abs=0.05))
    ]

    again = subprocess.run(snakemake, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert "Nothing to be done" in again.stdout + again.stderr


def decoded_frames(path: Path) -> int:
    """What ffmpeg itself counts when it decodes a file to nothing, without dropping or repeating a frame."""
    command = [find_ffmpeg(), "-nostdin", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return int(re.findall(rb"frame= *(\d+)", done.stderr)[-1])


@pytest.mark.slow
def test_real_clips_of_three_data_sets(tmp_path, real_data):
    """UCF-101's and HMDB-51's clips with their published lists, and clips in class folders: none lost, none cut."""
    clips = sorted((real_data / "ssv2" / "videos").glob("*.webm"))
    for clip in clips:  # task5_0.webm is the first clip of class 5
        folder = tmp_path / "own videos" / clip.stem.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / clip.name).symlink_to(clip)

    def published(name: str, absent: float) -> dict:
        roots = {"root": str(real_data / name / "videos"), "lists": str(real_data / "splits" / name)}
        return {"adapter": name, **roots, "max_absent_fraction": absent, "shards": 3, "val_fraction": 0}

    config = {
        **CONFIG,
        "datasets": {
            "ucf101": published("ucf101", 0.999),
            "hmdb51": published("hmdb51", 0.9995),
            "own": {"adapter": "folder", "root": "own videos", "shards": 2, "test_fraction": 0.4, "val_fraction": 0},
        },
        "tables": {"table1": {"rows": {"ccs": "CCS + TSN"}}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    snakemake = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", tmp_path, "--cores", "2"]
    done = subprocess.run(snakemake, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    for name, num_videos in (("ucf101", 17), ("hmdb51", 5), ("own", len(clips))):
        videos = read(tmp_path / f"data/{name}/manifest.csv").videos
        assert len(videos) == num_videos
        reader = ShardReader(sorted((tmp_path / f"data/{name}/shards").glob("*.h5")))
        counts = {video.video: decoded_frames(tmp_path / video.path) for video in videos}
        assert reader.num_frames == counts
        for video, count in counts.items():  # N frames have N - 1 pairs, and the last ones are there
            assert reader.flow(video, [count - 2]).shape[:2] == (1, 2)
            assert len(reader.frames(video, [count - 1])) == 1
        assert (tmp_path / f"data/{name}/quarantine.csv").read_text().splitlines() == ["video,path,stage,reason"]
    with open(tmp_path / "results/table1.csv", newline="") as file:
        (measured,) = [row for row in csv.DictReader(file) if row["source"] == "measured"]
    assert all(0 <= float(measured[f"{name} RGB+Flow"]) <= 100 for name in ("UCF-101", "HMDB-51", "own"))
