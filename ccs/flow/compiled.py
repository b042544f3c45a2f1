"""Where the CPU engine's machine code is kept, whether it is there, and who compiles it: one process for all others.

Asked before any work, without Numba, which takes long to import.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import llvmlite.binding

SOURCE = Path(__file__).with_name("kernels.py")  # all that is compiled


def processor() -> str:
    """LLVM's name of the processor that code is compiled for, such as znver4."""
    return os.environ.get("NUMBA_CPU_NAME") or llvmlite.binding.get_host_cpu_name()


@cache
def folder() -> str | None:
    """Of code for this very processor, as nodes of a cluster may differ and share the rest; None where none is kept."""
    features = os.environ.get("NUMBA_CPU_FEATURES") or llvmlite.binding.get_host_cpu_features().flatten()
    name = f"{processor()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for path in (os.path.join(base, "ccs", name), str(SOURCE.parent / "__pycache__" / name)):
        with suppress(OSError):
            os.makedirs(path, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
            return path
    return None


def compile_once(compile_all: Callable[[], None]) -> None:
    """Compile the engine for this and all later processes, unless that is done; say what takes so long."""
    path = folder()
    if path is None:
        _say(
            f"every process of every call compiles the flow engine for this processor ({processor()}), which takes "
            "seconds to a minute, as there is no folder to keep it in: name one in the environment variable "
            "NUMBA_CACHE_DIR"
        )
        return
    mark = Path(path, _mark())
    if mark.exists():
        return
    with _alone(path):
        if not mark.exists():
            _say(f"compiling the flow engine for this processor ({processor()}), once; it takes seconds to a minute")
            compile_all()
            with suppress(OSError):  # it is said again next time
                mark.touch()


def _say(text: str) -> None:
    print(f"ccs: flow: {text}", file=sys.stderr)


def _mark() -> str:
    """The name of the file that tells that all is compiled: by these versions, from this source as it is now."""
    found = SOURCE.stat()
    versions = sys.version, metadata.version("numba"), metadata.version("llvmlite")
    told = repr((str(SOURCE), found.st_mtime_ns, found.st_size, versions))
    return f"compiled-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


@contextmanager
def _alone(path: str) -> Generator[None]:
    """While no other process is here, where files can be locked."""
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(open(os.path.join(path, "compiling"), "ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"waiting for another process, which compiles the flow engine for this processor ({processor()})")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
