"""Training in several processes, a GPU each: what makes them compute what one process would with the whole batch.

Every rank has its part of each batch, in order, and the losses see all of it: `gather` puts the parts together again.
In one process everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm  # noqa: PLC2701 - torch has no public name for it

T = TypeVar("T")


def num_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """The ranks' parts (n, ...), of one size, as one batch (ranks * n, ...); only this rank's part has a gradient.

    A loss of the gathered batch, times the number of ranks, has after the mean over ranks that DDP takes of gradients
    the very gradient of the whole: each rank contributes the derivatives by its own part.
    """
    if num_processes() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(num_processes())]
    distributed.all_gather(parts, x.detach().contiguous())
    parts[distributed.get_rank()] = x
    return torch.cat(parts)


def gather_objects(value: T) -> list[T]:
    """Every rank's `value`, in order."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Come back when every rank has come here: who ends first has the others killed, in the middle of writing."""
    if num_processes() > 1:
        distributed.barrier()


def any_rank(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """For each flag whether it is set on any rank: the same answers on all of them."""
    if num_processes() == 1:
        return list(flags)
    counts = torch.tensor(flags, dtype=torch.float32, device=device)
    distributed.all_reduce(counts)
    return (counts > 0).tolist()


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """`model` with batch norm over the batches of all ranks; the names in its state dict stay."""
    if num_processes() == 1:
        return model
    if torch.cuda.is_available():
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _SyncBatchNorm.like(child))
    return model


class _Sum(torch.autograd.Function):
    """The sum over ranks; what each of them does with it adds up in the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch's types want any number of gradients; there is one for each output
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class _SyncBatchNorm(_BatchNorm):
    """torch's SyncBatchNorm is for GPUs alone; this is for any device, and no faster than it has to be."""

    @classmethod
    def like(cls, norm: _BatchNorm) -> _SyncBatchNorm:
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.to(norm.running_mean)
        made.load_state_dict(norm.state_dict())
        made.train(norm.training)
        for name, parameter in norm.named_parameters():
            getattr(made, name).requires_grad_(parameter.requires_grad)
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        assert self.running_mean is not None  # backbones' batch norm keeps statistics
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = input.to(self.running_mean.dtype)  # sums in bf16 would be worth little
        others = [dim for dim in range(x.dim()) if dim != 1]
        count = x.numel() // x.shape[1] * num_processes()  # ranks have parts of one size
        mean = _Sum.apply(x.sum(others)) / count
        centred = x - _per_channel(mean, x)
        var = _Sum.apply(centred.square().sum(others)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * count / (count - 1), momentum)
        scale = (var + self.eps).rsqrt() * self.weight
        return (centred * _per_channel(scale, x) + _per_channel(self.bias, x)).to(input.dtype)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))
