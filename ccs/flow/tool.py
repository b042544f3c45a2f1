"""Optical flow of any videos, without the pipeline: `ccs flow videos/ -o flow/ --format jpg --workers 8`.

Videos come in (`ccs.flow.sources`), their outputs go out (`ccs.flow.formats`), and `ccs.flow.jobs` does the work; here
are the flags, the checks before any work starts, and what is said at the end. A call keeps the outputs of earlier ones
that are whole, of the same file and made with the same settings. `ccs flow --frames SHARD.h5 --output SHARD.h5` is the
pipeline's stage, `ccs.flow.__main__`, which knows nothing of this.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ccs import hdf5
from ccs.datasets.disk import SUFFIXES
from ccs.flow import rawframes, shard
from ccs.flow.engines import BACKENDS
from ccs.flow.formats import FORMATS, is_visualized, obstacle, read_record, remove_leftovers
from ccs.flow.jobs import Job, OutputSettings, Work, check_failures
from ccs.flow.methods import METHODS, choose
from ccs.flow.quantise import check_bound
from ccs.flow.settings import EngineSettings, GpuSettings, Parameters
from ccs.flow.sources import INPUTS, LISTS, OTHERS, Source, find
from ccs.frames.commands import Ffmpeg
from ccs.frames.film import check_ffmpeg, find_ffmpeg
from ccs.frames.settings import DamageSettings, FfmpegSettings, FramesSettings
from ccs.pool import num_cores
from ccs.settings import Flags, add_settings, check_counts, settings_from
from ccs.stage import CcsError, run

USAGE = f"""ccs flow {INPUTS} ... -o DIR [flags]
       ccs flow --frames SHARD.h5 --output SHARD.h5 [flags]"""

# of what an output is not called: directories of these names, which are not there, are files to whoever asks for them
FILE_SUFFIXES = frozenset((".h5", ".hdf5", ".npy", ".npz", ".flo", ".jpg", ".jpeg", ".png", ".gif", *LISTS, *OTHERS))

DESCRIPTION = """\
Optical flow of videos. Inputs are video files, folders of frames (VIDEO/
img_00001.jpg and the like, in the order of their numbers), directories
(searched for both, subdirectories too) and lists (LIST.txt, .lst, .list, .csv
or .tsv, or - for standard input): a path a line, or `path label`, or
`path num_frames label`, or a table with a column path. Outputs mirror the
paths below the given directory:

  jpg  DIR/VIDEO/flow_x_00001.jpg and flow_y_00001.jpg, as TSN has them: 8 bits,
       (flow + bound) * 255 / (2 * bound). With --rgb it is the layout that
       mmaction2 calls rawframes, and --lists writes its lists
  h5   DIR/VIDEO.h5: 8 bits, lossless, 128 + flow * 127 / bound; the layout of
       the pipeline's flow shards, and with --rgb of its frames shards;
       needs hdf5plugin (in a checkout, pip install '.[h5]')
  npy  DIR/VIDEO/flow.npy: float32 (pairs, 2, H, W) in pixels, x (to the right)
       then y (down)
  flo  DIR/VIDEO/flow_00001.flo: float32, Middlebury's format

T frames have T-N pairs with --step N (T-1 without), and frame i begins pair i.

Run the same command again to go on after an interruption: what is whole, of the
same file and made with the same settings is kept, all else is made anew. A
video that cannot be decoded is named and the others go on; the exit status is 1
then."""

EPILOG = """\
examples:
  ccs flow videos/ -o flow/ --short-side 256 --workers 8
  ccs flow videos/ -o rawframes/ --rgb --lists --size 340x256
  ccs flow videos/ -o flow/ --format h5 --gpus 2
  find videos -name '*.avi' | ccs flow - --root videos -o flow/

