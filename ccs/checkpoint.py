"""Checkpoints of training: what one holds, how it is written and how it is checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ccs.stage import CcsError, atomic

FORMAT = 1
KEYS = ("format", "model", "optimizer", "schedule", "epoch", "random", "dataset", "split", "run", "seed", "classes")
KEYS += ("videos", "bound")


def write(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them, at least `KEYS` and `settings`) as one file."""
    with atomic(path) as part:
        torch.save({"format": FORMAT, **state}, part)


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, executing nothing in it.

    Raises:
        CcsError: no such file, not a checkpoint of ccs, or of another format.
    """
    if not Path(path).is_file():
        raise CcsError(f"{path}: no such checkpoint; train one first (rule train, or `ccs train --help`)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CcsError(f"{path}: not a readable checkpoint ({error}); delete it and train again") from error
    missing = [key for key in (*KEYS, "settings") if key not in state] if isinstance(state, dict) else list(KEYS)
    if missing:
        raise CcsError(f"{path}: not a checkpoint of ccs, it lacks {', '.join(missing)}; give one that ccs train wrote")
    if state["format"] != FORMAT:
        raise CcsError(f"{path}: checkpoint format {state['format']}, this version reads {FORMAT}; train again")
    return state
