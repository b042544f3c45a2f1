"""Classify video files with a trained network: videos and a checkpoint in, classes with probabilities out.

    ccs predict holiday.mp4 --checkpoint results/runs/demo/split1/ccs/seed0/checkpoint.pt --cam maps/

A video goes the pipeline's own way. It is decoded as the stage `frames` does, with the settings that the checkpoint
names; its flow is that of the stage `flow`, but only for the pairs that are looked at; clips are cut and scored as
`evaluate` does. What comes out are the logits that the pipeline would give this video in a data set. Two videos at a
time are held in memory, as JPEG: about 1 MB a second of 340x256 each.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ccs import trained
from ccs.clips import transforms
from ccs.clips.dataset import TestClips
from ccs.clips.sampling import segment_starts
from ccs.datasets import manifests
from ccs.datasets.manifests import VideoFile
from ccs.datasets.settings import ImportSettings
from ccs.evaluate.scoring import video_logits
from ccs.figures import cam
from ccs.flow import shard
from ccs.flow.engines import BACKENDS, choose
from ccs.flow.settings import EngineSettings, GpuSettings, Parameters
from ccs.flow.sources import INPUTS, find
from ccs.frames import decode
from ccs.frames.film import Ffmpeg, check_ffmpeg, find_ffmpeg
from ccs.frames.judgement import BadVideo
from ccs.frames.settings import FfmpegSettings, FramesSettings
from ccs.models.network import snippet_of
from ccs.models.settings import ANY_NUMBER
from ccs.pool import num_cores
from ccs.scores import softmax
from ccs.settings import Flags, add_settings, check_counts, given_settings
from ccs.shards.reader import decode_jpeg, runs_of
from ccs.stage import CcsError, atomic, check_writable, progress, run
from ccs.train import checkpoint
from ccs.train.settings import EvaluateSettings

STREAMS = ("RGB", "Flow", "RGB+Flow")
COLUMNS = ("video", "stream", "rank", "class", "probability", "logit")
MAX_MAPS = 200  # of a video; more than one a second are not made
MAX_SEGMENTS = 250  # which the network sees at once
UNUSED = ImportSettings.bound  # of flow that is in a folder of frames
SEEN = {"rgb": "picture", "flow": "motion"}  # by a stream, in the caption of a film
NAME_LENGTH = 36  # of a class in the table; the CSV has all of it

DESCRIPTION = """\
Classify videos with a trained network. Each video is prepared just as in the
pipeline, with the settings that the checkpoint was trained on. Printed are the
most probable classes by the RGB stream, by the flow stream and by both."""

EPILOG = """\
RGB+Flow is the sum of both streams' logits with the weights of --fusion;
probabilities are the softmax of the logits.

With --cam, DIR/NAME.mp4 shows the whole video NAME with the class activation
map of its most probable class (by RGB+Flow) over it: bright where the stream
sees what speaks for the class. Maps are computed at the segments' centres, at
least one a second (at most 200 a video), and change linearly in time between
them; brightness has one scale in all of the video. Only the centre crop, which
the network sees, is coloured; towards its edges the colour fades.

A video that cannot be decoded is named with the reason, the others go on (and
are in the table of --output), and the exit status is 1.

