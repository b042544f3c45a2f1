"""What native-cuda has to do for a pair, counted, and how many pairs a second that should give; no GPU is needed.

    python benchmarks/gpu/model.py [FOLDER] [--pairs 4] [--json FILE] [--rows 5] [--travel 300]

How many iterations real pairs take, and how their changes fall, is recorded from the CPU engine, at 340x256: of the
clips in FOLDER, or those of UCF-101 and HMDB-51 in CCS_REAL_DATA or ../shared/data. The device's steps are played
through with these, as tvl1.cu schedules them; instructions are counted in the machine code that NVRTC makes
(nvidia-cuda-nvdisasm), bytes in the layout. The prediction is for many pairs in flight; benchmarks/gpu/speed.py prints
it beside what is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SIZE = 340, 256
KEPT = HERE / "model.json"  # what a trial carries


class Gpu(NamedTuple):
    """Published figures."""

    multiprocessors: int
    clock: float  # GHz, of a busy device
    bandwidth: float  # bytes a second that copies reach


GPUS = {"H200": Gpu(132, 1.98, 4.3e12), "H100": Gpu(132, 1.98, 3.0e12)}
LANES = 128  # instructions of threads that a multiprocessor issues in a cycle
# Guesses, which a measurement may refute: the share of its issue slots that a busy multiprocessor fills, the seconds a
# step takes beside its work (one block that schedules, the ends of kernels), and pairs in flight
ISSUED, BETWEEN, SLOTS = 0.65, 9e-6, 144


def recorded(paths: list[Path], num_pairs: int) -> list[list[tuple]]:
    """Of each pair: (height, width), the stop and the changes of each pass, in order."""
    import common

    from ccs.flow import kernels, native
    from ccs.flow.settings import Parameters

    passes: list[tuple] = []
    iterate = kernels.iterate

    def one_by_one(state, side, height, width, width_up, pitch, inside, lt, theta, taut, stop, most, deep, changes):
        change, seen = np.inf, []
        while len(seen) < most and change > stop:
            change, side = iterate(
                state, side, height, width, width_up, pitch, inside, lt, theta, taut, stop, 1, deep, changes
            )
            seen.append(float(change))
        passes.append(((height, width), float(stop), seen))
        return change, side

    kernels.iterate = one_by_one
    try:
        pairs, parameters = [], Parameters()
        for path in paths:
            engine = native._Engine(SIZE[1], SIZE[0], parameters)
            for first, second in itertools.pairwise(map(engine.pyramid, common.grey_frames(path, num_pairs + 1, SIZE))):
                passes.clear()
                engine.estimate(first, second, np.empty((2, *SIZE[::-1]), np.float32))
                pairs.append(list(passes))
        return pairs
    finally:
        kernels.iterate = iterate


def expected(made: int, last: list[float], stop: float, left: int) -> int:
    """`expected` of tvl1.cu."""
    guess = 4.0
    if len(last) == 2 and made > 1:
        before, change = last
        if change < before:
            power = math.log(before / change) / math.log(made / (made - 1))
            guess = math.ceil(made * (math.exp(min(math.log(change / stop) / power, 99)) - 1))
        else:
            guess = left
    return max(1, min(int(guess), left))


def groups(passes: list[tuple], rows: int, most: int = 30) -> tuple[list[tuple[tuple[int, int], int]], int]:
    """The groups that the device makes of a pair, as (height, width) and length, and how many of them in vain."""
    from ccs.flow.gpu_engine import group_lengths

    done, in_vain = [], 0
    for size, stop, changes in passes:
        made, last = 0, []
        while made < len(changes):
            num = group_lengths(*size, rows)[expected(made, last, stop, most - made)]
            done.append((size, num))
            if made + num > len(changes):
                in_vain += 1
                done.append((size, len(changes) - made))
            last = (last + changes[made : made + num])[-2:]
            made += num
    return done, in_vain


def counted(rows: int, capability: tuple[int, int] = (9, 0)) -> dict[str, float]:
    """Instructions of a thread: an iteration's and a group's for a pixel, and each other kernel's for a pixel."""
    import sass

    from ccs.flow.gpu_device import compile_kernels

    kernels = sass.kernels(compile_kernels(capability, rows)[0])
    lines = kernels["iterate"]
    loop = sass.iteration_loop(lines)
    start = lines.index(loop[0])
    body, end = sass.item_loop(lines)
    # the way of most tiles: two columns at a time
    narrow = sass.blocks_with(lines, r"\bLDG\.E R", 30) | sass.blocks_with(lines, r"^@!?P\d STG\.E desc", 4)
    around = sass.longest_way(lines, body, start, narrow) + sass.longest_way(lines, start + len(loop), end, narrow)
    pixels = 2 * rows
    found = {"iteration": sass.shortest_trip(loop) / pixels, "group": around / pixels}
    for name, each in (("start", 1), ("warp", 1), ("median", 4), ("store", 1), ("pyramid", 1)):
        body, end = sass.item_loop(kernels[name])
        # samples near the image's border, which need not count, clamp their places
        near_border = sass.blocks_with(kernels[name], r"IMNMX", 12) if name == "warp" else set()
        found[name] = sass.longest_way(kernels[name], body, end, near_border) / each
    # both components, one after the other
    body, end = sass.item_loop(kernels["median"])
    inner = [loop for loop in sass.loops(kernels["median"]) if body < loop[0] and loop[1] < end]
    if inner:
        found["median"] += sum(sass.longest_way(kernels["median"], *each, set()) for each in inner[:1]) / 4
    return found


