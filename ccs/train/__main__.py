"""Train one network: training shards in, checkpoint.pt and history.csv out (rule `train`).

    ccs train --manifest data/demo/manifest.csv --shards data/demo/shards/*.h5 --quarantine data/demo/quarantine.csv \
        --run ccs --seed 0 --checkpoint out/checkpoint.pt --history out/history.csv --backbone resnet18 --weights none

On SIGTERM, SIGUSR1 or Ctrl-C it writes a resume file beside the checkpoint and ends with status 75, and every now and
then it writes one unasked. Started again, it goes on from there, and on a CPU ends with the same bits as without a
break. Under `torchrun` (python -m torch.distributed.run) each process has a GPU and its part of every batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_type_hints

import torch
from torch.utils.data import DataLoader

from ccs.clips.dataset import TestClips, TrainClips, loaded, loader, usable_videos, videos_digest
from ccs.clips.sampling import BalancedBatches, Course
from ccs.datasets import manifests
from ccs.models import published
from ccs.models.network import snippet_of, weights_of_streams
from ccs.models.settings import NetworkSettings
from ccs.settings import Flags, add_settings, given_settings, settings_from, word
from ccs.shards.reader import ShardReader
from ccs.stage import CcsError, atomic, check_writable, remove_left_parts, run
from ccs.train import checkpoint, history, parallel
from ccs.train.interruption import Interruption
from ccs.train.loop import Clips
from ccs.train.settings import EvaluateSettings
from ccs.train.training import Settings, Training

EVALUATE = "evaluate-"  # what its settings' flags begin with, as --segments is of training clips


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = Flags(prog="ccs train", description="Train a Cooperative Cross-Stream network on training shards.")
    parser.add_argument("--manifest", required=True, help="manifest.csv of the dataset")
    parser.add_argument("--split", type=int, default=1, help="split of the manifest (default: 1)")
    parser.add_argument("--shards", nargs="+", required=True, help="training shards (.h5)")
    parser.add_argument("--quarantine", required=True, help="quarantine.csv: videos known to be bad")
    parser.add_argument("--run", default="ccs", help="name of the run, stored in the checkpoint (default: ccs)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches, crops and dropout (default: 0)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load clips; they change no result")
    parser.add_argument("--provenance", default="", help="a resume file of another provenance is not used")
    parser.add_argument("--checkpoint", required=True, help="output: checkpoint.pt")
    parser.add_argument("--history", required=True, help="output: history.csv, a row per epoch")
    kinds = get_type_hints(Settings)
    for kind in kinds.values():
        add_settings(parser, kind)
    scoring = parser.add_argument_group(
        "how the run will be evaluated",
        "For the checkpoint to say so, and for early stopping, which watches the fusion. By default what is usual for "
        "the network.",
    )
    add_settings(scoring, EvaluateSettings, prefix=EVALUATE)
    args = parser.parse_args(argv)
    settings = Settings(**{name: settings_from(args, kind) for name, kind in kinds.items()})
    if args.workers < 0 or not 0 <= args.seed < 2**32:
        raise CcsError(f"--workers, --seed: expected 0 or more, and 0 to 2^32 - 1; found {args.workers}, {args.seed}")
    train(
        manifests.read(args.manifest, args.split),
        ShardReader(args.shards),
        settings,
        checkpoint.usual_evaluation(
            settings.network, settings.clips, **given_settings(args, EvaluateSettings, prefix=EVALUATE)
        ),
        split=args.split,
        quarantine=args.quarantine,
        run_name=args.run,
        seed=args.seed,
        workers=args.workers,
        provenance=args.provenance,
        checkpoint_path=Path(args.checkpoint),
        history_path=Path(args.history),
    )


def train(
    manifest: manifests.Manifest,
    reader: ShardReader,
    settings: Settings,
    evaluation: EvaluateSettings,
    *,
    split: int,
    quarantine: str,
    run_name: str,
    seed: int,
    workers: int,
    provenance: str,
    checkpoint_path: Path,
    history_path: Path,
) -> None:
    """Train until the last epoch (or early stop) and write the checkpoint and the history.

    Raises:
        CcsError: no training videos, or none left of a class, videos neither in a shard nor in quarantine, early
            stopping without validation, a batch that the processes cannot share out, a loss that is not finite.
        SystemExit: a signal asked to stop, and the resume file is written.
    """
    resume_path = checkpoint_path.with_name(f"{checkpoint_path.stem}.resume.pt")
    for path in (checkpoint_path, history_path):  # before hours of training, not after
        check_writable(path)
    remove_left_parts(resume_path)  # now, as it is written late or never
    videos = {part: usable_videos(manifest, part, reader, quarantine) for part in ("train", "val")}
    _check(videos, manifest, settings, quarantine)
    batches = BalancedBatches(
        [video.label for video in videos["train"]],
        batch_classes=settings.train.batch_classes,
        batch_videos=settings.train.batch_videos,
        seed=seed,
    )
    identity = {
        "dataset": manifest.dataset,
        "split": split,
        "run": run_name,
        "seed": seed,
        "classes": list(manifest.classes),
        "videos": manifests.split_digest(manifest),
        "bound": reader.bound,
        "preparation": reader.preparation,
        "settings": json.dumps(dataclasses.asdict(settings), sort_keys=True),
        "pretrained": _weights_digests(settings.network),
    }
    sources = {"given": provenance, "used": videos_digest(videos, reader)}
    if settings.train.patience:  # else no weight depends on it
        sources["watched"] = word(evaluation.fusion)
    with Interruption() as interruption:
        training = Training(settings, evaluation, identity, sources, resume_path, len(batches), interruption)
        training.say(
            f"{run_name}: {len(videos['train'])} training and {len(videos['val'])} validation videos of "
            f"{manifest.dataset}, {len(manifest.classes)} classes, on {training.where}, seed {seed}"
        )
        if untrained := _without_videos(manifest):
            training.say(
                f"{len(untrained)} classes have no training video in this split and will hardly be recognised: "
                f"{', '.join(untrained[:10])}"
            )
        if batches.batch_classes < settings.train.batch_classes:
            training.say(
                f"there are fewer classes than train.batch_classes, {settings.train.batch_classes}: batches of "
                f"{batches.batch_classes} classes x {batches.batch_videos} videos"
            )
        clips = train_clips(reader, videos["train"], batches, training, seed=seed, workers=workers)
        val_loader = _val_loader(reader, videos["val"], training, workers=workers)
        name = "tensorboard" if history_path.stem == "history" else f"{history_path.stem}.tensorboard"
        training.run(clips, val_loader, history_path.with_name(name))
        state = training.result()
        training.stop_if_asked()
        if training.is_main:
            with atomic(history_path) as part:  # both or none
                history.write(part, training.progress.history)
                checkpoint.write(checkpoint_path, state)
        training.stop_if_asked()
        if training.is_main:
            resume_path.unlink(missing_ok=True)
        parallel.wait_for_all()
    training.accelerator.end_training()


def _weights_digests(settings: NetworkSettings) -> dict[str, str]:
    """The files that the streams begin with, by the first digits of their SHA-256; not torchvision's."""
    digests = {}
    for stream, weights in zip(("rgb", "flow"), weights_of_streams(settings), strict=True):
        if published.files(settings.backbone, weights, flow=stream == "flow"):
            path = published.fetch(settings.backbone, weights, flow=stream == "flow")
        else:
            path = Path(weights)
        if path.is_file():  # a missing one is for the network to tell
            with open(path, "rb") as file:
                digests[stream] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return digests