the pipeline's stage, with --workers, --backend, --bound and the TV-L1 settings:
  ccs flow --frames data/demo/frames/0003.h5 --output data/demo/flow/0003.h5"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool, or the pipeline's stage where there is `--frames`. Raises `CcsError`, also for failed videos."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if any(word.split("=")[0] == "--frames" for word in argv):
        from ccs.flow.__main__ import main as stage

        stage(argv)
        return
    args = _parser().parse_args(argv)
    parameters = settings_from(args, Parameters)
    settings = _settings(args)
    memory = settings_from(args, GpuSettings).gpu_memory
    max_missing = settings_from(args, DamageSettings).max_missing_fraction
    check_counts(args, "workers")
    check_directory(args.output, "flow", _outputs())
    print("ccs: flow: looking for videos, and for what is done of them", file=sys.stderr)
    tool = check_ffmpeg(find_ffmpeg(args.ffmpeg))
    check_fps(settings.fps, tool)
    sources = find(args.inputs, args.root, args.output)
    labels = rawframes.labels(sources) if args.lists else None
    asked_gpus = select_gpus(args.gpus) if args.gpus else 0
    backend = choose(args.method, args.backend, parameters.gamma)
    work = Work(backend, args.workers, settings, parameters, tool, memory, max_missing)
    if asked_gpus:
        work.check_gpus(asked_gpus)
    jobs = [Job(source, Path(args.output), work, args.backend) for source in sources]
    waiting = [job for job in jobs if job.state not in ("kept", "failed")]
    _check_outputs(sources, [job.source for job in waiting], Path(args.output), settings)
    remove_leftovers(Path(args.output, source.name) for source in sources)
    num_kept = sum(job.state == "kept" for job in jobs)
    print(f"ccs: flow: {len(waiting)} videos to do by {work.backend}, {num_kept} were done before", file=sys.stderr)
    if waiting:
        work.engine.prepare()
    work.do(waiting)
    if labels:
        rawframes.write_lists([job for job in jobs if not job.failure], Path(args.output), labels)
    _conclude(jobs, args.output, work)


