"""The image classification networks of torchvision, cut off before their global pooling."""

from __future__ import annotations

import functools
import pickle
import re
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ccs.models.backbones import weights as pretrained
from ccs.models.backbones.backbone import Backbone
from ccs.stage import CcsError

CLASSIFIER = ("fc.", "classifier.", "head.")

# The last child module kept, by how a network's name begins. Others (ViT, MaxViT, ...) have no plain last feature map.
_LAST = {
    "alexnet": "features",
    "convnext_": "features",
    "densenet": "features",
    "efficientnet_": "features",
    "mnasnet": "layers",
    "mobilenet_": "features",
    "regnet_": "trunk_output",
    "resnet": "layer4",
    "resnext": "layer4",
    "shufflenet_": "conv5",
    "squeezenet": "features",
    "swin_": "permute",  # after features and norm: until then its channels are last
    "vgg": "features",
    "wide_resnet": "layer4",
}


def names() -> list[str]:
    """The networks that `build` knows."""
    return [name for name in torchvision.models.list_models(module=torchvision.models) if name.startswith(tuple(_LAST))]


def build(name: str, *, weights: str = "none", flow_length: int | None = None, load_weights: bool = True) -> Backbone:
    """The network `name` of `names()`; see `ccs.models.backbones.build`.

    Normalisation and input size are those of torchvision's weights, in 0..255. Flow: zero motion is 128, and the
    deviation is the mean of the RGB ones, as in TSN (yjxiong/tsn-pytorch, models.py).
    """
    body = _body(name, 3 if flow_length is None else 2 * flow_length)
    if load_weights:
        pretrained.load(body, weights, name=name, published=functools.partial(published, name), classifier=CLASSIFIER)
    transform = _weights(name).transforms()
    mean, std = (tuple(255 * value for value in values) for values in (transform.mean, transform.std))
    if flow_length is not None:
        mean, std = (128.0,) * 2, (sum(std) / 3,) * 2
    return Backbone(
        body,
        num_features=_num_features(body),
        mean=mean,
        std=std,
        num_frames=flow_length or 1,
        input_size=transform.crop_size[0],
    )


def published(name: str) -> dict[str, Tensor]:
    """The ImageNet state dict that torchvision publishes first for any of its networks (IMAGENET1K_V1).

    It is downloaded, its checksum checked, into torch.hub's folder, unless it is there.

    Raises:
        CcsError: it cannot be had; the message says where to put it.
    """
    weights = _weights(name)
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # no network, wrong checksum, cut short
        raise CcsError(
            f"train.weights: imagenet: the weights of {name} could not be downloaded or read ({error}). Fetch "
            f"{weights.url} on a machine with access and put it into {Path(torch.hub.get_dir()) / 'checkpoints'}; or "
            "give the path of another file as train.weights, or none to begin without"
        ) from error
    # DenseNet's files are older than its code: norm.1 became norm1
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): value for key, value in state.items()}


def _weights(name: str) -> torchvision.models.WeightsEnum:
    return next(iter(torchvision.models.get_model_weights(name)))


def _body(name: str, in_channels: int) -> nn.Module:
    model = torchvision.models.get_model(name, weights=None)
    last = next(child for prefix, child in _LAST.items() if name.startswith(prefix))
    body = nn.Sequential()
    for child, module in model.named_children():
        body.add_module(child, module)
        if child == last:
            break
    if name.startswith("densenet"):
        body.add_module("relu", nn.ReLU())  # the one family that applies its last activation outside `features`
    if in_channels != 3:
        first, old = pretrained.first_convolution(body)
        # torch's types do not say that these have two sides
        sides: dict[str, Any] = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": old.padding}
        new = nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **sides)
        body.set_submodule(first, new)
    return body


def _num_features(body: nn.Module) -> int:
    in_channels = pretrained.first_convolution(body)[1].in_channels
    was_training = body.training
    with torch.no_grad():
        num_features = body.eval()(torch.zeros(1, in_channels, 64, 64)).shape[1]
    body.train(was_training)
    return num_features
