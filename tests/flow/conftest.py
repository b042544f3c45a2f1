"""A GPU on which there is none: the CUDA driver and the engine's kernels, compiled for the CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("cuda_on_cpu.cpp")


@pytest.fixture(scope="session")
def cuda_on_cpu(tmp_path_factory) -> dict[str, str]:
    """Variables of the environment with which a process finds that GPU; they have to be set when it starts."""
    if not shutil.which("g++"):
        pytest.skip("needs g++ to compile the kernels for the CPU")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-march=native", "-shared", "-fPIC", "-fvisibility=hidden"]
    line = ["g++", *flags, "-Wno-unknown-pragmas", "-DROWS=2", "-o", folder / "libcuda.so.1", SOURCE]
    subprocess.run(line, check=True)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    return {"LD_LIBRARY_PATH": path, "XDG_CACHE_HOME": str(folder)}
