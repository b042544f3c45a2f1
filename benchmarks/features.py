"""`ccs features`: how near all three stages together come to what they need alone; and memory over an hour of video.

    python benchmarks/features.py [VIDEO|DIR ...] [--frames 400] [--rounds 3]   # default: clips of CCS_REAL_DATA
    python benchmarks/features.py --hour [--minutes 60]   # memory, on a video that ffmpeg draws

Decoding alone, flow alone, the network alone and all together take turns on the same frames. On a GPU the slowest of
the three alone is the limit. On a CPU they share the cores: where each alone keeps all cores busy, the limit of all
together is the sum of their times (core-seconds over cores). What does not keep them busy alone, one decoder of one
video, would make the sum too long and the share too good: its processor time over the cores is taken instead. The
start of workers is left out on both sides. The bar is 85 %. I3D has random weights: that changes no time.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
import torch
from machine import processor

from ccs.features import inputs, networks
from ccs.features.inputs import OfI3D, Piece, Prepared
from ccs.features.jobs import Job, WindowSettings, Work
from ccs.flow.engines import BACKENDS, choose
from ccs.flow.sources import find
from ccs.flow.streams import Chunk, chunks, read_ahead
from ccs.frames.film import Ffmpeg, check_ffmpeg, find_ffmpeg
from ccs.models.backbones import i3d
from ccs.pool import ordered_map

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CCS_REAL_DATA", ROOT.parent / "shared" / "data"))
BATCH = {"cpu": 4, "cuda": 32}


class Timed(Work):
    """It notes when the first pairs are there: until then workers start."""

    begin = 0.0

    def _prepared(self, pieces: Iterator[Piece]) -> Generator[Prepared]:
        for new in super()._prepared(pieces):
            self.begin = self.begin or time.perf_counter()
            yield new


def random_weights(folder: Path) -> dict[str, str]:
    """Files of weights for I3D, by stream."""
    files = {}
    for stream, channels in (("rgb", 3), ("flow", 2)):
        files[stream] = str(folder / f"{stream}.pt")
        torch.save(i3d.I3D(channels).state_dict(), files[stream])
    return files


def busy_seconds() -> float:
    """Processor time of this process and of those that it has started, ended or not."""
    process = psutil.Process()
    own = process.cpu_times()
    children = (child.cpu_times() for child in process.children(recursive=True))
    return own.user + own.system + own.children_user + own.children_system + sum(c.user + c.system for c in children)


def decoding(work: Work, paths: list[str], cores: int) -> tuple[float, list[Chunk]]:
    """Seconds that all cores need for it, and what was decoded."""
    begin, busy = time.perf_counter(), busy_seconds()
    found = []
    most = lambda height, width: BACKENDS[work.backend].pairs_per_task  # noqa: E731
    with read_ahead(paths, lambda path, children: chunks(path, work.reading, most, work.tool, children), 4) as items:
        found = [item for _, item in items]
    return min(time.perf_counter() - begin, (busy_seconds() - busy) / cores), found


def flow(work: Work, pieces: list[Chunk]) -> float:
    """Seconds for all, by the pace after the first task, with which the workers have started."""
    prepare = functools.partial(inputs.prepare, how=work.network.how, backend=work.backend, memory=work.memory)
    tasks = ([Piece(0, "", chunk._replace(square=None))] for chunk in pieces)
    engine, done, begin = BACKENDS[work.backend], 0, 0.0
    set_up = functools.partial(inputs.set_up, backend=work.backend)
    with closing(ordered_map(prepare, tasks, work.num_processes, set_up, engine.tasks_at_once)) as results:
        for (new,) in results:
            if not begin:
                begin, first = time.perf_counter(), new.num_pairs
            done += new.num_pairs
    return (time.perf_counter() - begin) * done / (done - first)


def network(work: Work, num_windows: int) -> float:
    """Seconds for so many windows."""
    side, rows = work.network.how.crop, (work.batch - 1) * work.settings.step + work.settings.stack
    rng = np.random.default_rng(0)
    streams = {
        "rgb": rng.integers(0, 256, (rows, 3, side, side), dtype=np.uint8),
        "flow": rng.uniform(0, 255, (rows, 2, side, side)).astype(np.float32),
    }
    starts = [work.settings.step * window for window in range(work.batch)]
    networks.features(work.network, streams, starts)
    num_batches = max(1, round(num_windows / work.batch))
    begin = time.perf_counter()
    for _ in range(num_batches):
        networks.features(work.network, streams, starts)
    return (time.perf_counter() - begin) * num_windows / (num_batches * work.batch)


def together(work: Timed, paths: list[str], output: Path) -> tuple[float, int, float]:
    """Seconds, windows, and the share of all cores' time that was used."""
    work.begin, work.num_windows = 0.0, 0
    jobs = [Job(source, output, work, "auto") for source in find(paths, "/", str(output), "features")]
    busy = busy_seconds()
    work.do(jobs)
    seconds = time.perf_counter() - work.begin
    if failed := [job.failure for job in jobs if job.failure]:
        raise SystemExit(f"{failed[0]}")
    return seconds, work.num_windows, (busy_seconds() - busy) / seconds / len(os.sched_getaffinity(0))


