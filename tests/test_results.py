"""What a run got right, by class and by video."""

from __future__ import annotations

import base64
import csv
import math
import re

import cv2
import h5py
import numpy as np
import pytest

from ccs import mistakes, results, scores
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


def write_shard(path, videos):
    """A training shard, by its layout, of id -> grey frames (T, H, W) and the motion (x, y) of all pixels, as kept."""
    path.parent.mkdir(parents=True)
    jpegs = [cv2.imencode(".jpg", frame)[1].ravel() for frames, _ in videos.values() for frame in frames]
    lengths = [len(frames) for frames, _ in videos.values()]
    flow = [
        np.tile(np.uint8(motion)[None, :, None, None], (n - 1, 1, 40, 60))
        for n, (_, motion) in zip(lengths, videos.values(), strict=True)
    ]
    with h5py.File(path, "w") as file:
        file.attrs.update(format=1, bound=20.0)
        file["video"] = list(videos)
        for name, values in (("num_frames", lengths), ("height", [40] * len(videos)), ("width", [60] * len(videos))):
            file[name] = np.array(values, np.int32)
        file["jpeg"] = np.concatenate(jpegs)
        file["offset"] = np.cumsum([0, *map(len, jpegs)])
        file["flow/40x60"] = np.concatenate(flow)


@pytest.fixture
def project(run, tmp_path):
    """The run with the shards of its data set, where the pipeline has both."""
    levels = {"v": (20, (128, 128)), "w": (60, (128, 160)), "x": (120, (96, 128)), "y": (200, (160, 128))}
    videos = {name: (np.full((7, 40, 60), grey, np.uint8), motion) for name, (grey, motion) in levels.items()}
    write_shard(tmp_path / "data/d/shards/0000.h5", videos)
    moved = tmp_path / "results/runs/d/split1/r"
    moved.parent.mkdir(parents=True)
    return run.rename(moved)


def pictures(text):
    """Of an HTML page: RGB arrays."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1)[..., ::-1] for data in found]


def test_the_page_of_mistakes(project, tmp_path, capsys):
    results.main([str(project), "--mistakes", str(tmp_path / "m.html")])
    text = (tmp_path / "m.html").read_text(encoding="utf-8")
    # by hand, of RGB + 1.5 flow: y in seed 0 [7.5, 0, 3], x in seed 10 [1.5, 3, 0], w in seed 0 [0, 1, 1.5]
    headings = [re.sub("<[^>]+>", "", each) for each in re.findall(r"<h2>(.*?)</h2>", text)]
    assert headings == ["wave, taken for sit", "wave, taken for stand, up", "sit, taken for wave"]
    assert re.findall(r'"video">(\w); wrong in (\d) of 2 seeds, this is seed (\d+)', text) == [
        ("y", "1", "0"),
        ("x", "1", "10"),
        ("w", "1", "0"),
    ]
    rows = [re.sub("<[^>]+>", " ", each).split() for each in re.findall(r"<tr><th>RGB.*?</tr>", text)]
    total = math.exp(7.5) + 1 + math.exp(3)
    assert rows[:2] == [
        ["RGB", "wave", *(f"{100 * math.exp(3) / (math.exp(3) + 2):.1f} %".split() * 2)],
        ["RGB+Flow", "sit", *f"{100 * math.exp(7.5) / total:.1f} % {100 * math.exp(3) / total:.1f} %".split()],
    ]
    assert "3 of 5 test videos are mistaken by at least one of 2 seeds" in text
    assert "1 more could not be decoded" in text
    wheel, *strips = pictures(text)
    assert len(strips) == 3 * 2 * 6
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import""", text)
    assert (
        wheel[88, 165, 0] > 220 > 60 > wheel[88, 165, 1]
    )  # red to the right, blue and no red to the left (Baker et al.)
    for strip, (grey, is_to_the_right) in enumerate([(200, True), (120, False)]):
        frames, flow = strips[12 * strip :][:6], strips[12 * strip + 6 :][:6]
        assert all(abs(frame.mean() - grey) < 2 for frame in frames)
        red, _, blue = np.mean(flow, axis=(0, 1, 2))
        assert (red > 220 > 60 > blue) if is_to_the_right else (blue > 220 > 60 > red)
    results.main([str(project / "seed0"), "--mistakes", str(tmp_path / "one.html"), "--number", "1"])
    one = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert re.findall(r'"video">(\w)</p>', one) == ["y"]
    assert "2 of 5 test videos are mistaken (" in one


def test_a_video_that_one_seed_could_not_decode_is_judged_by_the_others(tmp_path):
    """y is the surest mistake of seed 0 and could not be decoded for seed 1; of z it is the other way."""
    right, wrong = np.eye(3)[[0, 0, 2, 2, 0]] * 5, np.eye(3)[[0, 0, 2, 0, 1]] * 5
    for seed, logits, bad in ((0, wrong * 2, 4), (1, wrong, 3), (2, right, ())):
        write(tmp_path / f"seed{seed}/scores.h5", seed, logits, logits, quarantined=bad)
    found = results.of_run(tmp_path)
    mistaken, num_all = mistakes.surest(found, 24)
    assert [(found[0].video[each.row], each.seed.seed, each.num_wrong) for each in mistaken] == [
        ("y", 0, 1),
        ("z", 1, 1),
    ]
    assert num_all == 2
    assert "could not be decoded" not in mistakes._introduction(found, 2, 2)


def test_a_page_needs_the_shards_of_its_videos(project, tmp_path):
    shard = tmp_path / "data/d/shards/0000.h5"
    other = tmp_path / "other/0000.h5"
    write_shard(other, {"v": (np.zeros((3, 40, 60), np.uint8), (128, 128))})
    with pytest.raises(CcsError, match=r"y: expected this test video in the training shards from .*other"):
        results.main([str(project), "--mistakes", str(tmp_path / "m.html"), "--shards", str(other)])
    shard.unlink()
    with pytest.raises(CcsError, match=r"expected the training shards data/d/shards/\*\.h5 in a folder above it"):
        results.main([str(project), "--mistakes", str(tmp_path / "m.html")])
    with pytest.raises(CcsError, match="--number: expected 1 or more, found 0"):
        results.main([str(project), "--mistakes", str(tmp_path / "m.html"), "--shards", str(other), "--number", "0"])
    assert not (tmp_path / "m.html").exists()
    with pytest.raises(CcsError, match="add --mistakes"):
        results.main([str(project), "--number", "3"])


def test_errors(run, tmp_path):
    with pytest.raises(CcsError, match=r"nothing: expected the folder of a run.*found nothing there"):
        results.main([str(tmp_path / "nothing")])
    with pytest.raises(CcsError, match=r"found no scores.h5 in it"):
        results.main([str(tmp_path)])
    write(run / "seed3/scores.h5", 3, np.eye(3), np.eye(3), label=(0, 1, 2))
    with pytest.raises(CcsError, match=r"seed 3, on 'd' split 1: expected the test videos of run 'r', seed 0"):
        results.main([str(run)])
