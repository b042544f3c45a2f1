"""What every stage shares: errors for people, outputs that are whole or absent, and progress.

No edit here changes a result, so none makes anything run again (`ccs.provenance.NOT_COUNTED`).
A stage is a module with a `main(argv)`; `run(main)` is its `if __name__ == "__main__":` body.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


class CcsError(Exception):
    """Bad input or settings. The message names the file, what was expected, what was found and what to do."""


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Call a stage's `main`; a `CcsError` becomes one message on standard error and exit status 1.

    SIGTERM, as a scheduler or `timeout` sends it, unwinds as Ctrl-C does: workers ended, half-written files removed.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main(argv)
        return
    except CcsError as error:
        print(f"ccs: error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # `... | head`: what reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)  # out here the error no longer holds what it came through, such as a loader and its processes


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    On any error the temporary file is removed and `path` is left as it was, so that a file which exists is whole.
    Raises `CcsError` where the folder cannot be made or written, or `path` not replaced.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CcsError(f"{path}: its folder cannot be made ({error.strerror}): choose another output") from error
    # the suffix is kept last: libraries choose the format by it
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    if not os.access(path.parent, os.W_OK):
        raise CcsError(f"{path}: its folder cannot be written: change its permissions or choose another output")
    try:
        yield part
        try:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            raise CcsError(f"{path}: cannot be written ({error.strerror}): choose another output") from error
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        part.unlink(missing_ok=True)


def remove_left_parts(path: Path) -> None:
    """Remove what `atomic(path)` left in a process that was killed, not what one that is alive is writing."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)\.part{re.escape(path.suffix)}")
    for left in path.parent.iterdir():
        if found := name.fullmatch(left.name):
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except PermissionError:  # it is alive, and another user's
                pass


class _LineBar(tqdm):
    """A progress bar for a log file: one whole line per report instead of carriage returns."""

    @staticmethod
    def status_printer(file: object) -> Callable[[str], None]:
        def report(line: str) -> None:
            if line.strip():
                print(line.strip(), file=sys.stderr, flush=True)

        return report


def progress(iterable: Iterable[T] | None = None, *, total: int | None = None, desc: str, unit: str) -> tqdm:
    """A tqdm bar on standard error with rate and time left; in a log file, a line every ten seconds.

    Iterate over it, or call `.update(n)` when `iterable` is None.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, total=total, desc=desc, unit=unit, file=sys.stderr)
    # what tqdm writes itself (line ends, carriage returns) goes nowhere; only whole lines reach the log
    sink = io.StringIO()
    return _LineBar(iterable, total=total, desc=desc, unit=unit, mininterval=10, maxinterval=10, file=sink)
