"""A CUDA device by its driver: contexts, memory, and the kernels of tvl1.cu, compiled by NVRTC once and then kept.

`cuda.bindings` (NVIDIA's own, which PyTorch brings) is imported when first needed, so that machines without it can
import this module. No CUDA toolkit is needed: NVRTC is a wheel.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ccs.stage import atomic

SOURCE = Path(__file__).with_name("tvl1.cu")
# no product fused with a sum unless the source says so: every rounding is OpenCV's
OPTIONS = ("--std=c++17", "-fmad=false", "--ptxas-options=-v")
MIN_CAPABILITY = (7, 5)  # of devices; CUDA 13 compiles for no older ones
THREADS = 256  # of a block
SCHEDULE_THREADS = 1024
ALIGNMENT = 256  # bytes, of arrays in device memory
# rows of a lane, and bytes of shared memory that a block must be allowed for them: the more, the less tiles overlap;
# with 6 the iterations spill registers
ROWS = {5: 96 << 10, 4: 60 << 10, 2: 0}


class CudaError(Exception):
    """A call of CUDA failed."""


def call(function: Any, *arguments: object) -> Any:
    """What a function of `cuda.bindings.driver` returns; `CudaError` where it says that it failed."""
    error, *values = function(*arguments)
    if error:
        from cuda.bindings import driver

        (_, text) = driver.cuGetErrorString(error)
        raise CudaError(f"{function.__name__}: {error.name}: {text.decode() if text else ''}")
    return values[0] if len(values) == 1 else tuple(values)


def num_devices() -> int:
    """CUDA devices of those visible (CUDA_VISIBLE_DEVICES); 0 where there is no driver."""
    try:
        from cuda.bindings import driver

        call(driver.cuInit, 0)
        return call(driver.cuDeviceGetCount)
    except Exception:  # whatever is wrong with an installation, there is no device to use
        return 0


def compiled(capability: tuple[int, int], rows: int, anew: bool = False) -> bytes:
    """The kernels for devices of a capability, from the cache folder where they are there; else they are put there."""
    from cuda.bindings import nvrtc

    source = SOURCE.read_bytes()
    version = nvrtc.nvrtcVersion()[1:]
    key = hashlib.sha256(repr((source, OPTIONS, version, capability, rows)).encode()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(base, "ccs", f"sm{capability[0]}{capability[1]}-{key}.cubin")
    if not anew:
        with suppress(OSError):
            return path.read_bytes()
    found = ".".join(map(str, capability))
    print(f"ccs: flow: compiling the flow engine for GPUs of compute capability {found}, once", file=sys.stderr)
    code, _ = compile_kernels(capability, rows)
    with suppress(Exception):  # without a folder to keep it in, every process compiles it: two seconds
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            part.write_bytes(code)
    return code


def compile_kernels(capability: tuple[int, int], rows: int) -> tuple[bytes, str]:
    """Machine code of tvl1.cu for devices of a capability, or PTX for one that NVRTC does not know; ptxas's report."""
    from cuda.bindings import nvrtc

    number = 10 * capability[0] + capability[1]
    _, known = nvrtc.nvrtcGetSupportedArchs()
    exact = number in known
    target = f"sm_{number}" if exact else f"compute_{max(arch for arch in known if arch <= number)}"
    options = [f"--gpu-architecture={target}".encode(), f"-DROWS={rows}".encode(), *(o.encode() for o in OPTIONS)]
    _, program = nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], [])
    try:
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
        nvrtc.nvrtcGetProgramLog(program, log)
        if error:
            raise CudaError(f"nvrtcCompileProgram: {error.name}: {log.decode(errors='replace')}")
        size, read = (
            (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN) if exact else (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        )
        code = b" " * size(program)[1]
        read(program, code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return code, log.decode(errors="replace")


class Device:
    """One CUDA device, for calls within `current`; `CudaError` where it cannot be used."""

    def __init__(self, index: int):
        from cuda.bindings import driver

        self.driver = driver
        call(driver.cuInit, 0)
        self.handle = call(driver.cuDeviceGet, index)
        self.name = call(driver.cuDeviceGetName, 128, self.handle).split(b"\0")[0].decode()
        attribute = driver.CUdevice_attribute
        self.capability = (
            self._attribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            self._attribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        )
        self.num_multiprocessors = self._attribute(attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        most = self._attribute(attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        self.rows = next(rows for rows, needed in ROWS.items() if most >= needed)
        # that of PyTorch too, not one more
        self.context = call(driver.cuDevicePrimaryCtxRetain, self.handle)

    def _attribute(self, attribute: Any) -> int:
        return call(self.driver.cuDeviceGetAttribute, attribute, self.handle)

    def make_current(self) -> None:
        """For calls of this thread, for ever."""
        call(self.driver.cuCtxSetCurrent, self.context)

    @contextmanager
    def current(self) -> Generator[None]:
        """For calls of this thread; afterwards it has the device that it had, which may be PyTorch's."""
        call(self.driver.cuCtxPushCurrent, self.context)
        try:
            yield
        finally:
            self.driver.cuCtxPopCurrent()

    def release(self) -> None:
        """Let go of the context: it ends with its last user."""
        call(self.driver.cuDevicePrimaryCtxRelease, self.handle)

    @cache  # noqa: B019 - a process has a device or two
    def kernel(self, name: str) -> Any:
        """The function `name` of tvl1.cu."""
        function = call(self.driver.cuModuleGetFunction, self._module(), name.encode())
        if size := self.shared_bytes(name):
            attribute = self.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            call(self.driver.cuFuncSetAttribute, function, attribute, size)
        return function

    def shared_bytes(self, name: str) -> int:
        """Shared memory that a block of a kernel gets when it is launched, as tvl1.cu lays it out."""
        if not name.startswith("iterate"):
            return 0
        constants, edges, sums = 40 * self.rows * THREADS, 4 * 32 * 9 * 8, 8 * THREADS * 4
        return constants + edges + sums

    @cache  # noqa: B019
    def _module(self) -> Any:
        try:
            return call(self.driver.cuModuleLoadData, compiled(self.capability, self.rows))
        except CudaError:  # what was kept may be damaged
            return call(self.driver.cuModuleLoadData, compiled(self.capability, self.rows, anew=True))

    def num_blocks(self, name: str) -> int:
        """Blocks of a kernel that run at the same time."""
        function = self.driver.cuOccupancyMaxActiveBlocksPerMultiprocessor
        found = call(function, self.kernel(name), THREADS, self.shared_bytes(name))
        return self.num_multiprocessors * max(1, found)

    def probe(self) -> None:
        """Compile the kernels, run the least of them and see what it did; `CudaError` unless it did it."""
        with self.current(), HostArray(self, (1,), np.int32) as answer:
            answer.array[0] = 0
            values = Arguments(ctypes.c_void_p(answer.address))
            call(self.driver.cuLaunchKernel, self.kernel("probe"), 1, 1, 1, 32, 1, 1, 0, 0, values.address, 0)
            call(self.driver.cuStreamSynchronize, 0)
            if answer.array[0] != 42:
                raise CudaError(f"{self.name}: a kernel that should write 42 wrote {answer.array[0]}")


class Arguments:
    """Arguments of a kernel, as the driver wants them: an address of their addresses."""

    def __init__(self, *values: Any):
        self._values = values
        self._addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        self.address = ctypes.addressof(self._addresses)


class HostArray:
    """Page-locked memory of the host that the device reads and writes by itself; `address` is the device's."""

    def __init__(self, device: Device, shape: Sequence[int], dtype: Any):
        driver = device.driver
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        self._driver = driver
        self._memory = call(driver.cuMemHostAlloc, size, driver.CU_MEMHOSTALLOC_DEVICEMAP)
        self.address = int(call(driver.cuMemHostGetDevicePointer, self._memory, 0))
        buffer = (ctypes.c_uint8 * size).from_address(int(self._memory))
        self.array = np.ndarray(shape, dtype, memoryview(buffer))

    def __enter__(self) -> HostArray:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def free(self) -> None:
        """Give the memory back; nothing may use it any more."""
        del self.array
        call(self._driver.cuMemFreeHost, self._memory)


class DeviceMemory:
    """Arrays in one piece of device memory: `addresses` by name, from their sizes in bytes."""

    def __init__(self, device: Device, sizes: dict[str, int]):
        self._driver = device.driver
        self._memory = call(self._driver.cuMemAlloc, total_bytes(sizes))
        self.addresses, offset = {}, int(self._memory)
        for name, size in sizes.items():
            self.addresses[name] = offset
            offset += _aligned(size)

    def free(self) -> None:
        """Give the memory back."""
        call(self._driver.cuMemFree, self._memory)


def total_bytes(sizes: dict[str, int]) -> int:
    """Device memory of arrays of these sizes."""
    return sum(map(_aligned, sizes.values()))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
