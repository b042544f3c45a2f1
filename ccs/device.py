"""Which device a stage computes on: the GPU where PyTorch has one, and where one was claimed for it no other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ccs.stage import CcsError

if TYPE_CHECKING:
    import torch

CLAIMED_GPUS = "CCS_GPUS"  # the environment variable in which `ccs.launch` tells a stage what it claimed for it


def choose_device() -> torch.device:
    """A GPU where PyTorch has one, else the CPU.

    Raises:
        CcsError: `ccs.launch` claimed GPUs for this process that PyTorch cannot use; on the CPU it would take weeks.
    """
    import torch  # takes seconds, and `ccs.launch` wants no more than the name above

    claimed = [gpu for gpu in os.environ.get(CLAIMED_GPUS, "").split(",") if gpu]
    usable = torch.cuda.is_available()
    if claimed and not (usable and torch.cuda.device_count() >= len(claimed)):
        found = f"{torch.cuda.device_count()} of them"
        if not usable:
            try:
                torch.cuda.init()
            except (RuntimeError, AssertionError) as error:
                found = f"none ({str(error).splitlines()[0].rstrip('.')})"
        raise CcsError(
            f"GPU {', '.join(claimed)}: expected PyTorch {torch.__version__} to use what this job was given, found "
            f"{found}. Install a driver that fits, or ask for no GPU: `CUDA_VISIBLE_DEVICES= snakemake ...` on this "
            "machine, gpu: 0 in a cluster's profile"
        )
    return torch.device("cuda" if usable else "cpu")
