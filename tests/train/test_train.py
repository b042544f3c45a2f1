"""Training: it learns, it is a function of its seed, it stops early, and it refuses what makes no sense."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torchvision import models

from ccs import scores
from ccs.clips.dataset import ClipSettings
from ccs.datasets.manifests import Manifest, Video
from ccs.evaluate import scoring as evaluate
from ccs.models.losses import LossSettings
from ccs.models.network import CCS, NetworkSettings
from ccs.stage import CcsError
from ccs.train import __main__ as train
from ccs.train import checkpoint, history, training
from ccs.train.settings import EvaluateSettings
from ccs.train.training import Settings, TrainSettings

SETTINGS = Settings(
    NetworkSettings(backbone="shufflenet_v2_x0_5", weights="none", embedding=16, flow_length=2, dropout=(0.2, 0.2)),
    ClipSettings(segments=2, input_size=32, scales=(1.0,), test_scale=1.0, flip=False),
    LossSettings(),
    TrainSettings(epochs=3, batch_classes=2, batch_videos=4, lr=0.05, lr_steps=(2,)),
)


class MadeUp:
    """A reader of videos that exist in no file: class 0 is dark and moves right, class 1 is bright and moves left."""

    bound = 20.0
    preparation: ClassVar = {"flow": {"bound": 20.0}, "backend": "native 0"}

    def __init__(self, videos: list[Video]) -> None:
        self.num_frames = {video.video: 6 for video in videos}
        self.label = {video.video: video.label for video in videos}

    def __contains__(self, video: str) -> bool:
        return video in self.num_frames

    def _noise(self, video: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(list(video.encode())).integers(-20, 21, (6, *shape))

    def frames(self, video: str, indices) -> np.ndarray:
        level = (80, 170)[self.label[video]]
        return (level + self._noise(video, (32, 40, 3))[indices]).astype(np.uint8)

    def flow(self, video: str, indices) -> np.ndarray:
        level = (150, 106)[self.label[video]]
        return (level + self._noise(video, (2, 32, 40))[indices]).astype(np.uint8)


def manifest(classes: int = 2) -> Manifest:
    names = ("left", "right", "up")[:classes]
    videos = [
        Video(f"{split}{i:02d}", f"videos/{split}{i}.mp4", i % classes, names[i % classes], split)
        for split, count in (("test", 6), ("train", 16), ("val", 4))
        for i in range(count)
    ]
    return Manifest(dataset="made_up", classes=names, videos=tuple(videos))


def changed(**train) -> Settings:
    return dataclasses.replace(SETTINGS, train=dataclasses.replace(SETTINGS.train, **train))


def run_train(folder: Path, settings: Settings = SETTINGS, **changes) -> dict:
    start_train(folder, settings, **changes)
    return checkpoint.read(folder / "checkpoint.pt")


def start_train(
    folder: Path,
    settings: Settings,
    videos: Manifest | None = None,
    reader: MadeUp | None = None,
    quarantine: str = "video,path,stage,reason\n",
    **changes,
) -> None:
    (folder / "quarantine.csv").write_text(quarantine)
    arguments = {
        "evaluation": EvaluateSettings(),
        "split": 1,
        "quarantine": str(folder / "quarantine.csv"),
        "run_name": "ccs",
        "seed": 0,
        "workers": 0,
        "provenance": "",
        "checkpoint_path": folder / "checkpoint.pt",
        "history_path": folder / "history.csv",
    } | changes
    videos = videos or manifest()
    train.train(videos, reader or MadeUp(videos.videos), settings, **arguments)


def in_own_process(code: str, folder: Path, within: Sequence[str] = (), **options) -> subprocess.CompletedProcess:
    """Python code that may import what is in this folder, with `folder` as its argument; run by `within`, if any."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [*within, sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, env=environment, text=True, check=False, **options)


def same_weights(a: dict, b: dict) -> bool:
    return all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])


