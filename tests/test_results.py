"""What a run got right, by class and by video."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from ccs import results, scores
from ccs.stage import CcsError

CLASSES = ("sit", "stand, up", "wave")


def write(path, seed, rgb, flow, label=(0, 0, 2, 2, 0), quarantined=()):
    bad = np.isin(np.arange(len(label)), quarantined)
    rgb, flow = (np.where(bad[:, None], np.nan, np.asarray(each, np.float32)) for each in (rgb, flow))
    path.parent.mkdir(parents=True, exist_ok=True)
    found = scores.Scores(
        video=tuple("vwxyz"[: len(label)]),
        label=np.array(label),
        rgb=rgb.astype(np.float32),
        flow=flow.astype(np.float32),
        quarantined=bad,
        dataset="d",
        split=1,
        run="r",
        seed=seed,
        classes=CLASSES,
        settings={},
        fusion=(1.0, 1.5),
        versions={},
    )
    scores.write(path, found)


@pytest.fixture
def run(tmp_path):
    """Two seeds of five videos; the last one was quarantined."""
    write(
        tmp_path / "r/seed0/scores.h5",
        0,
        [[2, 1, 0], [0, 1, 0], [0, 0, 3], [0, 0, 3], [0, 0, 0]],
        [[0, 0, 1], [0, 0, 1], [0, 0, 1], [5, 0, 0], [0, 0, 0]],
        quarantined=[4],
    )
    write(
        tmp_path / "r/seed10/scores.h5",
        10,
        [[2, 1, 0], [2, 1, 0], [0, 3, 0], [0, 0, 3], [0, 0, 0]],
        [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]],
        quarantined=[4],
    )
    return tmp_path / "r"


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_classes_and_videos(run, capsys):
    results.main([str(run)])
    # counted by hand: of sit, v and w of three, the third quarantined
    assert table(run / "classes.csv") == [
        {"class": "sit", "videos": "3", "rgb": "50.00", "flow": "33.33", "fused": "50.00"},
        {"class": "stand, up", "videos": "0", "rgb": "", "flow": "", "fused": ""},
        {"class": "wave", "videos": "2", "rgb": "75.00", "flow": "25.00", "fused": "50.00"},
    ]
    # 3 and 3 of 5 videos; of sit 2 and 1 of 3, of wave 1 and 2 of 2 (stand, up has none to be right about)
    rgb = {(row["seed"], row["over"]): row["rgb"] for row in table(run / "accuracy.csv")}
    assert rgb == {
        ("0", "all videos"): "60.00",
        ("0", "mean of classes"): "66.67",
        ("10", "all videos"): "60.00",
        ("10", "mean of classes"): "58.33",
        ("mean", "all videos"): "60.00",
        ("mean", "mean of classes"): "62.50",
    }
    rows = table(run / "videos.csv")
    assert [(row["seed"], row["video"]) for row in rows] == [(seed, video) for seed in ("0", "10") for video in "vwxyz"]
    first, last = rows[0], rows[4]
    assert (first["label"], first["rgb"], first["flow"], first["fused"]) == ("sit", "sit", "wave", "sit")
    total = math.exp(2) + math.exp(1) + math.exp(1.5)  # of RGB + 1.5 * flow: 2, 1, 1.5
    assert float(first["fused_probability"]) == pytest.approx(math.exp(2) / total, abs=1e-6)
    assert float(first["flow_probability_of_label"]) == pytest.approx(1 / (2 + math.e), abs=1e-6)
    assert (last["quarantined"], last["rgb"], last["fused_probability"]) == ("yes", "", "")
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].split()[0] == "sit"  # told worst (as often as wave, and before it)
    # all videos: RGB (2 + 1 + 1 ... ) 6 of 10; mean of the two classes that have videos
    assert shown.splitlines()[-2].split()[-3:] == ["60.00", "30.00", "50.00"]
    assert shown.splitlines()[-1].split()[-4:] == ["2", "62.50", "29.17", "50.00"]


def test_one_seed_and_another_folder(run, tmp_path):
    results.main([str(run / "seed10"), "-o", str(tmp_path / "out")])
    assert {row["seed"] for row in table(tmp_path / "out" / "videos.csv")} == {"10"}
    assert not (run / "seed10" / "videos.csv").exists()


def test_without_labels_there_are_verdicts_alone(tmp_path):
    write(tmp_path / "unlabelled.h5", 0, np.eye(3), np.eye(3), label=(-1, -1, -1))
    results.main([str(tmp_path / "unlabelled.h5")])
    assert [row["fused"] for row in table(tmp_path / "videos.csv")] == list(CLASSES)
    assert not (tmp_path / "classes.csv").exists()
    assert not (tmp_path / "accuracy.csv").exists()


def test_errors(run, tmp_path):
    with pytest.raises(CcsError, match=r"nothing: expected the folder of a run.*found nothing there"):
        results.main([str(tmp_path / "nothing")])
    with pytest.raises(CcsError, match=r"found no scores.h5 in it"):
        results.main([str(tmp_path)])
    write(run / "seed3/scores.h5", 3, np.eye(3), np.eye(3), label=(0, 1, 2))
    with pytest.raises(CcsError, match=r"seed 3, on 'd' split 1: expected the test videos of run 'r', seed 0"):
        results.main([str(run)])
