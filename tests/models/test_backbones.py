"""The backbones against published counts, key names and sizes, and against slow references from their state dicts."""

from __future__ import annotations

import re
import urllib.error

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ccs.models import backbones
from ccs.models.backbones import bninception, i3d
from ccs.stage import CcsError


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomised(module: nn.Module) -> nn.Module:
    """Batch norm as after training: otherwise it does next to nothing and no test sees where it is."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor in (norm.weight.data, norm.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (norm.bias.data, norm.running_mean):
                tensor.uniform_(-0.5, 0.5)
    return module


def map_sizes(backbone: backbones.Backbone, x: torch.Tensor, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Output shapes of modules of the body, without the batch; on the meta device, so nothing is computed."""
    backbone, seen = backbone.to("meta"), {}
    for name in names:
        module = backbone.body.get_submodule(name)
        module.register_forward_hook(lambda module, args, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    seen["out"] = tuple(backbone(x.to("meta")).shape[1:])
    return seen


@pytest.fixture
def download(monkeypatch):
    """Replaces the download of torchvision's weights by a given state dict or error; returns what was asked for."""

    def prepare(result):
        asked = {}

        def fake(url, **options):
            asked.update(options, url=url)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fake)
        return asked

    return prepare


# BN-Inception

# Naming rules of the published files (Cadene/pretrained-models.pytorch, pretrainedmodels/models/bninception.py).
BN_UNITS = ["conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"]
for _m in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
    _both = ["3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2"]
    BN_UNITS += [f"inception_{_m}_{u}" for u in (_both if _m in ("3c", "4e") else ["1x1", *_both, "pool_proj"])]
BN_TENSORS = ("weight", "bias", "running_mean", "running_var")
BN_KEYS = {f"{u}{t}" for u in BN_UNITS for t in (".weight", ".bias", *(f"_bn.{t}" for t in BN_TENSORS))}
BN_SHAPES = {  # typed from the same file
    "conv1_7x7_s2.weight": (64, 3, 7, 7),
    "inception_3c_3x3.weight": (160, 128, 3, 3),
    "inception_4d_double_3x3_reduce.weight": (160, 608, 1, 1),
    "inception_4e_double_3x3_2.weight": (256, 256, 3, 3),
    "inception_5a_1x1.weight": (352, 1056, 1, 1),
    "inception_5b_double_3x3_reduce.weight": (192, 1024, 1, 1),
    "inception_5b_pool_proj_bn.running_var": (128,),
}


