"""What the networks cost: parameters and multiply-adds of backbones, connection and shared block, and peak memory.

    python benchmarks/models.py             # costs of one training clip (3 segments, 224 px)
    python benchmarks/models.py --memory    # peak memory of scoring one video: 25 segments, 10 crops, 224 px

Multiply-adds are half of what torch's FlopCounterMode counts. Memory is a process's peak resident set over that of the
same process before it has read a video, as the CPU has it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from ccs.models.network import CCS, NetworkSettings

BACKBONES = {"bninception": 5, "resnet101": 5, "vgg16": 5, "i3d": 10}


def main() -> None:
    """Print a table of costs, or of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--backbone", choices=BACKBONES, help="the peak of this one alone, in this process")
    args = parser.parse_args()
    if args.backbone:
        print(peak(args.backbone))
    elif args.memory:
        print("| backbone | peak memory of a video, MiB |\n|---|---|")
        for name in BACKBONES:
            command = [sys.executable, __file__, "--backbone", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"| {name} | {int(done.stdout):,} |", flush=True)
    else:
        costs()


def costs() -> None:
    """Parameters in millions and multiply-adds in billions, with shares of the two backbones'."""
    print("| backbone | two backbones | connection block | shared block |\n|---|---|---|---|")
    for name, length in BACKBONES.items():
        network = CCS(101, NetworkSettings(backbone=name, weights="none", flow_length=length), segments=3).eval()
        with FlopCounterMode(network, display=False) as counter, torch.no_grad():
            network(*clip(network, 3, length))
        counted = counter.get_flop_counts()
        parts = {"backbones": ("rgb", "flow"), "connection": ("connection",), "shared": ("head",)}
        cells, whole = [], None
        for modules in parts.values():
            millions = sum(p.numel() for each in modules for p in getattr(network, each).parameters()) / 1e6
            billions = sum(sum(counted[f"CCS.{each}"].values()) for each in modules) / 2e9
            whole = whole or (millions, billions)
            share = f" ({millions / whole[0]:.1%}, {billions / whole[1]:.1%})" if whole[0] != millions else ""
            cells.append(f"{millions:.2f} M, {billions:.2f} G{share}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def clip(network: CCS, segments: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One video's segments at 224 px, of random values."""
    frames = length if network.rgb.is_3d else 1
    shapes = ((1, segments, frames, 3, 224, 224), (1, segments, length, 2, 224, 224))
    return tuple(torch.randint(1, 256, shape, dtype=torch.uint8) for shape in shapes)


def peak(name: str, crops: int = 2) -> int:
    """MiB that scoring one video adds; crops are scored one after the other, so two tell what ten need."""
    torch.set_num_threads(1)
    length = BACKBONES[name]
    network = CCS(101, NetworkSettings(backbone=name, weights="none", flow_length=length), segments=3).eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    every_crop = [clip(network, 25, length) for _ in range(10)]
    with torch.inference_mode():
        for rgb, flow in every_crop[:crops]:
            network(rgb, flow)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


if __name__ == "__main__":
    main()
