"""Layouts of training shards compared: random snippets a second from a warm page cache, in one process.

    python benchmarks/shards.py [--data ../shared/data] [--videos 128] [--rounds 30]

A snippet is 1 frame and 5 consecutive flow pairs, an I3D clip 10 frames and 10 pairs, at a random place of a random
video. Videos are 13 frames of real clips at 340x256 with their TV-L1 flow, which the first run computes (minutes, at
low priority) and keeps, as all files of the benchmark, in benchmarks/out/. The clips are repeated to make a shard's
worth of videos. In every round each layout reads the same snippets, in a random order of layouts; ratios are taken
within a round, and the medians over the rounds are printed.

The measure is TSN's layout, a JPEG file per frame and flow component (cv2's default quality 95, frames too), read by
cv2.imread. Its planes are left as a list; the others return what they decode as arrays.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import h5py
import hdf5plugin
import numpy as np
import pandas as pd

from ccs.flow.engines import estimate
from ccs.flow.quantise import quantise
from ccs.hdf5 import READING
from ccs.shards.__main__ import COMPRESSION, ShardReader, pack

HEIGHT, WIDTH, FRAMES, PAIRS, BOUND = 256, 340, 13, 12, 20.0
CLIPS = (
    "ucf101/videos/Biking/*",
    "ucf101/videos/BoxingSpeedBag/*",
    "ucf101/videos/Diving/*",
    "ucf101/videos/JavelinThrow/*",
    "hmdb51/videos/cartwheel/*",
    "hmdb51/videos/wave/*",
    "ssv2/videos/task41_1*",
    "ssv2/videos/task5_1*",
)
BLOSC = hdf5plugin.Blosc
PLAIN, BITS = BLOSC.NOSHUFFLE, BLOSC.BITSHUFFLE

Read = Callable[[int, int, int, int, int], tuple]  # video, first frame, frames, first pair, pairs -> frames, flow


def clip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a video: frames uint8 (13, 256, 340, 3) BGR and flow uint8 (12, 2, 256, 340)."""
    cv2.setNumThreads(1)
    video, frames = cv2.VideoCapture(str(path)), []
    while (frame := video.read())[0]:
        frames.append(frame[1])
    first = (len(frames) - FRAMES) // 2
    frames = np.stack([cv2.resize(frame, (WIDTH, HEIGHT)) for frame in frames[first : first + FRAMES]])
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames])
    return frames, quantise(estimate(grey, backend="opencv"), BOUND)[0]


