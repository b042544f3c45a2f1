"""Pretrained weights: from a name or a file into the body of a backbone, checked to the last key."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ccs.models.catalogue import WEIGHTS
from ccs.stage import CcsError

PREFIXES = ("module.", "base_model.")  # of checkpoints of DataParallel and, inside it, of TSN
TSN_CLASSIFIER = "new_fc."
MOMENTUM = 0.1  # of statistics that begin anew: torch's own


def load(
    body: nn.Module,
    weights: str,
    *,
    name: str,
    published: Callable[[], dict[str, Tensor]],
    classifier: tuple[str, ...],
) -> None:
    """Fill `body` with `weights`; every tensor of it, or an error.

    A file for RGB (3 input channels) also fits a flow stream: its first kernels are averaged over the colours and
    repeated (cross-modality initialisation; Wang et al., ECCV 2016, sec. 3.2), and the running statistics of its first
    batch norm begin anew, with `MOMENTUM`. One with the stream's own number of input channels is loaded as it is.
    Tensors of shape (1, n) are read as (n,), and batch norm's `num_batches_tracked` may be missing; old files are so.

    Args:
        body: the network without its classifier, built for the stream's number of input channels.
        weights: `none`: leave `body` random; one of the names `WEIGHTS`: what `published` returns; otherwise the path
            of a state dict, see `read`.
        name: of the network, for messages.
        published: gets the published weights, with the keys of `body`.
        classifier: how the keys of the file begin that are not used, whatever the number of classes.

    Raises:
        CcsError: no such file, not a state dict, one that does not fit (the keys and shapes are listed), or numbers
            that are not finite.
    """
    if weights == "none":
        return
    state = published() if weights in WEIGHTS else read(Path(weights), name)
    expected = body.state_dict()
    state = {k: v for k, v in state.items() if k in expected or not k.startswith((*classifier, TSN_CLASSIFIER))}
    for key, value in state.items():
        if key in expected and value.shape == (1, *expected[key].shape) and expected[key].ndim == 1:
            state[key] = value[0]
    first = f"{first_convolution(body)[0]}.weight"
    in_channels = expected[first].shape[1]
    if first in state and state[first].ndim == expected[first].ndim and state[first].shape[1] == 3 != in_channels:
        state[first] = state[first].mean(dim=1, keepdim=True).repeat_interleave(in_channels, dim=1)
        for name, norm in _first_norm(body):
            # colours vary several hundred times as much as flow there, and a running average would keep 0.9^n of it
            # after n steps: 10 times too much after 40. Of zeros nothing is kept, and it is too small by 0.9^n itself;
            # by the momentum of some networks, 0.01 or 0.0003, that would be for thousands of steps
            norm.momentum = MOMENTUM
            for key in (f"{name}.running_mean", f"{name}.running_var"):
                state[key] = torch.zeros_like(expected[key])

    missing = [key for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    if missing or unexpected or shapes:
        fitting = "3" if in_channels == 3 else f"3 (RGB) or {in_channels} (flow)"
        raise CcsError(
            f"train.weights: {weights} does not fit {name}. Missing: {_some(missing)}. "
            f"Unexpected: {_some(unexpected)}. Other shapes: {_some(shapes)}. "
            f"Give weights of this network with {fitting} input channels, or set train.weights to none"
        )
    body.load_state_dict(state, strict=False)
    if odd := [key for key, value in body.state_dict().items() if not torch.isfinite(value).all()]:
        raise CcsError(
            f"train.weights: {weights} has NaN or infinity, as the float32 that {name} computes with, in {_some(odd)}: "
            "the file is damaged or of a training that diverged. Give other weights"
        )


def first_convolution(body: nn.Module) -> tuple[str, nn.Conv2d | nn.Conv3d]:
    """The name and the module of the convolution that sees the input."""
    return next((name, module) for name, module in body.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d))


def _first_norm(body: nn.Module) -> list[tuple[str, nn.modules.batchnorm._BatchNorm]]:
    """The first batch norm with its name, if there is any."""
    norms = ((name, each) for name, each in body.named_modules() if isinstance(each, nn.modules.batchnorm._BatchNorm))
    return list(itertools.islice(norms, 1))


def read(path: Path, name: str) -> dict[str, Tensor]:
    """The state dict at `path`, plain or as the entry `state_dict`, its keys without the prefixes `PREFIXES`.

    Raises:
        CcsError: no such file, or not a state dict; `name` is the network's.
    """
    if not path.is_file():
        raise CcsError(
            f"train.weights: {path} is no file; expected none, {', '.join(WEIGHTS)} or the path of a state dict of "
            f"{name}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no checkpoint makes the unpickler raise
        raise CcsError(
            f"train.weights: {path} cannot be read as a PyTorch file of tensors alone; expected a state dict of "
            f"{name}. Save it again with torch.save(model.state_dict(), ...). The reason: {error}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        found = f"a {type(state).__name__}"
    else:
        found = "entries that are no tensors: " + _some([str(k) for k, v in state.items() if not isinstance(v, Tensor)])
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise CcsError(
            f"train.weights: {path} holds {found}; expected a state dict of {name} (names and tensors), plain or as "
            f"its entry state_dict. Save one with torch.save(model.state_dict(), ...)"
        )
    for prefix in PREFIXES:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _some(keys: list[str], limit: int = 5) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "") if keys else "none"
