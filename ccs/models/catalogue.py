"""The backbones by name: a line for each of our own, with its module, and the list of torchvision's.

And the names of their published weights.

Nothing is imported, so that a configuration is checked without PyTorch. The module of a backbone is loaded by its name
here, and the rules count its code for the runs that use it (`network_code` in common.smk).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Entry(NamedTuple):
    """module: has `build(name, weights=, flow_length=)`. is_3d: convolves over time.

    weights: the names of its published weights. flow_pairs: of these, those whose flow stream takes so many pairs of
    frames as channels, and no other number.
    """

    module: str
    is_3d: bool = False
    weights: tuple[str, ...] = ("imagenet",)
    flow_pairs: Mapping[str, int] = MappingProxyType({})


WEIGHTS = ("imagenet", "kinetics", "charades")  # no path is taken from them

OWN = {
    "bninception": Entry(
        "ccs.models.backbones.bninception", weights=("imagenet", "kinetics"), flow_pairs={"kinetics": 5}
    ),
    "i3d": Entry("ccs.models.backbones.i3d", is_3d=True, weights=WEIGHTS),
    "i3d_x0_5": Entry("ccs.models.backbones.i3d", is_3d=True, weights=()),
    "i3d_x0_25": Entry("ccs.models.backbones.i3d", is_3d=True, weights=()),
}

# A test compares them with what torchvision has.
TORCHVISION = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf
regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf
regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d
resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16
vgg16_bn vgg19 vgg19_bn wide_resnet101_2 wide_resnet50_2
"""

BACKBONES = OWN | {name: Entry("ccs.models.backbones.torchvision") for name in TORCHVISION.split()}


def unpublished(backbone: str, weights: str) -> str:
    """Why there are no weights called `weights` of a backbone, and what to do; "" where there are, or it is no name."""
    known = BACKBONES[backbone].weights
    if weights not in WEIGHTS or weights in known:
        return ""
    if not known:
        return f"nobody publishes weights of {backbone}: give none or the path of a state dict, or take i3d"
    return f"{backbone} has {' and '.join(known)}: give {'one of these' if known[1:] else 'it'}, none or a path"
