"""What a backbone is to the rest of the code: a snippet of frames in 0..255 goes in, a map of features comes out.

Legend of shapes: B snippets, F frames (or flow pairs) of a snippet, C colour channels, H W pixels, t h w of the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """A network cut off before its global pooling, with the width, input size and normalisation of its weights.

    Attributes:
        body: the network, with the published key names below it.
        num_features: channels of the last feature map.
        is_3d: whether it convolves over time.
        input_size: side in pixels of the square that its published weights take.
        mean, std: normalisation per channel of the input, in its order (R, G, B or x, y), for values in 0..255.

    Args:
        bgr: the body wants the channels in the reverse order.
        num_frames: frames (RGB: 1) or flow pairs that a 2-D body takes, stacked as channels; a 3-D body takes any.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        num_features: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        bgr: bool = False,
        is_3d: bool = False,
        num_frames: int = 1,
        input_size: int = 224,
    ) -> None:
        super().__init__()
        # convolutions and batch norm of small 2-D networks are about 1.5 times as fast on a CPU with channels last
        self.body = body if is_3d else body.to(memory_format=torch.channels_last)
        self.num_features, self.is_3d, self.input_size = num_features, is_3d, input_size
        self.mean, self.std = mean, std
        self._bgr, self._num_frames = bgr, num_frames
        for name, values in (("_mean", mean), ("_std", std)):
            ordered = values[::-1] if bgr else values
            self.register_buffer(name, torch.tensor(ordered, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The feature map of each snippet.

        Args:
            x: (B, F, C, H, W), uint8 or float in 0..255: F frames with C = 3 (R, G, B), or F pairs of flow with
                C = 2 (x, y; 128 = no motion). 2-D networks take one RGB frame, or `flow_length` pairs, which they see
                as channels x1, y1, x2, y2, ...

        Returns:
            (B, num_features, t, h, w); t = 1 for 2-D networks.

        Raises:
            ValueError: the input has another number of channels or frames.
        """
        num_frames, num_channels = x.shape[1:3]
        if num_channels != len(self.mean) or (num_frames != self._num_frames and not self.is_3d):
            wanted = f"(B, {'F' if self.is_3d else self._num_frames}, {len(self.mean)}, H, W)"
            raise ValueError(f"this backbone takes {wanted}, found {tuple(x.shape)}")
        if self._bgr:
            x = x.flip(2)
        x = (x - self._mean) / self._std
        if self.is_3d:
            # 1.3 to 2 times as fast on a CPU here too; a GPU's kernels for halves are made for it (not measured)
            return self.body(x.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d))
        return self.body(x.flatten(1, 2).contiguous(memory_format=torch.channels_last)).unsqueeze(2)