def history_rows(folder: Path) -> list[dict[str, str]]:
    """All of history.csv but what depends on the machine."""
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in history.COLUMNS[: history.COLUMNS.index("clips_per_second")]} for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, run_train(folder)


def test_it_writes_a_checkpoint_and_a_row_per_epoch(trained):
    folder, state = trained
    rows = history_rows(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.05, 0.05, 0.005])
    assert all(0 <= float(row["active_triplets"]) <= 1 for row in rows)
    assert not list(folder.glob("*resume*"))
    assert state["classes"] == ["left", "right"]
    assert (state["dataset"], state["split"], state["run"], state["seed"], state["epoch"]) == (
        "made_up",
        1,
        "ccs",
        0,
        3,
    )
    assert state["optimizer"]["state"]


@pytest.mark.slow
def test_it_learns(tmp_path):
    """Either stream alone tells the two classes: after a few dozen steps both must, on videos never seen."""
    settings = dataclasses.replace(SETTINGS, train=dataclasses.replace(SETTINGS.train, epochs=30, lr_steps=(20,)))
    state = run_train(tmp_path, settings)
    videos = manifest()
    result = evaluate.evaluate(
        state,
        videos,
        MadeUp(videos.videos),
        evaluate.EvaluateSettings(segments=3),
        quarantine=str(tmp_path / "quarantine.csv"),
    )
    assert [scores.accuracy(result, stream) for stream in scores.STREAMS] == [100, 100, 100]


@pytest.mark.parametrize("workers", [2, 4])
def test_same_seed_same_bits_whatever_the_workers(trained, tmp_path, workers):
    assert same_weights(trained[1], run_train(tmp_path, workers=workers))
    assert history_rows(tmp_path) == history_rows(trained[0])


def test_new_memory_is_not_filled_and_no_bit_depends_on_what_it_held(trained, tmp_path, monkeypatch):
    real = training.train_one_epoch

    def filled(*args):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        with monkeypatch.context() as patch:
            patch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)  # with NaN
            return real(*args)

    monkeypatch.setattr(training, "train_one_epoch", filled)
    assert same_weights(trained[1], run_train(tmp_path, changed(epochs=3)))


def test_a_training_that_diverges_is_told_once_with_what_may_help(tmp_path, capsys):
    """Where real weights run away; a training that learns is told nothing."""
    torch.save(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "weights.pth")
    pretrained = dataclasses.replace(SETTINGS.network, weights=str(tmp_path / "weights.pth"))
    for lr, network, remedies in (
        (0.05, SETTINGS.network, None),
        (5.0, SETTINGS.network, "lower train.lr\n"),
        (5.0, pretrained, "lower train.lr, or set train.partial_bn to false, or give other train.weights\n"),
    ):
        settings = dataclasses.replace(changed(epochs=3, lr=lr, batch_classes=8, batch_videos=1), network=network)
        run_train(tmp_path, settings)
        told = capsys.readouterr().err
        assert told.count("worse than guessing") == bool(remedies)
        assert not remedies or f"has 0.69. If it stays so, {remedies}" in told
        assert "batches of 2 classes x 4 videos" in told


def test_determinism_can_be_given_up_for_speed(tmp_path, monkeypatch):
    seen = []
    real = training.train_one_epoch

    def look(*args):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        return real(*args)

    monkeypatch.setattr(training, "train_one_epoch", look)
    for deterministic in (False, True):  # in this order, as the switches are the process's
        run_train(tmp_path, changed(epochs=1, deterministic=deterministic))
    assert seen == [(False, True), (True, False)]


def test_another_seed_other_weights(trained, tmp_path):
    assert not same_weights(trained[1], run_train(tmp_path, seed=1))


# Accuracies of epochs as early stopping has met them: a plateau at the first rates, with a lucky epoch on it, and most
# of what is learned comes after the last step.
PLATEAU = [10.0, 75.0, 25.0, 45.0, 40.0, 90.0, 85.0, 90.0, 99.0]


