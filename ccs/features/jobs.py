"""The work of `ccs features`: every video is a job, and three stages of it go on at the same time.

Videos are decoded by ffmpeg and a thread each, once for both streams; flow is computed in worker processes, each pair
once; a thread shows batches of windows to the network. Between the stages little is kept, so that memory does not grow
with a video's length: the slowest stage makes the others wait. On a CPU the network has the right of way, and workers
fill what it leaves of the cores; with few windows waiting it stands still, and they have all.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import ccs
from ccs.features import inputs, networks
from ccs.features.inputs import Piece, Prepared
from ccs.features.outputs import FORMATS, TIMES, Output, check_names, is_complete, read_record
from ccs.features.windows import Batch, Windows
from ccs.flow.engines import BACKENDS
from ccs.flow.jobs import MAX_DECODERS, TASK_BYTES, identify
from ccs.flow.settings import GpuSettings
from ccs.flow.sources import Source
from ccs.flow.streams import Chunk, End, PairCount, chunks, read_ahead
from ccs.frames.commands import Ffmpeg
from ccs.frames.film import Children
from ccs.frames.judgement import BadVideo, allowed
from ccs.frames.stills import Stills
from ccs.pool import ordered_map
from ccs.stage import CcsError, progress, writing

BATCHES_AHEAD = 3  # that wait for the network, and the one that it works on


@dataclass(frozen=True)
class WindowSettings:
    """Which windows there are features of, and how they are stored."""

    stack: int = 16  # frames
    step: int = 4  # frames
    fps: float | None = 25.0  # None: the video's own
    format: str = "npy"

    def __post_init__(self) -> None:
        for name in ("stack", "step"):
            if getattr(self, name) < 1:
                raise CcsError(f"--{name}: expected 1 or more frames, found {getattr(self, name)}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise CcsError(f"--fps: expected more than 0 and at most 1000 frames a second, found {self.fps:g}")


class Job:
    """One video and its output."""

    def __init__(self, source: Source, output: Path, work: Work, asked_backend: str) -> None:
        self.source, self.work, self.base = source, work, Path(output, source.name)
        self.failure, self.num_windows = "", 0
        settings, streams = work.settings, work.network.streams
        self.windows = Windows(settings.stack, settings.step, work.batch)
        self.end: End | None = None
        self._fps = 0.0
        self._waiting = 0  # batches
        self._widths: dict[str, int] = {}
        self._output: Output | None = None
        self.video: str | Stills = source.path  # what is decoded
        self.file: dict[str, str | int] = {}
        try:
            self.video, self.file = identify(source.path)
            if isinstance(self.video, Stills) and settings.fps:
                raise BadVideo("a folder of frames, of which nobody knows the times: --fps own takes them as they are")
        except BadVideo as error:
            self.fail(str(error))
            return
        try:
            check_names(self.base, settings.format, streams)
        except CcsError as error:  # which is of this video alone
            self.fail(str(error))
            return
        there = any(map(os.path.lexists, FORMATS[settings.format].paths(self.base, streams)))
        self.state = "kept" if there and self._is_done(asked_backend) else "redone" if there else "made"

    def _is_done(self, asked_backend: str) -> bool:
        """Whether the output is whole, of the same file and made with the same settings."""
        settings, streams = self.work.settings, self.work.network.streams
        record = read_record(self.base, settings.format)
        return (
            record is not None
            and record["settings"] == self.work.all_settings
            and asked_backend in ("auto", record["backend"])
            and allowed(record.get("num_missing", 0), record.get("num_decoded", 0), self.work.max_missing)
            and all(key in self.file and record["source"].get(key) == self.file[key] for key in ("size", "mtime_ns"))
            and is_complete(self.base, settings.format, streams, record)
        )

    def add(self, new: Prepared) -> list[Batch]:
        """Take what is prepared, in order, and give what the network can be shown."""
        batches = list(self.windows.add(new))
        self.end, self._fps = new.end, new.fps
        self._waiting += len(batches)
        if self.end and not self._waiting:  # the last frames were in no window
            self._finish(self.end)
        return batches

    def write(self, batch: Batch, features: dict[str, np.ndarray]) -> None:
        """Append the features of a batch, in order; with the last one the output is finished."""
        with self._writing():
            if not self._output:
                self._output = FORMATS[self.work.settings.format](self.base, self.work.network.streams)
                self._widths = {stream: rows.shape[1] for stream, rows in features.items()}
            self._output.write({**features, TIMES: batch.times})
        self.num_windows += len(batch.starts)
        self._waiting -= 1
        if self.end and not self._waiting:
            self._finish(self.end)

    def _finish(self, end: End) -> None:
        assert self._output is not None  # a video with fewer frames than a window has failed
        with self._writing():
            self._output.finish(self._record(end))

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            with writing(self.base):
                yield
        except (OSError, RuntimeError) as error:  # h5py raises either
            raise CcsError(f"{self.base}: cannot be written: {error}: choose another output") from error

    def _record(self, end: End) -> dict[str, Any]:
        return {
            "features": ccs.__version__,
            "settings": self.work.all_settings,
            "backend": self.work.backend,
            "backend_version": BACKENDS[self.work.backend].version() if self.work.backend else "",
            "ffmpeg": self.work.tool.version,
            "source": self.file,
            "num_frames": end.num_frames,
            "num_decoded": end.num_decoded,
            "num_missing": end.num_missing,
            "num_windows": self.num_windows,
            "fps": self._fps,
            "widths": self._widths,
        }

    def fail(self, reason: str) -> None:
        """Give up: leave no trace of what was written."""
        self.failure = " ".join(reason.split())
        self.state = "failed"
        self.abandon()

    def abandon(self) -> None:
        """Remove what is not finished."""
        if self._output:
            self._output.abandon()


class Work:
    """What all jobs of a call share, and the loop over them.

    backend: of the flow, "" where there is none. batch: windows that the network is shown together.
    """

    def __init__(
        self,
        network: networks.Network,
        settings: WindowSettings,
        backend: str,
        num_workers: int,
        batch: int,
        tool: Ffmpeg,
        memory: int = GpuSettings.gpu_memory,
        max_missing: float = 0.0,
    ) -> None:
        self.network, self.settings, self.backend, self.batch = network, settings, backend, batch
        self.tool, self.memory, self.max_missing = tool, memory, max_missing
        self.num_processes = BACKENDS[backend].num_processes(num_workers) if backend else 0
        self.all_settings = {
            **asdict(settings),
            "streams": list(network.streams),
            **networks.settings(network),
        }
        self.reading = network.how.reading(fps=settings.fps, max_missing=max_missing)
        self.num_windows, self.seconds = 0, 0.0

    def do(self, jobs: list[Job]) -> None:
        """Compute the outputs of `jobs`; those that fail know why."""
        if not jobs:
            return
        num_decoders = min(1 + max(self.num_processes, 1), MAX_DECODERS)
        count = PairCount([job.video for job in jobs], self.reading, self.tool)
        with ExitStack() as stack:
            stack.callback(count.close)
            for job in jobs:
                stack.callback(job.abandon)
            bar = stack.enter_context(progress(total=None, desc="features", unit="frame"))
            decoded = stack.enter_context(
                read_ahead(range(len(jobs)), functools.partial(self._decode, jobs), num_decoders)
            )
            pieces = self._pieces(jobs, decoded, count)
            results = stack.enter_context(closing(self._prepared(pieces)))
            thread = stack.enter_context(ThreadPoolExecutor(1))
            shown: deque[tuple[Job, Batch, Future]] = deque()
            stack.callback(lambda: [future.cancel() for *_, future in shown])
            for new in results:
                job = jobs[new.job]
                if job.failure:
                    continue
                for batch in job.add(new):
                    future = thread.submit(networks.features, self.network, batch.streams, batch.starts)
                    shown.append((job, batch, future))
                    self._write(shown, BATCHES_AHEAD)
                bar.total = count.total()
                bar.update(new.num_pairs)
            self._write(shown, 0)
            bar.total = bar.n
            self.seconds = bar.format_dict["elapsed"]

    def _write(self, shown: deque[tuple[Job, Batch, Future]], most: int) -> None:
        """Store what the network has made, until no more than `most` batches are with it."""
        while shown and (len(shown) > most or shown[0][2].done()):
            job, batch, future = shown.popleft()
            features = future.result()
            if not job.failure:
                job.write(batch, features)
                self.num_windows += len(batch.starts)

    def _decode(self, jobs: Sequence[Job], index: int, children: Children) -> Iterator[Chunk]:
        first_pairs = None if index or not self.backend else BACKENDS[self.backend].first_pairs
        return chunks(jobs[index].video, self.reading, self._max_pairs, self.tool, children, first_pairs)

    def _max_pairs(self, height: int, width: int) -> int:
        """Pairs of this size that a worker takes at a time."""
        most = BACKENDS[self.backend].pairs_per_task if self.backend else 16
        return max(1, min(most, TASK_BYTES // (8 * height * width)))

    def _pieces(self, jobs: Sequence[Job], decoded: Iterable, count: PairCount) -> Iterator[Piece]:
        for index, item in decoded:
            job = jobs[index]
            if isinstance(item, Chunk) and item.end and item.end.num_frames <= self.settings.stack:
                rate = f" at {self.settings.fps:g} a second" if self.settings.fps else ""
                item = BadVideo(
                    f"{item.end.num_frames} frames{rate}, a window needs {self.settings.stack + 1}: give a smaller "
                    "--stack"
                )
            if isinstance(item, BadVideo):
                count.set(job.video, 0)
                job.fail(str(item))
                _say(f"bad video {job.source.path}: {job.failure}")
                continue
            if item.end:
                count.set(job.video, item.end.num_frames - 1)
                if item.end.note:
                    _say(f"{job.source.path}: {item.end.note}")
            yield Piece(index, job.source.path, item)

    def _prepared(self, pieces: Iterator[Piece]) -> Generator[Prepared]:
        """What the network is shown of each piece, in order."""
        if not self.backend:
            for piece in pieces:
                yield _with_colours(inputs.prepared(piece, {}), piece.chunk.square)
            return
        squares: deque[np.ndarray | None] = deque()

        def tasks() -> Iterator[list[Piece]]:
            for piece in pieces:
                squares.append(piece.chunk.square)  # which no worker needs
                yield [piece._replace(chunk=piece.chunk._replace(square=None))]

        engine = BACKENDS[self.backend]
        prepare = functools.partial(inputs.prepare, how=self.network.how, backend=self.backend, memory=self.memory)
        set_up = functools.partial(inputs.set_up, backend=self.backend)
        with closing(ordered_map(prepare, tasks(), self.num_processes, set_up, engine.tasks_at_once)) as results:
            for new in itertools.chain.from_iterable(results):
                yield _with_colours(new, squares.popleft())


def _with_colours(new: Prepared, square: np.ndarray | None) -> Prepared:
    if square is None:
        return new
    return new._replace(streams={"rgb": square[: new.num_pairs], **new.streams})


def _say(text: str) -> None:
    tqdm.write(f"ccs: features: {text}", file=sys.stderr)
