"""The frames stage against the same ffmpeg that decodes and scales the same videos to nothing.

    python benchmarks/frames.py [FOLDER] [--workers 1 2] [--repeats 5] [--copies 4]

FOLDER holds videos at any depth (default: the environment variable CCS_REAL_DATA, then ../shared/data). The stage is
run as the workflow runs it, start-up and the writing of HDF5 included, with N workers; the reference is the stage's
own ffmpeg command with `-f null -`, N at a time. Both take turns; medians are compared. The bar: half as fast.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py

from ccs.frames.commands import decoding
from ccs.frames.decode import scaled_size
from ccs.frames.film import check_ffmpeg, find_ffmpeg
from ccs.frames.settings import FramesSettings

SUFFIXES = {".avi", ".mp4", ".mkv", ".webm", ".mov"}


def to_nothing(paths: list[Path], workers: int) -> None:
    """Decode and scale as the stage does, and drop the frames."""
    tool = check_ffmpeg(find_ffmpeg())

    def decode(path: Path) -> None:
        line = decoding(str(path), scaled_size(FramesSettings()), tool, 2)
        line = ["null" if part == "yuv4mpegpipe" else "-" if part == "pipe:" else part for part in line]
        subprocess.run(line, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(decode, paths))


def stage(paths: list[Path], workers: int, folder: Path) -> None:
    """Run the frames stage on a manifest of one shard."""
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "path", "shard", "dataset"])
        rows.writerows([f"{index:05d}", path, "0000", "made"] for index, path in enumerate(paths))
    line = [sys.executable, "-m", "ccs.frames", "--manifest", folder / "manifest.csv", "--shard", "0000"]
    line += ["--output", folder / "0000.h5", "--quarantine", folder / "0000.quarantine.csv", "--workers", str(workers)]
    subprocess.run(line, check=True, stderr=subprocess.DEVNULL)


def measure(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the clock, and seconds of all processors together."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - start, busy


def main() -> None:
    """Print one line per number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", type=int, default=4, help="times that each video is in the shard")
    args = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    folder = args.folder or Path(os.environ.get("CCS_REAL_DATA", root.parent / "shared" / "data"))
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) * args.copies
    if not paths:
        sys.exit(f"{folder}: no videos there: name a folder or set CCS_REAL_DATA")
    with tempfile.TemporaryDirectory() as name:
        for workers in args.workers:
            pairs = [
                (
                    measure(lambda n=workers: to_nothing(paths, n)),
                    measure(lambda n=workers: stage(paths, n, Path(name))),
                )
                for _ in range(args.repeats)
            ]
            with h5py.File(Path(name) / "0000.h5") as file:
                num_frames = sum(len(entry["offset"]) - 1 for entry in file["frames"].values())
            nothing, stored = (
                [statistics.median(values) for values in zip(*side, strict=True)] for side in zip(*pairs, strict=True)
            )
            print(
                f"{len(paths)} videos, {num_frames} frames, {workers} workers: to nothing {nothing[0]:.2f} s "
                f"({nothing[1]:.2f} s of processors), stage {stored[0]:.2f} s ({stored[1]:.2f}), "
                f"{num_frames / stored[0]:.0f} frames/s; ratio {nothing[0] / stored[0]:.2f} (bar 0.50), "
                f"of processor time {nothing[1] / stored[1]:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
