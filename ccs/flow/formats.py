"""How `ccs flow videos/ ...` stores the flow of one video: four formats, each with a record of what made it.

    h5    DIR/VIDEO.h5                                  the pipeline's flow shard, of one video: 8 bits, lossless
    jpg   DIR/VIDEO/flow_x_00001.jpg, flow_y_00001.jpg  as TSN's tools write it: 8 bits, lossy
    npy   DIR/VIDEO/flow.npy                            float32 (pairs, 2, H, W)
    flo   DIR/VIDEO/flow_00001.flo                      float32, Middlebury's

Where frames are asked for, they are JPEG of the same size: DIR/VIDEO/img_00001.jpg and following, frame i beside the
pair i that it begins; in HDF5 the group `frames`, as of the pipeline's frames shard.

The record (attributes of the HDF5 file, flow.json in a directory) has the settings, the backend, the source file and
the number of pairs. An output counts as finished when it has its record and everything that the record promises.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import cv2
import h5py
import numpy as np

from ccs import hdf5
from ccs.flow import shard
from ccs.flow.quantise import quantise_counting
from ccs.stage import (
    FULL,
    CcsError,
    atomic,
    check_name,
    error_number,
    part_of,
    remove,
    remove_left_parts,
    writing,
)

KEY = "000000"  # of the only video in an HDF5 file
RECORD = "flow.json"
FRAME = "img_{:05d}.jpg"
_FLOW = re.compile(r"flow\.(json|npy)|flow(_[xy])?_\d{5,}\.(jpg|flo)")  # what an output directory may hold
_FRAMES = re.compile(r"img_\d{5,}\.jpg")  # and what else, by its record
JPEG_CHUNK = 1 << 16  # bytes of frames in an HDF5 file
SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of HDF5

Encoded = TypeVar("Encoded")  # pairs as a format stores them


class Encoding(NamedTuple):
    """How flow becomes bytes; None where the format has no such."""

    bound: float | None  # of the 8-bit formats, px
    quality: int | None  # of JPEG
    first_number: int | None  # in the names of numbered files, of pairs and of frames


class Output(Generic[Encoded]):
    """The output of one video while it is written at `part`; the pairs come in order."""

    suffix = ""  # none: a directory
    eight_bit = False
    quantised = False  # whether it stores what `ccs.flow.quantise` makes, as it is

    def __init__(self, part: Path, video: str, encoding: Encoding):
        self.part, self.video, self.encoding = part, video, encoding

    @staticmethod
    def encode(flow: np.ndarray, encoding: Encoding) -> tuple[Encoded, int]:
        """What is stored of each pair of `flow`, float32 (pairs, 2, H, W), and how many values were clipped."""
        raise NotImplementedError

    def write(self, first: int, encoded: Encoded) -> None:
        """Store encoded pairs, the first of which is pair `first` of the video."""
        raise NotImplementedError

    def write_frames(self, first: int, jpegs: Sequence[bytes]) -> None:
        """Store frames as JPEG, the first of which is frame `first` of the video."""
        raise NotImplementedError

    def finish(self, record: dict) -> None:
        """Write the record, to which a format may add; afterwards only the name is missing."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of open files; what is not finished is given up."""

    @classmethod
    def complete(cls, path: Path, record: Mapping) -> bool:
        """Whether the output at `path` holds every pair of its record."""
        raise NotImplementedError


class Hdf5(Output[np.ndarray]):
    """A flow shard of one video; see `ccs.flow.shard`."""

    suffix = ".h5"
    eight_bit = quantised = True

    def __init__(self, part: Path, video: str, encoding: Encoding):
        super().__init__(part, video, encoding)
        self.file = hdf5.create(part)
        self.file.create_dataset("video", data=[video], dtype=h5py.string_dtype())

    @staticmethod
    def encode(flow: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, int]:
        assert encoding.bound is not None
        return quantise_counting(flow, encoding.bound)

    def write(self, first: int, encoded: np.ndarray) -> None:
        if first == 0:
            self.pairs = self.file.create_dataset(
                f"flow/{KEY}",
                shape=encoded.shape,
                maxshape=(None, *encoded.shape[1:]),  # how many there are is known at the end
                dtype=np.uint8,
                chunks=(1, *encoded.shape[1:]),
                track_times=False,
                **hdf5.blosc(*shard.COMPRESSION),
            )
        self.pairs.resize(first + len(encoded), axis=0)
        self.pairs[first:] = encoded

    def write_frames(self, first: int, jpegs: Sequence[bytes]) -> None:
        if first == 0:
            self.frames = self.file.create_group(f"frames/{KEY}")
            shape = {"shape": (0,), "maxshape": (None,), "chunks": (JPEG_CHUNK,)}
            self.frames.create_dataset("jpeg", dtype=np.uint8, track_times=False, **shape)
            self.offset = [0]
        self.offset += (self.offset[-1] + np.cumsum([len(jpeg) for jpeg in jpegs])).tolist()
        data = self.frames["jpeg"]
        begin = len(data)
        data.resize(self.offset[-1], axis=0)
        data[begin:] = np.frombuffer(b"".join(jpegs), np.uint8)

    def finish(self, record: dict) -> None:
        self.pairs.attrs["clipped"] = record["clipped"]
        if has_frames(record):
            self.frames.create_dataset("offset", data=np.array(self.offset, np.int64), track_times=False)
            self.frames.attrs.update({key: record[key] for key in ("height", "width", "fps")}, video=self.video)
        for key, value in record.items():
            self.file.attrs[key] = json.dumps(value) if isinstance(value, dict) else value
        hdf5.finish(self.file)

    def close(self) -> None:
        hdf5.abandon(self.file)

    @classmethod
    def complete(cls, path: Path, record: Mapping) -> bool:
        with hdf5.opened(path) as file:
            (video,) = hdf5.texts(file, "video")
            expected = shard.VideoFrames(KEY, video, record["num_pairs"] + 1, record["height"], record["width"])
            if has_frames(record):
                _, offset = hdf5.frames(file[f"frames/{KEY}"])
                if len(offset) != record["num_frames"] + 1:
                    return False
        shard.verify(path, [expected])
        return True


