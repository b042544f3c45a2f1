"""Figure 6: class activation maps of the spatial stream. Checkpoints, their scores and shards in, pictures out.

A row is a class, and in it one test video, chosen by a rule and not by hand: of those that RGB+Flow classifies
correctly the one with the highest probability of its class; where there is none, the highest all the same, and it is
said to be wrong. Its frames at the segments' centres stand above the same frames with the map of the true class in the
RGB stream (`ccs.figures.cam`).

    python -m ccs.figures.figure6 --checkpoints results/runs/demo/split1/ccs/seed0/checkpoint.pt \
        --scores results/runs/demo/split1/ccs/seed0/scores.h5 --manifests data/demo/manifest.csv \
        --quarantines data/demo/quarantine.csv --shards data/demo/shards/*.h5 \
        --svg results/figures/figure6.svg --png results/figures/figure6.png --csv results/figures/figure6.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from ccs import scores
from ccs.clips.dataset import TestClips, usable_videos
from ccs.clips.sampling import frame_indices, segment_starts
from ccs.clips.transforms import Crop, test_crops
from ccs.datasets import manifests
from ccs.datasets.disk import nfc
from ccs.evaluate.scoring import check_same_task
from ccs.figures import cam, inputs, style
from ccs.models.network import snippet_of
from ccs.scores import Scores
from ccs.settings import Flags
from ccs.shards.reader import ShardReader
from ccs.stage import CcsError, run
from ccs.tables.measurements import data_name
from ccs.train import checkpoint

NUM_CLASSES = 3  # of a data set, where none are named
NUM_FRAMES = 5  # of a video
LISTS = ("checkpoints", "scores", "manifests", "quarantines")

# inches
MARGIN, LABEL, PICTURE, GAP = 0.15, 1.45, 1.2, 0.06
HEAD, TITLE, BELOW = 0.36, 0.18, 0.16  # of a test split, of a row, below a row


class Row(NamedTuple):
    """One class and its video.

    frames: uint8 (n, H, W, 3). maps: float32 (n, h, w), shares of the video's largest value. evidence: whether any of
    the video's maps is above 0, of the segments that are not shown too. segments, indices: (n), which of the K segments
    and which frames of the video.
    """

    class_name: str
    video: str
    predicted: str
    probability: float
    predicted_probability: float
    frames: np.ndarray
    maps: np.ndarray
    evidence: bool
    crop: Crop
    segments: np.ndarray
    indices: np.ndarray


class SplitMaps(NamedTuple):
    """The rows of one test split; `num_segments` is the K of its scores."""

    scores: Scores
    num_segments: int
    crops: int
    rows: tuple[Row, ...]

    @property
    def place(self) -> str:
        """E.g. "UCF-101 split 1"."""
        return f"{data_name(self.scores.dataset)} split {self.scores.split}"


def choose(result: Scores, label: int) -> int:
    """The row in the scores of the test video that stands for a class; see the module's docstring.

    Raises `CcsError` where the class has no test video that could be decoded.
    """
    of_class = np.flatnonzero((np.asarray(result.label) == label) & ~np.asarray(result.quarantined))
    if not len(of_class):
        raise CcsError(
            f"class {result.classes[label]!r}: no test video of it in {result.dataset} split {result.split} could be "
            "decoded; name other classes with --classes"
        )
    correct = of_class[scores.hits(result, "fused")[of_class]]
    candidates = correct if len(correct) else of_class
    return int(candidates[probabilities(result)[candidates, label].argmax()])


def probabilities(result: Scores) -> np.ndarray:
    """Softmax of the fused logits, (N, C); NaN rows where quarantined."""
    logits = scores.fuse(result)
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def shown_labels(result: Scores, names: Sequence[str]) -> list[int]:
    """Labels of those `names` that the data set has; of its first classes with a decoded test video where none is."""
    named = [result.classes.index(name) for name in names if name in result.classes]
    tested = sorted(set(np.asarray(result.label)[~np.asarray(result.quarantined)].tolist()))
    return named or tested[:NUM_CLASSES]


def split_maps(paths: dict[str, str], shards: Sequence[str], classes: Sequence[str]) -> SplitMaps:
    """Choose the videos of one test split and compute their maps.

    Args:
        paths: one of each of `LISTS`, by these names.
        shards: of all data sets.
        classes: names, or none for the first.

    Raises:
        CcsError: the files do not belong together.
    """
    state, result = checkpoint.read(paths["checkpoints"]), scores.read(paths["scores"])
    for name in ("dataset", "split", "run", "seed"):
        if state[name] != getattr(result, name):
            raise CcsError(
                f"{paths['scores']}: expected the scores of {paths['checkpoints']} ({name} {state[name]!r}), found "
                f"{name} {getattr(result, name)!r}; give the lists in one order"
            )
    manifest = manifests.read(paths["manifests"], state["split"])
    reader = ShardReader(_shards_of(paths["manifests"], shards))
    check_same_task(state, manifest, state["split"], reader.bound, path=paths["checkpoints"])
    usable = {video.video: video for video in usable_videos(manifest, "test", reader, paths["quarantines"])}
    trained = checkpoint.network(state)
    device = cam.to_device(trained.model)
    settings = result.settings.get("evaluate", {})
    num_segments, crops = int(settings.get("segments", 25)), int(settings.get("crops", 1))
    if crops > 1 and not trained.clips.flip:
        crops = 5
    percent = probabilities(result)
    rows = []
    for label in shown_labels(result, classes):
        number = choose(result, label)
        video, best = usable[result.video[number]], int(scores.fuse(result)[number].argmax())
        snippet = snippet_of(trained.network)
        clips = TestClips(reader, [video], trained.clips, snippet=snippet, segments=num_segments, crops=1)
        rgb, flow, _ = clips[0]
        maps = cam.class_activation_maps(
            trained.model, rgb[0].to(device), flow[0].to(device), stream="rgb", label=label
        )
        shares = cam.shares(maps.mean(dim=1).numpy())  # over the instants of a 3-D network's snippet
        shown = shown_segments(num_segments)
        num_frames = reader.num_frames[video.video]
        starts = segment_starts(num_frames, segments=num_segments, snippet=snippet)[shown]
        middle = snippet._replace(all_frames=False)  # of 3-D networks' snippets too
        indices = frame_indices(starts, snippet=middle, num_frames=num_frames)[:, 0]
        frames = reader.frames(video.video, indices.tolist())
        (crop,) = test_crops(frames.shape[1], frames.shape[2], trained.clips, crops=1)
        rows.append(
            Row(
                class_name=result.classes[label],
                video=video.video,
                predicted=result.classes[best],
                probability=float(percent[number, label]),
                predicted_probability=float(percent[number, best]),
                frames=frames,
                maps=shares[shown],
                evidence=bool(shares.any()),
                crop=crop,
                segments=shown,
                indices=indices,
            )
        )
    return SplitMaps(result, num_segments, crops, tuple(rows))


def shown_segments(num_segments: int) -> np.ndarray:
    """The segments in the middle of `NUM_FRAMES` equal parts of all, or all."""
    num = min(NUM_FRAMES, num_segments)
    return ((np.arange(num) + 0.5) * num_segments / num).astype(int)


def _shards_of(manifest: str, shards: Sequence[str]) -> list[str]:
    """Those in the folder beside the manifest: data/D/manifest.csv and data/D/shards/0000.h5."""
    folder = Path(manifest).resolve().parent
    found = [path for path in shards if Path(path).resolve().parent.parent == folder]
    if not found:
        raise CcsError(
            f"{manifest}: expected its training shards as {folder / 'shards' / '0000.h5'} and so on, found none of "
            "these in --shards; give the shards of all data sets"
        )
    return found


def peaks(row: Row) -> np.ndarray:
    """The highest place of each map: float64 (n, 3), x and y in pixels of the frame and its share of the maximum."""
    height, width = row.maps.shape[1:]
    at = row.maps.reshape(len(row.maps), -1).argmax(axis=1)
    y, x = np.divmod(at, width)
    left = row.crop.left + (x + 0.5) * row.crop.width / width
    top = row.crop.top + (y + 0.5) * row.crop.height / height
    return np.stack([left, top, row.maps.reshape(len(row.maps), -1).max(axis=1)], axis=1)


def table(panels: Sequence[SplitMaps]) -> pd.DataFrame:
    """A row for each picture; positions in pixels of the prepared frame, none where a map is 0 all over."""
    records = [
        {
            "dataset": each.scores.dataset,
            "split": each.scores.split,
            "run": each.scores.run,
            "seed": each.scores.seed,
            "class": row.class_name,
            "video": row.video,
            "predicted": row.predicted,
            "probability": round(row.probability, 6),
            "segment": int(segment) + 1,
            "segments": each.num_segments,
            "frame": int(index),
            "peak x": round(float(x), 2) if share > 0 else None,
            "peak y": round(float(y), 2) if share > 0 else None,
            "peak": round(float(share), 4),
        }
        for each in panels
        for row in each.rows
        for segment, index, (x, y, share) in zip(row.segments, row.indices, peaks(row), strict=True)
    ]
    return pd.DataFrame(records)


def draw(panels: Sequence[SplitMaps], extra: Sequence[str] = ()) -> Figure:
    """The figure: for each test split a block of rows; `extra` are more sentences for the footnote."""
    num = max(len(row.frames) for each in panels for row in each.rows)
    width = MARGIN + LABEL + num * (PICTURE + GAP) + 0.85
    notes = style.footnote([*_notes(panels), *extra], width - 2 * MARGIN)
    heights = [HEAD + sum(_row_height(row) for row in each.rows) for each in panels]
    figure = style.new_figure(width, sum(heights) + style.block_height(len(notes)) + 0.2)
    top = 0.0
    for each, height in zip(panels, heights, strict=True):
        where = f"{data_name(each.scores.dataset)}, split {each.scores.split}, run {each.scores.run}"
        style.write(figure, MARGIN, top + 0.1, where, fontsize=style.SIZE, fontweight="bold")
        row_top = top + HEAD
        for row in each.rows:
            _draw_row(figure, row, row_top)
            row_top += _row_height(row)
        top += height
    bar = style.place(figure, width - 0.75, HEAD + TITLE, 0.13, min(2.2, heights[0] - HEAD - TITLE - BELOW))
    colours = figure.colorbar(ScalarMappable(cmap=cam.COLOURS), cax=bar, ticks=(0, 0.5, 1))
    colours.set_label("evidence, share of the video's maximum", size=style.SMALL)
    style.write_lines(figure, MARGIN, top + 0.08, notes)
    return figure


def _picture_size(row: Row) -> tuple[float, float]:
    """Width and height in inches, at most `PICTURE` wide and high."""
    height, width = row.frames.shape[1:3]
    return PICTURE * min(1, width / height), PICTURE * min(1, height / width)


def _row_height(row: Row) -> float:
    name, words = _texts(row)
    text = style.block_height(len(name), style.SIZE) + 0.05 + style.block_height(len(words))
    return TITLE + max(2 * _picture_size(row)[1] + GAP, text) + BELOW


def _texts(row: Row) -> tuple[list[str], list[str]]:
    """The lines of the class's name and of what is said of the video, left of the pictures."""
    name = style.wrap(row.class_name, LABEL - 0.15, style.SIZE, 4)
    return name, [line for text in _verdict(row) for line in style.wrap(text, LABEL - 0.15, style.SMALL, 4)]


