"""Methods other than TV-L1 behind `ccs flow`: they give what their libraries give."""

from __future__ import annotations

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small
from torchvision.transforms.functional import convert_image_dtype, normalize

from ccs.flow import raft
from ccs.flow.tool import main
from ccs.stage import CcsError
from tests.flow.test_tool import RIGHT, encode

OPENCV = {
    "dis": lambda first, second: cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None),
    # denseflow's, the defaults of OpenCV's class
    "farneback": lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 5, 13, 10, 5, 1.1, 0),
}


@pytest.mark.parametrize("method", OPENCV)
def test_methods_of_opencv(tmp_path, capsys, method):
    video = str(encode(tmp_path / "clip.mkv", RIGHT))
    out = tmp_path / "flow"
    for _ in range(2):
        main([video, "-o", str(out), "--format", "npy", "--method", method, "--workers", "1"])
    assert "1 kept, 0 made" in capsys.readouterr().err
    pairs = np.load(out / "clip/flow.npy")
    for pair, (first, second) in zip(pairs, pairwise(RIGHT), strict=True):
        np.testing.assert_allclose(pair.transpose(1, 2, 0), OPENCV[method](first, second), atol=1e-4)
    assert abs(np.median(pairs[:, 0]) - 2) < 0.5
    record = json.loads((out / "clip/flow.json").read_text())
    assert (record["settings"]["method"], record["backend"]) == (method, "opencv")
    assert "tau" not in record["settings"]  # which changes nothing
    with pytest.raises(CcsError, match=f"--backend native: computes no {method}"):
        main([video, "-o", str(out), "--method", method, "--backend", "native"])


def test_frames_that_a_method_cannot_use_cost_their_video_alone(tmp_path):
    encode(tmp_path / "in/small.mkv", RIGHT[:, :10, :10])
    encode(tmp_path / "in/good.mkv", RIGHT[:3])
    with pytest.raises(CcsError, match=r"1 of 2 .*\n.*small.mkv: its frames are 10x10: flow needs sides of 12 px"):
        main([str(tmp_path / "in"), "-o", str(tmp_path / "flow"), "--method", "dis", "--workers", "1"])
    assert (tmp_path / "flow/good/flow_y_00002.jpg").exists()


def test_raft_is_torchvisions(monkeypatch):
    """Of RGB frames, with a border where the network needs a larger picture."""
    torch.manual_seed(0)
    network = raft_small().eval()
    monkeypatch.setattr(raft, "_network", lambda: network)
    frames = np.random.default_rng(0).integers(0, 256, (3, 128, 136, 3), dtype=np.uint8)
    images = convert_image_dtype(torch.from_numpy(frames).permute(0, 3, 1, 2))
    images = normalize(images, [0.5] * 3, [0.5] * 3)  # as torchvision's transforms for it do
    with torch.inference_mode():
        expected = torch.stack([network(*pair)[-1][0] for pair in pairwise(images[:, None])])
    found, small = raft.estimate_videos([frames, frames[:2, :50, :61]])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)
    assert small.shape == (1, 2, 50, 61)


def test_raft_says_what_it_lacks(tmp_path, monkeypatch):
    video = str(encode(tmp_path / "clip.mkv", RIGHT[:3]))
    with monkeypatch.context() as offline:
        offline.setattr("torchvision.models._api.load_state_dict_from_url", _no_network)
        raft._network.cache_clear()
        with pytest.raises(CcsError, match=r"raft: the weights https:.*raft_large.*: put this file into .*checkpoints"):
            main([video, "-o", str(tmp_path / "flow"), "--method", "raft"])
    monkeypatch.setattr(raft.util, "find_spec", lambda name: None)
    with pytest.raises(CcsError, match=r"--method raft cannot be used here: .*pip install '\.\[train\]' in a checkout"):
        main([video, "-o", str(tmp_path / "flow"), "--method", "raft"])


def _no_network(*args, **options):
    raise OSError("no network")
