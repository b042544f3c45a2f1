"""BN-Inception: Ioffe & Szegedy 2015 (arXiv 1502.03167, Fig. 5), in the version that TSN uses (Wang et al., ECCV 2016).

The state dict has the keys of the published files, which come from Caffe and hence have these long names, biases before
batch norm, ceil-mode pooling and BGR inputs: bn_inception-9f5701afb96c8044.pth (yjxiong/tsn-pytorch) and
bn_inception-52deb4733.pth (Cadene/pretrained-models.pytorch) of ImageNet, and of Kinetics, with tensors under
`state_dict`, bninception_rgb_kinetics_init-d4ee618d3399.pth and, for 10 channels of flow,
bninception_flow_kinetics_init-1410c1ccb470.pth. The code that loads these (yjxiong/action-detection, ssn_models.py and
ssn_train.py) feeds them as it does the others.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccs.models import published
from ccs.models.backbones import weights as pretrained
from ccs.models.backbones.backbone import Backbone

MEAN, FLOW_MEAN = (128.0, 117.0, 104.0), (128.0, 128.0)  # RGB and (x, y); the deviation is 1
CLASSIFIER = ("fc.", "fc-action.", "fc_action.", "last_linear.")  # names in the files of Caffe, TSN and Cadene

# Output channels of each module: 1x1, (reduce, 3x3), (reduce, double 3x3), pool projection.
# Without a 1x1 and a projection it halves the map: stride 2, and the pooled input is passed on as it is.
MODULES = {
    "3a": (64, (64, 64), (64, 96), 32),
    "3b": (64, (64, 96), (64, 96), 64),
    "3c": (0, (128, 160), (64, 96), 0),
    "4a": (224, (64, 96), (96, 128), 128),
    "4b": (192, (96, 128), (96, 128), 128),
    "4c": (160, (128, 160), (128, 160), 128),
    "4d": (96, (128, 192), (160, 192), 128),
    "4e": (0, (128, 192), (192, 256), 0),
    "5a": (352, (192, 320), (160, 224), 128),
    "5b": (352, (192, 320), (192, 224), 128),
}


class BNInception(nn.Module):
    """(B, in_channels, H, W) -> (B, 1024, H / 32, W / 32): 7x7 for 224."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self._add("conv1_7x7_s2", in_channels, 64, 7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        width = self._add("conv2_3x3", 64, 192, 3)
        for module, (single, (reduce, out), (double_reduce, double_out), projection) in MODULES.items():
            name, stride = f"inception_{module}", 1 if single else 2
            total = self._add(f"{name}_1x1", width, single, 1) if single else width
            self._add(f"{name}_3x3_reduce", width, reduce, 1)
            total += self._add(f"{name}_3x3", reduce, out, 3, stride=stride)
            self._add(f"{name}_double_3x3_reduce", width, double_reduce, 1)
            self._add(f"{name}_double_3x3_1", double_reduce, double_out, 3)
            total += self._add(f"{name}_double_3x3_2", double_out, double_out, 3, stride=stride)
            total += self._add(f"{name}_pool_proj", width, projection, 1) if projection else 0
            width = total
        self.num_features = width

    def _add(self, name: str, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> int:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
        self.add_module(name, conv)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(out_channels))
        return out_channels

    def _unit(self, name: str, x: Tensor) -> Tensor:
        return F.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self._unit("conv1_7x7_s2", x), 3, 2, ceil_mode=True)
        x = self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", x))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for module in MODULES:
            x = self._inception(module, x)
        return x

    def _inception(self, module: str, x: Tensor) -> Tensor:
        name, (single, _, _, projection) = f"inception_{module}", MODULES[module]
        branches = [self._unit(f"{name}_1x1", x)] if single else []
        branches.append(self._unit(f"{name}_3x3", self._unit(f"{name}_3x3_reduce", x)))
        double = self._unit(f"{name}_double_3x3_1", self._unit(f"{name}_double_3x3_reduce", x))
        branches.append(self._unit(f"{name}_double_3x3_2", double))
        if not projection:
            # an odd map (never at 224, where the published network works) is padded to the size of the convolutions'
            odd = [size % 2 for size in x.shape[-2:]]
            branches.append(F.max_pool2d(x, 3, 2, padding=odd, ceil_mode=True))
        else:
            pool = F.max_pool2d if module == "5b" else F.avg_pool2d
            branches.append(self._unit(f"{name}_pool_proj", pool(x, 3, 1, padding=1)))
        return torch.cat(branches, dim=1)


def build(
    name: str = "bninception", *, weights: str = "none", flow_length: int | None = None, load_weights: bool = True
) -> Backbone:
    """BN-Inception; see `ccs.models.backbones.build`.

    Normalisation as in TSN: BGR, minus (104, 117, 128) (128 for flow), not divided.
    """
    body = BNInception(3 if flow_length is None else 2 * flow_length)
    if load_weights:
        of_name = functools.partial(_published, name, weights, flow=flow_length is not None)
        pretrained.load(body, weights, name=name, published=of_name, classifier=CLASSIFIER)
    mean = MEAN if flow_length is None else FLOW_MEAN
    return Backbone(
        body,
        num_features=body.num_features,
        mean=mean,
        std=(1.0,) * len(mean),
        bgr=flow_length is None,
        num_frames=flow_length or 1,
    )


def _published(name: str, weights: str, *, flow: bool) -> dict[str, Tensor]:
    return pretrained.read(published.fetch(name, weights, flow=flow), name)
