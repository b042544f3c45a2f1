"""What training tells of itself: a row per epoch, as history.csv at the end and for TensorBoard all along."""

from __future__ import annotations

import csv
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ccs.stage import CcsError, writing

# Losses, accuracies in percent and the share of active triplets are means over the epoch's videos; `lr` is the RGB
# backbone's; `waiting` is the share of its training time that was spent waiting for clips; memory in MiB: of the
# process with what its loader's workers have for themselves, and the most that it had on the GPU.
COLUMNS = ("epoch", "lr", "loss", "loss_triplet", "loss_embedding", "loss_cross_entropy", "active_triplets")
COLUMNS += ("train_rgb", "train_flow", "val_rgb", "val_flow", "val_fused")
COLUMNS += ("clips_per_second", "waiting", "memory_mb", "gpu_memory_mb")

GROUPS = {"loss": "loss", "train": "accuracy", "val": "accuracy"}  # in TensorBoard, by the name's first word


def write(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write history.csv at `path`; what a row lacks is empty."""
    with open(path, "w", newline="") as file:
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

    PyTorch's writer would write from a thread, whose errors are tracebacks.

    Args:
        folder: made if missing; earlier files of TensorBoard in it are removed.
        rows: of the epochs before this start.

    Raises:
        CcsError: it cannot be made or written.
    """

    def __init__(self, folder: Path, rows: Iterable[Mapping[str, float]]) -> None:
        self._path = folder / f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        try:
            with writing(self._path):
                for old in folder.glob("events.out.tfevents.*"):
                    old.unlink()
                folder.mkdir(parents=True, exist_ok=True)
                self._writer = RecordWriter(open(self._path, "wb"))  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise CcsError(
                f"{folder}: expected a folder for TensorBoard's files, or none yet; found one that cannot be written "
                f"({error.strerror}): remove it, or choose another place for the history"
            ) from error
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, float]) -> None:
        """One epoch."""
        values = [
            Summary.Value(tag=f"{GROUPS.get(name.split('_')[0], 'training')}/{name}", simple_value=value)
            for name, value in row.items()
            if name != "epoch"
        ]
        self._write(Event(wall_time=time.time(), step=int(row["epoch"]), summary=Summary(value=values)))

    def close(self) -> None:
        """After the last epoch."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        with writing(self._path):
            try:
                self._writer.write(event.SerializeToString())
                self._writer.flush()
            except OSError:
                self._path.unlink(missing_ok=True)
                raise