def work(pairs: list[list[tuple]], instructions: dict[str, float], rows: int) -> dict[str, float]:
    """Means over pairs: iterations of pixels, instructions by kernel, bytes, steps."""
    from ccs.flow.gpu_engine import COLUMNS, WARPS, tile_counts
    from ccs.flow.pyramid import level_sizes
    from ccs.flow.settings import Parameters

    sizes, warps = level_sizes(*SIZE[::-1], Parameters()), Parameters().warps
    pixels = [height * width for height, width in sizes]
    total: Counter[str] = Counter()
    for passes in pairs:
        done, in_vain = groups(passes, rows)
        for size, num in done:
            tile_pixels = math.prod(tile_counts(*size, rows, num)) * COLUMNS * WARPS * rows
            total["iterate"] += tile_pixels * (num * instructions["iteration"] + instructions["group"])
            total["bytes"] += tile_pixels * 9 * 4 + math.prod(size) * 6 * 4
        medians = sum(math.prod(size) for size, _, _ in passes)
        total["median"] += medians * instructions["median"]
        total["warp"] += sum(pixels) * warps * instructions["warp"]
        total["start"] += sum(pixels) * instructions["start"]
        total["pyramid"] += sum(pixels) * instructions["pyramid"]
        total["store"] += pixels[0] * instructions["store"]
        total["bytes"] += medians * 2 * 2 * 4 + sum(pixels) * warps * 7 * 4
        total["pixel-iterations"] += sum(math.prod(size) * len(changes) for size, _, changes in passes)
        total["groups in vain"] += in_vain
        # after each pass but a warp's first a median; each level starts, and the flow is stored
        total["steps"] += len(done) + len(passes) + len(sizes) + 1
    mean = {name: value / len(pairs) for name, value in total.items()}
    mean["instructions"] = sum(mean[name] for name in ("iterate", "median", "warp", "start", "pyramid", "store"))
    return mean


def pairs_per_second(mean: dict[str, float], gpu: Gpu) -> float:
    """With SLOTS pairs in flight, of which each step advances every one."""
    rate = gpu.multiprocessors * LANES * gpu.clock * 1e9
    busy = max(mean["instructions"] / (rate * ISSUED), mean["bytes"] / gpu.bandwidth)
    return 1 / (busy + mean["steps"] * BETWEEN / SLOTS)


def predicted(device: str, width: int, height: int) -> float | None:
    """Pairs a second of mixed real clips on a device of that name, where the model knows it."""
    gpu = next((gpu for name, gpu in GPUS.items() if name in device), None)
    if gpu is None or (width, height) != SIZE or not KEPT.exists():
        return None
    return pairs_per_second(json.loads(KEPT.read_text()), gpu)


def main() -> None:
    """Print the counts and the prediction."""
    from ccs.flow import gpu_engine

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--pairs", type=int, default=4, help="of each clip, the first")
    parser.add_argument("--clips", type=int, default=22, help="at most")
    parser.add_argument("--rows", type=int, default=5, help="of a lane: 2, 4, 5 or 6")
    parser.add_argument("--travel", type=float, default=gpu_engine.TRAVEL, help="`TRAVEL` of ccs.flow.gpu_engine")
    parser.add_argument("--json", type=Path, help="where to keep the means, for a trial")
    args = parser.parse_args()
    data = Path(os.environ.get("CCS_REAL_DATA", ROOT.parent / "shared" / "data"))
    folders = [args.folder] if args.folder else [data / "ucf101", data / "hmdb51"]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.avi"))][: args.clips]
    if not paths:
        sys.exit(f"{folders[0]}: no clips there: name a folder or set CCS_REAL_DATA")
    gpu_engine.TRAVEL = args.travel
    instructions = counted(args.rows)
    print("instructions for a pixel: " + ", ".join(f"{name} {count:.1f}" for name, count in instructions.items()))
    pairs = recorded(paths, args.pairs)
    mean = work(pairs, instructions, args.rows)
    if args.json:
        args.json.write_text(json.dumps(mean))
    print(f"{len(pairs)} pairs of {len(paths)} clips at {SIZE[0]}x{SIZE[1]}; of a mean pair:")
    print(f"  {mean['pixel-iterations'] / 1e6:.1f} M iterations of a pixel, {mean['steps']:.0f} steps,", end=" ")
    print(f"{mean['groups in vain']:.1f} groups in vain, {mean['bytes'] / 1e6:.0f} MB to and from device memory")
    kinds = ("iterate", "median", "warp", "start", "pyramid", "store")
    print(f"  {mean['instructions'] / 1e9:.2f} G instructions: ", end="")
    print(", ".join(f"{name} {mean[name] / 1e9:.2f}" for name in kinds))
    for name, gpu in GPUS.items():
        rate = gpu.multiprocessors * LANES * gpu.clock * 1e9
        print(
            f"{name}: {pairs_per_second(mean, gpu):.0f} pairs/s predicted; {rate / mean['instructions']:.0f} if every "
            f"issue slot were filled, {gpu.bandwidth / mean['bytes']:.0f} by device memory alone"
        )


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(HERE)]
    main()
