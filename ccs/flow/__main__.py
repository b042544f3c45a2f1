"""The stage `flow`: a frames shard in, its TV-L1 flow as 8-bit planes out (rule `flow`).

    ccs flow --frames data/demo/frames/0003.h5 --output data/demo/flow/0003.h5 --workers 8 --backend auto --bound 20

The output is the same to the byte with any number of workers. Flow that was imported with its frames is not computed:
its values are made into the shard's, and the attribute imported says so, with what the conversion can cost.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import ccs
from ccs import hdf5
from ccs.flow import shard
from ccs.flow.engines import BACKENDS, choose
from ccs.flow.quantise import check_bound
from ccs.flow.settings import EngineSettings, GpuSettings, Parameters
from ccs.pool import ordered_map
from ccs.settings import Flags, add_settings, check_counts, settings_from
from ccs.stage import CcsError, atomic, progress, run


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags and write one flow shard. Raises `CcsError` for bad input; a failure leaves no output."""
    parser = Flags(prog="ccs flow", description="TV-L1 optical flow of one frames shard.")
    parser.add_argument("--frames", type=Path, required=True, help="frames shard (.h5) to read")
    parser.add_argument("--output", type=Path, required=True, help="flow shard (.h5) to write")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes on a CPU; GPU backends have their own number (default: 1)"
    )
    for kind in (GpuSettings, EngineSettings, Parameters):
        add_settings(parser, kind)
    args = parser.parse_args(argv)
    check_counts(args, "workers")
    check_bound(args.bound)
    engine, parameters = settings_from(args, EngineSettings), settings_from(args, Parameters)
    memory = settings_from(args, GpuSettings).gpu_memory
    write_flow(args.frames, args.output, args.workers, engine.backend, engine.bound, parameters, memory)


def write_flow(
    frames_path: Path,
    output: Path,
    num_workers: int,
    backend: str,
    bound: float,
    parameters: Parameters,
    memory: int = GpuSettings.gpu_memory,
) -> None:
    """Write the flow shard `output` of the frames shard `frames_path` and print the share of clipped values."""
    print(f"ccs: flow: {frames_path} -> {output}", file=sys.stderr)
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
    with hdf5.opened(frames_path, "a frames shard (HDF5)", "the frames stage") as frames, atomic(output) as part:
        found = shard.videos(frames, frames_path)
        unknown = [video for video in found if video.bound is None]
        imported = [video for video in found if video.bound is not None]
        if imported:
            attributes["imported"] = json.dumps(_record(imported, bound))
        num_pairs = sum(video.num_frames - 1 for video in unknown)
        tasks = _read(frames_path, shard.tasks(frames, unknown, engine.pairs_per_task, engine.first_pairs))
        # a process takes a second to start: no more of them than there are tasks
        rest = max(0, num_pairs - engine.first_pairs)
        num_tasks = min(1, num_pairs) + -(-rest // engine.pairs_per_task)
        num_processes = min(engine.num_processes(num_workers), num_tasks)
        if num_pairs:
            engine.prepare()
        results = _named(frames_path, ordered_map(compute, tasks, num_processes, engine.set_up, engine.tasks_at_once))
        taken = shard.imported(frames, frames_path, imported, bound)
        num_pairs += sum(video.num_frames - 1 for video in imported)
        with closing(results), progress(total=num_pairs, desc=f"flow {output.stem}", unit="pair") as bar:
            clipped = shard.write(part, found, chain(taken, results), attributes, bar.update)
        shard.verify(part, found)
    kinds = [f"{len(unknown)} videos by {name} {engine.version()}"] * bool(unknown or not imported)
    kinds += [f"{len(imported)} videos imported"] * bool(imported)
    print(
        f"{output}: {num_pairs} pairs of {' and '.join(kinds)}, {clipped:.3%} of the values clipped at {bound:g} px",
        file=sys.stderr,
    )


def _record(imported: list[shard.VideoFrames], bound: float) -> dict[str, object]:
    """What the shard says of flow that was not computed here; its bounds and errors are in pixels."""
    return {
        "videos": len(imported),
        "bound": sorted({video.bound for video in imported if video.bound is not None}),
        "values": "(flow + bound) * 255 / (2 * bound), rounded, made into the shard's own",
        "rounding_error": max(shard.import_error(video, bound) for video in imported),
    }


def _read(path: Path, tasks: Iterator[list[shard.Piece]]) -> Iterator[list[shard.Piece]]:
    with hdf5.reading(path, "a video"):
        yield from tasks


def _named(path: Path, results: Iterator[list[shard.Pairs]]) -> Generator[list[shard.Pairs]]:
    """A worker knows the video, not the shard."""
    try:
        yield from results
    except CcsError as error:
        raise CcsError(f"{path}: {error}") from error


if __name__ == "__main__":
    run(main)
