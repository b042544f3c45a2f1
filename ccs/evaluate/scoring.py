"""Scores of test videos: a checkpoint's network and clips in, logits out; for `evaluate`, `predict` and Figure 6.

Each video is seen at the centres of `segments` segments, in 1, 5 or 10 crops: one forward pass per crop over all
segments, logits averaged over crops. Both streams' logits are kept, so that nothing needs to be evaluated again for a
table.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch

import ccs
from ccs import scores
from ccs.clips.dataset import TestClips, loaded, loader, usable_videos
from ccs.datasets import manifests
from ccs.device import choose_device
from ccs.models.network import CCS, snippet_of
from ccs.shards.reader import ShardReader
from ccs.stage import CcsError, progress
from ccs.train import checkpoint
from ccs.train.settings import EvaluateSettings


def check_same_task(state: dict, manifest: manifests.Manifest, split: int, bound: float, *, path: str) -> None:
    """Refuse a checkpoint of other videos, classes or flow: its scores would look right and mean nothing."""
    if (state["dataset"], state["split"]) != (manifest.dataset, split):
        raise CcsError(
            f"{path}: trained on {state['dataset']} split {state['split']}, asked to score {manifest.dataset} split "
            f"{split}, whose test videos may be among its training videos. Give the checkpoint of this split"
        )
    if tuple(state["classes"]) != manifest.classes:
        differing = sorted(set(state["classes"]) ^ set(manifest.classes))
        raise CcsError(
            f"{path}: trained with {len(state['classes'])} classes, the manifest of {manifest.dataset} has "
            f"{len(manifest.classes)} (in one only: {differing[:5] or 'none, but their order differs'}). Train again"
        )
    if state["videos"] != manifests.split_digest(manifest):
        raise CcsError(
            f"{path}: trained on another list of videos or another division into training and test than the manifest "
            f"of {manifest.dataset} has now: its training videos may be among the test videos. Train again"
        )
    if state["bound"] != bound:
        raise CcsError(
            f"{path}: trained on flow of bound {state['bound']:g} px, the shards have {bound:g}. Train again"
        )


def evaluate(
    state: dict,
    manifest: manifests.Manifest,
    reader: ShardReader,
    settings: EvaluateSettings,
    *,
    quarantine: str,
    part: str = "test",
    workers: int = 0,
) -> scores.Scores:
    """Logits of both streams for every video of a part of the manifest; NaN for quarantined ones."""
    trained = checkpoint.network(state)
    device = choose_device()
    model = trained.model.to(device)
    test = [video for video in manifest.videos if video.split == part]
    usable = usable_videos(manifest, part, reader, quarantine)
    if not test:
        raise CcsError(
            f"{manifest.dataset}, split {state['split']}: no {part} video in the manifest; check the split lists"
        )
    clips = TestClips(
        reader,
        usable,
        trained.clips,
        snippet=snippet_of(trained.network),
        segments=settings.segments,
        crops=settings.crops,
    )
    # a video's ten crops may be 600 MB (I3D), and the network takes ten times as long for them
    workers = min(workers, 2) if settings.crops > 1 else workers
    batches = loaded(loader(clips, workers=workers, batch_size=1, prefetch_factor=1 if workers else None))
    row_of = {video.video: row for row, video in enumerate(test)}
    logits = {stream: np.full((len(test), len(manifest.classes)), np.nan, np.float32) for stream in ("rgb", "flow")}
    with torch.inference_mode():
        for video, (rgb, flow, _) in zip(
            usable, progress(batches, total=len(usable), desc="evaluate", unit="video"), strict=True
        ):
            row = row_of[video.video]
            logits["rgb"][row], logits["flow"][row] = video_logits(model, rgb[0], flow[0], device)
    good = {video.video for video in usable}
    return scores.Scores(
        video=tuple(video.video for video in test),
        label=np.array([video.label for video in test], np.int64),
        rgb=logits["rgb"],
        flow=logits["flow"],
        quarantined=np.array([video.video not in good for video in test]),
        dataset=manifest.dataset,
        split=state["split"],
        run=state["run"],
        seed=state["seed"],
        classes=manifest.classes,
        settings={
            **trained.settings,
            "evaluate": dataclasses.asdict(settings),
            **{stage: values for stage, values in state["preparation"].items() if stage in ("frames", "flow")},
        },
        fusion=settings.fusion,
        versions=_versions(device, state["preparation"]),
    )


def video_logits(
    model: CCS, rgb: torch.Tensor, flow: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both streams' logits (num_classes) of one video on the CPU, the mean over crops; clips as `TestClips` has them.

    One crop at a time: 25 segments x 10 crops at once would need ten times the memory.
    """
    outputs = [model(rgb[None, i].to(device), flow[None, i].to(device)) for i in range(len(rgb))]
    streams = ([getattr(output, stream)[0] for output in outputs] for stream in ("rgb", "flow"))
    of_rgb, of_flow = (torch.stack(each).mean(dim=0).cpu() for each in streams)
    return of_rgb, of_flow


def _versions(device: torch.device, preparation: Mapping[str, Any]) -> dict[str, str]:
    """What computed the scores, by name."""
    packages = {name: metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    found = {"ccs": ccs.__version__, "python": platform.python_version(), **packages}
    found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    names = {"ffmpeg": "ffmpeg", "backend": "flow"}
    return found | {name: str(preparation[key]) for key, name in names.items() if key in preparation}
