"""Connection blocks: how the last feature maps of the two streams speak to each other (Eq. 1-3, Fig. 3).

Input and output: the RGB and flow features of each video at its N positions, (B, C, T, h, w) or any (B, C, ...) both;
N = T*h*w, over all segments (and, in 3-D networks, instants) of one video.
"""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn.functional import scaled_dot_product_attention


class NonLocal(nn.Module):
    """The paper's block: embedded-Gaussian correlation of every RGB with every flow position of one video.

    A = softmax(phi(x_f)^T kappa(x_o) / sqrt(d)), d = C/2, and A^T with a softmax of its own for the flow stream:
    x_f' = x_f + W_f(A v_f), x_o' = x_o + W_o(A^T v_o); the values v are the stream's own features (`value="self"`,
    Eq. 3) or the other stream's (`value="other"`, cross-attention). The normalised, scaled form of Eq. 2 does not
    overflow, and positions of one video only keep a prediction independent of its batch. Batch norm after W whose
    `gamma` is 0 at the beginning makes the block start as the identity (Wang et al., Non-local neural networks, sec.
    4.1).
    """

    def __init__(self, num_features: int, *, value: str = "self", gamma: float = 0.0) -> None:
        super().__init__()
        self.value = value
        self.phi = nn.Conv1d(num_features, num_features // 2, 1)
        self.kappa = nn.Conv1d(num_features, num_features // 2, 1)
        self.out_rgb = _projection(num_features, num_features, gamma)
        self.out_flow = _projection(num_features, num_features, gamma)

    def forward(self, rgb: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        rgb_BCN, flow_BCN = rgb.flatten(2), flow.flatten(2)
        phi_BDN, kappa_BDN = self.phi(rgb_BCN), self.kappa(flow_BCN)
        v_rgb, v_flow = (rgb_BCN, flow_BCN) if self.value == "self" else (flow_BCN, rgb_BCN)
        y_rgb = self.out_rgb(_attend(phi_BDN, kappa_BDN, v_rgb))
        y_flow = self.out_flow(_attend(kappa_BDN, phi_BDN, v_flow))
        return rgb + y_rgb.view(rgb.shape), flow + y_flow.view(flow.shape)


class Concat(nn.Module):
    """Replacement of sec. 4.3: both streams' features at a position, concatenated and projected, are added to each."""

    def __init__(self, num_features: int, *, gamma: float = 0.0) -> None:
        super().__init__()
        self.out_rgb = _projection(2 * num_features, num_features, gamma)
        self.out_flow = _projection(2 * num_features, num_features, gamma)

    def forward(self, rgb: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        both = cat([rgb.flatten(2), flow.flatten(2)], dim=1)
        return rgb + self.out_rgb(both).view(rgb.shape), flow + self.out_flow(both).view(flow.shape)


class Average(nn.Module):
    """Replacement of sec. 4.3: both streams go on with the mean of the two. It has no parameters."""

    def forward(self, rgb: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        mean = (rgb + flow) / 2
        return mean, mean


class Separate(nn.Module):
    """No connection: the streams do not meet."""

    def forward(self, rgb: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        return rgb, flow


def build(kind: str, num_features: int, *, value: str = "self", gamma: float = 0.0) -> nn.Module:
    """The connection block `kind` (nonlocal, concat, average or none) for features of width `num_features`."""
    if kind == "nonlocal":
        return NonLocal(num_features, value=value, gamma=gamma)
    return {"concat": lambda: Concat(num_features, gamma=gamma), "average": Average, "none": Separate}[kind]()


def _attend(query_BDN: Tensor, key_BDN: Tensor, value_BCN: Tensor) -> Tensor:
    """Softmax(query^T key / sqrt(D)) applied to the values: (B, C, N).

    torch's fused attention, which keeps no N x N matrix, wants heads of one width, and each vector in one piece: the
    C = 2D values are two heads with the same query and key.
    """
    B, D, N = query_BDN.shape
    value_BHND = value_BCN.reshape(B, -1, D, N).transpose(2, 3).contiguous()
    heads = value_BHND.shape[1]
    query, key = (x.transpose(1, 2).contiguous()[:, None].expand(B, heads, N, D) for x in (query_BDN, key_BDN))
    return scaled_dot_product_attention(query, key, value_BHND).transpose(2, 3).reshape(B, heads * D, N)


def _projection(num_in: int, num_out: int, gamma: float) -> nn.Sequential:
    norm = nn.BatchNorm1d(num_out)
    nn.init.constant_(norm.weight, gamma)
    return nn.Sequential(nn.Conv1d(num_in, num_out, 1, bias=False), norm)
