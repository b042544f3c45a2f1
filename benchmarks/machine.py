"""What a measurement has to name: the processor that it was made on."""

from __future__ import annotations

import platform
from pathlib import Path

from ccs.flow import kernels


def processor() -> str:
    """Its name; with family, model, caches and vectors, for a name such as `AMD EPYC` says little."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.processor() or platform.machine())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    caches = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / file).read_text().strip() for file in ("level", "type", "size"))
        if kind != "Instruction":
            caches.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join([name, *caches, f"vectors of {32 * kernels.LANES} bits"])
