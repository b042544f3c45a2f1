"""The stage `flow`: a frames shard in, its TV-L1 flow as 8-bit planes out (rule `flow`).

    ccs flow --frames data/demo/frames/0003.h5 --output data/demo/flow/0003.h5 --workers 8 --backend auto --bound 20

The output is the same to the byte with any number of workers.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import h5py

import ccs
from ccs.flow import BACKENDS, GPU_MEMORY, Parameters, choose, shard
from ccs.flow.pool import ordered_map
from ccs.flow.quantise import check_bound
from ccs.stage import CcsError, add_settings, atomic, progress, run, settings_from


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags and write one flow shard. Raises `CcsError` for bad input; a failure leaves no output."""
    parser = argparse.ArgumentParser(prog="ccs flow", description="TV-L1 optical flow of one frames shard.")
    parser.add_argument("--frames", type=Path, required=True, help="frames shard (.h5) to read")
    parser.add_argument("--output", type=Path, required=True, help="flow shard (.h5) to write")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes on a CPU; GPU backends have their own number (default: 1)"
    )
    parser.add_argument(
        "--gpu-memory", type=int, default=GPU_MEMORY, metavar="BYTES", help="to use on a GPU (default: %(default)s)"
    )
    parser.add_argument(
        "--backend", choices=["auto", *BACKENDS], default="auto", help="auto takes the fastest (default: auto)"
    )
    parser.add_argument("--bound", type=float, default=20.0, help="largest displacement kept, px (default: 20)")
    add_settings(parser, Parameters)
    args = parser.parse_args(argv)
    for flag, value in (("--workers", args.workers), ("--gpu-memory", args.gpu_memory)):
        if value < 1:
            raise CcsError(f"{flag}: expected 1 or more, found {value}")
    check_bound(args.bound)
    parameters = settings_from(args, Parameters)
    write_flow(args.frames, args.output, args.workers, args.backend, args.bound, parameters, args.gpu_memory)


def write_flow(
    frames_path: Path,
    output: Path,
    num_workers: int,
    backend: str,
    bound: float,
    parameters: Parameters,
    memory: int = GPU_MEMORY,
) -> None:
    """Write the flow shard `output` of the frames shard `frames_path` and print the share of clipped values."""
    name = choose(backend, parameters.gamma)
    engine = BACKENDS[name]
    attributes = {
        "ccs": ccs.__version__,
        "settings": json.dumps({"backend": backend, "bound": bound, **parameters.to_names()}),
        "backend": name,
        "backend_version": engine.version(),
        "bound": bound,
    }
    compute = functools.partial(shard.compute, backend=name, parameters=parameters, bound=bound, memory=memory)
    with _open(frames_path) as frames, atomic(output) as part:
        found = shard.videos(frames, frames_path)
        num_pairs = sum(video.num_frames - 1 for video in found)
        tasks = shard.tasks(frames, found, engine.pairs_per_task)
        # a process takes a second to start: no more of them than there are tasks
        num_tasks = -(-num_pairs // engine.pairs_per_task)
        num_processes = min(engine.num_processes(num_workers), num_tasks)
        results = ordered_map(compute, tasks, num_processes, engine.set_up)
        with closing(results), progress(total=num_pairs, desc=f"flow {output.stem}", unit="pair") as bar:
            clipped = shard.write(part, found, results, attributes, bar.update)
        shard.verify(part, found)
    print(
        f"{output}: {num_pairs} pairs of {len(found)} videos by {name} {engine.version()}, "
        f"{clipped:.3%} of the values clipped at {bound:g} px",
        file=sys.stderr,
    )


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise CcsError(f"{path}: expected a frames shard, found no such file; run the frames stage first")
    try:
        return h5py.File(path)
    except OSError as error:
        raise CcsError(
            f"{path}: expected a frames shard (HDF5), found: {error}. Delete it and run that stage again."
        ) from error


if __name__ == "__main__":
    run(main)
