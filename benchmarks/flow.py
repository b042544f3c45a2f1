"""TV-L1 by every backend that works here, against OpenCV on one thread: speed, memory and the difference in the flow.

    python benchmarks/flow.py [FOLDER] [--size 340x256] [--clips 22] [--pairs 3] [--backends native opencv]
    python benchmarks/flow.py --size own --pairs 20   # how near to OpenCV: the first 20 pairs of every clip
    python benchmarks/flow.py --size 340x256 1280x720 --clips 3 --pairs 1   # sizes in turn, to compare their ratios
    python benchmarks/flow.py --iterations   # what an iteration of `native` costs, and how its passes end

FOLDER holds videos at any depth (default: `ucf101` and `hmdb51` in the environment variable CCS_REAL_DATA, then in
../shared/data). Clip by clip all backends take turns on the same pairs, so that a ratio means something on a busy
machine. Prints a table and saves it as benchmarks/out/flow.csv; then, for CPU backends, two processes against one and
a worker's peak memory over a bare interpreter's; then the end-point error against `flow_ref`, where that is.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from machine import processor

from ccs.flow import kernels
from ccs.flow.engines import BACKENDS, estimate, estimate_videos
from ccs.flow.quantise import quantise

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CCS_REAL_DATA", ROOT.parent / "shared" / "data"))
SUFFIXES = {".avi", ".mp4", ".mkv", ".webm", ".mov"}
ITERATE = kernels.iterate
GPU_SECONDS = 2  # of work for a GPU backend at a time, about


def grey_frames(path: Path, count: int, size: tuple[int, int] | None) -> np.ndarray:
    """The first `count` frames (T, H, W) of a video, or as many as there are, scaled to `size` (width, height)."""
    video, frames = cv2.VideoCapture(str(path)), []
    while len(frames) < count and (read := video.read())[0]:
        grey = cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)
        frames.append(cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if size else grey)
    return np.stack(frames)


def timed(frames: np.ndarray, backend: str) -> tuple[float, np.ndarray]:
    """Seconds, and the flow."""
    start = time.perf_counter()
    flow = estimate(frames, backend)
    return time.perf_counter() - start, flow


def timed_together(videos: list[np.ndarray], backend: str) -> float:
    """Seconds for all videos once, on a GPU, which gets them side by side, many times over."""
    start = time.perf_counter()
    estimate_videos(videos, backend)
    copies = max(1, int(GPU_SECONDS / (time.perf_counter() - start)))
    start = time.perf_counter()
    estimate_videos(videos * copies, backend)
    return (time.perf_counter() - start) / copies


class Agreement:
    """Running sums of the difference to OpenCV's flow."""

    def __init__(self):
        self.epe, self.equal, self.within, self.identical, self.worst = [], [], [], 0, 0.0

    def add(self, flow: np.ndarray, reference: np.ndarray) -> None:
        """Count the pairs of a clip."""
        for ours, theirs in zip(flow, reference, strict=True):
            distance = np.hypot(*(ours - theirs))
            steps = np.abs(quantise(ours, 20)[0].astype(int) - quantise(theirs, 20)[0])
            self.epe.append(distance.mean())
            self.worst = max(self.worst, float(self.epe[-1]))
            self.equal.append(np.mean(steps == 0))
            self.within.append(np.mean(steps <= 1))
            self.identical += np.array_equal(ours, theirs)

    def columns(self) -> dict[str, str]:
        """For the table."""
        return {
            "mean EPE, px": f"{np.mean(self.epe):.6f}",
            "worst pair's": f"{self.worst:.4f}",
            "8 bits equal": f"{np.mean(self.equal):.4%}",
            "within 1": f"{np.mean(self.within):.4%}",
            "identical pairs": f"{self.identical}/{len(self.epe)}",
        }


def device(backend: str) -> str:
    """Its name."""
    if "cuda" in backend:
        line = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return f"{processor()}, one core"


