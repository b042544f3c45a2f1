"""What this machine has and what the kernels take of it: packages, drivers, time to compile, registers, blocks."""

import importlib
import pkgutil
import platform
import time
from importlib import metadata

import common

PACKAGES = (
    "torch torchvision numpy numba cuda-bindings cuda-core cuda-pathfinder nvidia-cuda-nvrtc nvidia-cuda-runtime "
    "opencv-python-headless opencv-contrib-python-headless h5py hdf5plugin simplejpeg pydantic accelerate pandas"
)


def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


common.say(step="packages", python=platform.python_version(), **{name: version(name) for name in PACKAGES.split()})

import ccs

failing = {}
for module in pkgutil.walk_packages(ccs.__path__, "ccs."):
    try:
        importlib.import_module(module.name)
    except BaseException as error:
        failing[module.name] = f"{type(error).__name__}: {str(error)[:100]}"
common.say(step="imports", failing=failing)

from ccs.flow.engines import BACKENDS

for name, backend in BACKENDS.items():
    start = time.perf_counter()
    reason = backend.available()
    seconds = round(time.perf_counter() - start, 2)
    common.say(step="backend", backend=name, available=reason or True, seconds=seconds)

common.engine()
from cuda.bindings import driver, nvrtc

from ccs.flow.gpu_device import SCHEDULE_THREADS, THREADS, Device, call, compile_kernels
from ccs.flow.gpu_engine import KERNELS

device = Device(0)
clock = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CLOCK_RATE
start = time.perf_counter()
code, _ = compile_kernels(device.capability, device.rows)
common.say(
    step="device",
    device=device.name,
    capability=device.capability,
    multiprocessors=device.num_multiprocessors,
    most_mhz=call(driver.cuDeviceGetAttribute, clock, device.handle) // 1000,
    rows=device.rows,
    memory_free_and_total=call(driver.cuMemGetInfo),
    driver=call(driver.cuDriverGetVersion),
    nvrtc=nvrtc.nvrtcVersion()[1:],
    compile_s=round(time.perf_counter() - start, 2),
    code_bytes=len(code),
)
attributes = driver.CUfunction_attribute
FACTS = {
    "registers": attributes.CU_FUNC_ATTRIBUTE_NUM_REGS,
    "local_bytes": attributes.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
    "static_shared_bytes": attributes.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
}
for name in (*KERNELS, "schedule", "pyramid"):
    function = device.kernel(name)
    common.say(
        step="kernel",
        kernel=name,
        **{fact: call(driver.cuFuncGetAttribute, attribute, function) for fact, attribute in FACTS.items()},
        dynamic_shared_bytes=device.shared_bytes(name),
        threads=SCHEDULE_THREADS if name == "schedule" else THREADS,
        blocks_at_once=1 if name == "schedule" else device.num_blocks(name),
    )