class _Folder(Output[Encoded]):
    """A directory with files that have numbers, those of pairs and those of frames, and the record."""

    names: tuple[str, ...] = ()  # of the files of a pair

    num_bytes = 0  # of all files with numbers

    def write_frames(self, first: int, jpegs: Sequence[bytes]) -> None:
        self._put((FRAME,), first, [[jpeg] for jpeg in jpegs])

    def _put(self, names: tuple[str, ...], first: int, contents: Sequence[Sequence[bytes]]) -> None:
        assert self.encoding.first_number is not None
        for number, files in enumerate(contents, start=first + self.encoding.first_number):
            for name, content in zip(names, files, strict=True):
                self.num_bytes += (self.part / name.format(number)).write_bytes(content)

    def finish(self, record: dict) -> None:
        self.close()
        record["num_bytes"] = self.num_bytes
        (self.part / RECORD).write_text(json.dumps(record, indent=1) + "\n")

    @classmethod
    def complete(cls, path: Path, record: Mapping) -> bool:
        names = set()
        for kind, count in ((cls.names, record["num_pairs"]), ((FRAME,) * has_frames(record), record["num_frames"])):
            names |= {name.format(record["settings"]["first_number"] + i) for name in kind for i in range(count)}
        with os.scandir(path) as entries:  # in which others may have put files of other names
            ours = (entry for entry in entries if is_ours(entry.name, record) and re.search(r"_\d", entry.name))
            sizes = {entry.name: entry.stat().st_size for entry in ours}
        return set(sizes) == names and 0 not in sizes.values() and sum(sizes.values()) == record.get("num_bytes", 0)


class _Numbered(_Folder[list[list[bytes]]]):
    """Files with a number for each pair."""

    def write(self, first: int, encoded: list[list[bytes]]) -> None:
        self._put(self.names, first, encoded)


class Jpeg(_Numbered):
    """TSN's layout. A value is (flow + bound) * 255 / (2 * bound), rounded: unlike in HDF5, no motion is 127.5."""

    eight_bit = True
    names = ("flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg")

    @staticmethod
    def encode(flow: np.ndarray, encoding: Encoding) -> tuple[list[list[bytes]], int]:
        assert encoding.bound is not None
        assert encoding.quality is not None
        # in double precision and with halves to even, as TSN's tools do: no motion becomes 128
        values = np.rint((flow + np.float64(encoding.bound)) * 255 / (2 * encoding.bound))
        values = np.clip(values, 0, 255).astype(np.uint8)
        options = [cv2.IMWRITE_JPEG_QUALITY, encoding.quality]
        files = [[cv2.imencode(".jpg", plane, options)[1].tobytes() for plane in pair] for pair in values]
        return files, int(np.count_nonzero(np.abs(flow) > encoding.bound))


class Middlebury(_Numbered):
    """A tag, width, height, then (x, y) of each pixel; little endian."""

    names = ("flow_{:05d}.flo",)

    @staticmethod
    def encode(flow: np.ndarray, encoding: Encoding) -> tuple[list[list[bytes]], int]:
        height, width = flow.shape[2:]
        head = struct.pack("<4sii", b"PIEH", width, height)
        return [[head + pair.transpose(1, 2, 0).astype("<f4").tobytes()] for pair in flow], 0


class GrowingArray:
    """An npy file, appended to, so that it need not fit into memory; `numpy.load(path, mmap_mode="r")` reads it so."""

    def __init__(self, path: Path) -> None:
        self.file = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self.shape, self._kind = (0,), "<f4"

    def append(self, rows: np.ndarray) -> None:
        """Add rows, of the shape and type of those before."""
        if self.shape[0] == 0:
            self._kind = rows.dtype.newbyteorder("<").str
            self._write_head((0, *rows.shape[1:]))
        self.file.write(np.ascontiguousarray(rows).data)  # ndarray.tofile would not say why it cannot
        self.shape = (self.shape[0] + len(rows), *rows.shape[1:])

    def finish(self) -> None:
        """Say how many rows there are; what is not on disk now is so afterwards."""
        self.file.seek(0)
        self._write_head(self.shape)
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()

    def _write_head(self, shape: tuple[int, ...]) -> None:
        # numpy leaves room for the first axis to grow, so that the length does not depend on it
        head = {"descr": self._kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, head)


