"""The network against slow references, published facts, and the properties that the method promises."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchvision
from torch import nn

from ccs.models import backbones, connection
from ccs.models.network import CCS, NetworkSettings
from ccs.stage import CcsError

SMALL = NetworkSettings(backbone="shufflenet_v2_x0_5", weights="none", embedding=16, flow_length=2)


def clips(batch: int, segments: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randint(0, 256, (batch, segments, channels, 64, 64), dtype=torch.uint8, generator=generator)
        for channels in (3, 4)
    )


def opened(network: CCS) -> CCS:
    """A network as after some training: batch norm knows its inputs, the connection block (gamma 0) does something."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain average
    network.train()(*clips(8, seed=9))
    for module in network.connection.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
    return network.eval()


@pytest.mark.parametrize("value", ["self", "other"])
def test_connection_block_is_equations_1_to_3(value):
    torch.manual_seed(0)
    block = connection.NonLocal(8, value=value).double().eval()
    nn.init.ones_(block.out_rgb[1].weight)
    nn.init.ones_(block.out_flow[1].weight)
    f, o = torch.randn(2, 8, 5, dtype=torch.float64), torch.randn(2, 8, 5, dtype=torch.float64)
    out_f, out_o = block(f, o)
    W = {name: getattr(block, name).weight[:, :, 0] for name in ("phi", "kappa")}
    b = {name: getattr(block, name).bias for name in ("phi", "kappa")}
    scale = (1 + block.out_rgb[1].eps) ** -0.5  # batch norm with mean 0 and variance 1
    for video in range(2):
        logits = torch.empty(5, 5, dtype=torch.float64)
        for i in range(5):
            for j in range(5):
                phi = W["phi"] @ f[video, :, i] + b["phi"]
                kappa = W["kappa"] @ o[video, :, j] + b["kappa"]
                logits[i, j] = phi @ kappa / 4**0.5
        rows = logits.exp() / logits.exp().sum(1, keepdim=True)
        columns = logits.T.exp() / logits.T.exp().sum(1, keepdim=True)
        v_f, v_o = (f, o) if value == "self" else (o, f)
        for i in range(5):
            y_f = sum(rows[i, j] * v_f[video, :, j] for j in range(5))
            y_o = sum(columns[i, j] * v_o[video, :, j] for j in range(5))
            expected_f = f[video, :, i] + scale * block.out_rgb[0].weight[:, :, 0] @ y_f
            expected_o = o[video, :, i] + scale * block.out_flow[0].weight[:, :, 0] @ y_o
            torch.testing.assert_close(out_f[video, :, i], expected_f)
            torch.testing.assert_close(out_o[video, :, i], expected_o)


@pytest.mark.parametrize("kind", ["nonlocal", "concat"])
def test_connection_starts_as_the_identity_and_learns(kind):
    block = connection.build(kind, 8)
    f, o = torch.randn(3, 8, 5), torch.randn(3, 8, 5)
    out_f, out_o = block(f, o)
    assert torch.equal(out_f, f)
    assert torch.equal(out_o, o)
    (out_f.square().sum() + out_o.square().sum()).backward()
    assert block.out_rgb[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "shared"), [("none", False), ("none", True), ("nonlocal", True), ("concat", True), ("average", False)]
)
def test_prediction_does_not_depend_on_the_batch(kind, shared):
    network = opened(CCS(5, dataclasses.replace(SMALL, connection=kind, shared=shared)))
    rgb, flow = clips(4)
    with torch.no_grad():
        together = network(rgb, flow)
        order = torch.tensor([2, 0, 3, 1])
        permuted = network(rgb[order], flow[order])
        for i in range(4):
            alone = network(rgb[i : i + 1], flow[i : i + 1])
            for stream in ("rgb", "flow"):
                torch.testing.assert_close(
                    getattr(alone, stream)[0], getattr(together, stream)[i], rtol=1e-4, atol=1e-5
                )
                torch.testing.assert_close(
                    getattr(permuted, stream)[order == i][0], getattr(together, stream)[i], rtol=1e-4, atol=1e-5
                )


def test_connection_lets_one_stream_see_the_other_and_none_does_not():
    rgb, flow = clips(1)
    other = clips(1, seed=1)[1]
    for kind, meets in (("none", False), ("nonlocal", True)):
        network = opened(CCS(5, dataclasses.replace(SMALL, connection=kind)))
        with torch.no_grad():
            assert torch.equal(network(rgb, flow).rgb, network(rgb, other).rgb) is not meets


