"""benchmarks/train.py on the carried shard.

train_bench.py --backbone bninception --workers 0 8 15 ...

Flags are its own.
"""

import runpy
import shutil
import sys

import common

ROOT = common.HERE.parent
target = ROOT / "benchmarks" / "out" / "train" / "real" / "shards"
target.mkdir(parents=True, exist_ok=True)
shutil.copy2(common.HERE / "0000.h5", target / "0000.h5")
sys.argv = ["benchmarks/train.py", "--case", "real", "--data", str(common.HERE / "data" / "videos"), *sys.argv[1:]]
sys.path.insert(0, str(ROOT / "benchmarks"))
runpy.run_path(str(ROOT / "benchmarks" / "train.py"), run_name="__main__")