class Numpy(_Folder[np.ndarray]):
    """One array of all pairs."""

    def __init__(self, part: Path, video: str, encoding: Encoding):
        super().__init__(part, video, encoding)
        self.array = GrowingArray(part / "flow.npy")

    @staticmethod
    def encode(flow: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, int]:
        return flow.astype("<f4", copy=False), 0

    def write(self, first: int, encoded: np.ndarray) -> None:
        self.array.append(encoded)

    def finish(self, record: dict) -> None:
        self.array.finish()
        super().finish(record)

    def close(self) -> None:
        self.array.close()

    @classmethod
    def complete(cls, path: Path, record: Mapping) -> bool:
        if not super().complete(path, record):
            return False
        pairs = np.load(path / "flow.npy", mmap_mode="r")  # fails where the file is shorter than its head says
        return pairs.shape == (record["num_pairs"], 2, record["height"], record["width"])


FORMATS: dict[str, type[Output]] = {"h5": Hdf5, "jpg": Jpeg, "npy": Numpy, "flo": Middlebury}


def read_record(path: Path) -> dict | None:
    """The record of the output at `path`; None where there is none or it cannot be read."""
    try:
        if path.is_dir():
            record = json.loads((path / RECORD).read_text())
        else:
            with hdf5.opened(path) as file:
                record = dict(file.attrs)
            record.update({key: json.loads(record[key]) for key in ("settings", "source")})
        blocks = isinstance(record["settings"], dict) and isinstance(record["source"], dict)
        return record if blocks and {"backend", "num_pairs"} <= set(record) else None
    except (CcsError, *hdf5.ERRORS):
        return None


def is_visualized(record: Mapping | None) -> bool:
    """Whether an MP4 belongs to the output of this record."""
    return bool(record and record["settings"].get("visualize"))


def has_frames(record: Mapping | None) -> bool:
    """Whether the output of this record has the frames with it."""
    return bool(record and record["settings"].get("rgb"))


def is_ours(name: str, record: Mapping | None) -> bool:
    """Whether this tool has put the file `name` into the output directory of this record."""
    return bool(_FLOW.fullmatch(name) or (has_frames(record) and _FRAMES.fullmatch(name)))


def is_complete(path: Path, format: str, record: Mapping) -> bool:
    """Whether the output at `path` holds everything that its record promises."""
    try:
        return FORMATS[format].complete(path, record)
    except (CcsError, EOFError, *hdf5.ERRORS):
        return False


def obstacle(path: Path, format: str) -> str | None:
    """None, or what stands at `path` that must not be replaced: what this tool has not written, or another format."""
    if not os.path.lexists(path):
        return None
    if path.is_dir() != (not FORMATS[format].suffix):
        return "a directory" if path.is_dir() else "a file"
    record = read_record(path)
    if not path.is_dir():
        try:
            if _is_locked(path):
                return "a file that is in use"
            with h5py.File(path, **hdf5.READING):
                return None if record else "an HDF5 file that this tool has not written"
        except (OSError, RuntimeError) as error:
            if number := error_number(error):
                return f"a file that cannot be read ({os.strerror(number)})"
        with open(path, "rb") as file:  # damaged: made anew
            return None if file.read(len(SIGNATURE)) == SIGNATURE else "a file that is no HDF5"
    if path.is_symlink():
        return "a link to a directory"
    names = sorted(os.listdir(path))
    if others := [name for name in names if not is_ours(name, record)]:
        return f"a directory with other files, such as {others[0]}"
    if names and RECORD not in names:
        return f"a directory with {names[0]}, but without {RECORD}: flow of another tool"
    made = record.get("settings", {}).get("format", format) if record else format
    return None if made == format else f"flow in the format {made}"


@contextmanager
def written(path: Path, format: str) -> Generator[Path]:
    """As `ccs.stage.atomic`, also for a format that is a directory."""
    if FORMATS[format].suffix:
        with atomic(path) as part:
            yield part
        return
    check_name(path)
    remove_left_parts(path)
    part, old = part_of(path), part_of(path, ".old")
    try:
        with writing(path):
            try:
                part.mkdir(parents=True)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise CcsError(f"{path}: cannot be made ({error.strerror}): choose another output") from error
            yield part
            if path.exists():  # a directory cannot be renamed onto one that has files
                path.rename(old)
            part.rename(path)
    finally:
        remove(part)
        remove(old)


def remove_leftovers(bases: Iterable[Path]) -> None:
    """Remove what killed runs have left of the outputs `bases`, which are without suffix, in any format."""
    suffixes = {".mp4", *(each.suffix for each in FORMATS.values())}
    for base in bases:
        for suffix in suffixes:
            remove_left_parts(base.with_name(base.name + suffix))


def _is_locked(path: Path) -> bool:
    """Whether a process that locks its files, such as HDF5 by itself, is writing this one."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False
