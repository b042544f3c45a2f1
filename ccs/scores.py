"""What `evaluate` leaves and every table reads: per-video logits of both streams, and the accuracies they give.

A scores file holds every test video of one split in the manifest's order, so a file says by itself what was tested.
Notation: N test videos, C classes, y_i the label of video i, s_i in R^C its logits (rgb, flow or fused), Q the
quarantined videos (those that could not be decoded or have no flow).

A quarantined video is an error in every metric and stays in every denominator: leaving it out would let a run gain
accuracy by failing to read hard videos.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np

from ccs import hdf5
from ccs.stage import CcsError, atomic

Stream = Literal["rgb", "flow", "fused"]
STREAMS: tuple[Stream, ...] = get_args(Stream)

_DATASETS = ("video", "label", "rgb", "flow", "quarantined")
_ATTRS = ("dataset", "split", "run", "seed", "classes", "settings", "fusion", "versions")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Logits of one run on one test split.

    video: N ids in the manifest's order, quarantined ones included. label: int64 (N), -1 where the test labels are
    not public. rgb, flow: float32 (N, C) logits, NaN rows where quarantined. quarantined: bool (N). classes: C names
    in label order. settings: the run's settings. fusion: weights of the rgb and the flow logits, fixed beforehand.
    versions: what computed the numbers, by name, e.g. {"ccs": "0.1.0", "flow": "native 0.1.0, Numba 0.68.1"}.
    """

    video: tuple[str, ...]
    label: np.ndarray
    rgb: np.ndarray
    flow: np.ndarray
    quarantined: np.ndarray
    dataset: str
    split: int
    run: str
    seed: int
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    fusion: tuple[float, ...]
    versions: Mapping[str, str]


def write(path: str | os.PathLike[str], scores: Scores) -> None:
    """Write `scores` as HDF5: whole or not at all, and the same bytes for the same scores.

    Raises `CcsError` where the shapes do not fit together or a video that is not quarantined has no finite logits
    (training diverged).
    """
    _check(scores, path)
    # track_times=False below: HDF5 would store the time of writing
    with atomic(path) as part, hdf5.created(part) as file:
        file.create_dataset("video", data=list(scores.video), dtype=h5py.string_dtype(), track_times=False)
        for name, kind in (("label", np.int64), ("rgb", np.float32), ("flow", np.float32), ("quarantined", np.bool_)):
            file.create_dataset(name, data=np.asarray(getattr(scores, name), dtype=kind), track_times=False)
        file.attrs["dataset"] = scores.dataset
        file.attrs["split"] = np.int64(scores.split)
        file.attrs["run"] = scores.run
        file.attrs["seed"] = np.int64(scores.seed)
        file.attrs["classes"] = json.dumps(list(scores.classes))
        file.attrs["settings"] = json.dumps(dict(scores.settings), sort_keys=True)
        file.attrs["fusion"] = np.asarray(scores.fusion, dtype=np.float64)
        file.attrs["versions"] = json.dumps(dict(scores.versions), sort_keys=True)


def read(path: str | os.PathLike[str]) -> Scores:
    """Read and check a scores file.

    Raises `CcsError` naming the file where it is missing, cut short or no scores file, where shapes do not fit
    together, and where a video that is not quarantined has NaN or infinite logits.
    """
    if not Path(path).is_file():
        raise CcsError(f"{path}: no such scores file; `python -m ccs.evaluate` writes it")
    path = Path(path)
    with hdf5.opened(path, "a scores file (HDF5)", "the evaluation") as file, hdf5.reading(path, "its scores"):
        lacking = [name for name in _DATASETS if name not in file] + [
            f"attribute {name}" for name in _ATTRS if name not in file.attrs
        ]
        if lacking:
            raise CcsError(f"{path}: not a scores file of ccs: no {', '.join(lacking)}; evaluate the run again")
        scores = Scores(
            video=tuple(hdf5.texts(file, "video")),
            label=hdf5.dataset(file, "label", np.generic, 1)[:],
            rgb=hdf5.dataset(file, "rgb", np.generic, 2)[:],
            flow=hdf5.dataset(file, "flow", np.generic, 2)[:],
            quarantined=hdf5.dataset(file, "quarantined", np.generic, 1)[:],
            dataset=str(file.attrs["dataset"]),
            split=int(file.attrs["split"]),
            run=str(file.attrs["run"]),
            seed=int(file.attrs["seed"]),
            classes=tuple(json.loads(file.attrs["classes"])),
            settings=json.loads(file.attrs["settings"]),
            fusion=tuple(np.asarray(file.attrs["fusion"], dtype=np.float64).ravel().tolist()),
            versions=json.loads(file.attrs["versions"]),
        )
    _check(scores, path)
    return scores


