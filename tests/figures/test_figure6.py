"""Figure 6: the rule that chooses videos, and maps of known content drawn where they belong."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from ccs import scores
from ccs.clips.dataset import ClipSettings
from ccs.datasets import manifests
from ccs.figures import cam, style
from ccs.figures.figure6 import __main__ as figure6
from ccs.frames.__main__ import write_shard
from ccs.frames.decode import DecodedVideo
from ccs.frames.judgement import Moments
from ccs.models.losses import LossSettings
from ccs.models.network import CCS, NetworkSettings
from ccs.scores import Scores
from ccs.shards.__main__ import pack
from ccs.stage import CcsError
from ccs.train import checkpoint, training

LONG = "Pretending to put something on a surface"
CLASSES = ("eat", LONG, "wave", "never shown")
NUM_FRAMES, SEGMENTS = 21, 8


def made_scores(label: list[int], fused: list[list[float]], **changes) -> Scores:
    """Scores whose flow logits are 0, so that the fused ones are those given."""
    rgb = np.array(fused, np.float32)
    fields = {
        "video": tuple(f"v{i}" for i in range(len(label))),
        "label": np.array(label),
        "rgb": rgb,
        "flow": np.where(np.isnan(rgb), np.nan, np.float32(0)),
        "quarantined": np.isnan(rgb).any(axis=1),
        "dataset": "wide",
        "split": 1,
        "run": "ccs",
        "seed": 3,
        "classes": CLASSES,
        "settings": {"evaluate": {"segments": SEGMENTS, "crops": 1}},
        "fusion": (1.0, 1.5),
        "versions": {},
    }
    return Scores(**(fields | changes))


def test_the_most_probable_of_the_correct_videos_stands_for_a_class():
    nan = float("nan")
    result = made_scores(
        [0, 0, 0, 1, 1, 0, 2],
        [
            [2, 0, 0, 0],
            [3, 0, 0, 0],
            [9, 10, 0, 0],  # wrong
            [1, 0, 0, 0],
            [3, 2.5, 0, 0],  # wrong, as the other, and more of its own class
            [nan, nan, nan, nan],
            [0, 0, 1, 0],
        ],
    )
    assert [figure6.choose(result, label) for label in (0, 1, 2)] == [1, 4, 6]
    with pytest.raises(CcsError, match="no test video of it"):
        figure6.choose(result, 3)
    assert figure6.shown_labels(result, []) == [0, 1, 2]
    assert figure6.shown_labels(result, ["wave", "of another data set", "eat"]) == [2, 0]
    np.testing.assert_allclose(figure6.probabilities(result)[1, 0], np.exp(3) / (np.exp(3) + 3))


def test_shown_segments_are_spread_over_the_video():
    assert figure6.shown_segments(25).tolist() == [2, 7, 12, 17, 22]
    assert figure6.shown_segments(8).tolist() == [0, 2, 4, 5, 7]
    assert figure6.shown_segments(3).tolist() == [0, 1, 2]


def make_data_set(folder: Path, height: int, width: int) -> manifests.Manifest:
    """A manifest and a training shard of videos whose frame t of video v is of the grey 40 + 8 t + 2 v."""
    videos = [manifests.Video(f"v{i}", f"v{i}.mp4", i % 3, CLASSES[i % 3], "test") for i in range(6)]
    manifest = manifests.Manifest(folder.name, CLASSES, tuple(videos))
    manifests.write(folder / "manifest.csv", {1: manifest}, 1)
    (folder / "quarantine.csv").write_text("video,path,stage,reason\n")
    decoded = []
    for number, video in enumerate(videos):
        grey = [np.full((height, width, 3), 40 + 8 * t + 2 * number, np.uint8) for t in range(NUM_FRAMES)]
        jpegs = [cv2.imencode(".jpg", frame)[1].ravel() for frame in grey]
        offset = np.cumsum([0, *map(len, jpegs)])
        moments = Moments(np.arange(NUM_FRAMES) / 25, 1 / 25, 0, 0)
        decoded.append((video.video, DecodedVideo(np.concatenate(jpegs), offset, height, width, 25, moments, "")))
    with h5py.File(folder / "frames.h5", "w") as file:
        write_shard(file, iter(decoded))
    with h5py.File(folder / "flow.h5", "w") as file:
        file["video"] = [video.video for video in videos]
        for number in range(len(videos)):
            file[f"flow/{number:06d}"] = np.full((NUM_FRAMES - 1, 2, height, width), 128, np.uint8)
        file.attrs["bound"] = 20.0
    (folder / "shards").mkdir()
    pack(folder / "frames.h5", folder / "flow.h5", folder / "shards/0000.h5")
    return manifest


def make_checkpoint(path: Path, manifest: manifests.Manifest) -> None:
    network = NetworkSettings(backbone="shufflenet_v2_x0_5", weights="none")
    clips = ClipSettings(input_size=64)
    settings = training.Settings(network, clips, LossSettings(), training.TrainSettings())
    torch.manual_seed(0)
    state = {
        "model": CCS(len(manifest.classes), network, segments=3).state_dict(),
        **{key: {} for key in ("optimizer", "schedule", "random", "preparation")},
        **{"epoch": 1, "dataset": manifest.dataset, "split": 1, "run": "ccs", "seed": 3, "bound": 20.0},
        "classes": list(manifest.classes),
        "videos": manifests.split_digest(manifest),
        "settings": json.dumps(dataclasses.asdict(settings)),
    }
    checkpoint.write(path, state)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, list[str]]:
    """Two data sets, one of them in portrait, with scores in which v4 is wrong and so is all of class 1."""
    folder = tmp_path_factory.mktemp("cam")
    flags: dict[str, list[str]] = {f"--{name}": [] for name in (*figure6.LISTS, "shards")}
    for name, size in (("wide", (60, 80)), ("tall", (90, 60))):
        data = folder / "data" / name
        data.mkdir(parents=True)
        make_checkpoint(folder / f"{name}.pt", make_data_set(data, *size))
        fused = [[3, 0, 0, 0], [2, 1, 0, 0], [0, 0, 1, 0], [4, 0, 0, 0], [1, 0, 0, 0], [0, 0, 9, 0]]
        scores.write(folder / f"{name}.h5", made_scores([0, 1, 2, 0, 1, 2], fused, dataset=name))
        files = (folder / f"{name}.pt", folder / f"{name}.h5", data / "manifest.csv", data / "quarantine.csv")
        for flag, path in zip(flags, (*files, data / "shards/0000.h5"), strict=True):
            flags[flag].append(str(path))
    return flags


def words(flags: dict[str, list[str]], out: Path, *more: str) -> list[str]:
    outputs = [word for kind in ("svg", "png", "csv") for word in (f"--{kind}", str(out / f"figure6.{kind}"))]
    return [*(word for flag, paths in flags.items() for word in (flag, *paths)), *outputs, *more]


@pytest.mark.slow
def test_maps_are_drawn_where_they_belong(inputs, tmp_path, monkeypatch):
    asked = []

    def known_maps(model, rgb, flow, *, stream, label):
        """The last segment has the highest value, lower left; one with the other sign counts as 0."""
        asked.append((stream, label, rgb.float().mean(dim=(1, 2, 3, 4)).tolist()))
        maps = torch.zeros(SEGMENTS, 1, 2, 2)
        maps[-1, 0, 1, 0] = 4.0
        maps[0, 0, 0, 1] = 2.0
        maps[0, 0, 0, 0] = -9.0
        return maps

    monkeypatch.setattr(cam, "class_activation_maps", known_maps)
    figure6.main(words(inputs, tmp_path))
    table = pd.read_csv(tmp_path / "figure6.csv")
    names = ["eat", LONG, "wave"]
    assert table.groupby(["dataset", "class"], sort=False).size().to_dict() == {
        (data, name): 5 for data in ("wide", "tall") for name in names
    }
    assert table.groupby("class")["video"].unique().map(list).to_dict() == {"eat": ["v3"], LONG: ["v1"], "wave": ["v5"]}
    assert set(table[table["class"] == LONG]["predicted"]) == {"eat"}
    expected = np.exp([4, 1, 9]) / [np.exp(4) + 3, np.exp(2) + np.exp(1) + 2, np.exp(9) + 3]
    np.testing.assert_allclose(table["probability"][:15:5], expected, atol=1e-6)
    # 21 frames, snippets of 5 pairs: starts 0..15 in 8 parts; the frame is the third of a snippet
    starts = [int((segment + 0.5) * 16 / SEGMENTS) for segment in (0, 2, 4, 5, 7)]
    assert table["frame"][:5].tolist() == [start + 2 for start in starts]
    assert table["segment"][:5].tolist() == [1, 3, 5, 6, 8]
    # the maps asked for are of these very frames, in the RGB stream, for the true class
    assert [(stream, label) for stream, label, _ in asked] == [("rgb", label) for label in (0, 1, 2)] * 2
    assert asked[0][2][2] == pytest.approx(40 + 8 * (starts[1] + 2) + 2 * 3, abs=1)
    # centre crop of the wide video: 52 px (7/8 of 60) from (14, 4); quarters of it
    first, last = table.iloc[0], table.iloc[4]
    assert (first["peak x"], first["peak y"], first["peak"]) == (14 + 39, 4 + 13, 0.5)
    assert (last["peak x"], last["peak y"], last["peak"]) == (14 + 13, 4 + 39, 1)

    svg = (tmp_path / "figure6.svg").read_text()
    assert len(re.findall("<image", svg)) == 2 * 3 * 5 * 2 + 1  # and the colour bar
    for text in ("wide, split 1, run ccs", "predicted: eat, 94.8%", "predicted (wrong):", "true class:", "2 by 2"):
        assert text in svg
    figure6.main(words(inputs, tmp_path / "again"))
    for kind in ("svg", "png", "csv"):
        assert (tmp_path / f"figure6.{kind}").read_bytes() == (tmp_path / "again" / f"figure6.{kind}").read_bytes()

    png = cv2.imread(str(tmp_path / "figure6.png"))[..., ::-1].astype(int)

    def pixel(column: int, row: int, x: float, y: float) -> np.ndarray:
        """Of the first class's picture in this column, above (0) or below (1), at this place of its 80 x 60 frame."""
        left = figure6.MARGIN + figure6.LABEL + column * (figure6.PICTURE + figure6.GAP)
        top = figure6.HEAD + figure6.TITLE + row * (0.75 * figure6.PICTURE + figure6.GAP)
        inch = left + x / 80 * figure6.PICTURE, top + y / 60 * 0.75 * figure6.PICTURE
        return png[round(style.DPI * inch[1]), round(style.DPI * inch[0])]

    for column, index in enumerate(table["frame"][:5]):
        grey = 40 + 8 * index + 2 * 3
        np.testing.assert_allclose(pixel(column, 0, 40, 30), grey, atol=2)
        np.testing.assert_allclose(pixel(column, 1, 5, 30), grey, atol=2)  # not seen by the network
    strong, brightest = cam.OPACITY[1], 255 * np.array(cam.COLOURS(1.0)[:3])
    np.testing.assert_allclose(pixel(4, 1, 21, 49), (1 - strong) * grey + strong * brightest, atol=6)
    np.testing.assert_allclose(pixel(4, 1, 59, 11), (1 - cam.OPACITY[0]) * grey, atol=6)


