"""The image classification networks of torchvision, cut off before their global pooling."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ccs.stage import CcsError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of all torchvision weights; RGB in 0..1

# The last module kept of each family that has no `features`.
_LAST_LAYER = {"ResNet": "layer4", "ShuffleNetV2": "conv5", "MNASNet": "layers", "RegNet": "trunk_output"}


class Backbone(nn.Module):
    """A feature extractor (B, in_channels, H, W) -> (B, num_features, h, w).

    Attributes:
        num_features: channels of the last feature map.
        mean, std: normalisation per input channel, for values in 0..1.
    """

    def __init__(self, body: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.body = body
        self.mean, self.std = mean, std
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            was_training = body.training
            self.num_features = body.eval()(torch.zeros(1, len(mean), 64, 64)).shape[1]
            body.train(was_training)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def build(name: str, *, weights: str = "none", flow_length: int | None = None) -> Backbone:
    """The backbone `name` of torchvision for RGB, or for stacks of `flow_length` flow pairs (2 * flow_length channels).

    Args:
        name: a torchvision classification network, e.g. resnet18, resnet101, vgg16_bn, shufflenet_v2_x0_5.
        weights: `none` (random), `imagenet` (torchvision's IMAGENET1K_V1, downloaded with its checksum) or the path of
            a state dict of this network; the classifier in it is not used and may have any number of classes.
        flow_length: pairs per snippet for the flow stream; its first convolution is then the mean over the RGB
            channels of the pretrained one, repeated (cross-modality initialisation; Wang et al., ECCV 2016).

    Raises:
        CcsError: unknown network, weights that cannot be had, or that do not fit it (the keys are listed).
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise CcsError(f"train.backbone: no network {name!r} in torchvision; for instance resnet18 or vgg16_bn")
    model = _load(name, weights)
    if hasattr(model, "features"):
        body = model.features
        if isinstance(model, torchvision.models.DenseNet):
            body.add_module("relu", nn.ReLU())  # the one family that applies its last activation outside `features`
        if isinstance(model, torchvision.models.SwinTransformer):
            body.add_module("norm", model.norm)
            body.add_module("permute", model.permute)  # its features have their channels last
    elif type(model).__name__ in _LAST_LAYER:
        body = nn.Sequential()
        for child, module in model.named_children():
            body.add_module(child, module)
            if child == _LAST_LAYER[type(model).__name__]:
                break
    else:
        raise CcsError(
            f"train.backbone: {name} ({type(model).__name__}) has no known last feature map; use a ResNet, VGG"
        )
    mean, std = MEAN, STD
    if flow_length is not None:
        _adapt_first_convolution(body, 2 * flow_length, pretrained=weights != "none")
        # zero motion is 128 of 255; the deviation is the mean of the RGB ones, as TSN does
        mean, std = (128 / 255,) * (2 * flow_length), (sum(STD) / 3,) * (2 * flow_length)
    return Backbone(body, mean=mean, std=std)


def _load(name: str, weights: str) -> nn.Module:
    if weights == "none":
        return torchvision.models.get_model(name, weights=None)
    if weights == "imagenet":
        try:
            return torchvision.models.get_model(name, weights="IMAGENET1K_V1")
        except (urllib.error.URLError, OSError) as error:
            raise CcsError(
                f"train.weights: imagenet: the weights of {name} could not be downloaded ({error}). Download them on a "
                f"machine with access and set train.weights to the file's path"
            ) from error
    path = Path(weights)
    if not path.is_file():
        raise CcsError(
            f"train.weights: {path} is no file; expected none, imagenet or the path of a state dict of {name}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CcsError(f"train.weights: {path} cannot be read as a PyTorch state dict: {error}") from error
    if not isinstance(state, dict):
        raise CcsError(f"train.weights: {path} holds a {type(state).__name__}, expected a state dict of {name}")
    state = state.get("state_dict", state)
    model = torchvision.models.get_model(name, weights=None)
    expected = model.state_dict()
    head = {key for key in expected if key.startswith(("fc.", "classifier.", "head."))}
    missing = sorted(expected.keys() - state.keys() - head)
    unexpected = sorted(state.keys() - expected.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys() - head)
        if state[key].shape != expected[key].shape
    ]
    if missing or unexpected or shapes:
        raise CcsError(
            f"train.weights: {path} does not fit {name}. Missing: {_some(missing)}. Unexpected: {_some(unexpected)}. "
            f"Other shapes: {_some(shapes)}. Give the weights of this network or set train.weights to none"
        )
    model.load_state_dict({key: value for key, value in state.items() if key not in head}, strict=False)
    return model


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "") if keys else "none"


def _adapt_first_convolution(body: nn.Module, in_channels: int, *, pretrained: bool) -> None:
    name, old = next((name, module) for name, module in body.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        bias=old.bias is not None,
    )
    if pretrained:
        with torch.no_grad():
            new.weight.copy_(old.weight.mean(dim=1, keepdim=True).expand_as(new.weight))
            if old.bias is not None:
                new.bias.copy_(old.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(body.get_submodule(parent), attribute, new)
