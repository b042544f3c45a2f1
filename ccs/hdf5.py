"""HDF5 files, opened, written and checked in one way by every stage.

None is locked: what is written has a name of its own until it is whole, what is read does not change, and not every
file system has locks. A disk that is full while one is written is an `OSError`, as of any other file. Of what is read
nothing is believed: it may declare more than memory holds, or name other files of the machine as parts of itself.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from h5py import h5d, h5l, h5p

try:
    import hdf5plugin  # registers Blosc
except ModuleNotFoundError:  # those who want flow as JPEGs need none
    hdf5plugin = None

from ccs.stage import FULL, CcsError, error_number, install

# Chunks are read once and not again, so HDF5's cache of 8 MiB a dataset is pure cost.
READING = {"mode": "r", "rdcc_nbytes": 0, "locking": False}
Compressor = Literal["lz4hc", "zstd"]  # of Blosc
RESERVE = 1 << 14  # bytes that HDF5 may need more than it says
# of HDF5, and of content that cannot be
ERRORS = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    IndexError,
    OverflowError,
    MemoryError,
)


# -- writing -----------------------------------------------------------------------------------------------------------
def blosc(compressor: Compressor, level: int) -> Mapping:
    """Options of `create_dataset` for Blosc without shuffling, which only slows flow.

    Raises `CcsError` where hdf5plugin is not installed.
    """
    if hdf5plugin is None:
        raise CcsError(
            "HDF5 files with flow need Blosc, expected the package hdf5plugin, found it not installed: "
            f"{install('h5')}, or take another format"
        )
    return hdf5plugin.Blosc(cname=compressor, clevel=level, shuffle=hdf5plugin.Blosc.NOSHUFFLE)


@contextmanager
def created(path: Path, **options: object) -> Generator[h5py.File]:
    """A new file, as `create` makes it; after an error it holds nothing of use and is closed."""
    file = create(path, **options)
    try:
        yield file
    except BaseException:
        abandon(file)
        raise
    finish(file)


def create(path: Path, **options: object) -> h5py.File:
    """A new file to be written, and then to be given to `finish` or `abandon`. `options` are those of `h5py.File`."""
    # a lock would also outlive the file by the moment in which an ffmpeg that another thread starts inherits it
    return h5py.File(path, "w", driver=_DRIVER, locking=False, rdcc_nbytes=0, **options)


def _write_at_once(properties: h5p.PropFAID) -> None:
    """Data when they are given, the rest by `finish`: nothing where Python drops an object and no error is raised."""
    properties.set_fapl_sec2()
    properties.set_sieve_buf_size(0)
    cache = properties.get_mdc_config()
    cache.evictions_enabled = False
    cache.incr_mode, cache.flash_incr_mode, cache.decr_mode = 0, 0, 0  # off, as it must be then
    properties.set_mdc_config(cache)


_DRIVER = "ccs"
h5py.register_driver(_DRIVER, _write_at_once)


def finish(file: h5py.File) -> None:
    """Write what is not written yet, and close. Raises `OSError` where there is no room for that.

    HDF5 can neither close nor forget a file when it could not write its metadata: it crashes then, or when Python ends.
    So they have their room before it begins.
    """
    descriptor = os.dup(file.id.get_vfd_handle())
    try:
        try:
            _reserve(descriptor, file.id.get_filesize() + file.id.get_mdc_size()[2] + RESERVE)
            file.flush()
        except BaseException:
            abandon(file)
            raise
        file.close()
        # where the file ends by its superblock, whose versions 0 and 1 have that after three other addresses, 2 and 3
        # after two, each of 8 bytes
        head = os.pread(descriptor, 48, 0)
        end = head[40:48] if head[8] < 2 else head[28:36]
        os.ftruncate(descriptor, int.from_bytes(end, "little"))
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size: int) -> None:
    """Room for the first `size` bytes, of which some in the middle may not be written yet. What is there is left alone:
    where a file system cannot reserve, as NFS, the C library reads and writes in every block of the range.
    """
    if not hasattr(os, "posix_fallocate"):  # on macOS
        return
    position = os.lseek(descriptor, 0, os.SEEK_CUR)  # which HDF5's descriptor of the file shares
    end = os.fstat(descriptor).st_size
    try:
        begin = 0
        while begin < size:
            hole = os.lseek(descriptor, begin, os.SEEK_HOLE) if begin < end else begin
            try:
                data = os.lseek(descriptor, hole, os.SEEK_DATA)
            except OSError as error:  # all that follows is one
                if error.errno != errno.ENXIO:
                    raise
                data = size
            if hole < size:
                os.posix_fallocate(descriptor, hole, min(data, size) - hole)
            begin = data
    except OSError as error:
        if error.errno in FULL:
            raise
        # else a file system that cannot do so
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)


def abandon(file: h5py.File) -> None:
    """Close a file that is to be removed, or is closed already: what it has not written goes into memory."""
    if file:
        with _void() as void:
            os.dup2(void, file.id.get_vfd_handle(), inheritable=False)
        file.close()


@contextmanager
def _void() -> Generator[int]:
    """The descriptor of a file without a name, which takes anything."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("void")
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()


