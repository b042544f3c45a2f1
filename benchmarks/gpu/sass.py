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
    places = labels(lines)
    return [
        (places[target], place)
        for place, line in enumerate(lines)
        if (target := target_of(line)) in places and places[target] < place
    ]


def labels(lines: list[str]) -> dict[str, int]:
    """The place of each."""
    return {line[:-1]: place for place, line in enumerate(lines) if is_label(line)}


def onward(lines: list[str], place: int, places: dict[str, int]) -> list[int]:
    """Places to which the line at one leads, none of them back; `places` are the labels'."""
    line = lines[place]
    target = target_of(line)
    conditional = line.startswith("@") or re.search(r"BRA\.?\w* +(!?U?P\d)", line)
    following = [] if target and not conditional else [place + 1]
    if target in places and places[target] > place:
        following.append(places[target])
    return following


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
    places = labels(loop)
    end, best, queue = len(loop) - 1, {0: 0}, [(0, 0)]
    while queue:
        cost, place = heapq.heappop(queue)
        if place == end:
            return cost + 1
        if cost > best[place]:
            continue
        for other in onward(loop, place, places):
            new = cost + (not is_label(loop[place]))
            if new < best.get(other, 1 << 60):
                best[other] = new
                heapq.heappush(queue, (new, other))
    raise ValueError("no way through the loop")


def item_loop(lines: list[str]) -> tuple[int, int]:
    """Places of the first and last line of the loop over items: the outermost one."""
    found = loops(lines)
    return max(found, key=lambda loop: loop[1] - loop[0]) if found else (0, len(lines) - 1)


def blocks_with(lines: list[str], pattern: str, at_least: int) -> set[int]:
    """Places in all stretches of code without a jump in which so many lines match."""
    found, block = set(), []
    for place, line in enumerate(lines):
        if is_label(line) and block:
            block = _closed(lines, block, pattern, at_least, found)
        block.append(place)
        if re.search(r"\b(BRA|EXIT)\b", line):
            block = _closed(lines, block, pattern, at_least, found)
    return found


def _closed(lines: list[str], block: list[int], pattern: str, at_least: int, found: set[int]) -> list[int]:
    if sum(bool(re.search(pattern, lines[place])) for place in block) >= at_least:
        found.update(block)
    return []


def longest_way(lines: list[str], first: int, last: int, avoided: set[int]) -> int:
    """Instructions of the longest way forward from one place to another that avoids others; loops are gone once."""
    places = labels(lines)
    best = {first: 0}
    for place in range(first, last):
        if place not in best or place in avoided:
            continue
        for other in onward(lines, place, places):
            if other <= last:
                best[other] = max(best.get(other, 0), best[place] + (not is_label(lines[place])))
    return best[max(best)]