def load_clips(data: Path, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """All clips: uint8 (8, 13, 256, 340, 3) and (8, 12, 2, 256, 340); computed once."""
    cache = out / "clips.npz"
    if not cache.is_file():
        paths = [sorted(data.glob(pattern))[0] for pattern in CLIPS]
        with multiprocessing.get_context("spawn").Pool(initializer=os.nice, initargs=(10,)) as pool:
            frames, flow = zip(*pool.map(clip, paths, chunksize=1), strict=True)
        np.savez(cache, frames=np.stack(frames), flow=np.stack(flow))
    with np.load(cache) as clips:
        return clips["frames"], clips["flow"]


class Files:
    """Writes every layout of the same `num_videos` videos under `out`; a file that exists is kept."""

    def __init__(self, out: Path, frames: np.ndarray, flow: np.ndarray, num_videos: int) -> None:
        self.out, self.num_videos = out / str(num_videos), num_videos
        self.out.mkdir(parents=True, exist_ok=True)
        self.flow = [flow[i % len(flow)] for i in range(num_videos)]
        jpegs = [[cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1] for frame in clip] for clip in frames]
        self.jpegs = [jpegs[i % len(jpegs)] for i in range(num_videos)]

    def _write(self, name: str, fill: Callable[[h5py.File], None]) -> Path:
        path = self.out / f"{name}.h5"
        if not path.is_file():
            part = path.with_suffix(".part")
            with h5py.File(part, "w", libver=("v110", "v110")) as file:
                fill(file)
            part.rename(path)
        return path

    def tsn(self) -> Path:
        """A JPEG file per frame and flow component."""
        root = self.out / "tsn"
        for i in range(0 if root.is_dir() else self.num_videos):
            folder = root / f"{i:06d}"
            folder.mkdir(parents=True)
            for t, jpeg in enumerate(self.jpegs[i], 1):
                (folder / f"img_{t:05d}.jpg").write_bytes(jpeg.tobytes())
            for t, pair in enumerate(self.flow[i], 1):
                for name, plane in zip("xy", pair, strict=True):
                    cv2.imwrite(str(folder / f"flow_{name}_{t:05d}.jpg"), plane)
        return root

    def per_video(self, name: str, **compression: object) -> Path:
        """Datasets of each video, as in frames and flow shards."""

        def fill(file: h5py.File) -> None:
            file.attrs["bound"] = BOUND
            file["video"] = [f"{i:06d}" for i in range(self.num_videos)]
            for i, (jpegs, flow) in enumerate(zip(self.jpegs, self.flow, strict=True)):
                group = file.create_group(f"frames/{i:06d}")
                group.attrs.update(height=HEIGHT, width=WIDTH)
                group["jpeg"], group["offset"] = np.concatenate(jpegs), offsets(jpegs)
                file.create_dataset(f"flow/{i:06d}", data=flow, chunks=(1, *flow.shape[1:]), **compression)

        return self._write(name, fill)

    def merged(self, name: str, pairs: int = 1, **compression: object) -> Path:
        """One dataset for all JPEGs and one for all flow, in chunks of `pairs`; contiguous if `pairs` is 0."""

        def fill(file: h5py.File) -> None:
            self._fill_frames(file)
            chunks = (pairs, 2, HEIGHT, WIDTH) if pairs else None
            shape = (self.num_videos * PAIRS, 2, HEIGHT, WIDTH)
            dataset = file.create_dataset("flow", shape, np.uint8, chunks=chunks, **compression)
            for i, flow in enumerate(self.flow):
                dataset[i * PAIRS : (i + 1) * PAIRS] = flow

        return self._write(name, fill)

    def flow_jpegs(self, name: str) -> Path:
        """As `merged`, each pair one grey JPEG of x beside y (lossy)."""

        def fill(file: h5py.File) -> None:
            self._fill_frames(file)
            jpegs = [cv2.imencode(".jpg", np.hstack(list(pair)))[1] for flow in self.flow for pair in flow]
            file["flow"], file["flow_offset"] = np.concatenate(jpegs), offsets(jpegs)

        return self._write(name, fill)

    def _fill_frames(self, file: h5py.File) -> None:
        jpegs = [jpeg for video in self.jpegs for jpeg in video]
        file["jpeg"], file["offset"] = np.concatenate(jpegs), offsets(jpegs)


def offsets(jpegs: list[np.ndarray]) -> np.ndarray:
    """Where each of `jpegs` starts when they lie end to end, and the end: int64 (n + 1)."""
    return np.cumsum([0, *map(len, jpegs)])


def decode(data: np.ndarray, offset: np.ndarray, flags: int = cv2.IMREAD_COLOR_RGB) -> list[np.ndarray]:
    """The images whose JPEGs, cut at `offset`, make up `data`."""
    cuts = (offset - offset[0]).tolist()
    return [cv2.imdecode(data[start:stop], flags) for start, stop in pairwise(cuts)]


def read_tsn(root: Path) -> Read:
    """TSN's own way."""

    def read(video: int, frame: int, num_frames: int, pair: int, num_pairs: int) -> tuple:
        folder = f"{root}/{video:06d}"
        frames = [
            cv2.imread(f"{folder}/img_{t + 1:05d}.jpg", cv2.IMREAD_COLOR) for t in range(frame, frame + num_frames)
        ]
        flow = [
            cv2.imread(f"{folder}/flow_{name}_{t + 1:05d}.jpg", cv2.IMREAD_GRAYSCALE)
            for t in range(pair, pair + num_pairs)
            for name in "xy"
        ]
        return frames, flow

    return read


def read_shards(files: Files) -> Read:
    """The reader of this package, on a shard made by its stage."""
    source, path = files.per_video("per-video-lz4hc", **COMPRESSION), files.out / "shard.h5"
    pack(source, source, path)
    reader, names = ShardReader([path]), [f"{i:06d}" for i in range(files.num_videos)]
    return lambda video, frame, num_frames, pair, num_pairs: (
        reader.frames(names[video], range(frame, frame + num_frames)),
        reader.flow(names[video], range(pair, pair + num_pairs)),
    )


