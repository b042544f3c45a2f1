"""The networks of `ccs features`: inputs of a window in, a vector of each stream out.

Legend of shapes: B windows, S frames (and pairs) of a window, F frames or pairs of a snippet, T snippets, C channels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccs import trained
from ccs.clips.sampling import frame_indices, pair_indices, segment_starts
from ccs.device import choose_device
from ccs.features.inputs import STREAMS, OfI3D, OfTrained
from ccs.flow.settings import Parameters
from ccs.models import backbones
from ccs.models.network import Output, snippet_of
from ccs.stage import CcsError
from ccs.train import checkpoint

PUBLISHED = "i3d"  # of --weights: the published files
LAYERS = ("pooled", "z")


class I3D:
    """Both of I3D's streams, up to the global average of its last map: what its classifier sees.

    Attributes:
        streams: those that there are features of, and that it is shown.
        how: how its inputs are prepared.
        rows: which of a window's frames and pairs each stream sees.
        identity: what tells its weights from others.
    """

    def __init__(self, weights: Mapping[str, str], how: OfI3D, stack: int) -> None:
        if stack < 2:
            raise CcsError(f"--stack: I3D looks at a window of 2 frames or more, found {stack}")
        self.streams = self.shown = how.streams
        self.how = how
        self.rows = dict.fromkeys(how.streams, np.arange(stack))
        self.identity = {stream: _identity(weights[stream]) for stream in how.streams}
        self.layer = "pooled"
        self.device = choose_device()
        self.networks = {stream: self._build(stream, weights[stream], stack) for stream in how.streams}

    def _build(self, stream: str, weights: str, stack: int) -> nn.Module:
        try:
            network = backbones.build("i3d", weights=weights, flow_length=stack if stream == "flow" else None)
        except CcsError as error:  # which speaks of the configuration
            told = str(error).replace(", or set train.weights to none", "")
            raise CcsError(told.replace("train.weights", f"--weights, {stream}")) from error
        return network.eval().requires_grad_(False).to(self.device)

    def __call__(self, shown: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (B, 1024) of windows (B, S, C, H, W)."""
        return {stream: _pooled(self.networks[stream](x)) for stream, x in shown.items()}


def _pooled(x: Tensor) -> Tensor:
    """The average of maps (B, C, t, h, w) as published: over two neighbouring instants, then over all such."""
    return F.avg_pool3d(x, (min(2, x.shape[2]), *x.shape[3:]), stride=1).mean(dim=(2, 3, 4))


