"""The Cooperative Cross-Stream network (arXiv 1908.10136): two backbones, a connection block, a shared block.

Legend of shape suffixes: B videos, T segments, F frames or flow pairs of a snippet, C channels, H W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from ccs.models import aggregation, backbones, connection, shared
from ccs.models.settings import BY_RELATIONS, NetworkSettings
from ccs.models.snippet import Snippet


def snippet_of(settings: NetworkSettings) -> Snippet:
    """What the network sees of a segment."""
    return Snippet(settings.flow_length, all_frames=backbones.is_3d(settings.backbone))


def weights_of_streams(settings: NetworkSettings) -> tuple[str, str]:
    """Of RGB and of flow."""
    return settings.weights, settings.weights if settings.weights_flow == "same" else settings.weights_flow


class Output(NamedTuple):
    """Logits (B, num_classes) of both streams; z (B, embedding) of both, None without a shared block."""

    rgb: Tensor
    flow: Tensor
    z_rgb: Tensor | None
    z_flow: Tensor | None


class CCS(nn.Module):
    """Two streams over T segments of a video, each segment a snippet: RGB frames and a stack of flow pairs.

    Args:
        num_classes: number of action classes.
        settings: see `NetworkSettings`.
        segments: K, the segments of a training clip; aggregations other than mean and max are made for so many.
        load_weights: False builds the same network without reading pretrained weights, for a checkpoint to fill.
    """

    def __init__(
        self, num_classes: int, settings: NetworkSettings, *, segments: int, load_weights: bool = True
    ) -> None:
        super().__init__()
        weights = weights_of_streams(settings)
        self.pretrained = [each != "none" for each in weights]  # of RGB and of flow
        self.partial_bn = [settings.partial_bn and each for each in self.pretrained]
        build = functools.partial(backbones.build, settings.backbone, load_weights=load_weights)
        self.rgb, self.flow = build(weights=weights[0]), build(weights=weights[1], flow_length=settings.flow_length)
        num_features = self.rgb.num_features
        self.connection = connection.build(
            settings.connection, num_features, value=settings.connection_value, gamma=settings.connection_gamma
        )
        within, dropout = (0.0, 0.0), settings.dropout
        if settings.aggregation in BY_RELATIONS:
            within, dropout = dropout, within
        (self.aggregate_rgb, width), (self.aggregate_flow, _) = (
            aggregation.build(settings.aggregation, num_features, segments=segments, dropout=each) for each in within
        )
        self.head: nn.Module
        if settings.shared:
            self.head = shared.Shared(width, num_classes, embedding=settings.embedding, dropout=dropout)
        else:
            self.head = shared.Separate(width, num_classes, dropout=dropout)
        self.train()

    def forward(self, rgb_BTFCHW: Tensor, flow_BTFCHW: Tensor) -> Output:
        """Scores of both streams.

        Args:
            rgb_BTFCHW: (B, T, F, 3, H, W) uint8 RGB; F is 1, or flow_length for 3-D backbones.
            flow_BTFCHW: (B, T, flow_length, 2, H, W) uint8 x and y, 128 = no motion.
        """
        T = rgb_BTFCHW.shape[1]
        rgb, flow = self.connection(_features(self.rgb, rgb_BTFCHW), _features(self.flow, flow_BTFCHW))
        # over height, width and, in 3-D networks, the instants of a snippet
        rgb_BTC, flow_BTC = (x.unflatten(2, (T, -1)).mean(dim=(3, 4, 5)).transpose(1, 2) for x in (rgb, flow))
        return Output(*self.head(self.aggregate_rgb(rgb_BTC), self.aggregate_flow(flow_BTC)))

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the backbones that start from weights; all others are new."""
        for backbone, pretrained in zip((self.rgb, self.flow), self.pretrained, strict=True):
            if pretrained:
                yield from backbone.parameters()

    def trained_together(self) -> list[list[nn.Parameter]]:
        """All parameters; or each stream's apart, where neither is trained on anything of the other.

        What still joins those: early stopping by RGB+Flow (`patience`), and steps of fp16, skipped for both streams
        where a gradient of one was infinite.
        """
        if not (isinstance(self.connection, connection.Separate) and isinstance(self.head, shared.Separate)):
            return [list(self.parameters())]
        streams = (
            (self.rgb, self.aggregate_rgb, self.head.rgb),
            (self.flow, self.aggregate_flow, self.head.flow),
        )
        return [[parameter for part in parts for parameter in part.parameters()] for parts in streams]

    def train(self, mode: bool = True) -> CCS:
        """Set training mode; with partial BN the frozen layers stay in evaluation mode and take no gradient."""
        super().train(mode)
        for backbone, partial in zip((self.rgb, self.flow), self.partial_bn, strict=True):
            norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            for norm in norms[1:] if partial else ():
                norm.eval()
                norm.requires_grad_(False)
        return self


def _features(backbone: backbones.Backbone, x_BTFCHW: Tensor) -> Tensor:
    """The last maps of all segments of each video, (B, C, T*t, h, w)."""
    x = backbone(x_BTFCHW.flatten(0, 1)).unflatten(0, x_BTFCHW.shape[:2])
    return x.transpose(1, 2).flatten(2, 3)
