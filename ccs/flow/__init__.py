"""Optical flow: `engines` computes TV-L1, `__main__` is the stage, `tool` the command `ccs flow` for any videos.

`ccs.flow.estimate` is that of `engines`, loaded when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccs.flow.engines import estimate as estimate


def __getattr__(name: str) -> object:
    if name == "estimate":
        return importlib.import_module("ccs.flow.engines").estimate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "estimate"})
