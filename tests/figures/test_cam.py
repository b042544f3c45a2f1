"""Class activation maps against the closed form, Grad-CAM by other code, and pictures of known content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from ccs.clips.transforms import Crop
from ccs.figures import cam
from ccs.models.network import CCS, NetworkSettings
from ccs.models.snippet import Snippet

K, LABEL = 3, 2


def network(**settings) -> CCS:
    """A small network in evaluation mode whose connection block is not the identity."""
    torch.manual_seed(0)
    defaults = {"backbone": "shufflenet_v2_x0_5", "weights": "none", "embedding": 16, "flow_length": 2}
    model = CCS(5, NetworkSettings(**(defaults | settings)), segments=K)
    for module in model.connection.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.ones_(module.weight)
    for block in (model.rgb, model.flow):  # random convolutions shrink what they see: give it some size
        for module in block.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                torch.nn.init.constant_(module.weight, 2)
                torch.nn.init.uniform_(module.bias, -0.5, 1)
    return model.eval().requires_grad_(False)


def clip(frames: int = 1, length: int = 2, segments: int = K) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rgb = torch.randint(0, 256, (segments, frames, 3, 64, 96), dtype=torch.uint8, generator=generator)
    return rgb, torch.randint(1, 256, (segments, length, 2, 64, 96), dtype=torch.uint8, generator=generator)


def maps_and_features(model: CCS, rgb: torch.Tensor, flow: torch.Tensor, stream: str):
    """The maps, the logit, and the stream's features after the connection block as (C, T, t, h, w)."""
    seen = []
    handle = model.connection.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logit = getattr(model(rgb[None], flow[None]), stream)[0, LABEL]
    handle.remove()
    features = seen[0][0 if stream == "rgb" else 1][0].unflatten(1, (len(rgb), -1))
    return cam.class_activation_maps(model, rgb, flow, stream=stream, label=LABEL), logit, features


