"""Optimisation, how the trained network is evaluated, and all settings of a run together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from ccs.clips.settings import ClipSettings
from ccs.models.catalogue import BACKBONES, unpublished
from ccs.models.settings import BY_RELATIONS, LossSettings, NetworkSettings
from ccs.settings import Boolean, Different, Ge, Gt, Integer, Le, Lt, NoBoolean, NotAllZero, Number, settings

Weight = Annotated[Number, Ge(0)]

MAX_RELATIONS = 12  # segments; beyond it TRN's tuples are too many


@settings
class TrainSettings:
    """Optimisation, with the paper's values (sec. 4.1) as defaults."""

    epochs: Annotated[Integer, Ge(1)] = 400
    """passes over the training videos at most"""
    batch_classes: Annotated[Integer, Ge(1)] = 8
    """classes per batch (N); where there are fewer, a batch has more videos of each, up to N x M in all"""
    batch_videos: Annotated[Integer, Ge(1)] = 4
    """videos per class of a batch (M)"""
    lr: Annotated[Number, Gt(0)] = 0.001
    """learning rate of SGD"""
    lr_new: Annotated[Number, Gt(0)] = 1.0
    """factor of the learning rate for all but backbones with pretrained weights"""
    lr_steps: Annotated[tuple[Annotated[Integer, Ge(1)], ...], Different()] = (50,)
    """epochs after which the learning rate is multiplied by lr_gamma"""
    lr_gamma: Annotated[Number, Gt(0), Le(1)] = 0.1
    """factor at each of lr_steps"""
    momentum: Annotated[Number, Ge(0), Lt(1)] = 0.9
    """of SGD"""
    weight_decay: Annotated[Number, Ge(0)] = 5e-4
    """of SGD, on all weights but norms'"""
    decay_norms: Boolean = False
    """let weight_decay fall on biases and norms' weights, such as the connection block's gamma; TSN's code does not"""
    clip_gradient: Annotated[Number, Gt(0)] = 20.0
    """largest norm of the gradient; of each stream's where the streams share nothing (connection none, shared false)"""
    patience: Annotated[Integer, Ge(0)] = 0
    """stop after so many epochs without a better validation accuracy of RGB+Flow (by evaluate.fusion), counted from the
    last of lr_steps on, and keep the best since then; 0 for never"""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto takes bf16 or fp16 on a GPU and float32 on a CPU"""
    accumulate: Annotated[Integer, Ge(1)] = 1
    """batches whose gradients are averaged for one step; the losses see one batch at a time"""
    deterministic: Boolean = True
    """compute the same bits each time; false lets a GPU choose what is fastest"""
    compile: Boolean = False
    """let torch.compile make the network faster; on a CPU it needs a C++ compiler"""


@settings
class EvaluateSettings:
    """TSN's testing as default (sec. 4.2): 25 segments; fusion weights are fixed beforehand, never tuned on test."""

    segments: Annotated[Integer, Ge(1)] = 25
    """snippets per video, at the centres of so many segments"""
    crops: Annotated[Literal[1, 10], NoBoolean] = 1
    """1 (centre) or 10 (corners and centre, mirrored too; where train.flip is false these 5 alone)"""
    fusion: Annotated[tuple[Weight, Weight], NotAllZero()] = (1.0, 1.5)
    """weights of the RGB and the flow logits in RGB+Flow, fixed beforehand; not both 0"""


@settings
class RunSettings(TrainSettings, LossSettings, ClipSettings, NetworkSettings):
    """All settings of a run, as the configuration has them under `train`."""


def conflicts(network: NetworkSettings, clips: ClipSettings, losses: LossSettings) -> Iterator[tuple[str, str]]:
    """Combinations that make no sense: the setting that should change, and what is wrong with it, with the reason."""
    if network.aggregation in BY_RELATIONS and not 2 <= clips.segments <= MAX_RELATIONS:
        limit = "less than the minimum of 2" if clips.segments < 2 else f"greater than the maximum of {MAX_RELATIONS}"
        why = f"relations are between 2 segments or more, and with more than {MAX_RELATIONS} there are too many"
        yield "segments", f"{clips.segments} is {limit} ({why})"
    for name in ("weights", "weights_flow"):
        given = getattr(network, name)
        if why := unpublished(network.backbone, given):
            yield name, f"{given!r} is not possible here ({why})"
    pretrained = network.weights if network.weights_flow == "same" else network.weights_flow
    pairs = BACKBONES[network.backbone].flow_pairs.get(pretrained, network.flow_length)
    if network.flow_length != pairs:
        why = f"the flow stream of {network.backbone} called {pretrained} takes {pairs}; else give weights_flow another"
        yield "flow_length", f"{network.flow_length} is not {pairs} ({why})"
    if losses.ranking and not network.shared:
        why = (
            "the ranking losses compare the embeddings z of the shared block, which shared: false takes away; set "
            "ranking: false (variants baseline and CB) or shared: true"
        )
        yield "ranking", f"False was expected ({why})"
