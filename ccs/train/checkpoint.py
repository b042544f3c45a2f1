"""Checkpoints of training: what one holds, how it is written and how it is checked when it is read."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from accelerate import Accelerator

from ccs.clips.settings import ClipSettings
from ccs.models import backbones
from ccs.models.network import CCS, snippet_of
from ccs.models.settings import ANY_NUMBER, BY_RELATIONS, NetworkSettings
from ccs.stage import CcsError, atomic
from ccs.train.settings import EvaluateSettings

FORMAT = 2  # 1 had no preparation, and other names of weights
KEYS = ("format", "model", "optimizer", "schedule", "epoch", "random", "dataset", "split", "run", "seed", "classes")
KEYS += ("videos", "bound", "preparation", "settings")


class _Sink:
    """A file for `torch.save`, whose archive reports what a full disk refuses as a fault of its own: it is not told."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        self._try(lambda: self._file.write(data))
        return len(data)

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            if not self.error:
                act()
        except OSError as error:
            self.error = error


def write(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them, at least `KEYS`) as one file."""
    with atomic(path) as part, open(part, "wb") as file:
        sink = _Sink(file)
        torch.save({"format": FORMAT, **state}, cast("BinaryIO", sink))  # it asks for no more of a file
        if sink.error:
            raise sink.error


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, executing nothing in it.

    Raises:
        CcsError: no such file, not a checkpoint of ccs, of another format, or with weights that are not finite.
    """
    if not Path(path).is_file():
        raise CcsError(f"{path}: no such checkpoint; train one first (rule train, or `ccs train --help`)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CcsError(
            f"{path}: expected a checkpoint of ccs train, found a file that cannot be read as one "
            f"({type(error).__name__}); give the checkpoint.pt of a run"
        ) from error
    if isinstance(state, dict) and state.get("format", FORMAT) != FORMAT:
        raise CcsError(f"{path}: checkpoint format {state['format']}, this version reads {FORMAT}; train again")
    missing = [key for key in KEYS if key not in state] if isinstance(state, dict) else list(KEYS)
    if missing:
        raise CcsError(f"{path}: not a checkpoint of ccs, it lacks {', '.join(missing)}; give one that ccs train wrote")
    _check(path, state)
    return state


def _check(path: str | Path, state: Mapping[str, Any]) -> None:
    """What is used before the network is built must be what `write` was given."""
    classes, bound, model = state["classes"], state["bound"], state["model"]
    right = {
        **{key: isinstance(state[key], str) for key in ("dataset", "run", "videos", "settings")},
        **{key: type(state[key]) is int for key in ("split", "seed")},
        "classes": isinstance(classes, list) and len(classes) > 0 and all(isinstance(name, str) for name in classes),
        "bound": type(bound) in (int, float) and math.isfinite(bound) and bound > 0,
        "preparation": isinstance(state["preparation"], dict),
        "model": isinstance(model, dict) and all(isinstance(value, torch.Tensor) for value in model.values()),
    }
    if wrong := [key for key, is_right in right.items() if not is_right]:
        found = "" if wrong[0] == "model" else f" ({state[wrong[0]]!r:.80})"
        raise CcsError(
            f"{path}: not a checkpoint of ccs: another {', '.join(wrong)} than training writes{found}; give one that "
            "ccs train wrote"
        )
    if odd := [name for name, value in model.items() if not torch.isfinite(value).all()]:
        raise CcsError(
            f"{path}: the weights have NaN or infinity in {len(odd)} of {len(model)} tensors, first in {odd[0]}: its "
            "training has diverged, or the file was changed; train again"
        )


class TrainedNetwork(NamedTuple):
    """A trained network in evaluation mode, on the CPU, and the settings of its run."""

    model: CCS
    network: NetworkSettings
    clips: ClipSettings
    settings: dict[str, Any]  # all of them, by group


