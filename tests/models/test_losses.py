"""The losses against loops written from the equations, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ccs.models.losses import LossSettings, ccs_loss, cross_modality_triplet, discriminative_embedding
from ccs.stage import CcsError

LABELS = torch.tensor([0, 0, 0, 2, 2, 5, 5, 5, 1])


def unit(seed: int, rows: int, width: int = 6) -> torch.Tensor:
    """Unit vectors around one direction per class, near enough to each other that hinges are on and off."""
    x = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = 0.4 * x + torch.eye(width, dtype=torch.float64)[LABELS[:rows]]
    return x / x.norm(dim=1, keepdim=True)


def squared(a, b) -> float:
    return sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))


def triplet_by_loops(z_rgb, z_flow, labels, margin, triplet, reduction):
    """Eq. 4: one list of hinges per direction."""
    total, active = 0.0, []
    for anchors, others in ((z_rgb, z_flow), (z_flow, z_rgb)):
        hinges = []
        for i in range(len(labels)):
            positives = [squared(anchors[i], others[j]) for j in range(len(labels)) if labels[j] == labels[i]]
            negatives = [squared(anchors[i], others[j]) for j in range(len(labels)) if labels[j] != labels[i]]
            if triplet == "all":
                hinges += [max(p - n + margin, 0) for p in positives for n in negatives]
            else:
                p = max(positives) if triplet == "hardest" else squared(anchors[i], others[i])
                hinges.append(max(p - min(negatives), -margin) + margin if negatives else 0.0)
        total += sum(hinges) / (len(hinges) if reduction == "mean" else 1)
        active += [hinge > 0 for hinge in hinges]
    return total, sum(active) / len(active)


@pytest.mark.parametrize("triplet", ["hardest", "paired", "all"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_triplet_loss_is_equation_4(triplet, reduction):
    z_rgb, z_flow = unit(0, len(LABELS)), unit(1, len(LABELS))
    loss, active = cross_modality_triplet(z_rgb, z_flow, LABELS, margin=0.3, triplet=triplet, reduction=reduction)
    expected, share = triplet_by_loops(z_rgb, z_flow, LABELS.tolist(), 0.3, triplet, reduction)
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    assert float(active) == pytest.approx(share)
    assert 0 < share < 1  # otherwise this test would not see the hinge


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_embedding_loss_is_equation_5(reduction):
    z = unit(2, len(LABELS))
    labels = LABELS.tolist()
    mean = {
        c: [sum(z[i][d].item() for i in range(len(labels)) if labels[i] == c) / labels.count(c) for d in range(6)]
        for c in set(labels)
    }
    intra = [max(squared(z[i], torch.tensor(mean[labels[i]])) - 0.3, 0) for i in range(len(labels))]
    inter = [max(1.6 - squared(torch.tensor(mean[a]), torch.tensor(mean[b])), 0) for a in mean for b in mean if a != b]
    assert any(intra)
    assert any(inter)
    expected = sum(sum(terms) / (len(terms) if reduction == "mean" else 1) for terms in (intra, inter))
    loss = discriminative_embedding(z, LABELS, intra=0.3, inter=1.6, reduction=reduction)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_total_is_equation_6_and_ranking_sees_directions_only():
    logits = [torch.randn(9, 7, generator=torch.Generator().manual_seed(s)) for s in (3, 4)]
    z_rgb, z_flow = unit(5, 9).float(), unit(6, 9).float()
    settings = LossSettings(lambdas=(0.5, 0.25))
    losses = ccs_loss(*logits, z_rgb, z_flow, LABELS, settings)
    L1 = triplet_by_loops(z_rgb, z_flow, LABELS.tolist(), 0.3, "hardest", "mean")[0]
    L2 = sum(discriminative_embedding(z, LABELS, intra=0.3, inter=0.8) for z in (z_rgb, z_flow))
    L3 = -sum(x.log_softmax(1)[i, c] for x in logits for i, c in enumerate(LABELS)) / 9
    assert float(losses.total) == pytest.approx(0.5 * L1 + 0.25 * float(L2) + float(L3), rel=1e-5)
    scaled = ccs_loss(*logits, 7 * z_rgb, 0.1 * z_flow, LABELS, settings)
    assert float(scaled.total) == pytest.approx(float(losses.total), rel=1e-5)
    assert ccs_loss(*logits, None, None, LABELS, LossSettings(ranking=False)).total == losses.cross_entropy


class Waiting(TorchDispatchMode):
    """Refuses what makes the CPU wait for another device: to learn the size of a result, or a value."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        names = ("nonzero", "unique", "bincount", "_local_scalar_dense", "masked_select", "equal")
        elsewhere = any(isinstance(arg, torch.Tensor) and arg.device.type != "cpu" for arg in args)
        assert not (elsewhere and any(name in func.name() for name in names)), func.name()
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("triplet", ["hardest", "paired", "all"])
def test_no_loss_waits_for_the_device_that_computes_it(triplet):
    """On a device without values every result must have its size from shapes and from labels on the CPU."""
    shapes = ((9, 7), (9, 7), (9, 6), (9, 6))
    with Waiting():
        parts = [torch.zeros(shape, device="meta", requires_grad=True) for shape in shapes]
        losses = ccs_loss(*parts, LABELS, LossSettings(triplet=triplet))
        losses.total.backward()
    assert all(part.grad is not None for part in parts)
    with pytest.raises(AssertionError, match=r"unique|nonzero"), Waiting():
        ccs_loss(*parts, LABELS.to("meta"), LossSettings(triplet=triplet))


@pytest.mark.parametrize("triplet", ["hardest", "paired", "all"])
def test_gradients(triplet):
    z = [unit(s, len(LABELS)).requires_grad_() for s in (7, 8)]
    assert torch.autograd.gradcheck(
        lambda a, b: cross_modality_triplet(a, b, LABELS, margin=0.3, triplet=triplet)[0], z
    )
    assert torch.autograd.gradcheck(lambda a: discriminative_embedding(a, LABELS, intra=0.3, inter=0.8), z[:1])


def test_one_class_or_one_video_is_finite():
    z = unit(9, 4)
    for labels in (torch.zeros(4, dtype=torch.int64), torch.arange(4)):
        loss, active = cross_modality_triplet(z, z.roll(1, 0), labels, margin=0.3)
        assert math.isfinite(loss)
        assert math.isfinite(active)
        assert math.isfinite(discriminative_embedding(z, labels, intra=0.3, inter=0.8))


def test_settings_refuse_nonsense():
    with pytest.raises(CcsError, match="alphas"):
        LossSettings(alphas=(0.3, 0.3))
