"""Train one network: training shards in, checkpoint.pt and history.csv out (rule `train`).

    ccs train --manifest data/demo/manifest.csv --shards data/demo/shards/*.h5 --quarantine data/demo/quarantine.csv \
        --run ccs --seed 0 --checkpoint out/checkpoint.pt --history out/history.csv --backbone resnet18 --weights none

Killed and started again, it goes on after the last finished epoch (from a resume file beside the checkpoint) and on a
CPU ends with the same bits as an uninterrupted run.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader

from ccs import checkpoint, datasets
from ccs.clips import ClipSettings, TestClips, TrainClips, usable_videos
from ccs.losses import LossSettings, ccs_loss
from ccs.models.network import CCS, NetworkSettings
from ccs.sampling import BalancedBatches
from ccs.shard_reader import ShardReader
from ccs.stage import CcsError, add_settings, atomic, progress, run, settings_from


@dataclass(frozen=True)
class TrainSettings:
    """Optimisation, with the paper's values (sec. 4.1) as defaults."""

    epochs: int = dataclasses.field(default=400, metadata={"help": "passes over the training videos, at most"})
    batch_classes: int = dataclasses.field(default=8, metadata={"help": "classes per batch (N)"})
    batch_videos: int = dataclasses.field(default=4, metadata={"help": "videos per class of a batch (M)"})
    lr: float = dataclasses.field(default=0.001, metadata={"help": "learning rate of SGD"})
    lr_steps: tuple[int, ...] = dataclasses.field(
        default=(50,), metadata={"help": "epochs after which the learning rate is multiplied by lr_gamma"}
    )
    lr_gamma: float = dataclasses.field(default=0.1, metadata={"help": "factor at each of lr_steps"})
    momentum: float = dataclasses.field(default=0.9, metadata={"help": "of SGD"})
    weight_decay: float = dataclasses.field(default=5e-4, metadata={"help": "of SGD, on all parameters"})
    clip_gradient: float = dataclasses.field(default=20.0, metadata={"help": "largest norm of the gradient"})
    patience: int = dataclasses.field(
        default=0,
        metadata={
            "help": "stop after so many epochs without a better fused validation accuracy, keep the best; 0: never"
        },
    )
    precision: str = dataclasses.field(
        default="auto",
        metadata={
            "help": "auto: bf16 or fp16 on a GPU, float32 on a CPU",
            "choices": ("auto", "no", "bf16", "fp16"),
        },
    )

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_classes, self.batch_videos) < 1 or self.patience < 0:
            raise CcsError("train.epochs, batch_classes, batch_videos: expected at least 1, and patience at least 0")
        if self.lr <= 0 or self.clip_gradient <= 0:
            raise CcsError("train.lr, train.clip_gradient: expected more than 0")


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    network: NetworkSettings
    clips: ClipSettings
    losses: LossSettings
    train: TrainSettings

    def __post_init__(self) -> None:
        if self.losses.ranking and not self.network.shared:
            raise CcsError(
                "train.ranking is true but train.shared is false: the ranking losses compare the embeddings z of the "
                "shared block, which is not there. Set ranking: false (variants baseline and CB) or shared: true"
            )