@pytest.mark.parametrize(
    ("lr_steps", "accuracies", "num_epochs", "kept"),
    [
        ((20,), [10.0, 60.0, 50.0, 60.0, 70.0], 4, 2),  # a step after the last epoch is none
        ((2, 4, 30), PLATEAU, 8, 6),
        ((4,), [100.0, 0.0, 0.0, 0.0, 90.0, 95.0, 95.0, 95.0], 8, 6),
        ((8,), [50.0, *[0.0] * 7, 40.0], 9, 9),
    ],
)
def test_early_stopping_waits_for_the_last_rate_and_keeps_its_best_epoch(
    tmp_path, monkeypatch, lr_steps, accuracies, num_epochs, kept
):
    accuracies = iter(accuracies)
    seen = []

    def validate(model, *args):
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return {"val_rgb": 0.0, "val_flow": 0.0, "val_fused": next(accuracies)}

    monkeypatch.setattr(training, "validate", validate)
    monkeypatch.setattr(training, "train_one_epoch", lambda model, *args: move(model))
    state = run_train(tmp_path, changed(epochs=9, patience=2, lr_steps=lr_steps))
    assert len(seen) == num_epochs  # two epochs without a better one
    assert state["epoch"] == kept
    assert same_weights(state, {"model": seen[kept - 1]})
    assert not same_weights(state, {"model": seen[kept - 2]})


