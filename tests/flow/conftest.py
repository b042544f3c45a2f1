"""Fixtures of the tests of optical flow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("cuda_on_cpu.cpp")


def compile_for_cpu(folder: Path) -> None:
    """Put libcuda.so.1 into a folder; benchmarks/gpu/host.py does so too."""
    options = ["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fvisibility=hidden", "-Wno-unknown-pragmas"]
    line = ["g++", *options, "-shared", "-fPIC", "-DROWS=2", "-o", folder / "libcuda.so.1", SOURCE]
    subprocess.run(line, check=True)


@pytest.fixture(scope="session")
def cuda_on_cpu(tmp_path_factory) -> dict[str, str]:
    """Environment variables with which a new process finds a GPU: cuda_on_cpu.cpp, and kernels of 2 rows a lane."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the CUDA driver is a libcuda.so.1 on Linux only")
    pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings")
    if not shutil.which("g++"):
        pytest.skip("the kernels are compiled for the CPU by g++, which is not installed")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    compile_for_cpu(folder)
    folders = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}
