"""How `ccs features` stores the features of one video, in three formats, each with a record of what made it.

    npy     DIR/VIDEO_rgb.npy, DIR/VIDEO_flow.npy  float32 (windows, D) of a stream
    joined  DIR/VIDEO.npy                          float32 (windows, 2 D): a window's RGB, then its flow
    h5      DIR/VIDEO.h5                           datasets rgb, flow and times

Beside npy and joined: DIR/VIDEO_times.npy, float64 (windows, 2), and DIR/VIDEO.json, the record. In HDF5 it is the
file's attributes. An output is finished when it has its record and all arrays that this promises.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ccs import hdf5
from ccs.flow.formats import GrowingArray
from ccs.stage import CcsError, atomic, check_name, remove_left_parts

TIMES = "times"
KEYS = {"features", "settings", "source", "backend", "num_windows", "widths"}  # of a record
ROWS = 64  # of a chunk in HDF5


class Output:
    """The output `base` of one video while it is written; rows come in order.

    base: its path without a suffix. streams: what there are features of.
    """

    def __init__(self, base: Path, streams: tuple[str, ...]) -> None:
        self.base, self.streams = base, streams
        self._stack = ExitStack()

    @classmethod
    def paths(cls, base: Path, streams: tuple[str, ...]) -> list[Path]:
        """Its files, the one with the record last."""
        raise NotImplementedError

    def write(self, rows: Mapping[str, np.ndarray]) -> None:
        """Append rows of each stream and of times."""
        raise NotImplementedError

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record, and give the files their names."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Leave no trace of what is not finished; what was there before stays."""
        self._stack.__exit__(CcsError, CcsError("abandoned"), None)

    @classmethod
    def shapes(cls, base: Path, streams: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        """Of all that is stored at `base`, by stream; errors of `hdf5.ERRORS` for what is not whole."""
        raise NotImplementedError


class Npy(Output):
    """A file for each stream."""

    def __init__(self, base: Path, streams: tuple[str, ...]) -> None:
        super().__init__(base, streams)
        self._arrays: dict[str, GrowingArray] = {}
        for name, path in self._files(base, streams).items():
            part = self._stack.enter_context(atomic(path))
            self._arrays[name] = GrowingArray(part)
            self._stack.callback(self._arrays[name].close)

    @classmethod
    def _files(cls, base: Path, streams: tuple[str, ...]) -> dict[str, Path]:
        return {name: _beside(base, f"_{name}.npy") for name in (*streams, TIMES)}

    @classmethod
    def paths(cls, base: Path, streams: tuple[str, ...]) -> list[Path]:
        return [*cls._files(base, streams).values(), _beside(base, ".json")]

    def write(self, rows: Mapping[str, np.ndarray]) -> None:
        for name, array in self._arrays.items():
            array.append(rows[name])

    def finish(self, record: Mapping[str, Any]) -> None:
        for array in self._arrays.values():
            array.finish()
        # those before would seem to be of the new record, and new ones without a record another tool's
        before = read_record(self.base, record["settings"]["format"])
        for path in self._files(self.base, tuple(before["widths"])).values() if before else ():
            path.unlink(missing_ok=True)
        with atomic(_beside(self.base, ".json")) as part:
            part.write_text(json.dumps(record, indent=1) + "\n")
        self._stack.close()

    @classmethod
    def shapes(cls, base: Path, streams: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        # fails where a file is shorter than its head says
        return {name: np.load(path, mmap_mode="r").shape for name, path in cls._files(base, streams).items()}


class Joined(Npy):
    """One file, both streams side by side."""

    @classmethod
    def _files(cls, base: Path, streams: tuple[str, ...]) -> dict[str, Path]:
        return {"joined": _beside(base, ".npy"), TIMES: _beside(base, f"_{TIMES}.npy")}

    def write(self, rows: Mapping[str, np.ndarray]) -> None:
        super().write({TIMES: rows[TIMES], "joined": np.hstack([rows[stream] for stream in self.streams])})


class Hdf5(Output):
    """A dataset for each stream."""

    def __init__(self, base: Path, streams: tuple[str, ...]) -> None:
        super().__init__(base, streams)
        part = self._stack.enter_context(atomic(_beside(base, ".h5")))
        self.file = hdf5.create(part)
        self._stack.callback(hdf5.abandon, self.file)

    @classmethod
    def paths(cls, base: Path, streams: tuple[str, ...]) -> list[Path]:
        return [_beside(base, ".h5")]

    def write(self, rows: Mapping[str, np.ndarray]) -> None:
        for name in (*self.streams, TIMES):
            values = rows[name]
            if name not in self.file:
                sizes = {"shape": (0, values.shape[1]), "maxshape": (None, values.shape[1])}
                chunks = (ROWS, values.shape[1])
                self.file.create_dataset(name, dtype=values.dtype, chunks=chunks, track_times=False, **sizes)
            data = self.file[name]
            data.resize(len(data) + len(values), axis=0)
            data[-len(values) :] = values

    def finish(self, record: Mapping[str, Any]) -> None:
        for key, value in record.items():
            self.file.attrs[key] = json.dumps(value) if isinstance(value, dict) else value
        hdf5.finish(self.file)
        self._stack.close()

    @classmethod
    def shapes(cls, base: Path, streams: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        with hdf5.opened(_beside(base, ".h5")) as file:
            return {name: hdf5.dataset(file, name, np.floating, 2).shape for name in (*streams, TIMES)}


FORMATS: dict[str, type[Output]] = {"npy": Npy, "joined": Joined, "h5": Hdf5}


def read_record(base: Path, format: str) -> dict[str, Any] | None:
    """The record of the output `base`; None where there is none or it cannot be read."""
    path = _record_path(base, format)
    try:
        if format == "h5":
            with hdf5.opened(path) as file:
                record = dict(file.attrs)
            record.update({key: json.loads(record[key]) for key in ("settings", "source", "widths")})
        else:
            record = json.loads(path.read_text())
        return record if set(record) >= KEYS and isinstance(record["settings"], dict) else None
    except (CcsError, *hdf5.ERRORS):
        return None


def is_complete(base: Path, format: str, streams: tuple[str, ...], record: Mapping[str, Any]) -> bool:
    """Whether everything that the record promises is there."""
    rows, widths = record["num_windows"], record["widths"]
    wanted = {TIMES: (rows, 2)} | {stream: (rows, widths[stream]) for stream in streams}
    if format == "joined":
        wanted = {TIMES: (rows, 2), "joined": (rows, sum(widths[stream] for stream in streams))}
    try:
        return FORMATS[format].shapes(base, streams) == wanted
    except (CcsError, EOFError, *hdf5.ERRORS):
        return False


def obstacle(base: Path, format: str, streams: tuple[str, ...]) -> str | None:
    """None, or which of the files to be written is there already, and not written by this tool."""
    there = [path for path in FORMATS[format].paths(base, streams) if os.path.lexists(path)]
    record = read_record(base, format)
    if record and record["settings"]["format"] != format:
        return f"{base}: there are features in the format {record['settings']['format']}"
    if there and not record:
        return f"{there[0]}: is there, without a record of this tool"
    return None


def remove_leftovers(base: Path, format: str, streams: tuple[str, ...]) -> None:
    """Remove what killed runs have left of an output."""
    for path in FORMATS[format].paths(base, streams):
        remove_left_parts(path)


def check_names(base: Path, format: str, streams: tuple[str, ...]) -> None:
    """`CcsError` where the file system allows no such names."""
    for path in FORMATS[format].paths(base, streams):
        check_name(path)


def _record_path(base: Path, format: str) -> Path:
    return _beside(base, ".h5" if format == "h5" else ".json")


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)
