"""How near training comes to the speed of its network alone: clips a second with loading, and on clips that are ready.

    python benchmarks/train.py --case demo [--workers 0 1] [--threads 1]
    python benchmarks/train.py --case real --backbone bninception [--set compile=true] [--batch 128] [--data DIR]

Both sides are the training step of `ccs.train.loop`; the one gets its clips from real shards through the loader of
`ccs.train`, the other the same batches again and again, on the device already: the limit. They take turns (and loading
alone is a third) after as many steps to warm up as the workers load ahead; medians over the rounds are printed.

`demo` has the demo's settings and rendered videos, `real` the paper's (workflow/configs/paper.yaml, weights from
nothing) and real clips at 340x256. Frames, flow and shards are made by the stages at the first call and kept in
benchmarks/out/train. There are few videos, so they are listed many times: an epoch never ends.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch
import yaml
from tqdm import tqdm

from ccs import stage
from ccs.clips.sampling import BalancedBatches
from ccs.config import configuration
from ccs.datasets import adapters, demo, manifests
from ccs.flow import __main__ as flow
from ccs.frames import __main__ as frames
from ccs.shards import __main__ as shards
from ccs.shards.reader import ShardReader
from ccs.train import training as trainings
from ccs.train.__main__ import train_clips
from ccs.train.interruption import Interruption
from ccs.train.loop import Clips, Progress, Steps, train_one_epoch
from ccs.train.settings import EvaluateSettings
from ccs.train.training import Settings, Training

ROOT = Path(__file__).resolve().parent.parent
LISTED = 10_000  # entries of the list of videos
NUM_CLASSES = {"demo": 8, "real": 8}  # in the list; with fewer than a batch has, batches would be smaller
TRAINING_VIDEOS = {"ucf101": 9537, "hmdb51": 3570}  # of split 1, validation videos included


class Case(NamedTuple):
    """What is measured."""

    settings: Settings
    reader: ShardReader
    videos: list[manifests.Video]
    classes: tuple[str, ...]


class Rates(NamedTuple):
    """Of one round, or the medians of all."""

    trained: float  # clips a second, as `ratio` and the next two
    ready: float
    loaded: float
    ratio: float
    waiting: float  # share of the time


def main() -> None:
    """Prepare the case, measure it, print a table and what the paper's trainings would take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    data = Path(os.environ.get("CCS_REAL_DATA", ROOT.parent / "shared" / "data")) / "ucf101" / "videos"
    parser.add_argument("--case", choices=NUM_CLASSES, default="demo")
    parser.add_argument("--data", type=Path, default=data, help="real: CLASS/*.avi (default: ucf101 of CCS_REAL_DATA)")
    parser.add_argument("--backbone", help="another than the case's (real, default on a CPU: resnet18)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of train")
    parser.add_argument("--batch", type=int, help="clips; real only, a multiple of 8 (default: 16, on a GPU 128)")
    parser.add_argument("--workers", type=int, nargs="+", help="that load clips (default: 0 1, on a GPU all cores)")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each side in a round (default: %(default)s)")
    parser.add_argument("--give-back", action="store_true", help="without `ccs.pool.keep_memory`")
    args = parser.parse_args()
    if args.give_back:
        trainings.keep_memory = lambda: None
    torch.set_num_threads(args.threads)
    case = prepare_demo(args) if args.case == "demo" else prepare_real(args, gpu)
    network, train = case.settings.network, case.settings.train
    print(
        f"{args.case}: {network.backbone}, {case.settings.clips.segments} x {case.settings.clips.input_size} px, "
        f"batches of {train.batch_classes} x {train.batch_videos}{', compiled' if train.compile else ''}, "
        + (torch.cuda.get_device_name() if gpu else f"CPU, {args.threads} threads, {os.cpu_count()} cores")
    )
    print("| workers | training, clips/s | limit, clips/s | share of the limit | waiting | loading alone, clips/s |")
    print("|---|---|---|---|---|---|")
    for workers in args.workers or ([os.cpu_count()] if gpu else [0, 1]):
        found = measure(case, workers, args.rounds, args.seconds)
        print(
            f"| {workers} | {found.trained:.2f} | {found.ready:.2f} | {found.ratio:.1%} | {found.waiting:.1%} "
            f"| {found.loaded:.0f} |",
            flush=True,
        )
    if args.case == "real":
        print_cost(network.backbone, found.trained)