def move(model: torch.nn.Module) -> dict[str, float]:
    """An epoch that costs no time."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    return {"loss": 1.0, "loss_cross_entropy": 1.0, "active_triplets": 1.0, "train_rgb": 1.0, "train_flow": 1.0}


@pytest.mark.parametrize("patience", [0, 5])
def test_the_checkpoint_notes_how_its_run_is_evaluated_and_early_stopping_goes_by_it(
    tmp_path, monkeypatch, capsys, patience
):
    """A training that was interrupted goes on with another evaluation, unless it watches its fusion."""
    real, settings, fusions = training.validate, changed(epochs=1, patience=patience), []

    def validate(model, loader, accelerator, fusion, *args):
        fusions.append(fusion)
        return (
            real(model, loader, accelerator, fusion, *args)
            if len(fusions) > 1
            else os.kill(os.getpid(), signal.SIGUSR1)
        )

    monkeypatch.setattr(training, "validate", validate)
    with pytest.raises(SystemExit):
        start_train(tmp_path, settings, evaluation=EvaluateSettings(fusion=(1, 1)))
    state = run_train(tmp_path, settings, evaluation=EvaluateSettings(4, 10, (1, 3)))
    assert ("other settings" in capsys.readouterr().err) == (patience > 0)
    assert fusions == [(1, 1), (1, 3)]
    assert state["evaluate"] == {"segments": 4, "crops": 10, "fusion": (1, 3)}


def test_evaluation_scores_every_test_video_and_counts_quarantined_ones_as_errors(trained, tmp_path):
    state = trained[1]
    videos = manifest()
    reader = MadeUp(videos.videos)
    del reader.num_frames["test03"]
    (tmp_path / "quarantine.csv").write_text("video,path,stage,reason\ntest03,x,frames,cut short\n")
    settings = evaluate.EvaluateSettings(segments=5, crops=10)
    result = evaluate.evaluate(state, videos, reader, settings, quarantine=str(tmp_path / "quarantine.csv"))
    assert result.video == tuple(f"test{i:02d}" for i in range(6))
    assert result.quarantined.tolist() == [False, False, False, True, False, False]
    assert np.isnan(result.rgb[3]).all()
    scores.write(tmp_path / "scores.h5", result)
    kept = [i for i in range(6) if i != 3]
    right = (result.rgb[kept] + 1.5 * result.flow[kept]).argmax(axis=1) == np.array([0, 1, 0, 0, 1])
    assert scores.accuracy(scores.read(tmp_path / "scores.h5"), "fused") == pytest.approx(100 * right.sum() / 6)
    # against the network called by hand: here all crops are the same, and centres are the starts' middles
    network = CCS(2, SETTINGS.network, segments=2)
    network.load_state_dict(state["model"])
    network.eval()
    one = evaluate.evaluate(
        state, videos, reader, evaluate.EvaluateSettings(segments=2), quarantine=str(tmp_path / "quarantine.csv")
    )
    starts = np.array([1, 3])  # 4 possible starts in 2 segments
    frames = torch.from_numpy(reader.frames("test01", starts + 1)[:, :, 4:36]).permute(0, 3, 1, 2)[None, :, None]
    pairs = np.stack([reader.flow("test01", [t, t + 1])[..., 4:36] for t in starts])
    with torch.no_grad():
        output = network(frames, torch.from_numpy(pairs)[None])
    torch.testing.assert_close(torch.from_numpy(one.rgb[1]), output.rgb[0])
    torch.testing.assert_close(torch.from_numpy(one.flow[1]), output.flow[0])


def test_evaluation_keeps_what_the_scores_were_made_with(trained, tmp_path):
    (tmp_path / "quarantine.csv").write_text("video,path,stage,reason\n")
    videos = manifest()
    settings = evaluate.EvaluateSettings(segments=2)
    result = evaluate.evaluate(
        trained[1], videos, MadeUp(videos.videos), settings, quarantine=str(tmp_path / "quarantine.csv")
    )
    assert result.settings["network"]["backbone"] == "shufflenet_v2_x0_5"
    assert result.settings["evaluate"]["segments"] == 2
    assert result.settings["flow"] == {"bound": 20.0}
    assert torch.__version__.startswith(result.versions["torch"])
    assert result.versions["flow"] == "native 0"


def test_videos_without_labels_are_scored_apart(trained, tmp_path):
    (tmp_path / "quarantine.csv").write_text("video,path,stage,reason\n")
    videos = manifest()
    more = tuple(Video(f"zz{i}", f"zz{i}.mp4", -1, "", "unlabelled") for i in range(2))
    reader = MadeUp((*videos.videos, *(video._replace(label=1) for video in more)))
    result = evaluate.evaluate(
        trained[1],
        dataclasses.replace(videos, videos=(*videos.videos, *more)),
        reader,
        evaluate.EvaluateSettings(segments=2),
        quarantine=str(tmp_path / "quarantine.csv"),
        part="unlabelled",
    )
    assert result.video == ("zz0", "zz1")
    assert result.label.tolist() == [-1, -1]
    assert np.isfinite(result.rgb).all()


def test_evaluation_refuses_another_split_or_class_list(trained):
    state = trained[1]
    with pytest.raises(CcsError, match="split 2"):
        evaluate.check_same_task(state, manifest(), 2, 20.0, path="c.pt")
    with pytest.raises(CcsError, match="'up'"):
        evaluate.check_same_task(state, manifest(3), 1, 20.0, path="c.pt")
    moved = manifest()
    swap = {"train00": "test", "test00": "train"}
    moved = dataclasses.replace(
        moved, videos=tuple(video._replace(split=swap.get(video.video, video.split)) for video in moved.videos)
    )
    with pytest.raises(CcsError, match="training videos may be among the test videos"):
        evaluate.check_same_task(state, moved, 1, 20.0, path="c.pt")
    with pytest.raises(CcsError, match="bound 20 px"):
        evaluate.check_same_task(state, manifest(), 1, 10.0, path="c.pt")
    evaluate.check_same_task(state, manifest(), 1, 20.0, path="c.pt")


@pytest.mark.parametrize("change", [{"later": 1}, {"aggregation": "median"}])
def test_a_checkpoint_with_settings_of_another_version_is_named(change):
    """One that has a setting, or a choice, which this version has not."""
    settings = dataclasses.asdict(SETTINGS)
    settings["network"] |= change
    state = {
        "settings": json.dumps(settings),
        "classes": ["a", "b"],
        "run": "mine",
        "seed": 3,
        "dataset": "d",
        "model": {},
    }
    with pytest.raises(CcsError, match=rf"run 'mine', seed 3, on 'd': expected .*{next(iter(change))}.*; train again"):
        checkpoint.network(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 5}, r"another classes than training writes \(5\)"),
        ({"classes": []}, "another classes"),
        ({"classes": ["a", 1]}, "another classes"),
        ({"bound": "x"}, r"another bound than training writes \('x'\)"),
        ({"bound": float("nan")}, "another bound"),
        ({"preparation": 5, "split": "1"}, "another split, preparation"),
        ({"settings": 5}, "another settings"),
        ({"model": None}, "another model"),
        ({"model": {"a.weight": 1}}, "another model"),
        (
            {"model": {"a.weight": torch.tensor([1, float("nan")])}},
            "the weights have NaN or infinity in 1 of 1 tensors",
        ),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_content_is_named(tmp_path, trained, change, message):
    torch.save({**trained[1], **change}, tmp_path / "odd.pt")
    with pytest.raises(CcsError, match=rf"odd\.pt: .*{message}"):
        checkpoint.read(tmp_path / "odd.pt")


@pytest.mark.parametrize(
    "text", ["{}", "null", "[" * 100_000, '{"network": {"embedding": 1000000000000}, "clips": {}}']
)
def test_settings_of_a_checkpoint_that_are_none_are_told(trained, text):
    with pytest.raises(CcsError, match=r"run 'ccs', seed 0, on 'made_up': expected settings"):
        checkpoint.network({**trained[1], "settings": text})


def test_a_class_that_lost_all_its_training_videos_stops_the_training(tmp_path, capsys):
    """As the table would count its test videos as those of a class that was trained; one that is left is enough."""
    videos = manifest()
    lost = [video for video in videos.videos if video.split == "train" and video.label == 1]
    reader = MadeUp([video for video in videos.videos if video not in lost])
    bad = "video,path,stage,reason\n" + "".join(f"{video.video},x,frames,cut short\n" for video in lost)
    told = r"no training video is usable of 1 of 2 classes: 'right' \(of 8\).*quarantine\.csv has the reasons: repair"
    with pytest.raises(CcsError, match=told):
        start_train(tmp_path, changed(epochs=1, batch_classes=1), videos, reader, quarantine=bad)
    assert not (tmp_path / "checkpoint.pt").exists()
    reader.num_frames[lost[0].video] = 6
    reader.label[lost[0].video] = 1
    # one that no training video is listed of, as small subsets of something-something-v2 have them, is told
    of_three = dataclasses.replace(videos, classes=("left", "right", "up"))
    start_train(tmp_path, changed(epochs=1, batch_classes=1), of_three, reader, quarantine=bad)
    assert "1 classes have no training video in this split and will hardly be recognised: up" in capsys.readouterr().err


def test_refusals(tmp_path):
    with pytest.raises(CcsError, match="ranking"):
        dataclasses.replace(SETTINGS, network=dataclasses.replace(SETTINGS.network, shared=False))
    with pytest.raises(CcsError, match="lr"):
        TrainSettings(lr=0)
    (tmp_path / "quarantine.csv").write_text("video,path,stage,reason\n")
    videos = manifest()
    reader = MadeUp([video for video in videos.videos if video.video != "train05"])
    with pytest.raises(CcsError, match=r"1 of 16 train videos.*train05"):
        train.usable_videos(videos, "train", reader, tmp_path / "quarantine.csv")
    with pytest.raises(CcsError, match=r"nowhere\.pt"):
        checkpoint.read(tmp_path / "nowhere.pt")
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CcsError, match=r"bad\.pt"):
        checkpoint.read(tmp_path / "bad.pt")