def _parser() -> argparse.ArgumentParser:
    parser = Flags(
        prog="ccs flow",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_places(parser, "what to compute the flow of")
    parser.add_argument("--format", choices=list(FORMATS), default="jpg", help="see above (default: jpg)")
    parser.add_argument(
        "--bound",
        type=float,
        default=EngineSettings.bound,
        metavar="PX",
        help="largest displacement kept in 8 bits (default: %(default)g)",
    )
    parser.add_argument(
        "--quality", type=int, default=FramesSettings.quality, help="of JPEG, 1 to 100 (default: %(default)s)"
    )
    parser.add_argument(
        "--first-number",
        type=int,
        choices=[0, 1],
        default=1,
        help="of the first frame and of the first pair, in the names of files: 1 as in TSN and mmaction2, 0 as in "
        "denseflow (default: 1)",
    )
    parser.add_argument(
        "--rgb",
        action="store_true",
        help="also write the frames that the flow is of, in colour and of its size: DIR/VIDEO/img_00001.jpg and "
        "following, T of them; in h5 the group frames, as the pipeline has it",
    )
    parser.add_argument(
        "--lists",
        action="store_true",
        help="also write the lists that mmaction2 and TSN read, `VIDEO num_frames label`, of what is whole (format "
        "jpg): DIR/flow_list.txt, with the number of pairs, and with --rgb DIR/rgb_list.txt, with that of frames; "
        "labels are the input list's, or count the classes, which are the names of the folders that videos are in "
        "(DIR/classes.txt)",
    )
    parser.add_argument(
        "--short-side",
        type=int,
        metavar="PX",
        help="scale the frames to exactly this shorter side, up or down, before the flow, which is then in pixels of "
        "the scaled frames (default: the size of the video)",
    )
    parser.add_argument("--size", metavar="WxH", help="scale them to exactly this instead, such as 340x256")
    parser.add_argument(
        "--fps",
        type=float,
        metavar="N",
        help="take the frames that are shown at every 1/N seconds from the first on, of whatever rate the video is, "
        "before all else; a slower video's are repeated (default: all frames)",
    )
    for name, text in (("start", "the frames from this time on"), ("end", "the frames before this time")):
        parser.add_argument(
            f"--{name}", type=_seconds, metavar="TIME", help=f"only {text}, in seconds or hh:mm:ss (default: all)"
        )
    parser.add_argument(
        "--step",
        type=int,
        default=1,
        metavar="N",
        help="flow from frame t to t+N, for every t: N pairs fewer than frames (default: 1)",
    )
    parser.add_argument(
        "--visualize",
        action="store_true",
        help="also write DIR/VIDEO.mp4, the frames beside their flow: hue is direction (red: right), white is no "
        "motion, saturation grows with the square root of the speed and is full at the video's own fastest motion "
        "(75th percentile of the pairs' 99th), on one scale in all of the video",
    )
    parser.add_argument(
        "--root", metavar="DIR", help="name outputs by the paths below this directory (default: the one given)"
    )
    parser.add_argument(
        "--method",
        choices=list(METHODS),
        default="tvl1",
        help="; ".join(f"{name}: {text}" for name, text in METHODS.items()) + " (default: tvl1)",
    )
    parser.add_argument(
        "--backend",
        choices=["auto", *BACKENDS],
        default="auto",
        help="who computes TV-L1: auto takes the fastest, and keeps what another one has made (default: auto)",
    )
    parser.add_argument(
        "--workers", type=int, default=num_cores(), metavar="N", help="processes on a CPU (default: all cores)"
    )
    parser.add_argument(
        "--gpus", metavar="N|LIST", help="how many GPUs, or which: 0,2 (one alone: 2,) (default: all that are visible)"
    )
    add_settings(parser, GpuSettings)
    add_settings(parser, FfmpegSettings)
    add_settings(parser, DamageSettings)
    add_settings(parser.add_argument_group("TV-L1"), Parameters)
    return parser


def _seconds(text: str) -> float:
    """Of a time such as 12.5, 1:30 or 00:01:30.5."""
    if not re.fullmatch(r"(?:(?:\d+:)?[0-5]?\d:)?[0-5]?\d(?:\.\d*)?|\d+(?:\.\d*)?", text):
        raise argparse.ArgumentTypeError(f"expected seconds or hh:mm:ss, found {text!r}")
    return sum(float(part) * 60**place for place, part in enumerate(reversed(text.split(":"))))


def _settings(args: argparse.Namespace) -> OutputSettings:
    """The settings, without those that the format does not use: changing them changes no output."""
    check_bound(args.bound)
    if args.lists and args.format != "jpg":
        raise CcsError(f"--lists: are of the format jpg, found {args.format}: add --format jpg, or leave out --lists")
    if args.format == "h5":
        hdf5.blosc(*shard.COMPRESSION)  # told before any work
    is_folder = not FORMATS[args.format].suffix
    return OutputSettings(
        format=args.format,
        bound=args.bound if FORMATS[args.format].eight_bit else None,
        quality=args.quality if args.format == "jpg" or args.rgb else None,
        first_number=args.first_number if args.format in ("jpg", "flo") or (is_folder and args.rgb) else None,
        short_side=args.short_side,
        size=args.size,
        step=args.step,
        fps=args.fps,
        start=args.start,
        end=args.end,
        rgb=args.rgb,
        visualize=args.visualize,
        method=args.method,
    )


def add_places(parser: argparse.ArgumentParser, inputs: str) -> None:
    """Add the inputs, with this help, and the directory of the outputs."""
    parser.add_argument("inputs", nargs="+", metavar=INPUTS, help=inputs)
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="where outputs go, a directory; made if it is not there"
    )


def check_fps(fps: float | None, tool: Ffmpeg) -> None:
    """`CcsError` where frames are to be taken at a rate and this ffmpeg does not tell their times in time."""
    if fps and not tool.prompt:
        raise CcsError(f"--fps: needs an ffmpeg of 5.1 or newer, found {tool.version} ({tool.path}): see --ffmpeg")


def check_directory(output: str, usual: str, outputs: Sequence[str]) -> None:
    """`CcsError` where `--output` is a file, or would be a directory with a name that only files have.

    For the message: the `usual` name of a directory, and which `outputs` there would be in it.
    """
    if os.path.isdir(output):
        return
    if not output:
        raise CcsError(
            f"--output: expected a directory, found an empty text: name one, such as {usual}, or . for this one"
        )
    suffix = os.path.splitext(output.rstrip("/"))[1].lower()
    if not os.path.lexists(output) and suffix not in SUFFIXES | FILE_SUFFIXES:
        return
    directory = os.path.dirname(output.rstrip("/")) or usual
    found = "a file" if os.path.lexists(output) else f"a name that ends in {suffix}"
    raise CcsError(
        f"--output {output}: expected a directory, as each video has an output of its own, found {found}: with "
        f"--output {directory} they are {', '.join(f'{directory}/{name}' for name in outputs)}"
    )


