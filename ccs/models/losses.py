"""The losses of CCS (Eq. 4-6): cross-modality triplets, discriminative embedding, cross entropy.

Pure functions of tensors. z is L2-normalised for the ranking losses only: margins of 0.3 and 0.8 on squared distances
have a meaning on the unit sphere (squared distances in 0..4), while cross entropy sees raw z through the classifier.
Labels are on the CPU, wherever the others are: what is counted and selected by them has its size there, and no step
waits for a GPU to tell it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, relu

from ccs.models.settings import LossSettings


class Losses(NamedTuple):
    """Scalars: `total` (Eq. 6) with gradient, its parts, and the share of triplets with a positive loss."""

    total: Tensor
    triplet: Tensor
    embedding: Tensor
    cross_entropy: Tensor
    active: Tensor


def ccs_loss(
    rgb: Tensor,
    flow: Tensor,
    z_rgb: Tensor | None,
    z_flow: Tensor | None,
    labels: Tensor,
    settings: LossSettings,
    *,
    share: float = 1.0,
) -> Losses:
    """L = lambda1 L1 + lambda2 L2 + L3 (Eq. 6).

    Args:
        rgb, flow: logits (B, num_classes) of the two streams.
        z_rgb, z_flow: embeddings (B, D) of the shared block; None (or `settings.ranking` false) leaves out L1 and L2.
        labels: (B,) int64, on the CPU.
        share: of lambda1 and lambda2 that is in force, 0..1.
    """
    target = moved(labels, rgb.device)
    L3 = cross_entropy(rgb, target) + cross_entropy(flow, target)
    if z_rgb is None or z_flow is None or not settings.ranking:
        zero = torch.zeros_like(L3)
        return Losses(L3, zero, zero, L3.detach(), zero)
    # distances in float32 also under autocast: hinges of small differences
    z_rgb, z_flow = normalize(z_rgb.float(), dim=1), normalize(z_flow.float(), dim=1)
    alpha1, alpha2, alpha3 = settings.alphas
    L1, active = cross_modality_triplet(
        z_rgb, z_flow, labels, margin=alpha1, triplet=settings.triplet, reduction=settings.reduction
    )
    of_rgb, of_flow = (
        discriminative_embedding(z, labels, intra=alpha2, inter=alpha3, reduction=settings.reduction)
        for z in (z_rgb, z_flow)
    )
    L2 = of_rgb + of_flow
    total = share * settings.lambdas[0] * L1 + share * settings.lambdas[1] * L2 + L3
    return Losses(total, L1.detach(), L2.detach(), L3.detach(), active)


def cross_modality_triplet(
    z_rgb: Tensor, z_flow: Tensor, labels: Tensor, *, margin: float, triplet: str = "hardest", reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """L1 (Eq. 4): anchors of one modality, positives and negatives of the other, both directions added.

    `hardest`: each anchor's farthest positive (its own video included) and nearest negative (batch-hard, Hermans et
    al. 2017, across modalities); `paired`: its own video as positive and the nearest negative; `all`: every positive
    with every negative. An anchor without a negative in the batch contributes 0.

    Args:
        z_rgb, z_flow: (B, D), row i of both from the same video.
        labels: (B,), on the CPU.

    Returns:
        The loss, and the share of triplets within the margin (0..1, no gradient).
    """
    of_one_class = labels[:, None] == labels[None, :]
    same = moved(of_one_class, z_rgb.device)
    distance = _squared_distances(z_rgb, z_flow)  # (rgb, flow)
    hinges = []
    for d in (distance, distance.T):  # rows are anchors
        if triplet == "all":
            violation = relu(d[:, :, None] - d[:, None, :] + margin)
            hinges.append(_selected(violation, of_one_class[:, :, None] & ~of_one_class[:, None, :]))
            continue
        positive = d.diagonal() if triplet == "paired" else d.masked_fill(~same, -torch.inf).amax(dim=1)
        negative = d.masked_fill(same, torch.inf).amin(dim=1)
        hinges.append(relu(positive - negative + margin))
    of_rgb, of_flow = (_reduce(hinge, reduction) for hinge in hinges)
    both = torch.cat(hinges).detach()
    return of_rgb + of_flow, (both > 0).float().mean() if both.numel() else both.new_zeros(())


def discriminative_embedding(
    z: Tensor, labels: Tensor, *, intra: float, inter: float, reduction: str = "mean"
) -> Tensor:
    """One modality's half of L2 (Eq. 5): samples near the mean of their class, class means apart.

    sum_i [ |z_i - m_c(i)|^2 - intra ]_+  +  sum over ordered pairs of classes [ inter - |m_c - m_c'|^2 ]_+, where m_c
    is the mean over the mini-batch, with gradient. `mean` divides each sum by its number of terms. Labels: on the CPU.
    """
    classes, index, count = labels.unique(return_inverse=True, return_counts=True)
    index, count = moved(index, z.device), moved(count.to(z.dtype), z.device)
    means = torch.zeros(len(classes), z.shape[1], dtype=z.dtype, device=z.device).index_add(0, index, z)
    means = means / count[:, None]
    compact = relu((z - means[index]).square().sum(dim=1) - intra)
    different = ~torch.eye(len(classes), dtype=torch.bool)
    apart = _selected(relu(inter - _squared_distances(means, means)), different)
    return _reduce(compact, reduction) + _reduce(apart, reduction)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None, :] - b[None, :, :]).square().sum(dim=2)


def _selected(x: Tensor, where: Tensor) -> Tensor:
    """x[where], with `where` on the CPU."""
    return x.flatten()[moved(where.flatten().nonzero()[:, 0], x.device)]


def moved(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`, which nothing waits for: from memory that is not pinned a copy may."""
    return (x.pin_memory() if device.type == "cuda" and not x.is_pinned() else x).to(device, non_blocking=True)


def _reduce(x: Tensor, reduction: str) -> Tensor:
    return x.sum() if reduction == "sum" or x.numel() == 0 else x.mean()