def bninception_file(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights in the form of a published file: (1, n) batch norm, no num_batches_tracked, a classifier."""
    torch.manual_seed(seed)
    own = bninception.BNInception().state_dict()
    state = {key: torch.rand(own[key].shape) for key in sorted(BN_KEYS)}
    state = {key: value[None] if "_bn." in key else value for key, value in state.items()}
    return state | {"fc.weight": torch.rand(1000, 1024), "fc.bias": torch.rand(1000)}


def test_bninception_has_the_published_number_of_parameters_and_sizes():
    backbone = backbones.build("bninception")
    # with 1000 classes 11,295,240 (osmr/imgclsmob, pytorch/README.md, BN-Inception)
    assert num_parameters(backbone) + 1000 * 1025 == 11_295_240
    assert (backbone.num_features, backbone.is_3d, backbone.input_size) == (1024, False, 224)
    state = backbone.body.state_dict()
    assert {key: tuple(state[key].shape) for key in BN_SHAPES} == BN_SHAPES
    names = [
        "conv1_7x7_s2",
        "conv2_3x3",
        "inception_3b_1x1",
        "inception_3c_3x3",
        "inception_4e_3x3",
        "inception_5b_1x1",
    ]
    sizes = map_sizes(backbone, torch.zeros(2, 1, 3, 224, 224, dtype=torch.uint8), names)
    assert [sizes[name] for name in names] == [  # Ioffe & Szegedy 2015, Fig. 5
        (64, 112, 112),
        (192, 56, 56),
        (64, 28, 28),
        (160, 14, 14),
        (192, 7, 7),
        (352, 7, 7),
    ]
    assert sizes["out"] == (1024, 1, 7, 7)
    assert map_sizes(backbone, torch.zeros(1, 1, 3, 112, 112), [])["out"] == (1024, 1, 4, 4)  # with odd maps inside


@pytest.mark.parametrize("wrap", ["plain", "tsn", "legacy"])
def test_bninception_loads_published_files(tmp_path, wrap):
    state, path = bninception_file(), tmp_path / "bn_inception.pth"
    if wrap == "tsn":  # yjxiong/tsn-pytorch: DataParallel around TSN, whose classifier is its own
        saved = {f"module.base_model.{k}": v for k, v in state.items() if not k.startswith("fc.")}
        saved |= {"module.new_fc.weight": torch.rand(51, 1024), "module.new_fc.bias": torch.rand(51)}
        torch.save({"epoch": 80, "arch": "BNInception", "state_dict": saved, "best_prec1": 1.0}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=wrap == "plain")
    body = backbones.build("bninception", weights=str(path)).body
    loaded = {key: value for key, value in body.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert loaded.keys() == BN_KEYS
    for key, value in loaded.items():
        assert torch.equal(value, state[key].view(value.shape)), key


def test_bninception_modules_recomputed_from_their_state_dict():
    torch.manual_seed(0)
    body = randomised(bninception.BNInception()).double().eval()
    state, seen = body.state_dict(), {}
    # what goes into modules 3c, 4a, 4c, 4d, 5b
    for module, unit in (("3c", "3x3_reduce"), ("4a", "1x1"), ("4c", "1x1"), ("4d", "1x1"), ("5b", "1x1")):
        conv = body.get_submodule(f"inception_{module}_{unit}")
        conv.register_forward_pre_hook(lambda conv, args, module=module: seen.update({module: args[0].clone()}))
    with torch.no_grad():
        out = body(torch.randn(1, 3, 96, 96, dtype=torch.float64))

    def unit(name, x, stride=1):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=(weight.shape[-1] - 1) // 2)
        gamma, beta, mean, var = (state[f"{name}_bn.{t}"].view(-1, 1, 1) for t in BN_TENSORS)
        return ((x - mean) / (var + 1e-5).sqrt() * gamma + beta).clamp(min=0)

    def windows(x, value, pad, stride):  # (..., h, w, 9)
        return F.pad(x, pad, value=value).unfold(2, 3, stride).unfold(3, 3, stride).flatten(-2)

    def convolutions(m, x, stride):
        single = unit(f"inception_{m}_3x3", unit(f"inception_{m}_3x3_reduce", x), stride)
        double = unit(f"inception_{m}_double_3x3_1", unit(f"inception_{m}_double_3x3_reduce", x))
        return [single, unit(f"inception_{m}_double_3x3_2", double, stride)]

    def halving(m, x):  # an even map: the last windows reach one beyond the end
        return torch.cat([*convolutions(m, x, 2), windows(x, -torch.inf, (0, 1, 0, 1), 2).amax(-1)], 1)

    def whole(m, x, pooled):
        first, last = unit(f"inception_{m}_1x1", x), unit(f"inception_{m}_pool_proj", pooled)
        return torch.cat([first, *convolutions(m, x, 1), last], 1)

    around = (1, 1, 1, 1)
    torch.testing.assert_close(seen["4a"], halving("3c", seen["3c"]))
    torch.testing.assert_close(seen["4d"], whole("4c", seen["4c"], windows(seen["4c"], 0, around, 1).sum(-1) / 9))
    torch.testing.assert_close(out, whole("5b", seen["5b"], windows(seen["5b"], -torch.inf, around, 1).amax(-1)))


# I3D

MIXED = ["3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"]
I3D_UNITS = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]  # piergiaj/pytorch-i3d, pytorch_i3d.py
I3D_UNITS += [f"Mixed_{m}.{b}" for m in MIXED for b in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")]
I3D_KEYS = {f"{u}.{t}" for u in I3D_UNITS for t in ("conv3d.weight", *(f"bn.{t}" for t in BN_TENSORS))}


def googlenet() -> torchvision.models.GoogLeNet:
    torch.manual_seed(0)
    return randomised(torchvision.models.googlenet(init_weights=False)).eval()


def test_i3d_has_the_published_number_of_parameters_and_sizes():
    backbone = backbones.build("i3d")
    # with 400 classes 12,697,264 (IBM/action-recognition-pytorch, benchmark_full.md, kinetics400-i3d)
    assert num_parameters(backbone) + 400 * 1025 == 12_697_264
    # GoogLeNet's, each kernel as deep as it is high
    two_d = {k: p for k, p in googlenet().named_parameters() if not k.startswith(("fc.", "aux"))}
    assert num_parameters(backbone) == sum(p.numel() * (p.shape[-1] if p.ndim == 4 else 1) for p in two_d.values())
    assert {k for k in backbone.body.state_dict() if not k.endswith("num_batches_tracked")} == I3D_KEYS
    assert (backbone.num_features, backbone.is_3d, backbone.input_size) == (1024, True, 224)
    names = ["Conv3d_1a_7x7", "Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5c"]
    sizes = map_sizes(backbone, torch.zeros(2, 64, 3, 224, 224, dtype=torch.uint8), names)
    assert [sizes[name] for name in names] == [  # paper, Fig. 3
        (64, 32, 112, 112),
        (192, 32, 56, 56),
        (480, 32, 28, 28),
        (832, 16, 14, 14),
        (1024, 8, 7, 7),
    ]
    assert sizes["out"] == (1024, 8, 7, 7)
    assert map_sizes(backbone, torch.zeros(1, 10, 3, 224, 224), [])["out"] == (1024, 2, 7, 7)


@pytest.mark.parametrize(("name", "width"), [("i3d_x0_5", 512), ("i3d_x0_25", 256)])
def test_slim_i3d_has_every_width_times_the_factor(name, width, tmp_path):
    backbone = backbones.build(name, flow_length=10)
    full = i3d.I3D(2).state_dict()
    for key, value in backbone.body.state_dict().items():
        if value.ndim:
            assert value.shape[0] * 1024 == full[key].shape[0] * width
    assert backbone.num_features == width
    assert map_sizes(backbone, torch.zeros(1, 10, 2, 64, 64), [])["out"] == (width, 2, 2, 2)
    with pytest.raises(CcsError, match=f"nobody publishes weights of {name}"):
        backbones.build(name, weights="imagenet")


def test_same_padding_is_that_of_tensorflow():
    torch.manual_seed(0)
    # per dimension ceil(n / 2) outputs of a window of 7: 10 -> 5 needs 15 inputs, 9 -> 5 needs 15, 8 -> 4 needs 13
    unit, x = i3d.Unit(2, 3, 7, stride=2).eval(), torch.randn(1, 2, 10, 9, 8)
    expected = F.conv3d(F.pad(x, (2, 3, 3, 3, 2, 3)), unit.conv3d.weight, stride=2)
    with torch.no_grad():
        torch.testing.assert_close(unit(x), expected.clamp(min=0) / 1.001**0.5)
    # a window of 3: 5 -> 3 needs 7, 8 -> 4 needs 9; of 1 with stride 1: nothing
    x = torch.rand(1, 2, 5, 8, 5)
    padded = F.pad(x, (1, 1, 0, 1, 1, 1), value=-torch.inf)
    assert torch.equal(i3d.MaxPool((3, 3, 3), (2, 2, 2))(x), F.max_pool3d(padded, 3, 2))
    padded = F.pad(x, (1, 1, 0, 1), value=-torch.inf)
    assert torch.equal(i3d.MaxPool((1, 3, 3), (1, 2, 2))(x), F.max_pool3d(padded, (1, 3, 3), (1, 2, 2)))
    padded = F.pad(x, (0, 1, 0, 0, 0, 1), value=-torch.inf)  # a window of 2: 5 -> 3 needs 6
    assert torch.equal(i3d.MaxPool((2, 2, 2), (2, 2, 2))(x), F.max_pool3d(padded, 2, 2))


def test_inflation_takes_every_tensor_of_googlenet_once():
    source = {k: v for k, v in googlenet().state_dict().items() if not k.endswith("num_batches_tracked")}
    numbered = {key: torch.full(value.shape, float(i)) for i, (key, value) in enumerate(source.items())}
    used = []
    for value in i3d.inflate(numbered).values():
        total = value.sum(2) if value.ndim == 5 else value
        number = round(total.flatten()[0].item())
        torch.testing.assert_close(total, numbered[list(source)[number]])
        used.append(list(source)[number])
    assert sorted(used) == sorted(k for k in source if not k.startswith(("fc.", "aux")))


def test_inflated_googlenet_sees_in_a_boring_video_what_it_sees_in_the_image(download):
    two_d = googlenet()
    asked = download(two_d.state_dict())
    torch.manual_seed(1)
    body = backbones.build("i3d", weights="imagenet").body.eval()
    assert "googlenet" in asked["url"]
    assert asked["check_hash"]
    pairs = [(getattr(body, f"Mixed_{m}"), block) for m, block in zip(MIXED, inceptions(two_d), strict=True)]
    pairs += [(body.Conv3d_2b_1x1, two_d.conv2), (body.Conv3d_2c_3x3, two_d.conv3)]
    with torch.no_grad():
        for three_d, image_network in pairs:
            conv = next(m for m in image_network.modules() if isinstance(m, nn.Conv2d))
            image = torch.rand(1, conv.in_channels, 5, 5)
            video = image[:, :, None].expand(-1, -1, 3, -1, -1)
            torch.testing.assert_close(three_d(video)[:, :, 1], image_network(image), rtol=1e-4, atol=1e-5)
        image = torch.rand(1, 3, 16, 16)
        video = image[:, :, None].expand(-1, -1, 16, -1, -1)
        two_d.conv1.conv.padding = (0, 0)  # the one difference: SAME pads an even image by 2 and 3, GoogLeNet by 3
        expected = two_d.conv1(F.pad(image, (2, 3, 2, 3)))
        torch.testing.assert_close(body.Conv3d_1a_7x7(video)[:, :, 3], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("load_weights", [True, False])
def test_a_whole_video_that_stands_still_is_to_inflated_weights_the_image_and_to_published_ones_has_black_around_it(
    download, tmp_path, load_weights
):
    """Ten frames, whose every instant in the last map sees both ends; also in the network that a checkpoint fills."""
    two_d = googlenet()
    download(two_d.state_dict())
    image = torch.rand(1, 3, 64, 64)
    video = image[:, :, None].expand(-1, -1, 10, -1, -1)
    state = i3d.inflate(two_d.state_dict())
    torch.save(state, tmp_path / "i3d.pt")
    two_d.conv1.conv.padding = (0, 0)  # the one difference: SAME pads an even image by 2 and 3, GoogLeNet by 3
    modules = [two_d.conv1, two_d.maxpool1, two_d.conv2, two_d.conv3, two_d.maxpool2, *inceptions(two_d)]
    modules[7:7], modules[13:13] = [two_d.maxpool3], [two_d.maxpool4]
    body = backbones.build("i3d", weights="imagenet", load_weights=load_weights).body.eval()
    body.load_state_dict(state, strict=False)
    published = backbones.build("i3d", weights=str(tmp_path / "i3d.pt")).body.eval()
    with torch.no_grad():
        expected = nn.Sequential(*modules)(F.pad(image, (2, 3, 2, 3)))[:, :, None].expand(-1, -1, 2, -1, -1)
        torch.testing.assert_close(body(video), expected, rtol=1e-3, atol=1e-3)
        black = torch.zeros(1, 3, 2, 64, 64), torch.zeros(1, 3, 3, 64, 64)
        first = published.Conv3d_1a_7x7
        inside = F.conv3d(F.pad(torch.cat([black[0], video, black[1]], 2), (2, 3, 2, 3)), first.conv3d.weight, stride=2)
        torch.testing.assert_close(first(video), F.relu(first.bn(inside)))
        assert not torch.allclose(published(video), expected, rtol=0.1, atol=0.1)


def inceptions(network: torchvision.models.GoogLeNet) -> list[nn.Module]:
    return [child for name, child in network.named_children() if name.startswith("inception")]


@pytest.mark.parametrize("wrap", [False, True])
def test_i3d_loads_published_files(tmp_path, wrap):
    """Both streams have one file each: rgb_imagenet.pt with 3 input channels, flow_imagenet.pt with 2."""
    torch.manual_seed(0)
    for stream, channels in ((None, 3), (10, 2)):
        own = i3d.I3D(channels).state_dict()
        state = {key: torch.rand(own[key].shape) for key in sorted(I3D_KEYS)}
        saved = state | {"logits.conv3d.weight": torch.rand(400, 1024, 1, 1, 1), "logits.conv3d.bias": torch.rand(400)}
        torch.save({f"module.{k}": v for k, v in saved.items()} if wrap else saved, tmp_path / "i3d.pt")
        loaded = backbones.build("i3d", weights=str(tmp_path / "i3d.pt"), flow_length=stream).body.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())


# Networks of torchvision

WIDTHS = {"resnet18": 512, "shufflenet_v2_x0_5": 1024, "densenet121": 1024, "regnet_y_400mf": 440, "vgg11_bn": 512}
WIDTHS |= {"swin_t": 768, "mobilenet_v3_small": 576, "squeezenet1_1": 512, "mnasnet0_5": 1280, "convnext_tiny": 768}
WIDTHS |= {"efficientnet_b0": 1280}
ONE_LINEAR_LAYER = ("swin_t", "resnet18", "shufflenet_v2_x0_5", "densenet121", "regnet_y_400mf", "mnasnet0_5")


@pytest.mark.parametrize("name", WIDTHS)
def test_features_are_what_torchvision_classifies(name):
    """The pooled features are what the network's own classifier receives, where that is one linear layer."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    after = torch.rand(1)
    torch.manual_seed(0)
    backbone = backbones.build(name).eval()
    assert torch.equal(torch.rand(1), after)  # no random numbers but those of the parameters
    assert backbone.num_features == WIDTHS[name]
    assert not backbone.is_3d
    assert backbone.body.state_dict().keys() <= model.state_dict().keys()
    if name not in ONE_LINEAR_LAYER:
        return
    seen = {}
    classifier = next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear))
    classifier.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    transform = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()
    with torch.no_grad():
        model(torchvision.transforms.functional.normalize(image / 255, transform.mean, transform.std))
        features = backbone(image[:, None])
    torch.testing.assert_close(features.mean((2, 3, 4)), seen["x"], rtol=1e-4, atol=1e-5)


