"""The CUDA engine without a GPU, its kernels compiled for the CPU, against OpenCV to the bit; its machine code; with a
GPU (-m gpu) the engine itself.

`cuda_on_cpu.cpp` stands in for the CUDA driver. A process finds it when it starts, so the engine runs in processes of
its own: this file as a program, which computes all flow that the tests look at.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from importlib import util
from pathlib import Path
from types import ModuleType

import cv2
import llvmlite.binding
import numpy as np
import pytest

from ccs.flow import gpu, gpu_device
from ccs.flow.engines import estimate
from ccs.flow.pyramid import level_sizes, pyramid
from ccs.flow.quantise import quantise
from ccs.flow.settings import Parameters

ROOT = Path(__file__).resolve().parent.parent.parent
FEW = {"scales": 2, "warps": 2, "inner_iterations": 4, "outer_iterations": 2}
PLENTY = 1 << 30

# see test_native
SAME_BITS = platform.machine() == "x86_64" and llvmlite.binding.get_host_cpu_features().get("fma", False)
needs_cuda_bindings = pytest.mark.skipif(not gpu._installed("cuda-bindings"), reason="needs cuda-bindings")
pytestmark = needs_cuda_bindings


def moving(num_frames: int, height: int, width: int) -> np.ndarray:
    """A texture that moves by 0.8 px a frame."""
    rng = np.random.default_rng(height)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (height + 20, width + 20), dtype=np.uint8), (0, 0), 1.5)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    shifts = [np.float32([[1, 0, -10 - 0.7 * t], [0, 1, -10 + 0.4 * t]]) for t in range(num_frames)]
    return np.stack([cv2.warpAffine(texture, shift, (width, height), flags=cv2.INTER_CUBIC) for shift in shifts])


def wild(num_frames: int, height: int, width: int) -> np.ndarray:
    """Noise: flow far beyond the image."""
    return np.random.default_rng(1).integers(0, 256, (num_frames, height, width), np.uint8)


VIDEOS = [(3, 20, 24), (2, 20, 24), (1, 20, 24), (2, 18, 33)]
# of the engine: videos, parameters. A tile is 64 x 16 pixels there, so sizes of one and several tiles, of even and odd
# last ones, and smaller than one in either direction
RUNS = {
    "together": (moving, VIDEOS, FEW),
    "defaults": (moving, [(2, 60, 90), (2, 41, 133)], {}),
    # stops within groups of iterations, in the first warp in its second pass
    "early stops": (moving, [(2, 18, 33)], FEW | {"epsilon": 0.1, "median_filtering": 3, "inner_iterations": 7}),
    "no stops": (
        moving,
        [(2, 20, 24), (2, 33, 130)],
        FEW | {"epsilon": 0, "median_filtering": 1, "inner_iterations": 13},
    ),
    "halves": (moving, [(2, 33, 70)], FEW | {"scale_step": 0.5, "warps": 1, "outer_iterations": 1, "lambda_": 0.1}),
    "many levels": (moving, [(2, 40, 66)], FEW | {"scale_step": 0.9, "scales": 9, "tau": 0.1, "theta": 0.2}),
    "wild": (wild, [(2, 35, 67)], {"lambda_": 2.0, "theta": 0.5, "warps": 3, "outer_iterations": 2}),
    "thin": (moving, [(2, 3, 3), (2, 5, 140), (2, 60, 4)], FEW),
}


def assert_same(flow: np.ndarray, expected: np.ndarray) -> None:
    if SAME_BITS:
        np.testing.assert_array_equal(flow, expected)
    else:
        assert np.linalg.norm(flow - expected, axis=1).mean() < 0.02


def as_program(code: str, variables: dict[str, str], python: str = sys.executable) -> str:
    """What a process prints that finds `variables` when it starts."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    result = subprocess.run(
        [python, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def simulated(variables: dict[str, str], path: Path, program: str) -> dict[str, np.ndarray]:
    """What one of the functions below computes, by name."""
    as_program(f"from tests.flow import test_gpu; test_gpu.{program}({str(path)!r})", variables)
    with np.load(path) as results:
        return dict(results)


def compute_runs(path: str) -> None:
    """Program: the flow of all RUNS."""
    results = {}
    for name, (make, videos, parameters) in RUNS.items():
        flows = gpu.estimate_videos([make(*video) for video in videos], Parameters(**parameters), PLENTY)
        results |= {f"{name} {number}": flow for number, flow in enumerate(flows)}
    np.savez(path, **results)


def compute_in_threads(path: str) -> None:
    """Program: the videos of "together" at once, each in a thread, with memory for a pair or two; and as 8 bits."""
    from ccs.flow.gpu_engine import Engine

    made = []
    original = Engine.__init__
    Engine.__init__ = lambda self, *arguments: (original(self, *arguments), made.append(self))[0]
    parameters, results = Parameters(**FEW), {}

    def compute(number: int) -> None:
        (results[f"float {number}"],) = gpu.estimate_videos([moving(*VIDEOS[number])], parameters, 400_000)
        ((values, clipped),) = gpu.estimate_quantised([moving(*VIDEOS[number])], parameters, 0.5, 400_000)
        results[f"bytes {number}"], results[f"clipped {number}"] = values, np.array(clipped)

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(len(VIDEOS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results["slots"] = np.array([engine.num_slots for engine in made])
    np.savez(path, **results)


@pytest.fixture(scope="module")
def flows(cuda_on_cpu, tmp_path_factory) -> dict[str, np.ndarray]:
    return simulated(cuda_on_cpu, tmp_path_factory.mktemp("runs") / "flow.npz", "compute_runs")


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_flow_is_opencvs(flows, run):
    make, videos, parameters = RUNS[run]
    for number, video in enumerate(videos):
        flow = flows[f"{run} {number}"]
        assert flow.shape == (video[0] - 1, 2, *video[1:])
        assert flow.dtype == np.float32
        assert_same(flow, estimate(make(*video), "opencv", **parameters))


@pytest.mark.slow
def test_neither_company_nor_order_change_a_bit(flows, cuda_on_cpu, tmp_path):
    """Each video in a thread of its own, slots for a pair or two, blocks and threads in reverse order."""
    variables = cuda_on_cpu | {"CUDA_ON_CPU_REVERSE": "1"}
    found = simulated(variables, tmp_path / "flow.npz", "compute_in_threads")
    assert found["slots"].max() <= 4
    for number in range(len(VIDEOS)):
        np.testing.assert_array_equal(found[f"float {number}"], flows[f"together {number}"])


@pytest.mark.slow
def test_eight_bits_are_those_of_quantise(flows, cuda_on_cpu, tmp_path):
    found = simulated(cuda_on_cpu, tmp_path / "flow.npz", "compute_in_threads")
    for number in range(len(VIDEOS)):
        values, clipped = quantise(flows[f"together {number}"], 0.5)
        np.testing.assert_array_equal(found[f"bytes {number}"], values)
        assert found[f"bytes {number}"].dtype == np.uint8
        assert found[f"clipped {number}"] == round(clipped * values.size)
    assert 0 < found["clipped 0"] < found["bytes 0"].size


def other_pythons() -> list[str]:
    """Newer ones of which a copy is installed, with what the kernels' tests need."""
    found = [shutil.which(f"python3.{minor}") for minor in range(sys.version_info.minor + 1, 16)]
    needed = "import cuda.bindings.nvrtc, cv2.optflow, numba, h5py, hdf5plugin"
    return [
        python
        for python in filter(None, found)
        if subprocess.run([python, "-c", needed], capture_output=True, check=False).returncode == 0
    ]


@pytest.mark.slow
def test_newer_pythons_give_the_same_bits(flows, cuda_on_cpu, tmp_path):
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no newer Python has cuda-bindings and what ccs.flow needs")
    code = f"""
import numpy as np
from ccs.flow import gpu
from ccs.flow.settings import Parameters
frames = np.load({str(tmp_path / "frames.npy")!r})
assert gpu.available() is None, gpu.available()
np.save({str(tmp_path / "flow.npy")!r}, gpu.estimate_videos([frames], Parameters(**{FEW}), {PLENTY})[0])
"""
    np.save(tmp_path / "frames.npy", moving(*VIDEOS[0]))
    for python in pythons:
        as_program(code, cuda_on_cpu, python)
        np.testing.assert_array_equal(np.load(tmp_path / "flow.npy"), flows["together 0"])


# -- arithmetic


@pytest.fixture(scope="module")
def library(cuda_on_cpu) -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(cuda_on_cpu["LD_LIBRARY_PATH"].split(os.pathsep)[0]) / "libcuda.so.1"))


def test_every_quotient_is_correctly_rounded(library):
    """From every estimate of a reciprocal that the hardware may give; but the one quotient that tvl1.cu names."""
    exceptions = ctypes.c_longlong()
    library.wrong_quotients.restype = ctypes.c_longlong
    assert library.wrong_quotients(ctypes.byref(exceptions)) == 0
    assert exceptions.value <= 2


def test_hypot_is_correctly_rounded(library):
    rng = np.random.default_rng(0)
    pairs = (rng.standard_normal((1 << 21, 2)) * 10 ** rng.uniform(-7, 3, (1 << 21, 2))).astype(np.float32)
    pairs[::5, 0], pairs[1::5, 1], pairs[2::7, 0] = 0, 0, pairs[2::7, 1]
    # a root halfway between two numbers, nearly: a is such a middle, and b^2 tips it by some 2^-40 of it
    middle = rng.uniform(1, 2, 1 << 20).astype(np.float32)
    pairs[: 1 << 20, 0] = middle
    pairs[: 1 << 20, 1] = np.sqrt(np.spacing(middle) * middle * (1 + rng.normal(size=1 << 20) * 2**-15))
    close = ctypes.c_longlong()
    library.wrong_hypots.restype = ctypes.c_longlong
    address = pairs.ctypes.data_as(ctypes.c_void_p)
    assert library.wrong_hypots(address, ctypes.c_longlong(len(pairs)), ctypes.byref(close)) == 0
    assert 1000 < close.value < len(pairs) // 2, "those that it leaves to float64 should be there, and few"


# -- machine code


@pytest.fixture
def sass(monkeypatch) -> ModuleType:
    """The program that reads machine code."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "gpu")
    return importlib.import_module("sass")


needs_nvdisasm = pytest.mark.skipif(util.find_spec("nvidia.cu13") is None, reason="needs nvidia-cuda-nvdisasm")


@needs_nvdisasm
@pytest.mark.parametrize(("capability", "rows"), [((9, 0), 5), ((8, 0), 5), ((8, 6), 5), ((7, 5), 4), ((10, 0), 5)])
def test_nothing_spills_where_time_is_spent(sass, capability, rows):
    """No local memory in the iteration loop of what runs, none at all in the other kernels, no other rounding."""
    code, report = gpu_device.compile_kernels(capability, rows)
    kernels = sass.kernels(code)
    assert set(kernels) == {
        "iterate",
        "iterate_small",
        "median",
        "pyramid",
        "probe",
        "schedule",
        "start",
        "store",
        "warp",
    }
    spills = dict(re.findall(r"Function properties for (\w+)\n.*?(\d+) bytes spill stores", report))
    assert {name for name, size in spills.items() if int(size)} <= {"iterate_small"}
    loop = sass.iteration_loop(kernels["iterate"])
    assert sum("MUFU.RSQ" in line and "64H" not in line for line in loop) == 4 * rows, "that is the loop"
    assert not [line for line in loop if re.search(r"\b(LDL|STL)\b", line)]
    for name, lines in kernels.items():
        # tiny numbers taken for zero; `schedule` guesses by logarithms, which may
        assert name == "schedule" or not [line for line in lines if re.search(r"\bF(ADD|MUL|FMA)\S*\.FTZ", line)]


@needs_nvdisasm
def test_a_pixel_and_iteration_takes_few_instructions(sass):
    """On the way that nearly all take: 161 were too many (benchmarks/README.md)."""
    kernels = sass.kernels(gpu_device.compile_kernels((9, 0), 5)[0])
    assert sass.shortest_trip(sass.iteration_loop(kernels["iterate"])) / 10 < 116


# -- the host


def test_groups_of_iterations_are_those_that_take_the_least():
    from ccs.flow import gpu_engine as engine

    def cost(lengths: tuple[int, ...]) -> float:
        def one(num: int) -> float:
            down, across = engine.tile_counts(105, 139, 5, num)
            return down * across * 64 * 40 * max(num * engine.ITERATION + engine.GROUP, engine.TRAVEL) + engine.STEP

        return sum(map(one, lengths))

    def partitions(number: int, most: int):
        if number == 0:
            yield ()
        for first in range(min(number, most), 0, -1):
            for rest in partitions(number - first, first):
                yield (first, *rest)

    lengths = engine.group_lengths(105, 139, 5)
    for expected in range(1, 20):
        taken, left = [], expected
        while left:
            taken.append(lengths[left])
            left -= lengths[left]
        assert cost(tuple(taken)) == pytest.approx(min(map(cost, partitions(expected, 8))))


@pytest.mark.parametrize(("height", "width"), [(256, 340), (224, 298), (61, 87)])
def test_the_devices_pyramids_are_opencvs(height, width):
    """Also in the last row and column, where noise shows it at the coarsest level of one frame in nine."""
    from ccs.flow import gpu_engine

    if not gpu_engine.device_pyramid_is_opencvs(height, width, 5, 0.8):
        pytest.skip("this OpenCV's differ, and are made by the host")
    frames = np.random.default_rng(1).integers(0, 256, (40, height, width), np.uint8)
    for frame in frames:
        levels = list(pyramid(frame, len(level_sizes(height, width, Parameters())), 0.8))
        for finer, coarser in itertools.pairwise(levels):
            np.testing.assert_array_equal(gpu_engine._shrunk(finer, *coarser.shape, 1.25), coarser)


@pytest.mark.slow
def test_pyramids_are_the_hosts_where_opencv_makes_other_ones(flows, cuda_on_cpu, tmp_path):
    found = simulated(cuda_on_cpu, tmp_path / "flow.npz", "compute_with_whole_pyramids")
    assert found["whole"].all()
    for number in range(len(VIDEOS)):
        np.testing.assert_array_equal(found[f"{number}"], flows[f"together {number}"])


def compute_with_whole_pyramids(path: str) -> None:
    """Program: "together" where cv2.resize has other bits than the device."""
    from ccs.flow import gpu_engine

    gpu_engine._shrunk = lambda image, height, width, step: np.zeros((height, width), np.float32)
    flows = gpu.estimate_videos([moving(*video) for video in VIDEOS], Parameters(**FEW), PLENTY)
    results = {str(number): flow for number, flow in enumerate(flows)}
    np.savez(path, whole=np.array([gpu._shared.engine.room.whole_pyramids]), **results)


def test_a_pair_that_does_not_fit(cuda_on_cpu):
    code = f"""
import numpy as np
from ccs.flow import gpu
from ccs.flow.settings import Parameters
from ccs.stage import CcsError
for memory in (1000, {PLENTY}):
    try:
        gpu.estimate_videos([np.zeros((2, 256, 340), np.uint8)], Parameters(), memory)
    except CcsError as error:
        print(error)
"""
    said = as_program(code, cuda_on_cpu | {"CUDA_ON_CPU_BYTES": "100000000"}).splitlines()
    assert re.search(r"340x256 frames needs \d+ bytes of device memory, 1000 are allowed", said[0])
    assert re.search(r"GPU has too little free memory \(cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY", said[1])


def test_a_device_that_fails_is_said_to_all_who_wait(cuda_on_cpu):
    code = """
import threading
from ccs.flow import gpu
from ccs.flow.settings import Parameters
from ccs.stage import CcsError
from tests.flow.test_gpu import FEW, moving
def compute():
    try:
        gpu.estimate_videos([moving(3, 20, 24)], Parameters(**FEW), 1 << 28)
    except CcsError as error:
        print(f"{error}\\n", end="")
threads = [threading.Thread(target=compute) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("again", gpu.estimate_videos([moving(3, 20, 24)], Parameters(**FEW), 1 << 28)[0].shape)
"""
    said = as_program(code, cuda_on_cpu | {"CUDA_ON_CPU_FAILS": "2"}).splitlines()
    assert said[-1] == "again (2, 2, 20, 24)"
    assert said[:-1]
    assert all(
        "cuGraphLaunch: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure. Check nvidia-smi" in line
        for line in said[:-1]
    )


def test_kernels_are_compiled_once(cuda_on_cpu, tmp_path):
    code = "from ccs.flow import gpu_device as d; d.compile_kernels = {}; d.Device(0).probe(); print('ran')".format(
        "{}"
    )
    variables = cuda_on_cpu | {"XDG_CACHE_HOME": str(tmp_path)}
    as_program("from ccs.flow import gpu; assert gpu.available() is None, gpu.available()", variables)
    (kept,) = (tmp_path / "ccs").iterdir()
    assert kept.read_bytes().startswith(b"\x7fELF")
    assert "ran" in as_program(code, variables)
    kept.write_bytes(b"damaged")
    as_program(code.replace("d.compile_kernels = {}; ", ""), variables)
    nowhere = variables | {"XDG_CACHE_HOME": "/proc/nowhere"}
    as_program("from ccs.flow import gpu; assert gpu.available() is None, gpu.available()", nowhere)


def test_one_frame_needs_no_gpu():
    (flow,) = gpu.estimate_videos([np.zeros((1, 20, 24), np.uint8)], Parameters(), PLENTY)
    assert flow.shape == (0, 2, 20, 24)


def test_import_does_not_need_cuda():
    program = "import sys; from ccs.flow import gpu; assert not [m for m in sys.modules if m.startswith('cuda')]"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


class TestAvailable:
    """Each reason, as on a machine where it holds."""

    def reason(self, variables: dict[str, str]) -> str:
        return as_program("from ccs.flow import gpu; print(gpu.available(), gpu.num_devices())", variables)

    def test_not_installed(self, monkeypatch):
        monkeypatch.setattr(gpu.util, "find_spec", lambda name: None)
        gpu._reason.cache_clear()
        assert "pip install '.[gpu]' in a checkout" in gpu.available()
        gpu._reason.cache_clear()

    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({}, r"^None 1$"),
            ({"VERSION": "12080"}, r"driver supports CUDA 12\.8, .* of CUDA 13\. Update the driver"),
            ({"DEVICES": "0"}, "lists no GPU"),
            ({"CAPABILITY": "61"}, r"GPU 0 \(CUDA on a CPU\) has compute capability 6\.1; 7\.5 is needed"),
            ({"CAPABILITY": "75"}, "^None 1$"),
            ({"BROKEN": "1"}, r"GPU 0 .*does not run the engine's kernels: .*should write 42 wrote 0"),
        ],
    )
    def test_devices(self, cuda_on_cpu, variables, expected):
        variables = {f"CUDA_ON_CPU_{name}": value for name, value in variables.items()}
        assert re.search(expected, self.reason(cuda_on_cpu | variables).strip())

    def test_no_driver(self, tmp_path):
        (tmp_path / "libcuda.so.1").write_bytes(b"")
        assert re.search(r"CUDA fails: .*Check nvidia-smi", self.reason({"LD_LIBRARY_PATH": str(tmp_path)}))

    def test_auto_takes_the_cpu_and_says_so(self, cuda_on_cpu):
        code = """
import contextlib, io
from ccs.flow.engines import choose
said = io.StringIO()
with contextlib.redirect_stderr(said):
    print(choose("auto"), choose("auto"))
print(said.getvalue())
"""
        said = as_program(code, cuda_on_cpu | {"CUDA_ON_CPU_BROKEN": "1"})
        assert said.startswith("native native\n")
        assert said.count("does not run the engine's kernels") == 1
        said = as_program(code, cuda_on_cpu | {"CUDA_ON_CPU_DEVICES": "0"})
        assert said.strip() == "native native", "where there is no GPU none is missed"


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S* \(CUDA C\+\+ by NVRTC \d+\.\d+\S*, opencv \d\S*\)", gpu.version())


@pytest.fixture
def gpu_engine():
    if reason := gpu.available():
        pytest.skip(reason)


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu_engine")
class TestOnGpu:
    """A textured sequence in the size of the paper's frames."""

    def test_is_the_cpu_engines_flow(self):
        frames = moving(5, 256, 340)
        (flow,) = gpu.estimate_videos([frames], Parameters(), PLENTY)
        np.testing.assert_array_equal(flow, estimate(frames, "native"))

    @pytest.mark.parametrize("run", RUNS)
    def test_is_opencvs_flow(self, run):
        make, videos, parameters = RUNS[run]
        flows = gpu.estimate_videos([make(*video) for video in videos], Parameters(**parameters), PLENTY)
        for video, flow in zip(videos, flows, strict=True):
            assert_same(flow, estimate(make(*video), "opencv", **parameters))

    def test_bits_do_not_change(self):
        videos = [moving(9, 256, 340), moving(4, 256, 340)[:, ::-1], moving(3, 120, 160)]
        expected = gpu.estimate_videos(videos, Parameters(), PLENTY)
        for memory in (PLENTY, PLENTY, 30 << 20):
            for flow, again in zip(expected, gpu.estimate_videos(videos, Parameters(), memory), strict=True):
                np.testing.assert_array_equal(again, flow)
        for video, flow in zip(videos, expected, strict=True):
            np.testing.assert_array_equal(gpu.estimate_videos([video[:2]], Parameters(), PLENTY)[0], flow[:1])

    def test_memory_bound(self):
        from cuda.bindings import driver

        gpu.estimate_videos([moving(2, 64, 64)], Parameters(), 1 << 20)
        before = gpu_device_free(driver)
        gpu.estimate_videos([moving(60, 256, 340)], Parameters(), 200 << 20)
        assert before - gpu_device_free(driver) <= (200 << 20) + (4 << 20)


def gpu_device_free(driver) -> int:
    gpu._shared.device.make_current()
    return driver.cuMemGetInfo()[1]
