"""What every stage shares: errors for people, outputs that are whole or absent, and progress.

No edit here changes a result, so none makes anything run again (`ccs.provenance.NOT_COUNTED`).
A stage is a module with a `main(argv)`; `run(main)` is its `if __name__ == "__main__":` body.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

from ccs.signals import Stop

T = TypeVar("T")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota or a limit that takes no more
LITTLE = 16 << 20  # bytes free: so few may be why a temporary file could not be written
# PyTorch's, of a GPU and of the CPU; a worker's, of which a traceback has come
NO_MEMORY = re.compile(
    r"\b(CUDA( error:)?|HIP) out of memory|\bC(UBLAS|UDNN)_STATUS_ALLOC_FAILED"
    r"|DefaultCPUAllocator: can't allocate memory|^[\w.]*MemoryError\b",
    re.MULTILINE,
)
PART = re.compile(r"\..+\.\d+(\.old)?\.part(\..*)?", re.DOTALL)  # any name that `part_of` gives


class CcsError(Exception):
    """Bad input or settings. The message names the file, what was expected, what was found and what to do."""


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Call a stage's `main`; a `CcsError`, or memory that ran out, becomes one message on standard error and exit
    status 1.

    SIGTERM, as a scheduler or `timeout` sends it, unwinds as Ctrl-C does: workers ended, half-written files removed.
    What standard error does not take, its log being on a full disk for instance, is lost, and the work goes on.
    """
    open_closed_streams()
    stop = Stop()
    if sys.stderr is sys.__stderr__ and sys.__stderr__:
        sys.stderr = _unfailing(sys.__stderr__)
    status = 0
    try:
        with stop:
            main(argv)
            sys.stdout.flush()
    except CcsError as error:
        status = 128 + stop.number if stop.number else 1  # a signal to a group also ends what the stage waits for
        if not stop.number:
            print(f"ccs: error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # `... | head`: what reads the output has seen enough
        status = 141
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or NO_MEMORY.search(str(error))):
            raise
        print(f"ccs: error: {_out_of_memory(error)}", file=sys.stderr)
        status = 1
    except OSError as error:
        if error.errno == errno.ENOMEM:  # of a new process, or of a file that is mapped
            told = _out_of_memory(error)
        elif error.errno in FULL:
            told = _cannot_write("standard output, or a temporary file", error, sys.stdout.fileno())
        else:
            raise
        print(f"ccs: error: {told}", file=sys.stderr)
        status = 1
    if status:
        give_up_stdout()
        sys.exit(status)  # out here the error no longer holds what it came through, such as a loader and its processes