def compare(paths: list[Path], backends: list[str], num_pairs: int, sizes: list[tuple[int, int] | None]) -> list[dict]:
    """One row of the table for each size and backend."""
    seconds = {(size, name): [] for size in sizes for name in backends}
    agreement = {key: Agreement() for key in seconds}
    videos: dict[tuple[int, int] | None, list[np.ndarray]] = {size: [] for size in sizes}
    for number, (path, size) in enumerate(itertools.product(paths, sizes)):
        frames = grey_frames(path, num_pairs + 1, size)
        if number == 0:
            for name in backends:  # compiles, and loads libraries
                estimate(frames[:2], name)
        flows = {}
        for name in backends:
            spent, flows[name] = timed(frames, name)
            seconds[size, name].append(spent)
        for name in backends:
            agreement[size, name].add(flows[name], flows["opencv"])
        videos[size].append(frames)
        on_cpu = [name for name in backends if "cuda" not in name]
        ratios = ", ".join(f"{name} {seconds[size, 'opencv'][-1] / seconds[size, name][-1]:.1f}x" for name in on_cpu)
        print(f"{path.name}: {len(frames) - 1} pairs of {frames.shape[2]}x{frames.shape[1]}: {ratios}", flush=True)
    for size, name in seconds:
        if "cuda" in name:
            seconds[size, name] = [timed_together(videos[size], name)]
    return [
        {
            "backend": f"{name} {BACKENDS[name].version()}",
            "device": device(name),
            "resolution": f"{size[0]}x{size[1]}" if size else "own",
            "pairs/s": f"{len(agreement[size, name].epe) / sum(spent):.3g}",
            "x OpenCV": f"{sum(seconds[size, 'opencv']) / sum(spent):.1f}",
            **agreement[size, name].columns(),
        }
        for (size, name), spent in seconds.items()
    ]