def weights(model: CCS, stream: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The head as one linear layer: the class's weights (C) and its bias."""
    if hasattr(model.head, "embed"):
        embed, classify = model.head.embed, model.head.classify
        row = classify.weight[LABEL]
        return row @ embed.weight, row @ embed.bias + classify.bias[LABEL]
    linear = getattr(model.head, stream)[1]
    return linear.weight[LABEL], linear.bias[LABEL]


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shared": False, "connection": "none"},
        {"connection": "average"},
        {"backbone": "i3d_x0_25", "flow_length": 16},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "all",
)
def test_maps_of_a_mean_are_the_heads_weights_times_the_features(settings, stream):
    model = network(**settings)
    length = settings.get("flow_length", 2)
    rgb, flow = clip(length if length > 2 else 1, length)
    maps, logit, features = maps_and_features(model, rgb, flow, stream)
    weight, bias = weights(model, stream)
    expected = torch.einsum("c,ctihw->tihw", weight, features) / features[0].numel()
    assert maps.shape == (K, 2 if length > 2 else 1, 2, 3)
    assert maps.std() > 1e-4
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps.sum() + bias, logit, rtol=1e-4, atol=1e-5)
    other = LayerGradCam(lambda a, b: getattr(model(a, b), stream), model.connection).attribute(
        (rgb[None], flow[None]), target=LABEL, grad_kwargs={"materialize_grads": True}
    )[0 if stream == "rgb" else 1]
    torch.testing.assert_close(maps.flatten(0, 1), other[0, 0].detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "degree"), [("max", 1), ("product", K), ("concat", 1), ("trn_multiscale", None)]
)
def test_maps_of_other_aggregations_are_grad_cam_of_each_segment(aggregation, degree):
    model = network(aggregation=aggregation)
    maps, logit, features = maps_and_features(model, *clip(), "rgb")
    # from here on the network is: pooling of each segment, aggregation, head
    leaf = features.clone().requires_grad_()
    pooled = leaf.mean(dim=(2, 3, 4)).T[None]
    output = model.head(model.aggregate_rgb(pooled), model.aggregate_rgb(pooled))[0][0, LABEL]
    torch.testing.assert_close(output, logit, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(output, leaf)
    alpha = gradient.mean(dim=(2, 3, 4), keepdim=True)  # Selvaraju et al., Eq. 1, in each segment
    torch.testing.assert_close(maps, (alpha * features).sum(dim=0), rtol=1e-4, atol=1e-7)
    if degree:  # Euler: a function of that degree in the features, and a bias
        bias = weights(model, "rgb")[1]
        torch.testing.assert_close(maps.sum() + degree * bias, degree * logit, rtol=1e-3, atol=1e-5)


def test_maps_follow_the_segments_and_see_one_stream_alone_without_a_connection():
    model, (rgb, flow) = network(), clip()
    maps = cam.class_activation_maps(model, rgb, flow, stream="rgb", label=LABEL)
    turned = cam.class_activation_maps(model, rgb.flip(0), flow.flip(0), stream="rgb", label=LABEL)
    torch.testing.assert_close(turned, maps.flip(0), rtol=1e-4, atol=1e-6)
    still = torch.full_like(flow, 128)
    assert not torch.allclose(maps, cam.class_activation_maps(model, rgb, still, stream="rgb", label=LABEL), atol=1e-6)
    model = network(connection="none")
    alone = [cam.class_activation_maps(model, rgb, each, stream="rgb", label=LABEL) for each in (flow, still)]
    assert torch.equal(*alone)
    with pytest.raises(ValueError, match="training mode"):
        cam.class_activation_maps(model.train(), rgb, flow, stream="rgb", label=LABEL)


def test_moments_of_maps():
    def times(length, all_frames, stream, instants, num_frames=30):
        snippet = Snippet(length, all_frames)
        starts = np.array([0, 10])
        return cam.map_times(starts, snippet=snippet, stream=stream, instants=instants, num_frames=num_frames).tolist()

    assert times(5, False, "rgb", 1) == [[2], [12]]
    assert times(5, False, "flow", 1) == [[2.5], [12.5]]  # frames 0 to 5 have pairs 0 to 4
    assert times(8, True, "rgb", 2) == [[1.5, 5.5], [11.5, 15.5]]  # frames 0 to 3 and 4 to 7
    assert times(8, True, "flow", 2) == [[2, 6], [12, 16]]  # frames 0 to 4 and 4 to 8
    assert times(8, True, "rgb", 2, num_frames=15) == [[1.5, 5.5], [11.5, 14]]


def test_maps_change_linearly_from_one_moment_to_the_next():
    maps = np.array([[[4.0]], [[0.0]], [[2.0]], [[6.0]]])
    at = cam.interpolate(maps, np.array([10.0, 2.0, 4.0, 4.0]), np.array([0, 2, 3, 4, 7, 10, 11]))
    np.testing.assert_allclose(at.ravel(), [0, 0, 2, 4, 4, 4, 4])


def test_shares_have_one_scale_and_no_evidence_is_nothing():
    found = cam.shares(np.array([[[-3.0, 1.0]], [[0.5, 2.0]]]))
    np.testing.assert_array_equal(found, [[[0, 0.5]], [[0.25, 1]]])
    assert not cam.shares(np.array([[[-3.0, -1.0]]])).any()
    assert not cam.shares(np.zeros((1, 2, 2))).any()


def test_overlay_colours_the_crop_by_the_maps_and_nothing_else():
    frames = np.full((2, 40, 60, 3), 100, np.uint8)
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 1] = 1  # the crop's upper right
    crop = Crop(4, 10, 32, 40)
    out = cam.overlay(frames, maps, crop=crop)
    outside = np.ones((40, 60), bool)
    outside[4:36, 10:50] = False
    assert (out[:, outside] == 100).all()
    assert (frames == 100).all()
    weak, strong = cam.OPACITY
    zero, one = (255 * np.array(cam.COLOURS(share)[:3]) for share in (0.0, 1.0))
    np.testing.assert_allclose(out[0, 9, 43], (1 - strong) * 100 + strong * one, atol=1)
    np.testing.assert_allclose(out[0, 30, 15], (1 - weak) * 100 + weak * zero, atol=1)
    np.testing.assert_allclose(
        out[1, 8:32, 14:46].reshape(-1, 3), np.tile((1 - weak) * 100 + weak * zero, (768, 1)), atol=1
    )
    assert np.array_equal(
        cam.overlay(frames, maps, crop=crop._replace(flip=True))[0, 4:36, 10:50], out[0, 4:36, 49:9:-1]
    )
    whole = cam.overlay(frames, maps)
    np.testing.assert_allclose(whole[0, 0, 59], (1 - strong) * 100 + strong * one, atol=1)


def test_colour_fades_out_only_where_the_frame_goes_on():
    """A crop that ends below, and has the frame's other three sides."""
    frames, maps = np.full((1, 200, 100, 3), 100, np.uint8), np.ones((1, 2, 2), np.float32)
    (out,) = cam.overlay(frames, maps, crop=Crop(0, 0, 150, 100)).astype(int)
    full = np.rint((1 - cam.OPACITY[1]) * 100 + cam.OPACITY[1] * 255 * np.array(cam.COLOURS(1.0)[:3]))
    np.testing.assert_allclose(out[:135].reshape(-1, 3), np.tile(full, (13500, 1)), atol=1)
    assert (out[150:] == 100).all()
    steps = np.abs(np.diff(out[..., 0], axis=0)).max(axis=1)
    assert steps.max() < (full[0] - 100) / 5  # no edge: less than a fifth of the way at once
    assert (np.diff(out[..., 0], axis=0) <= 0).all()