def read_per_video(path: Path, *, cached: bool) -> Read:
    """h5py, with datasets looked up at every read or only once."""
    file, handles = h5py.File(path, **READING), {}

    def dataset(name: str) -> h5py.Dataset:
        if not cached:
            return file[name]
        return handles.get(name) or handles.setdefault(name, file[name])

    def read(video: int, frame: int, num_frames: int, pair: int, num_pairs: int) -> tuple:
        offset = dataset(f"frames/{video:06d}/offset")[frame : frame + num_frames + 1]
        data = dataset(f"frames/{video:06d}/jpeg")[offset[0] : offset[-1]]
        return decode(data, offset), dataset(f"flow/{video:06d}")[pair : pair + num_pairs]

    return read


def read_merged(path: Path, flow: str = "h5py", **options: object) -> Read:
    """h5py, or JPEG flow, or (`direct`) raw bytes by pread and raw chunks decoded by Blosc itself."""
    file = h5py.File(path, **(READING | options))
    jpeg, offsets, pairs = file["jpeg"], file["offset"][:], file["flow"]
    descriptor, start = os.open(path, os.O_RDONLY), jpeg.id.get_offset()
    flow_offsets = file["flow_offset"][:] if flow == "jpeg" else None
    blosc = (
        ctypes.CDLL(str(Path(hdf5plugin.__file__).parent / "plugins" / "libh5blosc.so")) if flow == "direct" else None
    )

    def read(video: int, frame: int, num_frames: int, pair: int, num_pairs: int) -> tuple:
        offset = offsets[video * FRAMES + frame :][: num_frames + 1]
        if flow == "direct":
            data = os.pread(descriptor, int(offset[-1] - offset[0]), start + int(offset[0]))
            frames = decode(np.frombuffer(data, np.uint8), offset)
        else:
            frames = decode(jpeg[offset[0] : offset[-1]], offset)
        first = video * PAIRS + pair
        if flow == "h5py":
            return frames, pairs[first : first + num_pairs]
        if flow == "jpeg":
            offset = flow_offsets[first : first + num_pairs + 1]
            return frames, decode(pairs[offset[0] : offset[-1]], offset, cv2.IMREAD_GRAYSCALE)
        planes = np.empty((num_pairs, 2, HEIGHT, WIDTH), np.uint8)
        for k, plane in enumerate(planes):
            chunk = pairs.id.read_direct_chunk((first + k, 0, 0, 0))[1]
            blosc.blosc_decompress_ctx(chunk, ctypes.c_void_p(plane.ctypes.data), ctypes.c_size_t(plane.nbytes), 1)
        return frames, planes

    return read


def layouts(files: Files) -> dict[str, tuple[Read, Path]]:
    """Every layout: how to read it, and its file."""
    lz4hc, per_video = files.merged("lz4hc", **COMPRESSION), files.per_video("per-video-lz4hc", **COMPRESSION)
    found = {
        "TSN: a JPEG file per frame and flow component": (read_tsn(files.tsn()), files.tsn()),
        "ShardReader": (read_shards(files), files.out / "shard.h5"),
        "datasets per video, LZ4HC, handles kept": (read_per_video(per_video, cached=True), per_video),
        "datasets per video, LZ4HC, looked up": (read_per_video(per_video, cached=False), per_video),
        "LZ4HC": (read_merged(lz4hc), lz4hc),
        "LZ4HC, HDF5's chunk cache": (read_merged(lz4hc, rdcc_nbytes=8 * 2**20), lz4hc),
        "LZ4HC, pread and own Blosc call": (read_merged(lz4hc, "direct"), lz4hc),
    }
    others = {
        "LZ4HC bitshuffle": BLOSC("lz4hc", 5, BITS),
        "LZ4": BLOSC("lz4", 5, PLAIN),
        "LZ4 bitshuffle": BLOSC("lz4", 5, BITS),
        "Zstd 5": BLOSC("zstd", 5, PLAIN),
        "Zstd 5 bitshuffle": BLOSC("zstd", 5, BITS),
        "Zstd 9": BLOSC("zstd", 9, PLAIN),
        "gzip 4": {"compression": "gzip"},
    }
    for name, compression in others.items():
        path = files.merged(name, **compression)
        found[name] = read_merged(path), path
    four = files.merged("LZ4HC 4", 4, **COMPRESSION)
    found["LZ4HC, 4 pairs a chunk"] = read_merged(four), four
    raw, jpegs = files.merged("contiguous", 0), files.flow_jpegs("jpegs")
    found["uncompressed, contiguous"] = read_merged(raw), raw
    found["flow as JPEG, x beside y (lossy)"] = read_merged(jpegs, "jpeg"), jpegs
    return found