def network(state: Mapping[str, Any]) -> TrainedNetwork:
    """The network of a checkpoint that `read` gave.

    Raises:
        CcsError: its settings or weights are not those of this version's networks.
    """
    try:
        settings = json.loads(state["settings"])
        network, clips = NetworkSettings(**settings["network"]), ClipSettings(**settings["clips"])
        inflated = backbones.is_3d(network.backbone) and "imagenet" in (network.weights, network.weights_flow)
        if inflated and "evaluate" not in state:  # of a version before that
            raise CcsError("inflated weights that were trained with zeros around a video, whose ends are repeated now")
        model = CCS(len(state["classes"]), network, segments=clips.segments, load_weights=False)
        model.load_state_dict(state["model"])
    except (CcsError, TypeError, KeyError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise CcsError(
            f"the checkpoint of run {state['run']!r}, seed {state['seed']}, on {state['dataset']!r}: expected settings "
            f"and weights of this version's networks, found others ({reason}); train again"
        ) from error
    return TrainedNetwork(model.eval(), network, clips, settings)


def usual_evaluation(network: NetworkSettings, clips: ClipSettings, **given: Any) -> EvaluateSettings:
    """How a network of this kind is evaluated where nothing else is `given`.

    By TSN's 25 segments and fusion of 1:1.5; as many segments as in training where the aggregation is made for so many,
    and 1:1 for I3D and TRN.
    """
    usual: dict[str, Any] = {} if network.aggregation in ANY_NUMBER else {"segments": clips.segments}
    if backbones.is_3d(network.backbone) or network.aggregation in BY_RELATIONS:
        usual["fusion"] = (1.0, 1.0)
    return EvaluateSettings(**usual | given)


def evaluation(state: Mapping[str, Any], network: NetworkSettings, clips: ClipSettings) -> EvaluateSettings:
    """How the run of a checkpoint that `read` gave is evaluated; what is usual, and a line that says so, if it is old.

    Raises:
        CcsError: it says something that this version does not know.
    """
    if "evaluate" not in state:
        found = usual_evaluation(network, clips)
        fusion = ":".join(f"{weight:g}" for weight in found.fusion)
        print(
            "this checkpoint is of a version that did not note how its run is evaluated; what is usual is taken: "
            f"{found.segments} segments, crops {found.crops}, fusion {fusion}",
            file=sys.stderr,
            flush=True,
        )
        return found
    try:
        return EvaluateSettings(**state["evaluate"])
    except (CcsError, TypeError) as error:
        raise CcsError(
            f"the checkpoint of run {state['run']!r}, seed {state['seed']}, on {state['dataset']!r}: expected settings "
            f"to evaluate it with, found {state['evaluate']!r:.80} ({error}); train again"
        ) from error


def preprocessing(state: Mapping[str, Any], trained: TrainedNetwork, evaluation: EvaluateSettings) -> dict[str, Any]:
    """What a checkpoint's network takes and gives, as values for JSON: all that a program elsewhere needs to use it.

    inputs and outputs: shapes, types, orders of channels, ranges, and the normalisation, which the network does itself.
    classes, fusion: what the logits are of, and the weights of the streams. segments, snippet, crop: how a clip is cut
    from a video; frames, flow: the settings by which its pictures and flow are made. evaluated: of how many segments
    and crops this project scores a video.
    """
    network, clips = trained.network, trained.clips
    snippet = snippet_of(network)
    K, L, F = clips.segments, snippet.flow_length, snippet.flow_length if snippet.all_frames else 1
    inputs: dict[str, dict[str, Any]] = {
        "rgb": {
            "shape": ["batch", K, F, 3, clips.input_size, clips.input_size],
            "channels": "R, G, B",
            "values": "0 to 255",
        },
        "flow": {
            "shape": ["batch", K, L, 2, clips.input_size, clips.input_size],
            "channels": "x (to the right), y (down)",
            "values": "round(128 + pixels * 127 / bound), pixels clipped to +-bound: 1 to 255, 128 is no motion",
            "bound": state["bound"],
        },
    }
    for stream, told in inputs.items():
        backbone = getattr(trained.model, stream)
        told |= {"type": "uint8", "mean": list(backbone.mean), "std": list(backbone.std)}
        told["normalisation"] = "(value - mean) / std by channel, done within the network"
    logits = {"shape": ["batch", len(state["classes"])], "type": "float32", "values": "logits; softmax: probabilities"}
    return {
        "inputs": inputs,
        "outputs": {
            "rgb_logits": logits,
            "flow_logits": logits,
            "fused_logits": {**logits, "sum": "fusion[0] * rgb_logits + fusion[1] * flow_logits"},
        },
        "classes": list(state["classes"]),
        "fusion": list(evaluation.fusion),
        "segments": K,
        "snippet": {
            "start": f"frame floor((k + 0.5) * max(T - {L}, 1) / {K}) for segment k of 0 to {K - 1}, of T frames",
            "pairs": f"{L}, from the start on; pair t is the motion from frame t to frame t + 1",
            "frames": f"{F}, from the start on" if snippet.all_frames else f"1, number {L // 2} from the start on",
            "past the end": "the last one again",
        },
        "crop": {
            "place": "centre",
            "side": f"{clips.test_scale:g} of the short side; {clips.input_size} where that is within 1 % of it",
            "resized": f"to {clips.input_size}, bilinear",
        },
        "frames": state["preparation"]["frames"],
        "flow": state["preparation"]["flow"],
        "evaluated": {"segments": evaluation.segments, "crops": evaluation.crops},
    }


def resume(path: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state to go on from, or None (and why, on standard error) where `path` is of other settings, data or code."""
    if path.is_dir():
        raise CcsError(f"{path}: expected a file to write in when interrupted, found a folder; remove it")
    if not path.exists():
        return None
    try:
        state = read(path)
    except CcsError as error:
        print(f"not resuming: {error}", file=sys.stderr, flush=True)
        return None
    if state.get("fingerprint") != fingerprint:
        reason = "it belongs to other settings, data or code; starting from the first epoch"
        print(f"not resuming from {path}: {reason}", file=sys.stderr, flush=True)
        return None
    return state


def random_state(accelerator: Accelerator) -> dict[str, Any]:
    """What dropout and the gradient scaler go on from: the generators' states, and the scaler's under fp16."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state()
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    return state


def set_random_state(states: Sequence[Mapping[str, Any]], accelerator: Accelerator) -> None:
    """Undo whatever has happened since `random_state`; `states` are those of all processes.

    One that was not there then keeps its own generators, but has the scaler of the others.
    """
    if accelerator.scaler is not None and "scaler" in states[0]:
        accelerator.scaler.load_state_dict(states[0]["scaler"])
    if accelerator.process_index >= len(states):
        return
    state = states[accelerator.process_index]
    torch.set_rng_state(state["cpu"])
    if accelerator.device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
