"""Speed of native-cuda. `speed.py launch|kernel|host|sizes|processes|cpu ...`, each a line of results or more."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

import common
import numpy as np

SIMULATED = bool(os.environ.get("CCS_TRIAL_SIMULATED"))
FEW = dict(scales=2, warps=1, inner_iterations=4, outer_iterations=1) if SIMULATED else {}
MEMORY = 24 << 30


def mixed(num_pairs, size=common.SIZE):
    """So many pairs of real clips in turn, in videos of 8 frames: easy and hard ones side by side."""
    clips = [common.grey_frames(path, 32, size) for path in common.clip_paths()]
    videos, count, start = [], 0, 0
    while count < num_pairs:
        for clip in clips:
            part = clip[start : start + 8]
            if len(part) < 2:
                part = clip[:8]
            part = part[: num_pairs - count + 1]
            if len(part) > 1 and count < num_pairs:
                videos.append(np.ascontiguousarray(part))
                count += len(part) - 1
        start = (start + 7) % 21
    return videos


def pairs_of(videos):
    return sum(len(v) - 1 for v in videos)


def warm(gpu, parameters):
    gpu.estimate_videos([mixed(1, (24, 20) if SIMULATED else common.SIZE)[0][:2]], parameters, MEMORY)


def launch(gpu, parameters):
    """Host time and device time of a step that does nothing, by numba's own launch, prepared, and in a graph."""
    from numba import cuda

    from ccs.flow import gpu_kernels

    warm(gpu, parameters)
    for num_pairs in (8, 128):
        plan = gpu._plan(256, 340, parameters)
        arrays = gpu._allocate(plan, num_pairs, num_pairs + 1, MEMORY)
        control = np.zeros((2, num_pairs, gpu_kernels.NUM_FIELDS), np.int32)
        control[:, :, gpu_kernels.PHASE] = gpu_kernels.DONE
        stream = cuda.stream()
        arrays["control"].copy_to_device(control, stream=stream)
        arrays["levels"].copy_to_device(plan.levels, stream=stream)
        arguments, call = arguments_of(gpu, arrays, plan, parameters, num_pairs, stream)
        for mode in ("numba", "prepared", "graph"):
            try:
                run = steps_by(mode, call, arguments, stream)
                run(32)
                stream.synchronize()
                a, b = cuda.event(), cuda.event()
                a.record(stream)
                start = time.perf_counter()
                run(512)
                host = time.perf_counter() - start
                b.record(stream)
                stream.synchronize()
                common.say(
                    step="launch",
                    mode=mode,
                    pairs=num_pairs,
                    host_us=round(host / 512 * 1e6, 1),
                    device_us=round(a.elapsed_time(b) / 512 * 1e3, 1),
                )
            except Exception as error:
                common.say(
                    step="launch", mode=mode, pairs=num_pairs, error=f"{type(error).__name__}: {str(error)[:300]}"
                )


def arguments_of(gpu, arrays, plan, parameters, num_pairs, stream, slot=0, num_frames=None):
    """Arguments of a step but for the parity, as gpu._compute makes them; and the configured kernel."""
    from ccs.flow import gpu_kernels

    control = (
        arrays["control"]
        .reshape(arrays["control"].size)[: 2 * num_pairs * gpu_kernels.NUM_FIELDS]
        .reshape(2, num_pairs, gpu_kernels.NUM_FIELDS)
    )
    counts = plan.levels[:, gpu_kernels.TILES_X :]
    num_blocks = int(max((counts[:, 0] * counts[:, 1]).max(), (counts[:, 2] * counts[:, 3]).max()))
    call = gpu_kernels.build(plan.tile)[(num_blocks, num_pairs), (plan.tile.width, plan.tile.strips), stream]
    images = arrays[f"images{slot}"] if num_frames is None else arrays[f"images{slot}"][:num_frames]
    before = [
        control,
        arrays["arrivals"][: num_pairs + 1],
        arrays["levels"],
        arrays["thresholds"],
        arrays["pairs"][:num_pairs],
        images,
        arrays["planes"],
        arrays["partials"],
        arrays[f"flow{slot}"],
    ]
    after = [
        parameters.median_filtering,
        parameters.warps,
        parameters.inner_iterations,
        parameters.outer_iterations,
        1 / parameters.scale_step,
        np.float32(parameters.lambda_ * parameters.theta),
        np.float32(parameters.tau / parameters.theta),
        np.float32(parameters.theta),
    ]
    return (before, after), call


