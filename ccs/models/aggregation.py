"""Aggregation of the segments of a video (the consensus of TSN; Fig. 5a), one module a stream: (B, T, C) -> (B, D).

`mean` and `max` take any number of segments. The others are made for the K segments of training; of T = m K segments
they take m interleaved groups of K, each of which spans the video, and give the mean of the groups' results.
"""

from __future__ import annotations

from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

from ccs.stage import CcsError

RELATION_WIDTH = 256  # of the features that relations reason on (Zhou et al., ECCV 2018, their code's img_feature_dim)


class Mean(nn.Module):
    """Element-wise average over segments, the paper's best."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.mean(dim=1)


class Max(nn.Module):
    """Element-wise maximum over segments."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.amax(dim=1)


ELEMENTWISE = {"mean": Mean, "max": Max}  # of any number of segments


class Product(nn.Module):
    """Element-wise multiplication over segments (sec. 4.3), in float32: products of small numbers vanish in halves."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.float().prod(dim=1)


class Concat(nn.Module):
    """The segments' features one after the other (sec. 4.3): D = T C."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.flatten(1)


class Relations(nn.Module):
    """Temporal relations between n ordered segments (Zhou et al., Temporal Relational Reasoning in Videos, Eq. 1-3).

    MT_N = T_2 + ... + T_N (multi-scale) or T_N alone, with T_n the mean of g_n(f_i1, .., f_in) over all i1 < .. < in;
    g_n = ReLU(W_n [ReLU(f_i1); ..; ReLU(f_in)] + b_n) on features reduced to D = 256, dropped out before that and
    nowhere else, as in their code. The paper draws three tuples a scale at random instead; W_n of a concatenation is
    the sum of its blocks' products, so that all tuples cost little more, and a prediction is a function of its video
    alone. The classifier is the head's.
    """

    def __init__(self, num_features: int, segments: int, *, multiscale: bool, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.segments = segments
        self.scales = tuple(range(2, segments + 1)) if multiscale else (segments,)
        self.reduce = nn.Linear(num_features, RELATION_WIDTH)
        self.relate = nn.ModuleList(nn.Linear(n * RELATION_WIDTH, RELATION_WIDTH) for n in self.scales)
        for n in self.scales:
            tuples = torch.tensor(list(combinations(range(segments), n)))
            self.register_buffer(f"tuples_{n}", tuples, persistent=False)  # (number, n)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTD = self.reduce(self.dropout(x_BTC)).relu()
        of_scales = []
        # torch's types do not say what a ModuleList holds
        for n, linear in zip(self.scales, cast("list[nn.Linear]", self.relate), strict=True):
            blocks = linear.weight.unflatten(1, (n, RELATION_WIDTH))  # of the n places in a tuple
            product = torch.einsum("btd,okd->bkto", x_BTD, blocks)
            tuples = getattr(self, f"tuples_{n}")
            places = torch.arange(n, device=tuples.device)
            relations = product[:, places, tuples].sum(dim=2) + linear.bias  # (B, tuples, D)
            of_scales.append(relations.relu().mean(dim=1))
        return sum(of_scales[1:], start=of_scales[0])


class Grouped(nn.Module):
    """An aggregation of K segments applied to m interleaved groups of them, and the mean over the groups."""

    def __init__(self, of: nn.Module, segments: int) -> None:
        super().__init__()
        self.of, self.segments = of, segments

    def forward(self, x_BTC: Tensor) -> Tensor:
        B, T = x_BTC.shape[:2]
        if T % self.segments:
            raise CcsError(
                f"this aggregation takes groups of {self.segments} segments, as in training; {T} are no multiple of it"
            )
        groups = x_BTC.unflatten(1, (self.segments, -1)).transpose(1, 2)  # (B, m, K, C)
        return self.of(groups.flatten(0, 1)).unflatten(0, (B, -1)).mean(dim=1)


def build(kind: str, num_features: int, *, segments: int, dropout: float = 0.0) -> tuple[nn.Module, int]:
    """The aggregation `kind` (see `NetworkSettings`) of features of width `num_features`, and the width D of a result.

    Args:
        segments: K, the segments of a training clip.
        dropout: of the features, for kinds in `ccs.models.settings.BY_RELATIONS`; after the others the head drops out.
    """
    if kind in ELEMENTWISE:
        return ELEMENTWISE[kind](), num_features
    if kind == "product":
        return Grouped(Product(), segments), num_features
    if kind == "concat":
        return Grouped(Concat(), segments), segments * num_features
    relations = Relations(num_features, segments, multiscale=kind == "trn_multiscale", dropout=dropout)
    return Grouped(relations, segments), RELATION_WIDTH