def test_a_class_without_evidence_says_so(inputs, tmp_path, monkeypatch):
    def no_maps(model, rgb, flow, *, stream, label):
        """None for the first class; for the second only in segment 2, which is not shown; all over for the third."""
        maps = torch.full((SEGMENTS, 1, 2, 2), -1.0)
        maps[1 if label == 1 else slice(None), 0, 1, 1] = float(label)
        return maps

    monkeypatch.setattr(cam, "class_activation_maps", no_maps)
    one = {flag: paths[:1] for flag, paths in inputs.items()}
    figure6.main(words(one, tmp_path))
    table = pd.read_csv(tmp_path / "figure6.csv", dtype=str, keep_default_na=False)
    peaks = table[["peak x", "peak y", "peak"]].to_numpy().tolist()
    assert peaks[:10] == [["", "", "0.0"]] * 10
    assert peaks[10:] == [["53.0", "43.0", "1.0"]] * 5
    svg = re.sub(r"<[^>]*>|\s+", " ", (tmp_path / "figure6.svg").read_text())
    said = " ".join(svg.split())
    assert said.count("no evidence for it in RGB") == 2
    assert said.count("no evidence for it in RGB in these frames") == 1


def test_real_maps_and_named_classes(inputs, tmp_path):
    figure6.main(words(inputs, tmp_path, "--classes=wave", "--classes", "eat"))
    table = pd.read_csv(tmp_path / "figure6.csv")
    assert table["class"][::5].tolist() == ["wave", "eat"] * 2
    assert table.groupby(["dataset", "class"])["peak"].max().between(0, 1).all()


def test_errors_name_what_does_not_belong_together(inputs, tmp_path):
    def fails(message: str, *more: str, **changes: list[str]) -> None:
        with pytest.raises(CcsError, match=re.escape(message)):
            figure6.main(words(inputs | {f"--{name}": value for name, value in changes.items()}, tmp_path, *more))

    fails("expected the scores of", scores=inputs["--scores"][::-1])
    fails("expected equally many files in each, found 2 checkpoints, 1 scores", scores=inputs["--scores"][:1])
    fails("expected its training shards as", shards=inputs["--shards"][:1])
    fails("no class 'waves' in the data sets shown", "--classes", "waves")
    fails("no test video of it", "--classes", "never shown")
    fails("trained on wide split 1", manifests=inputs["--manifests"][::-1])
    assert not list(tmp_path.iterdir())
