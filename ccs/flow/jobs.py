"""The work of `ccs flow videos/ ...`: every video is a job, whose pairs go to worker processes and come back in order.

Videos are decoded as they are needed, a few neighbouring pairs go to a worker at a time, and what comes back is
appended to the video's output, so that neither a long video nor many short ones need much memory. An output gets its
name when it is whole.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import ccs
from ccs.flow import methods
from ccs.flow.engines import BACKENDS
from ccs.flow.formats import FORMATS, Encoding, Output, is_complete, is_visualized, read_record, written
from ccs.flow.pictures import Drawn, FlowFilm, draw
from ccs.flow.quantise import check_finite
from ccs.flow.settings import EngineSettings, GpuSettings, Parameters
from ccs.flow.sources import Source
from ccs.flow.streams import AS_SHOWN, Chunk, End, PairCount, Reading, chunks, read_ahead
from ccs.frames import stills
from ccs.frames.commands import Clip, Ffmpeg, shorter_side
from ccs.frames.film import Children
from ccs.frames.judgement import BadVideo, allowed
from ccs.frames.settings import DamageSettings, FramesSettings
from ccs.frames.stills import Stills
from ccs.pool import ordered_map
from ccs.stage import CcsError, atomic, check_name, progress, writing

TASK_BYTES = 64 << 20  # of float flow that a worker makes at a time, at most
MAX_DECODERS = 4


@dataclass(frozen=True)
class OutputSettings:
    """What the outputs depend on, beside the method's own and the backend; None where the format has no such."""

    format: str = "h5"
    bound: float | None = EngineSettings.bound
    quality: int | None = FramesSettings.quality
    first_number: int | None = 1
    short_side: int | None = None
    size: str | None = None  # WIDTHxHEIGHT
    step: int = 1
    fps: float | None = None
    start: float | None = None  # seconds
    end: float | None = None
    rgb: bool = False
    visualize: bool = False
    method: str = "tvl1"

    def __post_init__(self):
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise CcsError(f"--quality: expected 1 to 100, found {self.quality}")
        if self.short_side is not None and not 3 <= self.short_side <= 9999:
            raise CcsError(f"--short-side: expected 3 to 9999 pixels, found {self.short_side}")
        if self.size is not None and not re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,3}", self.size):
            raise CcsError(f"--size: expected WIDTHxHEIGHT in pixels, such as 340x256, found {self.size!r}")
        if self.size is not None and self.short_side is not None:
            raise CcsError("--size and --short-side: expected one of them, found both")
        if self.step < 1:
            raise CcsError(f"--step: expected 1 or more frames, found {self.step}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise CcsError(f"--fps: expected more than 0 and at most 1000 frames a second, found {self.fps:g}")
        if self.end is not None and self.end <= (self.start or 0):
            raise CcsError(f"--end: expected a time after {self.start or 0:g} s, where it starts, found {self.end:g} s")

    @property
    def encoding(self) -> Encoding:
        """What the format needs of it."""
        return Encoding(self.bound, self.quality, self.first_number)

    def reading(self, max_missing: float) -> Reading:
        """How the videos are read for it."""
        size = AS_SHOWN
        if self.size is not None:
            width, height = self.size.split("x")
            size = width, height
        elif self.short_side is not None:
            size = shorter_side(self.short_side)
        quality = self.quality if self.rgb else FramesSettings.quality if self.visualize else None
        side, in_colour = methods.min_side(self.method), methods.in_colour(self.method)
        clip = Clip(self.start or 0.0, self.end)
        return Reading(self.step, size, clip, self.fps, side, in_colour, quality, max_missing)


class Piece(NamedTuple):
    """A chunk of a video for a worker, and its result's way back. A task is a list of them."""

    job: int
    path: str
    chunk: Chunk


class Result(NamedTuple):
    """What a worker makes of a piece."""

    job: int
    first: int
    shape: tuple[int, int, int]  # pairs, H, W
    encoded: Any  # as the format has it
    num_clipped: int
    drawn: list[Drawn]  # for the film, if there is one
    jpegs: list[bytes]  # of the pairs' first frames, and in the end of all; none where none are kept
    fps: float
    times: np.ndarray  # (pairs) seconds at which their first frames are shown
    end: End | None


class Job:
    """One video and its output."""

    def __init__(self, source: Source, output: Path, work: Work, asked_backend: str):
        self.source, self.work = source, work
        self.path = Path(output, source.name + FORMATS[work.settings.format].suffix)
        self.film_path = Path(output, source.name + ".mp4")
        self.failure = ""
        self.num_pairs = self.num_clipped = self.num_values = 0
        self._stack = ExitStack()
        self._film_stack = ExitStack()
        self._output: Output | None = None
        self._film: FlowFilm | None = None
        self.video: str | Stills = source.path  # what is decoded
        self.file: dict[str, str | int] = {}
        try:
            self.video, self.file = identify(source.path)
        except BadVideo as error:
            self.fail(str(error))
            return
        try:
            for path in (self.path, *([self.film_path] if work.settings.visualize else [])):
                check_name(path)
        except CcsError as error:  # which is of this video alone
            self.fail(str(error))
            return
        there = os.path.lexists(self.path)
        self.state = "kept" if there and self._is_done(asked_backend) else "redone" if there else "made"

    def _is_done(self, asked_backend: str) -> bool:
        """Whether the output is whole, of the same file and made with the same settings."""
        record = read_record(self.path)
        if not record:
            return False
        # what the record lacks was no setting when it was written
        wanted, made = self.work.all_settings, {**dataclasses.asdict(OutputSettings()), **record["settings"]}
        if not wanted["rgb"] and made["rgb"]:  # there may be frames that were not asked for
            names = [name for name in ("quality", "first_number") if wanted[name] is None]
            made |= {"rgb": False, **dict.fromkeys(names)}
        if not wanted["visualize"]:
            made["visualize"] = False  # and a film
        elif not self.film_path.is_file() or not self.film_path.stat().st_size:
            return False
        return (
            made == wanted
            and asked_backend in ("auto", record["backend"])
            and allowed(record.get("num_missing", 0), _num_decoded(record), self.work.max_missing)
            and all(key in self.file and record["source"].get(key) == self.file[key] for key in ("size", "mtime_ns"))
            and is_complete(self.path, self.work.settings.format, record)
        )

    def add(self, result: Result) -> None:
        """Append a result, which comes in order; with the last one the output is finished."""
        try:
            with writing(self.path):
                self._add(result)
        except (OSError, RuntimeError) as error:  # h5py raises either
            raise CcsError(f"{self.path}: cannot be written: {error}: choose another output") from error

    def _add(self, result: Result) -> None:
        settings = self.work.settings
        num_pairs, height, width = result.shape
        if self._output is None:
            part = self._stack.enter_context(written(self.path, settings.format))
            self._output = FORMATS[settings.format](part, self.source.name, settings.encoding)
            self._stack.callback(_close, self._output)
            if settings.visualize:
                part = self._film_stack.enter_context(atomic(self.film_path))
                self._film = FlowFilm(part, height, width, result.fps, self.work.tool)
                self._film_stack.callback(self._film.close)
        self._output.write(result.first, result.encoded)
        if result.jpegs:
            self._output.write_frames(result.first, result.jpegs)
        if self._film:
            with writing(self.film_path):
                self._film.add(result.drawn, result.times)
        self.num_pairs += num_pairs
        self.num_clipped += result.num_clipped
        self.num_values += 2 * num_pairs * height * width
        if result.end:
            self._finish(result, result.end, self._output)

    def _finish(self, result: Result, end: End, output: Output) -> None:
        record = {
            "ccs": ccs.__version__,
            "settings": self.work.all_settings,
            "backend": self.work.backend,
            "backend_version": self.work.engine.version(),
            "ffmpeg": self.work.tool.version,
            "source": self.file,
            "num_frames": end.num_frames,
            "num_decoded": end.num_decoded,
            "num_missing": end.num_missing,
            "num_pairs": end.num_frames - self.work.settings.step,
            "height": result.shape[1],
            "width": result.shape[2],
            "fps": result.fps,
            "clipped": self.num_clipped / self.num_values,
        }
        if self.work.settings.bound is not None:
            record["bound"] = self.work.settings.bound
        if self._film:
            with writing(self.film_path):
                self._film.finish()
            record["film_scale"] = self._film.scale
        output.finish(record)
        if not is_complete(output.part, self.work.settings.format, record):
            raise CcsError(f"{self.path}: not all pairs were written. Nothing was kept; please report this")
        if is_visualized(read_record(self.path)):
            self.film_path.unlink(missing_ok=True)  # it would seem to be of the new output
        self._stack.close()
        self._film_stack.close()

    def fail(self, reason: str) -> None:
        """Give up: leave no trace of what was written."""
        self.failure = " ".join(reason.split())
        self.state = "failed"
        self.abandon()

    def abandon(self) -> None:
        """Remove what is not finished."""
        stop = BadVideo("abandoned")
        for stack in (self._film_stack, self._stack):
            stack.__exit__(BadVideo, stop, None)


def identify(path: str) -> tuple[str | Stills, dict[str, str | int]]:
    """What is decoded at `path`, and what tells whether it is still the same; raises `BadVideo`."""
    try:
        video = stills.find(path) if os.path.isdir(path) else path
        found = [os.stat(file) for file in (video.paths if isinstance(video, Stills) else [video])]
    except OSError as error:
        raise BadVideo(f"cannot be read: {error.strerror}") from error
    name = os.path.basename(os.path.abspath(path))
    sizes, times = [s.st_size for s in found], [s.st_mtime_ns for s in found]
    return video, {"name": name, "size": sum(sizes), "mtime_ns": max(times)}


def check_failures(jobs: Sequence[tuple[str, str]], lacking: str) -> None:
    """`CcsError` where one of the jobs, the path of its video and why it has failed or "", has no `lacking`."""
    if failed := [f"  {path}: {failure}" for path, failure in jobs if failure]:
        listed, others = "\n".join(failed), "; the others are done" if len(failed) < len(jobs) else ""
        raise CcsError(
            f"{len(failed)} of {len(jobs)} videos have no {lacking}:\n{listed}\nRepair, replace or leave out these "
            f"files, or change what is asked for, and run the command again{others}"
        )


def _num_decoded(record: Mapping) -> int:
    """Frames of the video of which an output has them, or some."""
    return record.get("num_decoded", record["num_pairs"] + record["settings"]["step"])


def _close(output: Output) -> None:
    with suppress(OSError, RuntimeError):  # a full disk has been reported, and `finish` closes what is kept
        output.close()


class Work:
    """What all jobs of a call share, and the loop over them."""

    def __init__(
        self,
        backend: str,
        num_workers: int,
        settings: OutputSettings,
        parameters: Parameters,
        tool: Ffmpeg,
        gpu_memory: int = GpuSettings.gpu_memory,
        max_missing: float = DamageSettings.max_missing_fraction,
    ):
        self.backend, self.engine = backend, methods.engine(settings.method, backend)
        self.num_processes = self.engine.num_processes(num_workers)
        self.settings, self.parameters, self.tool = settings, parameters, tool
        self.all_settings = {**dataclasses.asdict(settings), **methods.settings(settings.method, parameters)}
        self.gpu_memory, self.max_missing = gpu_memory, max_missing
        self.reading = settings.reading(max_missing)
        self.num_pairs, self.seconds = 0, 0.0

    def check_gpus(self, num_gpus: int) -> None:
        """`CcsError` where the backend does not use as many GPUs as were asked for."""
        if "cuda" not in self.backend:
            reasons = {name: engine.available() for name, engine in BACKENDS.items() if "cuda" in name}
            listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items() if reason)
            raise CcsError(
                f"--gpus: the backend {self.backend} uses none; those that do cannot be used here:\n{listed}"
            )
        if self.num_processes < num_gpus:
            raise CcsError(f"--gpus: expected {num_gpus} GPUs, found {self.num_processes}: name fewer or others")

    def do(self, jobs: list[Job]) -> None:
        """Compute the outputs of `jobs`; those that fail know why."""
        if not jobs:
            return
        compute = functools.partial(
            _compute,
            backend=self.backend,
            parameters=self.parameters,
            settings=self.settings,
            gpu_memory=self.gpu_memory,
        )
        num_decoders = min(1 + self.num_processes, MAX_DECODERS)
        count = PairCount([job.video for job in jobs], self.reading, self.tool)
        with ExitStack() as stack:
            stack.callback(count.close)
            for job in jobs:
                stack.callback(job.abandon)
            bar = stack.enter_context(progress(total=None, desc="flow", unit="pair"))
            decoded = stack.enter_context(
                read_ahead(range(len(jobs)), functools.partial(self._decode, jobs), num_decoders)
            )
            tasks = self._tasks(self._pieces(jobs, decoded, count))
            results = stack.enter_context(
                closing(ordered_map(compute, tasks, self.num_processes, self.engine.set_up, self.engine.tasks_at_once))
            )
            for result in itertools.chain.from_iterable(results):
                job = jobs[result.job]
                if not job.failure:
                    job.add(result)
                    self.num_pairs += result.shape[0]
                    bar.total = count.total()
                    bar.update(result.shape[0])
            bar.total = self.num_pairs
            self.seconds = bar.format_dict["elapsed"]

    def _decode(self, jobs: Sequence[Job], index: int, children: Children) -> Iterator[Chunk]:
        first_pairs = None if index else self.engine.first_pairs
        return chunks(jobs[index].video, self.reading, self._max_pairs, self.tool, children, first_pairs)

    def _max_pairs(self, height: int, width: int) -> int:
        """Pairs of this size that a worker takes at a time."""
        return max(1, min(self.engine.pairs_per_task, TASK_BYTES // (8 * height * width)))

    def _tasks(self, pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
        """Pieces, which may be of several videos, that are as much as a worker takes at a time, or little less.

        Where the first piece is small it is the first task, and waits for no other.
        """
        task: list[Piece] = []
        filled = 0.0
        if self.engine.first_pairs < self.engine.pairs_per_task:
            yield from ([piece] for piece in itertools.islice(pieces, 1))
        for piece in pieces:
            num_frames, height, width = piece.chunk.frames.shape[:3]
            share = (num_frames - self.settings.step) / self._max_pairs(height, width)
            if task and filled + share > 1:
                yield task
                task, filled = [], 0.0
            task.append(piece)
            filled += share
        if task:
            yield task

    def _pieces(self, jobs: Sequence[Job], decoded: Iterator, count: PairCount) -> Iterator[Piece]:
        for index, item in decoded:
            job = jobs[index]
            if isinstance(item, BadVideo):
                count.set(job.video, job.num_pairs)
                job.fail(str(item))
                _say(f"bad video {job.source.path}: {job.failure}")
                continue
            if item.end:
                count.set(job.video, item.end.num_frames - self.settings.step)
                if item.end.note:
                    _say(f"{job.source.path}: {item.end.note}")
            yield Piece(index, job.source.path, item)


def _say(text: str) -> None:
    tqdm.write(f"ccs: flow: {text}", file=sys.stderr)


def _compute(
    task: list[Piece], *, backend: str, parameters: Parameters, settings: OutputSettings, gpu_memory: int
) -> list[Result]:
    """In a worker: the flow of a few chunks, encoded."""
    # over several frames: every step-th frame, from each of the first ones on
    parts = [_every(piece.chunk.frames, settings.step) for piece in task]
    videos = [part for each in parts for part in each]
    try:
        if FORMATS[settings.format].quantised and not settings.visualize:
            assert settings.bound is not None
            found = methods.estimate_quantised(videos, settings.bound, settings.method, backend, parameters, gpu_memory)
        else:
            flows = methods.estimate(videos, settings.method, backend, parameters, gpu_memory)
            found = [(flow, None) for flow in flows]
        flows = iter(found)
        return [_encode(piece, [next(flows) for _ in each], settings) for piece, each in zip(task, parts, strict=True)]
    except CcsError as error:
        raise CcsError(f"{', '.join(piece.path for piece in task)}: {error}") from error


def _every(frames: np.ndarray, step: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(frames[start::step]) for start in range(min(step, len(frames) - step))]


def _encode(piece: Piece, parts: list[tuple[np.ndarray, int | None]], settings: OutputSettings) -> Result:
    """Of the flow of a piece's parts; where it is quantised already there are numbers of clipped values with it."""
    frames, jpegs, first, fps, times, end, _ = piece.chunk
    flow = parts[0][0]
    if settings.step > 1:
        flow = np.empty((len(frames) - settings.step, 2, *frames.shape[1:3]), flow.dtype)
        for start, (part, _) in enumerate(parts):
            flow[start :: settings.step] = part
    num_pairs, _, height, width = flow.shape
    counts = [clipped for _, clipped in parts if clipped is not None]
    if counts:
        encoded, num_clipped = flow, sum(counts)
    else:
        check_finite(np.isfinite(flow).all())
        encoded, num_clipped = FORMATS[settings.format].encode(flow, settings.encoding)
    drawn = draw(flow, jpegs) if settings.visualize else []
    kept = [] if not settings.rgb else jpegs if end else jpegs[:num_pairs]
    shape = num_pairs, height, width
    return Result(piece.job, first, shape, encoded, num_clipped, drawn, kept, fps, times[:num_pairs], end)