def iteration_cost(height: int, width: int, deep: int, rounds: int = 7) -> float:
    """Nanoseconds a pixel and iteration of `native`, in passes of `deep`: the least of some rounds."""
    rng = np.random.default_rng(0)
    frames = [cv2.GaussianBlur(rng.integers(0, 255, (height, width), np.uint8), (0, 0), 2) for _ in range(2)]
    count = 4 + deep * max(2, 2_000_000 // (height * width * deep))
    seconds = []

    def iterate(state, side, *args):
        *same, _, _, _, changes = args  # stop, most, deep, scratch
        for _ in range(rounds):
            start = time.perf_counter()
            last, side = ITERATE(state, side, *same, np.float32(0), count, deep, changes)
            seconds.append((time.perf_counter() - start) / count)
        return last, side

    with_iterate(iterate, lambda: estimate(np.stack(frames), "native", scales=1, warps=1, outer_iterations=1))
    return min(seconds) / height / width * 1e9


def with_iterate(iterate, function) -> None:
    """Call a function while `kernels.iterate` is another."""
    kernels.iterate = iterate
    try:
        function()
    finally:
        kernels.iterate = ITERATE


def passes(paths: list[Path], size: tuple[int, int]) -> dict[str, float]:
    """How `native` splits the iterations of each video's first pair into passes: counts, and pixel-iterations."""
    found = dict.fromkeys(("pixel-iterations", "iterations", "passes", "made again", "in vain"), 0.0)

    def iterate(state, side, height, width, *args):
        *same, stop, most, deep, changes = args
        copy, other, single = state.copy(), side, []
        while len(single) < most and not (single and single[-1] <= stop):
            change, other = ITERATE(copy, other, height, width, *same, stop, 1, 1, changes)
            single.append(change)
        done, known = 0, [np.float32(np.inf)] * 2
        while done < len(single):
            count = kernels._expected.py_func(*known, stop, done, deep) if done > 1 else min(kernels.FIRST, deep)
            count = min(count, most - done)
            found["passes"] += 1
            if done + count > len(single):
                found["made again"] += 1
                found["in vain"] += count * height * width
            done = min(done + count, len(single))
            known = [*known, *single[:done]][-2:] if done > 1 else [np.float32(np.inf), single[0]]
        found["iterations"] += done
        found["pixel-iterations"] += done * height * width
        return ITERATE(state, side, height, width, *args)

    for path in paths:
        with_iterate(iterate, lambda path=path: estimate(grey_frames(path, 2, size), "native"))
    found["in vain"] /= found["pixel-iterations"]
    return found


def iterations(paths: list[Path]) -> None:
    """Print what an iteration costs at some sizes, and how real ones end."""
    print(processor())
    for height, width in ((32, 340), (256, 340), (480, 640), (720, 1280)):
        costs = ", ".join(f"{deep}: {iteration_cost(height, width, deep):.2f}" for deep in (1, 2, 4, 8))
        print(f"{width}x{height}: ns a pixel and iteration in passes of {costs}", flush=True)
    found = passes(paths, (340, 256))
    print(f"{len(paths)} pairs of 340x256: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))


def work(backend: str, frames: np.ndarray, repeats: int, gate, done) -> None:
    """One of several processes at the same work; the gate opens when all are warm."""
    BACKENDS[backend].set_up(0)
    estimate(frames[:2], backend)
    gate.wait()
    start = time.perf_counter()
    for _ in range(repeats):
        estimate(frames, backend)
    done.put(time.perf_counter() - start)


def scaling(backend: str, frames: np.ndarray, num_processes: int, repeats: int = 3, rounds: int = 5) -> float:
    """Work done by `num_processes` processes in the time that one needs for its share alone; taking turns, median."""
    ratios = []
    context = multiprocessing.get_context("spawn")
    for _ in range(rounds):
        slowest = []
        for count in (1, num_processes):
            gate, done = context.Barrier(count), context.Queue()
            processes = [
                context.Process(target=work, args=(backend, frames, repeats, gate, done)) for _ in range(count)
            ]
            for process in processes:
                process.start()
            slowest.append(max(done.get() for _ in processes))
            for process in processes:
                process.join()
        ratios.append(num_processes * slowest[0] / slowest[1])
    return float(np.median(ratios))


def peak_memory(code: str) -> float:
    """MiB of a fresh interpreter that runs `code`."""
    # not ru_maxrss, in which the parent's memory counts
    code += "; print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return int(done.stdout.split()[-2]) / 1024


def references(backends: list[str]) -> None:
    """End-point error against the flow of the IPOL code."""
    for path in sorted((DATA / "flow_ref").glob("*.npz")):
        with np.load(path) as file:
            frames = file["gray"] if "gray" in file else np.stack([file["gray0"], file["gray1"]])
            flow = file["flow"].astype(np.float32).reshape(len(frames) - 1, *frames.shape[1:], 2).transpose(0, 3, 1, 2)
        errors = {name: np.hypot(*(estimate(frames, name) - flow).swapaxes(0, 1)).mean() for name in backends}
        print(f"{path.stem}: mean EPE " + ", ".join(f"{name} {error:.6f}" for name, error in errors.items()))


def main() -> None:
    """Print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--size", nargs="+", default=["340x256"], help="WIDTHxHEIGHT, or `own`; one or several")
    parser.add_argument("--clips", type=int, default=22, help="at most")
    parser.add_argument("--pairs", type=int, default=3, help="of each clip, the first")
    parser.add_argument("--backends", nargs="+", default=[n for n, b in BACKENDS.items() if b.available() is None])
    parser.add_argument("--iterations", action="store_true", help="what an iteration of `native` costs, nothing else")
    parser.add_argument("--processes", type=int, default=2, help="against one")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    folders = [args.folder] if args.folder else [DATA / "ucf101", DATA / "hmdb51"]
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"{folders[0]}: no videos there: name a folder or set CCS_REAL_DATA")
    if args.iterations:
        iterations(paths[: args.clips])
        return
    sizes = [None if size == "own" else tuple(int(side) for side in size.split("x")) for size in args.size]
    backends = [*(name for name in args.backends if name != "opencv"), "opencv"]
    rows = compare(paths[: args.clips], backends, args.pairs, sizes)
    widths = [max(len(str(row[key])) for row in [*rows, {key: key}]) for key in rows[0]]
    for row in [
        {key: key for key in rows[0]},
        {key: "-" * width for key, width in zip(rows[0], widths, strict=True)},
        *rows,
    ]:
        print(
            "| " + " | ".join(str(value).ljust(width) for value, width in zip(row.values(), widths, strict=True)) + " |"
        )
    output = ROOT / "benchmarks" / "out" / "flow.csv"
    output.parent.mkdir(exist_ok=True)
    with open(output, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)

    frames = grey_frames(paths[0], 4, sizes[0] or (340, 256))
    for name in (name for name in backends if name == "native"):
        print(
            f"{name}: {args.processes} processes do {scaling(name, frames, args.processes):.2f} times the work of one"
        )
        height, width = frames.shape[1:]
        code = "import numpy as np; from ccs.flow.quantise import quantise; "
        code += "from ccs.flow.engines import BACKENDS, estimate; "
        code += f"BACKENDS['{name}'].set_up(0); "
        code += f"frames = np.random.default_rng(0).integers(0, 255, (17, {height}, {width}), np.uint8); "
        code += f"quantise(estimate(frames, '{name}', warps=1), 20)"
        bare = peak_memory("pass")
        print(f"{name}: a worker's peak memory is {peak_memory(code) - bare:.0f} MiB over the interpreter's {bare:.0f}")
    references(backends)


if __name__ == "__main__":
    main()