def check(files: Files, read: Read, lossless: bool) -> None:
    """Every video read whole, which also warms the page cache; flow compared with the source."""
    for video in range(files.num_videos):
        frames, flow = read(video, 0, FRAMES, 0, PAIRS)
        assert len(frames) == FRAMES
        flow = np.asarray(flow).reshape(-1)  # JPEG planes lie x | y, the comparison is of lossless ones only
        assert not lossless or np.array_equal(flow, files.flow[video].reshape(-1))


def rates(
    readers: dict[str, Read], num_videos: int, rounds: int, count: int, num_frames: int, num_pairs: int
) -> dict[str, list[float]]:
    """Reads a second of each layout in each round; in a round all read the same `count` places."""
    rng, found = np.random.default_rng(0), {name: [] for name in readers}
    for _ in range(rounds):
        ends = num_videos, FRAMES - num_frames + 1, PAIRS - num_pairs + 1
        places = [tuple(int(rng.integers(end)) for end in ends) for _ in range(count)]
        for name in rng.permutation(list(readers)):  # what ran before leaves its traces in the processor's caches
            read, start = readers[name], time.perf_counter()
            for video, frame, pair in places:
                read(video, frame, num_frames, pair, num_pairs)
            found[name].append(count / (time.perf_counter() - start))
    return found


def flow_kib(path: Path, files: Files) -> float:
    """KiB on disk of a pair of flow: the file, less the JPEGs of the frames."""
    size = sum(each.stat().st_size for each in path.rglob("*.jpg")) if path.is_dir() else path.stat().st_size
    return (size - sum(len(jpeg) for video in files.jpegs for jpeg in video)) / files.num_videos / PAIRS / 1024


def main() -> None:
    """Write the layouts, check them, time them and print a table."""
    root = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = os.environ.get("CCS_REAL_DATA", root.parent.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default, help="folder of real clips (default: CCS_REAL_DATA)")
    parser.add_argument("--videos", type=int, default=128, help="videos in the shard (default: 128)")
    parser.add_argument("--rounds", type=int, default=30, help="alternating rounds (default: 30)")
    args = parser.parse_args()
    out = root / "out" / "shards"
    out.mkdir(parents=True, exist_ok=True)
    files = Files(out, *load_clips(args.data, out), args.videos)
    cv2.setNumThreads(1)
    found = layouts(files)
    readers = {name: read for name, (read, _) in found.items()}
    for name, read in readers.items():
        check(files, read, lossless="JPEG" not in name)
    measure = partial(rates, readers, args.videos, args.rounds)
    snippets, clips = measure(20, 1, 5), measure(6, 10, 10)
    baseline = next(iter(readers))

    def ratio(values: dict[str, list[float]], name: str) -> float:
        return statistics.median(a / b for a, b in zip(values[name], values[baseline], strict=True))

    rows = [
        {
            "layout": name,
            "snippets/s": f"{statistics.median(snippets[name]):.0f}",
            "x TSN": f"{ratio(snippets, name):.2f}",
            "I3D clips/s": f"{statistics.median(clips[name]):.0f}",
            "x TSN (I3D)": f"{ratio(clips, name):.2f}",
            "KiB a flow pair": f"{flow_kib(path, files):.1f}",
        }
        for name, (_, path) in found.items()
    ]
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    jpeg = statistics.mean(len(jpeg) for video in files.jpegs for jpeg in video) / 1024
    print(f"\na frame: {jpeg:.1f} KiB in all; {args.videos} videos, {args.rounds} rounds, OpenCV {cv2.__version__}")


if __name__ == "__main__":
    main()