def test_shared_block_is_tied_and_separate_is_not():
    def parameters(network: CCS) -> int:
        return sum(p.numel() for p in network.head.parameters())

    width = 1024  # last channels of shufflenet_v2_x0_5
    assert parameters(CCS(5, SMALL)) == (width + 1) * 16 + 17 * 5
    assert parameters(CCS(5, dataclasses.replace(SMALL, shared=False))) == 2 * (width + 1) * 5


def test_aggregation_is_over_segments():
    rgb, flow = clips(2, segments=3)
    for name in ("mean", "max"):
        network = CCS(5, dataclasses.replace(SMALL, aggregation=name, connection="none")).eval()
        with torch.no_grad():
            whole = network(rgb, flow)
            singles = [
                network.rgb((rgb[:, t] / 255 - network.rgb_mean) / network.rgb_std).mean((2, 3)) for t in range(3)
            ]
            stacked = torch.stack(singles)
            pooled = stacked.mean(0) if name == "mean" else stacked.max(0).values
            expected = network.head.classify(network.head.embed(pooled))
        torch.testing.assert_close(whole.rgb, expected, rtol=1e-4, atol=1e-5)


WIDTHS = {"resnet18": 512, "shufflenet_v2_x0_5": 1024, "densenet121": 1024, "regnet_y_400mf": 440, "vgg11_bn": 512}
WIDTHS |= {"swin_t": 768, "mobilenet_v3_small": 576, "squeezenet1_1": 512, "mnasnet0_5": 1280}
ONE_LINEAR_LAYER = ("swin_t", "resnet18", "shufflenet_v2_x0_5", "densenet121", "regnet_y_400mf", "mnasnet0_5")


@pytest.mark.parametrize("name", WIDTHS)
def test_backbones_give_the_features_that_torchvision_classifies(name):
    """The pooled features are what the network's own classifier receives, where that is one linear layer."""
    torch.manual_seed(0)
    backbone = backbones.build(name).eval()
    assert backbone.num_features == WIDTHS[name]
    if name not in ONE_LINEAR_LAYER:
        return
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    seen = {}
    classifier = next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear))
    classifier.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        model(x)
        features = backbone(x)
    torch.testing.assert_close(features.mean((2, 3)), seen["x"], rtol=1e-4, atol=1e-6)


def test_flow_stream_starts_from_the_mean_over_rgb_channels(tmp_path):
    torch.manual_seed(0)
    source = torchvision.models.resnet18(num_classes=7)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    network = CCS(5, NetworkSettings(backbone="resnet18", weights=str(tmp_path / "weights.pt"), embedding=8))
    assert torch.equal(network.rgb.body.conv1.weight, source.conv1.weight)
    expected = torch.stack([source.conv1.weight.sum(1) / 3] * 10, dim=1)
    torch.testing.assert_close(network.flow.body.conv1.weight, expected)
    assert torch.equal(network.flow.body.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_partial_bn_freezes_all_but_the_first_of_a_pretrained_backbone(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pt")
    settings = NetworkSettings(backbone="resnet18", weights=str(tmp_path / "weights.pt"))
    network = CCS(5, settings).train()
    for backbone in (network.rgb, network.flow):
        norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 20
        assert [m.training for m in norms] == [True] + [False] * 19
        assert [m.weight.requires_grad for m in norms] == [True] + [False] * 19
    assert all(m.training for m in network.connection.modules())
    fresh = CCS(5, dataclasses.replace(settings, weights="none")).train()
    assert all(m.training for m in fresh.modules())
    assert not any(m.training for m in network.eval().modules())


def test_normalisation_is_that_of_the_weights_and_zero_flow_is_zero():
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    backbone = backbones.build("resnet18")
    assert backbone.mean == tuple(transform.mean)
    assert backbone.std == tuple(transform.std)
    network = CCS(5, SMALL)
    assert torch.all(torch.full((4, 2, 2), 128) / 255 - network.flow_mean == 0)


def test_weights_that_do_not_fit_are_refused_with_their_keys(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    state["extra.weight"] = torch.zeros(1)
    del state["layer1.0.conv1.weight"]
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(CcsError, match=r"layer1\.0\.conv1\.weight.*extra\.weight.*conv1\.weight \(64, 1, 7, 7\)"):
        backbones.build("resnet18", weights=str(tmp_path / "bad.pt"))
    with pytest.raises(CcsError, match=r"nowhere\.pt"):
        backbones.build("resnet18", weights=str(tmp_path / "nowhere.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(CcsError, match=r"text\.pt"):
        backbones.build("resnet18", weights=str(tmp_path / "text.pt"))
    with pytest.raises(CcsError, match="resnet19"):
        backbones.build("resnet19")