def fuse(scores: Scores) -> np.ndarray:
    """Fused logits s_i = w_rgb * rgb_i + w_flow * flow_i, float64 (N, C); NaN rows where quarantined.

    The sum is of logits, not of softmax probabilities, with the two weights stored in the file: they were fixed
    before the test labels were seen and are never tuned here.
    """
    weight_rgb, weight_flow = scores.fusion
    return weight_rgb * scores.rgb.astype(np.float64) + weight_flow * scores.flow.astype(np.float64)


def logits(scores: Scores, stream: Stream) -> np.ndarray:
    """Logits (N, C) of "rgb", "flow" or "fused"; NaN rows where quarantined."""
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r}: expected one of {', '.join(STREAMS)}")
    return fuse(scores) if stream == "fused" else getattr(scores, stream)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (..., C), float64; NaN where they are."""
    exponential = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def hits(scores: Scores, stream: Stream, k: int = 1) -> np.ndarray:
    """Which videos have their label among the k highest logits: bool (N), False where quarantined.

    Video i is a hit iff i is not in Q and rank_i < k, where
    rank_i = |{c: s_ic > s_iy}| + |{c < y_i: s_ic = s_iy}|.
    Equal logits are ordered by class index, so that the result is fixed and k = 1 is "first argmax equals the label".
    """
    if k < 1:
        raise ValueError(f"k = {k}: expected at least 1")
    label = np.asarray(scores.label)
    if (label < 0).any():
        raise CcsError(
            f"run {scores.run!r} on {scores.dataset!r}: {int((label < 0).sum())} of {len(label)} test videos have no "
            "label, so that no accuracy can be given; evaluate on a labelled split"
        )
    score_NC = logits(scores, stream)
    own_N1 = np.take_along_axis(score_NC, label[:, None], axis=1)
    before_NC = np.arange(score_NC.shape[1]) < label[:, None]
    rank_N = ((score_NC > own_N1) | ((score_NC == own_N1) & before_NC)).sum(axis=1)
    return (rank_N < k) & ~np.asarray(scores.quarantined)


def top_k(scores: Scores, stream: Stream, k: int) -> float:
    """Top-k video accuracy in percent: 100 / N * |{i: hit_i(k)}|. Quarantined videos are errors."""
    return 100.0 * float(np.mean(hits(scores, stream, k)))


def accuracy(scores: Scores, stream: Stream) -> float:
    """Top-1 video accuracy in percent, 0..100: `top_k` with k = 1. Quarantined videos are errors."""
    return top_k(scores, stream, 1)


def mean_class_accuracy(scores: Scores, stream: Stream) -> float:
    """Mean over the classes of their own top-1 accuracy, in percent; quarantined videos are errors.

    100 / |K| * sum over c in K of |{i: y_i = c, hit_i(1)}| / |{i: y_i = c}|, with K the classes that have a test video.
    """
    hit, label, videos = hits(scores, stream), np.asarray(scores.label), class_sizes(scores)
    correct = np.bincount(label[hit], minlength=len(scores.classes))
    tested = videos > 0
    return 100.0 * float(np.mean(correct[tested] / videos[tested]))


def class_sizes(scores: Scores) -> np.ndarray:
    """Test videos of each class, int64 (C), quarantined ones included; those without a label count for none."""
    label = np.asarray(scores.label)
    return np.bincount(label[label >= 0], minlength=len(scores.classes))


def check_same_videos(seeds: Sequence[Scores]) -> None:
    """Raise `CcsError` where scores are of other classes, videos or labels than the first: they cannot be paired."""
    first = seeds[0]
    for scores in seeds[1:]:
        for what, same in (
            ("classes", scores.classes == first.classes),
            ("test videos", scores.video == first.video),
            ("labels", np.array_equal(scores.label, first.label)),
        ):
            if not same:
                raise CcsError(
                    f"run {scores.run!r}, seed {scores.seed}, on {scores.dataset!r} split {scores.split}: expected the "
                    f"{what} of run {first.run!r}, seed {first.seed}, found others, so that no video can be paired; "
                    "evaluate the older one again"
                )


def files_of_run(path: Path, name: str) -> list[Path]:
    """The file `name` in the folder of a seed, or those of all seeds, in their order, in that of a run."""
    if (path / name).is_file():
        return [path / name]
    return sorted(path.glob(f"seed*/{name}"), key=lambda each: (len(each.parent.name), each.parent.name))


def _check(scores: Scores, path: str | os.PathLike[str]) -> None:
    num_videos, num_classes = len(scores.video), len(scores.classes)

    def fail(expected: str, found: str) -> None:
        raise CcsError(f"{path}: expected {expected}, found {found}; evaluate the run again")

    if num_videos == 0:
        fail("at least one test video", "none")
    if len(set(scores.video)) < num_videos:
        fail("every video id once", f"{num_videos - len(set(scores.video))} repeated")
    if num_classes == 0 or len(set(scores.classes)) < num_classes:
        fail("a list of different class names", f"{list(scores.classes)[:5]}")
    per_video, per_class = (num_videos,), (num_videos, num_classes)
    shapes = {"label": per_video, "quarantined": per_video, "rgb": per_class, "flow": per_class}
    kinds = {"label": np.integer, "quarantined": np.bool_, "rgb": np.floating, "flow": np.floating}
    for name, shape in shapes.items():
        array = np.asarray(getattr(scores, name))
        if array.shape != shape:
            fail(f"{name} of shape {shape} ({num_videos} videos, {num_classes} classes)", f"{array.shape}")
        if not np.issubdtype(array.dtype, kinds[name]):
            fail(f"{name} of a {kinds[name].__name__} type", f"{array.dtype}")
    if not isinstance(scores.settings, Mapping):
        fail("settings by name", f"{scores.settings!r}")
    if not isinstance(scores.versions, Mapping) or not all(isinstance(v, str) for v in scores.versions.values()):
        fail("versions by name, each a text", f"{scores.versions!r}")
    label = np.asarray(scores.label)
    if label.min() < -1 or label.max() >= num_classes:
        fail(f"labels from 0 to {num_classes - 1}, or -1 for none", f"{label.min()} to {label.max()}")
    if len(scores.fusion) != 2 or not all(math.isfinite(w) and w >= 0 for w in scores.fusion) or not sum(scores.fusion):
        fail("two fusion weights of 0 or more, not both 0", f"{scores.fusion}")
    _check_finite(scores, path)


def _check_finite(scores: Scores, path: str | os.PathLike[str]) -> None:
    quarantined = np.asarray(scores.quarantined)
    for name in ("rgb", "flow"):
        array = np.asarray(getattr(scores, name))
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1) & ~quarantined)
        if len(bad):
            raise CcsError(
                f"{path}: expected finite {name} logits, found NaN or infinity for video {scores.video[bad[0]]!r}"
                f"{f' and {len(bad) - 1} more' if len(bad) > 1 else ''}; has training diverged? "
                "See the run's history.csv, then train with a lower learning rate and evaluate again"
            )
        scored = np.flatnonzero(~np.isnan(array).all(axis=1) & quarantined)
        if len(scored):
            raise CcsError(
                f"{path}: expected NaN {name} logits for quarantined video {scores.video[scored[0]]!r}, "
                "found numbers; evaluate the run again"
            )