def _out_of_memory(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = next(filter(NO_MEMORY.search, lines), lines[0]).strip().rstrip(".")  # a loading process's has a traceback
    if re.search("CUDA|HIP|CUBLAS|CUDNN", said):
        return (
            f"the memory of the GPU ran out ({said}). See by nvidia-smi what else is on it; else take less at once: in "
            "training smaller batch_classes or batch_videos (with accumulate a step has as many videos), fewer "
            "segments, or precision: auto; where a network is used, fewer segments or crops"
        )
    return f"memory ran out ({said}). Give the job more, or take less at once: fewer workers, smaller batches or frames"


def install(extra: str) -> str:
    """How to install what an extra of this distribution brings, which no index of packages has."""
    return f"pip install '.[{extra}]' in a checkout of ccs"


def open_closed_streams() -> None:
    """Where the program was started without standard output or error (`>&-`), what is printed is lost: Python has no
    stream there, and the next file that is opened would take its number.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w")  # noqa: SIM115 - for as long as the program runs
            os.set_inheritable(stream.fileno(), True)  # for ffmpeg, and workers
            setattr(sys, name, stream)


def give_up_stdout() -> None:
    """Print what is left to print, unless that cannot be: Python would try once more at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Unfailing(io.FileIO):
    def write(self, data) -> int:
        with suppress(OSError):
            return super().write(data)
        return len(data)


def _unfailing(stream: TextIO) -> TextIO:
    """A stream to the same place, which never fails."""
    file = io.BufferedWriter(_Unfailing(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=True, write_through=True)


def death_of_worker(status: int | None) -> CcsError:
    """What to say of a worker process that ended too early, with this `exitcode`."""
    if status == -signal.SIGKILL:
        how, advice = "was killed", "Most often memory ran out: use fewer workers or give the job more memory."
    elif status is not None and status < 0:
        how, advice = f"died of {signal.Signals(-status).name}", "See above for what it printed, if any."
    else:
        how, advice = f"ended with status {status}", "See above for what it printed."
    return CcsError(f"a worker process {how} before its task was done. {advice}")


# -- outputs that are whole or absent ----------------------------------------------------------------------------------
@contextmanager
def atomic(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    On any error the temporary file is removed and `path` is left as it was, so that a file which exists is whole. What
    killed processes have left of `path` is removed at the start.
    Raises `CcsError` where the folder cannot be made or written, or `path` not replaced, and where the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise _cannot_write(path, error) from error
        raise CcsError(f"{path}: its folder cannot be made ({error.strerror}): choose another output") from error
    check_name(path)
    if not os.access(path.parent, os.W_OK):
        raise CcsError(f"{path}: its folder cannot be written: change its permissions or choose another output")
    remove_left_parts(path)
    part = part_of(path)
    try:
        with writing(path):
            yield part
        try:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        part.unlink(missing_ok=True)


class _TriedError(Exception):
    pass


def check_writable(path: str | os.PathLike[str]) -> None:
    """Before long work: raise `CcsError` where `atomic(path)` would. What is there stays as it is."""
    with suppress(_TriedError), atomic(path) as part:
        part.touch()
        raise _TriedError


@contextmanager
def writing(path: str | os.PathLike[str]) -> Generator[None]:
    """A full disk, a quota or a limit that is met while `path` is written, as a `CcsError` that tells the room left."""
    try:
        yield
    except CcsError:
        raise
    except Exception as error:
        found: BaseException | None = error
        while found and error_number(found) not in FULL:
            found = found.__cause__ or found.__context__
        if found:
            raise _cannot_write(path, found) from error
        raise


def error_number(error: BaseException) -> int | None:
    """The system's number of an error, such as `errno.ENOSPC`; HDF5 tells it in its text. None where there is none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = re.search(r"\berrno = (\d+)", str(error))
    return int(told[1]) or None if told else None


def raise_if_full(said: str, status: int) -> None:
    """`OSError` where a program ended with `status` and these last words because a disk was full."""
    for number in FULL:
        if os.strerror(number) in said or (number == errno.EFBIG and status == -signal.SIGXFSZ):
            raise OSError(number, os.strerror(number))


def _cannot_write(path: str | os.PathLike[str], error: BaseException, place: int | None = None) -> CcsError:
    """What to tell of `path`; `place` is its descriptor, where it has no folder."""
    number = error_number(error)
    reason = os.strerror(number) if number else str(error)
    if number not in FULL:
        return CcsError(f"{path}: cannot be written ({reason}): choose another output")
    where = _existing(Path(path).parent) if place is None else place
    named = getattr(error, "filename", None)
    if isinstance(named, str):  # such as a temporary file that is elsewhere
        folder = _existing(Path(named).parent)
        if os.stat(folder).st_dev != os.stat(where).st_dev:
            path, where = named, folder
    room = f"{_room(where)} left on its disk"
    temporary = _existing(Path(tempfile.gettempdir()))
    if os.stat(temporary).st_dev != os.stat(where).st_dev and shutil.disk_usage(temporary).free < LITTLE:
        room += f", {_room(temporary)} in {temporary}, where temporary files go"
    remedy = "allow larger files (ulimit -f)" if number == errno.EFBIG else "make room"
    return CcsError(
        f"{path}: cannot be written: {reason}; {room}: {remedy}, or choose another output, and run the same command "
        "again"
    )


def _existing(folder: Path) -> Path:
    """The folder, or the next one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.isdir(each))


def _room(where: Path | int) -> str:
    """What a disk takes still, such as 20 KiB."""
    found = os.statvfs(where)
    if found.f_files and not found.f_favail:
        return "0 files"
    size = found.f_bavail * found.f_frsize / 1024
    units = iter(("KiB", "MiB", "GiB"))
    unit = next(units)
    while size >= 1000 and unit != "GiB":
        size, unit = size / 1024, next(units)
    return f"{size:.3g} {unit}"


def part_of(path: Path, kind: str = "") -> Path:
    """Where this process writes what becomes `path`: beside it, with its suffix, as libraries choose the format by it.

    The name is no longer than the file system allows. `kind` sets apart a second one, such as ".old".
    """
    before, after = _around(path)
    return path.with_name(f"{before}{os.getpid()}{kind}{after}")


def check_name(path: Path) -> None:
    """`CcsError` where the file system allows no name as long as that of `path`."""
    length, most = len(os.fsencode(path.name)), _longest_name(path.parent)
    if length > most:
        raise CcsError(
            f"{path}: its name has {length} bytes, and {most} are allowed there: rename what it is made from, or "
            "choose another output"
        )


def _around(path: Path) -> tuple[str, str]:
    """What stands before and behind a process's number in the temporary names of `path`."""
    stem, suffix = path.stem, path.suffix
    room = len("..4194304.old.part")
    if len(os.fsencode(path.name)) + room > _longest_name(path.parent):
        stem = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        suffix = suffix if len(os.fsencode(suffix)) <= 8 else ""
    return f".{stem}.", f".part{suffix}"


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):  # it is not there yet
        return 255


def remove_left_parts(path: Path) -> None:
    """Remove what killed processes have left of `path`, not what one that is alive is writing.

    Of no other output: on a cluster the processes of other nodes look dead. A folder is read once in a process, as in
    one of very many outputs that takes long.
    """
    before, after = _around(path)
    name = re.compile(rf"{re.escape(before)}(\d+)(\.old)?{re.escape(after)}")
    for left in _parts_in(os.path.abspath(path.parent)):
        found = name.fullmatch(left)
        if found and not _is_another_alive(int(found[1])):
            remove(path.with_name(left))


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there and can be removed."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@cache
def _parts_in(folder: str) -> tuple[str, ...]:
    try:
        return tuple(filter(PART.fullmatch, os.listdir(folder)))
    except OSError:  # not there, or not to be read
        return ()


def _is_another_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or no number of a process
        return True
    return process != os.getpid()


# -- progress ----------------------------------------------------------------------------------------------------------
class _LineBar(tqdm):
    """A progress bar for a log file: one whole line per report instead of carriage returns."""

    @staticmethod
    def status_printer(file: object) -> Callable[[str], None]:
        def report(line: str) -> None:
            if line.strip():
                print(line.strip(), file=sys.stderr, flush=True)

        return report

    def update(self, n: float | None = 1) -> bool | None:
        """The first one is reported at once: it tells that the work goes on."""
        begins = not self.n
        reported = super().update(n)
        if begins and self.n and not reported:
            self.refresh()
        return reported


def progress(iterable: Iterable[T] | None = None, *, total: int | None = None, desc: str, unit: str) -> tqdm:
    """A tqdm bar on standard error with rate and time left; in a log file, a line every ten seconds.

    There the first `update` is a line, too. Iterate over it, or call `.update(n)` when `iterable` is None.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, total=total, desc=desc, unit=unit, file=sys.stderr)
    # what tqdm writes itself (line ends, carriage returns) goes nowhere; only whole lines reach the log
    sink = io.StringIO()
    return _LineBar(iterable, total=total, desc=desc, unit=unit, mininterval=10, maxinterval=10, file=sink)
