"""A checkpoint for the tools that apply it to any videos: which file is meant, and how its videos were prepared."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccs.flow.settings import Parameters
from ccs.frames.settings import FramesSettings
from ccs.scores import files_of_run
from ccs.stage import CcsError


class Preparation(NamedTuple):
    """How the videos of a checkpoint's training were prepared."""

    frames: FramesSettings
    parameters: Parameters  # of TV-L1
    bound: float  # of its flow in 8 bits, px


def find(path: str) -> str:
    """The checkpoint that is meant by a file, or by the folder of a run or of one of its seeds.

    Of several seeds the first is taken, and that is said on standard error. Raises `CcsError` for a folder without a
    checkpoint.
    """
    if not os.path.isdir(path):
        return path
    found = files_of_run(Path(path), "checkpoint.pt")
    if not found:
        raise CcsError(
            f"{path}: expected a checkpoint.pt, or the folder of a run such as "
            "results/runs/demo/split1/ccs, found no seed*/checkpoint.pt in it: correct the path, or train the run first"
        )
    if len(found) > 1:
        print(f"ccs: {path} has {len(found)} seeds: {found[0]} is taken", file=sys.stderr)
    return str(found[0])


def preparation(state: Mapping[str, Any], path: str) -> Preparation:
    """How the videos of the checkpoint at `path` were prepared; raises `CcsError` where it does not say."""
    try:
        found = state["preparation"]
        frames = FramesSettings(**found["frames"])
        flow = dict(found["flow"])
        bound = float(flow.pop("bound"))
        del flow["backend"]
        return Preparation(frames, Parameters.from_names(flow), bound)
    except (CcsError, KeyError, TypeError, ValueError) as error:
        raise CcsError(
            f"{path}: expected the settings of the stages frames and flow that its training shards were "
            f"made with, found {state['preparation']!r} ({error!r}): make the shards with this version and train again"
        ) from error
