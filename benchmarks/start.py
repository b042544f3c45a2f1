"""How long a user waits: `ccs flow` of one short clip, when nothing is compiled yet and when all is.

    python benchmarks/start.py VIDEO [--workers 1] [--repeats 7] [--against CHECKOUT]

Seconds from the command to the first line on standard error, to the first pair on the progress bar and to the end; a
cold call has an empty folder for compiled code, a warm one that of the cold call before. Calls of this checkout and of
another one take turns; medians are printed, and the processor.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import suppress
from pathlib import Path

from machine import processor

HERE = Path(__file__).resolve().parent.parent


def times(checkout: Path, video: Path, workers: int, folder: Path) -> tuple[float, float, float]:
    """Of one call, as in a terminal: to the first line, the first pair and the end, s."""
    line = [sys.executable, "-m", "ccs.cli", "flow", video, "--format", "jpg", "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "NUMBA_CACHE_DIR": str(folder)}
    terminal, far_end = pty.openpty()
    termios.tcsetwinsize(far_end, (24, 100))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        call = subprocess.Popen([*line, "--output", output], cwd=checkout, env=environment, stderr=far_end)
        os.close(far_end)
        said, found, patterns = "", [], [r"\n", r"\b[1-9]\d*(/\d+|pair) \["]
        with suppress(OSError):  # the end of a terminal
            while True:
                said += os.read(terminal, 1 << 16).decode(errors="replace")
                while patterns and re.search(patterns[0], said):
                    found.append(time.perf_counter() - begin)
                    del patterns[0]
        os.close(terminal)
        if call.wait() or patterns:
            raise SystemExit(f"{checkout}: ccs flow has failed:\n{said}")
    return found[0], found[1], time.perf_counter() - begin


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    args = parser.parse_args()
    checkouts = [HERE, *([args.against.resolve()] if args.against else [])]
    found: dict[tuple[Path, str], list[tuple[float, float, float]]] = {}
    for _ in range(args.repeats):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as folder:
                for kind in ("cold", "warm"):
                    seconds = times(checkout, args.video.resolve(), args.workers, Path(folder))
                    found.setdefault((checkout, kind), []).append(seconds)
    print(f"{processor()}, {os.cpu_count()} cores; {args.workers} workers; medians")
    for (checkout, kind), each in found.items():
        line, pair, end = (statistics.median(column) for column in zip(*each, strict=True))
        print(f"{checkout.name:>12} {kind}: first line {line:.2f} s, first pair {pair:.2f} s, end {end:.2f} s")


if __name__ == "__main__":
    main()