def pace(args: argparse.Namespace, folder: Path, tool: Ffmpeg) -> None:
    """Print a line for each stage, and the share of the limit."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    settings = WindowSettings(step=args.step)
    net = networks.I3D(random_weights(folder), OfI3D(inputs.STREAMS), settings.stack)
    given = args.videos or [str(DATA / "ucf101")]
    paths, num_frames = [], 0
    work = Timed(net, settings, choose("auto", 0), cores, BATCH[net.device.type], tool)
    for source in find(given, None, str(folder), "features"):
        if num_frames < args.frames:
            paths.append(source.path)
            num_frames += sum(len(chunk.frames) - 1 for chunk in decoding(work, [source.path], cores)[1]) + 1
    BACKENDS[work.backend].prepare()
    print(f"{processor()}, {cores} cores, {net.device}; {len(paths)} videos, {num_frames} frames at 25 a second")
    rounds: list[list[float]] = []
    for number in range(args.rounds):
        seconds, decoded = decoding(work, paths, cores)
        of_flow = flow(work, decoded)
        of_all, num_windows, used = together(work, paths, folder / f"out{number}")
        rounds.append([seconds, of_flow, network(work, num_windows), of_all, used])
    *alone, of_all, used = map(statistics.median, zip(*rounds, strict=True))
    for name, seconds in zip(("decoding", "flow", "network"), alone, strict=True):
        print(f"{name:<12}{seconds:8.2f} s  {num_frames / seconds:8.1f} frames/s alone")
    on_gpu = net.device.type == "cuda"
    limit = max(alone) if on_gpu else sum(alone)
    print(f"{'limit':<12}{limit:8.2f} s, {'the slowest' if on_gpu else 'their sum'}")
    print(f"{'together':<12}{of_all:8.2f} s  {num_windows / of_all:8.2f} windows/s, {used:.0%} of the cores' time")
    shares = [((max if on_gpu else sum)(each[:3])) / each[3] for each in rounds]
    print(f"share of the limit: {statistics.median(shares):.0%} ({', '.join(f'{share:.0%}' for share in shares)})")


def hour(args: argparse.Namespace, folder: Path, tool: Ffmpeg) -> None:
    """Print the peak memory of the command in each quarter of a long video, whose frames are small so that it ends."""
    source = f"testsrc=size=128x96:rate=25:duration={60 * args.minutes}"
    line = [tool.path, "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", str(folder / "long.mp4")]
    subprocess.run(line, check=True)
    weights = ",".join(random_weights(folder).values())
    flags = ["--short-side", "48", "--crop", "48", "--step", "100", "-o", str(folder / "out"), "--weights", weights]
    begin = time.perf_counter()
    command = psutil.Popen([sys.executable, "-m", "ccs.cli", "features", str(folder / "long.mp4"), *flags])
    own, others = [], []
    while command.poll() is None:
        with suppress(psutil.Error):  # it, or one of them, has just ended
            own.append(command.memory_info().rss / 2**20)
            others.append(sum(child.memory_info().rss for child in command.children(recursive=True)) / 2**20)
        time.sleep(1)
    print(
        f"{processor()}; {args.minutes:g} minutes in {time.perf_counter() - begin:.0f} s, status {command.returncode}"
    )
    quarter = -(-len(others) // 4)
    for number in range(4):
        part = slice(number * quarter, (number + 1) * quarter)
        print(f"quarter {number + 1}: {max(own[part]):.0f} MiB, its workers and ffmpeg {max(others[part]):.0f} MiB")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*")
    parser.add_argument("--frames", type=int, default=400, help="of all videos, about (default: 400)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", type=int, default=4)
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    tool = check_ffmpeg(find_ffmpeg())
    with tempfile.TemporaryDirectory() as folder:
        (hour if args.hour else pace)(args, Path(folder), tool)


if __name__ == "__main__":
    main()
