"""Scores files: what is refused, and the accuracies against loops written out and against torch."""

from __future__ import annotations

import dataclasses
import json
import time

import h5py
import numpy as np
import pytest
import torch

from ccs.scores import STREAMS, Scores, accuracy, fuse, hits, mean_class_accuracy, read, top_k, write
from ccs.stage import CcsError


def make(rgb, flow, label, quarantined=None, **changes) -> Scores:
    rgb, flow = np.array(rgb, np.float32), np.array(flow, np.float32)
    quarantined = np.zeros(len(rgb), bool) if quarantined is None else np.array(quarantined)
    rgb[quarantined] = flow[quarantined] = np.nan
    fields = {
        "video": tuple(f"v_{i:03d}" for i in range(len(rgb))),
        "label": np.array(label, np.int64),
        "rgb": rgb,
        "flow": flow,
        "quarantined": quarantined,
        "dataset": "demo",
        "split": 1,
        "run": "ccs",
        "seed": 3,
        "classes": tuple(f"class {i}" for i in range(rgb.shape[1])),
        "settings": {"weights": "none", "lr": 1e-3},
        "fusion": (1.0, 1.5),
        "versions": {"ccs": "0.1.0", "flow": "native 0.1.0, Numba 0.68.1"},
    }
    return Scores(**(fields | changes))


def random_scores(num_videos=40, num_classes=7, seed=0, whole_numbers=False, quarantined=(), **changes) -> Scores:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(2, num_videos, num_classes)) * 2
    out = np.isin(np.arange(num_videos), quarantined)
    if whole_numbers:  # many ties
        logits = logits.round()
    return make(*logits, random.integers(0, num_classes, num_videos), out, **changes)


def slow_hit(score: list[float], label: int, k: int) -> bool:
    ranked = sorted(range(len(score)), key=lambda c: (-score[c], c))
    return label in ranked[:k]


@pytest.mark.parametrize("whole_numbers", [False, True])
def test_metrics_equal_a_loop_over_videos(whole_numbers):
    scores = random_scores(60, 7, seed=1, whole_numbers=whole_numbers, quarantined=[0, 5, 59])
    for stream in STREAMS:
        for k in (1, 2, 5, 7, 9):
            right, per_class = 0, {}
            for i in range(60):
                rgb, flow = scores.rgb[i].tolist(), scores.flow[i].tolist()
                score = {"rgb": rgb, "flow": flow, "fused": [r + 1.5 * f for r, f in zip(rgb, flow, strict=True)]}[
                    stream
                ]
                hit = not scores.quarantined[i] and slow_hit(score, scores.label[i], k)
                right += hit
                per_class.setdefault(int(scores.label[i]), []).append(hit)
            assert top_k(scores, stream, k) == pytest.approx(100 * right / 60)
            if k == 1:
                assert accuracy(scores, stream) == pytest.approx(100 * right / 60)
                means = [sum(own) / len(own) for own in per_class.values()]
                assert mean_class_accuracy(scores, stream) == pytest.approx(100 * sum(means) / len(means))


@pytest.mark.parametrize("k", [1, 5])
def test_hits_equal_torch_topk(k):
    scores = random_scores(200, 11, seed=2)
    fused = torch.from_numpy(scores.rgb).double() + 1.5 * torch.from_numpy(scores.flow).double()
    for stream, score in (("rgb", torch.from_numpy(scores.rgb)), ("fused", fused)):
        expected = (score.topk(k, dim=1).indices == torch.from_numpy(scores.label)[:, None]).any(dim=1)
        assert hits(scores, stream, k).tolist() == expected.tolist()


def test_by_hand_with_a_quarantined_video_and_fusion_by_logits():
    # video 0: each stream is wrong and their sum right; 1: both right; 2: flow outweighs rgb; 3: never decoded
    rgb = [[2, 3, 0], [0, 5, 0], [1, 0, 0], [9, 9, 9]]
    flow = [[2, 0, 3], [0, 1, 0], [0, 0, 1], [9, 9, 9]]
    scores = make(rgb, flow, [0, 1, 2, 1], [False, False, False, True])
    assert fuse(scores)[:3].tolist() == [[5, 3, 4.5], [0, 6.5, 0], [1, 0, 1.5]]
    assert np.isnan(fuse(scores)[3]).all()
    assert [accuracy(scores, s) for s in STREAMS] == [25.0, 50.0, 75.0]  # of 4 videos, not of 3
    assert top_k(scores, "rgb", 3) == 75.0  # more guesses do not rescue an undecoded video
    assert mean_class_accuracy(scores, "fused") == pytest.approx(100 * (1 + 1 / 2 + 1) / 3)
    assert accuracy(dataclasses.replace(scores, fusion=(1.0, 0.0)), "fused") == 25.0