def _check(videos: dict[str, list], manifest: manifests.Manifest, settings: Settings, quarantine: str) -> None:
    if not videos["train"]:
        raise CcsError(f"{manifest.dataset}: no usable training video in this split; look at {quarantine}")
    listed = Counter(video.label for video in manifest.videos if video.split == "train")
    if lost := sorted(listed.keys() - {video.label for video in videos["train"]}):
        names = ", ".join(f"{manifest.classes[label]!r} (of {listed[label]})" for label in lost[:10])
        raise CcsError(
            f"{manifest.dataset}: no training video is usable of {len(lost)} of {len(manifest.classes)} classes: "
            f"{names}. The network would never learn them, and tables would count their test videos all the same. "
            f"{quarantine} has the reasons: repair or replace some of these videos, or remove the classes from the "
            "data set"
        )
    if settings.train.patience and not videos["val"]:
        raise CcsError(
            f"train.patience is {settings.train.patience}, but {manifest.dataset} has no validation videos to watch: "
            f"set datasets.{manifest.dataset}.val_fraction above 0, or patience to 0"
        )


def _without_videos(manifest: manifests.Manifest) -> list[str]:
    """The classes that no training video is listed of."""
    listed = {video.label for video in manifest.videos if video.split == "train"}
    return [name for label, name in enumerate(manifest.classes) if label not in listed]


def train_clips(
    reader: ShardReader,
    videos: list[manifests.Video],
    batches: BalancedBatches,
    training: Training,
    *,
    seed: int,
    workers: int,
) -> Iterator[Clips]:
    """This process's part of all batches that are left, epoch after epoch: workers load on while others validate."""
    settings, progress = training.settings, training.progress
    whole = Course(
        batches,
        epochs=settings.train.epochs,
        first=progress.epoch * len(batches) + training.steps.batches_before(progress.step),
    )
    part = dataclasses.replace(whole, rank=training.rank, num_ranks=parallel.num_processes())
    clips = TrainClips(reader, videos, settings.clips, snippet=snippet_of(settings.network), seed=seed)
    parts = loaded(loader(clips, workers=workers, batch_sampler=part))
    return (
        (rgb, flow, torch.tensor([videos[index].label for index, *_ in batch]))
        for (rgb, flow, _), batch in zip(parts, whole, strict=True)
    )


def _val_loader(
    reader: ShardReader, videos: list[manifests.Video], training: Training, *, workers: int
) -> DataLoader | None:
    """This process's part of the validation videos; None where there are none."""
    if not videos:
        return None
    settings = training.settings
    clips = TestClips(
        reader,
        videos[training.rank :: parallel.num_processes()],
        settings.clips,
        snippet=snippet_of(settings.network),
        segments=settings.clips.segments,
        crops=1,
    )
    batch = settings.train.batch_classes * settings.train.batch_videos
    return loader(clips, workers=workers, batch_size=batch, persistent_workers=workers > 0)


if __name__ == "__main__":
    run(main)