class Trained:
    """A network that `ccs train` has trained, to which a window is what a whole video is to `ccs evaluate`.

    It sees as many snippets of the window as it saw of a video in training, in one crop. The features are those that
    its aggregation makes of them (`pooled`), or the embedding that both streams share (`z`). Attributes as of `I3D`.
    """

    shown = STREAMS

    def __init__(self, path: str, streams: tuple[str, ...], stack: int, layer: str) -> None:
        path = trained.find(path)
        try:
            state = checkpoint.read(path)
        except CcsError as error:
            raise CcsError(f"{error} (--weights; files of I3D are given with a comma, as RGB.pt,FLOW.pt)") from error
        found = checkpoint.network(state)
        snippet = snippet_of(found.network)
        if stack < snippet.flow_length:
            raise CcsError(
                f"--stack: this network looks at {snippet.flow_length} neighbouring pairs of frames, expected as many "
                f"or more, found {stack}"
            )
        if layer == "z" and not found.network.shared:
            raise CcsError("--layer z: this network was trained without a shared block (shared: false): take pooled")
        self.streams, self.layer, self.identity = streams, layer, {"checkpoint": _identity(path)}
        self.how = OfTrained(trained.preparation(state, path), found.clips, snippet.flow_length)
        places = {"snippet": snippet, "num_frames": stack + 1}
        starts = segment_starts(stack + 1, segments=found.clips.segments, snippet=snippet)
        self.rows = {"rgb": frame_indices(starts, **places), "flow": pair_indices(starts, **places)}
        self.device = choose_device()
        self.network = found.model.requires_grad_(False).to(self.device)
        self._pooled: dict[str, Tensor] = {}
        for stream, module in (("rgb", self.network.aggregate_rgb), ("flow", self.network.aggregate_flow)):
            module.register_forward_hook(lambda _, inputs, output, stream=stream: self._keep(stream, output))

    def _keep(self, stream: str, pooled: Tensor) -> None:
        self._pooled[stream] = pooled

    def __call__(self, shown: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (B, D) of windows, (B, T, F, C, H, W) both."""
        output: Output = self.network(shown["rgb"], shown["flow"])
        found = {"rgb": output.z_rgb, "flow": output.z_flow} if self.layer == "z" else self._pooled
        return {stream: x for stream in self.streams if (x := found[stream]) is not None}


Network = I3D | Trained


def load(
    weights: str,
    streams: tuple[str, ...],
    stack: int,
    layer: str | None,
    given: Mapping[str, Any],
    parameters: Parameters | None,
) -> Network:
    """The network that `--weights` means.

    Args:
        weights: "i3d", or its files RGB.pt,FLOW.pt (the one of a stream that is not wanted may lack); else a
            checkpoint of `ccs train`, or the folder of a run.
        given: those fields of `OfI3D` that flags have given.
        parameters: of TV-L1, None where no flag has given any.

    Raises `CcsError` for weights that cannot be had or do not fit, and flags that are not for them.
    """
    torch.backends.cudnn.allow_tf32 = False  # with it features from a GPU would be off by 1e-3
    if weights != PUBLISHED and (os.path.exists(weights) or "," not in weights):  # a path may have a comma
        if not os.path.exists(weights):
            raise CcsError(
                f"--weights {weights}: expected i3d, two files of I3D with a comma between them (RGB.pt,FLOW.pt), a "
                "checkpoint of ccs train or the folder of a run, found nothing there: correct it"
            )
        network = Trained(weights, streams, stack, layer or "pooled")
        if flags := [f"--{name.replace('_', '-')}" for name in given] + ["the TV-L1 settings"] * bool(parameters):
            raise CcsError(
                f"{', '.join(flags)}: a checkpoint says how its videos are prepared; these are for I3D: leave them out"
            )
        return network
    if layer == "z":
        raise CcsError("--layer z: I3D has none, it is the embedding of networks that ccs train makes: leave it out")
    how = OfI3D(streams, **given, parameters=parameters or Parameters())
    if weights == PUBLISHED:
        return I3D(dict.fromkeys(STREAMS, "kinetics"), how, stack)
    return I3D(_files(weights, streams), how, stack)


def _files(weights: str, streams: tuple[str, ...]) -> dict[str, str]:
    """The files of I3D by stream; `CcsError` where one of `streams` has none."""
    files = weights.split(",")
    if len(files) != len(STREAMS):
        raise CcsError(
            f"--weights {weights}: expected the files of I3D as RGB.pt,FLOW.pt, with one comma, found {len(files) - 1}"
        )
    found = dict(zip(STREAMS, files, strict=True))
    for stream in streams:
        if not Path(found[stream]).is_file():
            what = f"no file {found[stream]}" if found[stream] else f"none of {stream}"
            raise CcsError(
                f"--weights {weights}: expected the files of I3D as RGB.pt,FLOW.pt, found {what}: give it, or leave "
                "out the stream (--streams)"
            )
    return found


def _identity(weights: str) -> str:
    """The beginning of a file's SHA-256; of other weights, and what is no file, the name."""
    if not Path(weights).is_file():
        return weights
    with open(weights, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def features(network: Network, streams: Mapping[str, np.ndarray], starts: Sequence[int]) -> dict[str, np.ndarray]:
    """float32 (B, D) of each stream: of windows that begin at `starts` in frames and pairs (N, C, H, W)."""
    with torch.inference_mode():
        shown = {}
        for stream in network.shown:
            images = torch.from_numpy(streams[stream]).to(network.device, non_blocking=True)
            rows = np.add.outer(np.asarray(starts), network.rows[stream])
            shown[stream] = images[torch.from_numpy(rows).to(network.device)]
        return {stream: x.float().cpu().numpy() for stream, x in network(shown).items()}


def settings(network: Network) -> dict[str, Any]:
    """What the features depend on, beside the windows, for records."""
    return {
        "network": PUBLISHED if isinstance(network, I3D) else "checkpoint",
        "weights": dict(network.identity),
        "layer": network.layer,
        **network.how.settings(),
    }


def uses_flow(network: Network) -> bool:
    """Whether flow is to be computed for it."""
    return "flow" in network.shown
