"""Print the lock without what a machine without a GPU can do without: `python envs/cpu.py [--torch-apart]`.

PyTorch's build for GPUs, which the package index has for Linux, loads most of NVIDIA's libraries when it starts, GPU or
not. `LEFT_OUT` are those that it does not, and Triton, whose code is for GPUs alone. All that NVIDIA has can be left
out under PyTorch's own build for CPUs; then this prints the lock without PyTorch too, and with --torch what to install.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent / "requirements.lock"
TORCH = ("torch", "torchvision")
LEFT_OUT = ("triton", "nvidia-cusolver", "nvidia-cuda-cccl", "nvidia-nvtx")
# compile this project's own kernels and show their code, also where there is no GPU: tests do
KEPT = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvdisasm")


def cpu_lock(lock: str, torch_apart: bool = False) -> str:
    """The lock without `LEFT_OUT`; `torch_apart`, without PyTorch and NVIDIA's libraries for it."""
    head, *entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return head + "".join(entry for entry in entries if not _is_left_out(entry.split("==")[0], torch_apart))


def torch_requirements(lock: str) -> list[str]:
    """PyTorch as it is locked; `torch==2.15.0` is met by its build 2.15.0+cpu as well."""
    return [f"{name}=={re.search(rf'^{name}==([^ ]+)', lock, re.MULTILINE)[1]}" for name in TORCH]


def _is_left_out(name: str, torch_apart: bool) -> bool:
    of_torch = name in TORCH or (name.startswith(("nvidia-", "cuda-toolkit")) and name not in KEPT)
    return name in LEFT_OUT or (torch_apart and of_torch)


if __name__ == "__main__":
    text = LOCK.read_text()
    if "--torch" in sys.argv:
        print(*torch_requirements(text))
    else:
        print(cpu_lock(text, "--torch-apart" in sys.argv), end="")