def test_torchvision_downloads_are_checked_and_a_failure_says_where_to_put_the_file(download):
    source = torchvision.models.densenet121()
    # DenseNet's published files have the names of torchvision 0.1
    old = {re.sub(r"(denselayer\d+\.(norm|conv))([12])", r"\1.\3", k): v for k, v in source.state_dict().items()}
    assert old.keys() != source.state_dict().keys()
    asked = download(old)
    body = backbones.build("densenet121", weights="imagenet").body
    assert asked["check_hash"]
    for key, value in body.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])
    download(urllib.error.URLError("no route to host"))
    with pytest.raises(CcsError, match=r"no route.*https://.*/resnet18-\w+\.pth.*checkpoints"):
        backbones.build("resnet18", weights="imagenet")


def test_unknown_networks_are_refused():
    assert [backbones.is_3d(name) for name in ("i3d", "i3d_x0_25", "bninception", "vgg16")] == [
        True,
        True,
        False,
        False,
    ]
    for name in ("resnet19", "vit_b_16", "googlenet"):
        for call in (backbones.build, backbones.is_3d):
            with pytest.raises(CcsError, match=f"{name}.*bninception, i3d, .*resnet18"):
                call(name)


# What all have in common


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5"])
def test_the_first_statistics_of_flow_are_its_own_after_forty_steps_whatever_the_networks_momentum(name, tmp_path):
    """0.1, 0.01 and 0.0003: what the first layer gives in training it gives afterwards."""
    torch.manual_seed(0)
    torch.save(backbones.build(name).body.state_dict(), tmp_path / "weights.pt")
    body = backbones.build(name, weights=str(tmp_path / "weights.pt"), flow_length=5).body.train()
    modules = list(body.modules())
    convolution = next(module for module in modules if isinstance(module, nn.Conv2d))
    norm = next(module for module in modules if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        maps = convolution(torch.randn(8, 10, 32, 32))
        for _ in range(40):
            trained = norm(maps)
        torch.testing.assert_close(norm.eval()(maps), trained, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["bninception", "i3d", "resnet18", "squeezenet1_1"])
def test_flow_starts_from_rgb_weights_or_from_its_own(name, tmp_path):
    torch.manual_seed(0)
    path, source = tmp_path / "weights.pt", backbones.build(name).body.state_dict()
    first = next(key for key, value in source.items() if value.ndim > 3)
    torch.save(source, path)
    channels = 2 if name == "i3d" else 10
    flow = backbones.build(name, weights=str(path), flow_length=5).body.state_dict()
    torch.testing.assert_close(flow[first], torch.stack([source[first].sum(1) / 3] * channels, dim=1))
    # what colours vary by says nothing of flow, and a running average would forget it only after a hundred steps
    statistics = [key for key in source if key.endswith(("running_mean", "running_var"))][:2]
    assert not any(flow[key].any() for key in statistics)
    assert all(torch.equal(flow[key], value) for key, value in source.items() if key not in (first, *statistics))

    own = source | {first: torch.rand_like(flow[first])}
    torch.save(own, path)
    flow = backbones.build(name, weights=str(path), flow_length=5).body.state_dict()
    assert all(torch.equal(flow[key], own[key]) for key in (first, *statistics))
    with pytest.raises(CcsError, match=rf"{re.escape(first)} \(\d+, {channels}, .*instead of \(\d+, 3, .*3 input"):
        backbones.build(name, weights=str(path))
    own[first] = own[first][:, :1]
    torch.save(own, path)
    with pytest.raises(CcsError, match=rf"{re.escape(first)} \(\d+, 1, .*3 \(RGB\) or {channels} \(flow\)"):
        backbones.build(name, weights=str(path), flow_length=5)


def test_files_that_do_not_fit_are_refused_with_their_keys(tmp_path):
    path = tmp_path / "bad.pt"
    state = torchvision.models.resnet18(num_classes=7).state_dict()
    torch.save(state, path)
    assert torch.equal(backbones.build("resnet18", weights=str(path)).body.conv1.weight, state["conv1.weight"])
    state["extra.weight"] = torch.zeros(1)
    del state["layer1.0.conv1.weight"]
    state["layer2.0.bn1.weight"] = torch.zeros(3)
    torch.save(state, path)
    expected = r"bad\.pt.*layer1\.0\.conv1\.weight.*extra\.weight.*layer2\.0\.bn1\.weight \(3,\) instead of \(128,\)"
    with pytest.raises(CcsError, match=expected):
        backbones.build("resnet18", weights=str(path))
    with pytest.raises(CcsError, match=r"Missing: conv1_7x7_s2\.weight, .* and \d+ more"):
        backbones.build("bninception", weights=str(path))
    for content in ([1, 2], {"model": {}, "epoch": 3}, {"state_dict": {"conv1.weight": "text"}}):
        torch.save(content, path)
        with pytest.raises(CcsError, match=r"bad\.pt holds .*expected a state dict of resnet18"):
            backbones.build("resnet18", weights=str(path))
    # 1e300 is finite in the file and infinite in the network
    for value in (float("nan"), float("inf"), 1e300):
        odd = torchvision.models.resnet18().state_dict()
        odd["layer1.0.conv1.weight"] = torch.full((64, 64, 3, 3), value, dtype=torch.float64)
        torch.save(odd, path)
        with pytest.raises(CcsError, match=r"bad\.pt has NaN or infinity.* in layer1\.0\.conv1\.weight: .*Give other"):
            backbones.build("resnet18", weights=str(path))
    path.write_text("no weights")
    with pytest.raises(CcsError, match=r"bad\.pt cannot be read"):
        backbones.build("resnet18", weights=str(path))
    with pytest.raises(CcsError, match=r"nowhere\.pt is no file"):
        backbones.build("i3d", weights=str(tmp_path / "nowhere.pt"))


def normalised(name: str, x: torch.Tensor, flow_length: int | None = None) -> torch.Tensor:
    """What the body receives."""
    backbone = backbones.build(name, flow_length=flow_length)
    backbone.body = nn.Identity()
    return backbone(x)


@pytest.mark.parametrize("name", ["bninception", "resnet18", "i3d_x0_25"])
def test_zero_flow_is_exactly_zero_and_pairs_are_stacked_in_order(name):
    still = torch.full((1, 5, 2, 4, 4), 128, dtype=torch.uint8)
    assert torch.count_nonzero(normalised(name, still, 5)) == 0
    x = still.clone()
    x[0, 3, 1] = 129  # y of the fourth pair
    moved = normalised(name, x, 5).nonzero()[0].tolist()
    assert moved[:3] == ([0, 1, 3] if name == "i3d_x0_25" else [0, 7, 0])
    deviation = {"bninception": 1, "resnet18": (0.229 + 0.224 + 0.225) / 3 * 255, "i3d_x0_25": 127.5}[name]
    torch.testing.assert_close(normalised(name, x, 5).max(), torch.tensor(1 / deviation))


def test_colours_are_normalised_as_the_weights_expect():
    black = torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8)
    red = black.clone()
    red[:, :, 0] = 255
    assert normalised("bninception", black)[0, :, 0, 0, 0].tolist() == [-104, -117, -128]  # blue, green, red
    assert normalised("bninception", red)[0, :, 0, 0, 0].tolist() == [-104, -117, 127]
    assert normalised("i3d_x0_25", red)[0, :, 0, 0, 0].tolist() == [1, -1, -1]
    clip = torch.arange(4, dtype=torch.uint8).view(1, 4, 1, 1, 1).expand(-1, -1, 3, 2, 2)
    assert torch.equal(normalised("i3d_x0_25", clip)[0, 0, :, 0, 0], torch.arange(4) / 127.5 - 1)
    assert backbones.build("resnet18").mean == pytest.approx((123.675, 116.28, 103.53))
    assert backbones.build("bninception").mean == (128, 117, 104)
    assert normalised("bninception", red.double()).shape == (1, 3, 1, 2, 2)


@pytest.mark.parametrize("shape", [(1, 2, 3, 32, 32), (1, 1, 1, 32, 32), (1, 1, 2, 32, 32)])
def test_snippets_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"takes \(B, 1, 3, H, W\)"):
        backbones.build("resnet18")(torch.zeros(shape))