def measure(case: Case, workers: int, rounds: int, seconds: float) -> Rates:
    """Medians over `rounds` in which training, the limit and loading alone each run for about `seconds`."""
    train = case.settings.train
    batches = BalancedBatches(
        [video.label for video in case.videos],
        batch_classes=train.batch_classes,
        batch_videos=train.batch_videos,
        seed=0,
    )
    identity = {"seed": 0, "classes": list(case.classes)}
    never = Interruption()  # not entered, so that signals end the benchmark as they end any program
    evaluation = EvaluateSettings()
    training = Training(case.settings, evaluation, identity, {}, Path("no.resume.pt"), len(batches), never)
    clips = train_clips(case.reader, case.videos, batches, training, seed=0, workers=workers)
    device = training.accelerator.device
    held = [next(clips) for _ in range(2)]
    ready = itertools.cycle([(rgb.to(device), flow.to(device), labels) for rgb, flow, labels in held])
    ahead = 2 * workers  # batches that the loader holds ready when the clock starts
    run_steps(training, ready, 2)
    pace = run_steps(training, ready, 2)["clips_per_second"] / batches.batch_size
    num_steps = max(round(seconds * pace), 1)
    found = []
    for _ in range(rounds):
        run_steps(training, clips, max(ahead, 1))
        loading = run_steps(training, clips, num_steps)
        run_steps(training, ready, max(ahead, 1))
        limit = run_steps(training, ready, num_steps)["clips_per_second"]
        trained = loading["clips_per_second"]
        loaded = batches.batch_size * loading_pace(clips, ahead, seconds)
        found.append(Rates(trained, limit, loaded, trained / limit, loading["waiting"]))
    return Rates(*map(statistics.median, zip(*found, strict=True)))


def run_steps(training: Training, clips: Iterator[Clips], num_steps: int) -> dict[str, float]:
    """Train on the next `num_steps` batches; the row of the history that an epoch of so many would have."""
    steps = Steps(num_steps, 1, training.settings.train.clip_gradient)
    parts = training.model, clips, training.optimizer, training.accelerator, steps, training.settings.losses
    return train_one_epoch(*parts, Progress(), tqdm(disable=True))


def loading_pace(clips: Iterator[Clips], ahead: int, seconds: float) -> float:
    """Batches a second of the loader alone."""
    for _ in range(ahead):
        next(clips)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds / 4 or not count:
        next(clips)
        count += 1
    return count / (time.perf_counter() - start)


def prepare_demo(args: argparse.Namespace) -> Case:
    """The run `ccs` of config.yaml on its rendered training videos."""
    config = configuration.complete(yaml.safe_load((ROOT / "config.yaml").read_text()), "config.yaml")
    block = {**config["datasets"]["demo"], "test_per_class": 1}
    run = config["runs"]["ccs"] | ({"backbone": args.backbone} if args.backbone else {})
    with working_directory(ROOT / "benchmarks" / "out" / "train" / "demo"):
        if not Path("shards").is_dir():
            demo.render_all("data/demo/videos", demo.Settings.of(block), os.cpu_count())
        return prepared("demo", block, config["frames"]["size"], settings_of(run, args.set))


