"""What this machine has: packages, where libnvvm is found, the kernel's registers, the time to compile it."""

import time
from importlib import metadata

import common

PACKAGES = (
    "torch torchvision numpy numba numba-cuda cuda-bindings cuda-core cupy-cuda13x nvidia-nvjitlink "
    "nvidia-cuda-nvrtc nvidia-nvvm opencv-python-headless opencv-contrib-python-headless h5py hdf5plugin "
    "accelerate pandas"
)
for name in PACKAGES.split():
    try:
        print(f"{name}=={metadata.version(name)}")
    except metadata.PackageNotFoundError:
        print(f"{name}: none")
import torch

print(
    "torch",
    torch.cuda.is_available(),
    torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    torch.backends.cudnn.version(),
)
try:
    from cuda.pathfinder import load_nvidia_dynamic_lib

    for name in ("nvvm", "nvJitLink", "nvrtc"):
        try:
            found = load_nvidia_dynamic_lib(name)
            print(name, found.abs_path, found.found_via if hasattr(found, "found_via") else "")
        except Exception as error:
            print(name, "NOT FOUND", " ".join(str(error).split())[:300])
except Exception as error:
    print("pathfinder", error)
import importlib
import pkgutil

import ccs

bad = {}
for module in pkgutil.walk_packages(ccs.__path__, "ccs."):
    try:
        importlib.import_module(module.name)
    except BaseException as error:
        bad[module.name] = f"{type(error).__name__}: {str(error)[:100]}"
common.say(step="imports", failing=bad)
from ccs.flow.engines import BACKENDS

for name, backend in BACKENDS.items():
    print("backend", name, backend.available() or "available")
gpu = common.engine()
import numpy as np

from ccs.flow import gpu_kernels
from ccs.flow.settings import Parameters

start = time.perf_counter()
gpu.estimate_videos([np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8)], Parameters(), 1 << 30)
first = time.perf_counter() - start
step = gpu_kernels.build(gpu._tile or gpu_kernels.Tile())
for signature, kernel in step.overloads.items():
    facts = {
        k: getattr(kernel, k, None)
        for k in ("regs_per_thread", "local_mem_per_thread", "shared_mem_per_block", "max_threads_per_block")
    }
    common.say(step="kernel", first_call_s=round(first, 1), **facts)
