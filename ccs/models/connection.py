"""Connection blocks: how the last feature maps of the two streams speak to each other (Eq. 1-3, Fig. 3).

Input and output: the RGB and flow features of each video at its N = T*h*w positions, (B, C, N) both.
"""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn.functional import scaled_dot_product_attention


class NonLocal(nn.Module):
    """The paper's block: embedded-Gaussian correlation of every RGB with every flow position of one video.

    A = softmax(phi(x_f)^T kappa(x_o) / sqrt(d)), d = C/2, and A^T with a softmax of its own for the flow stream:
    x_f' = x_f + W_f(A v_f), x_o' = x_o + W_o(A^T v_o); the values v are the stream's own features (`value="self"`,
    Eq. 3) or the other stream's (`value="other"`, cross-attention). The normalised, scaled form of Eq. 2 does not
    overflow, and positions of one video only keep a prediction independent of its batch. Batch norm with gamma 0 after
    W makes the block start as the identity (Wang et al., Non-local neural networks, sec. 4.1).
    """

    def __init__(self, num_features: int, *, value: str = "self") -> None:
        super().__init__()
        self.value = value
        self.phi = nn.Conv1d(num_features, num_features // 2, 1)
        self.kappa = nn.Conv1d(num_features, num_features // 2, 1)
        self.out_rgb = _projection(num_features, num_features)
        self.out_flow = _projection(num_features, num_features)

    def forward(self, rgb_BCN: Tensor, flow_BCN: Tensor) -> tuple[Tensor, Tensor]:
        phi_BND = self.phi(rgb_BCN).transpose(1, 2)
        kappa_BND = self.kappa(flow_BCN).transpose(1, 2)
        own, other = rgb_BCN.transpose(1, 2), flow_BCN.transpose(1, 2)
        v_rgb, v_flow = (own, other) if self.value == "self" else (other, own)
        y_rgb = scaled_dot_product_attention(phi_BND, kappa_BND, v_rgb).transpose(1, 2)
        y_flow = scaled_dot_product_attention(kappa_BND, phi_BND, v_flow).transpose(1, 2)
        return rgb_BCN + self.out_rgb(y_rgb), flow_BCN + self.out_flow(y_flow)


class Concat(nn.Module):
    """Replacement of sec. 4.3: both streams' features at a position, concatenated and projected, are added to each."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.out_rgb = _projection(2 * num_features, num_features)
        self.out_flow = _projection(2 * num_features, num_features)

    def forward(self, rgb_BCN: Tensor, flow_BCN: Tensor) -> tuple[Tensor, Tensor]:
        both = cat([rgb_BCN, flow_BCN], dim=1)
        return rgb_BCN + self.out_rgb(both), flow_BCN + self.out_flow(both)


class Average(nn.Module):
    """Replacement of sec. 4.3: both streams go on with the mean of the two. It has no parameters."""

    def forward(self, rgb_BCN: Tensor, flow_BCN: Tensor) -> tuple[Tensor, Tensor]:
        mean = (rgb_BCN + flow_BCN) / 2
        return mean, mean


class Separate(nn.Module):
    """No connection: the streams do not meet."""

    def forward(self, rgb_BCN: Tensor, flow_BCN: Tensor) -> tuple[Tensor, Tensor]:
        return rgb_BCN, flow_BCN


def build(kind: str, num_features: int, *, value: str = "self") -> nn.Module:
    """The connection block `kind` (nonlocal, concat, average or none) for features of width `num_features`."""
    if kind == "nonlocal":
        return NonLocal(num_features, value=value)
    return {"concat": lambda: Concat(num_features), "average": Average, "none": Separate}[kind]()


def _projection(num_in: int, num_out: int) -> nn.Sequential:
    norm = nn.BatchNorm1d(num_out)
    nn.init.zeros_(norm.weight)
    return nn.Sequential(nn.Conv1d(num_in, num_out, 1, bias=False), norm)