def prepare_real(args: argparse.Namespace, gpu: bool) -> Case:
    """The run `tsn_ccs` of paper.yaml, from scratch, on the videos in `args.data`."""
    path = ROOT / "workflow" / "configs" / "paper.yaml"
    config = configuration.complete(yaml.safe_load(path.read_text()), str(path))
    run = config["runs"]["tsn_ccs"]
    batch = args.batch or (128 if gpu else 16)
    if batch < 8 or batch % 8:
        raise stage.CcsError(f"--batch: expected a multiple of 8, the classes of a batch, found {batch}")
    backbone = args.backbone or (run["backbone"] if gpu else "resnet18")
    run = {**run, "backbone": backbone, "weights": "none", "batch_classes": 8, "batch_videos": batch // 8}
    block = {"adapter": "folder", "root": str(args.data.resolve())}
    with working_directory(ROOT / "benchmarks" / "out" / "train" / "real"):
        return prepared("real", block, config["frames"]["size"], settings_of(run, args.set))


def prepared(name: str, block: Mapping[str, Any], size: int | str, settings: Settings) -> Case:
    """The case of all videos of a data set, through the stages up to its shards, in the working directory."""
    manifest = adapters.load(name, block)
    manifests.write("manifest.csv", {1: manifest}, num_shards=1)
    workers = ["--workers", str(os.cpu_count())]
    for shard in manifests.shard_digests(manifest, num_shards=1):
        paths = [f"{folder}/{shard}.h5" for folder in ("frames", "flow", "shards")]
        if Path(paths[-1]).is_file():
            continue
        decoding = ["--size" if isinstance(size, str) else "--short-side", str(size), *workers]
        read, bad = ["--manifest", "manifest.csv", "--shard", shard], ["--quarantine", f"frames/{shard}.csv"]
        frames.main([*read, *bad, "--output", paths[0], *decoding])
        flow.main(["--frames", paths[0], "--output", paths[1], *workers])
        shards.main(["--frames", paths[0], "--flow", paths[1], "--output", paths[2]])
    reader = ShardReader(path.resolve() for path in sorted(Path("shards").glob("*.h5")))
    videos = itertools.cycle(video for video in manifest.videos if video.video in reader)
    num_classes = NUM_CLASSES[name]
    listed = [video._replace(label=i % num_classes) for i, video in enumerate(itertools.islice(videos, LISTED))]
    classes = manifest.classes if name == "demo" else tuple(map(str, range(101)))
    return Case(settings, reader, listed, classes)


def settings_of(run: Mapping[str, Any], changes: list[str]) -> Settings:
    """A run of the configuration, with `changes` such as `compile=true`."""
    changed = {key: yaml.safe_load(value) for key, _, value in (change.partition("=") for change in changes)}
    if unknown := changed.keys() - run.keys():
        raise stage.CcsError(f"--set: expected settings of train, found {', '.join(sorted(unknown))}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in {**run, **changed}.items()}
    kinds = get_type_hints(Settings)
    parts = {name: {key: values[key] for key in kind.__dataclass_fields__} for name, kind in kinds.items()}
    return Settings(**{name: kind(**parts[name]) for name, kind in kinds.items()})


@contextlib.contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Make `folder` and work there, as a manifest's rendered videos have relative paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        yield


def print_cost(backbone: str, clips_per_second: float) -> None:
    """What the trainings of paper.yaml with this backbone would take here, had each all of its epochs."""
    config = configuration.complete(yaml.safe_load((ROOT / "workflow" / "configs" / "paper.yaml").read_text()))
    for name, videos in TRAINING_VIDEOS.items():
        runs = [config["runs"][run] for run in configuration.shown_runs(config, name)]
        epochs = next((run["epochs"] for run in runs if run["backbone"] == backbone), config["train"]["epochs"])
        count = sum(run["backbone"] == backbone for run in runs) * len(config["seeds"])
        hours, rate = epochs * videos / clips_per_second / 3600, f"{clips_per_second:.2f} clips/s"
        print(f"{name}: {epochs} epochs x {videos:,} videos / {rate} = {hours:,.1f} hours for one training, at most")
        if count:
            print(f"{name}: {hours * count:,.0f} hours for the {count} trainings of paper.yaml with {backbone}")


if __name__ == "__main__":
    stage.run(lambda _: main())
