"""Exported networks, run by onnxruntime and by torch.export's own loader, against the network of the checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import json
import os

import numpy as np
import onnxruntime
import pytest
import torch

import ccs
from ccs import export
from ccs.clips.settings import ClipSettings
from ccs.flow.settings import Parameters
from ccs.models.losses import LossSettings
from ccs.models.network import CCS
from ccs.models.settings import NetworkSettings
from ccs.train import checkpoint, training

CLASSES = ["drink", "eat", "übrig"]
SHAPES = {"rgb": (3, 1, 3, 64, 64), "flow": (3, 5, 2, 64, 64)}


def trained(folder, **network) -> str:
    """A checkpoint of a network with random weights whose logits differ."""
    settings = NetworkSettings(**({"backbone": "alexnet", "weights": "none", "connection_gamma": 1.0} | network))
    clips = ClipSettings(segments=3, input_size=64)
    torch.manual_seed(0)
    model = CCS(len(CLASSES), settings, segments=3)
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            parameter.mul_((30 if settings.shared else 900) if name.endswith("weight") else 1)
    every = training.Settings(settings, clips, LossSettings(ranking=settings.shared), training.TrainSettings())
    state = {
        "model": model.state_dict(),
        **{key: {} for key in ("optimizer", "schedule", "random")},
        **{"epoch": 1, "dataset": "made", "split": 1, "run": "ccs", "seed": 0, "classes": CLASSES, "videos": ""},
        "bound": 7.0,
        "preparation": {
            "frames": {"short_side": 72, "size": None, "quality": 95},
            "flow": {"backend": "native", "bound": 7.0, **Parameters().to_names()},
        },
        "evaluate": {"segments": 300, "crops": 1, "fusion": (1.0, 2.5)},  # too many for `ccs predict`
        "settings": json.dumps(dataclasses.asdict(every)),
    }
    checkpoint.write(folder / "checkpoint.pt", state)
    return str(folder / "checkpoint.pt")


def noise(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(size)
    return {name: rng.integers(1, 256, (size, *shape), dtype=np.uint8) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("network", "forms"),
    [
        ({"aggregation": "mean"}, (".onnx", ".pt2")),
        ({"aggregation": "trn_multiscale", "connection_value": "other"}, (".onnx",)),
        ({"aggregation": "max", "connection": "average", "shared": False}, (".onnx",)),
        ({"aggregation": "product", "connection": "concat"}, (".pt2",)),  # what is converted to ONNX
        ({"aggregation": "concat", "connection": "none"}, (".pt2",)),
    ],
    ids=lambda value: "-".join(map(str, value.values() if isinstance(value, dict) else value)),
)
def test_it_gives_the_networks_logits(tmp_path, network, forms):
    path = trained(tmp_path, **network)
    model, run = ccs.load(path).model.cpu(), {}
    for form in forms:
        output = tmp_path / f"n{form}"
        export.main([path, "-o", str(output)])
        if form == ".onnx":
            session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
            run[form] = functools.partial(run_onnx, session)
        else:
            run[form] = functools.partial(run_program, torch.export.load(output).module())
    for size in (1, 3):  # neither is what it was captured with
        clips = noise(size)
        with torch.inference_mode():
            wanted = model(*(torch.from_numpy(clips[name]) for name in SHAPES))
        assert np.ptp(wanted.rgb.numpy()) > 0.1  # else it would say nothing
        for each in run.values():
            found = each(clips)
            np.testing.assert_allclose(found["rgb_logits"], wanted.rgb, atol=1e-4)
            np.testing.assert_allclose(found["flow_logits"], wanted.flow, atol=1e-4)
            np.testing.assert_allclose(found["fused_logits"], wanted.rgb + 2.5 * wanted.flow, atol=3e-4)
    if len(forms) > 1:
        _check_what_is_told(tmp_path, session)


def run_onnx(session: onnxruntime.InferenceSession, clips: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, clips), strict=True))


def run_program(program: torch.nn.Module, clips: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return {n: values.numpy() for n, values in program(*(torch.from_numpy(clips[n]) for n in SHAPES)).items()}


def _check_what_is_told(folder, session: onnxruntime.InferenceSession) -> None:
    """The same in both files and beside them, and true of ImageNet's means, of the clips and of the classes."""
    told = json.loads((folder / "n.onnx.json").read_text(encoding="utf-8"))
    assert told == json.loads(session.get_modelmeta().custom_metadata_map["ccs.preprocessing"])
    extra = {"preprocessing.json": ""}
    torch.export.load(folder / "n.pt2", extra_files=extra)
    assert told == json.loads(extra["preprocessing.json"]) == json.loads((folder / "n.pt2.json").read_text())
    for each in session.get_inputs():
        assert told["inputs"][each.name]["shape"][1:] == each.shape[1:] == list(SHAPES[each.name])
        assert not isinstance(each.shape[0], int)
    assert told["inputs"]["rgb"]["mean"] == pytest.approx([255 * x for x in (0.485, 0.456, 0.406)])
    assert told["inputs"]["rgb"]["std"] == pytest.approx([255 * x for x in (0.229, 0.224, 0.225)])
    assert told["inputs"]["flow"]["bound"] == told["flow"]["bound"] == 7
    assert list(told["outputs"]) == [each.name for each in session.get_outputs()]
    assert (told["classes"], told["segments"], told["fusion"]) == (CLASSES, 3, [1, 2.5])
    assert told["frames"]["short_side"] == 72


def test_a_3d_network(tmp_path):
    path = trained(tmp_path, backbone="i3d_x0_25", flow_length=8)
    export.main([path, "-o", str(tmp_path / "n.pt2")])
    network = ccs.load(path)
    rng = np.random.default_rng(0)
    clips = [torch.from_numpy(rng.integers(1, 256, (1, 3, 8, c, 64, 64), dtype=np.uint8)) for c in (3, 2)]
    found, wanted = torch.export.load(tmp_path / "n.pt2").module()(*clips), network.model.cpu()(*clips)
    torch.testing.assert_close(found["flow_logits"], wanted.flow, atol=1e-4, rtol=0)


def test_errors_leave_nothing(tmp_path, monkeypatch):
    path = trained(tmp_path)
    with pytest.raises(ccs.CcsError, match=r"n\.h5: expected a name with \.onnx or \.pt2"):
        export.main([path, "-o", str(tmp_path / "n.h5")])
    with monkeypatch.context() as patch:
        patch.setattr(export.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            ccs.CcsError, match=r"n\.onnx: ONNX needs the package onnx.*pip install '\.\[export\]' in a checkout"
        ):
            export.main([path, "-o", str(tmp_path / "n.onnx")])

    def refuse(*args, **options):
        raise RuntimeError("no such operator\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", refuse)
        with pytest.raises(ccs.CcsError, match=r"backbone alexnet \(no such operator\)"):
            export.main([path, "-o", str(tmp_path / "n.onnx")])
    real = torch.export.export
    with monkeypatch.context() as patch:  # a program of another network
        other = ccs.load(trained(tmp_path, aggregation="max")).model.cpu()
        patch.setattr(torch.export, "export", lambda model, *a, **o: real(export.Fused(other, (1.0, 1.0)), *a, **o))
        with pytest.raises(ccs.CcsError, match=r"expected the network's own rgb_logits to 0\.0001, found a difference"):
            export.main([trained(tmp_path), "-o", str(tmp_path / "n.pt2")])
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
