"""The network against slow references, published facts, and the properties that the method promises."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ccs.config import configuration as config
from ccs.config import pages
from ccs.models import aggregation, connection
from ccs.models.losses import LossSettings, ccs_loss
from ccs.models.network import CCS, NetworkSettings, snippet_of
from ccs.models.settings import ANY_NUMBER
from ccs.stage import CcsError

SMALL = NetworkSettings(backbone="shufflenet_v2_x0_5", weights="none", embedding=16, flow_length=2)


def small(segments: int = 2, **changes) -> CCS:
    """A small network for 5 classes, with some settings changed."""
    return CCS(5, dataclasses.replace(SMALL, **changes), segments=segments)


def clips(batch: int, segments: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, segments, 1, 3, 64, 64), (batch, segments, 2, 2, 64, 64))
    return tuple(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes)


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


@pytest.mark.parametrize("kind", ["nonlocal", "concat"])
def test_connection_gamma_is_how_much_the_block_adds_at_the_beginning(kind):
    block = small(connection=kind, connection_gamma=0.2).connection
    width = block.out_rgb[1].num_features
    streams = torch.randn(64, width, 5), torch.randn(64, width, 5)
    for before, after in zip(streams, block(*streams), strict=True):
        added = (after - before).std(dim=(0, 2), correction=0)
        torch.testing.assert_close(added, torch.full((width,), 0.2), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("kind", "shared"), [("none", False), ("none", True), ("nonlocal", True), ("concat", True), ("average", False)]
)
def test_prediction_does_not_depend_on_the_batch(kind, shared):
    network = opened(small(connection=kind, shared=shared))
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
        network = opened(small(connection=kind))
        with torch.no_grad():
            assert torch.equal(network(rgb, flow).rgb, network(rgb, other).rgb) is not meets


def test_shared_block_is_tied_and_separate_is_not():
    def parameters(network: CCS) -> int:
        return sum(p.numel() for p in network.head.parameters())

    width = 1024  # last channels of shufflenet_v2_x0_5
    assert parameters(small()) == (width + 1) * 16 + 17 * 5
    assert parameters(small(shared=False)) == 2 * (width + 1) * 5


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("dropout", "constant"), [((0.0, 0.9), "rgb"), ((0.9, 0.0), "flow")])
def test_the_first_dropout_is_of_rgb_and_the_second_of_flow(shared, dropout, constant):
    network = small(shared=shared, dropout=dropout, connection="none").train()
    outputs = [network(*clips(4)) for _ in range(2)]
    for stream in ("rgb", "flow"):
        assert torch.equal(*(getattr(output, stream) for output in outputs)) is (stream == constant)


def pooled(backbone, clip_BTFCHW):
    """Features of each segment on its own: (B, T, C)."""
    with torch.no_grad():
        return torch.stack([backbone(clip_BTFCHW[:, t]).mean((2, 3, 4)) for t in range(clip_BTFCHW.shape[1])], dim=1)


OPERATIONS = {"mean": torch.mean, "max": torch.amax, "product": torch.prod}


@pytest.mark.parametrize("kind", [*OPERATIONS, "concat"])
def test_aggregation_is_over_segments(kind):
    rgb, flow = clips(2, segments=3)
    network = small(3, aggregation=kind, connection="none").eval()
    for stream, clip in (("rgb", rgb), ("flow", flow)):
        features = pooled(getattr(network, stream), clip)
        if kind == "concat":
            expected = torch.cat([features[:, 0], features[:, 1], features[:, 2]], dim=1)
        else:
            expected = OPERATIONS[kind](features, dim=1)
        with torch.no_grad():
            expected = network.head.classify(network.head.embed(expected))
            torch.testing.assert_close(getattr(network(rgb, flow), stream), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["trn", "trn_multiscale"])
def test_each_stream_has_relations_of_its_own(kind):
    """Other weights of one stream's aggregation change that stream's scores alone."""
    network = small(3, aggregation=kind, connection="none").eval()
    with torch.no_grad():
        for stream in ("rgb", "flow"):
            before = network(*clips(2, segments=3))
            for weight in getattr(network, f"aggregate_{stream}").parameters():
                weight.add_(0.1)
            after = network(*clips(2, segments=3))
            changed = {name for name in ("rgb", "flow") if not torch.equal(getattr(before, name), getattr(after, name))}
            assert changed == {stream}


def test_more_segments_than_in_training_are_interleaved_groups_of_as_many():
    torch.manual_seed(0)
    x = torch.rand(2, 6, 4)
    for kind in ("product", "concat", "trn", "trn_multiscale"):
        module, _ = aggregation.build(kind, 4, segments=3)
        expected = (module(x[:, [0, 2, 4]]) + module(x[:, [1, 3, 5]])) / 2
        torch.testing.assert_close(module(x), expected)
        with pytest.raises(CcsError, match="groups of 3 segments"):
            module(x[:, :4])
    assert aggregation.build("concat", 4, segments=3)[1] == 12
    assert aggregation.build("max", 4, segments=3)[0](x).shape == (2, 4)


@pytest.mark.parametrize("kind", ["trn", "trn_multiscale"])
def test_relations_are_the_mean_over_all_ordered_tuples(kind):
    """Temporal relations by loops over tuples, with the concatenation that the module avoids."""
    torch.manual_seed(0)
    module, width = aggregation.build(kind, 6, segments=4)
    relations = module.of
    x = torch.randn(2, 4, 6)
    scales = [4] if kind == "trn" else [2, 3, 4]
    expected = torch.zeros(2, width)
    for video in range(2):
        for linear, n in zip(relations.relate, scales, strict=True):
            found = []
            for chosen in itertools.combinations(range(4), n):
                features = [torch.relu(relations.reduce(x[video, t])) for t in chosen]
                found.append(torch.relu(linear(torch.cat(features))))
            expected[video] += sum(found) / len(found)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    backwards = module(x.flip(1))
    assert not torch.allclose(backwards, expected, atol=1e-2)  # order matters


@pytest.mark.parametrize("kind", ["trn", "trn_multiscale", "concat"])
def test_relations_drop_out_the_backbones_features_and_nothing_after(kind):
    """As TRN's code does, each stream at its own rate: other aggregations drop out their result."""
    network = small(segments=3, aggregation=kind, dropout=(0.75, 0.25))
    seen = {}

    def note(name):
        def hook(module, given, result):
            zeros = result == 0
            seen[name] = (tuple(result.shape[1:]), float(zeros.float().mean()))

        return hook

    for name, module in network.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(note(name))
    ones = torch.ones(64, 3, network.rgb.num_features)
    drawn = [network.aggregate_rgb(ones), network.aggregate_flow(ones)]
    network.head(*(torch.ones_like(x) for x in drawn))
    rates = {name: share for name, (_, share) in seen.items() if share > 0}
    of_relations = {"aggregate_rgb.of.dropout": 0.75, "aggregate_flow.of.dropout": 0.25}
    of_head = {"head.dropout_rgb": 0.75, "head.dropout_flow": 0.25}
    assert rates == pytest.approx(of_head if kind == "concat" else of_relations, abs=0.02)
    assert kind == "concat" or seen["aggregate_rgb.of.dropout"][0] == (3, network.rgb.num_features)