def steps_by(mode, call, arguments, stream):
    """run(n) enqueues n steps, n even; a prototype of what gpu._compute could do instead of numba's launches."""
    before, after = arguments
    if mode == "numba":

        def run(count):
            for number in range(count):
                call(*before, number % 2, *after)

        return run
    from cuda.core import LaunchConfig, launch

    dispatcher, grid, block = call.dispatcher, call.griddim, call.blockdim
    kernel = list(dispatcher.overloads.values())[-1]  # `warm` has compiled it, for these types
    prepared = []
    for parity in (0, 1):
        retr, values = [], []
        for kind, value in zip(kernel.argument_types, [*before, parity, *after]):
            kernel._prepare_args(kind, value, call.stream, retr, values)
        prepared.append(values)
    config, function = LaunchConfig(grid=grid, block=block), kernel._codelibrary.get_cufunc().kernel

    def run(count):
        for number in range(count):
            launch(call.stream, config, function, *prepared[number % 2])

    if mode == "prepared":
        return run
    from cuda.bindings import driver

    def check(result):
        assert result[0] == driver.CUresult.CUDA_SUCCESS, result[0]
        return result[1] if len(result) > 1 else None

    handle = driver.CUstream(int(stream.handle))
    stream.synchronize()
    check(driver.cuStreamBeginCapture(handle, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
    run(16)
    graph = check(driver.cuStreamEndCapture(handle))
    executable = check(driver.cuGraphInstantiate(graph, 0))

    def replay(count):
        for _ in range(count // 16):
            check(driver.cuGraphLaunch(executable, handle))

    replay.keep = (graph, executable, prepared)
    return replay


def replacement(gpu, mode, log):
    """gpu._compute with another way of launching, and a log of (pairs, host s, steps)."""
    from numba import cuda

    from ccs.flow import gpu_kernels

    def compute(arrays, slot, batch, plan, parameters, stream, chores):
        num_pairs = len(batch.pairs)
        start_time = time.perf_counter()
        arguments, call = arguments_of(gpu, arrays, plan, parameters, num_pairs, stream, slot, len(batch.frames))
        control, arrivals, pairs = arguments[0][0], arguments[0][1], arguments[0][4]
        run = steps_by(mode, call, arguments, stream)
        start = np.zeros(control.shape, np.int32)
        start[:, :, gpu_kernels.LEVEL] = len(plan.levels) - 1
        control.copy_to_device(start, stream=stream)
        arrivals.copy_to_device(np.zeros(num_pairs + 1, np.int32), stream=stream)
        pairs.copy_to_device(np.array(batch.pairs, np.int32), stream=stream)
        done = gpu._page_locked("done", (2,), np.int32)
        looks = cuda.event(), cuda.event()
        for look in range(gpu._most_steps(plan, parameters) // gpu.STEPS_PER_LOOK + 3):
            run(gpu.STEPS_PER_LOOK)
            arrivals[num_pairs:].copy_to_host(done[look % 2 : look % 2 + 1], stream=stream)
            looks[look % 2].record(stream)
            if chores:
                chores.popleft()()
            if look > 0:
                looks[(look - 1) % 2].synchronize()
                if done[(look - 1) % 2] == num_pairs:
                    log.append((num_pairs, time.perf_counter() - start_time, (look + 1) * gpu.STEPS_PER_LOOK))
                    return
        raise RuntimeError("did not end")

    return compute


def kernel(gpu, parameters, counts=(32, 128, 192)):
    """Device and host time of the steps alone: images are there already and nothing else is done meanwhile."""

    warm(gpu, parameters)
    original = gpu._compute
    if SIMULATED:
        counts = (2,)
    reference = {}
    for mode in ("numba",) if SIMULATED else ("numba", "prepared", "graph"):
        for count in counts:
            videos, log = mixed(count, (24, 20) if SIMULATED else common.SIZE), []
            inner = original if mode == "numba" else replacement(gpu, mode, [])

            def timed(arrays, slot, batch, plan, parameters, stream, chores):
                while chores:
                    chores.popleft()()
                stream.synchronize()
                begin = time.perf_counter()
                inner(arrays, slot, batch, plan, parameters, stream, chores)
                stream.synchronize()
                log.append((len(batch.pairs), time.perf_counter() - begin))

            gpu._compute = timed
            try:
                for _ in range(2):
                    log.clear()
                    flows = gpu.estimate_videos(videos, parameters, MEMORY)
                same = all(np.array_equal(a, b) for a, b in zip(flows, reference.setdefault(count, flows)))
                pairs, seconds = map(sum, zip(*log))
                common.say(
                    step="kernel-only",
                    mode=mode,
                    pairs=count,
                    batches=len(log),
                    pairs_per_s=round(pairs / seconds, 1),
                    ms_per_batch=round(seconds / len(log) * 1e3, 1),
                    same_as_numba=same,
                )
            except Exception as error:
                common.say(
                    step="kernel-only", mode=mode, pairs=count, error=f"{type(error).__name__}: {str(error)[:300]}"
                )
            finally:
                gpu._compute = original


def host(gpu, parameters, counts=(16, 64, 192, 768), size=common.SIZE, modes=("numba", "graph")):
    """Host to host, as users call it: best of two."""
    warm(gpu, parameters)
    if SIMULATED:
        counts, size, modes = (2,), (24, 20), ("numba",)
    original = gpu._compute
    for mode in modes:
        for count in counts:
            videos = mixed(count, size)
            if mode != "numba":
                gpu._compute = replacement(gpu, mode, [])
            try:
                best = 1e9
                for _ in range(2):
                    start = time.perf_counter()
                    gpu.estimate_videos(videos, parameters, MEMORY)
                    best = min(best, time.perf_counter() - start)
                common.say(
                    step="host-to-host",
                    mode=mode,
                    size=f"{size[0]}x{size[1]}",
                    pairs=pairs_of(videos),
                    pairs_per_s=round(pairs_of(videos) / best, 1),
                )
            except Exception as error:
                common.say(
                    step="host-to-host", mode=mode, pairs=count, error=f"{type(error).__name__}: {str(error)[:300]}"
                )
            finally:
                gpu._compute = original


def _worker(number, gate, results):
    gpu = common.engine()
    from ccs.flow.settings import Parameters

    gpu.set_up(0)
    parameters = Parameters(**FEW)
    warm(gpu, parameters)
    videos = mixed(2 if SIMULATED else 256, (24, 20) if SIMULATED else common.SIZE)
    gate.wait()
    start = time.perf_counter()
    for _ in range(1 if SIMULATED else 3):
        gpu.estimate_videos(videos, parameters, MEMORY)
    results.put((pairs_of(videos) * (1 if SIMULATED else 3), time.perf_counter() - start))


def processes(gpu, parameters, counts=(2, 4)):
    """Several processes on one GPU, without MPS."""
    context = multiprocessing.get_context("spawn")
    for count in counts:
        gate, results = context.Barrier(count), context.Queue()
        workers = [context.Process(target=_worker, args=(n, gate, results)) for n in range(count)]
        for worker in workers:
            worker.start()
        found = [results.get(timeout=240) for _ in workers]
        for worker in workers:
            worker.join()
        common.say(
            step="processes", processes=count, pairs_per_s=round(sum(p for p, _ in found) / max(s for _, s in found), 1)
        )


def cpu(gpu, parameters):
    """The CPU engine of one core of this machine, and the host's own shares of the work, ms a pair."""
    from ccs.flow import native
    from ccs.flow.engines import estimate
    from ccs.flow.quantise import quantise

    native.set_up(0)
    frames = mixed(4, (24, 20) if SIMULATED else common.SIZE)[0][:5]
    estimate(frames[:2], "native", **FEW)
    start = time.perf_counter()
    flow = estimate(frames, "native", **FEW)
    each = (time.perf_counter() - start) / (len(frames) - 1)
    plan = gpu._plan(*frames.shape[1:], parameters)
    out = np.zeros(plan.pyramid_size, np.float32)

    def ms(f, n=20):
        start = time.perf_counter()
        for _ in range(n):
            f()
        return round((time.perf_counter() - start) / n * 1e3, 3)

    common.say(
        step="cpu",
        native_pairs_per_s=round(1 / each, 2),
        pyramid_ms=ms(lambda: gpu._write_pyramid(frames[0], plan, parameters.scale_step, out)),
        quantise_ms=ms(lambda: quantise(flow[:1], 20)),
        copy_ms=ms(lambda: flow[0].copy()),
    )


if __name__ == "__main__":
    gpu = common.engine()
    from ccs.flow.settings import Parameters

    for name in sys.argv[1:]:
        start = time.perf_counter()
        if name == "sizes":
            for size in [(171, 128), (320, 240), (427, 240), (640, 480), (1280, 720)]:
                host(gpu, Parameters(**FEW), (64,), size, ("numba",))
        else:
            {"launch": launch, "kernel": kernel, "host": host, "processes": processes, "cpu": cpu}[name](
                gpu, Parameters(**FEW)
            )
        print(f"# {name}: {time.perf_counter() - start:.1f} s", flush=True)
