"""Backbones: networks that turn an image or a flow stack into a map of features.

Each is a module (B, C_in, H, W) -> (B, num_features, h, w) that carries its feature width and the normalisation that
its weights expect. `build` is the one way to get one.
"""

from __future__ import annotations

from ccs.models.backbones.torchvision import Backbone, build

__all__ = ["Backbone", "build"]