example: ccs predict videos/*.mp4 --checkpoint checkpoint.pt --output classes.csv --cam maps/"""


class Logits(NamedTuple):
    """Of one video: float64 (C) of RGB, flow and both."""

    rgb: np.ndarray
    flow: np.ndarray
    fused: np.ndarray


class Prediction(NamedTuple):
    """What a network says of one video.

    video: its path. classes: C names. rgb, flow, fused: float64 (C), the probabilities of the classes, 0 to 1 and 1 in
    all, by each stream alone and by both. logits: what they are the softmax of.
    """

    video: str
    classes: tuple[str, ...]
    rgb: np.ndarray
    flow: np.ndarray
    fused: np.ndarray
    logits: Logits


class Row(NamedTuple):
    """Of the table: a class by a stream."""

    stream: str
    rank: int  # from 1
    name: str  # of the class
    probability: float  # 0..1
    logit: float


class Preparation(NamedTuple):
    """How the videos of a checkpoint's training were prepared, and how flow is computed here."""

    frames: FramesSettings
    parameters: Parameters
    bound: float
    backend: str
    workers: int


class VideoReader:
    """One decoded video, with what `TestClips` wants of a `ShardReader`; flow is computed when it is asked for.

    Attributes:
        num_frames: {path: T}.
    """

    def __init__(self, path: str, decoded: decode.DecodedVideo, preparation: Preparation) -> None:
        self.path, self.decoded, self.preparation = path, decoded, preparation
        self.num_frames = {path: len(decoded.offset) - 1}
        self._pairs: dict[int, np.ndarray] = {}

    def frames(self, video: str, indices: Sequence[int]) -> np.ndarray:
        """Frames, uint8 (n, H, W, 3) RGB."""
        offset = self.decoded.offset
        return np.stack([decode_jpeg(self.decoded.jpeg[offset[t] : offset[t + 1]], self.decoded) for t in indices])

    def flow(self, video: str, indices: Sequence[int]) -> np.ndarray:
        """Flow, uint8 (n, 2, H, W), as `ShardReader.flow` has it."""
        for start, stop, values in self._estimate(runs_of(index for index in indices if index not in self._pairs)):
            self._pairs.update(zip(range(start, stop), values, strict=True))
        return np.stack([self._pairs[index] for index in indices])

    def _estimate(self, runs: list[tuple[int, int]]) -> Iterator[tuple[int, int, np.ndarray]]:
        """Pairs start..stop-1 and their values, by the code of the stage `flow`, to which each run is a video."""
        jpeg, offset, preparation = self.decoded.jpeg, self.decoded.offset, self.preparation
        found: list[shard.VideoFrames] = []
        groups: dict[str, dict[str, np.ndarray]] = {}
        for start, stop in runs:
            found.append(
                shard.VideoFrames(str(start), self.path, stop - start + 1, self.decoded.height, self.decoded.width)
            )
            bounds = offset[start : stop + 2]
            groups[f"frames/{start}"] = {"jpeg": jpeg[bounds[0] : bounds[-1]], "offset": bounds - bounds[0]}
        backend = BACKENDS[preparation.backend]
        compute = functools.partial(
            shard.compute,
            backend=preparation.backend,
            parameters=preparation.parameters,
            bound=preparation.bound,
            memory=GpuSettings.gpu_memory,
        )
        # the engines on the CPU compute without Python's lock; a GPU has one host thread
        threads = 1 if preparation.backend.endswith("cuda") else preparation.workers
        with ThreadPoolExecutor(threads) as pool:
            for task in pool.map(compute, shard.tasks(groups, found, backend.pairs_per_task)):
                for pairs in task:
                    start = int(pairs.video.key) + pairs.first
                    yield start, start + len(pairs.values), pairs.values


class Classifier:
    """A checkpoint's network, ready to score videos.

    Args:
        state: as `ccs.train.checkpoint.read` gives it.
        path: of the checkpoint, for messages.
        given: settings of `EvaluateSettings` in the place of those that the run is evaluated with.
            10 crops are 5 for a network trained without `flip`.

    Attributes:
        model: the network, a `torch.nn.Module` in evaluation mode, on `device`: clips of both streams in, uint8
            (B, K, F, 3, S, S) and (B, K, L, 2, S, S), their logits (B, C) out, `.rgb` and `.flow`.
        classes: C names, in the order of the logits.
        preprocessing: what the clips are made of, and what becomes of the logits, as values for JSON; see
            `ccs.train.checkpoint.preprocessing`.
        settings: how videos are scored: segments, crops, and the weights of RGB's and flow's logits in both together.
    """

    def __init__(self, state: dict[str, Any], path: str, **given: Any) -> None:
        self.trained = checkpoint.network(state)
        self.classes = tuple(state["classes"])
        self._trained_on = trained.preparation(state, path)
        network, clips = self.trained.network, self.trained.clips
        self.settings = dataclasses.replace(checkpoint.evaluation(state, network, clips), **given)
        if network.aggregation not in ANY_NUMBER and self.settings.segments % clips.segments:
            raise CcsError(
                f"segments: this network puts {clips.segments} segments together (aggregation "
                f"{network.aggregation}): expected a multiple of {clips.segments}, found {self.settings.segments}"
            )
        self.model = self.trained.model
        self.device = cam.to_device(self.model)
        self.preprocessing = checkpoint.preprocessing(state, self.trained, self.settings)

    def preparation(self, backend: str = "auto", workers: int | None = None) -> Preparation:
        """How videos are prepared for it, with flow of `backend` by so many threads on a CPU (None: all cores).

        Raises:
            CcsError: no such backend here, no such number of threads, or more segments than are held in memory.
        """
        if workers is not None and workers < 1:
            raise CcsError(f"workers: expected 1 or more, found {workers}")
        if self.settings.segments > MAX_SEGMENTS:
            raise CcsError(
                f"segments: expected at most {MAX_SEGMENTS} to classify a video, held in memory at once; found "
                f"{self.settings.segments}, of the flag or the argument, or by which the run is evaluated: give fewer"
            )
        engine = choose(backend, self._trained_on.parameters.gamma)
        return Preparation(*self._trained_on, engine, workers or num_cores())

    def predict(
        self,
        videos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        backend: str = "auto",
        workers: int | None = None,
        ffmpeg: str | None = None,
    ) -> list[Prediction]:
        """Classify video files, as `ccs predict` does.

        Args:
            videos: the path of a file of any kind that ffmpeg reads, or several.
            backend: of optical flow, as in `ccs.flow.estimate`.
            workers: threads for flow on a CPU; None: all cores.
            ffmpeg: path of the program; None: the one on the PATH, or else the one that imageio-ffmpeg brings.

        Returns:
            A prediction for each path, in their order.

        Raises:
            CcsError: one of them is not there or cannot be decoded.
        """
        paths = [os.fspath(path) for path in ([videos] if isinstance(videos, str | os.PathLike) else videos)]
        preparation = self.preparation(backend, workers)
        tool = check_ffmpeg(find_ffmpeg(ffmpeg))
        BACKENDS[preparation.backend].prepare()
        found = []
        with closing(_decoded(paths, preparation, tool)) as results:
            for (path, *_), decoded in results:
                try:
                    if isinstance(decoded, BadVideo | CcsError):
                        raise decoded
                    logits = self.logits(VideoReader(path, decoded, preparation))
                except (BadVideo, CcsError) as error:
                    named = str(error).startswith(path)  # of what cannot be opened
                    raise CcsError(str(error) if named else f"{_printable(path)}: {error}") from error
                rgb, flow, fused = map(softmax, logits)
                found.append(Prediction(path, self.classes, rgb, flow, fused, logits))
        return found

    def clip(self, reader: VideoReader, segments: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The clips that `evaluate` would show to the network, (crops, segments, ...) of both streams."""
        video = manifests.Video(reader.path, reader.path, label=-1, class_name="", split="test")
        snippet, crops = snippet_of(self.trained.network), self.settings.crops
        clips = TestClips(reader, [video], self.trained.clips, snippet=snippet, segments=segments, crops=crops)
        rgb, flow, _ = clips[0]
        return rgb, flow

    def logits(self, reader: VideoReader) -> Logits:
        """Logits of one video, as `evaluate` writes and fuses them."""
        rgb, flow = self.clip(reader, self.settings.segments)
        with torch.inference_mode():
            logits = video_logits(self.trained.model, rgb, flow, self.device)
        of_rgb, of_flow = (each.numpy().astype(float) for each in logits)
        weight_rgb, weight_flow = self.settings.fusion
        return Logits(of_rgb, of_flow, weight_rgb * of_rgb + weight_flow * of_flow)

    def maps(self, reader: VideoReader, *, stream: str, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Class activation maps all along a video, (N, h, w), and their moments in frames, (N).

        They are made for m times as many segments as a prediction has, m just enough for one a second. The network
        gets them in m interleaved groups, each of them a clip of all the video like the one that is classified.
        """
        num_frames, segments = reader.num_frames[reader.path], self.settings.segments
        seconds = reader.decoded.moments.seconds  # NaN of a folder of frames
        m = max(1, min(math.ceil(seconds / segments), MAX_MAPS // segments)) if seconds > 0 else 1
        rgb, flow = (x[0].to(self.device) for x in self.clip(reader, m * segments))
        groups = [
            cam.class_activation_maps(self.trained.model, rgb[i::m], flow[i::m], stream=stream, label=label)
            for i in range(m)
        ]
        maps = torch.stack(groups, dim=1).flatten(0, 1).numpy()  # back into the order of time
        snippet = snippet_of(self.trained.network)
        starts = segment_starts(num_frames, segments=m * segments, snippet=snippet)
        times = cam.map_times(starts, snippet=snippet, stream=stream, instants=maps.shape[1], num_frames=num_frames)
        return maps.reshape(-1, *maps.shape[2:]), times.ravel()


def load(path: str | os.PathLike[str], **evaluation: Any) -> Classifier:
    """The network of a checkpoint, ready to use, on a GPU where PyTorch has one.

    Args:
        path: checkpoint.pt of `ccs train`, or the folder of a run or of one of its seeds.
        evaluation: `segments`, `crops` (1 or 10) or `fusion` (weights of the RGB and the flow logits), in the place of
            those that the run is evaluated with.

    Raises:
        CcsError: there is no such checkpoint, it is not of this version, or it cannot be evaluated so.
    """
    file = trained.find(os.fspath(path))
    return Classifier(checkpoint.read(file), file, **evaluation)


def predict(
    videos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    checkpoint: str | os.PathLike[str],
    **evaluation: Any,
) -> list[Prediction]:
    """Classify video files by a checkpoint: `load` and `Classifier.predict` in one, with their arguments and errors."""
    return load(checkpoint, **evaluation).predict(videos)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line. Raises `CcsError`, also at the end where videos could not be classified."""
    args = parser().parse_args(argv)
    check_counts(args, "top", "segments", "workers")
    # films are named as outputs of `ccs flow` are; without them two videos of one name are no matter
    sources = find(args.videos, None if args.cam else os.sep, args.cam or os.devnull, "predict")
    videos = [source.path for source in sources]
    checkpoint_file = trained.find(args.checkpoint)
    classifier = load(checkpoint_file, **given_settings(args, EvaluateSettings, prefix=""))
    preparation = classifier.preparation(args.backend, args.workers)
    if args.cam and classifier.settings.crops != 1:
        raise CcsError(
            f"--cam: maps are of the one centre crop, expected --crops 1, found {classifier.settings.crops}, of the "
            "flag or of the run's evaluation: give --crops 1, or leave out --cam"
        )
    films = {source.path: Path(args.cam, f"{source.name}.mp4") for source in sources} if args.cam else {}
    _check_outputs([*filter(None, [args.output]), *map(str, films.values())], [*videos, checkpoint_file])
    tool = check_ffmpeg(find_ffmpeg(args.ffmpeg))
    BACKENDS[preparation.backend].prepare()
    rows: list[list[object]] = []
    num_bad = 0
    with (
        closing(_decoded(videos, preparation, tool)) as results,
        progress(total=len(videos), desc="predict", unit="video") as bar,
    ):
        for (path, *_), decoded in results:
            try:
                if isinstance(decoded, BadVideo | CcsError):
                    raise decoded
                note = "the flow that is there is not used, its own is computed" if decoded.flow else decoded.note
                if note:
                    bar.write(f"ccs: predict: {path}: {note}", file=sys.stderr)
                reader = VideoReader(path, decoded, preparation)
                logits = classifier.logits(reader)
                table = ranked(logits, classifier.classes, args.top)
                bar.write(report(reader, table, classifier.settings.fusion), file=sys.stdout)
                rows += [[path, *row] for row in table]
                if films:
                    write_film(films[path], reader, classifier, logits, stream=args.cam_stream, tool=tool)
            except (BadVideo, CcsError) as error:
                num_bad += 1
                bar.write(f"ccs: predict: {_printable(path)}: {' '.join(str(error).split())}", file=sys.stderr)
            bar.update()
    if args.output:
        with atomic(args.output) as part, open(part, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    if num_bad:
        raise CcsError(f"{num_bad} of {len(videos)} videos could not be classified or filmed; they are named above")


def _decoded(
    paths: Iterable[str], preparation: Preparation, tool: Ffmpeg
) -> Generator[tuple[VideoFile, decode.DecodedVideo | BadVideo | CcsError]]:
    """The frames of video files and folders of frames, or what is wrong with them, in their order."""
    return decode.extract([VideoFile(path, path) for path in paths], preparation.frames, tool, 1, UNUSED)


def _printable(path: str) -> str:
    """A path that may not be UTF-8."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def ranked(logits: Logits, classes: Sequence[str], top: int) -> list[Row]:
    """The `top` best classes by each stream."""
    rows = []
    for stream, values in zip(STREAMS, logits, strict=True):
        probability = softmax(values)
        best = np.argsort(-values, kind="stable")[:top]  # equal logits by class index, as in ccs.scores
        rows += [
            Row(stream, n, classes[c], float(probability[c]), float(values[c])) for n, c in enumerate(best, start=1)
        ]
    return rows


def report(reader: VideoReader, table: Sequence[Row], fusion: tuple[float, float]) -> str:
    """The video's name, length and best classes, in columns of streams."""
    num_frames, duration = reader.num_frames[reader.path], reader.decoded.moments.seconds
    seconds = f"{duration:.2f} s" if duration > 0 else "unknown duration"
    weights = ":".join(f"{weight:g}" for weight in fusion)
    titles = (*STREAMS[:-1], f"{STREAMS[-1]} ({weights})")
    columns = []
    for stream, title in zip(STREAMS, titles, strict=True):
        rows = [(_shortened(row.name), _percent(row.probability)) for row in table if row.stream == stream]
        name_width = max(len(name) for name, _ in rows)
        cells = [f"{name:<{name_width}}  {percent:>7}" for name, percent in rows]
        width = max(len(title), name_width + 9)
        columns.append([f"{cell:<{width}}" for cell in (title, *cells)])
    numbers = ["", *range(1, len(columns[0]))]
    lines = [f"{n:>4}  {'   '.join(cells)}".rstrip() for n, *cells in zip(numbers, *columns, strict=True)]
    return "\n".join([f"{reader.path}: {num_frames} frames, {seconds}", *lines, ""])


def write_film(
    path: Path, reader: VideoReader, classifier: Classifier, logits: Logits, *, stream: str, tool: Ffmpeg
) -> None:
    """Write the whole video as MP4 with the maps of its most probable class (by both streams) over it."""
    label = int(logits.fused.argmax())
    maps, times = classifier.maps(reader, stream=stream, label=label)
    decoded = reader.decoded
    (crop,) = transforms.test_crops(decoded.height, decoded.width, classifier.trained.clips, crops=1)
    lines = [
        f"{classifier.classes[label]}, {_percent(softmax(logits.fused)[label])} sure",
        f"{'Bright: what' if maps.max() > 0 else 'Nothing'} in the {SEEN[stream]} speaks for it",
    ]
    if (crop.height, crop.width) != (decoded.height, decoded.width):
        lines.append("Only the tinted part was looked at")
    frames = (reader.frames(reader.path, [t])[0] for t in range(reader.num_frames[reader.path]))
    clock = {"fps": decoded.fps, "shown": decoded.moments.times}
    cam.write_film(path, frames, cam.shares(maps), times, crop=crop, lines=lines, tool=tool, **clock)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = Flags(
        prog="ccs predict",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument(
        "videos",
        nargs="+",
        metavar=INPUTS,
        help="video files of any kind that ffmpeg reads, folders of frames, and directories and lists of them, as of "
        "ccs flow",
    )
    flags.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE.pt|RUN",
        help="checkpoint.pt of ccs train, or the folder of a run or of one of its seeds",
    )
    flags.add_argument("--top", type=int, default=5, metavar="N", help="classes shown and written (default: 5)")
    flags.add_argument(
        "--segments",
        type=int,
        metavar="N",
        help=f"snippets a video, at most {MAX_SEGMENTS}, at the centres of so many segments (default: as `evaluate` "
        "was when the run was trained, which the checkpoint says)",
    )
    flags.add_argument(
        "--crops",
        type=int,
        choices=(1, 10),
        help="1 (centre) or 10 (TSN's; slower; 5, none mirrored, for a network trained with flip: false) (default: as "
        "the run is evaluated)",
    )
    flags.add_argument(
        "--fusion",
        type=float,
        nargs=2,
        metavar=("RGB", "FLOW"),
        help="weights of both streams' logits in RGB+Flow (default: as the run is evaluated)",
    )
    flags.add_argument("--output", metavar="FILE.csv", help=f"also write a table: {', '.join(COLUMNS)}")
    flags.add_argument("--cam", metavar="DIR", help="also write DIR/NAME.mp4 with class activation maps, see below")
    flags.add_argument(
        "--cam-stream", choices=("rgb", "flow"), default="rgb", help="the stream whose maps are shown (default: rgb)"
    )
    flags.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default=EngineSettings.backend,
        help="of optical flow; auto: fastest (default: %(default)s)",
    )
    flags.add_argument(
        "--workers", type=int, default=num_cores(), metavar="N", help="threads for flow on a CPU (default: all cores)"
    )
    add_settings(flags, FfmpegSettings)
    return flags


def _check_outputs(outputs: Sequence[str], inputs: Sequence[str]) -> None:
    """Raise where an output cannot be written or would replace an input or another output: before minutes of work."""
    for path in outputs:
        if os.path.isdir(path):
            raise CcsError(f"{path}: expected a file to write, found a directory of this name; choose another name")
        if os.path.exists(path) and any(os.path.exists(each) and os.path.samefile(path, each) for each in inputs):
            raise CcsError(f"{path}: is one of the inputs and would be replaced; choose another output")
        if outputs.count(path) > 1 or os.path.abspath(path) in map(os.path.abspath, set(outputs) - {path}):
            raise CcsError(f"{path}: both --output and a film of --cam would be written there; choose another --output")
        check_writable(path)


if __name__ == "__main__":
    run(main)