def _outputs() -> list[str]:
    """What a video's output is called in each format, for people."""
    names = [f"VIDEO{FORMATS[name].suffix} (--format {name})" for name in FORMATS if FORMATS[name].suffix]
    return [*names, "VIDEO/flow_x_00001.jpg (--format jpg)", "VIDEO.mp4 (--visualize)"]


def _check_outputs(
    sources: Sequence[Source], waiting: Sequence[Source], output: Path, settings: OutputSettings
) -> None:
    """`CcsError` where an output to be made, of `waiting`, would replace a video, something else or part of another."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CcsError(f"--output {output}: cannot be made ({error.strerror}): choose another directory") from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise CcsError(f"--output {output}: this directory cannot be written to: choose another or its permissions")
    suffix = FORMATS[settings.format].suffix
    videos = {os.path.realpath(source.path) for source in sources}
    names = {source.name: source for source in sources}
    problems = []
    for source in waiting:
        path, film = Path(output, source.name + suffix), Path(output, source.name + ".mp4")
        if not suffix and (above := next((str(p) for p in Path(source.name).parents if str(p) in names), None)):
            problems.append(f"{path}: is below the output of {names[above].path}")
        elif found := obstacle(path, settings.format):
            problems.append(f"{path}: there is {found}")
        elif settings.visualize and film.exists() and os.path.realpath(film) in videos:
            problems.append(f"{film}: is one of the videos")
        elif settings.visualize and os.path.realpath(film.parent) == os.path.realpath(os.path.dirname(source.path)):
            problems.append(f"{film}: would be among the videos, and the next call would take it for one of them")
        elif settings.visualize and film.exists() and not is_visualized(read_record(path)):
            problems.append(f"{film}: there is a video that this tool has not written")
    if problems:
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        listed = "\n".join(f"  {problem}" for problem in problems[:5])
        raise CcsError(f"these outputs cannot be written, choose another --output:\n{listed}{more}")


def select_gpus(text: str) -> int:
    """Make these GPUs the visible ones, of those that are; how many."""
    try:
        asked = [int(part) for part in text.split(",") if part] if "," in text else list(range(int(text)))
        if not asked or min(asked) < 0 or len(set(asked)) < len(asked):
            raise ValueError(text)
    except ValueError:
        raise CcsError(f"--gpus: expected a number, or a list such as 0,2, found {text!r}") from None
    names = [str(gpu) for gpu in range(max(asked) + 1)]
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name for name in visible.split(",") if name]
    if max(asked) >= len(names):
        raise CcsError(f"--gpus {text}: expected at most {len(names)} GPUs, as CUDA_VISIBLE_DEVICES is {visible!r}")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in asked)
    return len(asked)


def _conclude(jobs: Sequence[Job], output: str, work: Work) -> None:
    """Say what was done; `CcsError` where videos have failed."""
    states = Counter(job.state for job in jobs)
    text = ", ".join(f"{states[state]} {state}" for state in ("kept", "made", "redone", "failed"))
    speed = ""
    if work.num_pairs:
        speed = f"; {work.num_pairs} pairs by {work.backend} {work.engine.version()}"
        speed += f", {work.num_pairs / max(work.seconds, 1e-3):.3g} pairs/s"
        num_values = sum(job.num_values for job in jobs)
        if work.settings.bound is not None:
            clipped = sum(job.num_clipped for job in jobs) / max(num_values, 1)
            speed += f", {clipped:.3%} of the values clipped at {work.settings.bound:g} px"
    print(f"{output}: {len(jobs)} videos: {text}{speed}", file=sys.stderr)
    check_failures([(job.source.path, job.failure) for job in jobs], "flow")


if __name__ == "__main__":
    run(main)
