"""Draw the picture of README.md from a finished run of the demo: `python docs/pictures/make.py PROJECT`.

PROJECT is a directory in which `python benchmarks/demo.py --folder PROJECT --seeds 5 --target results/table3.csv` has
run. Four classes, of each the test video of which the first seed is surest and right; the confusion is that of all
seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ccs
from ccs import scores
from ccs.datasets import manifests
from ccs.figures import cam, style
from ccs.figures.figure6.__main__ import choose
from ccs.flow.pictures import colours
from ccs.frames import decode
from ccs.frames.film import check_ffmpeg, find_ffmpeg
from ccs.prediction import VideoReader

CLASSES = ("drink", "smoke", "raise_crate", "raise_present", "lower_crate")
OUTPUT = Path(__file__).parent / "overview.png"
ROWS = ("a frame", "its flow", "where CCS looks")


def main(project: Path) -> None:
    """Write `OUTPUT`."""
    run = project / "results/runs/demo/split1/ccs"
    found = [scores.read(path) for path in scores.files_of_run(run, "scores.h5")]
    network = ccs.load(run / "seed0")
    tool = check_ffmpeg(find_ffmpeg())
    columns = [_column(project, network, found[0], name, tool) for name in CLASSES]
    with style.applied():
        figure = Figure(figsize=(12.4, 5.0), dpi=100)
        for column, (name, pictures) in enumerate(zip(CLASSES, columns, strict=True)):
            for row, picture in enumerate(pictures):
                axes = figure.add_axes((0.055 + 0.117 * column, 0.635 - 0.298 * row, 0.113, 0.28))
                axes.imshow(picture, interpolation="bicubic")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if row == 0:
                    axes.set_title(name.replace("_", " a "), fontsize=12)
                if column == 0:
                    axes.set_ylabel(ROWS[row], fontsize=11)
        _confusion(figure, found)
        figure.savefig(OUTPUT, dpi=100)


def _column(project, network, result, name, tool):
    """A frame, its flow in colours, and the frame with the map of its class."""
    label = result.classes.index(name)
    path = str(next((project / "data/demo/videos").rglob(f"{Path(result.video[choose(result, label)]).name}.*")))
    preparation = network.preparation()
    ((_, decoded),) = decode.extract([manifests.VideoFile(path, path)], preparation.frames, tool)
    reader = VideoReader(path, decoded, preparation)
    flows = reader.flow(path, range(reader.num_frames[path] - 1)).astype(np.float32) - 128
    # the moment in which something moves most against the camera
    lengths = np.hypot(*np.moveaxis(flows - np.median(flows, axis=(2, 3), keepdims=True), 1, 0))
    moment = int(np.percentile(lengths, 99, axis=(1, 2)).argmax())
    frame, flow = reader.frames(path, [moment])[0], flows[moment]
    maps, times = network.maps(reader, stream="rgb", label=label)
    share = cam.shares(cam.interpolate(maps, times, np.array([float(moment)])))
    length = np.hypot(*flow)
    scale = np.percentile(length, 99.5)
    motion = flow / np.maximum(length, 1e-6) * np.sqrt(np.minimum(length / scale, 1))
    return frame, colours(motion[None])[0], cam.overlay(frame[None], share)[0]


def _confusion(figure, found):
    names = found[0].classes
    counts = np.zeros((len(names), len(names)))
    for each in found:
        np.add.at(counts, (each.label, scores.logits(each, "fused").argmax(axis=1)), 1)
    order = np.argsort(names)
    percent = (100 * counts / counts.sum(1, keepdims=True))[np.ix_(order, order)]
    axes = figure.add_axes((0.745, 0.245, 0.25, 0.67))
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    ticks = [names[i].replace("_", " a ") for i in order]
    axes.set_xticks(range(len(names)), ticks, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(names)), ticks, fontsize=9)
    axes.tick_params(length=0)
    axes.set_title(f"what it says, {len(found)} seeds (%)", fontsize=12)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5:
            axes.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if value > 55 else "#333",
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
