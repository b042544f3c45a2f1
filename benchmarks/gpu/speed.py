"""Speed of native-cuda: speed.py host|threads|round|sizes|stage|kernels|cpu ..., each a line of results or more.

pairs_per_s is of the better of two rounds; cpu_ms_per_pair is the host's processor time, of all threads.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import h5py
import numpy as np

from ccs.flow.gpu_device import Device, call
from ccs.flow.settings import Parameters

PARAMETERS = Parameters(**common.FEW)
SIZES = [(24, 20)] if common.SMALL else [(171, 128), (320, 240), (427, 240), (640, 480), (1280, 720)]
MANY = 2 if common.SMALL else 1536  # pairs
CALLS = 1 if common.SMALL else 8  # of each thread
PAIRS_A_CALL = 2 if common.SMALL else 64
# the carried shard's videos, in a shard of the stage; the first start finds nothing in memory and is not used
TIMES = (1, 1, 2) if common.SMALL else (1, 1, 17)


def mixed(num_pairs, size=common.SIZE):
    """So many pairs of real clips in turn, in videos of 8 frames: easy and hard ones side by side."""
    clips = [common.grey_frames(path, 32, size) for path in common.clip_paths()]
    videos, count, start = [], 0, 0
    while count < num_pairs:
        for clip in clips:
            part = clip[start : start + 8] if len(clip) - start > 1 else clip[:8]
            part = part[: num_pairs - count + 1]
            if len(part) > 1 and count < num_pairs:
                videos.append(np.ascontiguousarray(part))
                count += len(part) - 1
        start = (start + 7) % 21
    return videos


def pairs_of(videos):
    return sum(len(video) - 1 for video in videos)


def compute(gpu, videos, bits):
    if bits == 8:
        return gpu.estimate_quantised(videos, PARAMETERS, common.BOUND, common.MEMORY)
    return gpu.estimate_videos(videos, PARAMETERS, common.MEMORY)


def predicted(device, size):
    """Pairs a second of mixed clips that model.py says, where it is there and says something."""
    try:
        import model

        return model.predicted(device.name, *size)
    except Exception as error:  # a measurement does not fail for want of a prediction
        return None if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"


def timed(device, figure, function, num_pairs, size, **facts):
    """Say what `function`, which computes so many pairs, takes."""
    best = float("inf"), 0.0
    for _ in range(2):
        start, cpu = time.perf_counter(), time.process_time()
        function()
        best = min(best, (time.perf_counter() - start, time.process_time() - cpu))
    free, total = call(device.driver.cuMemGetInfo)
    rate = num_pairs / best[0]
    row = {"figure": figure, "device": device.name, "size": f"{size[0]}x{size[1]}", "pairs": num_pairs, **facts}
    row |= {"pairs_per_s": round(rate, 1), "cpu_ms_per_pair": round(best[1] / num_pairs * 1e3, 3)}
    if (expected := predicted(device, size)) is not None:
        row["predicted_pairs_per_s"] = expected
    common.say(step="speed", **row, device_mib=(total - free) >> 20)


def host(gpu, device):
    """Host to host, one call of many pairs."""
    for bits in (32, 8):
        videos = mixed(MANY)
        compute(gpu, videos[:1], bits)  # makes the engine
        timed(device, "host to host", lambda: compute(gpu, videos, bits), pairs_of(videos), common.SIZE, bits=bits)


def threads(gpu, device):
    """Several threads that call at the same time, again and again, for few pairs each."""
    videos = mixed(PAIRS_A_CALL)
    for bits in (8, 32):
        compute(gpu, videos[:1], bits)
        for count in (1, 4, 8):
            with ThreadPoolExecutor(count) as pool:

                def work(_):
                    for _ in range(CALLS):
                        compute(gpu, videos, bits)

                def all_work():
                    list(pool.map(work, range(count)))

                num_pairs = count * CALLS * pairs_of(videos)
                timed(device, "threads", all_work, num_pairs, common.SIZE, bits=bits, threads=count)


def sizes(gpu, device):
    """Host to host by the frames' size, in 8 bits; about the same number of pixels each."""
    for size in SIZES:
        num_pairs = MANY if common.SMALL else max(64, min(4096, 130_000_000 // (size[0] * size[1])))
        videos = mixed(num_pairs, size)
        compute(gpu, videos[:1], 8)
        timed(device, "host to host", lambda: compute(gpu, videos, 8), pairs_of(videos), size, bits=8)


def round_(gpu, device):
    """A round, one graph launch, that finds nothing to do: the host's time to launch it and the device's to run it."""
    from ccs.flow.gpu_engine import STEPS, Engine

    driver, count = device.driver, 2 if common.SMALL else 16  # so few that the host never waits for room in the queue
    engine = Engine(device, PARAMETERS, None, common.MEMORY, [common.SIZE[::-1]])
    device.make_current()
    ends, host_us, device_us = [call(driver.cuEventCreate, 0) for _ in range(2)], [], []
    for _ in range(9):
        call(driver.cuEventRecord, ends[0], engine.stream)
        start = time.perf_counter()
        for _ in range(count):
            call(driver.cuGraphLaunch, engine.graph, engine.stream)
        host_us.append((time.perf_counter() - start) / count * 1e6)
        call(driver.cuEventRecord, ends[1], engine.stream)
        call(driver.cuStreamSynchronize, engine.stream)
        device_us.append(call(driver.cuEventElapsedTime, *ends) / count * 1e3)
    common.say(
        step="speed",
        figure="empty round",
        device=device.name,
        slots=engine.num_slots,
        steps=STEPS,
        host_us=round(float(np.median(host_us)), 1),
        device_us=round(float(np.median(device_us)), 1),
    )
    engine.close()


def stage(gpu, device):
    """`ccs flow` from a frames shard to a flow shard, and what is left of it without its start."""
    taken = {}
    with tempfile.TemporaryDirectory() as folder:
        for times in TIMES:
            frames = Path(folder, f"frames{times}.h5")
            num_pairs = repeat_shard(common.HERE / "frames.h5", frames, times)
            flags = [f"--{name.replace('_', '-')}={value}" for name, value in common.FEW.items()]
            line = [sys.executable, "-m", "ccs.flow", "--frames", str(frames), "--output", f"{folder}/flow.h5"]
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            line += ["--backend", "native-cuda", *flags]
            done = subprocess.run(line, stderr=subprocess.PIPE, text=True)
            seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            if done.returncode:
                sys.exit(f"ccs flow failed:\n{done.stderr}")
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            taken[num_pairs] = seconds, cpu
            say_stage(device, "flow stage", num_pairs, seconds, cpu)
    (few, (start_s, start_cpu)), (many, (all_s, all_cpu)) = taken.items()
    say_stage(device, "flow stage, but for its start", many - few, all_s - start_s, all_cpu - start_cpu)


def say_stage(device, figure, num_pairs, seconds, cpu):
    common.say(
        step="speed",
        figure=figure,
        device=device.name,
        pairs=num_pairs,
        seconds=round(seconds, 2),
        pairs_per_s=round(num_pairs / seconds, 1),
        cpu_ms_per_pair=round(cpu / num_pairs * 1e3, 3),
    )


def repeat_shard(path, out, times):
    """A frames shard with its videos so many times over; returns its pairs."""
    with h5py.File(path) as shard, h5py.File(out, "w") as copy:
        copy.attrs.update(shard.attrs)
        names = shard["video"].asstr()[:]
        copy["video"] = [f"{name}-{number}" for number in range(times) for name in names]
        for index in range(times * len(names)):
            shard.copy(f"frames/{index % len(names):06d}", copy, f"frames/{index:06d}")
        return sum(len(group["offset"]) - 2 for group in copy["frames"].values())


def kernels(gpu, device):
    """Share of each kernel in the device's time, by torch's profiler, and how long the device has anything to do."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        print("# torch finds no GPU to profile")
        return
    videos = mixed(MANY // 3)
    compute(gpu, videos, 8)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        compute(gpu, videos, 8)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    spans, by_name = [], {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            spans.append((event.time_range.start, event.time_range.end))
            by_name.setdefault(event.name, []).append(event.time_range.end - event.time_range.start)
    busy, until = 0.0, 0.0
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    total = sum(map(sum, by_name.values()))
    for name, times in sorted(by_name.items(), key=lambda item: -sum(item[1])):
        common.say(
            step="kernels",
            kernel=name[:40],
            launches=len(times),
            share=round(sum(times) / total, 4),
            mean_us=round(sum(times) / len(times), 2),
        )
    common.say(step="kernels", pairs=pairs_of(videos), seconds=round(seconds, 3), busy_s=round(busy / 1e6, 3))


def cpu(gpu, device):
    """The CPU engine on one core of this machine."""
    from ccs.flow.engines import estimate

    frames = mixed(4)[0][:5]
    estimate(frames[:2], "native", **common.FEW)
    start = time.perf_counter()
    estimate(frames, "native", **common.FEW)
    rate = (len(frames) - 1) / (time.perf_counter() - start)
    common.say(step="speed", figure="CPU engine, one core", pairs_per_s=round(rate, 2))


MODES = {
    "host": host,
    "threads": threads,
    "round": round_,
    "sizes": sizes,
    "stage": stage,
    "kernels": kernels,
    "cpu": cpu,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modes", nargs="+", choices=MODES)
    for mode in parser.parse_args().modes:
        start = time.perf_counter()
        MODES[mode](common.engine(), Device(0))
        print(f"# {mode}: {time.perf_counter() - start:.1f} s", flush=True)
