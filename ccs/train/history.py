"""What training tells of itself: a row per epoch, as history.csv at the end and for TensorBoard all along."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch.utils.tensorboard import SummaryWriter

from ccs.stage import CcsError, atomic

# Losses, accuracies in percent and the share of active triplets are means over the epoch's videos; `waiting` is the
# share of its training time that was spent waiting for clips; memory in MiB: of the process with what its loader's
# workers have for themselves, and the most that it had on the GPU.
COLUMNS = ("epoch", "lr", "loss", "loss_triplet", "loss_embedding", "loss_cross_entropy", "active_triplets")
COLUMNS += ("train_rgb", "train_flow", "val_rgb", "val_flow", "val_fused")
COLUMNS += ("clips_per_second", "waiting", "memory_mb", "gpu_memory_mb")

GROUPS = {"loss": "loss", "train": "accuracy", "val": "accuracy"}  # in TensorBoard, by the name's first word


def write(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write history.csv; what a row lacks is empty."""
    with atomic(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def memory() -> dict[str, float]:
    """The columns of memory, as it is now."""
    process = psutil.Process()
    found = process.memory_info().rss
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # gone since the list was made, or not to be asked
            found += child.memory_full_info().uss
    row = {"memory_mb": round(found / 2**20, 1)}
    if torch.cuda.is_initialized():
        row["gpu_memory_mb"] = round(torch.cuda.max_memory_reserved() / 2**20, 1)
    return row


class TensorBoard:
    """The rows for TensorBoard, in a folder of their own: one file, whatever was interrupted.

    Args:
        folder: made if missing; earlier files of TensorBoard in it are removed.
        rows: of the epochs before this start.

    Raises:
        CcsError: it cannot be made or written.
    """

    def __init__(self, folder: Path, rows: Iterable[Mapping[str, float]]) -> None:
        try:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise CcsError(
                f"{folder}: expected a folder for TensorBoard's files, or none yet; found one that cannot be written "
                f"({error.strerror}): remove it, or choose another place for the history"
            ) from error
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, float]) -> None:
        """One epoch."""
        for name, value in row.items():
            if name != "epoch":
                group = GROUPS.get(name.split("_")[0], "training")
                self._writer.add_scalar(f"{group}/{name}", value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """After the last epoch."""
        self._writer.close()
