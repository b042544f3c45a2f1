"""The CUDA engine without a GPU: simulated against OpenCV, and compiled; with one (-m gpu): against the CPU engine.

Numba's simulator must be chosen before Numba is imported, so it runs in a process of its own: this file as a program,
which computes all flow that the tests look at.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import cv2
import llvmlite.binding
import numpy as np
import pytest

from ccs.flow import gpu
from ccs.flow.engines import estimate
from ccs.flow.settings import Parameters
from ccs.stage import CcsError

ROOT = Path(__file__).resolve().parent.parent.parent
FEW = {"scales": 2, "warps": 2, "inner_iterations": 4, "outer_iterations": 2}
PLENTY = 1 << 30

# see test_native
SAME_BITS = platform.machine() == "x86_64" and llvmlite.binding.get_host_cpu_features().get("fma", False)
needs_numba_cuda = pytest.mark.skipif(util.find_spec("numba_cuda") is None, reason="needs numba-cuda")


def moving(num_frames: int, height: int, width: int) -> np.ndarray:
    """A texture that moves by 0.8 px a frame."""
    rng = np.random.default_rng(height)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (height + 20, width + 20), dtype=np.uint8), (0, 0), 1.5)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    shifts = [np.float32([[1, 0, -10 - 0.7 * t], [0, 1, -10 + 0.4 * t]]) for t in range(num_frames)]
    return np.stack([cv2.warpAffine(texture, shift, (width, height), flags=cv2.INTER_CUBIC) for shift in shifts])


VIDEOS = [(3, 20, 24), (2, 20, 24), (1, 20, 24), (2, 18, 33)]
RUNS = {  # of the engine: videos, parameters
    "together": (VIDEOS, FEW),
    # stops within groups of iterations, in the first warp in its second pass
    "early stops": ([(2, 18, 33)], FEW | {"epsilon": 0.1, "median_filtering": 3, "inner_iterations": 7}),
    "no stops": ([(2, 20, 24)], FEW | {"epsilon": 0, "median_filtering": 1, "inner_iterations": 5}),
    "halves": ([(2, 33, 35)], FEW | {"scale_step": 0.5, "warps": 1, "outer_iterations": 1, "lambda_": 0.1}),
}


def assert_same(flow: np.ndarray, expected: np.ndarray) -> None:
    if SAME_BITS:
        np.testing.assert_array_equal(flow, expected)
    else:
        assert np.linalg.norm(flow - expected, axis=1).mean() < 0.02


def this_file_as_program(*arguments: object, **variables: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    program = [sys.executable, __file__, *map(str, arguments)]
    result = subprocess.run(program, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> dict[str, np.ndarray]:
    """What `simulate` computed, by name."""
    path = tmp_path_factory.mktemp("simulated") / "results.npz"
    this_file_as_program("simulate", path, NUMBA_ENABLE_CUDASIM="1")
    with np.load(path) as results:
        return dict(results)


@pytest.mark.slow
@needs_numba_cuda
@pytest.mark.parametrize("run", RUNS)
def test_simulated_flow_is_opencvs(simulated, run):
    videos, parameters = RUNS[run]
    for number, video in enumerate(videos):
        flow = simulated[f"{run} {number}"]
        assert flow.shape == (video[0] - 1, 2, *video[1:])
        assert flow.dtype == np.float32
        assert_same(flow, estimate(moving(*video), "opencv", **parameters))


@pytest.mark.slow
@needs_numba_cuda
def test_neither_batches_nor_order_change_a_bit(simulated):
    """The second time with memory for one pair only, the blocks and threads of every kernel in reverse order."""
    for number in range(len(VIDEOS)):
        np.testing.assert_array_equal(simulated[f"reversed {number}"], simulated[f"together {number}"])


@pytest.mark.slow
@needs_numba_cuda
def test_flow_of_the_next_level(simulated):
    expected = np.stack([1.25 * cv2.resize(plane, (33, 27)) for plane in simulated["coarse flow"]])
    np.testing.assert_allclose(simulated["fine flow"], expected, atol=1e-5)


def gradients(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    around = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return (around[1:-1, 2:] - around[1:-1, :-2]) / 2, (around[2:, 1:-1] - around[:-2, 1:-1]) / 2


@pytest.mark.slow
@needs_numba_cuda
def test_warp(simulated):
    (first, second), flow = np.float32(moving(2, 27, 33)), simulated["wild flow"]
    y, x = np.mgrid[:27, :33].astype(np.float32)
    assert ((x + flow[0] < -3) | (x + flow[0] > 36)).any(), "some samples should be far outside"
    warped, warped_x, warped_y = (
        cv2.remap(image, x + flow[0], y + flow[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
        for image in (second, *gradients(second))
    )
    found = simulated["warped"]
    np.testing.assert_allclose(found[0], warped_x, atol=1e-3)
    np.testing.assert_allclose(found[1], warped_y, atol=1e-3)
    np.testing.assert_allclose(found[2], warped - warped_x * flow[0] - warped_y * flow[1] - first, atol=1e-2)


@pytest.mark.slow
@needs_numba_cuda
@pytest.mark.parametrize("window", [3, 5])
def test_median(simulated, window):
    for found, plane in zip(simulated[f"median {window}"], simulated["wild flow"], strict=True):
        np.testing.assert_array_equal(found, cv2.medianBlur(plane, window))


def iterated(u, p, data, num, lt=0.045, taut=0.25 / 0.3, theta=0.3):
    """`num` iterations by the book, in double precision, and the sums of squared changes."""
    (ix, iy, rc), changes = data, []
    for _ in range(num):
        g = ix**2 + iy**2
        d = np.clip(-(rc + ix * u[0] + iy * u[1]) / g, -lt, lt)
        left, above = (np.pad(p, ((0, 0), (1, 0), (1, 0)))[:, 1:, :-1], np.pad(p, ((0, 0), (1, 0), (1, 0)))[:, :-1, 1:])
        div = np.stack([p[k] - left[k] + p[k + 1] - above[k + 1] for k in (0, 2)])
        new = u + d * np.stack([ix, iy]) + theta * div
        changes.append(((new - u) ** 2).sum())
        u = new
        steps = [np.diff(u[k // 2], axis=1 - k % 2, append=u[k // 2].take([-1], axis=1 - k % 2)) for k in range(4)]
        sizes = [np.hypot(steps[k // 2 * 2], steps[k // 2 * 2 + 1]) for k in range(4)]
        p = np.stack([(p[k] + taut * steps[k]) / (1 + taut * sizes[k]) for k in range(4)])
    return u, p, changes


@pytest.mark.slow
@needs_numba_cuda
@pytest.mark.parametrize("num", [1, 2, 3])
def test_iterations(simulated, num):
    planes = np.float64(simulated["before iterations"])
    u, p, changes = iterated(planes[:2], planes[4:8], planes[12:], num)
    np.testing.assert_allclose(simulated[f"{num} iterations"], np.concatenate([u, p]), atol=1e-5)
    np.testing.assert_allclose(simulated[f"{num} changes"].sum(axis=1), changes, rtol=1e-5)


@pytest.mark.slow
@needs_numba_cuda
def test_stop_within_a_group(simulated):
    """Changes fall below the threshold at the second of three iterations: nothing is kept, two are made again."""
    from_fields = dict(zip(("phase", "side_u", "side_p", "redo"), simulated["state after a stop"], strict=True))
    assert from_fields == {"phase": 3, "side_u": 0, "side_p": 0, "redo": 2}


@pytest.mark.slow
@needs_numba_cuda
def test_compiles_for_gpus():
    """To the PTX of Ampere and Hopper: no local memory, and shared memory within what there always is."""
    compiled = json.loads(this_file_as_program("compile"))
    assert set(compiled) == {"sm_80", "sm_90"}
    for target, kernels in compiled.items():
        assert set(kernels) == {"step"}
        for ptx in kernels.values():
            assert f".target {target}" in ptx
            assert "__local_depot" not in ptx
            shared = sum(int(size) for size in re.findall(r"\.shared .*\.b8 \w+\[(\d+)\];", ptx))
            assert shared <= 48 << 10
        assert shared > 40 << 10, "the last one's should have been found"
        for name in ("rsqrt.approx.f32", "fma.rn.f32", "ld.shared.f32", "st.shared.f32"):
            assert name in kernels["step"]
        # products that the compiler may fuse with a sum, and arithmetic that takes tiny numbers for zero
        assert not re.search(r"\bmul\.f32|\.ftz\.", kernels["step"])


@needs_numba_cuda
def test_batches_share_frames_and_fit_into_memory():
    plan = gpu._plan(256, 340, Parameters())
    assert [tuple(level[:2]) for level in plan.levels] == [(340, 256), (272, 205), (218, 164), (174, 131), (139, 105)]
    pairs = [(0, t) for t in range(6)] + [(1, t) for t in range(3)]
    memory = plan.num_bytes(4, 5)
    batches = gpu._batches(pairs, plan, memory)
    assert all(plan.num_bytes(len(batch.pairs), len(batch.frames)) <= memory for batch in batches)
    assert [(batch.frames[first], batch.frames[second]) for batch in batches for first, second in batch.pairs] == [
        ((video, t), (video, t + 1)) for video, t in pairs
    ]
    assert len(batches[0].frames) == 5


@needs_numba_cuda
def test_a_pair_that_does_not_fit():
    with pytest.raises(CcsError, match=r"340x256 frames needs \d+ bytes of device memory, 1000 are allowed"):
        gpu.estimate_videos([np.zeros((2, 256, 340), np.uint8)], Parameters(), 1000)


def test_one_frame_needs_no_gpu():
    (flow,) = gpu.estimate_videos([np.zeros((1, 20, 24), np.uint8)], Parameters(), PLENTY)
    assert flow.shape == (0, 2, 20, 24)


def test_import_does_not_need_numba_cuda():
    program = (
        "import sys; sys.modules['numba_cuda'] = None; from ccs.flow import gpu; assert 'numba.cuda' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


class TestAvailable:
    """Each reason, as on a machine where it holds."""

    def test_not_installed(self, monkeypatch):
        monkeypatch.setattr(gpu.util, "find_spec", lambda name: None)
        assert "pip install 'ccs[gpu]'" in gpu.available()

    @needs_numba_cuda
    def test_no_driver(self, monkeypatch):
        from numba import cuda

        monkeypatch.setattr(cuda, "is_available", lambda: False)
        monkeypatch.setattr(cuda, "cuda_error", lambda: "\nCUDA driver library cannot be found.\n")
        assert "driver library cannot be found. Check nvidia-smi" in gpu.available()

    @needs_numba_cuda
    @pytest.mark.parametrize(
        ("driver_version", "capabilities", "reason"),
        [
            ((12, 8), [(9, 0)], r"driver supports CUDA 12.8, .* CUDA 13.*numba-cuda\[cu12\]"),
            ((13, 0), [], "lists no GPU"),
            ((13, 0), [(9, 0), (6, 1)], "GPU 1 has compute capability 6.1; 7.5 is needed"),
            ((13, 0), [(7, 5), (9, 0)], None),
        ],
    )
    def test_devices(self, monkeypatch, driver_version, capabilities, reason):
        from numba import cuda
        from numba.cuda.cudadrv.driver import Driver

        monkeypatch.setattr(cuda, "is_available", lambda: True)
        monkeypatch.setattr(cuda, "runtime", SimpleNamespace(get_version=lambda: (13, 2)))
        monkeypatch.setattr(Driver, "get_version", lambda self: driver_version)
        devices = [SimpleNamespace(compute_capability=capability) for capability in capabilities]
        monkeypatch.setattr(cuda, "list_devices", lambda: devices)
        found = gpu.available()
        assert found is None if reason is None else re.search(reason, found)
        assert gpu.num_devices() == len(devices)

    @needs_numba_cuda
    def test_anything_else(self, monkeypatch):
        from numba import cuda

        def broken():
            raise OSError("libcuda.so.1: file too short")

        monkeypatch.setattr(cuda, "is_available", broken)
        assert "libcuda.so.1: file too short" in gpu.available()


@needs_numba_cuda
def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S* \(numba-cuda \d+\.\d+\S*, opencv \d\S*\)", gpu.version())


@needs_numba_cuda
def test_errors_of_cuda_are_explained():
    from numba.cuda.cudadrv.error import CudaSupportError

    with pytest.raises(CcsError, match="too little free memory"), gpu._advice():
        raise CudaSupportError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(CcsError, match="CUDA failed: no kernel image"), gpu._advice():
        raise CudaSupportError("no kernel image")
    with pytest.raises(KeyError), gpu._advice():
        raise KeyError("ours")


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
        videos, parameters = RUNS[run]
        flows = gpu.estimate_videos([moving(*video) for video in videos], Parameters(**parameters), PLENTY)
        for video, flow in zip(videos, flows, strict=True):
            assert_same(flow, estimate(moving(*video), "opencv", **parameters))

    def test_bits_do_not_change(self):
        videos = [moving(9, 256, 340), moving(4, 256, 340)[:, ::-1], moving(3, 120, 160)]
        expected = gpu.estimate_videos(videos, Parameters(), PLENTY)
        for memory in (PLENTY, PLENTY, gpu._plan(256, 340, Parameters()).num_bytes(2, 3)):
            for flow, again in zip(expected, gpu.estimate_videos(videos, Parameters(), memory), strict=True):
                np.testing.assert_array_equal(again, flow)
        for video, flow in zip(videos, expected, strict=True):
            np.testing.assert_array_equal(gpu.estimate_videos([video[:2]], Parameters(), PLENTY)[0], flow[:1])

    def test_memory_bound(self):
        from numba import cuda

        gpu.estimate_videos([moving(2, 256, 340)], Parameters(), PLENTY)
        free = cuda.current_context().get_memory_info().free
        memory = gpu._plan(256, 340, Parameters()).num_bytes(20, 21)
        gpu.estimate_videos([moving(60, 256, 340)], Parameters(), memory)
        assert free - cuda.current_context().get_memory_info().free <= memory + (4 << 20)


def simulate(path: str) -> None:
    """Program: results of the simulated kernels and engine to an .npz file."""
    simulator = strict_simulator()
    from numba import cuda

    from ccs.flow import gpu_kernels as kernels

    gpu._tile = kernels.Tile(width=16, strips=2, rows=10, group=3)
    gpu.STEPS_PER_LOOK = 4
    results = {}
    for run, (videos, parameters) in RUNS.items():
        flows = gpu.estimate_videos([moving(*video) for video in videos], Parameters(**parameters), PLENTY)
        results |= {f"{run} {number}": flow for number, flow in enumerate(flows)}
    simulator.reverse = True
    memory = gpu._plan(18, 33, Parameters(**FEW)).num_bytes(1, 2)
    flows = gpu.estimate_videos([moving(*video) for video in VIDEOS], Parameters(**FEW), memory)
    results |= {f"reversed {number}": flow for number, flow in enumerate(flows)}
    simulator.reverse = False

    tile = kernels.Tile(width=16, strips=2, rows=6, group=3)
    gpu._tile = tile
    built = kernels.build(tile)
    rng = np.random.default_rng(0)

    plan = gpu._plan(27, 33, Parameters(scales=2))
    images = np.zeros((2, plan.pyramid_size), np.float32)
    images[:, : 27 * 40].reshape(2, 27, 40)[:, :, :33] = moving(2, 27, 33)

    def step(planes: np.ndarray, window: int = 1, threshold: float = 0, **state: int) -> tuple[np.ndarray, np.ndarray]:
        """One step of a pair; the state after it, and `partials`."""
        control = np.zeros((2, 1, kernels.NUM_FIELDS), np.int32)
        for name, value in state.items():
            control[0, 0, getattr(kernels, name)] = value
        partials = np.zeros((1, tile.group, 32), np.float32)
        thresholds = np.full(2, threshold, np.float32)
        settings = window, 5, 30, 10, 1.25, *np.float32([0.045, 0.25 / 0.3, 0.3])
        blocks = int(max(plan.levels[0, kernels.TILES_X] * plan.levels[0, kernels.TILES_Y], 12))
        pairs, flow = np.array([[0, 1]], np.int32), np.zeros((1, 2, 27, 33), np.float32)
        arrays = control, np.zeros(2, np.int32), plan.levels, thresholds, pairs, images, planes, partials, flow
        built[(blocks, 1), (tile.width, tile.strips)](*arrays, 0, *settings)
        return control[1, 0], partials[0]

    def padded(fields: np.ndarray) -> np.ndarray:
        """Planes of a pair, the first ones given as (n, H, W)."""
        num, height, width = fields.shape
        planes = np.full((1, kernels.NUM_PLANES, 27 * 40), np.nan, np.float32)
        pitch = gpu._round_up(width, 8)
        planes[0, :num, : height * pitch].reshape(num, height, pitch)[:, :, :width] = fields
        return planes

    def fine(planes: np.ndarray, first: int, end: int) -> np.ndarray:
        return planes[0, first:end].reshape(-1, 27, 40)[:, :, :33].copy()

    width, height = plan.levels[1, :2]
    results["coarse flow"] = rng.normal(size=(2, height, width)).astype(np.float32)
    planes = padded(results["coarse flow"])
    step(planes, PHASE=kernels.START)
    results["fine flow"] = fine(planes, 2, 4)
    assert not fine(planes, 4, 8).any(), "the dual fields should start at zero"

    results["wild flow"] = rng.normal(scale=9, size=(2, 27, 33)).astype(np.float32)
    for window in (3, 5):
        planes = padded(results["wild flow"])
        step(planes, window, PHASE=kernels.WARP)
        results["warped"] = fine(planes, kernels.DATA, kernels.NUM_PLANES)
        results[f"median {window}"] = fine(planes, 2, 4)

    fields = rng.normal(scale=0.3, size=(kernels.NUM_PLANES, 27, 33)).astype(np.float32)
    fields[:2] *= 0.1
    fields[8:12] = np.nan
    results["before iterations"] = fields
    for num in (1, 2, 3):
        planes = padded(fields)
        _, partials = step(planes, PHASE=kernels.ITERATE, INNER=30 - num)
        results[f"{num} iterations"] = np.concatenate([fine(planes, 2, 4), fine(planes, 8, 12)])
        results[f"{num} changes"] = partials[:num]
    changes = results["3 changes"].sum(axis=1)
    assert changes[0] > changes[1], "or else the stop is not within the group"
    state, _ = step(padded(fields), threshold=changes[:2].mean(), PHASE=kernels.ITERATE)
    results["state after a stop"] = state[[kernels.PHASE, kernels.SIDE_U, kernels.SIDE_P, kernels.REDO]]
    assert cuda.is_available()
    np.savez(path, **results)


def strict_simulator() -> SimpleNamespace:
    """Make Numba's simulator faster, and strict where a GPU would be.

    Threads take turns, each until its next barrier, in an order that can be reversed, as can that of blocks. It is an
    error if some threads of a block wait at a barrier and others have ended. Memory begins as NaN.
    """
    import threading

    from numba import cuda
    from numba.cuda.np.numpy_support import as_dtype
    from numba.cuda.simulator import kernel, kernelapi

    state = SimpleNamespace(reverse=False, thread=None)  # the thread whose turn it is

    class BlockManager(kernel.BlockManager):
        def run(self, grid_point, *args):
            turn_over = threading.Semaphore(0)

            def barrier():
                turn = state.thread.turn
                turn_over.release()
                turn.acquire()

            def program(thread):
                thread.turn.acquire()
                try:
                    self._f(*args)
                except BaseException as error:
                    thread.error = error
                thread.ended = True
                turn_over.release()

            def take_turn(thread):
                state.thread = thread
                thread.turn.release()
                turn_over.acquire()
                if thread.error:
                    raise thread.error

            places = list(np.ndindex(*self._block_dim))
            threads = []
            for place in places[::-1] if state.reverse else places:
                thread = SimpleNamespace(threadIdx=kernelapi.Dim3(*place), blockIdx=kernelapi.Dim3(*grid_point))
                if threads and threads[0].ended:  # a kernel without barriers needs no thread of the system
                    state.thread = thread
                    self._f(*args)
                else:
                    thread.turn, thread.barrier, thread.ended, thread.error = (
                        threading.Semaphore(0),
                        barrier,
                        False,
                        None,
                    )
                    threading.Thread(target=program, args=(thread,), daemon=True).start()
                    threads.append(thread)
                    take_turn(thread)
            while not threads[0].ended:
                for thread in threads:
                    take_turn(thread)
            assert all(thread.ended for thread in threads), "a barrier that not all threads reach"

    kernel.BlockManager = BlockManager
    kernelapi.FakeCUDAModule.threadIdx = property(lambda self: state.thread.threadIdx)
    kernelapi.FakeCUDAModule.blockIdx = property(lambda self: state.thread.blockIdx)
    kernelapi.FakeCUDAModule.syncthreads = lambda self: state.thread.barrier()

    def ndindex(*shape):
        places = list(np.ndindex(*shape))
        return places[::-1] if state.reverse else places

    def shared_array(self, shape, dtype, alignment=None):
        caller = sys._getframe(1)
        place = caller.f_code.co_filename, caller.f_lineno
        if place not in self._allocations:
            self._allocations[place] = empty(shape, as_dtype(dtype))
        return self._allocations[place]

    def local_array(self, shape, dtype, alignment=None):
        return empty(shape, as_dtype(dtype))

    def empty(shape, dtype):
        return np.full(shape, np.nan if dtype.kind == "f" else 99, dtype)

    def device_array(num_bytes, dtype):
        array = original_device_array(num_bytes, dtype)
        array[:] = 255  # bytes of a NaN
        return array

    original_device_array = cuda.device_array
    cuda.device_array = device_array
    kernel.np = SimpleNamespace(**vars(np) | {"ndindex": ndindex})
    kernelapi.FakeCUDAShared.array = shared_array
    kernelapi.FakeCUDALocal.array = local_array
    return state


def compile_kernels() -> None:
    """Program: the PTX of every kernel, as JSON to standard output, without a GPU."""
    from numba import cuda, types
    from numba.cuda import dispatcher

    from ccs.flow import gpu_kernels

    def array(dtype, dimensions):
        return types.Array(dtype, dimensions, "C")

    int64, float32, int32 = types.int64, types.float32, types.int32
    arrays = [(int32, 3), (int32, 1), (int32, 2), (float32, 1), (int32, 2), (float32, 2)] + 2 * [(float32, 3)]
    signatures = {
        "step": [array(*each) for each in [*arrays, (float32, 4)]] + 5 * [int64] + [types.float64] + 3 * [float32],
    }
    tile = gpu_kernels.Tile()
    compiled = {}
    for capability in ((8, 0), (9, 0)):
        # device functions are compiled for the present device
        dispatcher.get_current_device = lambda capability=capability: SimpleNamespace(compute_capability=capability)
        gpu_kernels.build.cache_clear()
        for name, signature in signatures.items():
            function = gpu_kernels.build(tile).py_func
            bounds = (tile.threads, 2) if name == "step" else None
            ptx, _ = cuda.compile_ptx(function, types.void(*signature), cc=capability, launch_bounds=bounds)
            compiled.setdefault(f"sm_{capability[0]}{capability[1]}", {})[name] = ptx
    print(json.dumps(compiled))


if __name__ == "__main__":
    if sys.argv[1] == "simulate":
        simulate(sys.argv[2])
    else:
        compile_kernels()
