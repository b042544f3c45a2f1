"""The training loop: steps over batches, validation, and where training stands, for `ccs.train` to put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ccs.clips.dataset import loaded
from ccs.models.losses import ccs_loss, moved
from ccs.models.network import CCS
from ccs.models.settings import LossSettings
from ccs.stage import CcsError
from ccs.train import parallel

# Of a batch: RGB (b, K, F, 3, S, S) and flow (b, K, L, 2, S, S) of this process's part, and the labels (B) of the whole
# on the CPU, where classes are counted.
Clips = tuple[Tensor, Tensor, Tensor]


@dataclass
class Progress:
    """Where training stands: all that a resume file holds beside the states of model, optimizer and generators."""

    epoch: int = 0  # epochs that are over
    step: int = 0  # steps of the next one that are over
    num_videos: int = 0  # in those steps
    sums: dict[str, Tensor] = field(default_factory=dict)  # of losses and accuracies over those videos
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=lambda: {"accuracy": -1.0, "epoch": -1, "model": {}})

    def next_epoch(self, row: dict[str, float]) -> None:
        """Close an epoch with its row of the history."""
        self.history.append(row)
        self.epoch, self.step, self.num_videos, self.sums = self.epoch + 1, 0, 0, {}


@dataclass(frozen=True)
class Steps:
    """How batches become steps: `num_batches` an epoch, `accumulate` of them (fewer at its end) for each step.

    clip_gradient: the largest norm that a step's gradient may have; each stream's, where the two share nothing.
    """

    num_batches: int
    accumulate: int
    clip_gradient: float

    def __len__(self) -> int:
        return -(-self.num_batches // self.accumulate)

    def batches_before(self, step: int) -> int:
        """Batches of an epoch that its first `step` steps take."""
        return min(step * self.accumulate, self.num_batches)


def train_one_epoch(
    model: nn.Module,
    clips: Iterator[Clips],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    steps: Steps,
    losses: LossSettings,
    progress: Progress,
    bar: tqdm,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The steps of an epoch that are not over yet; `after_step` is called after each.

    Returns the means over the epoch's videos of losses and accuracies in percent, clips per second, and the share of
    time in which it waited for clips (these two of this process's steps, not of those before it resumed).
    """
    model.train()
    trained_together = cast("CCS", accelerator.unwrap_model(model)).trained_together()
    num_clips, waited, start = 0, 0.0, time.perf_counter()
    while progress.step < len(steps):
        size = steps.batches_before(progress.step + 1) - steps.batches_before(progress.step)
        optimizer.zero_grad(set_to_none=True)
        for number in range(size):
            before = time.perf_counter()
            batch = next(clips)
            waited += time.perf_counter() - before
            # processes exchange gradients once a step
            with accelerator.no_sync(model) if number < size - 1 else nullcontext():
                figures = _forward_backward(
                    model, batch, accelerator, losses, share=1 / size, ranking=_ranking_share(progress, steps, losses)
                )
            num_videos = len(batch[2])
            for name, value in figures.items():
                progress.sums[name] = progress.sums.get(name, 0) + value * num_videos
            progress.num_videos += num_videos
            num_clips += num_videos
            bar.update()
        if accelerator.device.type == "cpu":  # elsewhere looking at a number stops the queue
            check_finite(progress)
        accelerator.unscale_gradients()
        for parameters in trained_together:
            nn.utils.clip_grad_norm_(parameters, steps.clip_gradient)
        optimizer.step()
        progress.step += 1
        after_step()
    check_finite(progress)
    row = {name: round(float(value) / progress.num_videos, 6) for name, value in progress.sums.items()}
    if num_clips:
        seconds = time.perf_counter() - start
        row |= {"clips_per_second": round(num_clips / seconds, 2), "waiting": round(waited / seconds, 4)}
    return row


def _ranking_share(progress: Progress, steps: Steps, losses: LossSettings) -> float:
    """How much of the ranking losses' weights is in force in the next step."""
    if not losses.ranking_warmup:
        return 1.0
    return min((progress.epoch + progress.step / len(steps)) / losses.ranking_warmup, 1.0)


def check_finite(progress: Progress) -> None:
    """`CcsError` where a loss was infinite or no number."""
    if not torch.isfinite(torch.as_tensor(progress.sums.get("loss", 0.0))):
        raise CcsError("the loss is no longer finite: lower train.lr, or set train.precision to no")


def _forward_backward(
    model: nn.Module,
    batch: Clips,
    accelerator: Accelerator,
    settings: LossSettings,
    *,
    share: float,
    ranking: float,
) -> dict[str, Tensor]:
    """Add `share` of the batch's gradient to the parameters'; returns its losses and accuracies in percent.

    ranking: the share of the ranking losses' weights that is in force.
    """
    *clips, labels = batch
    with accelerator.autocast():
        output = model(*(x.to(accelerator.device, non_blocking=True) for x in clips))
    of_rgb, of_flow = (parallel.gather(x.float()) for x in (output.rgb, output.flow))
    z_rgb, z_flow = (x if x is None else parallel.gather(x.float()) for x in (output.z_rgb, output.z_flow))
    losses = ccs_loss(of_rgb, of_flow, z_rgb, z_flow, labels, settings, share=ranking)
    accelerator.backward(losses.total * (share * parallel.num_processes()))
    labels = moved(labels, accelerator.device)
    return {
        "loss": losses.total.detach(),
        "loss_triplet": losses.triplet,
        "loss_embedding": losses.embedding,
        "loss_cross_entropy": losses.cross_entropy,
        "active_triplets": losses.active,
        "train_rgb": _percent(of_rgb, labels),
        "train_flow": _percent(of_flow, labels),
    }


@torch.no_grad()
def validate(
    model: nn.Module,
    loader: DataLoader,
    accelerator: Accelerator,
    fusion: tuple[float, float],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Accuracy in percent of both streams and of the sum of their logits, weighted by `fusion`, on segment centres.

    Each process has its own videos in `loader`, or none; `model` is not DDP's, which would wait for the others at every
    batch. Returns None where `stop`, asked after each batch, said so in any process.
    """
    model.eval()
    logits: dict[str, list[Tensor]] = {"rgb": [], "flow": []}
    labels = []
    stopped = False
    for rgb, flow, label in loaded(loader):
        with accelerator.autocast():  # the one crop of each video
            output = model(rgb[:, 0].to(accelerator.device), flow[:, 0].to(accelerator.device))
        logits["rgb"].append(output.rgb.float().cpu())
        logits["flow"].append(output.flow.float().cpu())
        labels.append(label)
        if stopped := stop():
            break
    if any(parallel.any_rank((stopped,), accelerator.device)):
        return None
    parts = parallel.gather_objects((logits, labels))
    rgb, flow = (torch.cat([x for part, _ in parts for x in part[stream]]) for stream in ("rgb", "flow"))
    label = torch.cat([x for _, part in parts for x in part])
    streams = {"val_rgb": rgb, "val_flow": flow, "val_fused": fusion[0] * rgb + fusion[1] * flow}
    return {name: round(float(_percent(value, label)), 6) for name, value in streams.items()}


def _percent(logits: Tensor, labels: Tensor) -> Tensor:
    return 100 * (logits.detach().argmax(dim=1) == labels).float().mean()
