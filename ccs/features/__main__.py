"""Features of any videos: `ccs features videos/ --weights i3d -o features/`.

Videos come in (`ccs.flow.sources`) and go through `ccs.features.jobs`: decoded, their flow computed, prepared
(`.inputs`), cut into windows (`.windows`), shown to the network (`.networks`) and stored (`.outputs`). Here are the
flags, the checks before any work starts, and what is said at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ccs.features import networks
from ccs.features.inputs import STREAMS, OfI3D
from ccs.features.jobs import Job, WindowSettings, Work
from ccs.features.outputs import FORMATS, obstacle, remove_leftovers
from ccs.flow.engines import BACKENDS, choose
from ccs.flow.jobs import check_failures
from ccs.flow.settings import GpuSettings, Parameters
from ccs.flow.sources import Source, find
from ccs.flow.tool import add_places, check_directory, check_fps
from ccs.frames.film import check_ffmpeg, find_ffmpeg
from ccs.frames.settings import DamageSettings, FfmpegSettings
from ccs.pool import num_cores
from ccs.settings import Flags, add_settings, check_counts, settings_from
from ccs.stage import CcsError, run

BATCH_CPU, BATCH_GPU = 4, 32  # windows

DESCRIPTION = """\
Features of videos for temporal localisation: for windows of --stack frames
every --step, a vector of the RGB frames and one of their TV-L1 flow. Inputs
are those of `ccs flow`: video files, folders of frames, directories of both,
and lists. Outputs mirror the paths below the given directory:

  npy     DIR/VIDEO_rgb.npy and DIR/VIDEO_flow.npy, float32 (windows, 1024)
  joined  DIR/VIDEO.npy, float32 (windows, 2048): RGB, then flow
  h5      DIR/VIDEO.h5 with datasets rgb, flow and times

and with npy and joined DIR/VIDEO_times.npy, float64 (windows, 2), the seconds
at which each window begins and ends, and DIR/VIDEO.json, a record of all
settings. T frames have (T - 1 - STACK) // STEP + 1 windows: the flow of a
window ends in the frame after its last.

Run the same command again to go on after an interruption: what is whole, of the
same file and made with the same settings is kept. A video that cannot be used
is named and the others go on; the exit status is 1 then."""

EPILOG = """\
examples:
  ccs features videos/ --weights i3d -o features/
  ccs features videos/ --weights rgb_imagenet.pt,flow_imagenet.pt -o features/
  ccs features long.mp4 --weights i3d --streams rgb --stack 64 --step 64 -o features/
  ccs features videos/ --weights results/runs/demo/split1/ccs --layer z -o features/"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool. Raises `CcsError`, also at the end for failed videos."""
    args = _parser().parse_args(argv)
    check_counts(args, "workers", "batch")
    check_directory(args.output, "features", ["VIDEO_rgb.npy", "VIDEO.npy (--format joined)", "VIDEO.h5 (--format h5)"])
    output = Path(args.output)
    print("ccs: features: looking for videos, and for what is done of them", file=sys.stderr)
    tool = check_ffmpeg(find_ffmpeg(args.ffmpeg))
    sources = find(args.inputs, args.root, args.output, "features")
    WindowSettings(args.stack, args.step)  # what is wrong with them is told before weights are read
    network = _network(args)
    settings = _settings(args, network)
    check_fps(settings.fps, tool)
    backend = choose(args.backend, network.how.parameters.gamma) if networks.uses_flow(network) else ""
    batch = args.batch or (BATCH_CPU if network.device.type == "cpu" else BATCH_GPU)
    memory, missing = settings_from(args, GpuSettings).gpu_memory, settings_from(args, DamageSettings)
    work = Work(network, settings, backend, args.workers, batch, tool, memory, missing.max_missing_fraction)
    jobs = [Job(source, output, work, args.backend) for source in sources]
    waiting = [job for job in jobs if job.state not in ("kept", "failed")]
    _check_outputs(sources, [job.source for job in waiting], output, work)
    num_kept = sum(job.state == "kept" for job in jobs)
    how = f"{network.device.type}{f', flow by {backend}' if backend else ''}"
    print(f"ccs: features: {len(waiting)} videos to do by {how}, {num_kept} were done before", file=sys.stderr)
    if waiting and backend:
        BACKENDS[backend].prepare()
    work.do(waiting)
    _conclude(jobs, args.output, work)


