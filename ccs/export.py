"""A trained network for programs elsewhere: a checkpoint in, ONNX or a program of torch.export out.

    ccs export results/runs/demo/split1/ccs -o ccs.onnx      # or ccs.pt2; ccs.onnx.json says what goes in and comes out

Inputs are `rgb` and `flow`, clips as bytes; the network normalises them itself. Outputs are `rgb_logits`, `flow_logits`
and `fused_logits`, the sum of both with the run's weights. The batch has any size; the number of segments is that of
training. What a clip is made of stands in FILE.json and in the file: in ONNX's metadata as `ccs.preprocessing`, in a
.pt2 as the extra file `preprocessing.json`. What torch.export captures, which a .pt2 is and ONNX is converted from, is
compared with the network before anything is written: 1e-4, or so much of the largest logit where that is above 1.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccs import __version__
from ccs.models.network import CCS
from ccs.prediction import Classifier, load
from ccs.settings import Flags
from ccs.stage import CcsError, atomic, check_writable, install, run

SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-4
_MOST = 2**31 - 2**20  # bytes of weights that one ONNX file can hold: protobuf's limit


class Fused(nn.Module):
    """The network with named outputs, and both streams' logits added with these weights."""

    def __init__(self, model: CCS, fusion: tuple[float, float]) -> None:
        super().__init__()
        self.model, self.fusion = model, fusion

    def forward(self, rgb: Tensor, flow: Tensor) -> dict[str, Tensor]:
        output = self.model(rgb, flow)
        fused = self.fusion[0] * output.rgb + self.fusion[1] * output.flow
        return {"rgb_logits": output.rgb, "flow_logits": output.flow, "fused_logits": fused}


def export(network: Classifier, path: Path) -> None:
    """Write `network` to `path`, *.onnx or *.pt2, and what it takes and gives to a file of that name with .json added.

    Raises:
        CcsError: another extension, a package is missing, PyTorch cannot export this backbone or gives another result,
            or the network is too large for a file of ONNX.
    """
    if path.suffix not in SUFFIXES:
        raise CcsError(f"{path}: expected a name with {' or '.join(SUFFIXES)}, which says what to write")
    missing = [name for name in ("onnx", "onnxscript") if path.suffix == ".onnx" and not importlib.util.find_spec(name)]
    if missing:
        raise CcsError(
            f"{path}: ONNX needs the package {missing[0]}, which is not installed: {install('export')}, or write a .pt2"
        )
    model = Fused(copy.deepcopy(network.model).cpu(), network.settings.fusion).eval()
    size = sum(each.numel() * each.element_size() for each in model.state_dict().values())
    if path.suffix == ".onnx" and size > _MOST:
        raise CcsError(
            f"{path}: expected weights of 2 GiB at most, as ONNX holds, found {size / 2**30:.1f}: write a .pt2"
        )
    told = json.dumps(network.preprocessing | {"ccs": __version__}, ensure_ascii=False, indent=1)
    try:
        program = _captured(network, model)
    except Exception as error:  # whatever PyTorch's tracing has to say
        raise _refusal(path, network, error) from error
    _compare(path, network, model, program)
    beside = path.with_name(f"{path.name}.json")
    with atomic(path) as part, atomic(beside) as json_part:
        json_part.write_text(f"{told}\n", encoding="utf-8")
        if path.suffix == ".pt2":
            torch.export.save(program, part, extra_files={"preprocessing.json": told})
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own parts, to which nobody can do anything
                converted = torch.onnx.export(
                    program,
                    dynamo=True,
                    input_names=["rgb", "flow"],
                    output_names=["rgb_logits", "flow_logits", "fused_logits"],
                    verbose=False,
                )
        except Exception as error:
            raise _refusal(path, network, error) from error
        if converted is None:
            raise CcsError(f"{path}: PyTorch {torch.__version__} gave no ONNX program: write a .pt2")
        converted.model.metadata_props["ccs.preprocessing"] = told
        converted.save(part)


def _captured(network: Classifier, model: Fused) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, _clips(network, 2), dynamic_shapes=({0: batch}, {0: batch}))


def _clips(network: Classifier, size: int) -> tuple[Tensor, Tensor]:
    """A batch of `size` clips of noise."""
    generator = torch.Generator().manual_seed(size)
    shapes = (network.preprocessing["inputs"][name]["shape"][1:] for name in ("rgb", "flow"))
    rgb, flow = (torch.randint(1, 256, (size, *shape), dtype=torch.uint8, generator=generator) for shape in shapes)
    return rgb, flow


def _compare(path: Path, network: Classifier, model: Fused, program: torch.export.ExportedProgram) -> None:
    """Raise where a batch of another size than the one it was captured with comes out otherwise."""
    clips = _clips(network, 3)
    with torch.inference_mode():
        wanted, found = model(*clips), program.module()(*clips)
    for name, values in wanted.items():
        error = float((values - found[name]).abs().max())
        if not error <= TOLERANCE * max(1.0, float(values.abs().max())):
            raise CcsError(
                f"{path}: expected the network's own {name} to {TOLERANCE:g}, found a difference of {error:g}: this "
                "network cannot be exported with this version of PyTorch"
            )


def _refusal(path: Path, network: Classifier, error: Exception) -> CcsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    other = ", or write a .pt2" if path.suffix == ".onnx" else ""
    return CcsError(
        f"{path}: PyTorch {torch.__version__} cannot export this network, backbone "
        f"{network.trained.network.backbone} ({reason}): try another version{other}"
    )


def parser() -> Flags:
    """The flags."""
    flags = Flags(prog="ccs export", description=(__doc__ or "").split("\n\n")[0])
    flags.add_argument(
        "checkpoint", metavar="FILE.pt|RUN", help="checkpoint.pt of ccs train, or the folder of a run or of a seed"
    )
    flags.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE.onnx|FILE.pt2",
        help="the network; FILE.json is written beside it",
    )
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Command line. Raises `CcsError`."""
    args: Any = parser().parse_args(argv)
    check_writable(args.output)
    export(load(args.checkpoint), Path(args.output))
    print(f"ccs: wrote {args.output} and {args.output}.json", file=sys.stderr)


if __name__ == "__main__":
    run(main)
