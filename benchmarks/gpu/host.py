"""The host's processor time for a pair of native-cuda, from JPEGs in a frames shard to a flow shard; without a GPU.

    python benchmarks/gpu/host.py [FOLDER] [--pairs 2000]

The CUDA driver is tests/flow/cuda_on_cpu.cpp (needs g++), which does nothing and answers at once with flow of the same
clips: what is measured is all that the processors do, start-up left out: the difference of a long and a short run.
FOLDER holds videos (default: `ucf101` and `hmdb51` in CCS_REAL_DATA or in ../shared/data); of each the first 32 frames
count, and the flow at the 20th. The largest parts are also timed alone.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

from ccs.flow.engines import estimate
from ccs.flow.quantise import quantise
from ccs.flow.shard import COMPRESSION
from tests.flow.conftest import compile_for_cpu

SIZE = (340, 256)


def frames_shard(path: Path, clips: list[np.ndarray], num_pairs: int) -> None:
    """A frames shard of the clips, again and again until there are so many pairs."""
    import simplejpeg

    jpegs = [
        [
            simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=95, colorspace="BGR", colorsubsampling="420")
            for frame in clip
        ]
        for clip in clips
    ]
    total, videos = 0, []
    while total < num_pairs:
        videos.append(jpegs[len(videos) % len(jpegs)])
        total += len(videos[-1]) - 1
    with h5py.File(path, "w") as file:
        file.create_dataset("video", data=[f"v{n}" for n in range(len(videos))], dtype=h5py.string_dtype())
        for number, video in enumerate(videos):
            group = file.create_group(f"frames/{number:06d}")
            group.attrs["height"], group.attrs["width"] = SIZE[::-1]
            group["jpeg"] = np.frombuffer(b"".join(video), np.uint8)
            group["offset"] = np.cumsum([0, *map(len, video)])


def processor_seconds(line: list[str], environment: dict[str, str]) -> float:
    """Of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, env=os.environ | environment, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alone(function: Callable[[], object], count: int = 200) -> float:
    """Milliseconds of the processor."""
    function()
    start = time.process_time()
    for _ in range(count):
        function()
    return (time.process_time() - start) / count * 1e3


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--pairs", type=int, default=2000, help="of the long run; the short one has a fifth")
    args = parser.parse_args()
    from flow import device, grey_frames

    data = Path(os.environ.get("CCS_REAL_DATA", ROOT.parent / "shared" / "data"))
    folders = [args.folder] if args.folder else [data / "ucf101", data / "hmdb51"]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.avi"))]
    clips = []
    for path in paths:
        video, frames = cv2.VideoCapture(str(path)), []
        while len(frames) < 32 and (read := video.read())[0]:
            frames.append(cv2.resize(read[1], SIZE, interpolation=cv2.INTER_AREA))
        clips.append(np.stack(frames))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flow = np.concatenate([estimate(grey_frames(path, 22, SIZE)[-2:], "native") for path in paths])
        values, _ = quantise(flow, 20)
        (folder / "flow.bin").write_bytes(values.tobytes())
        compile_for_cpu(folder)
        environment = {"LD_LIBRARY_PATH": str(folder), "CUDA_ON_CPU_IDLE": str(folder / "flow.bin")}
        seconds = {}
        for number in (args.pairs // 5, args.pairs):
            frames_shard(folder / "frames.h5", clips, number)
            line = [sys.executable, "-m", "ccs.flow", "--frames", folder / "frames.h5", "--output", folder / "out.h5"]
            seconds[number] = min(processor_seconds([*line, "--backend", "native-cuda"], environment) for _ in range(3))
        short, long = seconds
        each = (seconds[long] - seconds[short]) / (long - short) * 1e3
        start = seconds[short] - short * each / 1e3
        print(f"{device('native')}: {each:.2f} ms of processor time a pair, and {start:.1f} s to start")
        with h5py.File(folder / "frames.h5") as file:
            group = file["frames/000000"]
            offset = group["offset"][:]
            jpeg = group["jpeg"][: offset[1]].tobytes()
        with h5py.File(folder / "written.h5", "w") as file:
            shape, chunk = (4000, *values.shape[1:]), (1, *values.shape[1:])
            data_set = file.create_dataset("flow", shape, np.uint8, chunks=chunk, **COMPRESSION)
            place = iter(range(4000))

            def write() -> None:
                number = next(place)
                data_set[number] = values[number % len(values)]

            parts = {
                "decode a frame": alone(lambda: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)),
                "compress and write": alone(write),
                "pickle and unpickle": alone(lambda: pickle.loads(pickle.dumps(values[:1], 5))),
            }
            room = data_set.id.get_storage_size() / 201
        print(
            "; ".join(f"{name} {milliseconds:.2f} ms" for name, milliseconds in parts.items()),
            f"; {room / 1024:.1f} KiB a pair",
            sep="",
        )


if __name__ == "__main__":
    main()
