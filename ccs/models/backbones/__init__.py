"""Backbones: networks that turn a snippet (an image, a flow stack, a clip) into a map of features.

`build` is the one way to get one. Each module is one family of networks and the one place for its facts: channel
numbers, published weights, normalisation; `catalogue` has a line for each backbone of our own, with its module.
"""

from __future__ import annotations

import importlib

from ccs.models.backbones.backbone import Backbone
from ccs.models.catalogue import BACKBONES, OWN, TORCHVISION, Entry, unpublished
from ccs.stage import CcsError

__all__ = ["Backbone", "build", "is_3d"]


def build(name: str, *, weights: str = "none", flow_length: int | None = None, load_weights: bool = True) -> Backbone:
    """The backbone `name` for RGB, or for snippets of `flow_length` flow pairs.

    Args:
        name: bninception, i3d (and the slim i3d_x0_5, i3d_x0_25) or a classification network of torchvision.
        weights: `none` (random), the name of published weights that the catalogue has for this network, or the path of
            a state dict of it; see `ccs.models.backbones.weights`.
        flow_length: pairs per snippet for the flow stream, None for RGB. Weights for 3 input channels are then
            averaged over them and repeated (cross-modality initialisation; Wang et al., ECCV 2016, sec. 3.2).
        load_weights: False builds the network that these weights are for and does not read them.

    Raises:
        CcsError: unknown network, weights that cannot be had, or that do not fit it (the keys are listed).
    """
    module = importlib.import_module(_entry(name).module)
    if why := unpublished(name, weights):
        raise CcsError(f"train.weights: {weights!r} is not possible here ({why})")
    return module.build(name, weights=weights, flow_length=flow_length, load_weights=load_weights)


def is_3d(name: str) -> bool:
    """Whether the backbone `name` convolves over time; no network is built.

    Raises:
        CcsError: unknown network.
    """
    return _entry(name).is_3d


def _entry(name: str) -> Entry:
    if name not in BACKBONES:
        raise CcsError(
            f"train.backbone: no network {name!r}; expected {', '.join(OWN)} or one of torchvision's: "
            f"{', '.join(TORCHVISION.split())}"
        )
    return BACKBONES[name]