def _draw_row(figure: Figure, row: Row, top: float) -> None:
    width, height = _picture_size(row)
    large = round(style.DPI * width), round(style.DPI * height)
    scale = large[1] / row.frames.shape[1], large[0] / row.frames.shape[2]
    crop = Crop(*(round(pixels * scale[axis % 2]) for axis, pixels in enumerate(row.crop[:4])))
    smooth = cv2.INTER_AREA if scale[0] < 1 else cv2.INTER_CUBIC
    plain = np.stack([cv2.resize(frame, large, interpolation=smooth) for frame in row.frames])
    for n, pictures in enumerate(zip(plain, cam.overlay(plain, row.maps, crop=crop), strict=True)):
        left = MARGIN + LABEL + n * (PICTURE + GAP) + (PICTURE - width) / 2
        middle = left + width / 2
        style.write(
            figure, middle, top, f"frame {row.indices[n]}", fontsize=style.SMALL, color=style.FAINT, ha="center"
        )
        for line, picture in enumerate(pictures):
            axes = style.place(figure, left, top + TITLE + line * (height + GAP), width, height)
            axes.imshow(picture, interpolation="none", aspect="auto")
            axes.set_axis_off()
    name, words = _texts(row)
    style.write_lines(figure, MARGIN, top + TITLE, name, fontsize=style.SIZE, color=style.INK, fontweight="bold")
    below = top + TITLE + style.block_height(len(name), style.SIZE) + 0.05
    style.write_lines(figure, MARGIN, below, words)


