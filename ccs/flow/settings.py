"""TV-L1 optical flow: the settings of the stage `flow`, of the tool `ccs flow`, and of `ccs.flow.engines.estimate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ccs.settings import Ge, Gt, Integer, Le, Lt, NoBoolean, Number, OneOf, Text, by_name, settings
from ccs.stage import CcsError

# The engines by name, each with the module of its arithmetic; `ccs.flow.engines.BACKENDS` has the same.
ENGINES = {
    "native-cuda": "ccs.flow.gpu",
    "native": "ccs.flow.native",
    "opencv-cuda": "ccs.flow.opencv",
    "opencv": "ccs.flow.opencv",
}


@settings
class GpuSettings:
    """What the flow stage may take of a GPU; it changes no result."""

    gpu_memory: Annotated[Integer, Ge(1)] = 4 << 30
    """bytes that the flow stage may use on a GPU"""


@settings
class EngineSettings:
    """Who computes the flow, and what of it is kept in 8 bits."""

    backend: Annotated[Text, OneOf(("auto", *ENGINES))] = "auto"
    """auto is native-cuda where there is a GPU, else native"""
    bound: Annotated[Number, Gt(0)] = 20.0
    """largest displacement kept, in pixels"""


@settings
class Parameters:
    """Settings of TV-L1, named and preset as in OpenCV; greys count from 0 to 255."""

    tau: Annotated[Number, Gt(0), Le(0.25)] = 0.25
    """time step of the dual update"""
    lambda_: Annotated[Number, Gt(0)] = 0.15
    """weight of the data term; smaller is smoother"""
    theta: Annotated[Number, Gt(0)] = 0.3
    """coupling of data term and smoothness"""
    scales: Annotated[Integer, Ge(1)] = 5
    """pyramid levels at most; none has a side below 16 px"""
    scale_step: Annotated[Number, Ge(0.2), Lt(1)] = 0.8
    """size ratio of neighbouring levels"""
    warps: Annotated[Integer, Ge(1)] = 5
    """warps per level"""
    epsilon: Annotated[Number, Ge(0)] = 0.01
    """stop an iteration at this change, in pixels (root mean square)"""
    inner_iterations: Annotated[Integer, Ge(1)] = 30
    """iterations between median filters at most"""
    outer_iterations: Annotated[Integer, Ge(1)] = 10
    """median filters per warp at most"""
    median_filtering: Annotated[Literal[1, 3, 5], NoBoolean] = 5
    """side of the median filter in pixels, 1 for none; opencv-cuda has none"""
    gamma: Annotated[Number, Ge(0)] = 0.0
    """weight of the illumination term, 0 for none"""

    @classmethod
    def from_names(cls, values: Mapping[str, Any]) -> Parameters:
        """Parameters by name, `lambda` (as in the config) or `lambda_`; an unknown name is a `CcsError`."""
        names = by_name(cls())
        unknown = sorted(set(values) - {*names, "lambda_"})
        if unknown:
            raise CcsError(f"flow: unknown parameter {', '.join(unknown)}; there are {', '.join(names)}")
        return cls(**{"lambda_" if name == "lambda" else name: value for name, value in values.items()})

    def to_names(self) -> dict[str, Any]:
        """The same by the config's names: `lambda`, not `lambda_`."""
        return by_name(self)


@settings
class FlowSettings(Parameters, EngineSettings):
    """TV-L1 optical flow, with OpenCV's defaults."""

    def __post_init__(self) -> None:
        if self.gamma and self.backend.startswith("native"):
            raise ValueError(f"backend: {self.backend} has no illumination term: set it to auto, or gamma to 0")