def _parser() -> argparse.ArgumentParser:
    parser = Flags(
        prog="ccs features",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_places(parser, "what to compute features of")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="i3d|RGB.pt,FLOW.pt|CHECKPOINT",
        help="i3d: the published weights of I3D (Kinetics); or their two files with a comma between, where that of a "
        "stream that is not wanted may lack ('RGB.pt,' with --streams rgb, ',FLOW.pt' with --streams flow); or "
        "checkpoint.pt of ccs train, or the folder of a run",
    )
    parser.add_argument("--streams", choices=("both", *STREAMS), default="both", help="(default: both)")
    parser.add_argument(
        "--stack", type=int, default=WindowSettings.stack, metavar="N", help="frames of a window (default: %(default)s)"
    )
    parser.add_argument(
        "--step",
        type=int,
        default=WindowSettings.step,
        metavar="N",
        help="frames from a window to the next (default: %(default)s)",
    )
    parser.add_argument(
        "--fps",
        type=_fps,
        metavar="N|own",
        help="take the frames that are shown at every 1/N seconds; own: the video's, as they are (default: 25 for I3D, "
        "own for a checkpoint, which was trained so)",
    )
    parser.add_argument("--format", choices=list(FORMATS), default="npy", help="see above (default: npy)")
    parser.add_argument(
        "--layer",
        choices=networks.LAYERS,
        help="of a checkpoint: what is pooled of each stream, or z, the embedding that both share (default: pooled)",
    )
    parser.add_argument("--short-side", type=int, metavar="PX", help=f"of I3D's frames (default: {OfI3D.short_side})")
    parser.add_argument("--crop", type=int, metavar="PX", help=f"I3D's centre square (default: {OfI3D.crop})")
    parser.add_argument(
        "--bound", type=float, metavar="PX", help=f"at which I3D's flow is clipped (default: {OfI3D.bound:g})"
    )
    parser.add_argument(
        "--root", metavar="DIR", help="name outputs by the paths below this directory (default: the one given)"
    )
    parser.add_argument(
        "--backend", choices=["auto", *BACKENDS], default="auto", help="of the flow; auto: the fastest (default: auto)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=num_cores(),
        metavar="N",
        help="processes for flow on a CPU (default: all cores)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help=f"windows that the network is shown together (default: {BATCH_CPU}, on a GPU {BATCH_GPU})",
    )
    add_settings(parser, GpuSettings)
    add_settings(parser, FfmpegSettings)
    add_settings(parser, DamageSettings)
    add_settings(parser.add_argument_group("TV-L1, for I3D"), Parameters)
    return parser


def _fps(text: str) -> float | str:
    try:
        return text if text == "own" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or own, found {text!r}") from None


def _network(args: argparse.Namespace) -> networks.Network:
    """The network of the flags, on its device."""
    streams = STREAMS if args.streams == "both" else (args.streams,)
    given = {name: value for name in ("short_side", "crop", "bound") if (value := getattr(args, name)) is not None}
    parameters = settings_from(args, Parameters)
    changed = parameters if parameters != Parameters() else None
    return networks.load(args.weights, streams, args.stack, args.layer, given, changed)


def _settings(args: argparse.Namespace, network: networks.Network) -> WindowSettings:
    fps = args.fps
    if fps is None:
        fps = WindowSettings.fps if isinstance(network, networks.I3D) else "own"
    return WindowSettings(args.stack, args.step, None if fps == "own" else fps, args.format)


def _check_outputs(sources: Sequence[Source], waiting: Sequence[Source], output: Path, work: Work) -> None:
    """`CcsError` where an output to be made, of `waiting`, would replace something else or part of another."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CcsError(f"--output {output}: cannot be made ({error.strerror}): choose another directory") from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise CcsError(f"--output {output}: this directory cannot be written to: choose another or its permissions")
    format, streams = work.settings.format, work.network.streams
    bases = [Path(output, source.name) for source in waiting]
    problems = [found for base in bases if (found := obstacle(base, format, streams))]
    whose: dict[Path, Source] = {}
    for source in sources:  # of a.mp4 and a_times.mp4 there may be two files of one name
        for path in FORMATS[format].paths(Path(output, source.name), streams):
            other = whose.setdefault(path, source)
            if other is not source:
                problems.append(f"{path}: would be of {other.path} and of {source.path}")
    if problems:
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        listed = "\n".join(f"  {problem}" for problem in problems[:5])
        raise CcsError(f"these outputs cannot be written, choose another --output:\n{listed}{more}")
    for base in bases:
        remove_leftovers(base, format, streams)


def _conclude(jobs: Sequence[Job], output: str, work: Work) -> None:
    """Say what was done; `CcsError` where videos have failed."""
    states = Counter(job.state for job in jobs)
    text = ", ".join(f"{states[state]} {state}" for state in ("kept", "made", "redone", "failed"))
    if work.num_windows:
        text += f"; {work.num_windows} windows, {work.num_windows / max(work.seconds, 1e-3):.3g} windows/s"
    print(f"{output}: {len(jobs)} videos: {text}", file=sys.stderr)
    check_failures([(job.source.path, job.failure) for job in jobs], "features")


if __name__ == "__main__":
    run(main)