# -- reading -----------------------------------------------------------------------------------------------------------
def opened(path: Path, kind: str = "an HDF5 file", stage: str = "the stage that makes it") -> h5py.File:
    """The file `path`, open for reading.

    Args:
        kind: what it should be, for messages.
        stage: what makes it, for messages.

    Raises:
        CcsError: it is missing, cannot be opened, is damaged, or has parts in other files.
    """
    try:
        file = h5py.File(path, **READING)
        try:
            if elsewhere := file.id.links.visit(_in_another_file, info=True):
                raise ValueError(f"{os.fsdecode(elsewhere)} is in another file, which is not read")
        except BaseException:
            file.close()
            raise
    except FileNotFoundError as error:
        raise CcsError(f"{path}: expected {kind}, found none; run {stage} first") from error
    except ERRORS as error:
        problem = f"expected a whole {kind.partition(' ')[2]}, found one that is cut short or of another kind"
        raise _unreadable(path, problem, error, stage) from error
    return file


def _in_another_file(name: bytes, link: h5l.LinkInfo) -> bytes | None:
    """The name of such a link; `visit` goes on after None."""
    return None if link.type in (h5l.TYPE_HARD, h5l.TYPE_SOFT) else name


@contextmanager
def reading(path: Path, what: str) -> Generator[None]:
    """Errors of HDF5, and of content that cannot be, as a `CcsError` about `path`."""
    try:
        yield
    except ERRORS as error:
        raise _unreadable(path, f"{what} cannot be read", error, "the stage that makes it") from error


def _unreadable(path: Path, problem: str, error: BaseException, stage: str) -> CcsError:
    """What is wrong with the file, or with what it is on: a good file that cannot be reached is not to be deleted."""
    if number := error_number(error):
        return CcsError(
            f"{path}: cannot be read now ({os.strerror(number)}), which says nothing against the file: check its "
            "permissions and its disk, and run the same command again"
        )
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return CcsError(f"{path}: {problem}, or memory is short ({reason}): run this where there is more of it")
    return CcsError(f"{path}: {problem} ({reason}); the file is damaged: delete it and run {stage} again")


def dataset(group: h5py.Group, name: str, kind: type[np.generic], num_axes: int) -> h5py.Dataset:
    """The dataset `name`; an error of `ERRORS` where it is none of this kind and so many axes, or not all is there."""
    found = group[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None or len(found.shape) != num_axes:
        raise ValueError(f"{name} is no dataset of {num_axes} axes")
    if not np.issubdtype(found.dtype, kind):
        raise ValueError(f"{name} is of the type {found.dtype}")
    how = found.id.get_create_plist()
    if how.get_layout() == h5d.VIRTUAL or how.get_external_count():
        raise ValueError(f"{name} is in another file, which is not read")
    # what was never written reads as zeros, however much of it is declared
    if found.chunks and how.get_nfilters():
        num_chunks = math.prod(-(-side // chunk) for side, chunk in zip(found.shape, found.chunks, strict=True))
        whole = found.id.get_num_chunks() == num_chunks
    else:
        whole = found.id.get_storage_size() >= math.prod(found.shape) * found.dtype.itemsize
    if not whole:
        raise ValueError(f"of {name}, {'x'.join(map(str, found.shape))} {found.dtype}, not all was written")
    return found


def texts(group: h5py.Group, name: str) -> list[str]:
    """The texts of the dataset `name`, which has one axis; errors as of `dataset`."""
    return dataset(group, name, np.generic, 1).asstr()[:].tolist()


def frames(group: h5py.Group) -> tuple[h5py.Dataset, np.ndarray]:
    """Of a video in a frames shard its JPEGs end to end and where each begins, int64 (T+1). Errors as of `dataset`."""
    jpeg = dataset(group, "jpeg", np.uint8, 1)
    offset = dataset(group, "offset", np.integer, 1)[:].astype(np.int64)
    if not len(offset) or offset[0] != 0 or offset[-1] != len(jpeg) or np.any(np.diff(offset) < 4):
        raise ValueError("the offsets of its frames do not fit its JPEGs")
    return jpeg, offset
