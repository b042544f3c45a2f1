"""Machine code of the CUDA kernels, as nvdisasm (a wheel, nvidia-cuda-nvdisasm) shows it."""

from __future__ import annotations

import heapq
import re
import subprocess
import tempfile
from pathlib import Path


def kernels(code: bytes) -> dict[str, list[str]]:
    """Instructions and labels (ending in a colon) of each kernel of a cubin, in order."""
    import nvidia.cu13

    nvdisasm = Path(next(iter(nvidia.cu13.__path__))) / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        text = subprocess.run([nvdisasm, "-c", file.name], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            lines = found.setdefault(section[1], [])
        elif label := re.match(r"(\.L_x_\d+):", line):
            lines.append(label[1] + ":")
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            lines.append(instruction[1].strip())
    return found


def is_label(line: str) -> bool:
    """Whether a line is none of code."""
    return line.endswith(":")


def loops(lines: list[str]) -> list[tuple[int, int]]:
    """Places of the first and last line of each loop: from a label to a jump back to it."""
    places = {line[:-1]: place for place, line in enumerate(lines) if is_label(line)}
    return [
        (places[target], place)
        for place, line in enumerate(lines)
        if (target := target_of(line)) in places and places[target] < place
    ]


def target_of(line: str) -> str | None:
    """Where a jump goes."""
    jump = re.search(r"\bBRA\b.*?(\.L_x_\d+)", line)
    return jump[1] if jump else None


def iteration_loop(lines: list[str]) -> list[str]:
    """The innermost loop of `iterate` with two barriers: its lines."""
    found = [
        lines[first : last + 1]
        for first, last in loops(lines)
        if sum("BAR.SYNC" in line for line in lines[first : last + 1]) == 2
    ]
    return min(found, key=len)


def shortest_trip(loop: list[str]) -> int:
    """Instructions of a way through a loop, from its label to its jump back, that leaves out all that can be left out.

    What is left out is what few threads need: the exact way for roots that float32 cannot round, and the tile's edge.
    """
    places = {line[:-1]: place for place, line in enumerate(loop) if is_label(line)}
    end, best, queue = len(loop) - 1, {0: 0}, [(0, 0)]
    while queue:
        cost, place = heapq.heappop(queue)
        if place == end:
            return cost + 1
        if cost > best[place]:
            continue
        line = loop[place]
        following = []
        target = target_of(line)
        conditional = line.startswith("@") or re.search(r"BRA\.?\w* +(!?U?P\d|P\d)", line)
        if target in places and places[target] > place:
            following.append(places[target])
        if not (target and not conditional):
            following.append(place + 1)
        for other in following:
            new = cost + (not is_label(line))
            if new < best.get(other, 1 << 60):
                best[other] = new
                heapq.heappush(queue, (new, other))
    raise ValueError("no way through the loop")