HISTORY = ("epoch", "lr", "loss", "loss_triplet", "loss_embedding", "loss_cross_entropy", "active_triplets")
HISTORY += ("train_rgb", "train_flow", "val_rgb", "val_flow", "val_fused")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(
        prog="ccs train", description="Train a Cooperative Cross-Stream network on training shards."
    )
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
    args = parser.parse_args(argv)
    settings = Settings(**{name: settings_from(args, kind) for name, kind in kinds.items()})
    if args.workers < 0 or not 0 <= args.seed < 2**32:
        raise CcsError(f"--workers, --seed: expected 0 or more, and 0 to 2^32 - 1; found {args.workers}, {args.seed}")
    train(
        datasets.read(args.manifest, args.split),
        ShardReader(args.shards),
        settings,
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
    manifest: datasets.Manifest,
    reader: ShardReader,
    settings: Settings,
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
        CcsError: no training videos, videos neither in a shard nor in quarantine, early stopping without validation.
    """
    for path in (checkpoint_path, history_path):
        with atomic(path.with_suffix(".try")) as part:  # before hours of training, not after
            part.touch()
        path.with_suffix(".try").unlink()
    videos = {part: usable_videos(manifest, part, reader, quarantine) for part in ("train", "val")}
    _check(videos, manifest, settings, quarantine)
    accelerator = Accelerator(mixed_precision=_precision(settings.train.precision))
    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    model = CCS(len(manifest.classes), settings.network, segments=settings.clips.segments)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.train.lr,
        momentum=settings.train.momentum,
        weight_decay=settings.train.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, list(settings.train.lr_steps), gamma=settings.train.lr_gamma
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    batches, loader = _train_loader(reader, videos["train"], settings, seed=seed, workers=workers)
    val_loader = _val_loader(reader, videos["val"], settings, workers=workers)

    identity = {
        "dataset": manifest.dataset,
        "split": split,
        "run": run_name,
        "seed": seed,
        "classes": list(manifest.classes),
        "videos": datasets.split_digest(manifest),
        "bound": reader.bound,
        "preparation": reader.preparation,
        "settings": json.dumps(dataclasses.asdict(settings), sort_keys=True),
    }
    fingerprint = {**identity, "provenance": provenance}
    resume_path = checkpoint_path.with_name(f"{checkpoint_path.stem}.resume.pt")
    history: list[dict] = []
    best = {"accuracy": -1.0, "epoch": -1, "model": {}}
    if state := checkpoint.resume(resume_path, fingerprint):
        history, best = state["history"], state["best"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        checkpoint.set_random_state(state["random"], accelerator)

    _say(
        f"{run_name}: {len(videos['train'])} training and {len(videos['val'])} validation videos of "
        f"{manifest.dataset}, {len(manifest.classes)} classes, on {accelerator.device}, seed {seed}"
    )
    bar = progress(total=settings.train.epochs * len(batches), desc="train", unit="batch")
    bar.update(len(history) * len(batches))
    for epoch in range(len(history), settings.train.epochs):
        if settings.train.patience and epoch - 1 - best["epoch"] >= settings.train.patience:
            _say(f"no better validation accuracy since epoch {best['epoch'] + 1}: stopping")
            break
        batches.epoch = epoch
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        row |= train_one_epoch(model, loader, optimizer, accelerator, settings, bar)
        row |= validate(model, val_loader, accelerator) if val_loader else {}
        schedule.step()
        history.append(row)
        _say(_summary(row, settings.train.epochs))
        if settings.train.patience and row["val_fused"] > best["accuracy"]:
            weights = {key: value.cpu().clone() for key, value in model.state_dict().items()}
            best = {"accuracy": row["val_fused"], "epoch": epoch, "model": weights}
        state = {
            **identity,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "epoch": epoch + 1,
            "random": checkpoint.random_state(accelerator),
        }
        checkpoint.write(resume_path, {**state, "fingerprint": fingerprint, "best": best, "history": history})
    bar.close()

    final = {key: value for key, value in state.items() if key in checkpoint.KEYS}
    if settings.train.patience:
        final |= {"model": best["model"], "epoch": best["epoch"] + 1}
    with atomic(history_path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    checkpoint.write(checkpoint_path, final)
    resume_path.unlink()


def _check(videos: dict[str, list], manifest: datasets.Manifest, settings: Settings, quarantine: str) -> None:
    if not videos["train"]:
        raise CcsError(f"{manifest.dataset}: no usable training video in this split; look at {quarantine}")
    if settings.train.patience and not videos["val"]:
        raise CcsError(
            f"train.patience is {settings.train.patience}, but {manifest.dataset} has no validation videos to watch: "
            f"set datasets.{manifest.dataset}.val_fraction above 0, or patience to 0"
        )


def _train_loader(
    reader: ShardReader, videos: list[datasets.Video], settings: Settings, *, seed: int, workers: int
) -> tuple[BalancedBatches, DataLoader]:
    batches = BalancedBatches(
        [video.label for video in videos],
        batch_classes=settings.train.batch_classes,
        batch_videos=settings.train.batch_videos,
        seed=seed,
    )
    clips = TrainClips(reader, videos, settings.clips, snippet=settings.network.snippet, seed=seed)
    # the loader draws from a generator of its own, so as not to disturb the random state of the network
    return batches, DataLoader(
        clips,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def _val_loader(
    reader: ShardReader, videos: list[datasets.Video], settings: Settings, *, workers: int
) -> DataLoader | None:
    if not videos:
        return None
    clips = TestClips(
        reader,
        videos,
        settings.clips,
        snippet=settings.network.snippet,
        segments=settings.clips.segments,
        crops=1,
    )
    batch = settings.train.batch_classes * settings.train.batch_videos
    return DataLoader(clips, batch_size=batch, num_workers=workers, generator=torch.Generator())


def _summary(row: dict, epochs: int) -> str:
    text = (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f}, active triplets {row['active_triplets']:.0%}, "
        f"train RGB {row['train_rgb']:.1f} % flow {row['train_flow']:.1f} %"
    )
    if "val_rgb" in row:
        text += f", val RGB {row['val_rgb']:.1f} % flow {row['val_flow']:.1f} % RGB+Flow {row['val_fused']:.1f} %"
    return text


def train_one_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    settings: Settings,
    bar: progress,
) -> dict[str, float]:
    """One pass over the batches; returns the means over videos of the losses and the accuracies in percent."""
    model.train()
    sums: dict[str, torch.Tensor] = {}
    num_videos = 0
    for rgb, flow, labels in loader:
        rgb, flow, labels = (x.to(accelerator.device, non_blocking=True) for x in (rgb, flow, labels))
        with accelerator.autocast():
            output = model(rgb, flow)
        losses = ccs_loss(output.rgb.float(), output.flow.float(), output.z_rgb, output.z_flow, labels, settings.losses)
        if not torch.isfinite(losses.total):
            raise CcsError("the loss is no longer finite: lower train.lr, or set train.precision to no")
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(losses.total)
        accelerator.clip_grad_norm_(model.parameters(), settings.train.clip_gradient)
        optimizer.step()
        figures = {
            "loss": losses.total.detach(),
            "loss_triplet": losses.triplet,
            "loss_embedding": losses.embedding,
            "loss_cross_entropy": losses.cross_entropy,
            "active_triplets": losses.active,
            "train_rgb": _percent(output.rgb, labels),
            "train_flow": _percent(output.flow, labels),
        }
        for name, value in figures.items():
            sums[name] = sums.get(name, 0) + value * len(labels)
        num_videos += len(labels)
        bar.update()
    return {name: round(float(value) / num_videos, 6) for name, value in sums.items()}


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader, accelerator: Accelerator) -> dict[str, float]:
    """Accuracy in percent of both streams and of the sum of their logits, on segment centres."""
    model.eval()
    logits: dict[str, list[torch.Tensor]] = {"rgb": [], "flow": []}
    labels = []
    for rgb, flow, label in loader:
        with accelerator.autocast():  # the one crop of each video
            output = model(rgb[:, 0].to(accelerator.device), flow[:, 0].to(accelerator.device))
        logits["rgb"].append(output.rgb.float().cpu())
        logits["flow"].append(output.flow.float().cpu())
        labels.append(label)
    rgb, flow, label = torch.cat(logits["rgb"]), torch.cat(logits["flow"]), torch.cat(labels)
    streams = {"val_rgb": rgb, "val_flow": flow, "val_fused": rgb + flow}
    return {name: round(float(_percent(value, label)), 6) for name, value in streams.items()}


def _percent(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return 100 * (logits.detach().argmax(dim=1) == labels).float().mean()


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)
