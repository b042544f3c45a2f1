"""Two epochs of CCS on the carried shard, twice: finite losses with AMP, a checkpoint, and whether repeats are equal.

train_two.py [BACKBONE] [--precision auto|no|bf16|fp16] ...   other flags go to ccs.train
"""

import csv
import os
import sys
import tempfile
import time

import common

backbone, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("resnet18", [])
from ccs.datasets import adapters, manifests
from ccs.train import __main__ as train

manifest = adapters.load(
    "real", {"adapter": "folder", "root": str(common.HERE / "data" / "videos"), "test_fraction": 0.5}
)
manifest = (
    manifest._replace(videos=[v._replace(split="train") for v in manifest.videos])
    if hasattr(manifest, "_replace")
    else manifest
)
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    manifests.write("manifest.csv", {1: manifest}, num_shards=1)
    rows = []
    for number in range(2):
        start = time.perf_counter()
        train.main(
            [
                "--manifest",
                "manifest.csv",
                "--shards",
                str(common.HERE / "0000.h5"),
                "--quarantine",
                str(common.HERE / "quarantine.csv"),
                "--seed",
                "0",
                "--checkpoint",
                f"{number}.pt",
                "--history",
                f"{number}.csv",
                "--backbone",
                backbone,
                "--weights",
                "none",
                "--epochs",
                "2",
                "--batch-classes",
                "4",
                "--batch-videos",
                "2",
                *rest,
            ]
        )
        history = list(csv.DictReader(open(f"{number}.csv")))
        rows.append(history)
        common.say(
            step="two epochs",
            backbone=backbone,
            flags=rest,
            seconds=round(time.perf_counter() - start, 1),
            last={
                k: v
                for k, v in history[-1].items()
                if "loss" in k or "accuracy" in k or k in ("lr", "clips_per_second", "waiting")
            },
        )
    timing = ("seconds", "clips_per_second", "waiting", "memory")
    differ = [k for k in rows[0][-1] if not any(t in k for t in timing) and any(a[k] != b[k] for a, b in zip(*rows))]
    common.say(step="two epochs repeated", backbone=backbone, differing_columns=differ)
