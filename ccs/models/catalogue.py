"""The backbones by name: a line for each of our own, with its module, and the list of torchvision's.

Nothing is imported, so that a configuration is checked without PyTorch. The module of a backbone is loaded by its name
here, and the rules count its code for the runs that use it (`network_code` in common.smk).
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """module: has `build(name, weights=, flow_length=)`. is_3d: convolves over time.

    unpublished: why there are no weights called imagenet, and what to do; "" where there are.
    """

    module: str
    is_3d: bool = False
    unpublished: str = ""


_NO_BNINCEPTION = (
    "torchvision has no weights of BN-Inception; fetch bn_inception-9f5701afb96c8044.pth (yjxiong/tsn-pytorch) or "
    "bn_inception-52deb4733.pth (Cadene/pretrained-models.pytorch) and give its path, or none"
)
_NO_SLIM = "slim versions of I3D have no pretrained weights; set it to none or take the backbone i3d"

OWN = {
    "bninception": Entry("ccs.models.backbones.bninception", unpublished=_NO_BNINCEPTION),
    "i3d": Entry("ccs.models.backbones.i3d", is_3d=True),
    "i3d_x0_5": Entry("ccs.models.backbones.i3d", is_3d=True, unpublished=_NO_SLIM),
    "i3d_x0_25": Entry("ccs.models.backbones.i3d", is_3d=True, unpublished=_NO_SLIM),
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
