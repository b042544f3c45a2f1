"""The Cooperative Cross-Stream network (arXiv 1908.10136): two backbones, a connection block, a shared block.

Legend of shape suffixes: B videos, T segments, C channels, H W pixels, N positions (T*h*w) of one video.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ccs.models import aggregation, backbones, connection, shared
from ccs.stage import CcsError


@dataclass(frozen=True)
class NetworkSettings:
    """What the network is made of. The four rows of Table 3 are

    baseline: connection none, shared false (and ranking false); CB: shared false (ranking false);
    CS: connection none; All: the defaults.
    """

    backbone: str = dataclasses.field(default="resnet101", metadata={"help": "network of torchvision, one per stream"})
    weights: str = dataclasses.field(default="imagenet", metadata={"help": "none, imagenet or a state dict's path"})
    connection: str = dataclasses.field(
        default="nonlocal",
        metadata={"help": "connection block (Eq. 1-3)", "choices": ("none", "nonlocal", "concat", "average")},
    )
    connection_value: str = dataclasses.field(
        default="self",
        metadata={"help": "features that A weighs: the stream's own or the other's", "choices": ("self", "other")},
    )
    shared: bool = dataclasses.field(default=True, metadata={"help": "tie the embedding and the classifier (sec. 3.3)"})
    aggregation: str = dataclasses.field(
        default="mean", metadata={"help": "of segments (Fig. 5a)", "choices": tuple(aggregation.FUNCTIONS)}
    )
    embedding: int = dataclasses.field(default=512, metadata={"help": "width of z"})
    dropout: tuple[float, ...] = dataclasses.field(default=(0.8, 0.7), metadata={"help": "of RGB and of flow"})
    partial_bn: bool = dataclasses.field(
        default=True,
        metadata={"help": "freeze all batch norm of a backbone but its first; without pretrained weights it is off"},
    )
    flow_length: int = dataclasses.field(default=5, metadata={"help": "flow pairs per snippet (channels x1,y1,x2,..)"})

    def __post_init__(self) -> None:
        if len(self.dropout) != 2 or not all(0 <= p < 1 for p in self.dropout):
            raise CcsError(f"train.dropout: expected two numbers in [0, 1), RGB and flow; found {list(self.dropout)}")
        for name in ("embedding", "flow_length"):
            if getattr(self, name) < 1:
                raise CcsError(f"train.{name}: expected at least 1, found {getattr(self, name)}")


class Output(NamedTuple):
    """Logits (B, num_classes) of both streams; z (B, embedding) of both, None without a shared block."""

    rgb: Tensor
    flow: Tensor
    z_rgb: Tensor | None
    z_flow: Tensor | None


class CCS(nn.Module):
    """Two streams over T segments of a video, each segment one RGB frame and one stack of flow pairs.

    Args:
        num_classes: number of action classes.
        settings: see `NetworkSettings`.
        load_weights: False builds the same network without reading pretrained weights, for a checkpoint to fill.
    """

    def __init__(self, num_classes: int, settings: NetworkSettings, *, load_weights: bool = True) -> None:
        super().__init__()
        weights = settings.weights if load_weights else "none"
        self.rgb = backbones.build(settings.backbone, weights=weights)
        self.flow = backbones.build(settings.backbone, weights=weights, flow_length=settings.flow_length)
        self.partial_bn = settings.partial_bn and settings.weights != "none"
        num_features = self.rgb.num_features
        self.connection = connection.build(settings.connection, num_features, value=settings.connection_value)
        self.aggregate = aggregation.FUNCTIONS[settings.aggregation]
        self.head: nn.Module
        if settings.shared:
            self.head = shared.Shared(num_features, num_classes, embedding=settings.embedding, dropout=settings.dropout)
        else:
            self.head = shared.Separate(num_features, num_classes, dropout=settings.dropout)
        for stream in ("rgb", "flow"):
            for name in ("mean", "std"):
                value = torch.tensor(getattr(getattr(self, stream), name)).view(-1, 1, 1)
                self.register_buffer(f"{stream}_{name}", value, persistent=False)
        # convolutions and batch norm of small networks are about 1.5 times as fast on a CPU with channels last
        self.to(memory_format=torch.channels_last)
        self.train()

    def forward(self, rgb_BTCHW: Tensor, flow_BTCHW: Tensor) -> Output:
        """Scores of both streams.

        Args:
            rgb_BTCHW: (B, T, 3, H, W) uint8 RGB.
            flow_BTCHW: (B, T, 2 * flow_length, H, W) uint8, 128 = no motion, channels x1, y1, x2, y2, ...
        """
        B, T = rgb_BTCHW.shape[:2]
        rgb = self.rgb(_normalise(rgb_BTCHW.flatten(0, 1), self.rgb_mean, self.rgb_std))
        flow = self.flow(_normalise(flow_BTCHW.flatten(0, 1), self.flow_mean, self.flow_std))
        h, w = rgb.shape[-2:]
        rgb_BCN, flow_BCN = (x.unflatten(0, (B, T)).transpose(1, 2).flatten(2) for x in (rgb, flow))
        rgb_BCN, flow_BCN = self.connection(rgb_BCN, flow_BCN)
        pooled = (x.unflatten(2, (T, h * w)).mean(dim=3).transpose(1, 2) for x in (rgb_BCN, flow_BCN))
        return Output(*self.head(*(self.aggregate(x_BTC) for x_BTC in pooled)))

    def train(self, mode: bool = True) -> CCS:
        """Set training mode; with partial BN the frozen layers stay in evaluation mode and take no gradient."""
        super().train(mode)
        if self.partial_bn:
            for backbone in (self.rgb, self.flow):
                norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
                for norm in norms[1:]:
                    norm.eval()
                    norm.requires_grad_(False)
        return self


def _normalise(x_BCHW: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((x_BCHW / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