def test_attention_keeps_no_matrix_over_positions():
    """25 segments of 7x7: an N x N matrix of one video would be 6 MB, and a stream's features are 0.6."""
    torch.manual_seed(0)
    block = connection.NonLocal(64)
    rgb, flow = torch.randn(2, 2, 64, 25, 7, 7, requires_grad=True)
    matrix = 2 * (25 * 49) ** 2 * 4
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        (out_rgb, out_flow) = block(rgb, flow)
        (out_rgb.sum() + out_flow.sum()).backward()
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert largest < matrix / 2


def test_what_takes_any_number_of_segments_is_one_list():
    """The configuration asks without PyTorch, the network with it."""
    assert sorted(ANY_NUMBER) == sorted(aggregation.ELEMENTWISE)


def admitted():
    """Every combination of the settings that the schema admits, each that changes nothing once."""
    schema = pages.schema()["properties"]["train"]["properties"]
    values = {name: schema[name]["enum"] for name in ("connection", "connection_value", "triplet", "aggregation")}
    connections = [(kind, "self") for kind in values["connection"]]
    connections += [("nonlocal", value) for value in values["connection_value"] if value != "self"]
    heads = [(False, False, "hardest"), (True, False, "hardest")]
    heads += [(True, True, triplet) for triplet in values["triplet"]]
    return itertools.product(connections, heads, values["aggregation"])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "i3d_x0_25"])