def test_equal_logits_go_by_class_index():
    scores = make(np.zeros((3, 3)), np.zeros((3, 3)), [0, 1, 2])
    assert hits(scores, "rgb", 1).tolist() == [True, False, False]
    assert hits(scores, "rgb", 2).tolist() == [True, True, False]


def test_classes_without_test_videos_do_not_count_in_the_mean_class_accuracy():
    assert mean_class_accuracy(make([[1, 0, 0], [1, 0, 0]], [[1, 0, 0]] * 2, [0, 1]), "rgb") == 50.0


def test_unlabelled_test_videos_have_no_accuracy():
    with pytest.raises(CcsError, match="1 of 2 test videos have no label"):
        accuracy(make(np.eye(2), np.eye(2), [0, -1]), "rgb")


def test_round_trip_and_the_same_bytes_again(tmp_path):
    scores = random_scores(quarantined=[2], classes=("Grüße", *map(str, range(6))))
    write(tmp_path / "a.h5", scores)
    back = read(tmp_path / "a.h5")
    for field in dataclasses.fields(Scores):
        one, two = getattr(scores, field.name), getattr(back, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
        else:
            assert one == two
    time.sleep(1.1)  # HDF5 keeps times in seconds
    write(tmp_path / "b.h5", back)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_a_missing_or_cut_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "scores.h5"
    with pytest.raises(CcsError, match=r"scores\.h5: no such scores file"):
        read(path)
    write(path, random_scores())
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 199), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CcsError, match=r"scores\.h5: expected a whole scores file"):
            read(path)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["flow"], file.attrs["fusion"], file.attrs["versions"]
    with pytest.raises(CcsError, match=r"scores\.h5: .* no flow, attribute fusion, attribute versions"):
        read(path)


@pytest.mark.parametrize(
    ("name", "created"),
    [
        ("rgb", {"shape": (2**30, 2**30), "dtype": "f4", "chunks": (1024, 1024)}),
        ("label", {"shape": (4,), "dtype": "i8"}),
        ("flow", {"shape": (4, 3), "dtype": "f4", "external": [(__file__, 0, 48)]}),
        ("video", {"data": np.arange(4)}),
        ("label", {"data": np.arange(4)[None]}),
    ],
)
def test_scores_that_are_not_whole_or_elsewhere_are_not_read(tmp_path, name, created):
    path = tmp_path / "scores.h5"
    write(path, random_scores(4, 3))
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, **created)
    with pytest.raises(CcsError, match=r"scores\.h5: its scores cannot be read"):
        read(path)


GOOD = random_scores(4, 3)
INF = np.where(np.arange(12).reshape(4, 3) == 7, np.inf, GOOD.rgb).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": GOOD.rgb[:, :2]}, r"rgb of shape \(4, 3\).*found \(4, 2\)"),
        ({"flow": GOOD.flow[:3]}, r"flow of shape \(4, 3\).*found \(3, 3\)"),
        ({"label": GOOD.label[:3]}, r"label of shape \(4,\).*found \(3,\)"),
        ({"label": np.array([0, 1, 2, 3])}, "labels from 0 to 2, or -1 for none, found 0 to 3"),
        ({"quarantined": np.zeros(4)}, "quarantined of a bool type, found float64"),
        ({"quarantined": np.array([True, False, False, False])}, "NaN rgb logits for quarantined video 'v_000'"),
        ({"rgb": INF}, "finite rgb logits, found NaN or infinity for video 'v_002'"),
        ({"flow": np.full((4, 3), np.nan)}, "finite flow logits.* for video 'v_000' and 3 more"),
        ({"video": ("a", "b", "a", "c")}, "every video id once, found 1 repeated"),
        ({"classes": ("a", "b", "b")}, "different class names"),
        ({"fusion": (0.0, 0.0)}, "two fusion weights"),
        ({"versions": {"torch": 2}}, "versions by name, each a text, found {'torch': 2}"),
    ],
)
def test_scores_that_do_not_fit_together_are_neither_written_nor_read(tmp_path, changes, message):
    path = tmp_path / "bad.h5"
    bad = dataclasses.replace(GOOD, **changes)
    with pytest.raises(CcsError, match=rf"bad\.h5: expected .*{message}"):
        write(path, bad)
    assert not path.exists()
    write(path, GOOD)
    with h5py.File(path, "a") as file:
        for name, value in changes.items():
            if name == "classes":
                file.attrs[name] = '["a", "b", "b"]'
            elif name == "fusion":
                file.attrs[name] = value
            elif name == "versions":
                file.attrs[name] = json.dumps(value)
            else:
                del file[name]
                file[name] = list(value) if name == "video" else value
    with pytest.raises(CcsError, match=rf"bad\.h5: expected .*{message}"):
        read(path)