def _verdict(row: Row) -> list[str]:
    evidence = []
    if not row.maps.any():
        evidence = [f"no evidence for it in RGB{' in these frames' if row.evidence else ''}"]
    if row.predicted == row.class_name:
        return [f"predicted: {row.predicted}, {_percent(row.probability)}", *evidence]
    return [
        f"predicted (wrong): {row.predicted}, {_percent(row.predicted_probability)}",
        f"true class: {_percent(row.probability)}",
        *evidence,
    ]


def _percent(share: float) -> str:
    return ">99.9%" if share > 0.999 else f"{share:.1%}"


def _notes(panels: Sequence[SplitMaps]) -> list[str]:
    sizes = sorted({row.maps.shape[1:] for each in panels for row in each.rows})
    positions = " or ".join(f"{height} by {width}" for height, width in sizes)
    seeds = sorted({each.scores.seed for each in panels})
    notes = [
        "Above: frames at the centres of segments, counted from 0. Below: the same with the class activation map of "
        f"the true class in the RGB stream, {positions} positions, enlarged to the crop that the network saw.",
        "One scale for all maps of a video; evidence against the class counts as 0. Opacity grows from "
        f"{cam.OPACITY[0]:.0%} at 0 to {cam.OPACITY[1]:.0%} at 1.",
        "Videos: of the class's correctly classified test videos the one with the highest probability by RGB+Flow, or "
        "of all where none is correct.",
    ]
    for each in panels:
        text = f"{each.place}: {each.num_segments} segments in "
        crops = "the centre crop" if each.crops == 1 else f"{each.crops} crops, the maps in the centre crop"
        weights = ":".join(f"{weight:g}" for weight in each.scores.fusion)
        notes.append(f"{text}{crops}; RGB+Flow with weights {weights}.")
    return [*notes, f"One seed: {', '.join(map(str, seeds))}."]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The figure's flags."""
    text = {
        "checkpoints": "checkpoint.pt of each run",
        "scores": "its scores.h5",
        "manifests": "the manifest.csv of its data set",
        "quarantines": "the quarantine.csv of its data set",
    }
    for name in LISTS:
        parser.add_argument(f"--{name}", nargs="+", required=True, metavar="FILE", help=text[name])
    parser.add_argument("--shards", nargs="+", required=True, metavar="H5", help="training shards of all data sets")
    parser.add_argument(
        "--classes",
        nargs="+",
        action="extend",  # --classes=-NAME --classes=-NAME
        type=nfc,
        default=[],
        metavar="NAME",
        help=f"classes shown (default: the first {NUM_CLASSES})",
    )
    parser.add_argument("--svg", required=True, help="output: the figure, its text as vector graphics")
    parser.add_argument("--png", required=True, help="output: the figure as an image")
    parser.add_argument("--csv", required=True, help="output: what is shown, with the place of each map's maximum")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figure as SVG, PNG and CSV."""
    parser = Flags(
        prog="python -m ccs.figures.figure6",
        description=__doc__.split("\n\n")[0],
        epilog="The first four lists run in parallel: one file of each for every test split.",
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    lists = {name: getattr(args, name) for name in LISTS}
    if len({len(paths) for paths in lists.values()}) > 1:
        found = ", ".join(f"{len(paths)} {name}" for name, paths in lists.items())
        raise CcsError(f"--checkpoints and the other lists: expected equally many files in each, found {found}")
    every = [dict(zip(lists, paths, strict=True)) for paths in zip(*lists.values(), strict=True)]
    known = {name for paths in every for name in scores.read(paths["scores"]).classes}
    if unknown := [name for name in args.classes if name not in known]:
        raise CcsError(
            f"--classes: no class {unknown[0]!r} in the data sets shown; they have {', '.join(sorted(known)[:10])}"
            f"{' and others' if len(known) > 10 else ''}"
        )
    panels = [split_maps(paths, args.shards, args.classes) for paths in every]
    extra = inputs.not_drawn([each.place for each in panels])
    with style.applied():
        figure = draw(panels[: inputs.MAX_TESTS], extra)
    names = ", ".join(dict.fromkeys(row.class_name for each in panels for row in each.rows))
    title = f"Class activation maps of the RGB stream over video frames, for the classes {names}"
    inputs.write_outputs(args, figure, table(panels), title)


if __name__ == "__main__":
    run(main)