def test_every_admitted_combination_trains_a_step_and_evaluates(backbone):
    labels = torch.tensor([0, 0, 1, 1])
    torch.manual_seed(0)
    number = 0
    for (kind, value), (with_shared, ranking, triplet), aggregate in admitted():
        run = {"backbone": backbone, "connection": kind, "connection_value": value, "shared": with_shared}
        run |= {"ranking": ranking, "triplet": triplet, "aggregation": aggregate, "weights": "none", "segments": 2}
        config.complete(
            {
                "datasets": {"d": {"adapter": "folder", "root": "r"}},
                "runs": {"run": {**run, "evaluate": {"segments": 4}}},
            }
        )
        settings = dataclasses.replace(
            SMALL, backbone=backbone, connection=kind, connection_value=value, shared=with_shared, aggregation=aggregate
        )
        network = CCS(5, settings, segments=2)
        frames = 2 if snippet_of(settings).all_frames else 1
        rgb = torch.randint(0, 256, (4, 2, frames, 3, 32, 32), dtype=torch.uint8)
        flow = torch.randint(0, 256, (4, 2, 2, 2, 32, 32), dtype=torch.uint8)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        loss = ccs_loss(*network.train()(rgb, flow), labels, LossSettings(ranking=ranking, triplet=triplet)).total
        loss.backward()
        before = {name: p.detach().clone() for name, p in network.named_parameters() if p.grad is not None}
        optimizer.step()
        after = dict(network.named_parameters())
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("rgb"))
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("flow"))
        with torch.no_grad():
            output = network.eval()(rgb.repeat(1, 2, 1, 1, 1, 1), flow.repeat(1, 2, 1, 1, 1, 1))
        assert torch.isfinite(torch.cat([output.rgb, output.flow])).all()
        number += 1
    assert number == 5 * 5 * 6


@pytest.mark.parametrize(
    ("weights", "weights_flow", "first_only"),
    [("file", "same", (True, True)), ("file", "none", (True, False)), ("none", "file", (False, True))],
)
def test_each_stream_has_its_weights_and_partial_bn_where_it_has_any(tmp_path, weights, weights_flow, first_only):
    """Of a pretrained backbone all batch norm but the first is frozen; the connection block's never is."""
    source = torchvision.models.resnet18()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    given = {"file": str(tmp_path / "weights.pt"), "none": "none", "same": "same"}
    settings = NetworkSettings(
        backbone="resnet18", weights=given[weights], weights_flow=given[weights_flow], flow_length=2
    )
    network = CCS(5, settings, segments=3).train()
    for backbone, frozen in zip((network.rgb, network.flow), first_only, strict=True):
        norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 20
        assert [m.training for m in norms] == [True] + [not frozen] * 19
        assert [m.weight.requires_grad for m in norms] == [True] + [not frozen] * 19
        assert torch.equal(backbone.body.layer4[1].conv2.weight, source.layer4[1].conv2.weight) is frozen
    assert all(m.training for m in network.connection.modules())
    assert not any(m.training for m in network.eval().modules())
    (tmp_path / "weights.pt").unlink()
    again = CCS(5, settings, segments=3, load_weights=False)  # as a checkpoint is read where the file is gone
    again.load_state_dict(network.state_dict())


@pytest.mark.slow
def test_25_segments_in_10_crops_fit_into_a_gigabyte():
    """In a process of its own, whose memory nothing else has touched; benchmarks/README.md has the figures."""
    script = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "models.py"
    done = subprocess.run(
        [sys.executable, script, "--backbone", "bninception"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1024
